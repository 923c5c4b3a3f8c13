"""Where the frames of an HDF5 dataset lie in its file, and whether they lie there at all."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.errors import ForbiddenFileError, TruncatedFileError, UnreadableFileError
from bluesky_filestore.model.frame_axis import why_not_served

from .hdf5_opening import open_hdf5
from .hdf5_written import MOST_SOURCES_DEEP, blocks_of, too_deep, unwritten_frames
from .readable import ANYWHERE, Roots
from .rows import Frames

if TYPE_CHECKING:
    import h5py

__all__ = [
    "Elsewhere",
    "Layout",
    "NoFramesError",
    "check_written",
    "dataset_in",
    "group_in_words",
    "layout_of",
    "linked_dataset",
    "other_files",
]

_MOST_LINKS = 32
_MOST_LINKED_FILES = 8
_MOST_NAMES = 6


class NoFramesError(UnreadableFileError):
    """A dataset that is not made of frames."""


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
    """Where each chunk of frames begins in the file, -1 where none was written; None where only HDF5 can read it."""
    frames_per_chunk: int
    """How many frames lie one after the other in a chunk."""
    unwritten: NDArray[np.bool_] | None
    """For each frame whether it has no data, of which HDF5 gives the fill value; None if all have theirs."""
    keeps: bool
    """Whether the file says all there is to know: false for data in other files, whose changes do not show in it."""

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
        return int(np.prod(self.frame_shape, dtype=np.int64)) * self.dtype.itemsize

    def check(self, frames: Frames, path: str, dataset: str) -> None:
        """Raise `TruncatedFileError` where a frame is not there, or has no data."""
        if len(frames) and max(frames) >= self.count:
            frame = next(frame for frame in frames if frame >= self.count)
            raise TruncatedFileError(
                f"file {path} holds {self.count} frames in dataset {dataset}; frame {frame} (counted from 0) is not "
                f"among them: the file was cut short, or is not all written yet."
            )
        check_written(self.unwritten, frames, path, dataset)


def check_written(unwritten: NDArray[np.bool_] | None, frames: Frames, path: str, dataset: str) -> None:
    """Raise `TruncatedFileError` where one of the frames has no data."""
    lost = [] if unwritten is None else [frame for frame in frames if unwritten[frame]]
    if lost:
        listed = ", ".join(map(str, lost[:_MOST_NAMES])) + (", ..." if len(lost) > _MOST_NAMES else "")
        raise TruncatedFileError(
            f"file {path} has no data for frames {listed} (counted from 0) of dataset {dataset}: they were never "
            f"written, or the file that they are in is gone; expected data, since HDF5's fill value is none."
        )


def dataset_in(file: "h5py.File", path: str, name: str) -> "h5py.Dataset | Elsewhere":
    """A dataset of an open file, found without opening other files.

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
            target = Path(path).parent / link.filename
            rest = "/".join([link.path.rstrip("/"), *reversed(parts)])
            return Elsewhere(str(target), rest)
        if isinstance(link, h5py.SoftLink):
            at = file if link.path.startswith("/") else at
            parts.extend(_parts(link.path))
        elif link is None:
            at = None
            break
        else:
            at = at[part]
    if not parts and isinstance(at, h5py.Group):
        raise UnreadableFileError(f"file {path} has {group_in_words(at)} at {name}; expected one dataset.")
    if parts or not isinstance(at, h5py.Dataset):
        raise UnreadableFileError(
            f"file {path} has no dataset {name}; expected one: the file is another, or not all written yet."
        )
    return at


