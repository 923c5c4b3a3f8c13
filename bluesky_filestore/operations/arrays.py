"""The external arrays of a run: what is registered of each, what was refused, and what has to be said of them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from bluesky_filestore.model.addressing import HDF5_ROWS
from bluesky_filestore.model.chunks import chunks_for_reading
from bluesky_filestore.model.frame_axis import declared_shape
from bluesky_filestore.model.frame_map import Assets, FrameMap, Source, Span

from .forms import place
from .operations import DropArray, Operation, PlaceArray, own_dims
from .placement import (
    ASKED_FOR,
    Inspector,
    Placement,
    Reads,
    Refusal,
    SizesOf,
    Stamper,
    Viewer,
    knows_no_sizes,
    stamps_nothing,
)

__all__ = ["ExternalArrays", "Said"]

Said = dict[str, dict[str, dict[str, Any]]]
"""By kind (``refused``, ``missing``, ``unverified``, ``differences``, ``unreadable``, ``uncollected``), stream and data
key: words, or a mapping."""

_MOST_LISTED = 1000
_MOST_SAID = 10


@dataclass(frozen=True, slots=True)
class _Placed:
    """What was last registered of an array."""

    known: tuple[tuple[Span, ...], int]
    """Which rows were known and how many were expected then."""
    placement: Placement | None
    """What was registered; None if it was refused."""
    settled: bool
    """Whether looking at its files again will not help."""
    growing: bool = False
    """Whether it was registered while its run went on, with axes of its own."""


class ExternalArrays:
    """The arrays of one run whose frames are in files.

    Parameters
    ----------
    run : str
        The run's uid.
    assets : Assets
        Resources and datums of this and all other runs.
    inspect : Inspector
        Looks at files.
    reads : Reads
        Asked once, before the first array is placed: how an array is registered does not change with the server.
    stamp : Stamper
        Says at the end of the run what the files are like.
    sizes_of : SizesOf
        Says how large they are.
    view : Viewer, optional
        Makes files for what no stock adapter can address. By default that is refused.
    """

    def __init__(
        self,
        run: str,
        assets: Assets,
        inspect: Inspector,
        reads: Reads,
        stamp: Stamper = stamps_nothing,
        sizes_of: SizesOf = knows_no_sizes,
        view: Viewer | None = None,
    ) -> None:
        self.frames = FrameMap(assets)
        self._run, self._assets, self._inspect, self._reads, self._stamp = run, assets, inspect, reads, stamp
        self._sizes_of, self._view = sizes_of, view
        self.ended: Any = None
        """When the run ended, in seconds since 1970; None, or whatever its stop says, if that is not known."""
        self._ours: frozenset[str] | None = None
        self._data_keys: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._placed: dict[tuple[str, str], _Placed] = {}
        self._refused: dict[tuple[str, str], str] = {}

    def describe(self, stream: str, key: str, data_key: Mapping[str, Any]) -> None:
        """Make an external key of a stream known."""
        self._data_keys[stream, key] = data_key

    def refuse(self, stream: str, key: str, reason: str) -> None:
        """Say why an array will not be registered."""
        self._refused[stream, key] = reason

    @property
    def settled(self) -> bool:
        """Whether looking at the files again will not help."""
        return all(placed.settled for placed in self._placed.values())

    @property
    def files(self) -> list[str]:
        """The files of all that is registered; of a series as a whole its directories."""
        placed = (each.placement for each in self._placed.values() if each.placement is not None)
        return list(dict.fromkeys(file for placement in placed for file in placement.files))

    @property
    def is_looking(self) -> bool:
        """Whether somebody still looks for frames in the files."""
        looks = [placed.placement.look for placed in self._placed.values() if placed.placement is not None]
        return any(look is not None and not look.done() for look in looks)

    def files_per_index(self, stream: str, key: str, source: Source, width: int) -> int:
        """Of an array in a series: how many files an index stands for, of which an event has `width`.

        What its files hold says it, else, where they are not there, the documents.
        """
        placed = self._placed.get((stream, key))
        if placed is not None and placed.placement is not None and placed.placement.event.frames:
            return placed.placement.event.frames // placed.known[0][0].width
        declared = declared_shape(self._data_keys[stream, key])
        frames = source.frames_per_event(declared, declared[-2:] if declared else ())
        return max(1, frames // width) if source.data_key else frames

    def take(self, *, final: bool) -> list[Operation]:
        """What has to be registered for the rows that became known since the last time.

        Parameters
        ----------
        final : bool
            Whether the run is over: what cannot be registered now is refused, and files that were missing or being
            written are looked at again.

        Raises
        ------
        CatalogUnreachableError
            If nobody can say what the server reads; nothing has been taken then.
        """
        self.ask()
        if final:
            self.frames.end()
        operations: list[Operation] = []
        for array in self.frames.arrays():
            try:
                operations += self._take(array, final=final)
            except Exception as error:  # noqa: BLE001 - one array must not cost the others, nor the events
                self._refused[array] = f"what is known of its frames cannot be used: {error!r}"
        return operations

    def ask(self) -> None:
        """Ask what the server reads, if it matters and was not asked; raises as `take` does."""
        if self._ours is None and self._data_keys:
            self._ours = frozenset(filter(self._reads, ASKED_FOR))

    def said(self, events_hold: "Mapping[str, Any]") -> Said:
        """What has to be said of the arrays.

        Parameters
        ----------
        events_hold : Mapping
            By stream, a container of the keys whose values came with the events.
        """
        said: Said = {}
        # In the order of the descriptors: when an array was refused depends on when it was looked at.
        for stream, key in dict.fromkeys([*self._data_keys, *self._refused]):
            reason = self._refused.get((stream, key))
            if reason is not None:
                said.setdefault("refused", {}).setdefault(stream, {})[key] = reason
        for stream, key in self._data_keys:
            if (stream, key) in self._refused or key in events_hold[stream]:
                continue
            for kind, words in self._words_of((stream, key)).items():
                said.setdefault(kind, {}).setdefault(stream, {})[key] = words
        return said

    def notes(self) -> list[str]:
        """Which documented frames no event took, a sentence a source, and what rows are where no events say so."""
        sentences = []
        for stream, key in self._data_keys:
            counts: dict[str, list[int]] = {}
            for left in self.frames.untaken(stream, key):
                count = left.count * left.width
                counts.setdefault(left.source, []).extend((left.start, left.start + count - 1, count))
            for source, numbers in counts.items():
                sentences.append(
                    f"Documented for '{key}' and taken by no event of stream '{stream}': {sum(numbers[2::3])} indices "
                    f"of stream_resource '{source}', from {min(numbers[::3])} to {max(numbers[1::3])}."
                )
        for stream in dict.fromkeys(stream for stream, _ in self._data_keys):
            pieces = self.frames.numbers_without_events(stream)
            if [first for first, _ in pieces] not in ([], [1]):
                sentences.append(
                    f"Stream '{stream}' has no events, and its rows are the points as they were documented, a point "
                    f"that was taken again each time: {_listed_rows(pieces)}."
                )
        return sentences

    def _words_of(self, array: tuple[str, str]) -> dict[str, Any]:
        placed = self._placed.get(array)
        if placed is None:
            has_events = self.frames.row_count(array[0]) > 0
            return {"refused": "no document says where its frames are"} if has_events else {}
        words: dict[str, Any] = {}
        if placed.placement is None:
            return words
        if placed.placement.unverified:
            words["unverified"] = placed.placement.unverified
        if placed.placement.missing:
            missing = range(placed.placement.count, placed.known[1])
            words["missing"] = {"events": list(missing[:_MOST_LISTED]), "reason": placed.placement.missing}
        if placed.placement.event.differences:
            words["differences"] = list(placed.placement.event.differences)
        look = placed.placement.look
        if look is not None and look.done() and look.result():
            words["unreadable"] = look.result()
        uncollected = self._uncollected(array, placed.placement)
        if uncollected:
            words["uncollected"] = uncollected
        return words

    def _uncollected(self, array: tuple[str, str], placement: Placement) -> str:
        """Which frames of its files come after all that the run's stream_datums speak of; nothing of Datums."""
        ends: dict[tuple[PurePath, str | None], int] = {}
        for other in self._placed:
            for source, end in self._documented(other):
                key = source.path, source.dataset
                ends[key] = max(end, ends.get(key, 0))
        own = {(source.path, source.dataset): None for source, _ in self._documented(array)}
        return "; ".join(
            f"file {key[0]} holds {placement.lengths[key[0]]} frames, and the run's documents speak of none from "
            f"{ends[key]} on: nobody collected them, or they are another run's or were never written"
            for key in own
            if ends[key] < placement.lengths.get(key[0], 0)
        )

    def _documented(self, array: tuple[str, str]) -> Iterator[tuple[Source, int]]:
        """For each range that stream_datums name of an array: its source, and the number after its last frame."""
        placed = self._placed[array]
        frames = placed.placement.event.frames if placed.placement is not None else 1
        for span in placed.known[0]:
            source = self._assets.sources[span.source]
            if source.data_key:
                yield source, (max(span.start, span.stop - span.step) + span.width) * frames
        for left in self.frames.untaken(*array):
            yield self._assets.sources[left.source], (left.start + left.count * left.width) * frames

    def _take(self, array: tuple[str, str], *, final: bool) -> list[Operation]:
        before = self._placed.get(array)
        rows = self.frames.rows(*array)
        known = (rows.spans, rows.expected)
        # At its end an array that grew gets the axes that it shares with its stream's table.
        is_to_end = before is not None and before.growing and final
        if before is not None and before.known == known and (before.settled or not final) and not is_to_end:
            return []
        registered = before.placement if before is not None else None
        data_key, ours = self._data_keys[array], self._ours or ()
        # Rows that were corrected are of other frames, whose files nobody has looked at.
        same = registered if before is not None and _begins_with(rows.spans, before.known[0]) else None
        placed = place(rows, self._assets.sources, data_key, self._inspect, same, ours, final=final)
        if isinstance(placed, Refusal) and self._view is not None and HDF5_ROWS not in ours:
            addressed = place(rows, self._assets.sources, data_key, self._inspect, None, {*ours, HDF5_ROWS})
            if isinstance(addressed, Placement) and addressed.mimetype == HDF5_ROWS:
                # Not before the end: each further row would have the file made anew.
                waits = Refusal(placed.reason, settled=False)
                placed = self._view(self._run, *array, addressed) if final else waits
        if isinstance(placed, Refusal):
            if not (placed.settled or final):
                return []
            self._refused[array] = placed.reason
            self._placed[array] = _Placed(known, None, placed.settled)
            # Whoever delivered the run before may have registered what there was then.
            return [DropArray(self._run, *array)] if registered is not None or before is None else []
        if final:
            # Not before: the files of a live run grow.
            ended = self.ended if isinstance(self.ended, int | float) else math.inf
            placed = self._stamp(placed, registered, ended)
        self._refused.pop(array, None)
        if placed.refused:
            self._refused[array] = placed.refused
        self._placed[array] = _Placed(known, placed, placed.settled, growing=not final)
        if placed == registered and not is_to_end:
            return []
        old = registered.files if registered is not None else ()
        # An array goes on under another mimetype, too: its files are the same. What was one of rows alike is another.
        goes_on = registered is None or registered.family == placed.family
        if goes_on and placed.files[: len(old)] == old:
            return [self._operation(placed, array, len(old), final=final)]
        # A catalog adds files to an array and takes none away.
        return [DropArray(self._run, *array), self._operation(placed, array, 0, final=final)]

    def _operation(self, placed: Placement, array: tuple[str, str], first_file: int, *, final: bool) -> PlaceArray:
        event = placed.event
        shape = (placed.count, *event.shape)
        named = tuple(self._data_keys[array].get("dims") or ())
        dims = ("time", *named) if named and len(named) == len(shape) - 1 else None
        if placed.missing or not final:
            dims = own_dims(array[1], len(shape))
        # Files of a live run grow: at its end those that were registered before are looked at, too.
        first_sized = 0 if final else first_file
        sizes = self._sizes_of(placed.files[first_sized:])
        return PlaceArray(
            self._run,
            *array,
            mimetype=placed.mimetype,
            shape=shape,
            dtype=event.dtype,
            chunks=chunks_for_reading(shape, event.dtype),
            parameters=placed.parameters,
            properties=placed.properties,
            files=placed.files[first_file:],
            first_file=first_file,
            dims=dims if placed.ragged is None and not placed.refused else None,
            ragged=placed.ragged,
            size=placed.size,
            file_sizes={number: size for number, size in enumerate(sizes, first_sized) if size is not None},
            # What bluesky-tiled-plugins' validate() has to know so as not to take the frame axis out again.
            metadata={"frame_per_point": event.frames} if event.shape == (event.frames, *event.frame_shape) else {},
        )


def _listed_rows(pieces: Sequence[tuple[int, int]]) -> str:
    """Which rows are which points, as far as there is room."""
    words, row = [], 0
    for first, count in pieces[:_MOST_SAID]:
        words.append(f"rows {row} to {row + count - 1} are seq_num {first} to {first + count - 1}")
        row += count
    return ", ".join([*words, *(["..."] if len(pieces) > _MOST_SAID else [])])


def _begins_with(spans: Sequence[Span], before: Sequence[Span]) -> bool:
    """Whether rows go on from those that there were before."""
    if not before:
        return True
    place, last = len(before) - 1, before[-1]
    if len(spans) <= place or tuple(spans[:place]) != tuple(before[:place]):
        return False
    now = spans[place]
    goes_on = last.count == 1 or now.step == last.step
    return (now.source, now.start) == (last.source, last.start) and now.count >= last.count and goes_on
