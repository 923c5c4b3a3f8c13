"""Spools of writers that have none: where documents are kept for as long as a process lives, or until it was killed.

A writer holds its own by a lease, from before anything is in it until it leaves it. Whoever resumes, or delivers for
others, may deliver from it all the while, and removes it only when nobody holds it, and all that is in it is delivered.
"""

import atexit
import os
import shlex
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from shutil import rmtree

from bluesky_filestore.errors import CatalogError, SpoolError
from bluesky_filestore.logs import get_logger
from bluesky_filestore.spool.database import not_writable
from bluesky_filestore.spool.lease import Lease
from bluesky_filestore.spool.ledger import Ledger
from bluesky_filestore.spool.places import HELD_NAME, kept_instead, private_directory
from bluesky_filestore.spool.status import described_runs, look_at

from .spooling import Spooling

__all__ = ["PrivateSpool", "is_held", "is_over", "left_instead", "remove_if_over"]

_logger = get_logger(__name__)
_MOST_NAMED, _LENGTH = 5, 8


class PrivateSpool:
    """A directory in which a writer without a spool keeps documents, held until it is left or its process ends.

    Parameters
    ----------
    instead_of : Path, optional
        The spool directory that cannot be used.

    Raises
    ------
    SpoolError
        If none can be made.
    """

    def __init__(self, instead_of: Path | None = None) -> None:
        self.directory = private_directory(instead_of)
        self._lease = Lease(self.directory / HELD_NAME)
        self._spooling: Spooling | None = None
        try:
            self._lease.take()
        except OSError as error:
            self.remove()
            raise not_writable(self.directory, error) from error

    def deliver_at_exit(self, spooling: Spooling) -> None:
        """Deliver what is still in it when its process ends: a script may end without closing its writer."""
        self._spooling = spooling
        atexit.register(self._end_at_exit)

    def begin_close(self) -> None:
        """Its writer is being closed, which sees to all that."""
        atexit.unregister(self._end_at_exit)

    def leave(self) -> None:
        """Remove it if all that is in it is delivered, else say what is not; others may see to it from then on."""
        try:
            if self._lease.held and _deliverer(self.directory) in (None, os.getpid()):
                _remove_or_say(self.directory)
        except SpoolError as error:
            _logger.error("%s is kept as it is: %s", self.directory, error)
        finally:
            self._lease.give_up()

    def remove(self) -> None:
        """Remove it, whatever is in it."""
        rmtree(self.directory, ignore_errors=True)
        self._lease.give_up()

    def _end_at_exit(self) -> None:
        if self._spooling is None or not self._spooling.store.is_ours:
            return
        try:
            self._spooling.close()
        except (CatalogError, SpoolError) as error:
            _logger.error("%s", error)
        self.leave()


def is_held(directory: Path) -> bool:
    """Whether a private spool is that of a writer that lives, and delivers from it."""
    return Lease(directory / HELD_NAME).holder() is not None


def is_over(directory: Path) -> bool:
    """Whether a private spool was left by its writer, all in it is delivered, and no other process sees to it."""
    with _left(directory) as is_left:
        return is_left and _deliverer(directory) in (None, os.getpid()) and not any(_left_in(directory))


def remove_if_over(directory: Path) -> None:
    """Remove a private spool that its writer has left, if all that is in it is delivered; else say what is not."""
    with _left(directory) as is_left:
        # Who delivers from it now sees to that later.
        if is_left and _deliverer(directory) is None:
            _remove_or_say(directory)


@contextmanager
def _left(directory: Path) -> Iterator[bool]:
    """Whether nobody puts anything into a private spool any more; nobody else removes it meanwhile."""
    lease = Lease(directory / HELD_NAME)
    try:
        is_ours = lease.take()
    except FileNotFoundError:
        is_ours = False  # Somebody else has removed it.
    try:
        yield is_ours and not _is_written(directory)
    finally:
        lease.give_up()


def _deliverer(directory: Path) -> int | None:
    """The process that delivers from a spool, if one does."""
    with closing(Ledger(directory)) as ledger:
        return next((holder for each in ledger.catalogs() if (holder := ledger.uploader(each)) is not None), None)


def _is_written(directory: Path) -> bool:
    with closing(Ledger(directory)) as ledger:
        return any(ledger.is_written(producer) for (producer,) in ledger.rows("SELECT id FROM producers"))


def _remove_or_say(directory: Path) -> None:
    if left := "; ".join(_left_in(directory)):
        words = "%s keeps what is not delivered: %s. `bluesky-filestore resume %s` goes on with it."
        _logger.warning(words, directory, left, shlex.quote(str(directory)))
    else:
        rmtree(directory, ignore_errors=True)


def _left_in(directory: Path) -> Iterator[str]:
    """What of a spool is still to be delivered, or looked at again, in words; nothing if all is done."""
    found = look_at(directory)
    with closing(Ledger(directory)) as ledger:
        for catalog in found.catalogs:
            runs = dict(catalog.runs)
            runs.pop("delivered", None)
            if runs:
                unfinished = ledger.unfinished(ledger.known_catalog(catalog.catalog) or 0, _MOST_NAMED)
                uids = [*(entry.uid for entry in unfinished), *catalog.parked][:_MOST_NAMED]
                named = ", ".join(uid[:_LENGTH] for uid in uids)
                yield f"{described_runs(runs)} for {catalog.catalog or 'a catalog that is not known'} ({named})"
    yield from (f"{hook.waiting:,} messages for {hook.receiver}" for hook in found.webhooks if hook.waiting)
    yield from (f"a damaged database in {path}" for path in found.damaged)


def left_instead(spool: Path) -> Iterator[str]:
    """What waits where writers kept documents that could not use a spool, and have ended; a sentence a place."""
    for directory in kept_instead(spool):
        with suppress(SpoolError):
            if is_held(directory):
                continue
            found = [each for each in look_at(directory).catalogs if each.uploader is None]
            waiting = sum(each.waiting for each in found)
            settling = sum(each.runs.get("settling", 0) for each in found)
            if waiting or settling:
                runs = f"{settling:,} run{' waits' if settling == 1 else 's wait'} to be looked at again"
                what = f"{waiting:,} documents wait" if waiting else runs
                yield (
                    f"{what} in {directory}, where a writer kept them that could not use the spool in {spool}, and has "
                    f"ended; `bluesky-filestore resume {shlex.quote(str(spool))}` delivers them."
                )
