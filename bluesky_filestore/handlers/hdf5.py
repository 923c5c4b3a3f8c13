"""Frames along the first axis of a dataset of one HDF5 file."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.errors import DocumentError, UnreadableFileError
from bluesky_filestore.model.addressing import parsed_slice
from bluesky_filestore.model.frame_axis import why_no_frames, why_not_served
from bluesky_filestore.model.specs import spec_named

from .base import ArrayFormat, BaseHandler, frames_of_point, positive
from .hdf5_file import HDF5File

__all__ = ["AreaDetectorHDF5Handler", "HDF5DatasetHandler"]


class HDF5DatasetHandler(BaseHandler):
    """Any dataset of an HDF5 file, or a slice of it: the spec ``HDF5``.

    Parameters
    ----------
    filename : str
        The file.
    key : str
        The dataset; `dataset` and `path` are other names for it that are in use.
    frame_per_point : int
        How many frames a Datum stands for; `frames_per_point` is another name.
    swmr : bool
        As documents say it of a file that is still being written; every file is read so that it may be.
    locking : bool or str, optional
        As h5py's: False for disks that have no locks.
    slice : str
        What is taken of each frame, in words that begin with the axis of the frames, e.g. ``":,0:2"``.

    Raises
    ------
    DocumentError, AddressError
        If there is no dataset, or it is unclear which frames are meant.
    """

    specs: ClassVar[frozenset[str]] = frozenset({"HDF5"})

    def __init__(
        self,
        filename: str,
        /,
        key: str = "",
        frame_per_point: int = 1,
        *,
        dataset: str = "",
        path: str = "",
        frames_per_point: int | None = None,
        swmr: bool = False,
        locking: bool | str | None = None,
        slice: str = "",  # noqa: A002 - the word of the documents
    ) -> None:
        self._key = key or dataset or path
        if not self._key:
            raise DocumentError(f"no dataset of file {filename} is named; expected one as 'key' or 'dataset'.")
        self._frames = positive(frame_per_point if frames_per_point is None else frames_per_point, "frame_per_point")
        self._rest = _after_first(slice)
        self._file = HDF5File(filename, locking=locking)

    def __call__(self, point_number: int) -> NDArray[Any]:
        """The frames of a point, of shape (frame_per_point, y, x).

        Raises
        ------
        UnreadableFileError
            Of which `TruncatedFileError` counts the frames that are there.
        """
        wanted = frames_of_point(point_number, self._frames)
        with self._file.dataset(self._key) as dataset:
            return self._file.read(dataset, wanted, self._rest)

    def check_axis(self, declared: tuple[int, ...] | None) -> None:
        """See that the first axis of the dataset counts frames, by the shape that the descriptor gives an event.

        Raises
        ------
        UnreadableFileError
            If it does not, or its elements are no numbers.
        """
        with self._file.dataset(self._key) as dataset:
            unserved = why_not_served(dataset.shape, dataset.dtype)
            stored: tuple[int, ...] = (self._frames, *dataset.shape[1:])
            frame_shape = np.broadcast_to(np.zeros(()), stored)[(slice(None), *self._rest)].shape[1:]
            wrong = unserved or why_no_frames(declared, self._frames, frame_shape, dataset.shape[0])
            if wrong:
                raise UnreadableFileError(
                    f"dataset {self._key!r} of file {self._file.path} has the shape {list(dataset.shape)}: {wrong}."
                )

    def format(self, *, point_number: int) -> ArrayFormat:
        """Shape and dtype of a point, whose frames have to be there."""
        wanted = frames_of_point(point_number, self._frames)
        with self._file.dataset(self._key) as dataset:
            self._file.rows(dataset, wanted)
            like = np.broadcast_to(np.zeros((), dataset.dtype), (self._frames, *dataset.shape[1:]))
            return ArrayFormat(like[(slice(None), *self._rest)].shape, dataset.dtype)

    def get_file_list(self, datum_kwargs_gen: Iterable[Mapping[str, Any]]) -> list[str]:
        """The one file."""
        return [self._file.path]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class AreaDetectorHDF5Handler(HDF5DatasetHandler):
    """A file of areaDetector's HDF5 plugin: the specs ``AD_HDF5`` and ``AD_HDF5_SWMR``.

    Written in SWMR mode (single writer, many readers), it is read while it grows.

    Parameters
    ----------
    filename : str
        The file.
    frame_per_point : int
        How many frames a Datum stands for.
    """

    specs: ClassVar[frozenset[str]] = frozenset({"AD_HDF5", "AD_HDF5_SWMR"})

    def __init__(self, filename: str, /, frame_per_point: int = 1) -> None:
        super().__init__(filename, spec_named("AD_HDF5").dataset or "", frame_per_point)


def _after_first(text: str) -> tuple[Any, ...]:
    """The indices of the axes after that of the frames, which has to be left alone."""
    indices = parsed_slice(text)
    if not indices or indices[0] is ...:
        return indices
    if indices[0] != slice(None):
        raise DocumentError(f"the slice is {text!r}; expected ':' for the first axis, which is that of the frames.")
    return indices[1:]
