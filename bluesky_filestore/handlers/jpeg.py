"""A frame a file, in numbered JPEG files."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .base import read_errors
from .series import FileSeriesHandler

__all__ = ["JPEGSeriesHandler"]


class JPEGSeriesHandler(FileSeriesHandler):
    """Files of areaDetector's JPEG plugin, as StreamResources have them; grey as (y, x), colours as (y, x, 3).

    Parameters
    ----------
    directory, template, filename, frame_per_point
        As for every series.
    """

    def _read(self, path: str) -> NDArray[Any]:
        with read_errors(path, SyntaxError, ValueError), Image.open(path) as image:
            return np.asarray(image)
