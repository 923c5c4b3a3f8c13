"""Frames that are a file each."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.errors import AddressError, UnreadableFileError
from bluesky_filestore.extras import from_extra
from bluesky_filestore.model.frame_axis import one_frame, same_but_for_ones
from bluesky_filestore.model.limits import Limits
from bluesky_filestore.model.specs import HDF5, JPEG_SERIES, NPY_SERIES, TIFF_SERIES

from .hdf5 import HDF5Files
from .kept import kept
from .npy import read_npy
from .readable import ANYWHERE, Roots, signature_of
from .rows import AxisKey, FileProblem, Frames, fits_in
from .stamps import Stamp, Stamps, byte_samples, check_stamp, explain, frame_sample, stamp_file
from .tiff import read_tiff

__all__ = [
    "FILE_TYPES",
    "SPE_FILES",
    "FileSamples",
    "FrameFiles",
    "LazyPaths",
    "PathOf",
    "ReadFile",
    "file_reader",
    "frame_shape_of",
]

SPE_FILES = "application/x-princeton-spe"
"""Files of Princeton Instruments, of a point each; only a handler asks for them."""
_MANY, _THREADS = 32, 4
_LEAST_SHARE, _MOST_SHARE = 8, 32

PathOf: TypeAlias = Callable[[int], str]
"""The file of a frame, by the frame's number in the array."""
ReadFile: TypeAlias = Callable[[str, dict[str, str], NDArray[np.generic] | None], NDArray[np.generic]]
"""The frame of a file; the dict keeps what is found of directories in the course of one reading.

Where the array that is given fits, the frame may be read into it, and it is the answer."""

