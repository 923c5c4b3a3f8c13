"""What is to be said of a run in the catalogs, beside its documents: sentences, by the run's number in the spool."""

import sqlite3
from collections.abc import Mapping
from typing import Any

from .belonging import stored_text

__all__ = ["NOTE", "forget_notes", "insert_note", "notes_of"]

NOTE = "note of a run"
"""What goes the way of documents under this name, as ``{"run_start": uid, "text": sentence}``, is a note: it is safe
when the document after it is, and a run has each once."""

_TABLE = "CREATE TABLE IF NOT EXISTS notes (run INTEGER NOT NULL, text TEXT NOT NULL, UNIQUE (run, text))"


def insert_note(connection: sqlite3.Connection, run: int, doc: Mapping[str, Any]) -> None:
    """Put a note into the database."""
    connection.execute(_TABLE)
    connection.execute("INSERT OR IGNORE INTO notes VALUES (?, ?)", (run, stored_text(doc["text"])))


def notes_of(connection: sqlite3.Connection, run: int) -> list[str]:
    """The notes of a run, in their order."""
    if not _has_table(connection):
        return []
    rows = connection.execute("SELECT text FROM notes WHERE run = ? ORDER BY rowid", (run,)).fetchall()
    return [text for (text,) in rows]


def forget_notes(connection: sqlite3.Connection, run: int) -> None:
    """Remove them."""
    if _has_table(connection):
        connection.execute("DELETE FROM notes WHERE run = ?", (run,))


def _has_table(connection: sqlite3.Connection) -> bool:
    # Spools of earlier versions have none.
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'notes'").fetchone() is not None
