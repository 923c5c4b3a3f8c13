"""Frames by the numbers that documents have for them: along a dataset of one HDF5 file, or a file each."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.errors import (
    AddressError,
    DocumentError,
    MissingFileError,
    TruncatedFileError,
    UnknownSpecError,
    UnreadableFileError,
)
from bluesky_filestore.model.addressing import AxisIndex, slice_of_frames
from bluesky_filestore.model.frame_axis import declared_shape, one_frame, shape_of_event, why_no_frames
from bluesky_filestore.model.frame_map import Source
from bluesky_filestore.model.paths import formatted
from bluesky_filestore.model.specs import HDF5, TIFF_SERIES

from .formats import ArrayFormat, stored_format
from .hdf5 import shared_files
from .hdf5_joined import ENDLESS
from .hdf5_rows import HDF5Dataset, HDF5Frames, JoinedIndex
from .readable import signature_of
from .series import FILE_TYPES, file_reader

__all__ = ["DatasetFrames", "NumberedFrames", "SeriesFrames", "SourceArrays"]


@dataclass(frozen=True, slots=True)
class DatasetFrames:
    """Frames along the first axis of a dataset."""

    path: str
    """The file."""
    dataset: str
    """The path of the dataset in it."""
    inner: tuple[AxisIndex, ...] = ()
    """What is taken of each frame."""
    locking: bool | str | None = None
    """As h5py's: False for disks that have no locks."""

    def read(self, wanted: range) -> NDArray[Any]:
        """Frames, one after the other along the first axis.

        Raises
        ------
        UnreadableFileError
            Of which `TruncatedFileError` counts the frames that are there.
        """
        if self.inner:
            return self._frames().read(wanted)
        return shared_files(self.locking).read(self.path, self.dataset, wanted, swmr=True)

    def format(self, wanted: range) -> ArrayFormat:
        """Shape and dtype of what is read, which has to be there."""
        frames = self._frames()
        frames.dataset.layout(0).check(wanted, self.path, self.dataset)
        return ArrayFormat((len(wanted), *frames.frame_shape), frames.dtype)

    def for_event(self, declared: tuple[int, ...] | None, frames: int) -> "DatasetFrames":
        """The same, for events of this shape and so many frames; raises `UnreadableFileError` where it has none."""
        found = self._frames()
        shape = found.dataset.layout(0).shape
        wrong = why_no_frames(declared, frames, found.frame_shape, shape[0])
        if wrong:
            raise UnreadableFileError(
                f"dataset {self.dataset!r} of file {self.path} has the shape {list(shape)}: {wrong}."
            )
        return self

    def paths(self, wanted: range) -> list[str]:
        """The one file."""
        return [self.path]

    def close(self) -> None:
        """Close the file."""
        shared_files(self.locking).close_file(self.path)

    def _frames(self) -> HDF5Frames:
        """All that there may be, as the file is now."""
        dataset = HDF5Dataset(shared_files(self.locking), (self.path,), self.dataset, swmr=True)
        return HDF5Frames(dataset, _WHOLE_FILE, self.inner)


_WHOLE_FILE = JoinedIndex([ENDLESS], range(ENDLESS))


@dataclass(frozen=True, slots=True)
class SeriesFrames:
    """Frames that are a numbered file each."""

    mimetype: str
    """What a file is, in the words of `bluesky_filestore.model.specs`."""
    template: str
    """Makes a file's path, in C style."""
    before: tuple[str, ...] = ()
    """What is filled in before the number."""
    dataset: str = ""
    """For HDF5 files: the path of the dataset with the frame."""
    declared: tuple[int, ...] | None = None
    """The shape of an event, where it is known."""

    def __post_init__(self) -> None:
        self.paths(range(1))

    def read(self, wanted: range) -> NDArray[Any]:
        """Frames, one after the other along the first axis.

        Raises
        ------
        MissingFileError
            If none of their files is there.
        TruncatedFileError
            If some are there; it counts them.
        UnreadableFileError
            If one of them cannot be read, or its frame is not like the others.
        """
        read_file, admitted = file_reader(self.mimetype, self.dataset, hdf5=shared_files()), dict[str, str]()
        (path,) = self.paths(wanted[:1])
        first = self._as_frame(read_file(path, admitted, None), path)
        if len(wanted[:2]) == 1:
            return first[np.newaxis]
        self._check_last(wanted)
        paths = self.paths(wanted)
        values = np.empty((len(paths), *first.shape), first.dtype)
        values[0] = first
        for place, path in enumerate(paths[1:], start=1):
            try:
                frame = self._as_frame(read_file(path, admitted, values[place]), path)
            except MissingFileError as error:
                raise self._missing(path, place, wanted) from error
            if (frame.shape, frame.dtype) != (first.shape, first.dtype):
                raise UnreadableFileError(
                    f"file {path} holds a frame of {list(frame.shape)} {frame.dtype}; expected {list(first.shape)} "
                    f"{first.dtype}, as the first of its point."
                )
            values[place] = frame
        return values

    def _check_last(self, wanted: range) -> None:
        """See that the last file is there, before memory is taken for as many as a document claims."""
        try:
            signature_of(*self.paths(wanted[-1:]))
        except MissingFileError as error:
            for place in count(1):
                (path,) = self.paths(wanted[place : place + 1])
                if not os.path.lexists(path):
                    raise self._missing(path, place, wanted) from error

    def _missing(self, path: str, place: int, wanted: range) -> TruncatedFileError:
        many = wanted.stop - wanted.start
        return TruncatedFileError(
            f"file {path} is not there: of the {many} frames of point {wanted.start // many} there are {place}; "
            f"expected all."
        )

    def format(self, wanted: range) -> ArrayFormat:
        """Shape and dtype of what is read, from the header of its first file."""
        (path,) = self.paths(wanted[:1])
        try:
            stored = stored_format(self.mimetype, path, self.dataset)
        except (UnreadableFileError, AddressError):
            raise
        except Exception as error:
            # What the libraries raise for files that are not what they should be has no bounds.
            raise UnreadableFileError(f"file {path} cannot be read: {error}.") from error
        frame = self._frame(stored, path)
        return ArrayFormat((len(wanted), *frame.shape), frame.dtype)

    def for_event(self, declared: tuple[int, ...] | None, frames: int) -> "SeriesFrames":
        """The same, for events of this shape, which says of images in colours that they are."""
        return replace(self, declared=declared)

    def paths(self, wanted: range) -> list[str]:
        """The file of each; raises `DocumentError` if the template can't be filled in."""
        try:
            return [formatted(self.template, *self.before, number) for number in wanted]
        except (TypeError, ValueError) as error:
            raise DocumentError(
                f"template {self.template!r} can't be filled in with directory, name and number ({error}); "
                f"expected one such as '%s%s_%6.6d.tiff'."
            ) from error

    def close(self) -> None:
        """Nothing stays open for it."""

    def _frame(self, stored: ArrayFormat, path: str) -> ArrayFormat:
        """The format of the frame of a file that holds this."""
        shape, dtype = one_frame(stored.shape, self.declared) if self.mimetype == HDF5 else stored.shape, stored.dtype
        if shape is None:
            raise UnreadableFileError(
                f"file {path} holds {stored.shape[0]} frames; expected one, as in each file of a series."
            )
        # A TIFF file's byte order is no part of the values.
        return ArrayFormat(shape, dtype.newbyteorder("=") if self.mimetype == TIFF_SERIES else dtype)

    def _as_frame(self, values: NDArray[Any], path: str) -> NDArray[Any]:
        frame = self._frame(ArrayFormat(values.shape, values.dtype), path)
        return values.reshape(frame.shape).astype(frame.dtype, copy=False)


