"""A frame a file, in numbered files: what handlers of all such formats share."""

import os
from typing import ClassVar

from bluesky_filestore.files.numbered import SeriesFrames

from .base import PointHandler

__all__ = ["FileSeriesHandler"]


class FileSeriesHandler(PointHandler):
    """Numbered files of one frame each; formats derive from it and say what a file is.

    Parameters
    ----------
    directory : str
        Where the files are.
    template : str
        Makes a file's path from directory, name and number, as areaDetector's ``FileTemplate``: ``"%s%s_%6.6d.tiff"``.
    filename : str
        The name.
    frame_per_point : int
        How many files a Datum stands for.

    Raises
    ------
    DocumentError
        If the template can't be filled in.
    """

    mimetype: ClassVar[str]
    """What a file is, in the words of `bluesky_filestore.model.specs`."""

    def __init__(self, directory: str, /, template: str, filename: str = "", frame_per_point: int = 1) -> None:
        directory = os.path.join(directory, "")  # noqa: PTH118 - the separator at its end is the point
        super().__init__(SeriesFrames(self.mimetype, template, (directory, filename)), frame_per_point)
