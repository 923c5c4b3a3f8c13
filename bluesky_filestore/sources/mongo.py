"""Runs out of an export of suitcase-mongo's database, which has a collection for each kind of document.

The collections lie in one directory or below: ``run_start``, ``run_stop``, ``event_descriptor``, ``event``,
``resource`` and ``datum``, as ``mongoexport`` writes them (``.json``) or ``mongodump`` (``.bson``). What belongs to a
run is all over them, so they go through a database in a temporary directory, of their size, before the first run is
given; a run's events are given in the order of their times, and with each resource all of its datums.
"""

import gzip
import json
import math
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, cast

from bluesky_filestore.errors import SourceError

__all__ = ["DAMAGED", "exported_runs", "is_export", "opened"]

DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error)
"""What reading a compressed file raises that is cut short, or of which bytes are others."""

_GZIP = b"\x1f\x8b"
_COLLECTIONS = {
    # The document, what it is found by, and what orders it.
    "run_start": ("start", "uid", "time"),
    "run_stop": ("stop", "run_start", "time"),
    "event_descriptor": ("descriptor", "run_start", "time"),
    "event": ("event", "descriptor", "time"),
    "resource": ("resource", "uid", ""),
    "datum": ("datum", "resource", ""),
}
_SUFFIXES = (".json", ".jsonl", ".bson")
_SCHEMA = """
CREATE TABLE documents (id INTEGER PRIMARY KEY, name TEXT, owner TEXT, uid TEXT, time REAL, body TEXT);
CREATE TABLE resources_of_runs (run TEXT, resource TEXT)
"""
_INDEXES = """
CREATE INDEX by_owner ON documents (name, owner, time, id);
CREATE INDEX datums ON documents (uid) WHERE name = 'datum';
CREATE INDEX by_run ON resources_of_runs (run)
"""
_LOST = """
SELECT count(*) FROM documents WHERE name IN ('descriptor', 'stop', 'event') AND owner NOT IN
    (SELECT uid FROM documents AS owners WHERE owners.name = CASE documents.name WHEN 'event' THEN 'descriptor' ELSE
    'start' END)
"""
_EVENTS = """
SELECT body FROM documents WHERE name = 'event' AND owner IN (SELECT value FROM json_each(?)) ORDER BY time, id
"""


def is_export(directory: Path) -> bool:
    """Whether a directory holds an export of such a database."""
    return any(_collection(path) == "run_start" for path in directory.rglob("run_start.*"))


def _collection(path: Path) -> str:
    name = path.name.removesuffix(".gz")
    stem, _, suffix = name.rpartition(".")
    return stem if f".{suffix}" in _SUFFIXES and stem in _COLLECTIONS else ""


