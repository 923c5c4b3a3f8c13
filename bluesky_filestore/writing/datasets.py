"""Rows of one dataset in one or several files, for Tiled's HDF5 adapter.

The adapter joins the whole datasets of its files along their first axis and takes one slice of the result. Rows that
lie at a constant distance in what is joined can be put so, others cannot.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

import numpy as np

from bluesky_filestore.errors import DocumentError
from bluesky_filestore.frames import Rows, Source, Span
from bluesky_filestore.specs import HDF5

from .placement import Inspector, Placement, Refusal
from .structure import EventStructure, FileFacts, Unseen, event_structure

__all__ = ["place_in_datasets"]


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows of one span, in frames of the datasets joined."""

    begin: int
    """The first frame of the first event."""
    distance: int
    """From event to event."""
    count: int
    """How many events."""


def place_in_datasets(
    rows: Rows, sources: Mapping[str, Source], data_key: Mapping[str, Any], inspect: Inspector
) -> Placement | Refusal:
    """Express rows of datasets as one slice.

    Raises
    ------
    DocumentError
        If shape, dtype or slice cannot be made out.
    """
    paths = list(dict.fromkeys(sources[span.source].path for span in rows.spans))
    first = sources[rows.spans[0].source]
    seen = inspect(first, paths)
    unverified = ""
    if isinstance(seen[0], Unseen):
        if seen[0].kind not in ("out of reach", "busy"):
            return Refusal(seen[0].reason, settled=False)
        if len(paths) > 1:
            reason = f"it lies in {len(paths)} files of unknown length: {seen[0].reason}"
            return Refusal(reason, settled=seen[0].kind != "busy")
        event, unverified = event_structure(data_key, first, None), seen[0].reason
    else:
        event = event_structure(data_key, first, _after_slice(seen[0], first))
    lengths, problem = _joinable(paths, seen)
    pieces, short = _pieces(rows.spans, sources, lengths, event.frames)
    count = sum(piece.count for piece in pieces)
    if not count:
        return Refusal(short or problem, settled=False)
    slice_text = _slice_of(pieces, event)
    if slice_text is None:
        return Refusal(_irregular(rows, sources))
    return Placement(
        HDF5,
        event,
        count,
        _parameters(first, slice_text),
        files=tuple(str(path) for path in lengths),
        unverified=unverified,
        missing=(short or problem or rows.problem) if count < rows.expected else "",
        settled=(not (short or problem) and all(isinstance(facts, FileFacts) for facts in seen)) or _is_away(seen),
    )


def _is_away(seen: Sequence[FileFacts | Unseen]) -> bool:
    return isinstance(seen[0], Unseen) and seen[0].kind == "out of reach"


def _joinable(paths: Sequence[PurePath], seen: Sequence[FileFacts | Unseen]) -> tuple[dict[PurePath, int | None], str]:
    """The lengths of the files up to the first that cannot be joined to those before it, and why it cannot.

    The last file may be of unknown length (None): nothing follows it.
    """
    first = seen[0]
    lengths: dict[PurePath, int | None] = {}
    for path, facts in zip(paths, seen, strict=True):
        if isinstance(facts, Unseen):
            if path == paths[-1] and facts.kind in ("out of reach", "busy"):
                lengths[path] = None
                return lengths, ""
            return lengths, facts.reason
        if isinstance(first, FileFacts) and (facts.shape[1:], facts.dtype) != (first.shape[1:], first.dtype):
            return lengths, (
                f"file {path} holds frames of {list(facts.shape[1:])} {facts.dtype}, "
                f"the first file {list(first.shape[1:])} {first.dtype}"
            )
        lengths[path] = facts.shape[0] if facts.shape else 0
    return lengths, ""


def _pieces(
    spans: Iterable[Span], sources: Mapping[str, Source], lengths: Mapping[PurePath, int | None], frames: int
) -> tuple[list[_Piece], str]:
    """The rows whose frames exist, up to the first whose frames do not, and why not."""
    starts = dict(zip(lengths, np.cumsum([0, *(length or 0 for length in lengths.values())]).tolist(), strict=False))
    pieces: list[_Piece] = []
    for span in spans:
        path = sources[span.source].path
        if path not in lengths:
            break
        count = _available(span, frames, lengths[path])
        if count:
            pieces.append(_Piece(starts[path] + span.start * frames, span.step * frames, count))
        if count < span.count:
            wanted = (span.start + count * span.step + 1) * frames
            event = sum(piece.count for piece in pieces)
            return pieces, f"file {path} holds {lengths[path]} frames; event {event} needs {wanted}"
    return pieces, ""


def _available(span: Span, frames: int, length: int | None) -> int:
    """How many rows of the span, from the first on, are in a file of this length."""
    if length is None:
        return span.count
    if max(span.start, span.stop - span.step) < length // frames:
        return span.count
    return next(row for row, index in enumerate(span.indices()) if index >= length // frames)


def _slice_of(pieces: Sequence[_Piece], event: EventStructure) -> str | None:
    """The slice of the first axis that gives the rows in their order, or None if there is none."""
    begin, count = pieces[0].begin, sum(piece.count for piece in pieces)
    if count == 1:
        return f"{begin}:{begin + event.frames}"
    step = pieces[0].distance if pieces[0].count > 1 else pieces[1].begin - begin
    at = begin
    for piece in pieces:
        if piece.begin != at or (piece.count > 1 and piece.distance != step):
            return None
        at += piece.count * step
    if step == event.frames:
        return f"{begin}:{at}"
    if event.frames > 1 or step == 0:
        return None
    if step > 0:
        return f"{begin}:{at - step + 1}:{step}"
    return f"{begin}:{at}:{step}" if at >= 0 else f"{begin}::{step}"


def _irregular(rows: Rows, sources: Mapping[str, Source]) -> str:
    listed = [f"{index} of {sources[span.source].path.name}" for span in rows.spans[:10] for index in span.indices()]
    return (
        f"its {rows.count} events have their frames in no regular order (indices {', '.join(listed[:10])}"
        f"{', ...' if rows.count > 10 else ''}), which no stock adapter can address"
    )


def _parameters(source: Source, first_axis: str) -> dict[str, Any]:
    parameters: dict[str, Any] = {"dataset": source.dataset, "slice": ",".join([first_axis, *_asked_slice(source)[1:]])}
    # Opening with SWMR costs nothing, and without it a file that is still being written cannot be read.
    if source.parameters.get("swmr", "SWMR" in source.spec):
        parameters["swmr"] = True
    return parameters


def _asked_slice(source: Source) -> list[str]:
    asked = str(source.parameters.get("slice") or "").strip("()[] ").replace(" ", "")
    return asked.split(",") if asked else []


def _after_slice(facts: FileFacts, source: Source) -> FileFacts:
    """The dataset as it is after the slice that a StreamResource asks for, which has to leave the frames alone."""
    parts = _asked_slice(source)
    if not parts:
        return facts
    if parts[0] not in (":", "::"):
        raise DocumentError(f"its resource asks for the slice {','.join(parts)!r}; expected ':' for the first axis")
    try:
        index = tuple(_index(part) for part in parts)
        return replace(facts, shape=np.broadcast_to(np.zeros(()), facts.shape)[index].shape)
    except (ValueError, IndexError) as error:
        raise DocumentError(
            f"its resource asks for the slice {','.join(parts)!r} of a dataset of shape {list(facts.shape)}: {error}"
        ) from error


def _index(part: str) -> Any:
    if part == "...":
        return ...
    if ":" in part:
        return slice(*(int(number) if number else None for number in part.split(":")))
    return int(part)
