"""Where the frames of an HDF5 dataset lie in its file, and whether they lie there at all."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.errors import LimitError, UnreadableFileError
from bluesky_filestore.model.frame_axis import why_not_served
from bluesky_filestore.model.limits import how_to_set

from .hdf5_pieces import Pieces, pieces_among
from .hdf5_selection import UnclearError
from .hdf5_virtual import Virtual, virtual_of
from .hdf5_written import (
    LostFramesError,
    Written,
    check_places,
    check_written,
    storage_file,
    written_chunks,
    written_frames,
)
from .readable import ANYWHERE, Roots
from .rows import Frames

if TYPE_CHECKING:
    import h5py

__all__ = [
    "Elsewhere",
    "GroupError",
    "Layout",
    "NoDatasetError",
    "NoFramesError",
    "beside",
    "clear",
    "dataset_in",
    "group_in_words",
    "has_plain_elements",
    "layout_of",
    "linked_dataset",
]

_MOST_LINKS, _MOST_LOST = 32, 100_000
_MOST_NAMES = 6


class NoFramesError(UnreadableFileError):
    """A dataset that is not made of frames."""


class GroupError(UnreadableFileError):
    """A group that is where a dataset should be, and holds no pieces of one."""


class NoDatasetError(UnreadableFileError):
    """A dataset that is not there."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A dataset that an external link puts into another file."""

    path: str
    """The file."""
    dataset: str
    """The path of the dataset in it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One dataset; its frames lie along the first axis."""

    shape: tuple[int, ...]
    """Of the dataset."""
    dtype: np.dtype[np.generic]
    """Of its elements, in numpy's words."""
    offsets: NDArray[np.int64] | None
    """Where each chunk of frames that was written begins in the file; None where only HDF5 can read it."""
    chunks: NDArray[np.int64]
    """The numbers of these chunks, upwards."""
    frames_per_chunk: int
    """How many frames lie one after the other in a chunk."""
    written: Written | None
    """Which frames have data, since HDF5 gives the fill value for others; None if all have theirs."""
    keeps: bool
    """Whether the file says all there is to know: false for data in other files, whose changes do not show in it."""
    virtual: Virtual | None = None
    """What a virtual dataset is made of."""

    @property
    def count(self) -> int:
        """How many frames there are."""
        return self.shape[0]

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """The shape of one."""
        return self.shape[1:]

    @property
    def frame_bytes(self) -> int:
        """The size of one."""
        return math.prod(self.frame_shape) * self.dtype.itemsize

    def check(self, frames: Frames, path: str, dataset: str) -> None:
        """Raise `LostFramesError` where a frame is not there, or has no data."""
        # Of a range, which documents may claim of any length, not each is looked at.
        ends = (frames[0], frames[-1]) if isinstance(frames, range) and frames else frames
        if len(ends) and max(ends) >= self.count:
            lost = list(islice((frame for frame in frames if frame >= self.count), _MOST_LOST))
            raise LostFramesError(
                f"file {path} holds {self.count} frames in dataset {dataset}; frame {lost[0]} (counted from 0) is not "
                f"among them: expected at least {max(ends) + 1}, since frames {min(ends)} to {max(ends)} are "
                f"asked for. The file was cut short, or is not all written yet.{self._why_it_ends()}",
                lost,
            )
        check_written(self.written, frames, path, dataset)

    def _why_it_ends(self) -> str:
        return f" {self.virtual.ends}" if self.virtual is not None and self.virtual.ends else ""


