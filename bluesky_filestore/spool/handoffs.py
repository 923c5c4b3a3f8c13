"""Messages that a run is complete, kept until their receiver has taken them.

A message is put in by whoever delivers, in the transaction that writes down the end of a run: one for each receiver
that the spool knows, whoever will send it. It stays until the receiver has taken it, or it was tried `GIVE_UP_TRIES`
times and for `GIVE_UP_SECONDS`; then it is given up, and stays to be seen for as long again. A receiver that nobody
sends to is forgotten, with what waits for it, after `UNSEEN_SECONDS`.

The name of a receiver is no address: an address may have a password in its very path, and a spool has none.
"""

import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bluesky_filestore.logs import get_logger

from .database import ascending
from .lease import Lease

if TYPE_CHECKING:
    from .ledger import Ledger

__all__ = [
    "GIVE_UP_SECONDS",
    "GIVE_UP_TRIES",
    "Handoff",
    "HandoffStatus",
    "acknowledge",
    "forget_receiver",
    "handoff_lease",
    "handoff_status",
    "has_receivers",
    "insert_handoffs",
    "note_failure",
    "register_receiver",
    "waiting_handoffs",
]

_logger = get_logger(__name__)
GIVE_UP_SECONDS, GIVE_UP_TRIES, UNSEEN_SECONDS = 7 * 86_400.0, 10, 30 * 86_400.0
_SEEN_EVERY = 3600.0
_MOST_SHOWN = 200
_TABLES = """
CREATE TABLE IF NOT EXISTS receivers (name TEXT PRIMARY KEY, seen REAL NOT NULL);
CREATE TABLE IF NOT EXISTS handoffs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, receiver TEXT NOT NULL, id TEXT NOT NULL, run TEXT NOT NULL,
    body BLOB NOT NULL, made REAL NOT NULL, tries INTEGER NOT NULL DEFAULT 0, error TEXT NOT NULL DEFAULT '',
    given_up REAL
)
"""
_HAS_TABLES = "SELECT 1 FROM sqlite_master WHERE name = 'receivers'"


@dataclass(frozen=True, slots=True)
class Handoff:
    """A message to a receiver."""

    id: str
    """By which a receiver can tell that it comes a second time."""
    run: str
    """The uid of the run that it is about."""
    body: bytes
    """What is sent, as JSON."""
    number: int = 0
    """Its place in the order of all."""
    made: float = 0.0
    """When the run had come to its end, in seconds since 1970."""
    tries: int = 0
    """How often it was sent in vain."""


@dataclass(frozen=True, slots=True)
class HandoffStatus:
    """How the messages to a receiver are doing."""

    receiver: str
    """The server, and a sign for the whole of its address."""
    waiting: int = 0
    """How many wait to be sent."""
    oldest: float | None = None
    """For how many seconds the first of them has waited."""
    error: str = ""
    """Why one of those was not taken; empty if none has failed."""
    given_up: int = 0
    """How many were given up."""
    sender: int | None = None
    """The process that sends; None if none does."""

    @property
    def words(self) -> str:
        """The same as a sentence.

        Examples
        --------
        >>> HandoffStatus("https://example.org (b3cf2abf)", 2, 3.0, "It answers with status 503.").words
        '2 messages wait, nobody sends them (It answers with status 503.)'
        """
        words = f"{self.waiting:,} message{' waits' if self.waiting == 1 else 's wait'}" if self.waiting else "all sent"
        if self.waiting and self.sender is None:
            words += f", nobody sends {'it' if self.waiting == 1 else 'them'}"
        words += f" ({self.error})" if self.error else ""
        return f"{words}, {self.given_up:,} given up" if self.given_up else words


def register_receiver(ledger: "Ledger", name: str) -> None:
    """Have messages kept for a receiver from now on, and forget those that nobody has sent to for long."""
    now = time.time()
    seen = dict(ledger.rows("SELECT name, seen FROM receivers")) if _has_tables(ledger) else {}
    old = [other for other, when in seen.items() if other != name and now - when > UNSEEN_SECONDS]
    if abs(now - seen.get(name, 0.0)) < _SEEN_EVERY and not old:
        return
    with ledger.transaction() as connection:
        for table in _TABLES.split(";"):
            connection.execute(table)
        connection.execute("INSERT OR REPLACE INTO receivers VALUES (?, ?)", (name, now))
        connection.execute("DELETE FROM handoffs WHERE given_up < ?", (now - GIVE_UP_SECONDS,))
    for other in old:
        lost = forget_receiver(ledger, other)
        if lost:
            _logger.error("%d messages to %s are given up: nobody has sent to it for 30 days.", lost, other)


