"""What the files of an array are like when it is registered, so that whoever reads it knows them again."""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from bluesky_filestore.errors import AddressError, UnreadableFileError
from bluesky_filestore.model.addressing import HANDLED
from bluesky_filestore.operations.placement import Placement

__all__ = ["Stamper", "stamp", "stamps_nothing"]

_logger = logging.getLogger(__name__)
_PATIENCE = 30.0
"""Seconds."""

Stamper: TypeAlias = Callable[[Placement, "Placement | None"], Mapping[str, Any]]
"""Further properties of an array, by its files; it is given what is registered of it, too."""


def stamps_nothing(placement: Placement, before: Placement | None) -> Mapping[str, Any]:
    """For those who register nothing."""
    return {}


def stamp(placement: Placement, before: Placement | None) -> Mapping[str, Any]:
    """What the files of an array are like now, as properties of its data source.

    Empty where they cannot be looked at, or not yet: such an array is read without being compared.

    Parameters
    ----------
    placement : Placement
        How it shall be registered.
    before : Placement or None
        How it is; files that are unchanged since are not read again.
    """
    properties: dict[str, Any] = {}
    if placement.mimetype != HANDLED:
        _stamp(placement, before, properties)
        return properties
    # A handler is anybody's code, and may never answer.
    thread = threading.Thread(target=_stamp, args=(placement, before, properties), name="handler", daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    return dict(properties)


def _stamp(placement: Placement, before: Placement | None, properties: dict[str, Any]) -> None:
    from bluesky_filestore.files.rows import ComparesItsFiles
    from bluesky_filestore.files.stamps import stamps_of

    try:
        frames = _frames_of(placement)
        if isinstance(frames, ComparesItsFiles):
            stamps = frames.stamped(stamps_of(before.properties) if before is not None else None)
            if stamps.numbers:
                properties.update(stamps.to_properties())
    except (UnreadableFileError, AddressError) as error:
        _logger.info("The files of an array are not compared when it is read: %s", error)


def _frames_of(placement: Placement) -> Any:
    import numpy as np

    from bluesky_filestore.files.readable import ANYWHERE
    from bluesky_filestore.files.registered import Registered, frames_of
    from bluesky_filestore.handlers import handler_registry
    from bluesky_filestore.handlers.handled_frames import handled_frames

    shape, dtype = (placement.count, *placement.event.shape), np.dtype(placement.event.dtype)
    registered = Registered(
        placement.mimetype, placement.parameters, placement.properties, placement.files, shape, dtype
    )
    if placement.mimetype == HANDLED:
        return handled_frames(registered, handlers=handler_registry, roots=ANYWHERE)
    return frames_of(registered)()
