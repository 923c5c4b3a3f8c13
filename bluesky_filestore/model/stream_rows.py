"""Rows of an array whose frames are documented by StreamDatums, in the order of the events of its stream.

What a StreamDatum says of a sequence number belongs to the event with that number that *follows* it. A number comes
again when a plan is rewound, or when a detector was triggered and its event never saved; bluesky then emits a further
StreamDatum for the same number, with other indices. So:

===========================================  ===================================================================
an event comes, and of its number            then
===========================================  ===================================================================
a range was documented before it             the latest such range is its: those before it were abandoned
the latest range is taken by an event        it waits (that it was read again without a trigger, nobody says)
no range was documented                      it waits
===========================================  ===================================================================

A waiting event ends the rows, until the run is over. Then it gets the range that came after it, the first waiting
event of a number the first such range; but not where a later event of the number has taken a range that came after
both, for then nobody can tell whose it was. Ranges that no event took are told.

All of this depends on the order of the documents alone: what is asked for in between changes nothing, and rows that
were given out for events stay what they are. Before a stream has its first event nobody can tell whether it will have
any: until then its rows are those of the ranges, in their own order.

State of `RowsByRange`: `spans` and `_count` are the rows before the first that waits, `_later` those from there on,
each piece with its range, or without one if it waits; `_free` are ranges, or what is left of them, in the order in
which they were documented; `_in_order` says whether their numbers rise and none comes twice; `_seen` is how many
events were looked at; `_doubtful` are numbers, half-open, of which nobody can tell whose a range is. One thread at a
time may use it.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["Rows", "RowsByRange", "Span", "StreamRange", "append_rows"]

_DOUBTFUL = (
    "two events have seq_num {}, and the stream_datum that came between them does not say whose it is; expected it "
    "before its event"
)


@dataclass(frozen=True, slots=True)
class StreamRange:
    """What one StreamDatum says."""

    source: str
    """The uid of the source."""
    start: int
    """The first index."""
    seq_num: int
    """The sequence number of the event that the first index belongs to."""
    count: int
    """How many consecutive sequence numbers."""
    width: int = 1
    """How many consecutive indices belong to each of them."""

    @property
    def end(self) -> int:
        """The sequence number after the last."""
        return self.seq_num + self.count

    def covers(self, seq_num: int) -> bool:
        """Whether it speaks of an event with that sequence number."""
        return self.seq_num <= seq_num < self.end

    def part(self, first: int, stop: int) -> "StreamRange":
        """What it says of the sequence numbers from `first` up to `stop`, all of which are its own."""
        start = self.start + (first - self.seq_num) * self.width
        return StreamRange(self.source, start, first, stop - first, self.width)

    def continues(self, other: "StreamRange") -> bool:
        """Whether both are one range that was documented in two pieces."""
        follows = self.seq_num == other.end and self.start == other.start + other.count * other.width
        return (self.source, self.width) == (other.source, other.width) and follows


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive rows whose indices lie at a constant distance in one source."""

    source: str
    """The uid of the source."""
    start: int
    """The index of the first row."""
    count: int
    """How many rows."""
    step: int = 1
    """The distance from row to row; may be zero or negative."""
    width: int = 1
    """How many consecutive indices a row has."""

    @property
    def stop(self) -> int:
        """The index that the next row would have."""
        return self.start + self.count * self.step

    def indices(self) -> Iterator[int]:
        """The index of each row."""
        return (self.start + row * self.step for row in range(self.count))


