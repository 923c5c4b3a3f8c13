"""What files hold, as a structure: what the validator of bluesky-tiled-plugins compares the registered one with."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from tiled.structures.array import ArrayStructure, BuiltinDtype

from bluesky_filestore.files.hdf5_rows import HDF5Frames
from bluesky_filestore.files.readable import Roots
from bluesky_filestore.files.registered import Registered, frames_of
from bluesky_filestore.files.series import FrameFiles
from bluesky_filestore.model.addressing import FILE_SERIES, HDF5_ROWS, FileSeries, HDF5Rows
from bluesky_filestore.model.chunks import chunks_for_reading
from bluesky_filestore.model.frame_axis import one_frame

from .assets import path_of
from .frames_adapter import FramesAdapter, answered

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["found_adapter", "found_structure"]


def found_adapter(mimetype: str, uris: Sequence[str], parameters: Mapping[str, Any], *, roots: Roots) -> FramesAdapter:
    """The adapter of all the frames of files, one after the other, with the shape and dtype that they have.

    Of rows in HDF5 files each file is looked at, of a series the first.

    Raises
    ------
    HTTPException
        If the frames are not there, or the parameters do not say which are meant.
    """
    with answered():
        count, frames_per_event = _counts(mimetype, parameters, len(uris))
        paths = tuple(map(path_of, uris))
        some = np.dtype(np.uint8)
        registered = Registered(mimetype, parameters, {}, paths, (count,), some)
        opened = frames_of(registered, roots=roots)()
        if isinstance(opened, FrameFiles):
            first = _first_frame(opened)
            # A file's own axis of one frame is none of the frame.
            shape, dtype = one_frame(first.shape) or first.shape, first.dtype
        else:
            shape, dtype = tuple(opened.frame_shape), opened.dtype
        if isinstance(opened, HDF5Frames):
            _check_rows(opened, HDF5Rows.from_parameters(parameters))
        structure = found_structure((count, *shape), dtype, frames_per_event)
        held = Registered(mimetype, parameters, {}, paths, tuple(structure.shape), dtype)
        return FramesAdapter(frames_of(held, roots=roots), structure, limits=roots.limits)


def found_structure(shape: tuple[int, ...], dtype: "np.dtype[Any]", frames_per_event: int = 1) -> ArrayStructure:
    """The structure of frames, as the validator takes it.

    It takes as many events to a chunk as this has frames.
    """
    event_shape = (frames_per_event, *shape[1:]) if frames_per_event > 1 else shape[1:]
    (events, *_), *whole = chunks_for_reading((shape[0] // frames_per_event, *event_shape), dtype.str)
    full, rest = divmod(shape[0], events)
    along = (events,) * full + ((rest,) if rest else ())
    return ArrayStructure(
        shape=shape,
        chunks=(along, *whole[len(event_shape) - len(shape[1:]) :]),
        data_type=BuiltinDtype.from_numpy_dtype(dtype),
    )


def _counts(mimetype: str, parameters: Mapping[str, Any], files: int) -> tuple[int, int]:
    """How many frames the rows have, and how many of them are an event."""
    if mimetype not in (HDF5_ROWS, FILE_SERIES):
        return files, 1
    parse = HDF5Rows.from_parameters if mimetype == HDF5_ROWS else FileSeries.from_parameters
    rows = parse(parameters)
    return sum(span.count for span in rows.rows) * rows.frames_per_event, rows.frames_per_event


def _first_frame(frames: FrameFiles) -> "NDArray[np.generic]":
    return frames.read_file(frames.path_of(0), {}, None)


def _check_rows(frames: HDF5Frames, rows: HDF5Rows) -> None:
    for span in rows.rows:
        last = max(span.first, span.last) + rows.frames_per_event - 1
        frames.dataset.layout(span.asset).check([last], frames.dataset.paths[span.asset], frames.dataset.name)
