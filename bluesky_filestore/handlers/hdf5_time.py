"""When the frames of a file of areaDetector's HDF5 plugin were taken."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.files.numbered import DatasetFrames
from bluesky_filestore.model.normalize import positive

from .base import ArrayFormat, BaseHandler, frames_of_point

__all__ = ["AreaDetectorTimeHandler"]

_SECONDS = "/entry/instrument/NDAttributes/NDArrayEpicsTSSec"
_NANOSECONDS = "/entry/instrument/NDAttributes/NDArrayEpicsTSnSec"


class AreaDetectorTimeHandler(BaseHandler):
    """The time stamps of the frames: the specs ``AD_HDF5_TS`` and ``AD_HDF5_SWMR_TS``.

    Parameters
    ----------
    filename : str
        The file.
    frame_per_point : int
        How many frames a Datum stands for.
    """

    specs: ClassVar[frozenset[str]] = frozenset({"AD_HDF5_TS", "AD_HDF5_SWMR_TS"})

    def __init__(self, filename: str, /, frame_per_point: int = 1) -> None:
        self._frame_per_point = positive(frame_per_point, "frame_per_point")
        self._parts = [DatasetFrames(str(filename), key) for key in (_SECONDS, _NANOSECONDS)]

    def __call__(self, point_number: int) -> NDArray[np.float64]:
        """The time of each frame of a point in seconds of EPICS (since 1990), of shape (frame_per_point,).

        A point of one frame gives an array without an axis, as the public handler does.

        Raises
        ------
        UnreadableFileError
            Of which `TruncatedFileError` counts the frames that are there.
        """
        wanted = frames_of_point(point_number, self._frame_per_point)
        whole, nano = (part.read(wanted) for part in self._parts)
        seconds: NDArray[np.float64] = np.asarray(whole + nano * 1e-9).reshape(self._shape)
        return seconds

    def format(self, *, point_number: int) -> ArrayFormat:
        """Shape and dtype of a point."""
        return ArrayFormat(self._shape, np.dtype(np.float64))

    def get_file_list(self, datum_kwargs_gen: Iterable[Mapping[str, Any]]) -> list[str]:
        """The one file."""
        return [self._parts[0].path]

    def close(self) -> None:
        """Close the file."""
        self._parts[0].close()

    @property
    def _shape(self) -> tuple[int, ...]:
        return () if self._frame_per_point == 1 else (self._frame_per_point,)
