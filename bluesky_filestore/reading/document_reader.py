"""The documents of a run, had back from the catalog as they went in."""

import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from bluesky_filestore.catalogs.databroker.broker import client_of
from bluesky_filestore.catalogs.databroker.runs import documents_of_run, run_of
from bluesky_filestore.catalogs.tiled.values import read_array
from bluesky_filestore.errors import DocumentError
from bluesky_filestore.model.event_record import (
    AS_USUAL,
    RECORD_COLUMN,
    EventRecord,
    decode_record,
    descriptors_of,
    from_exact_json,
)
from bluesky_filestore.model.relocations import Relocations

from .from_documents import ConfinedDocuments
from .run_tree import RunTree, columns_of

if TYPE_CHECKING:
    import pyarrow

__all__ = ["NumberedEvent", "NumberedEvents", "documents", "documents_of"]

_NOT_FINITE = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}


def documents(node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The documents of a run that `CatalogWriter` wrote, from the catalog alone; or of any run of databroker's.

    Parameters
    ----------
    node : tiled.client.container.Container, databroker.v1.Header, or PackedRun
        The run, e.g. ``client[uid]``; of databroker ``db[uid]`` or ``db.v2[uid]``; of a pack ``open_pack(path)[uid]``.

    Yields
    ------
    tuple of str and dict
        Name and document, in the order in which they were received, with these differences: events and datums come
        one by one, however they came; a resource or datum comes right before the first event that uses it (or, if it
        was late, when it was there), and not at all if nothing does; arrays come as lists. Of a run that is not
        stopped, or never was, there are the events so far and what came before them. Resources of files that went
        elsewhere (`bluesky_filestore.relocate`) have the paths of now.

    Raises
    ------
    DocumentError
        If the events do not have the column that says what else they were.
    """
    if isinstance(node, ConfinedDocuments):
        yield from ((name, dict(doc)) for name, doc in node)
        return
    if (of_databroker := run_of(node)) is not None:
        yield from documents_of_run(of_databroker)
        return
    yield from documents_of(RunTree(client_of(node)))


def documents_of(run: RunTree) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same, of a run of which more is asked."""
    metadata = run.metadata
    told = metadata.get("documents", {})
    start = dict(metadata["start"]) | from_exact_json(told.get("start", "{}"))
    yield "start", start
    streams = {name: _Stream(run, name) for name in run.streams}
    relocations = Relocations.of(metadata)
    for _, record, stream, event in heapq.merge(*(stream.events() for stream in streams.values()), key=itemgetter(0)):
        yield from _resolved(record.before, streams, relocations)
        yield "event", stream.event(record, event)
    yield from _resolved(from_exact_json(told.get("before_stop", "[]")), streams, relocations)
    for stream in streams.values():
        yield from (("descriptor", doc) for doc in stream.not_told())
    if "stop" in metadata:
        yield "stop", dict(metadata["stop"]) | from_exact_json(told.get("stop", "{}"))


@dataclass(frozen=True, slots=True)
class NumberedEvent:
    """An event of a run in a catalog."""

    number: int
    """How many events of the run, of any stream, came before it."""
    stream: str
    """The name of its stream."""
    row: int
    """Its row in the stream's table and arrays."""
    doc: Mapping[str, Any]
    """The document."""
    external: Mapping[str, str]
    """The keys of its stream that are external, and what they are called in the catalog."""


class NumberedEvents:
    """The events of a run that are in a catalog, in their order, and those of rows that were appended since.

    Parameters
    ----------
    run : RunTree
        The run, as it was in the catalog.
    """

    def __init__(self, run: RunTree) -> None:
        self._run = run
        self._streams = {name: _Stream(run, name) for name in run.streams}
        self._rows: dict[str, int] = {}
        self._appended: dict[int, tuple[EventRecord, _Stream, _Row]] = {}
        self.position = 0
        """How many were given."""
        self.known = 0
        """How many there are, as far as is known: those that were not given are not whole, or were appended."""

    def read(self, *, has_ended: bool) -> Iterator[NumberedEvent]:
        """Those in the catalog; raises as `documents` does.

        Of a run that goes on they end before the first one of which not everything is there, or was there when it was
        asked for: its streams, tables and arrays are written one after the other.
        """
        try:
            yield from self._read(has_ended=has_ended)
        finally:
            self._run.forget_columns()

    def _read(self, *, has_ended: bool) -> Iterator[NumberedEvent]:
        merged = heapq.merge(*(each.events() for each in self._streams.values()), key=itemgetter(0))
        for said, record, stream, row in merged:
            self.known = max(self.known, said + 1)
            if said < self.position:
                # A gateway may have sent rows twice, which is found later.
                continue
            try:
                event = self._whole(record, stream, row)
            except (LookupError, StopIteration):
                if has_ended:
                    raise
                return
            if not has_ended and (said != self.position or stream.lacks(record, event.doc)):
                return
            yield self._given(event)

    def append(self, stream: str, rows: "pyarrow.Table") -> None:
        """Know rows that are being appended to the table of a stream, once or again.

        Raises
        ------
        LookupError, ValueError, TypeError
            If they are no rows of its table.
        """
        found, columns = self._streams[stream], columns_of(rows.to_pandas())
        if RECORD_COLUMN not in columns and not found.is_one_table:
            # Of these events another table has the rest, and their numbers.
            return
        # Of other types are those of a table that was made anew since.
        is_all = found.is_one_table and {each.name: str(each.type) for each in rows.schema} == found.types
        for at, text in enumerate(columns[RECORD_COLUMN]):
            record = decode_record(text)
            self.known = max(self.known, record.number + 1)
            if is_all and record.number >= self.position:
                self._appended[record.number] = record, found, _Row(0, columns, found.types, {}, at)

    def appended(self) -> Iterator[NumberedEvent]:
        """Those of rows that were appended, up to one that has to be read."""
        while (found := self._appended.pop(self.position, None)) is not None:
            record, stream, row = found
            try:
                event = self._whole(record, stream, row)
            except (LookupError, StopIteration):
                # Of a descriptor that came since.
                return
            if stream.lacks(record, event.doc):
                return
            yield self._given(event)

    def _whole(self, record: EventRecord, stream: "_Stream", row: "_Row") -> NumberedEvent:
        row.number = self._rows.get(stream.name, 0)
        for name, doc in record.before:
            if name == "descriptor":
                self._streams[doc["stream"]].descriptor(doc)
        return NumberedEvent(record.number, stream.name, row.number, stream.event(record, row), stream.external)

    def _given(self, event: NumberedEvent) -> NumberedEvent:
        self.position, self._rows[event.stream] = event.number + 1, event.row + 1
        return event


def _resolved(
    pairs: Any, streams: "Mapping[str, _Stream]", relocations: Relocations
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Documents of a record: descriptors whole, files where they are now."""
    for name, doc in pairs:
        if name == "descriptor":
            yield name, streams[doc["stream"]].descriptor(doc)
        else:
            yield name, dict(relocations.document(name, doc))


class _Stream:
    """A stream as it lies in the catalog."""

    def __init__(self, run: RunTree, name: str) -> None:
        self._run, self.name = run, name
        metadata = run.streams[name].metadata
        self._descriptors = descriptors_of(run.metadata["start"]["uid"], name, metadata)
        self._data_keys: Mapping[str, Mapping[str, Any]] = metadata["data_keys"]
        self._told: list[str] = []
        self._original: dict[str, str] = {}

    @cached_property
    def is_one_table(self) -> bool:
        """Whether rows of one table are all there is of it, but for what is in files."""
        return len(self._run.tables(self.name)) == 1 and not self._arrays

    @cached_property
    def types(self) -> dict[str, str]:
        """The types of its columns."""
        schemas = (table.structure().arrow_schema_decoded for table in self._run.tables(self.name))
        return {each.name: str(each.type) for schema in schemas for each in schema}

    @cached_property
    def _arrays(self) -> dict[str, Any]:
        """Its arrays whose values are in the catalog; one that is just being made has no data source yet."""
        return {
            key: child
            for key, child in self._run.children(self.name).items()
            if child.structure_family != "table"
            and (sources := child.data_sources())
            and sources[0].management != "external"
        }

    def descriptor(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """One of its descriptors, by what a record says of it."""
        self._told.append(said["uid"])
        self._original = {new: old for old, new in said.get("renamed", {}).items()}
        stored = next(doc for doc in self._descriptors if doc["uid"] == said["uid"])
        doc = {**stored, **said.get("entries", {})}
        return {name: value for name, value in doc.items() if name not in said.get("without", ())}

    @property
    def external(self) -> dict[str, str]:
        """Its external keys, and what they are called in the catalog."""
        keys = [key for key, entry in self._data_keys.items() if "external" in entry]
        return {self._original.get(key, key): key for key in keys}

    def lacks(self, record: EventRecord, event: Mapping[str, Any]) -> bool:
        """Whether the event has not got all of its values, as its array may still be written."""
        keys = [key for key, entry in self._data_keys.items() if "external" not in entry and key not in record.absent]
        return not {self._original.get(key, key) for key in keys} <= event["data"].keys()

    def not_told(self) -> list[dict[str, Any]]:
        """The descriptors that no record has told of (yet)."""
        return [doc for doc in self._descriptors if doc["uid"] not in self._told]

    def events(self) -> "Iterator[tuple[int, EventRecord, _Stream, _Row]]":
        """Its events in their order, by their number in the run."""
        tables, columns = self._run.tables(self.name), self._run.columns(self.name)
        if not tables:
            return
        if RECORD_COLUMN not in columns:
            raise DocumentError(
                f"stream {self.name!r} has no column {RECORD_COLUMN!r}, in which the uids of its events would be; "
                f"expected a run that CatalogWriter wrote. Take what run.documents() makes of it."
            )
        values = {key: read_array(node) for key, node in self._arrays.items()}
        for row, text in enumerate(columns[RECORD_COLUMN]):
            record = decode_record(text)
            yield record.number, record, self, _Row(row, columns, self.types, values, row)

    def event(self, record: EventRecord, row: "_Row") -> dict[str, Any]:
        """The document of an event."""
        data = {}
        sources = {**{key: key for key in self._data_keys}, **{key: name for name, key in record.moved.items()}}
        for key, name in sources.items():
            if key not in record.absent and key not in record.data and row.has(name):
                is_text = (self._data_keys[key].get("dtype") == "string") != (key in record.odd)
                data[key] = row.value(name, is_text=is_text)
        data |= record.data
        timestamps = {key: row.value(f"ts_{key}", is_text=False) for key in data if row.holds(f"ts_{key}")}
        timestamps |= record.timestamps
        external = dict.fromkeys([key for key in data if "external" in self._data_keys.get(key, {})], False)
        doc = {
            "uid": record.uid,
            "descriptor": self._descriptors[record.descriptor]["uid"],
            "seq_num": row.value("seq_num", is_text=False),
            "time": row.value("time", is_text=False),
            "data": self._renamed(data),
            "timestamps": self._renamed(timestamps),
        }
        if record.filled is not None:
            doc["filled"] = self._renamed(external if record.filled == AS_USUAL else record.filled)
        return doc

    def _renamed(self, entries: Mapping[str, Any]) -> dict[str, Any]:
        return {self._original.get(key, key): value for key, value in entries.items()}


class _Row:
    """One row of a stream's tables and arrays; where it is among those that were read together is its `at`."""

    def __init__(
        self,
        number: int,
        columns: Mapping[str, list[Any]],
        types: Mapping[str, str],
        arrays: Mapping[str, Any],
        at: int,
    ) -> None:
        self.number, self._columns, self._types, self._arrays, self._at = number, columns, types, arrays, at

    def has(self, name: str) -> bool:
        """Whether there is a column or an array that has this row."""
        return name in self._columns or (name in self._arrays and self.number < len(self._arrays[name]))

    def holds(self, name: str) -> bool:
        """Whether there is a column whose cell in this row is not empty."""
        return name in self._columns and self._columns[name][self._at] is not None

    def value(self, name: str, *, is_text: bool) -> Any:
        """What a cell holds."""
        if name not in self._columns:
            return self._arrays[name][self.number].tolist()
        cell, kind = self._columns[name][self._at], self._types[name]
        if cell is None:
            # None itself would be in the record; databases have no other cell for what is not a number.
            return float("nan")
        if kind == "string":
            return cell if is_text else _from_text(cell)
        return _PYTHON_TYPES[kind](cell)


def _from_text(text: str) -> Any:
    """A value that was written as JSON, or that a database has turned into text when its column became text."""
    try:
        return from_exact_json(text)
    except ValueError:
        return _NOT_FINITE.get(text.lower(), text)


def _from_bool(cell: Any) -> bool:
    # With empty cells beside it, what was a boolean comes as text.
    return str(cell) == "True"


_PYTHON_TYPES: Mapping[str, Callable[[Any], Any]] = {"int64": int, "bool": _from_bool, "double": float}
