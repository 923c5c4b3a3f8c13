"""The frames of a point a file, in numbered files of Princeton Instruments, read by the public package."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from numpy.typing import NDArray

from bluesky_filestore.errors import DocumentError, TruncatedFileError, UnreadableFileError
from bluesky_filestore.files.readable import told

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
    mimetype: ClassVar[str] = "application/x-princeton-spe"

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
        from area_detector_handlers.spe_reader import PrincetonSPEFile

        (path,) = self.get_file_list([{"point_number": point_number}])
        with told(path):
            try:
                frames: NDArray[Any] = PrincetonSPEFile(path).getData()
            except OSError:
                raise
            except Exception as error:  # a bare Exception is what it raises for a header that it does not understand
                raise UnreadableFileError(f"file {path} cannot be read: {error}") from error
        if len(frames) == self._frame_per_point:
            return frames.squeeze()
        expected = f"expected {self._frame_per_point}, those of point {point_number}."
        words = f"file {path} holds {len(frames)} frames; {expected}"
        raise TruncatedFileError(words) if len(frames) < self._frame_per_point else DocumentError(words)

    def format(self, *, point_number: int) -> ArrayFormat:
        """Shape and dtype of a point; it reads the file."""
        values = self(point_number)
        return ArrayFormat(values.shape, values.dtype)

    def get_file_list(self, datum_kwargs_gen: Iterable[Mapping[str, Any]]) -> list[str]:
        """A file for each point."""
        return [
            path
            for kwargs in datum_kwargs_gen
            for path in self._frames.paths(frames_of_point(**kwargs, frame_per_point=1))
        ]
