"""The frame map: (stream, data key, event) to exact rows of files.

It learns from documents alone which frames belong to which row of a stream's event table, and is the only place that
knows. Frames are addressed as *indices* of a source: index i of a file with m frames an index is its frames
i * m to (i + 1) * m. Rows are kept as spans of constant distance, so that a million regular rows cost one span.
"""

from array import array
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from .frame_axis import frames_that_fit, same_but_for_ones
from .paths import FlavouredPath
from .stream_rows import Rows, RowsByRange, Span, StreamRange, append_rows

__all__ = ["Assets", "FrameMap", "Rows", "Source", "Span", "StreamRange"]

_DATUMS_REMEMBERED = 10_000
_MOST_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Source:
    """A resource, of the old or the new kind, as far as it says where frames are."""

    uid: str
    """The uid of the Resource or StreamResource."""
    mimetype: str
    """What the files are."""
    path: FlavouredPath
    """The file; for a series its directory."""
    template: str | None = None
    """For a series: the whole path of a file as a C-style template of its number. None for a single file."""
    dataset: str | None = None
    """Where in a file the frames are, for formats that have datasets."""
    frames_per_index: int | None = None
    """How many frames an index stands for; None if the shapes have to tell."""
    files_per_index: int | None = None
    """For a series: how many files an index stands for; None if each file holds one frame."""
    data_key: str = ""
    """The key it says it belongs to; empty for a Resource, which does not say."""
    spec: str = ""
    """The spec of a Resource."""
    resource: str = ""
    """The uid of the Resource, where this is but a part of what that has; empty if it is all of it."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """What else the documents hand to a reader, e.g. ``swmr`` or ``slice``."""
    is_handled: bool = False
    """Whether its handler alone knows what a Datum stands for: its indices are the rows of the array, and
    `Rows.datum_kwargs` has what the handler is asked for each."""

    def frames_per_event(self, declared: tuple[int, ...] | None, frame_shape: tuple[int, ...]) -> int:
        """How many frames (of a series: files) an index has, by what the documents say and the shape of one frame."""
        if self.frames_per_index is not None and not self.data_key:
            # A Resource's frame_per_point is what its handlers go by, whatever the descriptor says.
            return self.frames_per_index
        if self.files_per_index is not None:
            return self.files_per_index
        frames = self.frames_of_a_file(declared)
        if frames is not None and declared is not None and same_but_for_ones((frames, *declared[1:]), frame_shape):
            return declared[0] // frames
        several = frames_that_fit(self._multiplied(declared), frame_shape)
        return several or frames_that_fit(declared, frame_shape) or self.frames_per_index or 1

    def frames_of_a_file(self, declared: tuple[int, ...] | None) -> int | None:
        """How many frames of an event each file of a series holds by its ``chunk_shape``; None if that is no such."""
        chunk_shape = self.parameters.get("chunk_shape", ())
        if self.template is None or not declared or len(chunk_shape) != len(declared):
            return None
        whole = chunk_shape[1:] == declared[1:] and declared[0] % chunk_shape[0] == 0
        return int(chunk_shape[0]) if whole else None

    @property
    def is_joined(self) -> bool:
        """Whether its files may hold several frames each, that are one behind the other in an event."""
        return self.template is not None and bool(self.data_key)

    def _multiplied(self, declared: tuple[int, ...] | None) -> tuple[int, ...] | None:
        """The shape of an event whose descriptor has that of one of its frames (the ``multiplier`` of ophyd-async)."""
        many = self.frames_per_index
        if many is None or declared is None or declared[:1] == (many,):
            return declared
        return (many, *(declared[1:] if declared[:1] == (1,) else declared))


_Place: TypeAlias = tuple[str, int, int, Mapping[str, Any] | None]


class Assets:
    """The resources and datums announced so far, by all runs: a staging may outlive a run.

    Datums that were used are remembered for a while only (a detector may be read twice after one trigger), those
    that were not are kept.

    Parameters
    ----------
    has_handler : callable, optional
        Whether there is a handler for a spec. By default there is none.
    """

    def __init__(self, has_handler: Callable[[str], bool] = lambda spec: False) -> None:
        self.has_handler = has_handler
        self.sources: dict[str, Source] = {}
        self.unusable: dict[str, str] = {}
        self.documents: dict[str, tuple[str, Mapping[str, Any]]] = {}
        self._waiting: dict[str, _Place] = {}
        self._used: OrderedDict[str, _Place] = OrderedDict()

    def add_source(self, source: Source) -> bool:
        """Make a resource known; False if its uid is known as another's, which stays."""
        return self.sources.setdefault(source.uid, source) == source

    def add_unusable(self, uid: str, reason: str) -> None:
        """Make a resource or datum known that we cannot follow, with the reason."""
        self.unusable[uid] = reason

    def keep_document(self, name: str, uid: str, doc: Mapping[str, Any]) -> None:
        """Remember the document of a resource, or of a datum that we cannot follow."""
        self.documents.setdefault(uid, (name, doc))

    def add_datum(
        self, datum_id: str, source: str, start: int, count: int = 1, kwargs: Mapping[str, Any] | None = None
    ) -> bool:
        """Make a datum known; False if its id is known as another's, which stays."""
        place = (source, start, count, kwargs)
        return (self._used.get(datum_id) or self._waiting.setdefault(datum_id, place)) == place

    def forget_old(self) -> None:
        """Forget what was announced long ago, when no run is open that might still use it."""
        everything: tuple[dict[str, Any], ...] = (self.sources, self.unusable, self.documents, self._waiting)
        for known in everything:
            for uid in list(known)[: max(0, len(known) - _MOST_KEPT)]:
                del known[uid]

    def why_unusable(self, datum_id: str) -> str:
        """Why a datum cannot be followed, or rather, where it cannot, its resource; empty if it can."""
        name, doc = self.documents.get(datum_id, ("", {}))
        of_resource = self.unusable.get(doc.get("resource", ""), "") if name == "datum" else ""
        return of_resource or self.unusable.get(datum_id, "")

    def datum(self, datum_id: str) -> _Place | None:
        """The source, first index, number of indices and arguments of a datum; None if it was not announced."""
        found = self._waiting.pop(datum_id, None) or self._used.pop(datum_id, None)
        if found is None:
            return None
        self._used[datum_id] = found
        if len(self._used) > _DATUMS_REMEMBERED:
            self._used.popitem(last=False)
        return found

    def unused(self) -> list[tuple[str, int, int, Mapping[str, Any] | None]]:
        """The datums that no event has used yet: source, first index, number of indices and arguments."""
        return list(self._waiting.values())

    def datum_document(self, datum_id: str) -> Mapping[str, Any] | None:
        """The document of a datum, as long as it is remembered."""
        found = self._waiting.get(datum_id) or self._used.get(datum_id)
        if found is None:
            kept = self.documents.get(datum_id)
            return kept[1] if kept is not None and kept[0] == "datum" else None
        source = self.sources.get(found[0])
        resource = (source.resource if source is not None else "") or found[0]
        return {"datum_id": datum_id, "datum_kwargs": found[3] or {}, "resource": resource}


