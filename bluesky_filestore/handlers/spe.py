"""The frames of a point a file, in numbered files of Princeton Instruments, read by the public package."""

from typing import Any, ClassVar

from numpy.typing import NDArray

from bluesky_filestore.errors import DocumentError, TruncatedFileError
from bluesky_filestore.files.series import SPE_FILES

from .base import ArrayFormat, frames_of_point
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
    mimetype: ClassVar[str] = SPE_FILES

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
        number = self._numbers(point_number)
        frames: NDArray[Any] = self._frames.read(number)[0]
        (path,) = self._frames.paths(number)
        if len(frames) == self._frame_per_point:
            return frames.squeeze()
        kind = TruncatedFileError if len(frames) < self._frame_per_point else DocumentError
        raise kind(
            f"file {path} holds {len(frames)} frames; expected {self._frame_per_point}, those of point {point_number}."
        )

    def format(self, *, point_number: int) -> ArrayFormat:
        """Shape and dtype of a point; it reads the file."""
        values = self(point_number)
        return ArrayFormat(values.shape, values.dtype)

    def _numbers(self, point_number: int) -> range:
        return frames_of_point(point_number, 1)
