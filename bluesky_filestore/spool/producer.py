"""What one process puts into the database of a spool, under a number of its own."""

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from .belonging import Belonging, stored_text, text_in
from .database import FILE_NAME, database_errors, not_writable, open_or_make, transaction
from .encoding import decode
from .lease import Lease, forget_source, register_producer
from .losses import is_refusal, what_is_small, why_refused
from .notes import NOTE, insert_note
from .states import come_again

__all__ = ["Encoded", "Producer", "stretches"]

Encoded: TypeAlias = tuple[str, Mapping[str, Any], bytes, float]
"""The name of a document, the document (or what it refers to), its bytes, and when it was received."""

_ENDS = ("start", "stop")
_MOST_BYTES, _LENGTH = 1_000_000, 8
_INSERT = "INSERT INTO documents (producer, run, name, received, body) VALUES (?, ?, ?, ?, ?)"


class Producer:
    """Who puts documents into one database; not for several threads at once.

    Parameters
    ----------
    directory : Path
        The spool directory.
    source : str
        Where documents come from, if this process only passes them on.
    is_full : bool
        Whether a document is safe from a power failure when `insert` returns.
    patience : float
        For how many seconds others are waited for meanwhile.
    belonging : Belonging, optional
        What is known of earlier documents; by default what is in the database of this producer.

    Raises
    ------
    SpoolError
        If the directory cannot be used, or another process passes on what comes from there.
    """

    def __init__(
        self, directory: Path, source: str, *, is_full: bool, patience: float, belonging: Belonging | None = None
    ) -> None:
        self.connection = open_or_make(directory, patience)
        self._directory = directory
        self._alive = Lease(directory / "producer.lock")
        if is_full:
            self.connection.execute("PRAGMA synchronous = FULL")
        try:
            with transaction(self.connection):
                # Before anybody can see that there is such a producer, and take it for dead.
                self.number, self._alive = register_producer(self.connection, directory, source)
            if belonging is None:
                belonging = Belonging.restored(self.connection, self.number)
            self.belonging = belonging
            self.wal = os.open(directory / f"{FILE_NAME}-wal", os.O_RDWR | os.O_CLOEXEC)
            """The log's descriptor, which outlives `close`: another thread may be putting it on the disk."""
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise not_writable(directory, error) from error

    def close(self) -> None:
        """Put nothing in any more."""
        self.connection.close()
        self._alive.remove()

    def begin_broken(self) -> None:
        """Begin the open runs here, which have lost what came before of them."""
        with database_errors(self._directory), transaction(self.connection):
            self.belonging.begin_broken(self.connection, self.number)

    def end_source(self) -> None:
        """Nothing more comes from the source, ever."""
        with database_errors(self._directory):
            forget_source(self.connection, self.number)

    def insert(self, stretch: Sequence[Encoded]) -> list[str]:
        """Put documents of one of `stretches` into the database, all or none; the same may be given again then.

        Returns
        -------
        list of str
            What the database takes on no account, in sentences: it is lost, and all else is in.
        """
        if len(stretch) == 1:
            return self._insert(*stretch[0])
        with transaction(self.connection):
            return [words for document in stretch for words in self._insert(*document)]

    def _insert(self, name: str, doc: Mapping[str, Any], body: bytes, received: float) -> list[str]:
        run = None
        try:
            if name in _ENDS:
                return self._insert_end(name, doc, body, received)
            run = self.belonging.run_of("stop" if name == NOTE else name, doc)
            if name != NOTE:
                self.connection.execute(_INSERT, (self.number, run, stored_text(name), received, body))
            elif run is not None:
                insert_note(self.connection, run, decode(body))
        except Exception as error:
            if not is_refusal(error):
                raise
            if name == "stop":
                run = self.belonging.run_of(name, doc)
            why = why_refused(error, self.connection)
            return [self._note_loss(run, f"A {stored_text(name)} document of {len(body):,} bytes is not kept ({why}).")]
        return []

    def _note_loss(self, run: int | None, words: str) -> str:
        """Have a run say what it has lost; the same for the log."""
        if run is None:
            return f"{words} It is of no run that is known here."
        insert_note(self.connection, run, {"text": words})
        return f"Run {self.belonging.uid_of(run)[:_LENGTH]}: {words}"

    def _insert_end(self, name: str, doc: Mapping[str, Any], body: bytes, received: float) -> list[str]:
        """A document that begins or ends a run."""
        uid = text_in(doc, "uid" if name == "start" else "run_start")
        with transaction(self.connection):
            if name == "start":
                run, first = self.connection.execute(
                    "INSERT INTO runs (uid, producer, first, started) VALUES (?, ?, 0, ?) "
                    "ON CONFLICT DO UPDATE SET stopped = NULL RETURNING id, first",
                    (uid, self.number, received),
                ).fetchone()
                if first and uid not in self.belonging.open_runs:
                    come_again(self.connection, run)
            else:
                run = self.belonging.run_of(name, doc)
            number, lost = self._insert_whole_or_small(run, name, received, body)
            if name == "start":
                self.connection.execute("UPDATE runs SET first = ? WHERE id = ? AND first = 0", (number, run))
            else:
                self.connection.execute("UPDATE runs SET stopped = ? WHERE id = ?", (received, run))
        if name == "start":
            self.belonging.start(uid, run)
        else:
            self.belonging.stop(uid)
        return [f"Run {uid[:_LENGTH]}: {words}" for words in lost]

    def _insert_whole_or_small(
        self, run: int | None, name: str, received: float, body: bytes
    ) -> tuple[int | None, list[str]]:
        """Put in a document without which its run is none, if need be without its big entries; its number, and why."""
        try:
            return self.connection.execute(_INSERT, (self.number, run, name, received, body)).lastrowid, []
        except sqlite3.DataError as error:
            small, left_out = what_is_small(body)
            number = self.connection.execute(_INSERT, (self.number, run, name, received, small)).lastrowid
            why = why_refused(error, self.connection)
            words = f"The {name} document of {len(body):,} bytes is kept without its {left_out} ({why})."
            if run is not None:
                insert_note(self.connection, run, {"text": words})
            return number, [words]


def stretches(documents: Sequence[Encoded]) -> Iterator[Sequence[Encoded]]:
    """Parts of documents, in their order, that may go into a database in one transaction.

    What begins or ends a run is one by itself: which runs are open changes with it, and must not if it fails. And
    whoever else puts in documents has to wait for each.
    """
    begin = size = 0
    for end, (name, _, body, _) in enumerate(documents):
        size += len(body)
        if name in _ENDS or size > _MOST_BYTES:
            if begin < end:
                yield documents[begin:end]
            begin, size = end, len(body)
        if name in _ENDS:
            yield documents[end : end + 1]
            begin, size = end + 1, 0
    if begin < len(documents):
        yield documents[begin:]