def dataset_in(file: "h5py.File", path: str, name: str) -> "h5py.Dataset | Elsewhere | Pieces":
    """A dataset of an open file, found without opening other files.

    One that is not there, or is a group, may be there in numbered pieces.

    Raises
    ------
    UnreadableFileError
        If there is none of the name.
    """
    import h5py

    at: Any = file
    parts = _parts(name)
    for _ in range(_MOST_LINKS * 8):
        if not parts:
            break
        part = parts.pop()
        link = at.get(part, getlink=True) if isinstance(at, h5py.Group) else None
        if isinstance(link, h5py.ExternalLink):
            rest = "/".join([link.path.rstrip("/"), *reversed(parts)])
            return Elsewhere(beside(path, link.filename), rest)
        if isinstance(link, h5py.SoftLink):
            at = file if link.path.startswith("/") else at
            parts.extend(_parts(link.path))
        elif link is None:
            # Documents may name the virtual dataset that is written when all is there, or never.
            in_pieces = _pieces_in(at, path, name) if part == "data" and not parts else None
            if in_pieces is not None:
                return in_pieces
            at = None
            break
        else:
            at = at[part]
    if not parts and isinstance(at, h5py.Group):
        in_pieces = _pieces_in(at, path, name)
        if in_pieces is not None:
            return in_pieces
        raise GroupError(f"file {path} has {group_in_words(at)} at {name}; expected one dataset.")
    if parts or not isinstance(at, h5py.Dataset):
        raise NoDatasetError(
            f"file {path} has no dataset {name}; expected one: the file is another, or not all written yet."
        )
    return at


def _pieces_in(group: Any, path: str, name: str) -> Pieces | None:
    with clear(path, name):
        return pieces_among(group, group.name, name) if hasattr(group, "keys") else None


def beside(path: str, name: str) -> str:
    """The file that another names, in an external link or a virtual dataset: beside it, or at an absolute path.

    Where files were moved together, what has an absolute path is found beside, too. HDF5 looks in the working directory
    as well, and where the environment says; who reads a run knows nothing of these.
    """
    if name == ".":
        return path
    near = [Path(path).parent, Path(path).resolve().parent]
    tried = [directory / each for each in (name, Path(name).name) for directory in near]
    if not Path(name).is_absolute():
        tried = [directory / name for directory in near]
    return str(next((place for place in tried if os.path.lexists(place)), tried[0]))


def linked_dataset(
    path: str,
    name: str,
    look: "Callable[[str, str], h5py.Dataset | Elsewhere | Pieces | None]",
    roots: Roots = ANYWHERE,
) -> tuple[str, str]:
    """The file that a dataset is in, where external links lead, and its path there.

    Parameters
    ----------
    path, name : str
        The file and the dataset that are asked for.
    look : callable
        Finds a dataset of a file, as `dataset_in` does.
    roots : Roots
        Where the files may lie that links lead to.

    Raises
    ------
    ForbiddenFileError
        If they lie elsewhere, or links lead on and on.
    UnreadableFileError
        If file or dataset cannot be read, or is not there; it names the links that lead to it.
    """
    links = ""
    for _ in range(roots.limits.virtual_depth):
        try:
            found = look(path, name)
        except UnreadableFileError as error:
            if not links:
                raise
            raise type(error)(f"{links}{error}") from error
        if not isinstance(found, Elsewhere):
            return path, name
        links += f"dataset {name} of file {path} is a link to {found.dataset} of file {found.path}: "
        path, name = roots.admit(found.path), found.dataset
    deep = roots.limits.virtual_depth
    raise LimitError(f"file {path} is reached by more than {deep} external links; {how_to_set('virtual_depth')}.")


