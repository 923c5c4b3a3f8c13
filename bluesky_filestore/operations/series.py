"""Rows in files of a series, one or more whole files an event.

Tiled's own adapters of file sequences take a list of all files; our adapter takes the directories and the numbers.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import PurePath
from typing import Any, TypeAlias

from bluesky_filestore.errors import DocumentError
from bluesky_filestore.model.addressing import FILE_SERIES, FileSeries, RowSpan
from bluesky_filestore.model.file_facts import FileFacts, Unseen
from bluesky_filestore.model.frame_axis import declared_shape, one_frame
from bluesky_filestore.model.frame_map import Rows, Source, Span
from bluesky_filestore.model.paths import formatted
from bluesky_filestore.model.specs import HDF5

from .placement import Inspector, Placement, Refusal
from .structure import EventStructure, event_structure

__all__ = ["MOST_FILES", "place_in_series"]

MOST_FILES = 2_000_000
"""As many as a run can have; beyond, a document says what cannot be."""

_NumberedFile: TypeAlias = tuple[Source, int]


def place_in_series(
    rows: Rows,
    sources: Mapping[str, Source],
    data_key: Mapping[str, Any],
    inspect: Inspector,
    before: Placement | None,
    *,
    ours: bool,
) -> Placement | Refusal:
    """Express rows of a series as a list of files or, for our adapter, as directories and numbers.

    Raises
    ------
    DocumentError
        If shape or dtype cannot be made out, or a file holds more than a frame.
    """
    first = sources[rows.spans[0].source]
    number = rows.spans[0].start * ((first.frames_per_index or first.files_per_index or 1) // rows.spans[0].width)
    (sample,) = inspect(first, [_file(first, number)])
    if isinstance(sample, Unseen) and sample.kind != "out of reach":
        return Refusal(sample.reason, settled=False)
    declared = declared_shape(data_key)
    facts = None if isinstance(sample, Unseen) else _one_frame(sample, first, declared)
    event = event_structure(data_key, first, facts)
    good, problem = rows.count * event.frames, ""
    if good > MOST_FILES:
        return Refusal(f"its documents claim {good:,} files; expected {MOST_FILES:,} at most: they are damaged")
    if facts is not None:
        seen = before.count * event.frames if before is not None and not before.unverified else 0
        good, problem = _alike(list(islice(_files(rows, sources, event), seen, None)), facts, declared, inspect)
        good += seen
    count = good // event.frames
    if not count:
        return Refusal(problem, settled=False)
    placement = (_by_directory(rows, sources, event, count) if ours else None) or _by_file(rows, sources, event, count)
    return replace(
        placement,
        unverified=sample.reason if isinstance(sample, Unseen) else "",
        missing=(problem or rows.problem) if count < rows.expected else "",
        settled=not problem,
    )


def _by_file(rows: Rows, sources: Mapping[str, Source], event: EventStructure, count: int) -> Placement:
    first = sources[rows.spans[0].source]
    files = [_file(*file) for file in islice(_files(rows, sources, event), count * event.frames)]
    is_hdf5 = first.mimetype == HDF5
    return Placement(
        first.mimetype,
        event,
        count,
        parameters={"dataset": first.dataset} if is_hdf5 else {},
        files=_distinct(files),
        # The shape of what the adapter joins, before it is reshaped to the array's; it goes by the sums.
        properties={} if is_hdf5 else {"chunks": [[len(files)], *([size] for size in event.frame_shape)]},
    )


def _by_directory(rows: Rows, sources: Mapping[str, Source], event: EventStructure, count: int) -> Placement | None:
    """For our adapter; None if the number is part of a directory's name, so that each file has one of its own."""
    assets: dict[tuple[PurePath, str], int] = {}
    spans = []
    for span in _first_rows(rows.spans, count):
        place = _directory_and_name(sources[span.source])
        if place is None:
            return None
        asset = assets.setdefault(place, len(assets))
        unit = event.frames // span.width
        spans.append(RowSpan(asset, span.start * unit, span.count, span.step * unit))
    first = sources[rows.spans[0].source]
    templates = tuple(name for _, name in assets)
    address = FileSeries(first.mimetype, templates, event.frames, tuple(spans), first.dataset or "")
    directories = _distinct([directory for directory, _ in assets])
    return Placement(FILE_SERIES, event, count, address.to_parameters(), directories)


def _first_rows(spans: Sequence[Span], count: int) -> Iterator[Span]:
    """The spans of the first so many rows."""
    for span in spans:
        if count <= 0:
            return
        yield span if span.count <= count else replace(span, count=count)
        count -= span.count


def _directory_and_name(source: Source) -> tuple[PurePath, str] | None:
    path = type(source.path)(source.template or "")
    if "%" in str(path.parent).replace("%%", ""):
        return None
    return type(source.path)(str(path.parent).replace("%%", "%")), path.name


def _files(rows: Rows, sources: Mapping[str, Source], event: EventStructure) -> Iterator[_NumberedFile]:
    for span in rows.spans:
        unit = event.frames // span.width
        for index in span.indices():
            for part in range(event.frames):
                yield sources[span.source], index * unit + part


def _one_frame(facts: FileFacts, source: Source, declared: tuple[int, ...] | None) -> FileFacts:
    if source.mimetype != HDF5:
        return facts
    shape = one_frame(facts.shape, declared)
    if shape is None:
        raise DocumentError(f"a file of its series holds {facts.shape[0]} frames; expected one")
    return replace(facts, shape=shape)


def _alike(
    numbered: Sequence[_NumberedFile], facts: FileFacts, declared: tuple[int, ...] | None, inspect: Inspector
) -> tuple[int, str]:
    """How many files, from the first on, are there and of one shape and dtype, and what is wrong with the next."""
    if not numbered:
        return 0, ""
    source = numbered[0][0]
    files = [_file(*file) for file in numbered]
    for number, (file, seen) in enumerate(zip(files, inspect(source, files), strict=True)):
        if isinstance(seen, Unseen):
            return number, seen.reason
        frame = _one_frame(seen, source, declared)
        if frame != facts:
            return number, (
                f"file {file} holds a frame of {list(frame.shape)} {frame.dtype}, "
                f"the first file {list(facts.shape)} {facts.dtype}"
            )
    return len(files), ""


def _file(source: Source, number: int) -> PurePath:
    return type(source.path)(formatted(source.template or "", number))


def _distinct(paths: Sequence[PurePath]) -> tuple[str, ...]:
    """The paths as text, each a different one: under one name a catalog lists a file once an array.

    A path that comes again comes as ``directory/./name``, which is the same file to the server.
    """
    times: Counter[PurePath] = Counter()
    names = []
    for path in paths:
        again = f"{path.parent.as_posix().rstrip('/')}/{'./' * times[path]}{path.name}"
        names.append(again if times[path] else str(path))
        times[path] += 1
    return tuple(names)
