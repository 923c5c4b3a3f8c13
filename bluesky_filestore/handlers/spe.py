"""The frames of a point a file, in numbered files of Princeton Instruments, read by the public package."""

from typing import Any, ClassVar

from numpy.typing import NDArray

from bluesky_filestore.errors import DocumentError, TruncatedFileError

from .base import ArrayFormat, frames_of_point, read_errors
from .series import FileSeriesHandler

__all__ = ["AreaDetectorSPEHandler"]


class AreaDetectorSPEHandler(FileSeriesHandler):
    """Files of areaDetector's LightField or WinView drivers: the spec ``AD_SPE``. Needs area-detector-handlers.

    Parameters
    ----------
    directory, template, filename
        As for every series.
    frame_per_point : int
        How many frames each file holds.
    """

    specs: ClassVar[frozenset[str]] = frozenset({"AD_SPE"})

    def __call__(self, point_number: int) -> NDArray[Any]:
        """The frames of a point, less the axes of length one, as the public handler does.

        Raises
        ------
        MissingFileError, UnreadableFileError
            If the file is not there or broken.
        TruncatedFileError
            If it has fewer frames than a point; it counts them.
        DocumentError
            If it has more.
        """
        (path,) = self._paths(point_number)
        frames = self._read(path)
        if len(frames) == self._frames:
            return frames.squeeze()
        words = f"file {path} holds {len(frames)} frames; expected {self._frames}, those of point {point_number}."
        raise TruncatedFileError(words) if len(frames) < self._frames else DocumentError(words)

    def format(self, *, point_number: int) -> ArrayFormat:
        """Shape and dtype of a point; it reads the file."""
        values = self(point_number)
        return ArrayFormat(values.shape, values.dtype)

    def _paths(self, point_number: int) -> list[str]:
        return [self._path(number) for number in frames_of_point(point_number, 1)]

    def _read(self, path: str) -> NDArray[Any]:
        from area_detector_handlers.spe_reader import PrincetonSPEFile

        with read_errors(path, Exception):  # it raises a bare Exception for a header that it does not understand
            values: NDArray[Any] = PrincetonSPEFile(path).getData()
            return values
