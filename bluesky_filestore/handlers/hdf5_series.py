"""A frame a file, in numbered HDF5 files."""

from dataclasses import replace
from typing import ClassVar

from bluesky_filestore.model.specs import HDF5, spec_named

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
    mimetype: ClassVar[str] = HDF5

    def __init__(
        self, directory: str, /, template: str, filename: str = "", frame_per_point: int = 1, *, key: str = ""
    ) -> None:
        super().__init__(directory, template, filename, frame_per_point)
        self._frames = replace(self._frames, dataset=key or spec_named("AD_HDF5_SINGLE").dataset or "")
