"""Which run a document belongs to, as far as its producer's earlier documents tell."""

import sqlite3
import time
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from bluesky_filestore.errors import DocumentError

from .encoding import decode

__all__ = ["Belonging"]

_REMEMBERED = 10_000


class Belonging:
    """Follows the documents of one producer, with a number for each run."""

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

    def start(self, uid: str, run: int) -> None:
        """A run was started."""
        self._open[uid] = run

    def stop(self, uid: str) -> None:
        """A run was stopped."""
        run = self._open.pop(uid, None)
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
                return self._descriptors.get(_text(doc, "descriptor"))
            case "datum" | "datum_page":
                run = self._resources.get(_text(doc, "resource"))
                # A datum goes with the run that it comes in: the resource's own may be forgotten at any time.
                return run if run in self._open.values() else self._only
            case "descriptor":
                run = self._open.get(_text(doc, "run_start"))
                if run is not None:
                    self._descriptors[_text(doc, "uid")] = run
                return run
            case "resource" | "stream_resource":
                # A staging may outlive the run that it names.
                run = self._open.get(_text(doc, "run_start"), self._only)
                self._resources[_text(doc, "uid")] = run
                if len(self._resources) > _REMEMBERED:
                    self._resources.popitem(last=False)
                return run
            case "stop":
                return self._open.get(_text(doc, "run_start"))
        return self._only

    @property
    def _only(self) -> int | None:
        return next(iter(self._open.values())) if len(self._open) == 1 else None


def _text(doc: Mapping[str, Any], entry: str) -> str:
    # Whatever it is: a document that is wrong has to be kept, too.
    return str(doc.get(entry, ""))
