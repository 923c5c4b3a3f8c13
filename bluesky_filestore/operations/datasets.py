"""Rows of one dataset in one or several files, for Tiled's HDF5 adapter or for ours.

Tiled's joins the whole datasets of its files along their first axis and takes one slice of the result: rows that lie at
a constant distance in what is joined can be put so. Ours takes rows anywhere, and need not know how long a file is.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import PurePath
from typing import Any

import numpy as np

from bluesky_filestore.errors import DocumentError, FileStoreError
from bluesky_filestore.model.addressing import HDF5_ROWS, HDF5Rows, RowSpan, slice_of_frames
from bluesky_filestore.model.file_facts import FileFacts, Unseen
from bluesky_filestore.model.frame_map import Rows, Source, Span
from bluesky_filestore.model.specs import HDF5

from .placement import Inspector, Placement, Refusal
from .structure import EventStructure, event_structure

__all__ = ["place_in_datasets"]

_UNMEASURED = ("out of reach", "busy")
_IN_PIECES = (
    "dataset {!r} of {} is there in numbered pieces (data_000001 and on), which no stock adapter joins; expected "
    "'bluesky_filestore.serving.adapters:hdf5_rows' for {} in the server's configuration"
)


@dataclass(frozen=True, slots=True)
class _Files:
    """The files that can be joined, from the first on."""

    lengths: Mapping[PurePath, int | None]
    """How many frames each holds; None if nobody knows."""
    problem: str
    """Why the next cannot be joined to them; empty if there is none."""

    @property
    def measured(self) -> bool:
        """Whether it is known where in what is joined each file begins."""
        return None not in list(self.lengths.values())[:-1]

    @property
    def starts(self) -> list[int]:
        """Where in what is joined each file begins."""
        return [0, *accumulate(length or 0 for length in self.lengths.values())]


def place_in_datasets(
    rows: Rows,
    sources: Mapping[str, Source],
    data_key: Mapping[str, Any],
    inspect: Inspector,
    before: Placement | None,
    *,
    ours: bool,
) -> Placement | Refusal:
    """Express rows of datasets as one slice or, where that cannot be, as spans for our adapter.

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
        if seen[0].kind not in _UNMEASURED:
            return Refusal(seen[0].reason, settled=False)
        event, unverified = event_structure(data_key, first, None), seen[0].reason
    else:
        event = event_structure(data_key, first, _after_slice(seen[0], first))
    files = _joinable(paths, seen, measured=not ours)
    pieces, short = _pieces(rows.spans, sources, files.lengths, event.frames)
    count = sum(piece.count for piece in pieces)
    if not count:
        return Refusal(short or files.problem, settled=False)
    in_pieces = any(isinstance(facts, FileFacts) and facts.in_pieces for facts in seen)
    if in_pieces and not ours:
        return Refusal(_IN_PIECES.format(first.dataset, first.path, HDF5_ROWS))
    plain = None if in_pieces else _plain(pieces, files, event)
    addressed = _addressed(pieces, plain, event, first, ours=ours, before=before)
    if addressed is None:
        reason = _irregular(rows, sources) if files.measured else _unmeasured(seen)
        return Refusal(reason, settled=files.measured or _is_away(seen))
    return Placement(
        addressed[0],
        event,
        count,
        addressed[1],
        files=tuple(str(path) for path in files.lengths),
        unverified=unverified,
        missing=(short or files.problem or rows.problem) if count < rows.expected else "",
        settled=(not (short or files.problem) and all(isinstance(facts, FileFacts) for facts in seen))
        or _is_away(seen),
        lengths={path: length for path, length in files.lengths.items() if length is not None},
    )


def _plain(pieces: Sequence[RowSpan], files: _Files, event: EventStructure) -> str | None:
    """The slice of the whole files joined; None if there is none, or nobody knows how long they are."""
    return _slice_of(pieces, files.starts, event) if files.measured else None


def _addressed(
    pieces: Sequence[RowSpan],
    first_axis: str | None,
    event: EventStructure,
    source: Source,
    *,
    ours: bool,
    before: Placement | None,
) -> tuple[str, dict[str, Any]] | None:
    """Mimetype and parameters; None if the rows cannot be put so that the server understands them."""
    # Rows that were irregular stay so, and an array is not registered now in this way, now in that.
    if ours and (first_axis is None or (before is not None and before.mimetype == HDF5_ROWS)):
        inner = ",".join(_asked_slice(source)[1:])
        rows = HDF5Rows(source.dataset or "", event.frames, tuple(pieces), inner, swmr=_is_swmr(source))
        return HDF5_ROWS, rows.to_parameters()
    return None if first_axis is None else (HDF5, _parameters(source, first_axis))


