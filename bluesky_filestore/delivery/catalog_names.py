"""The catalogs that a spool delivers to, by name: found again, merged, renamed and forgotten.

A catalog's name is the address that its user gave; what its server calls itself goes for nothing, for behind a proxy
that is another word. Addresses of one container are one name however they are written. Earlier versions used the
server's word where it answered: such a row, and a second one of the same name, is merged into the catalog's own when
that connects, provided that nobody delivers under it just then.

A catalog is removed in this order: its lease is taken, so that nobody delivers, then its deliveries go some at a time,
so that nobody who puts in documents waits for long, and its row with the last of them: numbers are given out again.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from bluesky_filestore.catalog_address import comparable_address
from bluesky_filestore.errors import SpoolError
from bluesky_filestore.spool.lease import Lease
from bluesky_filestore.spool.ledger import Ledger

__all__ = ["forget_catalog", "recognise", "rename_catalog"]

_AT_ONCE = 500
_PAUSE_SECONDS = 0.002
# Delivered is known better than anything, and parked is what somebody may have asked for; what
# waits was asked for again.
_MOVE = """
INSERT INTO deliveries (run, catalog, state, reason, documents, changed)
SELECT run, ?, state, reason, documents, changed FROM deliveries WHERE catalog = ? AND run = ?
ON CONFLICT DO UPDATE SET
    state = excluded.state, reason = excluded.reason, documents = excluded.documents, changed = excluded.changed
WHERE state NOT IN ('delivered', 'waiting')
    AND (excluded.state = 'delivered' OR (excluded.state = 'parked' AND state <> 'parked'))
"""


def recognise(ledger: Ledger, catalog: int, names: Iterable[str]) -> bool:
    """Merge into a catalog what is known of it under other names, if nobody delivers under them.

    Parameters
    ----------
    ledger : Ledger
        The spool.
    catalog : int
        The number of the catalog, which is ours to deliver to.
    names : iterable of str
        Its addresses; empty ones are none.

    Returns
    -------
    bool
        Whether there was anything: what is to be delivered has changed then.
    """
    wanted = {comparable_address(name) for name in names if name}
    others = [each for each, (known, _) in ledger.catalogs().items() if comparable_address(known) in wanted]
    merged = False
    for other in others:
        if other != catalog:
            with _lease(ledger, other) as is_ours:
                if is_ours:
                    _remove(ledger, other, into=catalog)
                    merged = True
    return merged


def rename_catalog(ledger: Ledger, old: str, new: str) -> None:
    """Have what is kept for one address go to another; if that is known, too, the two become one.

    Raises
    ------
    SpoolError
        If the spool does not know the old address, if both are the same, or if somebody delivers to either.
    """
    number, into = _expected(ledger, old), ledger.known_catalog(new)
    if into == number:
        raise SpoolError(f"{old} and {new} are one catalog in {ledger.directory} already.")
    with _alone_with(ledger, number):
        if into is None:
            with ledger.transaction() as connection:
                connection.execute("UPDATE catalogs SET uri = ?, error = '' WHERE id = ?", (new, number))
            return
        with _alone_with(ledger, into):
            _remove(ledger, number, into=into)


def forget_catalog(ledger: Ledger, uri: str) -> None:
    """Have nothing wait for a catalog any more, and know it no longer.

    Raises
    ------
    SpoolError
        If the spool does not know it, or if somebody delivers to it.
    """
    number = _expected(ledger, uri)
    with _alone_with(ledger, number):
        _remove(ledger, number)


def _expected(ledger: Ledger, uri: str) -> int:
    number = ledger.known_catalog(uri)
    if number is None:
        known = ", ".join(uri for uri, _ in ledger.catalogs().values()) or "none"
        raise SpoolError(f"the spool in {ledger.directory} knows no catalog {uri}; it knows: {known}.")
    return number


def _remove(ledger: Ledger, catalog: int, *, into: int | None = None) -> None:
    """Remove a catalog; another one may get what is known of its runs, where that is known better."""
    while True:
        with ledger.transaction() as connection:
            found = connection.execute("SELECT run FROM deliveries WHERE catalog = ? LIMIT ?", (catalog, _AT_ONCE))
            runs = [run for (run,) in found]
            if into is not None:
                connection.executemany(_MOVE, [(into, catalog, run) for run in runs])
            connection.executemany(
                "DELETE FROM deliveries WHERE catalog = ? AND run = ?", [(catalog, run) for run in runs]
            )
            if len(runs) < _AT_ONCE:
                connection.execute("DELETE FROM catalogs WHERE id = ?", (catalog,))
                return
        time.sleep(_PAUSE_SECONDS)


@contextmanager
def _lease(ledger: Ledger, catalog: int) -> Iterator[bool]:
    """Keep others from delivering to a catalog; whether that can be done."""
    lease = Lease(ledger.lease(catalog))
    is_ours = lease.take()
    try:
        yield is_ours
    finally:
        lease.remove()


@contextmanager
def _alone_with(ledger: Ledger, catalog: int) -> Iterator[None]:
    with _lease(ledger, catalog) as is_ours:
        if not is_ours:
            raise SpoolError(
                f"process {ledger.uploader(catalog)} delivers to {ledger.catalogs()[catalog][0]} from "
                f"{ledger.directory}; end it first."
            )
        yield
