"""Spectra of an Xspress3: frames of a channel each along the second axis."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import h5py
from numpy.typing import NDArray

from bluesky_filestore.errors import DocumentError
from bluesky_filestore.model.specs import spec_named

from .base import ArrayFormat, BaseHandler, frames_of_point
from .hdf5_file import HDF5File

__all__ = ["Xspress3Handler"]


class Xspress3Handler(BaseHandler):
    """A file of the Xspress3's HDF5 plugin: the spec ``XSP3``.

    Parameters
    ----------
    filename : str
        The file.
    key : str
        The dataset, of shape (frames, channels, energies); by default the one that the plugin writes.
    """

    specs: ClassVar[frozenset[str]] = frozenset({"XSP3"})

    def __init__(self, filename: str, /, key: str = "") -> None:
        self._key = key or spec_named("XSP3").dataset or ""
        self._file = HDF5File(filename)

    def __call__(self, frame: int, channel: int) -> NDArray[Any]:
        """A spectrum, of shape (energies,).

        Parameters
        ----------
        frame : int
            Counted from 0.
        channel : int
            Counted from 1, as on the device.

        Raises
        ------
        UnreadableFileError
            Of which `TruncatedFileError` counts the frames that are there.
        DocumentError
            If there is no such channel.
        """
        with self._file.dataset(self._key) as dataset:
            row = self._row(dataset, frame, channel)
            spectrum: NDArray[Any] = self._file.read(dataset, range(row, row + 1), (channel - 1,))[0]
        return spectrum

    def format(self, *, frame: int, channel: int) -> ArrayFormat:
        """Shape and dtype of a spectrum."""
        with self._file.dataset(self._key) as dataset:
            self._row(dataset, frame, channel)
            return ArrayFormat(dataset.shape[2:], dataset.dtype)

    def get_file_list(self, datum_kwargs_gen: Iterable[Mapping[str, Any]]) -> list[str]:
        """The one file."""
        return [self._file.path]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _row(self, dataset: h5py.Dataset, frame: int, channel: int) -> int:
        row = self._file.rows(dataset, frames_of_point(frame, 1)).start
        channels = dataset.shape[1] if len(dataset.shape) > 1 else 0
        if not 1 <= channel <= channels:
            raise DocumentError(
                f"channel {channel!r} is asked of file {self._file.path}; expected 1 to {channels}, as it has."
            )
        return int(row)
