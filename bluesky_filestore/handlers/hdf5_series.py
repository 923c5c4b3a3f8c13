"""A frame a file, in numbered HDF5 files."""

from typing import Any, ClassVar

import h5py
from numpy.typing import NDArray

from bluesky_filestore.errors import UnreadableFileError
from bluesky_filestore.model.specs import spec_named

from .base import ArrayFormat
from .hdf5_file import HDF5File
from .series import FileSeriesHandler

__all__ = ["AreaDetectorHDF5SeriesHandler"]


class AreaDetectorHDF5SeriesHandler(FileSeriesHandler):
    """Files of areaDetector's HDF5 plugin in Single mode: the spec ``AD_HDF5_SINGLE``.

    Parameters
    ----------
    directory, template, filename, frame_per_point
        As for every series.
    key : str
        The dataset that holds the frame, as (y, x) or as (1, y, x); by default areaDetector's.
    """

    specs: ClassVar[frozenset[str]] = frozenset({"AD_HDF5_SINGLE"})

    def __init__(
        self, directory: str, /, template: str, filename: str = "", frame_per_point: int = 1, *, key: str = ""
    ) -> None:
        super().__init__(directory, template, filename, frame_per_point)
        self._key = key or spec_named("AD_HDF5_SINGLE").dataset or ""

    def _read(self, path: str) -> NDArray[Any]:
        file = HDF5File(path)
        try:
            with file.dataset(self._key) as dataset:
                shape = _frame_shape(path, dataset)
                return file.read(dataset, range(dataset.shape[0])).reshape(shape)
        finally:
            file.close()

    def _read_format(self, path: str) -> ArrayFormat:
        file = HDF5File(path)
        try:
            with file.dataset(self._key) as dataset:
                return ArrayFormat(_frame_shape(path, dataset), dataset.dtype)
        finally:
            file.close()


def _frame_shape(path: str, dataset: h5py.Dataset) -> tuple[int, ...]:
    shape: tuple[int, ...] = dataset.shape
    if len(shape) < 3:
        return shape
    if shape[0] != 1:
        raise UnreadableFileError(f"file {path} holds {shape[0]} frames; expected one, as in each file of a series.")
    return shape[1:]
