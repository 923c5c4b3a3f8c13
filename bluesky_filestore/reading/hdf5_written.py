"""Which frames of an HDF5 dataset were never written: HDF5 gives its fill value for them, which is no data."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .hdf5_opening import open_hdf5

if TYPE_CHECKING:
    import h5py

__all__ = ["unwritten_frames"]

_MOST_SOURCES_DEEP = 4


def unwritten_frames(dataset: "h5py.Dataset", path: str, depth: int = 0) -> NDArray[np.bool_] | None:
    """For each frame of a dataset whether it, or a part of it, has no data; None if all have theirs.

    What no part of a virtual dataset maps to, within a frame that others map to, is a gap between modules of a
    detector, and is let be.

    Parameters
    ----------
    dataset : h5py.Dataset
        With frames along its first axis.
    path : str
        Its file.
    depth : int
        How many virtual datasets lead to it.
    """
    if not dataset.size:
        return None
    lost: NDArray[np.bool_] | None
    if dataset.is_virtual:
        lost = _lost_of_virtual(dataset, path, depth)
    elif dataset.external:
        lost = _lost_of_external(dataset)
    elif dataset.chunks is not None:
        lost = _lost_chunks(dataset)
    else:
        lost = np.full(dataset.shape[0], not dataset.id.get_storage_size())
    return lost if lost is not None and lost.any() else None


def _lost_chunks(dataset: "h5py.Dataset") -> NDArray[np.bool_] | None:
    chunks_along = [-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True)]
    if dataset.id.get_num_chunks() == int(np.prod(chunks_along, dtype=np.int64)):
        return None
    found = np.zeros(chunks_along[0], dtype=np.int64)

    def note(chunk: Any) -> None:
        if all(begin < size for begin, size in zip(chunk.chunk_offset, dataset.shape, strict=True)):
            found[chunk.chunk_offset[0] // dataset.chunks[0]] += 1

    dataset.id.chunk_iter(note)
    return np.repeat(found < int(np.prod(chunks_along[1:], dtype=np.int64)), dataset.chunks[0])[: dataset.shape[0]]


def _lost_of_external(dataset: "h5py.Dataset") -> NDArray[np.bool_]:
    frame_bytes = max(1, dataset.nbytes // dataset.shape[0])
    lost = np.zeros(dataset.shape[0], dtype=bool)
    begin = 0
    for name, offset, size in dataset.external:
        # HDF5 takes these names from the directory of the program, and zeros for what a file is too short for.
        file = Path(name)
        there = max(0, file.stat().st_size - offset) if file.is_file() else 0
        end = min(begin + size, dataset.nbytes)
        if begin + there < end:
            lost[(begin + there) // frame_bytes : -(-end // frame_bytes)] = True
        begin = end
    return lost


def _lost_of_virtual(dataset: "h5py.Dataset", path: str, depth: int) -> NDArray[np.bool_]:
    lost = np.ones(dataset.shape[0], dtype=bool)
    broken = np.zeros(dataset.shape[0], dtype=bool)
    for source in dataset.virtual_sources():
        rows = _rows_of(source.vspace, dataset.shape[0])
        lost[rows] = False
        if "%b" in source.file_name or "%b" in source.dset_name or depth >= _MOST_SOURCES_DEEP:
            continue
        of_source = _lost_of_source(dataset, source, path, depth)
        if of_source is None:
            continue
        taken = of_source[_rows_of(source.src_space, len(of_source))]
        # Where source and target do not go in step, one frame that is lost is as good as all.
        broken[rows] |= taken if len(taken) == len(broken[rows]) else bool(taken.any())
    return lost | broken


def _lost_of_source(dataset: "h5py.Dataset", source: Any, path: str, depth: int) -> NDArray[np.bool_] | None:
    """The lost frames of what a virtual dataset is made of; all, if it is not there."""
    import h5py

    gone = np.ones(source.src_space.shape[0] if source.src_space.shape else 1, dtype=bool)
    if source.file_name == ".":
        found = dataset.file.get(source.dset_name)
        return unwritten_frames(found, path, depth + 1) if isinstance(found, h5py.Dataset) else gone
    other = Path(path).parent / source.file_name
    if not other.is_file():
        return gone
    with open_hdf5(str(other)) as file:
        found = file.get(source.dset_name)
        return unwritten_frames(found, str(other), depth + 1) if isinstance(found, h5py.Dataset) else gone


def _rows_of(space: Any, count: int) -> slice:
    """The rows between the first and the last that a selection has; all of one without bounds."""
    try:
        first, last = space.get_select_bounds()
    except (RuntimeError, ValueError):
        return slice(None)
    return slice(int(first[0]), min(int(last[0]) + 1, count))
