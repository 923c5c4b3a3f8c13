"""Whether a run's frames are in its files, looked at when it ends, by a thread that nobody waits for."""

import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, wait
from dataclasses import replace
from typing import Any

from bluesky_filestore.errors import FileStoreError
from bluesky_filestore.logs import get_logger
from bluesky_filestore.model.addressing import HANDLED
from bluesky_filestore.model.ragged_rows import RAGGED
from bluesky_filestore.operations.placement import Placement

from .stamping import frames_of_placement, parts_of, stamp

__all__ = ["Reconciler"]

_logger = get_logger(__name__)
_AT_ONCE = 0.05
"""Seconds in which most are looked through: then it is said when the run ends, by the request that is made anyway."""
_AGAIN = 1.0
"""Seconds until what is not in a file may be: its last frames may be on their way to this machine."""
_MOST_LISTED = 1000


class Reconciler:
    """Stamps arrays when their run ends, and has each frame looked for in its file, without reading it.

    One thread does it for all runs, one after the other, and ends when nothing is left; for any number of threads.

    Parameters
    ----------
    looks : bool
        Whether it does more than stamping.
    """

    def __init__(self, *, looks: bool) -> None:
        self._looks = looks
        self._lock = threading.Lock()
        # Both under the lock; there is a thread if, and only if, `_works`.
        self._waiting: deque[tuple[Placement, Future[Mapping[str, Any]]]] = deque()
        self._works = False

    def __call__(self, placement: Placement, before: Placement | None, ended: float) -> Placement:
        """As `stamp`, with what is found of its frames as `Placement.look`."""
        stamped = stamp(placement, before, ended)
        # A handler is anybody's code; what is not in sight, still written, or may be another run's tells nothing.
        tells = stamped.mimetype != HANDLED and stamped.settled and stamped.count and not stamped.unverified
        if not (self._looks and tells):
            return stamped
        look: Future[Mapping[str, Any]] = Future()
        with self._lock:
            self._waiting.append((stamped, look))
            begins, self._works = not self._works, True
        if begins:
            threading.Thread(target=self._work, name="reconcile", daemon=True).start()
        wait([look], _AT_ONCE)
        return replace(stamped, look=look)

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._works = False
                    return
                placement, look = self._waiting.popleft()
            try:
                found = _look_through(placement)
                if found:
                    time.sleep(_AGAIN)
                    found = _look_through(placement)
            except Exception as error:
                _logger.exception("The files of an array could not be looked through.")
                found = {"reason": f"its files could not be looked through: {error!r}"}
            look.set_result(found)


def _look_through(placement: Placement) -> Mapping[str, Any]:
    """Which events lack frames, and why; empty if none does."""
    from bluesky_filestore.files.hdf5 import HDF5Files
    from bluesky_filestore.files.rows import LooksThrough

    events, reasons = set[int](), list[str]()
    parts = parts_of(placement) if placement.mimetype == RAGGED else [placement]
    for part in parts:
        try:
            with HDF5Files() as files:
                frames = frames_of_placement(part, files)
                each = max(1, frames.count // max(1, part.count))
                for problem in frames.problems() if isinstance(frames, LooksThrough) else ():
                    reasons.append(str(problem.error))
                    # Of rows that differ in shape nobody knows here which events they are.
                    events.update(frame // each for frame in problem.frames if part is placement)
        except (FileStoreError, OSError) as error:
            reasons.append(str(error))
    if not reasons:
        return {}
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return {"events": sorted(events)[:_MOST_LISTED], "reason": reasons[0].rstrip(".") + more}
