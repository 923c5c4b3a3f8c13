"""How far runs have come in a catalog, written into the database of a spool: inside a transaction of whoever calls.

What somebody has parked stays so, whatever who delivers says of it, until it is asked for. One thing is added to the
reason: that an answer of the catalog is missing. Such a request may be carried out for two minutes from then, and
whoever asks for the run again has to know.
"""

import sqlite3
import time
from collections.abc import Iterable, Mapping

from bluesky_filestore.visible import storable

from .entries import DOUBT, IN_DOUBT, LATEST_SECONDS, DeliveryState, with_doubt

__all__ = ["State", "begin_again", "come_again", "count_anew", "note_doubt", "park", "put_states"]

State = tuple[DeliveryState, str, int]
"""State, reason, and how many more documents were taken."""

_PUT = "INSERT INTO deliveries (run, catalog, state, reason, documents, changed) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT "


def put_states(connection: sqlite3.Connection, catalog: int, states: Mapping[int, State]) -> None:
    """Write down how far runs have come, by whoever delivers."""
    now = time.time()
    connection.executemany(
        f"{_PUT} DO UPDATE SET state = excluded.state, reason = excluded.reason, "
        f"documents = documents + excluded.documents, changed = excluded.changed WHERE state <> 'parked'",
        [(run, catalog, state, storable(reason), more, now) for run, (state, reason, more) in states.items()],
    )
    if doubted := [run for run, (_, reason, _) in states.items() if DOUBT in reason]:
        note_doubt(connection, catalog, doubted)


def note_doubt(connection: sqlite3.Connection, catalog: int, runs: Iterable[int]) -> None:
    """An answer is missing, since now, of runs that may have been parked meanwhile."""
    connection.executemany(
        "UPDATE deliveries SET changed = ?, reason = CASE WHEN instr(reason, ?) THEN reason "
        "ELSE rtrim(reason, '.') || ? END WHERE run = ? AND catalog = ? AND state = 'parked'",
        [(time.time(), DOUBT, with_doubt(""), run, catalog) for run in runs],
    )


def park(connection: sqlite3.Connection, catalog: int, run: int, reason: str) -> None:
    """Have a run not delivered; a doubt that is written down stays."""
    reason = storable(reason)
    connection.execute(
        f"{_PUT} DO UPDATE SET state = excluded.state, changed = excluded.changed, "
        f"reason = CASE WHEN instr(reason, ?) THEN ? ELSE excluded.reason END WHERE state <> 'parked'",
        (run, catalog, "parked", reason, 0, time.time(), DOUBT, with_doubt(reason)),
    )


def begin_again(connection: sqlite3.Connection, catalog: int, runs: Iterable[int], *, is_asked: bool) -> None:
    """Runs shall be delivered from their first document on; those that somebody parked only if that is asked."""
    now = time.time()
    connection.executemany(
        "INSERT INTO deliveries (run, catalog, state, changed) VALUES (?, ?, 'waiting', ?) ON CONFLICT DO "
        "UPDATE SET state = 'waiting', documents = 0, changed = excluded.changed, "
        "reason = CASE WHEN instr(reason, ?) AND changed > ? THEN ? ELSE '' END WHERE ? OR state <> 'parked'",
        [(run, catalog, now, DOUBT, now - LATEST_SECONDS, IN_DOUBT, is_asked) for run in runs],
    )


def come_again(connection: sqlite3.Connection, run: int) -> None:
    """The documents of a run that had ended come once more: it is delivered again, wherever its delivery has ended."""
    now = time.time()
    connection.execute(
        "UPDATE deliveries SET state = 'waiting', documents = 0, changed = ?, "
        "reason = CASE WHEN instr(reason, ?) AND changed > ? THEN ? ELSE '' END "
        "WHERE run = ? AND state IN ('settling', 'delivered', 'parked')",
        (now, DOUBT, now - LATEST_SECONDS, IN_DOUBT, run),
    )


def count_anew(connection: sqlite3.Connection, catalog: int) -> None:
    """Runs that are on their way are gone through from their first document on, whatever was taken of them."""
    statement = "UPDATE deliveries SET documents = 0 WHERE catalog = ? AND state IN ('uploading', 'settling')"
    connection.execute(statement, (catalog,))
