"""Which of our adapters serves what."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from bluesky_filestore.files.readable import ANYWHERE, Roots
from bluesky_filestore.files.registered import OpenFrames, Registered, frames_of
from bluesky_filestore.handlers import handler_registry
from bluesky_filestore.handlers.handled_frames import HandledFrames, handled_frames
from bluesky_filestore.model.addressing import FILE_SERIES, HANDLED, HDF5_ROWS
from bluesky_filestore.model.limits import Limits
from bluesky_filestore.model.ragged_rows import RAGGED
from bluesky_filestore.model.specs import HDF5, JPEG_SERIES, NPY_SERIES, TIFF_SERIES
from bluesky_filestore.protocols import HandlerClass

from .assets import path_of
from .found import found_structure
from .frames_adapter import FramesAdapter, answered
from .hdf5 import HDF5Adapters
from .ragged import RaggedAdapters
from .series import FrameAdapters, SeriesAdapters

__all__ = [
    "NAMES",
    "TILEDS_LIMITS",
    "HandledAdapters",
    "adapters",
    "file_series",
    "handled",
    "hdf5",
    "hdf5_rows",
    "jpeg_series",
    "npy_series",
    "ragged",
    "tiff_series",
]


class HandledAdapters(FrameAdapters):
    """Makes the adapters of `HANDLED` data sources: each event is what the handler answers to its Datum.

    Parameters
    ----------
    roots : Roots
        Where files may lie, beside what Tiled allows.
    handlers : mapping, optional
        Handler class by spec; by default `bluesky_filestore.handler_registry`.
    allow_changed : bool
        Whether files are read that are not those that were registered.
    """

    def __init__(
        self,
        roots: Roots = ANYWHERE,
        handlers: Mapping[str, HandlerClass] | None = None,
        *,
        allow_changed: bool = False,
    ) -> None:
        super().__init__(HANDLED, roots, allow_changed=allow_changed)
        self._handlers = handler_registry if handlers is None else handlers

    def from_uris(self, *data_uris: str, **parameters: Any) -> FramesAdapter:
        """The adapter of events as the first of them is, as the validator of bluesky-tiled-plugins asks for it.

        Raises
        ------
        HTTPException
            If the first event cannot be read.
        """
        with answered():
            some = HandledFrames.from_parameters(
                parameters,
                list(map(path_of, data_uris)),
                (),
                np.dtype(np.uint8),
                handlers=self._handlers,
                roots=self._roots,
            )
            first = some.answer_of(0)
            events = replace(some, frame_shape=first.shape, dtype=first.dtype)
            structure = found_structure((events.count, *first.shape), first.dtype)
        return FramesAdapter(lambda: events, structure, limits=self._roots.limits)

    def _open(self, registered: Registered) -> OpenFrames:
        events = handled_frames(registered, handlers=self._handlers, roots=self._roots)
        return lambda: events


def _frames_alike(registered: Registered, roots: Roots) -> OpenFrames:
    """The frames of rows that are alike, whoever reads them."""
    if registered.mimetype != HANDLED:
        return frames_of(registered, roots=roots)
    events = handled_frames(registered, handlers=handler_registry, roots=roots)
    return lambda: events


TILEDS_LIMITS = Limits(response_bytes=2**32)
"""Where nobody said others in a server of somebody else's: that has its own limit for what it answers."""

_BY_NAME = Roots(None, TILEDS_LIMITS)
hdf5 = HDF5Adapters(_BY_NAME)
hdf5_rows = FrameAdapters(HDF5_ROWS, _BY_NAME)
file_series = FrameAdapters(FILE_SERIES, _BY_NAME)
handled = HandledAdapters(_BY_NAME)
ragged = RaggedAdapters(_frames_alike, _BY_NAME)
tiff_series = SeriesAdapters(TIFF_SERIES, _BY_NAME)
npy_series = SeriesAdapters(NPY_SERIES, _BY_NAME)
jpeg_series = SeriesAdapters(JPEG_SERIES, _BY_NAME)

NAMES: Mapping[str, str] = MappingProxyType(
    {
        HDF5: f"{__name__}:hdf5",
        HDF5_ROWS: f"{__name__}:hdf5_rows",
        FILE_SERIES: f"{__name__}:file_series",
        HANDLED: f"{__name__}:handled",
        RAGGED: f"{__name__}:ragged",
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
        RAGGED: RaggedAdapters(_frames_alike, roots, allow_changed=allow_changed),
        **series,
    }