def exported_runs(directory: Path, on_fault: Callable[[str], object]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The documents of an export, run by run, the oldest first.

    Raises
    ------
    SourceError
        If a collection is of BSON and pymongo, which reads it, is not installed.
    """
    with (
        TemporaryDirectory(prefix="mongo-export-") as place,
        closing(sqlite3.connect(Path(place) / "index.db")) as index,
    ):
        index.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {_SCHEMA}")
        for path in sorted(directory.rglob("*")):
            if collection := _collection(path):
                try:
                    for doc in _documents(path, on_fault):
                        _enter(index, collection, doc)
                except DAMAGED as error:
                    on_fault(f"{path} cannot be read to its end ({error}): it is damaged, or was cut short.")
        index.executescript(_INDEXES)
        ((lost,),) = index.execute(_LOST)
        if lost:
            on_fault(f"{lost:,} documents in {directory} belong to no run that is there; they are left out.")
        for (uid,) in index.execute("SELECT owner FROM documents WHERE name = 'start' ORDER BY time, id"):
            yield from _Run(index, uid).documents()


def _enter(index: sqlite3.Connection, collection: str, doc: dict[str, Any]) -> None:
    name, owner, time = _COLLECTIONS[collection]
    doc.pop("_id", None)
    body = json.dumps(doc, default=str)
    uid = doc.get("datum_id" if name == "datum" else "uid")
    values = (name, doc.get(owner), uid, doc.get(time) if time else None, body)
    index.execute("INSERT INTO documents (name, owner, uid, time, body) VALUES (?, ?, ?, ?, ?)", values)
    if name == "resource" and "run_start" in doc:
        index.execute("INSERT INTO resources_of_runs VALUES (?, ?)", (doc["run_start"], uid))


class _Run:
    """One run, put together."""

    def __init__(self, index: sqlite3.Connection, uid: str) -> None:
        self._index, self._uid = index, uid
        self._given: set[str] = set()

    def documents(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Its documents in a legal order."""
        yield from self._of("start", self._uid)
        descriptors = list(self._of("descriptor", self._uid))
        yield from descriptors
        for (resource,) in self._index.execute("SELECT resource FROM resources_of_runs WHERE run = ?", (self._uid,)):
            yield from self._resource(resource)
        external = {
            doc["uid"]: [key for key, data_key in doc.get("data_keys", {}).items() if "external" in data_key]
            for _, doc in descriptors
        }
        for (body,) in self._index.execute(_EVENTS, (json.dumps(list(external)),)):
            event = json.loads(body)
            for key in external[event["descriptor"]]:
                yield from self._of_datum(event.get("data", {}).get(key))
            yield "event", event
        yield from self._of("stop", self._uid)

    def _of_datum(self, datum_id: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        """The resource of a datum that does not say its run, as older ones do not."""
        found = self._index.execute("SELECT owner FROM documents WHERE name = 'datum' AND uid = ?", (str(datum_id),))
        for (resource,) in found.fetchall():
            yield from self._resource(resource)

    def _resource(self, uid: str) -> Iterator[tuple[str, dict[str, Any]]]:
        if uid not in self._given:
            self._given.add(uid)
            yield from self._of("resource", uid)
            yield from self._of("datum", uid)

    def _of(self, name: str, owner: str) -> Iterator[tuple[str, dict[str, Any]]]:
        rows = "SELECT body FROM documents WHERE name = ? AND owner = ? ORDER BY time, id"
        yield from ((name, json.loads(body)) for (body,) in self._index.execute(rows, (name, owner)))


def opened(path: Path) -> IO[bytes]:
    """A file for reading, whether it is compressed or not."""
    stream = path.open("rb")
    if stream.read(2) != _GZIP:
        stream.seek(0)
        return stream
    stream.close()
    return cast("IO[bytes]", gzip.open(path))


def _documents(path: Path, on_fault: Callable[[str], object]) -> Iterator[dict[str, Any]]:
    with closing(opened(path)) as stream:
        if path.name.removesuffix(".gz").endswith(".bson"):
            yield from _of_bson(path, stream, on_fault)
            return
        for number, line in enumerate(stream, 1):
            # Of an array that is on lines, the last one may end it.
            text = line.strip().removeprefix(b"[").rstrip(b",")
            text = text.removesuffix(b"]") if text.endswith(b"}]") else text
            if text in (b"", b"]"):
                continue
            try:
                doc = json.loads(text, object_hook=_plain)
            except ValueError as error:
                on_fault(f"{path}, line {number} cannot be read ({error}).")
                continue
            if isinstance(doc, dict):
                yield doc
            else:
                on_fault(f"{path}, line {number} is {repr(doc)[:80]}; expected a document, {{...}}.")


def _of_bson(path: Path, stream: IO[bytes], on_fault: Callable[[str], object]) -> Iterator[dict[str, Any]]:
    try:
        from bson import decode_file_iter
        from bson.errors import BSONError
    except ImportError as error:
        raise SourceError(
            f"{path} is of BSON, and pymongo is not installed: pip install 'bluesky_filestore[mongo]'; "
            f"or export the collections with mongoexport, which writes JSON."
        ) from error
    try:
        yield from decode_file_iter(stream)
    except BSONError as error:
        on_fault(f"{path} cannot be read to its end ({error}): it is damaged, or was cut short.")


def _plain(found: dict[str, Any]) -> Any:
    """A value of MongoDB's extended JSON as Python has it; anything else as it is."""
    if len(found) != 1:
        return found
    ((kind, value),) = found.items()
    match kind:
        case "$numberInt" | "$numberLong":
            return int(value)
        case "$numberDouble" | "$numberDecimal":
            return {"Infinity": math.inf, "-Infinity": -math.inf}.get(value) or float(value)
        case "$oid" | "$date":
            return value
    return found