_ReadOpen: TypeAlias = Callable[[int, str, NDArray[np.generic] | None, Limits], NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class FileSamples:
    """What is compared of a file of a series, to tell it from another.

    Of HDF5 that is the frame: what the library keeps in a file changes when it is closed.
    """

    mimetype: str
    """Of the series."""
    read_file: ReadFile
    """Reads the frame of one."""
    roots: Roots
    """Where the files may lie."""

    def __call__(self, path: str, stamp: Stamp) -> Iterable[str]:
        """What it comes to, for one file."""
        if self.mimetype == HDF5:
            return [frame_sample(self.read_file(path, {}, None))]
        return byte_samples(path, stamp.size, self.roots)


class LazyPaths(Sequence[str]):
    """Paths that are found one by one when they are asked for: of 100,000 files few are read.

    Parameters
    ----------
    listed : sequence
        What stands for them.
    find : callable
        Gives the path; of a module, so that other processes find it.
    """

    def __init__(self, listed: Sequence[Any], find: Callable[[Any], str]) -> None:
        self._listed, self._find = listed, find

    def __len__(self) -> int:
        return len(self._listed)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> "LazyPaths": ...

    def __getitem__(self, place: int | slice) -> "str | LazyPaths":
        if isinstance(place, slice):
            return LazyPaths(self._listed[place], self._find)
        return self._find(self._listed[place])


@dataclass(frozen=True)
class FrameFiles:
    """Frames of one shape and dtype in a file each."""

    path_of: PathOf
    """The file of each frame."""
    count: int
    """How many frames there are."""
    frame_shape: tuple[int, ...]
    """The shape of one."""
    dtype: np.dtype[np.generic]
    """Of the elements."""
    read_file: ReadFile
    """Reads one."""
    samples_of: FileSamples | None = None
    """Reads some of one, to be compared."""
    stamps: Stamps | None = None
    """What the files were like when they were registered, if that is known; by the frame's number in the array."""
    dataset: str = ""
    """Of HDF5 files, which dataset of each is the frame; empty for other files."""

    def end_paths(self) -> list[str]:
        """The files of the first and of the last frame."""
        return [self.path_of(frame) for frame in (0, self.count - 1)]

    def check_files(self, frames: Frames) -> None:
        """Compare the files of some frames with what they were like when they were registered."""
        for frame in frames:
            self._compare(frame)

    def stamped(self, before: Stamps | None) -> Stamps:
        """What the files are like now."""

        def look(frame: int, known: Stamp | None) -> Stamp:
            path = self.path_of(frame)
            return stamp_file(path, known, (), partial(self._samples, path))

        reads_frames = self.samples_of is not None and self.samples_of.mimetype == HDF5
        sample_bytes = self._size * self.dtype.itemsize if reads_frames else 1
        return Stamps.made(range(self.count), look, before=before, sample_bytes=sample_bytes)

    def problems(self) -> Iterator[FileProblem]:
        """Which cannot be read; those whose files are of another size than most are read to know it."""
        sizes: dict[int, int] = {}
        for frame in range(self.count):
            path = self.path_of(frame)
            try:
                self._compare(frame)
                sizes[frame] = signature_of(path).size
            except UnreadableFileError as error:
                yield FileProblem(path, [frame], error)
        usual = Counter(sizes.values()).most_common(1)
        for frame in (frame for frame, size in sizes.items() if size != usual[0][0]):
            try:
                self.read([frame])
            except UnreadableFileError as error:
                yield FileProblem(self.path_of(frame), [frame], error)

    def read(self, frames: Frames, part: tuple[AxisKey, ...] = ()) -> NDArray[np.generic]:
        """Frames, one after the other along the first axis, or a part of each."""
        shape = np.broadcast_to(np.zeros(()), self.frame_shape)[part].shape if part else self.frame_shape
        values = np.empty((len(frames), *shape), self.dtype)
        admitted: dict[str, str] = {}

        def read_some(places: range) -> None:
            for place in places:
                self._read_one(frames[place], values[place, ...], part, admitted)

        if len(frames) < _MANY:
            read_some(range(len(frames)))
            return values
        # Disks answer several at a time, and who reads waits without Python's lock.
        share = min(max(len(frames) // (4 * _THREADS), _LEAST_SHARE), _MOST_SHARE)
        shares = [range(first, min(first + share, len(frames))) for first in range(0, len(frames), share)]
        with ThreadPoolExecutor(_THREADS) as pool:
            for _ in pool.map(read_some, shares):
                pass
        return values

    def _read_one(
        self, frame: int, into: NDArray[np.generic], part: tuple[AxisKey, ...], admitted: dict[str, str]
    ) -> None:
        path = self.path_of(frame)
        whole = None if part else into
        try:
            found = self.read_file(path, admitted, whole)
        except UnreadableFileError as error:
            explain(error, [partial(self._compare, frame)])
            raise type(error)(f"frame {frame} (counted from 0) cannot be read: {error}") from error
        # Behind the reading, so that no file can take another's place between the two.
        self._compare(frame)
        if found is not whole:
            self._check(found, path, frame)
            into[...] = found.reshape(self.frame_shape)[part]

    def _compare(self, frame: int) -> None:
        if self.stamps is not None:
            number, stamp = self.stamps.nearest(frame)
            path = self.path_of(number)
            check_stamp(path, stamp, partial(self._samples, path))

    def _samples(self, path: str, stamp: Stamp) -> Iterable[str]:
        return self.samples_of(path, stamp) if self.samples_of is not None else ()

    def _check(self, found: NDArray[np.generic], path: str, frame: int) -> None:
        joined = len(self.frame_shape) == 1
        if found.size != self._size or not (joined or same_but_for_ones(found.shape, self.frame_shape)):
            raise UnreadableFileError(
                f"file {path} holds a frame of shape {list(found.shape)}; expected {list(self.frame_shape)} of the "
                f"catalog for frame {frame}: the file is of another series, or was written with other settings."
            )
        if not fits_in(found.dtype, self.dtype):
            raise UnreadableFileError(
                f"file {path} holds {found.dtype} for frame {frame}; expected {self.dtype} of the catalog."
            )

    @kept
    def _size(self) -> int:
        return int(np.prod(self.frame_shape, dtype=np.int64))


def file_reader(mimetype: str, dataset: str, *, hdf5: HDF5Files, roots: Roots = ANYWHERE) -> ReadFile:
    """What reads the frame of a file of some type.

    Parameters
    ----------
    mimetype : str
        Of the series, as in `bluesky_filestore.model.specs`.
    dataset : str
        For HDF5 files, the dataset that holds the frame.
    hdf5 : HDF5Files
        The pool that HDF5 files are opened through.
    roots : Roots
        Where the files may lie.

    Raises
    ------
    AddressError
        If there is no reader for the type.
    """
    if mimetype == HDF5:
        return partial(_hdf5_frame, dataset=dataset, hdf5=hdf5, roots=roots)
    try:
        read = _READERS[mimetype]
    except KeyError:
        raise AddressError(
            f"no reader for files of type {mimetype!r}; expected one of {', '.join(FILE_TYPES)}."
        ) from None
    return partial(_opened_frame, read=read, roots=roots)


def frame_shape_of(shape: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The axes of an array that are those of one frame.

    Raises
    ------
    AddressError
        If the array's elements are not those of so many frames.

    Examples
    --------
    >>> frame_shape_of((10, 2, 512, 640), 20)
    (512, 640)
    """
    product = 1
    for axis, size in enumerate(shape, start=1):
        product *= size
        if product == count:
            # An axis of length one between events and frames counts the frames of an event.
            return one_frame(shape[axis:]) or shape[axis:]
    elements = math.prod(shape)
    if count and elements % count == 0:
        return (elements // count,)
    raise AddressError(f"an array of shape {list(shape)} is not made of {count} frames; expected one that is.")


def _hdf5_frame(
    path: str,
    admitted: dict[str, str],
    into: NDArray[np.generic] | None,
    *,
    dataset: str,
    hdf5: HDF5Files,
    roots: Roots,
) -> NDArray[np.generic]:
    count = hdf5.layout(path, dataset, roots=roots).count
    return hdf5.read(path, dataset, range(count), roots=roots)


def _opened_frame(
    path: str, admitted: dict[str, str], into: NDArray[np.generic] | None, *, read: _ReadOpen, roots: Roots
) -> NDArray[np.generic]:
    with roots.opened(path, admitted) as descriptor:
        try:
            return read(descriptor, path, into, roots.limits)
        except (UnreadableFileError, OSError):
            raise
        except Exception as error:
            # What the libraries raise for files that are not what they should be has no bounds.
            raise UnreadableFileError(f"file {path} cannot be read: {str(error) or type(error).__name__}.") from error


def _read_jpeg(descriptor: int, path: str, into: NDArray[np.generic] | None, limits: Limits) -> NDArray[np.generic]:
    from PIL import Image

    with open(descriptor, "rb", closefd=False) as file, Image.open(file, formats=["JPEG"]) as image:
        # Others have parsers of their own, one of which starts a program.
        size = math.prod(image.size) * len(image.getbands())
        limits.check("unpacked_bytes", size, f"file {path} unpacks to", "bytes")
        return np.asarray(image)


def _read_spe(descriptor: int, path: str, into: NDArray[np.generic] | None, limits: Limits) -> NDArray[np.generic]:
    with from_extra("databroker"):
        from area_detector_handlers.spe_reader import PrincetonSPEFile

    try:
        values: NDArray[np.generic] = PrincetonSPEFile(path).getData()
    except OSError:
        raise
    except Exception as error:
        # A bare one is what it raises for a header that it does not understand.
        raise ValueError(error) from error
    return values


_READERS: dict[str, _ReadOpen] = {
    TIFF_SERIES: read_tiff,
    NPY_SERIES: read_npy,
    JPEG_SERIES: _read_jpeg,
    SPE_FILES: _read_spe,
}
FILE_TYPES = (HDF5, TIFF_SERIES, NPY_SERIES, JPEG_SERIES)
"""What a file of a series may be."""
