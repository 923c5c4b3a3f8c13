"""An array a file, in numbered files of numpy's own format."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .base import ArrayFormat, BaseHandler, frames_of_point, read_errors
from .series import FileSeriesHandler

__all__ = ["NumpySequenceHandler", "NumpySeriesHandler"]


class NumpySequenceHandler(BaseHandler):
    """Files of ophyd's simulated detectors, ``<filename>_<index>.npy``: the spec ``NPY_SEQ``.

    Parameters
    ----------
    filename : str
        What the paths of the files begin with.
    root : str
        The directory that `filename` is below, where the Resource did not say it itself.
    """

    specs: ClassVar[frozenset[str]] = frozenset({"NPY_SEQ"})

    def __init__(self, filename: str, /, root: str = "") -> None:
        self._stem = str(Path(root) / filename)

    def __call__(self, index: int) -> NDArray[Any]:
        """The array of a file, as it is there.

        Raises
        ------
        UnreadableFileError
            If it is missing or broken.
        """
        return _load(self._path(index))

    def format(self, *, index: int) -> ArrayFormat:
        """Shape and dtype of a file's array."""
        return _format(self._path(index))

    def get_file_list(self, datum_kwargs_gen: Iterable[Mapping[str, Any]]) -> list[str]:
        """A file for each Datum."""
        return [self._path(**kwargs) for kwargs in datum_kwargs_gen]

    def _path(self, index: int) -> str:
        (number,) = frames_of_point(index, 1)
        return f"{self._stem}_{number}.npy"


class NumpySeriesHandler(FileSeriesHandler):
    """The same in files with names made from a template, as StreamResources have them."""

    def _read(self, path: str) -> NDArray[Any]:
        return _load(path)

    def _read_format(self, path: str) -> ArrayFormat:
        return _format(path)


def _load(path: str) -> NDArray[Any]:
    with read_errors(path, ValueError, EOFError):
        values: NDArray[Any] = np.load(path, allow_pickle=False)
        return values


def _format(path: str) -> ArrayFormat:
    with read_errors(path, ValueError, EOFError):
        values = np.load(path, mmap_mode="r", allow_pickle=False)
        return ArrayFormat(values.shape, values.dtype)
