"""A frame a file, in numbered TIFF files."""

from typing import Any, ClassVar

import numpy as np
import tifffile
from numpy.typing import NDArray

from bluesky_filestore.files.readable import ANYWHERE
from bluesky_filestore.files.tiff import read_tiff

from .base import ArrayFormat, read_errors
from .series import FileSeriesHandler

__all__ = ["AreaDetectorTIFFHandler"]

# What tifffile and the decoders raise for a file that is cut short or not what it should be, beside OSError.
_TIFF_ERRORS = (tifffile.TiffFileError, EOFError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


class AreaDetectorTIFFHandler(FileSeriesHandler):
    """Files of areaDetector's TIFF plugin: the spec ``AD_TIFF``.

    Parameters
    ----------
    directory, template, filename, frame_per_point
        As for every series.
    """

    specs: ClassVar[frozenset[str]] = frozenset({"AD_TIFF"})

    def _read(self, path: str) -> NDArray[Any]:
        with read_errors(path, *_TIFF_ERRORS), ANYWHERE.opened(path) as descriptor:
            values = read_tiff(descriptor, path)
        # The file's byte order is no part of the values.
        return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))

    def _read_format(self, path: str) -> ArrayFormat:
        with read_errors(path, *_TIFF_ERRORS), tifffile.TiffFile(path) as file:
            series = file.series[0]
            return ArrayFormat(tuple(series.shape), np.dtype(series.dtype).newbyteorder("="))
