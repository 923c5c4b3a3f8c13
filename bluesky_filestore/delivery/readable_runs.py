"""Which runs can be read in a catalog."""

import threading
from collections import OrderedDict
from collections.abc import Mapping

__all__ = ["ReadableRuns"]

_REMEMBERED = 10_000


class ReadableRuns:
    """The runs whose end a catalog has learned, by uid, and why each is parked, or will be: the last some thousand.

    For any number of threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._why = OrderedDict[str, str]()

    def __contains__(self, uid: str) -> bool:
        return uid in self._why

    def add(self, runs: Mapping[str, str]) -> None:
        """These can be read; why they are parked, or will be, is empty if they are not."""
        with self._lock:
            self._why.update(runs)
            while len(self._why) > _REMEMBERED:
                self._why.popitem(last=False)

    def discard(self, uid: str) -> None:
        """A run begins, maybe not for the first time."""
        with self._lock:
            self._why.pop(uid, None)

    def why_parked(self, uid: str) -> str:
        """Why a run is parked, or will be; empty if it is not, or cannot be read."""
        return self._why.get(uid, "")
