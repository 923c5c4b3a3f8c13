"""Shape and dtype of an external array: what the file says, or else the descriptor."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bluesky_filestore.errors import DocumentError
from bluesky_filestore.model.file_facts import FileFacts
from bluesky_filestore.model.frame_axis import declared_shape, same_but_for_ones, shape_of_event, why_no_frames
from bluesky_filestore.model.frame_map import Source

__all__ = ["EventStructure", "answer_structure", "event_structure"]

_NUMPY_OF_JSON = {"number": "<f8", "array": "<f8", "integer": "<i8", "boolean": "|b1"}


@dataclass(frozen=True, slots=True)
class EventStructure:
    """The array of one event."""

    shape: tuple[int, ...]
    """Its shape, e.g. (frames per point, y, x)."""
    dtype: str
    """In numpy's notation, with byte order."""
    frames: int
    """How many frames (rows of a dataset, or files of a series) it takes from the files."""
    frame_shape: tuple[int, ...]
    """The shape of each of them."""
    differences: tuple[str, ...] = ()
    """What the descriptor says otherwise."""


def event_structure(data_key: Mapping[str, Any], source: Source, facts: FileFacts | None) -> EventStructure:
    """The array of one event, by the file where it is known and by the descriptor where it is not.

    Parameters
    ----------
    data_key : Mapping
        The data key's entry in the descriptor.
    source : Source
        Where its frames are.
    facts : FileFacts or None
        What the first file says; None if it is out of reach.

    Raises
    ------
    DocumentError
        If neither says what the shape or the dtype is, or the file's first axis is not that of frames.
    """
    declared = declared_shape(data_key)
    declared_dtype = _declared_dtype(data_key)
    if facts is None:
        return _from_descriptor(declared, declared_dtype, source)
    frame_shape = facts.shape[1:] if source.template is None else facts.shape
    frames = source.frames_per_event(declared, frame_shape)
    wrong_axis = ""
    if source.template is None:
        wrong_axis = why_no_frames(declared, frames, frame_shape, facts.shape[0] if facts.shape else 0)
    if wrong_axis:
        raise DocumentError(
            f"dataset {source.dataset!r} of {source.path} has the shape {list(facts.shape)}: {wrong_axis}"
        )
    stored = (frames, *frame_shape)
    shape = shape_of_event(declared, stored, is_joined=source.is_joined)
    differences = []
    if declared is None or not any(same_but_for_ones(declared, one) for one in (shape, frame_shape)):
        differences.append(f"shape: the descriptor says {_listed(declared)}, the file {_listed(stored)} an event")
    if "dtype_numpy" in data_key and declared_dtype != facts.dtype:
        differences.append(f"dtype: the descriptor says {declared_dtype}, the file {facts.dtype}")
    return EventStructure(shape, facts.dtype, frames, frame_shape, tuple(differences))


def answer_structure(data_key: Mapping[str, Any], source: Source, facts: FileFacts | None) -> EventStructure:
    """The array of one event that is what a handler answers, whatever frames it is made of.

    Parameters
    ----------
    data_key, source
        As for `event_structure`.
    facts : FileFacts or None
        The handler's answer; None if its file is out of reach.

    Raises
    ------
    DocumentError
        If neither says what the shape or the dtype is.
    """
    if facts is None:
        event = event_structure(data_key, source, None)
        return replace(event, frames=1, frame_shape=event.shape)
    declared, declared_dtype = declared_shape(data_key), _declared_dtype(data_key)
    differences = []
    if declared is None or not same_but_for_ones(declared, facts.shape):
        differences.append(
            f"shape: the descriptor says {_listed(declared)}, the handler answers with {_listed(facts.shape)}"
        )
    if "dtype_numpy" in data_key and declared_dtype != facts.dtype:
        differences.append(f"dtype: the descriptor says {declared_dtype}, the handler answers with {facts.dtype}")
    return EventStructure(facts.shape, facts.dtype, 1, facts.shape, tuple(differences))


def _from_descriptor(declared: tuple[int, ...] | None, declared_dtype: str | None, source: Source) -> EventStructure:
    if declared is None or declared_dtype is None:
        raise DocumentError(
            f"the files are out of reach and the descriptor does not say the "
            f"{'shape' if declared is None else 'dtype'} of an event"
        )
    chunk_shape = source.parameters.get("chunk_shape", ())
    frames = source.frames_per_index
    if frames is None and source.template is not None:
        of_a_file = source.frames_of_a_file(declared)
        frames = source.files_per_index or (declared[0] // of_a_file if of_a_file else 1)
        if declared and frames > 1 and declared[0] > frames and declared[0] % frames == 0:
            return EventStructure(declared, declared_dtype, frames, (declared[0] // frames, *declared[1:]))
    elif frames is None:
        joined = len(declared) >= 3 or (chunk_shape and len(chunk_shape) == len(declared))
        frames = declared[0] if joined and declared else 1
    if frames > 1 and (not declared or declared[0] != frames):
        declared = (frames, *(declared[1:] if declared[:1] == (1,) else declared))
    shape = () if declared == (1,) else declared
    frame_shape = declared[1:] if frames > 1 or declared[:1] == (1,) else declared
    return EventStructure(shape, declared_dtype, max(1, frames), frame_shape)


def _declared_dtype(data_key: Mapping[str, Any]) -> str | None:
    # dtype_descr and dtype_str are what dtype_numpy was called before it was in the schema.
    said = data_key.get("dtype_descr") or data_key.get("dtype_numpy") or data_key.get("dtype_str")
    try:
        if isinstance(said, list | tuple) and said:
            return None
        return np.dtype(str(said or _NUMPY_OF_JSON[data_key["dtype"]])).str
    except (TypeError, KeyError):
        return None


def _listed(shape: tuple[int, ...] | None) -> str:
    return "nothing" if shape is None else str(list(shape))
