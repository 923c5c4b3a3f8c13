"""The adapter for whatever there is a handler for: each event is what the handler answers to its Datum."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from bluesky_filestore.files.readable import ANYWHERE, Roots
from bluesky_filestore.files.registered import OpenFrames, Registered
from bluesky_filestore.handlers import handler_registry
from bluesky_filestore.handlers.handled_frames import HandledFrames, handled_frames
from bluesky_filestore.model.addressing import HANDLED
from bluesky_filestore.protocols import HandlerClass

from .assets import path_of
from .found import found_structure
from .frames_adapter import FramesAdapter, answered
from .series import FrameAdapters

__all__ = ["HandledAdapters"]


class HandledAdapters(FrameAdapters):
    """Makes the adapters of data sources of the mimetype `HANDLED`.

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
        return FramesAdapter(lambda: events, structure)

    def _open(self, registered: Registered) -> OpenFrames:
        events = handled_frames(registered, handlers=self._handlers, roots=self._roots)
        return lambda: events