def _is_away(seen: Sequence[FileFacts | Unseen]) -> bool:
    return isinstance(seen[0], Unseen) and seen[0].kind == "out of reach"


def _unmeasured(seen: Sequence[FileFacts | Unseen]) -> str:
    reasons = [facts.reason for facts in seen if isinstance(facts, Unseen)]
    return f"it lies in {len(seen)} files of unknown length: {reasons[0]}"


def _joinable(paths: Sequence[PurePath], seen: Sequence[FileFacts | Unseen], *, measured: bool) -> _Files:
    """The files up to the first that cannot be joined to those before it.

    Where files have to be measured, none but the last, which nothing follows, may be of unknown length (None), unless
    already the first is: then nothing can be said of any.
    """
    first = seen[0]
    lengths: dict[PurePath, int | None] = {}
    for path, facts in zip(paths, seen, strict=True):
        if isinstance(facts, Unseen):
            may_be_unknown = path == paths[-1] or not measured or isinstance(first, Unseen)
            if facts.kind not in _UNMEASURED or not may_be_unknown:
                return _Files(lengths, facts.reason)
            lengths[path] = None
            continue
        if isinstance(first, FileFacts) and (facts.shape[1:], facts.dtype) != (first.shape[1:], first.dtype):
            return _Files(
                lengths,
                f"file {path} holds frames of {list(facts.shape[1:])} {facts.dtype}, "
                f"the first file {list(first.shape[1:])} {first.dtype}",
            )
        lengths[path] = facts.shape[0] if facts.shape else 0
    return _Files(lengths, "")


def _pieces(
    spans: Iterable[Span], sources: Mapping[str, Source], lengths: Mapping[PurePath, int | None], frames: int
) -> tuple[list[RowSpan], str]:
    """The rows whose frames exist, up to the first whose frames do not, and why not."""
    numbers = {path: number for number, path in enumerate(lengths)}
    pieces: list[RowSpan] = []
    for span in spans:
        path = sources[span.source].path
        if path not in lengths:
            break
        unit = frames // span.width
        count = _available(span, unit, frames, lengths[path])
        if count:
            pieces.append(RowSpan(numbers[path], span.start * unit, count, span.step * unit))
        if count < span.count:
            wanted = (span.start + count * span.step) * unit + frames
            event = sum(piece.count for piece in pieces)
            return pieces, f"file {path} holds {lengths[path]} frames; event {event} needs {wanted}"
    return pieces, ""


def _available(span: Span, unit: int, frames: int, length: int | None) -> int:
    """How many rows of the span, from the first on, are in a file of this length; an index is `unit` frames."""
    if length is None:
        return span.count
    if max(span.start, span.stop - span.step) * unit + frames <= length:
        return span.count
    return next(row for row, index in enumerate(span.indices()) if index * unit + frames > length)


def _slice_of(pieces: Sequence[RowSpan], starts: Sequence[int], event: EventStructure) -> str | None:
    """The slice of the first axis that gives the rows in their order, or None if there is none."""
    begins = [starts[piece.asset] + piece.first for piece in pieces]
    begin, count = begins[0], sum(piece.count for piece in pieces)
    if count == 1:
        return f"{begin}:{begin + event.frames}"
    step = pieces[0].step if pieces[0].count > 1 else begins[1] - begin
    at = begin
    for piece, piece_begin in zip(pieces, begins, strict=True):
        if piece_begin != at or (piece.count > 1 and piece.step != step):
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
    if _is_swmr(source):
        parameters["swmr"] = True
    return parameters


def _is_swmr(source: Source) -> bool:
    # Opening with SWMR costs nothing, and without it a file that is still being written cannot be read.
    return bool(source.parameters.get("swmr", "SWMR" in source.spec))


def _asked_slice(source: Source) -> list[str]:
    asked = str(source.parameters.get("slice") or "").strip("()[] ").replace(" ", "")
    return asked.split(",") if asked else []


def _after_slice(facts: FileFacts, source: Source) -> FileFacts:
    """The dataset as it is after the slice that a StreamResource asks for, which has to leave the frames alone."""
    text = ",".join(_asked_slice(source))
    try:
        index = (slice(None), *slice_of_frames(text)) if text else ...
        return replace(facts, shape=np.broadcast_to(np.zeros(()), facts.shape)[index].shape)
    except (FileStoreError, IndexError) as error:
        raise DocumentError(
            f"its resource asks for the slice {text!r} of a dataset of shape {list(facts.shape)}: {error}"
        ) from error