def forget_receiver(ledger: "Ledger", name: str) -> int | None:
    """Keep no messages for a receiver any more; how many waited, None if it is not known."""
    if not _has_tables(ledger):
        return None
    with ledger.transaction() as connection:
        known = connection.execute("DELETE FROM receivers WHERE name = ?", (name,)).rowcount
        connection.execute("DELETE FROM handoffs WHERE receiver = ? AND given_up IS NOT NULL", (name,))
        waiting = connection.execute("DELETE FROM handoffs WHERE receiver = ?", (name,)).rowcount
    return waiting if known or waiting else None


def _has_tables(ledger: "Ledger") -> bool:
    # Spools of earlier versions have none.
    return bool(ledger.rows(_HAS_TABLES))


def has_receivers(ledger: "Ledger") -> bool:
    """Whether somebody wants to know of runs."""
    return _has_tables(ledger) and bool(ledger.rows("SELECT 1 FROM receivers LIMIT 1"))


def insert_handoffs(connection: sqlite3.Connection, handoffs: Iterable[Handoff]) -> None:
    """Put messages in for all receivers that there are, inside a transaction."""
    if not (handoffs := list(handoffs)) or not connection.execute(_HAS_TABLES).fetchone():
        return
    statement = "INSERT INTO handoffs (receiver, id, run, body, made) SELECT name, ?, ?, ?, ? FROM receivers"
    connection.executemany(statement, [(each.id, each.run, each.body, time.time()) for each in handoffs])


def waiting_handoffs(ledger: "Ledger", receiver: str, after: int, limit: int) -> list[Handoff]:
    """Some of the messages that wait for a receiver, oldest first, those after a number."""
    if not _has_tables(ledger):
        return []
    rows = ledger.rows(
        "SELECT number, id, run, body, number, made, tries FROM handoffs WHERE receiver = ? AND given_up IS NULL "
        "AND number > ? ORDER BY number LIMIT ?",
        receiver,
        after,
        limit,
    )
    return [Handoff(*row[1:]) for row in ascending(rows, after, ledger.directory)]


def acknowledge(ledger: "Ledger", handoff: Handoff) -> None:
    """A message was taken."""
    with ledger.transaction() as connection:
        connection.execute("DELETE FROM handoffs WHERE number = ?", (handoff.number,))


def note_failure(ledger: "Ledger", handoff: Handoff, error: str) -> bool:
    """A message was sent in vain; whether it is given up."""
    now, tries = time.time(), handoff.tries + 1
    is_over = tries >= GIVE_UP_TRIES and now - handoff.made > GIVE_UP_SECONDS
    statement = "UPDATE handoffs SET tries = ?, error = ?, given_up = ? WHERE number = ?"
    with ledger.transaction() as connection:
        connection.execute(statement, (tries, error[:_MOST_SHOWN], now if is_over else None, handoff.number))
    return is_over


def handoff_lease(ledger: "Ledger", receiver: str) -> Lease:
    """What whoever sends to a receiver holds locked."""
    sign = receiver.rpartition("(")[2].rstrip(")")
    return Lease(ledger.directory / f"handoff-{sign}.lock")


def handoff_status(ledger: "Ledger") -> list[HandoffStatus]:
    """How the messages to each receiver are doing."""
    if not _has_tables(ledger):
        return []
    rows = ledger.rows(
        "SELECT name, coalesce(sum(number IS NOT NULL AND given_up IS NULL), 0), "
        "min(CASE WHEN given_up IS NULL THEN made END), coalesce(max(CASE WHEN given_up IS NULL THEN error END), ''), "
        "coalesce(sum(given_up IS NOT NULL), 0) FROM receivers LEFT JOIN handoffs ON receiver = name GROUP BY name"
    )
    return [
        HandoffStatus(
            name,
            waiting,
            None if oldest is None else max(0.0, time.time() - oldest),
            error,
            given_up,
            handoff_lease(ledger, name).holder(),
        )
        for name, waiting, oldest, error, given_up in rows
    ]
