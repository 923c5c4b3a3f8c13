"""What is removed from a spool: runs that somebody wants gone, and those that were delivered a while ago."""

import json
import math
import time

from .ledger import Ledger
from .notes import forget_notes

__all__ = ["forget", "prune"]

# A few at a time: whoever puts in documents has to wait as long as this takes, and is to be kept for 50 ms at most.
_PRUNED_AT_ONCE, _PRUNED_BYTES_AT_ONCE = 100, 1_000_000
_PAUSE_SECONDS = 0.002
# Not the last one of all, whose number would be given out again; of a run not what a later one may refer to.
_FIND = "SELECT id, length(body) FROM documents WHERE id < (SELECT max(id) FROM documents) AND"
_OF_RUN = f"{_FIND} run = ? AND name NOT IN ('resource', 'stream_resource') LIMIT ?"
_RESOURCES = f"{_FIND} producer = ? AND name IN ('resource', 'stream_resource') LIMIT ?"


def forget(ledger: Ledger, run: int) -> None:
    """Remove a run and its documents, wherever it was delivered or not."""
    while _delete_some(ledger, _OF_RUN, run):
        pass
    with ledger.transaction() as connection:
        connection.execute("DELETE FROM deliveries WHERE run = ?", (run,))
        connection.execute("DELETE FROM runs WHERE id = ?", (run,))
        forget_notes(connection, run)


def prune(ledger: Ledger, keep: float, *, seconds: float = math.inf) -> int:
    """Forget the runs that were delivered to every catalog more than `keep` seconds ago; how many they were.

    A catalog that nobody delivers to now, and that has neither taken nor refused a run, does not count: its address
    may be wrong. It ends after so many `seconds`, with a run; what is left is for the next time.
    """
    until = time.monotonic() + seconds
    known = ledger.rows("SELECT DISTINCT catalog FROM deliveries WHERE state IN ('delivered', 'parked')")
    meant = {number for (number,) in known} | {each for each in ledger.catalogs() if ledger.uploader(each) is not None}
    rows = ledger.rows(
        "SELECT id FROM runs WHERE fault = '' AND (SELECT count() FROM deliveries, json_each(?) WHERE run = runs.id"
        " AND catalog = value AND state = 'delivered' AND changed < ?) = ?",
        *(json.dumps(list(meant)), time.time() - keep, len(meant) or -1),
    )
    for count, (run,) in enumerate(rows):
        if time.monotonic() >= until:
            return count
        forget(ledger, run)
    _prune_producers(ledger)
    return len(rows)


def _prune_producers(ledger: Ledger) -> None:
    """Forget the resources of producers that are gone, and all of whose runs are."""
    idle = ledger.rows("SELECT id FROM producers WHERE id NOT IN (SELECT producer FROM runs)")
    # Held until all is done: a number that is free in a new database may be taken at any time.
    leases = {producer: ledger.producer_lease(producer) for (producer,) in idle}
    gone = [producer for producer, lease in leases.items() if ledger.is_current and lease.take()]
    try:
        for producer in gone:
            while _delete_some(ledger, _RESOURCES, producer):
                pass
        with ledger.transaction() as connection:
            connection.executemany("DELETE FROM producers WHERE id = ?", [(producer,) for producer in gone])
    finally:
        for producer in gone:
            leases[producer].remove()


def _delete_some(ledger: Ledger, statement: str, value: int) -> bool:
    """Delete some of the documents that a statement finds for a value; whether there were any."""
    chosen, size = [], 0
    for number, length in ledger.rows(statement, value, _PRUNED_AT_ONCE):
        chosen.append((number,))
        size += length
        if size >= _PRUNED_BYTES_AT_ONCE:
            break
    if not chosen:
        return False
    with ledger.transaction() as connection:
        began = time.monotonic()
        connection.executemany("DELETE FROM documents WHERE id = ?", chosen)
    # As long again: whoever puts in documents looks now and then whether the database is free.
    time.sleep(max(_PAUSE_SECONDS, time.monotonic() - began))
    return True