class FrameMap:
    """Where the frames of each array of one run are, in the order of the events of its stream."""

    def __init__(self, assets: Assets) -> None:
        self._assets = assets
        self._seq_nums: dict[str, array[int]] = {}
        self._by_datum: dict[tuple[str, str], _RowsByDatum] = {}
        self._by_range: dict[tuple[str, str], RowsByRange] = {}
        self._without_events: dict[str, _SharedRows] = {}
        self._is_over = False

    def end(self) -> None:
        """Know that no document of the run is to come any more: events get the ranges that came after them."""
        self._is_over = True

    def untaken(self, stream: str, key: str) -> list[StreamRange]:
        """What StreamDatums said of an array, and no event of its stream took; nothing for a stream without events."""
        seq_nums = self._seq_nums.get(stream)
        by_range = self._by_range.get((stream, key))
        return [] if seq_nums is None or by_range is None else by_range.untaken(seq_nums)

    def add_event(self, stream: str, seq_num: int, datum_ids: Mapping[str, Any]) -> None:
        """Append a row to a stream, with the datum of each of its external keys that has one."""
        self._seq_nums.setdefault(stream, array("q")).append(seq_num)
        row = len(self._seq_nums[stream]) - 1
        for key, datum_id in datum_ids.items():
            self._by_datum.setdefault((stream, key), _RowsByDatum()).add(row, datum_id, self._assets)

    def add_range(self, stream: str, key: str, documented: StreamRange) -> None:
        """Append what a StreamDatum says of an array."""
        if stream not in self._seq_nums:
            self._without_events.setdefault(stream, _SharedRows()).add(key, documented)
        self._by_range.setdefault((stream, key), RowsByRange()).add(documented, self._seq_nums.get(stream, ()))

    def row_count(self, stream: str) -> int:
        """How many events the stream has."""
        return len(self._seq_nums.get(stream, ()))

    def arrays(self) -> list[tuple[str, str]]:
        """Each (stream, data key) that frames were documented for."""
        return list(dict.fromkeys([*self._by_datum, *self._by_range]))

    def rows(self, stream: str, key: str) -> Rows:
        """The rows known so far; fewer than the events if a datum is still to come."""
        seq_nums = self._seq_nums.get(stream)
        if (stream, key) in self._by_datum:
            return self._by_datum[stream, key].known(self.row_count(stream), self._assets)
        if seq_nums is None:
            shared = self._without_events[stream]
            # Before, another array may only be ahead.
            points = shared.count if self._is_over else 0
            return self._by_range[stream, key].without_events(*shared.reached(key), points)
        return self._by_range[stream, key].known(seq_nums, final=self._is_over)

    def numbers_without_events(self, stream: str) -> list[tuple[int, int]]:
        """Of a stream without events, in the order of its rows: first sequence numbers, and how many follow each."""
        shared = self._without_events.get(stream)
        return [] if shared is None or stream in self._seq_nums else list(shared.numbers)


