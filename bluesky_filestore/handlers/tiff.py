"""A frame a file, in numbered TIFF files."""

from typing import ClassVar

from bluesky_filestore.model.specs import TIFF_SERIES

from .series import FileSeriesHandler

__all__ = ["AreaDetectorTIFFHandler"]


class AreaDetectorTIFFHandler(FileSeriesHandler):
    """Files of areaDetector's TIFF plugin: the spec ``AD_TIFF``.

    Parameters
    ----------
    directory, template, filename, frame_per_point
        As for every series.
    """

    specs: ClassVar[frozenset[str]] = frozenset({"AD_TIFF"})
    mimetype: ClassVar[str] = TIFF_SERIES
