"""Which of our adapters serves what."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from bluesky_filestore.files.readable import ANYWHERE, Roots
from bluesky_filestore.model.addressing import FILE_SERIES, HANDLED, HDF5_ROWS
from bluesky_filestore.model.specs import HDF5, JPEG_SERIES, NPY_SERIES, TIFF_SERIES

from .handled import HandledAdapters
from .hdf5 import HDF5Adapters
from .series import FrameAdapters, SeriesAdapters

__all__ = [
    "NAMES",
    "adapters",
    "file_series",
    "handled",
    "hdf5",
    "hdf5_rows",
    "jpeg_series",
    "npy_series",
    "tiff_series",
]

hdf5 = HDF5Adapters()
hdf5_rows = FrameAdapters(HDF5_ROWS)
file_series = FrameAdapters(FILE_SERIES)
handled = HandledAdapters()
tiff_series = SeriesAdapters(TIFF_SERIES)
npy_series = SeriesAdapters(NPY_SERIES)
jpeg_series = SeriesAdapters(JPEG_SERIES)

NAMES: Mapping[str, str] = MappingProxyType(
    {
        HDF5: f"{__name__}:hdf5",
        HDF5_ROWS: f"{__name__}:hdf5_rows",
        FILE_SERIES: f"{__name__}:file_series",
        HANDLED: f"{__name__}:handled",
        TIFF_SERIES: f"{__name__}:tiff_series",
        NPY_SERIES: f"{__name__}:npy_series",
        JPEG_SERIES: f"{__name__}:jpeg_series",
    }
)
"""How a ``config.yml`` names each, under ``adapters_by_mimetype``."""


def adapters(roots: Roots = ANYWHERE, *, allow_changed: bool = False) -> dict[str, Any]:
    """Tiled's ``adapters_by_mimetype``.

    Parameters
    ----------
    roots : Roots
        The directories that files are served from.
    allow_changed : bool
        Whether files are served that are not those that were registered.
    """
    series = {
        mimetype: SeriesAdapters(mimetype, roots, allow_changed=allow_changed)
        for mimetype in (TIFF_SERIES, NPY_SERIES, JPEG_SERIES)
    }
    return {
        HDF5: HDF5Adapters(roots, allow_changed=allow_changed),
        HDF5_ROWS: FrameAdapters(HDF5_ROWS, roots, allow_changed=allow_changed),
        FILE_SERIES: FrameAdapters(FILE_SERIES, roots, allow_changed=allow_changed),
        HANDLED: HandledAdapters(roots, allow_changed=allow_changed),
        **series,
    }
