"""Frames of one open HDF5 dataset, or of the file it lies in."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .hdf5_layout import Layout
from .hdf5_written import lost_frames
from .readable import bytes_of, read_at
from .rows import AxisKey, Frames, runs_of

if TYPE_CHECKING:
    import h5py

__all__ = ["frames_at_places", "frames_through_hdf5"]

_BATCH_BYTES = 16 * 2**20


def frames_at_places(
    descriptor: int, layout: Layout, path: str, frames: Frames, part: tuple[AxisKey, ...]
) -> NDArray[np.generic]:
    """Frames read by their place in the file, which `layout` has to know."""
    places = _places(layout, frames, path)
    if not part:
        values = np.empty((len(frames), *layout.frame_shape), layout.dtype)
        _fill(values, places, descriptor, layout.frame_bytes, path)
        return values
    batch = max(1, min(len(frames), _BATCH_BYTES // max(1, layout.frame_bytes)))
    whole = np.empty((batch, *layout.frame_shape), layout.dtype)
    values = np.empty((len(frames), *whole[0][part].shape), layout.dtype)
    for first in range(0, len(frames), batch):
        some = places[first : first + batch]
        _fill(whole[: len(some)], some, descriptor, layout.frame_bytes, path)
        values[first : first + batch] = whole[(slice(len(some)), *part)]
    return values


def frames_through_hdf5(dataset: "h5py.Dataset", frames: Frames, part: tuple[AxisKey, ...]) -> NDArray[np.generic]:
    """Frames read by HDF5, with whatever filters or files it needs."""
    if not part and isinstance(frames, range) and frames.step > 0:
        # The way of h5py that is quick, for small frames several times.
        whole: NDArray[np.generic] = dataset[frames.start : frames.stop : frames.step]
        return whole
    part = (*part, *(slice(None),) * (dataset.ndim - 1 - len(part)))
    # HDF5 counts upwards only.
    upwards, order = _upwards(part, dataset.shape[1:])
    sizes = zip(upwards, dataset.shape[1:], strict=True)
    shape = tuple(len(range(size)[key]) for key, size in sizes if isinstance(key, slice))
    values = np.empty((len(frames), *shape), dataset.dtype)
    for place, run in runs_of(frames):
        taken = (slice(run.start, run.stop, run.step), *upwards)
        into = values[place : place + len(run)]
        if into.size:
            dataset.read_direct(into, taken)
    return values[(slice(None), *order)]


def _places(layout: Layout, frames: Frames, path: str) -> NDArray[np.int64]:
    """Where each frame begins in the file."""
    if layout.offsets is None:
        raise ValueError("the places of the frames are not known; expected a layout with offsets.")
    numbers = np.asarray(frames, dtype=np.int64)
    chunks, inside = np.divmod(numbers, layout.frames_per_chunk)
    at = np.minimum(np.searchsorted(layout.chunks, chunks), len(layout.chunks) - 1)
    if (layout.chunks[at] != chunks).any():
        raise lost_frames(numbers[layout.chunks[at] != chunks].tolist(), path, "of frames")
    places: NDArray[np.int64] = layout.offsets[at] + inside * layout.frame_bytes
    return places


def _fill(values: NDArray[np.generic], places: NDArray[np.int64], descriptor: int, size: int, path: str) -> None:
    if not values.size:
        return
    buffer = bytes_of(values)
    # Frames that lie one behind the other in the file are read at once.
    breaks = np.flatnonzero(np.diff(places) != size) + 1
    for first, last in zip([0, *breaks.tolist()], [*breaks.tolist(), len(places)], strict=True):
        read_at(descriptor, buffer[first * size : last * size], int(places[first]), path)


def _upwards(part: tuple[AxisKey, ...], shape: tuple[int, ...]) -> tuple[tuple[AxisKey, ...], tuple[slice, ...]]:
    """The same elements in upward order, and what puts them into the order that was asked for."""
    keys: list[AxisKey] = []
    order: list[slice] = []
    for key, size in zip(part, shape, strict=True):
        if isinstance(key, int):
            keys.append(key)
            continue
        taken = range(size)[key]
        downwards = taken.step < 0
        upwards = taken[::-1] if downwards else taken
        keys.append(slice(upwards.start, max(upwards.stop, upwards.start), upwards.step))
        order.append(slice(None, None, -1 if downwards else 1))
    return tuple(keys), tuple(order)