def group_in_words(group: "h5py.Group") -> str:
    """What a group holds, for the message that it is not the dataset that was expected."""
    names = list(group)
    listed = ", ".join(names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")
    return f"a group of {len(names)} ({listed or 'nothing'})"


def layout_of(dataset: "h5py.Dataset | Pieces", path: str, roots: Roots, *, with_offsets: bool = True) -> Layout:
    """How a dataset is laid out.

    Raises
    ------
    ForbiddenFileError
        If it has its data from files outside the roots.
    NoFramesError
        If it holds no array of numbers with a first axis.
    """
    virtual, written = None, None
    if isinstance(dataset, Pieces):
        return Layout((0,), np.dtype("u1"), None, np.empty(0, np.int64), 1, None, True, dataset.virtual())
    if dataset.is_virtual:
        with clear(path, dataset.name):
            shape, virtual = virtual_of(dataset, roots.limits)
            written = None if virtual.is_endless else virtual.written(shape)
    else:
        # A dataset of nothing has no shape.
        shape = tuple(dataset.shape or ())
    unserved = why_not_served(shape, dataset.dtype)
    if unserved:
        raise NoFramesError(
            f"dataset {dataset.name} of file {path} has shape {shape} and dtype {dataset.dtype}: {unserved}; "
            f"expected numbers with a first axis that counts frames."
        )
    nowhere = np.empty(0, np.int64)
    if virtual is not None:
        return Layout(shape, dataset.dtype, None, nowhere, 1, written, True, virtual)
    for name, _, _ in dataset.external or ():
        roots.admit(storage_file(path, name))
    keeps = not dataset.external
    offsets, chunks, frames_per_chunk = _offsets(dataset) if keeps and with_offsets else (None, nowhere, 1)
    if offsets is not None and dataset.chunks is not None:
        written = written_chunks(chunks, frames_per_chunk, shape[0])
    else:
        written = written_frames(dataset, path, each_chunk=with_offsets)
    return Layout(shape, dataset.dtype, offsets, chunks, frames_per_chunk, written, keeps)


@contextmanager
def clear(path: str, name: str) -> Iterator[None]:
    """Say which virtual dataset it is of which it cannot be told what its frames are."""
    try:
        yield
    except UnclearError as error:
        raise UnreadableFileError(
            f"virtual dataset {name} of file {path} cannot be put together: {error}; expected parts that are frames, "
            f"or the same elements of each, and that are as they were when it was made: read what it is made of."
        ) from error


def _parts(name: str) -> list[str]:
    return [part for part in reversed(name.split("/")) if part not in ("", ".")]


def _offsets(dataset: "h5py.Dataset") -> tuple[NDArray[np.int64] | None, NDArray[np.int64], int]:
    """The places of chunks, the numbers of these, and the frames of each."""
    nowhere, count, frame_shape = np.empty(0, np.int64), dataset.shape[0], dataset.shape[1:]
    if not _is_plain(dataset):
        return None, nowhere, 1
    if dataset.chunks is None:
        offset = dataset.id.get_offset()
        return (None if offset is None else np.array([offset], np.int64)), np.zeros(1, np.int64), max(1, count)
    frames_per_chunk = dataset.chunks[0]
    if dataset.chunks[1:] != frame_shape:
        return None, nowhere, 1
    found: list[tuple[int, int]] = []
    size = frames_per_chunk * int(np.prod(frame_shape, dtype=np.int64)) * dataset.dtype.itemsize

    def note(chunk: Any) -> bool | None:
        if chunk.size != size:
            return True
        # A dataset that was made smaller may have chunks left behind its end.
        if chunk.chunk_offset[0] < count:
            found.append((chunk.chunk_offset[0] // frames_per_chunk, chunk.byte_offset))
        return None

    if dataset.id.chunk_iter(note):
        return None, nowhere, 1
    chunks, offsets = np.array(sorted(found), np.int64).reshape(-1, 2).T
    check_places(offsets, np.full(len(offsets), size), dataset.name)
    return np.ascontiguousarray(offsets), np.ascontiguousarray(chunks), frames_per_chunk


def _is_plain(dataset: "h5py.Dataset") -> bool:
    """Whether the bytes in the file are those of the array in memory."""
    import h5py

    properties = dataset.id.get_create_plist()
    if properties.get_nfilters() or properties.get_layout() not in (h5py.h5d.CHUNKED, h5py.h5d.CONTIGUOUS):
        return False
    return not dataset.file.userblock_size and has_plain_elements(dataset)


def has_plain_elements(dataset: "h5py.Dataset") -> bool:
    """Whether HDF5 gives the elements of a dataset as they are in the file."""
    import h5py

    if dataset.dtype.kind not in "biufc":
        return False
    return bool(h5py.h5t.py_create(dataset.dtype, logical=True).equal(dataset.id.get_type()))