NumberedFrames: TypeAlias = DatasetFrames | SeriesFrames
"""Frames by their numbers."""


class SourceArrays:
    """The arrays that the indices of a source stand for, in the shape that a descriptor gives them.

    How many frames an index has, and its shape, follow from documents and files by the rules that the array in the
    catalog is made by. It can be called as a handler is, shared by threads, and pickled.

    Parameters
    ----------
    source : Source
        Says where the frames are.
    path : str
        Its file or directory here.
    data_key : Mapping
        Its data key in the descriptor.

    Raises
    ------
    UnknownSpecError
        If nothing of ours reads its files.
    DocumentError
        If the shape of an event varies.
    """

    def __init__(self, source: Source, path: str, data_key: Mapping[str, Any]) -> None:
        self._source, self._declared = source, declared_shape(data_key)
        self.frames = _frames_of(source, path, self._declared)
        self._count: int | None = None

    def __call__(self, index: int, width: int = 1) -> NDArray[Any]:
        """The array of an index, or of several consecutive ones that are one event.

        Raises
        ------
        UnreadableFileError
            If its frames cannot be read.
        """
        if not width:
            some = self.frames.format(range(1))
            return np.empty((0, *some.shape[1:]), some.dtype)
        values = self.frames.read(self.numbers(index, width))
        return values.reshape(shape_of_event(self._declared, values.shape, is_joined=self._source.is_joined))

    def format(self, *, index: int, width: int = 1) -> ArrayFormat:
        """Shape and dtype of what is read."""
        stored = self.frames.format(self.numbers(index, width) if width else range(1))
        is_joined = self._source.is_joined
        shape = shape_of_event(self._declared, stored.shape, is_joined=is_joined) if width else (0, *stored.shape[1:])
        return ArrayFormat(shape, stored.dtype)

    def numbers(self, index: int, width: int = 1) -> range:
        """The numbers of the frames that indices stand for; some file has to be there to know.

        Raises
        ------
        UnreadableFileError
            If it is not, or its first axis is not that of frames.
        """
        if self._count is None:
            some = index * (self._source.frames_per_index or self._source.files_per_index or 1)
            # Where an index is, the frame of this number is as well.
            _, *frame_shape = self.frames.format(range(some, some + 1)).shape
            said = self._source.frames_per_index or self._source.files_per_index or 1
            # Of events that vary in number, the descriptor's shape is that of none.
            count = said if width != 1 else self._source.frames_per_event(self._declared, tuple(frame_shape))
            self.frames.for_event(self._declared if width == 1 else None, count)
            self._count = count
        return range(index * self._count, (index + width) * self._count)

    def close(self) -> None:
        """Close what is open."""
        self.frames.close()


def _frames_of(source: Source, path: str, declared: tuple[int, ...] | None) -> NumberedFrames:
    if source.template is None and source.mimetype == HDF5:
        inner = slice_of_frames(str(source.parameters.get("slice") or ""))
        return DatasetFrames(path, source.dataset or "", inner, source.parameters.get("locking"))
    if source.template is None or source.mimetype not in FILE_TYPES:
        raise UnknownSpecError(
            f"stream_resource {source.uid!r} has the mimetype {source.mimetype!r}, which nobody reads here; "
            f"expected one of {', '.join(FILE_TYPES)}."
        )
    # The template is that of the whole path as it was recorded.
    recorded, here = (str(place).replace("%", "%%") for place in (source.path, path))
    name = source.template.removeprefix(recorded).lstrip("/\\")
    return SeriesFrames(source.mimetype, f"{here.rstrip('/')}/{name}", dataset=source.dataset or "", declared=declared)
