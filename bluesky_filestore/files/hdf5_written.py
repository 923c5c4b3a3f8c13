"""Which frames of an HDF5 dataset were never written: HDF5 gives its fill value for them, which is no data."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.errors import UnreadableFileError

from .hdf5_opening import open_hdf5

if TYPE_CHECKING:
    import h5py

__all__ = ["MOST_SOURCES_DEEP", "blocks_of", "too_deep", "unwritten_frames"]

MOST_SOURCES_DEEP = 8
"""How many virtual datasets may be made of one another."""


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

    Raises
    ------
    UnreadableFileError
        If they are too many to follow.
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
    if depth >= MOST_SOURCES_DEEP:
        raise too_deep(dataset, path, depth)
    count = dataset.shape[0]
    mapped = np.zeros(count, dtype=np.int64)
    broken = np.zeros(count, dtype=bool)
    for source in dataset.virtual_sources():
        rows, elements = _selected(source.vspace, count)
        np.add.at(mapped, rows, elements)
        for part, file, name in blocks_of(source, rows, count):
            lost = _lost_of_source(dataset, source, file, name, path, depth)
            if lost is None:
                continue
            taken, of_each = _selected(source.src_space, len(lost))
            if len(taken) == len(part) or np.array_equal(np.unique(of_each), np.unique(elements)):
                # Of what goes on for ever there may be more in the source than here.
                broken[part[: len(taken)]] |= lost[taken][: len(part)]
            else:
                # Where source and target do not go in step, one frame that is lost is as good as all.
                broken[part] |= bool(lost[taken].any())
    unmapped: NDArray[np.bool_] = mapped < mapped.max(initial=1)
    return unmapped | broken


def too_deep(dataset: "h5py.Dataset", path: str, depth: int) -> UnreadableFileError:
    """The error for a virtual dataset that too many lead to."""
    return UnreadableFileError(
        f"virtual dataset {dataset.name} of file {path} is reached by {depth} others, or by itself; expected at most "
        f"{MOST_SOURCES_DEEP}: it cannot be told which of its frames have data."
    )


def blocks_of(source: Any, rows: NDArray[np.int64], count: int) -> Iterator[tuple[NDArray[np.int64], str, str]]:
    """The rows of each block of a part, its file and dataset: "%b" stands for the number of the block."""
    if not any("%b" in name.replace("%%", "") for name in (source.file_name, source.dset_name)):
        yield rows, source.file_name, source.dset_name
        return
    (start, *_), (stride, *_), _, (block, *_) = source.vspace.get_regular_hyperslab()
    for number, first in enumerate(range(int(start), count, int(stride))):
        names = (name.replace("%b", str(number)) for name in (source.file_name, source.dset_name))
        yield np.arange(first, min(first + int(block), count)), *names


def _lost_of_source(
    dataset: "h5py.Dataset", source: Any, file_name: str, name: str, path: str, depth: int
) -> NDArray[np.bool_] | None:
    """The lost frames of what a virtual dataset is made of; all, if it is not there."""
    import h5py

    gone = np.ones(source.src_space.shape[0] if source.src_space.shape else 1, dtype=bool)
    if file_name == ".":
        found = dataset.file.get(name)
        return unwritten_frames(found, path, depth + 1) if isinstance(found, h5py.Dataset) else gone
    other = Path(path).parent / file_name
    if not other.is_file():
        return gone
    with open_hdf5(str(other)) as file:
        found = file.get(name)
        if not isinstance(found, h5py.Dataset) or not found.shape:
            return gone
        lost = unwritten_frames(found, str(other), depth + 1)
        if len(gone) <= found.shape[0]:
            return lost
        # It became shorter than what was mapped of it.
        return np.append(np.zeros(found.shape[0], bool) if lost is None else lost, gone[found.shape[0] :])


def _selected(space: Any, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows before a count that are selected of a dataspace, and how many elements of each."""
    import h5py

    kind = space.get_select_type()
    if kind == h5py.h5s.SEL_NONE:
        return _counted(np.arange(0), 0)
    if not space.shape:
        # All of a dataset whose shape is not kept here.
        return _counted(np.arange(count), 0)
    if kind == h5py.h5s.SEL_ALL:
        return _counted(np.arange(min(space.shape[0], count)), int(np.prod(space.shape[1:])))
    if kind == h5py.h5s.SEL_POINTS:
        rows, elements = np.unique(np.asarray(space.get_select_elem_pointlist())[:, 0], return_counts=True)
        return rows[rows < count], elements[rows < count]
    if space.is_regular_hyperslab():
        (start, stride, blocks, block), *others = zip(*space.get_regular_hyperslab(), strict=True)
        # "As many as there are" is a large number.
        blocks, block = min(int(blocks), -(-max(0, count - int(start)) // int(stride))), min(int(block), count)
        rows = (int(start) + int(stride) * np.arange(blocks)[:, np.newaxis] + np.arange(block)).reshape(-1)
        return _counted(rows[rows < count], int(np.prod([int(axis[2]) * int(axis[3]) for axis in others])))
    found = np.zeros(count, np.int64)
    for first, last in space.get_select_hyper_blocklist():
        found[int(first[0]) : int(last[0]) + 1] += int(np.prod(np.asarray(last[1:]) - np.asarray(first[1:]) + 1))
    return np.flatnonzero(found), found[found > 0]


def _counted(rows: NDArray[np.int64], elements: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return rows, np.full(len(rows), elements, dtype=np.int64)
