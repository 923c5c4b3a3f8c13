"""Spectra of an Xspress3: frames of a channel each along the second axis."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from numpy.typing import NDArray

from bluesky_filestore.errors import DocumentError
from bluesky_filestore.files.numbered import DatasetFrames
from bluesky_filestore.model.specs import spec_named

from .base import ArrayFormat, BaseHandler, frames_of_point

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
        self._frames = DatasetFrames(str(filename), key or spec_named("XSP3").dataset or "")

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
        spectra = self._channel(frame, channel).read(range(frame, frame + 1))
        return spectra.reshape(spectra.shape[1:])

    def format(self, *, frame: int, channel: int) -> ArrayFormat:
        """Shape and dtype of a spectrum."""
        stored = self._channel(frame, channel).format(range(frame, frame + 1))
        return ArrayFormat(stored.shape[1:], stored.dtype)

    def get_file_list(self, datum_kwargs_gen: Iterable[Mapping[str, Any]]) -> list[str]:
        """The one file."""
        return [self._frames.path]

    def close(self) -> None:
        """Close the file."""
        self._frames.close()

    def _channel(self, frame: int, channel: int) -> DatasetFrames:
        _, *frame_shape = self._frames.format(frames_of_point(frame, 1)).shape
        channels = frame_shape[0] if frame_shape else 0
        if not 1 <= channel <= channels:
            raise DocumentError(
                f"channel {channel!r} is asked of file {self._frames.path}; expected 1 to {channels}, as it has."
            )
        return replace(self._frames, inner=(channel - 1,))
