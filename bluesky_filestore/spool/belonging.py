"""Which run a document belongs to, as far as its producer's earlier documents tell."""

import sqlite3
import time
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from bluesky_filestore.errors import DocumentError
from bluesky_filestore.visible import storable

from .encoding import decode, text_of

__all__ = ["Belonging", "stored_text", "text_in"]

_REMEMBERED = 10_000


class Belonging:
    """Follows the documents of one producer, with a number for each run.

    A uid is known by the text that a database can hold of it, see `text_in`.
    """

    def __init__(self) -> None:
        self._open: dict[str, int] = {}
        self._descriptors: dict[str, int] = {}
        self._resources: OrderedDict[str, int | None] = OrderedDict()

    @classmethod
    def restored(cls, connection: sqlite3.Connection, producer: int) -> "Belonging":
        """What is known after the documents that a producer has put into a spool."""
        belonging = cls()
        open_runs = "SELECT uid, id FROM runs WHERE producer = ? AND stopped IS NULL AND fault = '' AND first > 0"
        for uid, run in connection.execute(open_runs, (producer,)):
            belonging.start(uid, run)
        documents = (
            "SELECT name, body FROM documents WHERE producer = ? AND (name IN ('resource', 'stream_resource') OR "
            "(name = 'descriptor' AND run IN (SELECT id FROM runs WHERE stopped IS NULL))) ORDER BY id"
        )
        for name, body in connection.execute(documents, (producer,)):
            # What cannot be read belongs to none, and must not keep anybody from putting in more.
            with suppress(DocumentError):
                belonging.run_of(name, decode(body))
        return belonging

    @property
    def open_runs(self) -> tuple[str, ...]:
        """The runs that were started and not stopped yet, by uid."""
        return tuple(self._open)

    def uid_of(self, run: int) -> str:
        """The uid of an open run; empty if it is none."""
        return next((uid for uid, number in self._open.items() if number == run), "")

    def start(self, uid: str, run: int) -> None:
        """A run was started."""
        self._open[storable(uid)] = run

    def stop(self, uid: str) -> None:
        """A run was stopped."""
        run = self._open.pop(storable(uid), None)
        for descriptor in [known for known, owner in self._descriptors.items() if owner == run]:
            del self._descriptors[descriptor]

    def begin_broken(self, connection: sqlite3.Connection, producer: int) -> None:
        """Begin the open runs in another database, inside a transaction, without what came before of them."""
        fault = "the spool was damaged in the middle of the run"
        statement = "INSERT INTO runs (uid, producer, first, started, fault) VALUES (?, ?, 0, ?, ?) RETURNING id"
        numbers = {}
        for uid, run in self._open.items():
            ((numbers[run],),) = connection.execute(statement, (uid, producer, time.time(), fault)).fetchall()
        self._open = {uid: numbers[run] for uid, run in self._open.items()}
        self._descriptors = {uid: numbers[run] for uid, run in self._descriptors.items()}
        self._resources.clear()

    def run_of(self, name: str, doc: Mapping[str, Any]) -> int | None:
        """The number of the run, or None if it cannot be told (or is none of these)."""
        match name:
            case "event" | "event_page" | "stream_datum":
                return self._descriptors.get(text_in(doc, "descriptor"))
            case "datum" | "datum_page":
                run = self._resources.get(text_in(doc, "resource"))
                # A datum goes with the run that it comes in: the resource's own may be forgotten at any time.
                return run if run in self._open.values() else self._only
            case "descriptor":
                run = self._open.get(text_in(doc, "run_start"))
                if run is not None:
                    self._descriptors[text_in(doc, "uid")] = run
                return run
            case "resource" | "stream_resource":
                # A staging may outlive the run that it names.
                run = self._open.get(text_in(doc, "run_start"), self._only)
                self._resources[text_in(doc, "uid")] = run
                if len(self._resources) > _REMEMBERED:
                    self._resources.popitem(last=False)
                return run
            case "stop":
                return self._open.get(text_in(doc, "run_start"))
        return self._only

    @property
    def _only(self) -> int | None:
        return next(iter(self._open.values())) if len(self._open) == 1 else None


def text_in(doc: Mapping[str, Any], entry: str) -> str:
    """What a document has as an entry, as a text."""
    return stored_text(doc.get(entry, ""))


def stored_text(value: Any) -> str:
    """Whatever it is as a text that SQLite takes: a document that is wrong has to be kept, too."""
    return storable(text_of(value))