class _SharedRows:
    """The rows of a stream without events, which its arrays have in common: the points as they were documented.

    A sequence number comes again when the plan went back to a checkpoint: each time is a row. The array that comes to a
    row first says which sequence number it is; one that says another for it ends there.
    """

    def __init__(self) -> None:
        self.numbers: list[tuple[int, int]] = []
        """First sequence numbers, and how many follow each, in the order of the rows."""
        self.count = 0
        """How many rows there are."""
        self._starts: list[int] = []
        self._reached: dict[str, tuple[int, str]] = {}

    def reached(self, key: str) -> tuple[int, str]:
        """How many rows an array has so far, and why it has no more; empty if it can go on."""
        return self._reached.get(key, (0, ""))

    def add(self, key: str, documented: StreamRange) -> None:
        """Follow what a StreamDatum says of an array."""
        row, problem = self.reached(key)
        seq_num, left = documented.seq_num, documented.count
        while left > 0 and not problem:
            if row == self.count:
                self._append(seq_num, left)
            place = bisect_right(self._starts, row) - 1
            expected = self.numbers[place][0] + row - self._starts[place]
            if seq_num != expected:
                problem = f"its row {row} is seq_num {seq_num}, that of the other arrays of its stream {expected}"
                break
            step = min(left, self._starts[place] + self.numbers[place][1] - row)
            row, seq_num, left = row + step, seq_num + step, left - step
        self._reached[key] = row, problem

    def _append(self, seq_num: int, count: int) -> None:
        if self.numbers and sum(self.numbers[-1]) == seq_num:
            self.numbers[-1] = self.numbers[-1][0], self.numbers[-1][1] + count
        else:
            self.numbers.append((seq_num, count))
            self._starts.append(self.count)
        self.count += count


class _RowsByDatum:
    """Rows of an array whose events name a datum each."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.count = 0
        self.waiting: deque[tuple[int, Any]] = deque()
        self.datum_kwargs: dict[int, Mapping[str, Any]] = {}

    def add(self, row: int, datum_id: Any, assets: Assets) -> None:
        self.waiting.append((row, datum_id))
        self.take_known(assets)

    def take_known(self, assets: Assets) -> str:
        """Move what can be placed into the spans; say what holds up the rest."""
        while self.waiting:
            row, datum_id = self.waiting[0]
            if row != self.count:
                return f"event {self.count} of the stream has no datum for it"
            unusable = assets.why_unusable(datum_id)
            if unusable:
                return unusable
            found = assets.datum(datum_id)
            if found is None:
                return f"datum {datum_id!r} of event {row} was never announced"
            source, start, count, kwargs = found
            if source in assets.sources and assets.sources[source].is_handled:
                start, count, self.datum_kwargs[row] = row, 1, kwargs or {}
            if source in assets.unusable:
                return assets.unusable[source]
            if source not in assets.sources:
                return f"resource {source!r} of datum {datum_id!r} was never announced"
            append_rows(self.spans, source, start, 1, count)
            self.count += 1
            self.waiting.popleft()
        return ""

    def known(self, expected: int, assets: Assets) -> Rows:
        problem = self.take_known(assets)
        if not problem and self.count < expected:
            problem = f"event {self.count} of the stream has no datum for it"
        return Rows(tuple(self.spans), self.count, expected, problem, self.datum_kwargs)
