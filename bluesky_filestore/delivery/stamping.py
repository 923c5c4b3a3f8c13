"""What the files of an array are like when it is registered, so that whoever reads it knows them again."""

import os
import stat
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from bluesky_filestore.errors import AddressError, UnreadableFileError
from bluesky_filestore.logs import get_logger
from bluesky_filestore.model.addressing import HANDLED
from bluesky_filestore.model.ragged_rows import RAGGED, RaggedRows
from bluesky_filestore.operations.placement import Placement

if TYPE_CHECKING:
    from bluesky_filestore.files.hdf5 import HDF5Files

__all__ = ["frames_of_placement", "parts_of", "sizes_of", "stamp"]

_logger = get_logger(__name__)
_PATIENCE = 30.0
"""Seconds."""
_CLOSED_WITHIN = 60.0
"""Seconds after a run's end in which its files are closed by whoever wrote them."""


def sizes_of(files: Sequence[str]) -> list[int | None]:
    """How large files are, in bytes; of what is not in sight, or no file, nothing."""
    return [_size_of(file) for file in files]


def _size_of(file: str) -> int | None:
    try:
        found = os.stat(file)  # noqa: PTH116 - there may be 10,000, and a Path costs more than the call
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def stamp(placement: Placement, before: Placement | None, ended: float) -> Placement:
    """How an array shall be registered, with what its files are like now among the properties.

    Without that where they cannot be looked at, or not yet: such an array is read without being compared. So it is, and
    is said to be, where a run comes late into its catalog and one of its files was written to long after its end: it
    may have been overwritten, and what it holds now would be taken for the run's.

    Parameters
    ----------
    placement : Placement
        How it shall be registered.
    before : Placement or None
        How it is; files that are unchanged since are not read again.
    ended : float
        When the run ended, in seconds since 1970.
    """
    properties: dict[str, Any] = {}
    if placement.mimetype == RAGGED:
        parts = [stamp(part, None, ended) for part in parts_of(placement)]
        said = dict.fromkeys(filter(None, (placement.unverified, *(part.unverified for part in parts))))
        properties = {**placement.properties, "parts": [dict(part.properties) for part in parts]}
        return replace(placement, properties=properties, unverified="; ".join(said))
    if placement.mimetype != HANDLED:
        _stamp(placement, before, properties)
    else:
        # A handler is anybody's code, and may never answer.
        thread = threading.Thread(target=_stamp, args=(placement, before, properties), name="handler", daemon=True)
        thread.start()
        thread.join(_PATIENCE)
    written = _last_written(properties)
    if written > ended + _CLOSED_WITHIN and time.time() > ended + _CLOSED_WITHIN and not _knows(before):
        words = (
            f"the last of its files was written to on {_shown(written)}, long after the run had ended on "
            f"{_shown(ended)}, and before the run came into the catalog: they may hold what a later run wrote. Look "
            f"whether they are this run's"
        )
        return replace(placement, unverified="; ".join(filter(None, (placement.unverified, words))))
    return replace(placement, properties={**placement.properties, **properties})


def _last_written(properties: dict[str, Any]) -> float:
    from bluesky_filestore.files.stamps import stamps_of

    stamps = stamps_of(properties)
    return max(stamp.modified for stamp in stamps.stamps) / 1e9 if stamps is not None else 0.0


def _knows(before: Placement | None) -> bool:
    """Whether the files were looked at before, when nothing was wrong with them."""
    from bluesky_filestore.files.stamps import stamps_of

    return before is not None and stamps_of(before.properties) is not None


def _shown(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="seconds")


def parts_of(placement: Placement) -> list[Placement]:
    """The arrays of rows that are alike, which one of rows that differ is made of."""
    return [
        Placement(
            part.mimetype,
            replace(placement.event, shape=part.shape[1:], dtype=part.dtype),
            part.shape[0],
            part.parameters,
            tuple(placement.files[number] for number in part.assets),
            part.properties,
        )
        for part in RaggedRows.from_parameters(placement.parameters).parts
    ]


def _stamp(placement: Placement, before: Placement | None, properties: dict[str, Any]) -> None:
    from bluesky_filestore.files.hdf5 import HDF5Files
    from bluesky_filestore.files.rows import ComparesItsFiles
    from bluesky_filestore.files.stamps import stamps_of

    try:
        # Closed at once: whoever wrote them may have them open.
        with HDF5Files() as files:
            frames = frames_of_placement(placement, files)
            if isinstance(frames, ComparesItsFiles):
                stamps = frames.stamped(stamps_of(before.properties) if before is not None else None)
                if stamps.numbers:
                    properties.update(stamps.to_properties())
    except (UnreadableFileError, AddressError) as error:
        _logger.info("The files of an array are not compared when it is read: %s", error)
    except Exception:
        # Whatever it is, the array is registered without.
        _logger.exception("The files of an array could not be looked at; they are not compared when it is read.")


def frames_of_placement(placement: Placement, files: "HDF5Files") -> Any:
    """The frames that an array would be registered with; raises as `files.registered.frames_of` does."""
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
    return frames_of(registered, files=files)()
