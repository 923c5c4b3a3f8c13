"""What documents have announced so far: which array belongs to which event, and what an event still waits for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bluesky_filestore.errors import DocumentError
from bluesky_filestore.model.frame_map import Assets, FrameMap, Source
from bluesky_filestore.model.normalize import (
    indices_of,
    range_of,
    source_of_resource,
    source_of_stream_resource,
    unpacked,
)
from bluesky_filestore.model.schema_errors import schema_errors

__all__ = ["Announced", "ExternalEvent"]

_EVENTS = ("event", "event_page", "bulk_events")
_MOST_KEPT = 10_000
"""Resources and datums that are remembered beyond the end of a run: a staging may outlive it."""


@dataclass(frozen=True, slots=True)
class ExternalEvent:
    """An event and what it needs from outside."""

    doc: Mapping[str, Any]
    """The event."""
    wanted: tuple[str, ...]
    """The data keys to be filled."""
    streamed: frozenset[str]
    """Those of them that the event says nothing of: stream_datums do."""
    run: str
    """The uid of its run."""
    stream: str
    """The name of its stream."""
    row: int
    """Its place among the events of its stream, from 0 on."""


@dataclass(frozen=True, slots=True)
class _Stream:
    """What a descriptor says."""

    run: str
    name: str
    data_keys: Mapping[str, Any]
    external: tuple[str, ...]


class Announced:
    """Resources, datums and stream_datums by what refers to them."""

    def __init__(self) -> None:
        self._streams: dict[str, _Stream] = {}
        self._resources: dict[str, Mapping[str, Any]] = {}
        self._datums: dict[str, Mapping[str, Any]] = {}
        self._stream_resources: dict[str, Mapping[str, Any]] = {}
        self._sources: dict[str, Source] = {}
        self._maps: dict[str, FrameMap] = {}

    def receive(self, name: str, doc: Mapping[str, Any]) -> list[ExternalEvent]:
        """Take in a document; of events, say what they need.

        Raises
        ------
        DocumentError
            If it refers to a document that should have come before it, or is not of its schema.
        """
        with schema_errors(name, doc):
            return self._receive(name, doc)

    def _receive(self, name: str, doc: Mapping[str, Any]) -> list[ExternalEvent]:
        if name in _EVENTS:
            return [self._receive_event(event) for _, event in unpacked(name, doc)]
        for single, one in unpacked(name, doc):
            match single:
                case "descriptor":
                    external = tuple(key for key, data_key in one["data_keys"].items() if data_key.get("external"))
                    self._streams[one["uid"]] = _Stream(
                        one["run_start"], one.get("name", one["uid"]), one["data_keys"], external
                    )
                case "resource":
                    self._resources[one["uid"]] = one
                case "datum":
                    self._datums[one["datum_id"]] = one
                case "stream_resource":
                    self._stream_resources[one["uid"]] = one
                case "stream_datum":
                    self._receive_stream_datum(one)
                case "stop":
                    self._frame_map(one["run_start"]).end()
        return []

    def end(self) -> None:
        """Know that no more documents come, whichever runs were stopped."""
        for frame_map in self._maps.values():
            frame_map.end()

    def forget_run(self, run: str) -> None:
        """Forget a run that is over, and what was announced long ago."""
        self._maps.pop(run, None)
        self._streams = {uid: stream for uid, stream in self._streams.items() if stream.run != run}
        everything: tuple[dict[str, Any], ...] = (self._resources, self._datums, self._stream_resources, self._sources)
        for known in everything:
            for uid in list(known)[: max(0, len(known) - _MOST_KEPT)]:
                del known[uid]

    def missing(self, event: ExternalEvent) -> str:
        """What an event waits for, in words; empty if it can be filled."""
        with schema_errors("event", event.doc):
            return self._missing(event)

    def _missing(self, event: ExternalEvent) -> str:
        for key in event.wanted:
            if key in event.streamed:
                if not self._is_placed(event, key):
                    return f"no stream_datum says which frames of {key!r} belong to seq_num {event.doc['seq_num']}"
                continue
            datum = self._datums.get(event.doc["data"][key])
            if datum is None:
                return f"its {key!r} names datum {event.doc['data'][key]!r}, which was not announced"
            if datum["resource"] not in self._resources:
                return f"datum {datum['datum_id']!r} is of resource {datum['resource']!r}, which was not announced"
        return ""

    def datum(self, event: ExternalEvent, key: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """The Resource and the Datum that an event names."""
        datum = self._datums[event.doc["data"][key]]
        return self._resources[datum["resource"]], datum

    def data_key(self, event: ExternalEvent, key: str) -> Mapping[str, Any]:
        """The entry of a key in the event's descriptor; empty if it has none."""
        found: Mapping[str, Any] = self._streams[event.doc["descriptor"]].data_keys.get(key, {})
        return found

    def place(self, event: ExternalEvent, key: str) -> tuple[Source, Mapping[str, Any], int, int]:
        """Where the array of an event is: source, data key, its first index and how many there are.

        Raises
        ------
        DocumentError, PathError, UnknownSpecError
            If the Resource or StreamResource does not say where its frames are.
        """
        if key not in event.streamed:
            resource, datum = self.datum(event, key)
            first, count = indices_of(datum)
            return source_of_resource(resource), self.data_key(event, key), first, count
        rows = self._maps[event.run].rows(event.stream, key)
        after = rows.count
        # From the end: it is mostly the last row that is asked for.
        for span in reversed(rows.spans):
            after -= span.count
            if event.row >= after:
                index = span.start + (event.row - after) * span.step
                if span.source not in self._sources:
                    self._sources[span.source] = source_of_stream_resource(self._stream_resources[span.source])
                data_key = self._streams[event.doc["descriptor"]].data_keys[key]
                return self._sources[span.source], data_key, index, span.width
        raise DocumentError(f"event {event.row} of stream {event.stream!r} has no place; expected one of {rows.count}.")

    def _is_placed(self, event: ExternalEvent, key: str) -> bool:
        frame_map = self._maps[event.run]
        return (event.stream, key) in frame_map.arrays() and frame_map.rows(event.stream, key).count > event.row

    def _receive_event(self, event: Mapping[str, Any]) -> ExternalEvent:
        stream = self._streams.get(event["descriptor"])
        if stream is None:
            raise DocumentError(
                f"event {event['uid']!r} has the descriptor {event['descriptor']!r}, which was not announced; expected "
                f"it before its events."
            )
        data, filled = event["data"], event.get("filled", {})
        named = [key for key, mark in filled.items() if mark is False and key in data]
        # An event that does not say that a key is filled has its datum's id there, which is a text.
        named += [key for key in stream.external if key not in filled and isinstance(data.get(key), str)]
        lost = [key for key, mark in filled.items() if mark is False and key not in data and key not in stream.external]
        streamed = [key for key in stream.external if key not in data]
        row = 0
        if stream.external:
            frame_map = self._frame_map(stream.run)
            row = frame_map.row_count(stream.name)
            frame_map.add_event(stream.name, event["seq_num"], {})
        # It has its row all the same.
        if lost:
            raise DocumentError(f"event {event['uid']!r} says that {lost} are to be filled; expected them in its data.")
        return ExternalEvent(event, (*named, *streamed), frozenset(streamed), stream.run, stream.name, row)

    def _receive_stream_datum(self, doc: Mapping[str, Any]) -> None:
        stream, resource = self._streams.get(doc["descriptor"]), self._stream_resources.get(doc["stream_resource"])
        if stream is None or resource is None:
            what = "descriptor" if stream is None else "stream_resource"
            raise DocumentError(
                f"stream_datum {doc['uid']!r} is of the {what} {doc[what]!r}, which was not announced; expected it "
                f"before its stream_datums."
            )
        self._frame_map(stream.run).add_range(stream.name, resource["data_key"], range_of(doc))

    def _frame_map(self, run: str) -> FrameMap:
        return self._maps.setdefault(run, FrameMap(Assets()))