def linked_dataset(
    path: str, name: str, look: "Callable[[str, str], h5py.Dataset | Elsewhere | None]", roots: Roots = ANYWHERE
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
    for _ in range(_MOST_LINKED_FILES):
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
    raise ForbiddenFileError(f"file {path} is reached by more than {_MOST_LINKED_FILES} external links.")


def group_in_words(group: "h5py.Group") -> str:
    """What a group holds, for the message that it is not the dataset that was expected."""
    names = list(group)
    listed = ", ".join(names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")
    return f"a group of {len(names)} ({listed or 'nothing'})"


def layout_of(dataset: "h5py.Dataset", path: str, roots: Roots, *, with_offsets: bool = True) -> Layout:
    """How a dataset is laid out.

    Raises
    ------
    ForbiddenFileError
        If it has its data from files outside the roots.
    NoFramesError
        If it holds no array of numbers with a first axis.
    """
    unserved = why_not_served(dataset.shape, dataset.dtype)
    if unserved:
        raise NoFramesError(
            f"dataset {dataset.name} of file {path} has shape {dataset.shape} and dtype {dataset.dtype}: {unserved}; "
            f"expected numbers with a first axis that counts frames."
        )
    keeps = True
    for other in other_files(dataset, path):
        roots.admit(other)
        keeps = False
    offsets, frames_per_chunk = _offsets(dataset) if keeps and with_offsets else (None, 1)
    return Layout(
        tuple(dataset.shape), dataset.dtype, offsets, frames_per_chunk, unwritten_frames(dataset, path), keeps
    )


def _parts(name: str) -> list[str]:
    return [part for part in reversed(name.split("/")) if part not in ("", ".")]


def other_files(dataset: "h5py.Dataset", path: str, depth: int = 0) -> Iterator[str]:
    """The files beside its own that a dataset has its data from."""
    directory = Path(path).parent
    for name, _, _ in dataset.external or ():
        # HDF5 takes these names from the directory of the program, not of the file.
        yield str(Path(name).absolute())
    if not dataset.is_virtual:
        return
    if depth >= MOST_SOURCES_DEEP:
        raise too_deep(dataset, path, depth)
    everywhere = np.arange(0)
    for source in dataset.virtual_sources():
        for _, file_name, name in blocks_of(source, everywhere, dataset.shape[0]):
            other = path if file_name == "." else str(directory / file_name)
            if other != path:
                yield other
            yield from _behind(dataset, other, name, depth)


def _behind(dataset: "h5py.Dataset", other: str, name: str, depth: int) -> Iterator[str]:
    """The files that a virtual dataset gets to by way of a dataset of another one."""
    if not Path(other).is_file():
        return
    with open_hdf5(other) as file:
        try:
            found = dataset_in(file, other, name)
        except UnreadableFileError:
            # It leads nowhere; its frames are among those that have no data.
            return
        if isinstance(found, Elsewhere):
            yield found.path
        elif found != dataset:
            yield from other_files(found, other, depth + 1)


def _offsets(dataset: "h5py.Dataset") -> tuple[NDArray[np.int64] | None, int]:
    if not _is_plain(dataset):
        return None, 1
    count, frame_shape = dataset.shape[0], dataset.shape[1:]
    if dataset.chunks is None:
        offset = dataset.id.get_offset()
        return (None if offset is None else np.array([offset], dtype=np.int64)), max(1, count)
    frames_per_chunk = dataset.chunks[0]
    if dataset.chunks[1:] != frame_shape:
        return None, 1
    offsets = np.full(-(-count // frames_per_chunk), -1, dtype=np.int64)
    size = frames_per_chunk * int(np.prod(frame_shape, dtype=np.int64)) * dataset.dtype.itemsize

    def note(chunk: Any) -> bool | None:
        if chunk.size != size:
            return True
        place = chunk.chunk_offset[0] // frames_per_chunk
        # A dataset that was made smaller may have chunks left behind its end.
        if place < len(offsets):
            offsets[place] = chunk.byte_offset
        return None

    unusual = dataset.id.chunk_iter(note)
    return (None if unusual else offsets), frames_per_chunk


def _is_plain(dataset: "h5py.Dataset") -> bool:
    """Whether the bytes in the file are those of the array in memory."""
    import h5py

    properties = dataset.id.get_create_plist()
    if properties.get_nfilters() or properties.get_layout() not in (h5py.h5d.CHUNKED, h5py.h5d.CONTIGUOUS):
        return False
    if dataset.dtype.kind not in "biufc" or dataset.file.userblock_size:
        return False
    return bool(h5py.h5t.py_create(dataset.dtype, logical=True).equal(dataset.id.get_type()))
