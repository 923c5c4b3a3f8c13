"""Rows that differ in shape, as parts of rows that are alike: frames of varying number, or of varying shape.

Each part is put in words as an array of its rows alone would be. Nothing of it is registered before the run is over: an
array that varies has no axes of its own by which the stock client could read the rest of a stream that grows.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, TypeAlias

import numpy as np

from bluesky_filestore.errors import FileStoreError
from bluesky_filestore.model.file_facts import FileFacts, Unseen
from bluesky_filestore.model.frame_axis import declared_shape, one_frame
from bluesky_filestore.model.frame_map import Rows, Source, Span
from bluesky_filestore.model.paths import formatted
from bluesky_filestore.model.ragged_rows import RAGGED, RaggedPart, RaggedRows, common_shape
from bluesky_filestore.model.specs import HDF5
from bluesky_filestore.model.stream_rows import append_rows

from .placement import Inspector, Placement, Refusal
from .structure import EventStructure

__all__ = ["PlaceAlike", "place_ragged", "varies_by_documents", "varies_by_files"]

PlaceAlike: TypeAlias = Callable[[Rows, Mapping[str, Source], Mapping[str, Any]], Placement | Refusal]
"""Puts rows that are alike in words."""


@dataclass(frozen=True, slots=True)
class _Row:
    """One row, and what it is like."""

    source: Source
    start: int
    width: int
    shape: tuple[int, ...]
    dtype: str
    asked: Mapping[str, Any] | None

    @property
    def kind(self) -> tuple[Any, ...]:
        """What rows of one part have in common."""
        source = self.source
        where = (source.mimetype, source.dataset, source.template is None, source.spec if source.is_handled else "")
        said = (source.frames_per_index or 1, source.files_per_index, str(source.parameters.get("slice") or ""))
        return *where, *said, self.width, self.shape, self.dtype


def varies_by_documents(rows: Rows, sources: Mapping[str, Source]) -> str:
    """In what way the documents alone say that rows differ; empty if they do not."""
    used = [sources[span.source] for span in rows.spans]
    if any(span.width != 1 for span in rows.spans):
        return "its events have different numbers of frames"
    if len({(source.frames_per_index or 1, source.files_per_index) for source in used}) > 1:
        return "its resources have different numbers of frames an event"
    return ""


def varies_by_files(
    rows: Rows, sources: Mapping[str, Source], data_key: Mapping[str, Any], inspect: Inspector, count: int
) -> bool:
    """Whether the first row that could not be put beside those before is there, and unlike the first; a cheap look."""
    known, _ = _looked_at(
        replace(rows, spans=(_row_alone(rows, 0), _row_alone(rows, count))), sources, data_key, inspect
    )
    return len(known) > 1 and known[0].kind != known[1].kind


def _row_alone(rows: Rows, number: int) -> Span:
    before = 0
    for span in rows.spans:
        if number < before + span.count:
            return replace(span, start=span.start + (number - before) * span.step, count=1)
        before += span.count
    raise IndexError(number)


def place_ragged(
    rows: Rows,
    sources: Mapping[str, Source],
    data_key: Mapping[str, Any],
    inspect: Inspector,
    place_alike: PlaceAlike,
) -> Placement | Refusal:
    """Express rows that differ as parts of rows that are alike.

    Where they turn out to be all alike, they are what their one part is.
    """
    known, problem = _looked_at(rows, sources, data_key, inspect)
    while known:
        by_kind: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        for number, row in enumerate(known):
            by_kind[row.kind].append(number)
        described = _described(data_key, known)
        placed = [
            _place_part([known[number] for number in of_kind], described, place_alike) for of_kind in by_kind.values()
        ]
        short = [
            (of_kind[0 if isinstance(part, Refusal) else part.count], part)
            for of_kind, part in zip(by_kind.values(), placed, strict=True)
            if isinstance(part, Refusal) or part.count < len(of_kind)
        ]
        if not short:
            return _joined(rows, by_kind, placed, problem or rows.problem)
        # The rows end before the first that is not there.
        first, part = min(short, key=lambda each: each[0])
        problem = part.reason if isinstance(part, Refusal) else part.missing
        known = known[:first]
    return Refusal(problem or rows.problem, settled=False)


def _looked_at(
    rows: Rows, sources: Mapping[str, Source], data_key: Mapping[str, Any], inspect: Inspector
) -> tuple[list[_Row], str]:
    """The rows up to the first that cannot be seen, and why not."""
    known: list[_Row] = []
    seen = _Seen(inspect, declared_shape(data_key))
    for span in rows.spans:
        source = sources[span.source]
        asked = (
            [rows.datum_kwargs[row] for row in range(span.start, span.start + span.count)]
            if source.is_handled
            else None
        )
        for place, facts in enumerate(seen.facts_of(source, span, asked)):
            if isinstance(facts, str):
                return known, facts
            row = _Row(source, span.start + place * span.step, span.width, *facts, asked[place] if asked else None)
            known.append(row)
    return known, ""


def _described(data_key: Mapping[str, Any], rows: Sequence[_Row]) -> dict[str, Any]:
    """The data key; with the shape of a frame alone where each event is one, and is described as one."""
    axes = len(data_key.get("shape") or ())
    frame_alone = all(row.asked is None and row.shape[:1] == (1,) and len(row.shape) == axes + 1 for row in rows)
    return {**data_key, "frame_alone": frame_alone}


class _Seen:
    """What files say of rows, each looked at once."""

    def __init__(self, inspect: Inspector, declared: tuple[int, ...] | None) -> None:
        self._inspect, self._declared = inspect, declared
        self._datasets: dict[tuple[PurePath, str | None], FileFacts | Unseen] = {}

    def facts_of(
        self, source: Source, span: Span, asked: Sequence[Mapping[str, Any]] | None
    ) -> Iterator[tuple[tuple[int, ...], str] | str]:
        """Shape and dtype of each row of a span; of one that cannot be seen, why not."""
        if asked is not None:
            handled = replace(source, parameters={**source.parameters, "datum_kwargs": list(asked)})
            for answer in self._inspect(handled, [source.path]):
                yield answer.reason if isinstance(answer, Unseen) else (answer.shape, answer.dtype)
            return
        unit = source.frames_per_index or source.files_per_index or 1
        frames = unit * span.width
        if source.template is None:
            yield from [self._of_dataset(source, frames)] * span.count
            return
        numbers = [index * unit + part for index in span.indices() for part in range(frames)]
        template = source.template
        files = [type(source.path)(formatted(template, number)) for number in numbers]
        found = [self._of_file(source, facts) for facts in self._inspect(source, files)] if files else []
        for row in range(span.count):
            of_row = found[row * frames : (row + 1) * frames]
            yield self._of_files(of_row, files[row * frames : (row + 1) * frames], frames)

    def _of_dataset(self, source: Source, frames: int) -> tuple[tuple[int, ...], str] | str:
        place = (source.path, source.dataset)
        if place not in self._datasets:
            (self._datasets[place],) = self._inspect(source, [source.path])
        facts = self._datasets[place]
        if isinstance(facts, Unseen):
            return facts.reason
        return (frames, *facts.shape[1:]), facts.dtype

    def _of_file(self, source: Source, facts: FileFacts | Unseen) -> FileFacts | str:
        if isinstance(facts, Unseen):
            return facts.reason
        if source.mimetype != HDF5:
            return facts
        shape = one_frame(facts.shape, self._declared)
        return (
            f"a file of its series holds {facts.shape[0]} frames; expected one"
            if shape is None
            else replace(facts, shape=shape)
        )

    @staticmethod
    def _of_files(
        found: Sequence[FileFacts | str], files: Sequence[PurePath], frames: int
    ) -> tuple[tuple[int, ...], str] | str:
        for facts, file in zip(found, files, strict=True):
            if isinstance(facts, str):
                return facts
            if facts != found[0]:
                return f"file {file} holds a frame of {list(facts.shape)} {facts.dtype}, unlike the first of its event"
        if not found or isinstance(found[0], str):
            return (0,), ""
        return (frames, *found[0].shape), found[0].dtype


def _place_part(rows: Sequence[_Row], data_key: Mapping[str, Any], place_alike: PlaceAlike) -> Placement | Refusal:
    """Rows that are alike, as an array of these alone."""
    first = rows[0]
    if not first.width:
        shape = (0, *first.shape[1:])
        return Placement("", EventStructure(shape, first.dtype, 0, shape[1:]), len(rows), {}, ())
    sources = {}
    spans: list[Span] = []
    for number, row in enumerate(rows):
        source = row.source
        if not source.is_handled:
            # How many frames a row has is known by now, whatever the descriptor says.
            unit = source.frames_per_index or source.files_per_index or 1
            source = replace(source, frames_per_index=unit * row.width, files_per_index=None, data_key="")
        sources[source.uid] = source
        append_rows(spans, source.uid, number if source.is_handled else row.start, 1, row.width)
    asked = {number: row.asked for number, row in enumerate(rows) if row.asked is not None}
    shape = first.shape[1:] if data_key["frame_alone"] else first.shape
    alike = {**data_key, "shape": list(shape), "dtype_numpy": first.dtype}
    try:
        return place_alike(Rows(tuple(spans), len(rows), len(rows), "", asked), sources, alike)
    except FileStoreError as error:
        return Refusal(str(error))


def _joined(
    rows: Rows, by_kind: Mapping[tuple[Any, ...], list[int]], placed: Sequence[Placement | Refusal], problem: str
) -> Placement | Refusal:
    """The parts as one array."""
    parts = [part for part in placed if isinstance(part, Placement)]
    count = sum(part.count for part in parts)
    missing = problem if count < rows.expected else ""
    if len(parts) == 1 and parts[0].mimetype:
        return replace(parts[0], missing=missing, settled=not missing)
    filled = [part for part in parts if part.mimetype]
    axes = {len(part.event.shape) for part in filled}
    dtypes = {np.dtype(part.event.dtype).newbyteorder("=") for part in filled}
    if not filled or len(axes) != 1 or len(dtypes) != 1:
        listed = ", ".join(sorted({f"{list(part.event.shape)} {part.event.dtype}" for part in filled})) or "nothing"
        return Refusal(f"its rows are not of one type and as many axes ({listed}), which no ragged array holds")
    parts = [part if part.mimetype else _without_frames(part, filled[0]) for part in parts]
    files = tuple(dict.fromkeys(file for part in parts for file in part.files))
    numbers = {file: number for number, file in enumerate(files)}
    shape = common_shape([part.event.shape for part in parts])
    order = _order(by_kind)
    described = tuple(
        RaggedPart(
            part.mimetype,
            (part.count, *part.event.shape),
            part.event.dtype,
            tuple(numbers[file] for file in part.files),
            part.parameters,
            part.properties,
        )
        for part in parts
    )
    return Placement(
        RAGGED,
        EventStructure((), next(iter(dtypes)).str, 0, ()),
        rows.expected if missing else count,
        RaggedRows(described, order, missing).to_parameters(),
        files,
        missing=missing,
        settled=not missing,
        ragged=shape,
        size=sum(part.count * math.prod(part.event.shape) for part in parts),
    )


def _without_frames(part: Placement, like: Placement) -> Placement:
    """Rows without a frame, in the shape that other rows have."""
    shape = (0, *like.event.shape[1:])
    return replace(part, event=EventStructure(shape, like.event.dtype, 0, shape[1:]))


def _order(by_kind: Mapping[tuple[Any, ...], list[int]]) -> tuple[tuple[int, int], ...]:
    part_of = {row: part for part, of_kind in enumerate(by_kind.values()) for row in of_kind}
    order: list[list[int]] = []
    for row in range(len(part_of)):
        if order and order[-1][0] == part_of[row]:
            order[-1][1] += 1
        else:
            order.append([part_of[row], 1])
    return tuple((part, count) for part, count in order)
