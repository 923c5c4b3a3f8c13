"""All that is to be said of a run whose documents, catalog and files are compared with one another."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from bluesky_filestore.errors import FileStoreError
from bluesky_filestore.files.registered import Registered
from bluesky_filestore.model.root_map import RootMap
from bluesky_filestore.reading.from_documents import DocumentedRun
from bluesky_filestore.reading.from_node import registered_of
from bluesky_filestore.reading.run_tree import RunTree

from .run_arrays import RunArray
from .run_events import AGAIN, StreamEvents, events_of_table, left_out
from .run_report import RunFinding

__all__ = ["WholeRun", "look_in_spools"]

GOING_ON = "it is going on"


@dataclass
class WholeRun:
    """A run that is looked at."""

    uid: str
    """Its uid."""
    root_map: RootMap
    """Where its files are now."""
    every_frame: bool
    """Whether each frame is read."""
    spooled: tuple[RunFinding, ...]
    """What the spools of this user say of it."""
    documented: DocumentedRun | None
    """Its documents; None if another writer kept only what a catalog holds."""
    streams: Mapping[str, StreamEvents]
    """The events that its documents have."""
    tree: RunTree | None = None
    """Where it is in a catalog, if it is."""
    no_documents: str = ""
    """Why there are none."""
    _taken: dict[tuple[str, str], tuple[int, set[int]]] = field(default_factory=dict)

    def findings(self) -> Iterator[RunFinding]:
        """All there is to say of it."""
        if self.documented is None:
            words = "the catalog does not keep which frame is which event's, so that frames are counted"
            yield _line("documents", "run", True, f"{words}: {self.no_documents.rstrip('.')}")
        else:
            for problem in self.documented.problems:
                yield _line("documents", "run", False, problem.rstrip("."), "See what made this document")
        streams = self._events()
        yield from self._end(streams)
        for stream, events in streams.items():
            yield from events.findings(stream)
            for array in self._arrays(stream, events):
                yield from array.findings()
                for path, dataset, count, numbers in array.taken():
                    known = self._taken.setdefault((path, dataset), (count, set()))
                    known[1].update(numbers)
        yield from self._untaken()
        yield from self.spooled

    @property
    def _stop(self) -> Mapping[str, Any]:
        stop = self.documented.stop if self.documented is not None else self._in_catalog.metadata.get("stop")
        return stop or {}

    def _end(self, streams: Mapping[str, StreamEvents]) -> Iterator[RunFinding]:
        stop = self._stop
        if not stop:
            words = "there is no stop document: the run is going on, or was cut short, or its end was not delivered"
            goes_on = any(finding.words.startswith(GOING_ON) for finding in self.spooled)
            advice = "Look again when it has ended" if goes_on else "See `bluesky-filestore status`"
            yield _line("end", "run", None if goes_on else False, words, advice)
            return
        # A point that was taken again is a further event of the same number, which the stop does not count.
        highest = {stream: events.highest for stream, events in streams.items()}
        told = _counts(stop)
        differing = {name: count for name, count in told.items() if count > highest.get(name, 0)}
        for name, count in differing.items():
            if self.documented is None and name in streams and not streams[name]:
                # A flyer's, whose frames are counted instead.
                continue
            words = f"the stop document counts {count:,} events, and the last that there is is {highest.get(name, 0):,}"
            yield _line("end", name, False, words, AGAIN)
        if not differing:
            how, reason = stop.get("exit_status", "?"), stop.get("reason")
            why = f": {reason}" if isinstance(reason, str) and reason else ""
            listed = ", ".join(f"{len(events):,} of {name}" for name, events in streams.items()) or "none"
            yield _line("end", "run", True, f"it ended with {how!r}{why}; events: {listed}")

    def _events(self) -> Mapping[str, StreamEvents]:
        """The events of each stream; their rows are those of the catalog, if it is in one."""
        if self.tree is None:
            return self.streams
        found = {name: events_of_table(self.tree.columns(name)) for name in self.tree.streams}
        for name, events in found.items():
            of_documents = self.streams.get(name)
            if of_documents is not None:
                events.points, events.streamed = of_documents.points, of_documents.streamed
                events.counted, events.device_of = of_documents.counted, of_documents.device_of
        return found

    @property
    def _in_catalog(self) -> RunTree:
        if self.tree is None:
            raise ValueError("a run without documents is in a catalog; expected its node.")
        return self.tree

    def _arrays(self, stream: str, events: StreamEvents) -> Iterator[RunArray]:
        if self.documented is not None:
            keys = {old: new for (name, old), (_, new) in self.documented.external.items() if name == stream}
        else:
            data_keys = self._in_catalog.streams[stream].metadata.get("data_keys", {})
            keys = {key: key for key, entry in data_keys.items() if "external" in entry}
        nodes = self.tree.children(stream) if self.tree is not None and stream in self.tree.streams else {}
        for old, new in keys.items():
            node = nodes.get(new)
            # Files that nobody reads are in the catalog as they are, and no array.
            is_array = node is not None and node.structure_family != "bytes"
            counted = events.counted_for(old, keys)
            yield self._array((stream, old), node if is_array else None, events, tuple(counted))

    def _array(self, name: tuple[str, str], node: Any, events: StreamEvents, counted: tuple[float, ...]) -> RunArray:
        why, documented, stream, key = "", None, *name
        if self.documented is not None:
            why = "; ".join(said for said in self.documented.said(name) if said.startswith(("refused", "missing")))
            try:
                documented = self.documented.array(name).registered
            except FileStoreError as error:
                # Where all points were given up, nobody needs to say where frames are.
                why = why or (str(error) if len(events) or events.points_of(key) else "")
        if self.tree is not None:
            why = self.tree.metadata.get("filestore", {}).get("refused", {}).get(stream, {}).get(key) or why
        points = events.points_of(key)
        if self.documented is None and not len(events):
            points = _counts(self._stop).get(stream, 0)
        return RunArray(
            "/".join(map(str, name)),
            self.uid,
            len(events),
            points,
            documented,
            self._registered(node) if node is not None else None,
            node,
            why,
            self.tree is not None,
            self.every_frame,
            1 if self.documented is not None else _rows_an_event(self._in_catalog.streams[stream], key, node),
            counted,
        )

    def _registered(self, node: Any) -> Registered | None:
        try:
            return registered_of(node, self.root_map)
        except (FileStoreError, OSError):
            # What is not in files that are read here is compared through the server.
            return None

    def _untaken(self) -> Iterator[RunFinding]:
        for (path, dataset), (count, taken) in self._taken.items():
            rest, shown = left_out(taken, range(count))
            if not rest:
                continue
            words = f"{rest:,} of {count:,} frames of {dataset} in {path} belong to no event: numbers {shown}"
            if self.documented is not None:
                yield _line("frames", "run", True, words, file=path)
            else:
                words += ". If a point was given up after its trigger, later rows are those of other events"
                advice = "Compare rows with values that tell them apart; its writer has not kept it"
                yield _line("frames", "run", None, words, advice, file=path)


def _counts(stop: Mapping[str, Any]) -> dict[str, int]:
    """How many events of each stream a stop document counts, as far as it does."""
    told = stop.get("num_events")
    counts = told.items() if isinstance(told, Mapping) else ()
    return {stream: count for stream, count in counts if isinstance(count, int)}


def _rows_an_event(stream: Any, key: str, node: Any) -> int:
    """How many rows an array has for an event: another writer may lay several frames of one behind one another."""
    shape = list(stream.metadata["data_keys"][key].get("shape") or ())
    lies_flat = node is not None and len(getattr(node, "shape", ())) == len(shape)
    return int(shape[0]) if lies_flat and shape and shape[0] else 1


def look_in_spools(uids: Iterable[str]) -> dict[str, tuple[RunFinding, ...]]:
    """What of runs waits for a catalog in a spool of this user."""
    from bluesky_filestore.spool.ledger import Ledger
    from bluesky_filestore.spool.places import all_spools

    found: dict[str, list[RunFinding]] = {uid: [] for uid in uids}
    for directory in all_spools():
        try:
            with closing(Ledger(directory)) as ledger:
                for uid, lines in found.items():
                    lines += _waiting(ledger, uid)
        except FileStoreError as error:
            line = _line("delivery", "run", None, f"the spool in {directory} cannot be read: {error}".rstrip("."))
            found = {uid: [*lines, line] for uid, lines in found.items()}
    return {uid: tuple(lines) for uid, lines in found.items()}


def _waiting(ledger: Any, uid: str) -> Iterator[RunFinding]:
    for number, (uri, _) in ledger.catalogs().items():
        for entry in ledger.entries(number, uid=uid):
            if entry.state == "parked":
                yield _line("delivery", "run", False, f"parked for {uri}: {entry.reason}".rstrip("."), AGAIN)
            elif entry.stopped is None and ledger.is_written(entry.producer):
                yield _line("delivery", "run", None, f"{GOING_ON}, by {ledger.directory}", "Wait for its end")
            elif entry.state != "delivered":
                yield _line("delivery", "run", None, f"{entry.state} in {ledger.directory} for {uri}", "Wait for it")


def _line(check: str, name: str, ok: bool | None, words: str, advice: str = "", **concerned: Any) -> RunFinding:
    return RunFinding(check, name, ok, words, advice, **concerned)
