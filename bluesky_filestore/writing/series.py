"""Rows in files of a series, one or more whole files an event, for Tiled's adapters of file sequences."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from bluesky_filestore.errors import DocumentError
from bluesky_filestore.frames import Rows, Source
from bluesky_filestore.specs import HDF5

from .placement import Inspector, Placement, Refusal
from .structure import FileFacts, Unseen, event_structure

__all__ = ["place_in_series"]


def place_in_series(
    rows: Rows, sources: Mapping[str, Source], data_key: Mapping[str, Any], inspect: Inspector, seen_before: int
) -> Placement | Refusal:
    """Express rows of a series as a list of files.

    Raises
    ------
    DocumentError
        If shape or dtype cannot be made out, or a file holds more than a frame.
    """
    first = sources[rows.spans[0].source]
    number = rows.spans[0].start * (first.frames_per_index or first.files_per_index or 1)
    (sample,) = inspect(first, [_file(first, number)])
    if isinstance(sample, Unseen) and sample.kind != "out of reach":
        return Refusal(sample.reason, settled=False)
    facts = None if isinstance(sample, Unseen) else _one_frame(sample, first)
    event = event_structure(data_key, first, facts)
    files = [
        _file(sources[span.source], index * event.frames + part)
        for span in rows.spans
        for index in span.indices()
        for part in range(event.frames)
    ]
    good, problem = len(files), ""
    if facts is not None:
        good, problem = _alike(first, files[seen_before:], facts, inspect)
        good += seen_before
    count = good // event.frames
    if not count:
        return Refusal(problem, settled=False)
    del files[count * event.frames :]
    is_hdf5 = first.mimetype == HDF5
    return Placement(
        first.mimetype,
        event,
        count,
        parameters={"dataset": first.dataset} if is_hdf5 else {},
        files=_distinct(files),
        # The shape of what the adapter joins, before it is reshaped to the array's; it goes by the sums.
        properties={} if is_hdf5 else {"chunks": [[len(files)], *([size] for size in event.frame_shape)]},
        unverified=sample.reason if isinstance(sample, Unseen) else "",
        missing=(problem or rows.problem) if count < rows.expected else "",
        settled=not problem,
    )


def _one_frame(facts: FileFacts, source: Source) -> FileFacts:
    if source.mimetype != HDF5 or len(facts.shape) < 3:
        return facts
    if facts.shape[0] != 1:
        raise DocumentError(f"a file of its series holds {facts.shape[0]} frames; expected one")
    return replace(facts, shape=facts.shape[1:])


def _alike(source: Source, files: Sequence[PurePath], facts: FileFacts, inspect: Inspector) -> tuple[int, str]:
    """How many files, from the first on, are there and of one shape and dtype, and what is wrong with the next."""
    for number, (file, seen) in enumerate(zip(files, inspect(source, files), strict=True)):
        if isinstance(seen, Unseen):
            return number, seen.reason
        frame = _one_frame(seen, source)
        if frame != facts:
            return number, (
                f"file {file} holds a frame of {list(frame.shape)} {frame.dtype}, "
                f"the first file {list(facts.shape)} {facts.dtype}"
            )
    return len(files), ""


def _file(source: Source, number: int) -> PurePath:
    return type(source.path)((source.template or "") % number)


def _distinct(files: Sequence[PurePath]) -> tuple[str, ...]:
    """The paths as text, each a different one: under one name a catalog lists a file once an array.

    A frame that several events share comes again as ``directory/./name``, which is the same file to the server.
    """
    times: Counter[PurePath] = Counter()
    names = []
    for file in files:
        names.append(f"{file.parent.as_posix()}/{'./' * times[file]}{file.name}" if times[file] else str(file))
        times[file] += 1
    return tuple(names)