@dataclass(frozen=True, slots=True)
class Rows:
    """What is known of the rows of one array."""

    spans: tuple[Span, ...]
    """The rows from the first on, without a gap."""
    count: int
    """How many rows the spans cover."""
    expected: int
    """How many rows the event table has (or, without events, how many were documented)."""
    problem: str = ""
    """Why the rows end before the table does, if they do."""
    datum_kwargs: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    """By row: what its handler is asked, where that alone says what a Datum stands for."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """Consecutive rows from the first that waits on."""

    seq_num: int
    """The sequence number of the first of them; those of the others follow."""
    count: int
    """How many rows."""
    taken: StreamRange | None
    """Their range; None if they wait for one."""

    @property
    def end(self) -> int:
        """The sequence number after the last."""
        return self.seq_num + self.count


class RowsByRange:
    """Rows of an array whose frames are documented by StreamDatums."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._count = 0
        self._seen = 0
        self._later: list[_Piece] = []
        self._free: deque[StreamRange] = deque()
        self._in_order = True
        self._abandoned: list[StreamRange] = []
        self._doubtful: list[tuple[int, int]] = []

    def add(self, documented: StreamRange, seq_nums: Sequence[int]) -> None:
        """Take a range; the events so far came before it."""
        self._follow(seq_nums)
        if documented.count <= 0:
            # A flyer that has nothing new.
            return
        if self._free:
            last = self._free[-1]
            if documented.continues(last):
                self._free[-1] = replace(last, count=last.count + documented.count)
                return
            self._in_order = self._in_order and documented.seq_num >= last.seq_num + last.count
        self._free.append(documented)

    def without_events(self, count: int, problem: str, points: int) -> Rows:
        """The first rows of a stream without events, whose order is that of the documents; given why no more are.

        There shall be as many as of the other arrays of the stream, of which some have that many `points`.
        """
        spans: list[Span] = []
        left = count
        for documented in self._free:
            part = min(left, documented.count)
            append_rows(spans, documented.source, documented.start, part, documented.width)
            left -= part
        if not problem and count < points:
            problem = f"its stream_datums speak of {count} of the {points} points of its stream"
        return Rows(tuple(spans), count, max(points, sum(documented.count for documented in self._free)), problem)

    def known(self, seq_nums: Sequence[int], *, final: bool) -> Rows:
        """The rows so far; with `final`, no document of the run is to come any more."""
        self._follow(seq_nums)
        if not self._later:
            return Rows(tuple(self.spans), self._count, self._seen)
        spans, count, problem = (list(self.spans), self._count, "")
        if final:
            count, problem = self._with_late(spans)
        if not problem and count < self._seen:
            problem = f"no stream_datum covers event {count} (seq_num {seq_nums[count]})"
        return Rows(tuple(spans), count, self._seen, problem)

    def untaken(self, seq_nums: Sequence[int]) -> list[StreamRange]:
        """The ranges, at the end of a run with events, that belong to none of them."""
        self._follow(seq_nums)
        left = deque(self._free)
        for piece in self._later:
            if piece.taken is None:
                self._late(piece, left)
        return sorted([*self._abandoned, *left], key=lambda each: (each.source, each.start))

    def _follow(self, seq_nums: Sequence[int]) -> None:
        """Give the events that came since the last time the ranges that were documented before them."""
        while self._seen < len(seq_nums):
            wanted = seq_nums[self._seen]
            position = self._position(wanted)
            longest = self._consecutive(seq_nums, self._most(wanted, position))
            if position is not None:
                self._take(position, wanted, longest)
            else:
                self._add_later(_Piece(wanted, longest, None))
            self._seen += longest

    def _position(self, wanted: int) -> int | None:
        """Where among the free ranges the latest is that covers a sequence number."""
        if self._in_order:
            # No two cover the same number, and the first is mostly the one.
            return next((place for place, each in enumerate(self._free) if each.covers(wanted)), None)
        places = range(len(self._free) - 1, -1, -1)
        return next((place for place in places if self._free[place].covers(wanted)), None)

    def _most(self, wanted: int, position: int | None) -> int | None:
        """For how many consecutive sequence numbers the answer stays the same; None for any."""
        first = 0 if position is None else position + 1
        ends = [] if position is None else [self._free[position].end]
        if position is None or not self._in_order:
            ends += [each.seq_num for each in list(self._free)[first:] if each.seq_num > wanted]
        return min(ends) - wanted if ends else None

    def _consecutive(self, seq_nums: Sequence[int], most: int | None) -> int:
        """How many events from the next on have consecutive sequence numbers."""
        first, length = seq_nums[self._seen], 1
        stop = len(seq_nums) - self._seen if most is None else min(most, len(seq_nums) - self._seen)
        while length < stop and seq_nums[self._seen + length] == first + length:
            length += 1
        return length

    def _take(self, position: int, wanted: int, length: int) -> None:
        """Give rows a part of a free range, and abandon what else was free for their numbers."""
        taken = _cut(self._free, position, wanted, wanted + length)
        if self._later:
            waiting = [piece for piece in self._later if piece.taken is None]
            overlaps = [_overlap(piece.seq_num, piece.end, wanted, wanted + length) for piece in waiting]
            self._doubtful += [overlap for overlap in overlaps if overlap]
            self._add_later(_Piece(wanted, length, taken))
        else:
            append_rows(self.spans, taken.source, taken.start, length, taken.width)
            self._count += length
        if self._in_order:
            return
        for earlier in range(position - 1, -1, -1):
            overlap = _overlap(self._free[earlier].seq_num, self._free[earlier].end, wanted, wanted + length)
            if overlap:
                self._abandoned.append(_cut(self._free, earlier, *overlap))
        self._in_order = len(self._free) < 2

    def _add_later(self, piece: _Piece) -> None:
        last = self._later[-1] if self._later else None
        if last is not None and last.taken is piece.taken is None and last.end == piece.seq_num:
            self._later[-1] = replace(last, count=last.count + piece.count)
        else:
            self._later.append(piece)

    def _with_late(self, spans: list[Span]) -> tuple[int, str]:
        """Append the rows from the first that waits on, as far as there are ranges for them.

        Returns
        -------
        int
            How many rows there are then.
        str
            Why there are no more, if it is not just that no range is left.
        """
        left, count = deque(self._free), self._count
        for piece in self._later:
            given = [piece.taken] if piece.taken is not None else self._late(piece, left)
            for part in given:
                append_rows(spans, part.source, part.start, part.count, part.width)
                count += part.count
            reached = given[-1].end if given else piece.seq_num
            if reached < piece.end:
                is_doubtful = any(first <= reached < stop for first, stop in self._doubtful)
                return count, _DOUBTFUL.format(reached) if is_doubtful else ""
        return count, ""

    def _late(self, piece: _Piece, left: deque[StreamRange]) -> list[StreamRange]:
        """The ranges that came after waiting rows, from the first row on without a gap; they are cut out of `left`."""
        stop = min([piece.end, *(first for first, end in self._doubtful if end > piece.seq_num)])
        given: list[StreamRange] = []
        seq_num = piece.seq_num
        while seq_num < stop:
            position = next((place for place, each in enumerate(left) if each.covers(seq_num)), None)
            if position is None:
                break
            given.append(_cut(left, position, seq_num, min(stop, left[position].end)))
            seq_num = given[-1].end
        return given


