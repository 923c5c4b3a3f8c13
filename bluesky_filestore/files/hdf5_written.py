"""Which frames of an HDF5 dataset were never written: HDF5 gives its fill value for them, which is no data."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.errors import TruncatedFileError

from .rows import Frames

if TYPE_CHECKING:
    import h5py

__all__ = [
    "LostFramesError",
    "Written",
    "check_places",
    "check_written",
    "lost_frames",
    "storage_file",
    "written_frames",
]

_MOST_NAMES = 6
_HEADER_BYTES = 48
"""The shortest superblock."""


class LostFramesError(TruncatedFileError):
    """Frames that have no data.

    Parameters
    ----------
    message : str
        In words.
    frames : iterable of int
        Which.
    """

    def __init__(self, message: str, frames: Iterable[int] = ()) -> None:
        super().__init__(message)
        self.frames = tuple(frames)


@dataclass(frozen=True, slots=True)
class Written:
    """Which frames have data, in runs: a dataset of a few bytes may claim any number of frames."""

    starts: NDArray[np.int64]
    """The first frame of each run; that of the first is 0."""
    has_data: NDArray[np.bool_]
    """Whether all frames of the run have all their data."""

    def lost(self, frames: Frames) -> list[int]:
        """Those of some frames that have no data, or not all."""
        numbers = np.asarray(frames, dtype=np.int64)
        lost: list[int] = numbers[~self.has_data[np.searchsorted(self.starts, numbers, "right") - 1]].tolist()
        return lost


def check_written(written: Written | None, frames: Frames, path: str, dataset: str) -> None:
    """Raise `LostFramesError` where one of the frames has no data."""
    lost = written.lost(frames) if written is not None else []
    if lost:
        raise lost_frames(lost, path, dataset)


def lost_frames(lost: Frames, path: str, dataset: str, reason: str = "") -> LostFramesError:
    """The error for frames of a dataset that have no data."""
    listed = ", ".join(map(str, lost[:_MOST_NAMES])) + (", ..." if len(lost) > _MOST_NAMES else "")
    return LostFramesError(
        f"file {path} has no data for frames {listed} (counted from 0) of dataset {dataset}: they were never "
        f"written, or not whole, or the file that they are in is gone; expected data, since HDF5's fill value is none."
        + (f" Of the first: {reason}" if reason else ""),
        lost,
    )


def written_frames(dataset: "h5py.Dataset", path: str, *, each_chunk: bool = True) -> Written | None:
    """Which frames of a dataset that is not virtual have all their data; None if all have.

    Parameters
    ----------
    dataset : h5py.Dataset
        With frames along its first axis.
    path : str
        Its file.
    each_chunk : bool
        Whether each chunk is looked at: of a file that is being written it is enough that they are as many as expected.
    """
    if not dataset.size:
        return None
    written: Written | None
    if dataset.external:
        written = _of_external(dataset, path)
    elif dataset.chunks is not None:
        written = _of_chunks(dataset, each_chunk)
    else:
        written = Written(np.zeros(1, np.int64), np.array([bool(dataset.id.get_storage_size())]))
    return None if written is None or written.has_data.all() else written


def storage_file(path: str, name: str) -> str:
    """The file that HDF5 opens for external storage: from the directory of the program, not of the file."""
    origin = str(Path(path).absolute().parent)
    prefix = os.environ.get("HDF5_EXTFILE_PREFIX", "").replace("${ORIGIN}", origin)
    return str(Path(prefix, name).absolute())


def written_chunks(whole: NDArray[np.int64], frames_per_chunk: int, count: int) -> Written | None:
    """Which frames have their data, by the numbers of the chunks along the first axis that have theirs, upwards."""
    if len(whole) == -(-count // frames_per_chunk):
        return None
    starts = np.unique([0, *whole, *(whole + 1)])
    return Written(starts * frames_per_chunk, np.isin(starts, whole))


def check_places(offsets: NDArray[np.int64], sizes: NDArray[np.int64], name: str) -> None:
    """Raise `ValueError` where chunks lie in one another, or in the file's header: one of them is not where it is said.

    Parameters
    ----------
    offsets, sizes : array
        Where the chunks begin, and how long each is, in bytes.
    name : str
        The dataset.
    """
    order = np.argsort(offsets, kind="stable")
    begins, ends = offsets[order], offsets[order] + sizes[order]
    if len(begins) and (begins[0] < _HEADER_BYTES or (begins[1:] < ends[:-1]).any()):
        raise ValueError(f"chunks of dataset {name} lie in one another, or in the header of the file")


def _of_chunks(dataset: "h5py.Dataset", each_chunk: bool) -> Written | None:
    sizes = list(zip(dataset.shape, dataset.chunks, strict=True))
    along, *others = [-(-size // chunk) for size, chunk in sizes]
    each = int(np.prod(others, dtype=np.int64))
    if not each_chunk and dataset.id.get_num_chunks() == along * each:
        return None
    packed = (1 << dataset.id.get_create_plist().get_nfilters()) - 1
    chunk_bytes = int(np.prod(dataset.chunks, dtype=np.int64)) * dataset.id.get_type().get_size()
    found: list[tuple[int, ...]] = []
    places: list[tuple[int, int]] = []

    def note(chunk: Any) -> None:
        places.append((chunk.byte_offset, chunk.size))
        # Of a chunk that is shorter than it should be, HDF5 gives what is in memory.
        if chunk.filter_mask & packed != packed or chunk.size == chunk_bytes:
            found.append(chunk.chunk_offset)

    dataset.id.chunk_iter(note)
    offsets, lengths = np.array(places, np.int64).reshape(-1, 2).T
    check_places(offsets, lengths, dataset.name)
    begins = np.array(found, np.int64).reshape(-1, dataset.ndim)
    # A dataset that was made smaller may have chunks left behind its end.
    begins = begins[(begins < dataset.shape).all(axis=1)]
    rows, counts = np.unique(begins[:, 0] // dataset.chunks[0], return_counts=True)
    return written_chunks(rows[counts >= each], dataset.chunks[0], dataset.shape[0])


def _of_external(dataset: "h5py.Dataset", path: str) -> Written:
    frame_bytes = max(1, dataset.nbytes // dataset.shape[0])
    starts, has_data = [0], [True]
    begin = 0
    for name, offset, size in dataset.external:
        # HDF5 gives zeros for what a file is too short for.
        file = Path(storage_file(path, name))
        there = max(0, file.stat().st_size - offset) if file.is_file() else 0
        end = min(begin + size, dataset.nbytes)
        if begin + there < end:
            starts += [max((begin + there) // frame_bytes, starts[-1]), -(-end // frame_bytes)]
            has_data += [False, True]
        begin = end
    return Written(np.asarray(starts, np.int64), np.asarray(has_data))