def _cut(ranges: deque[StreamRange], position: int, first: int, stop: int) -> StreamRange:
    """Take the sequence numbers from `first` up to `stop` out of one of the ranges, and leave what lies beside them."""
    whole = ranges[position]
    rest = [part for part in (whole.part(whole.seq_num, first), whole.part(stop, whole.end)) if part.count]
    if len(rest) == 1:
        ranges[position] = rest[0]
    else:
        del ranges[position]
        for part in reversed(rest):
            ranges.insert(position, part)
    return whole.part(first, stop)


def _overlap(first: int, stop: int, other: int, other_stop: int) -> tuple[int, int] | None:
    """The numbers that two half-open ranges have in common; None if there are none."""
    begin, end = max(first, other), min(stop, other_stop)
    return (begin, end) if begin < end else None


def append_rows(spans: list[Span], source: str, start: int, count: int, width: int = 1) -> None:
    """Append rows, one behind the other, to spans, which come out the same in whatever pieces rows are appended."""
    while count:
        last = spans[-1] if spans and (spans[-1].source, spans[-1].width) == (source, width) else None
        step = 0 if last is None else start - last.start if last.count == 1 else last.step
        if last is None or start != last.start + last.count * step:
            spans.append(Span(source, start, count, width, width))
            return
        fitting = count if step == width else 1
        spans[-1] = Span(source, last.start, last.count + fitting, step, width)
        start, count = start + fitting * width, count - fitting
