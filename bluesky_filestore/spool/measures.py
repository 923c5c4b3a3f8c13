"""What those who work with a spool count: documents delivered, frames missing, the time that callbacks took.

The counts of all processes that ever did are in one file of the spool directory, ``measures.json``, so that they never
fall, whoever ends; whoever watches reads it. It is a help and no promise: it is written once a second at most, by a
thread that nobody waits for, and one that is not there or broken counts as empty.
"""

import fcntl
import json
import os
import sys
import time
from bisect import bisect_left
from collections.abc import Mapping
from pathlib import Path

from bluesky_filestore.private import open_private_file

from .forking import no_fork

__all__ = ["BOUNDS", "Measures", "measured"]

_FILE = "measures.json"
_MOST_BYTES, _SAVE_SECONDS = 1_000_000, 1.0
BOUNDS = (0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 10.0)
"""The times, in seconds, between which those that were measured are counted."""


class Measures:
    """What one process counts; each name is counted by one thread, and one saves.

    A time that was measured is counted three times: ``NAME/sum`` seconds, ``NAME/count``, and ``NAME/le/BOUND`` for
    the first of `BOUNDS` that it is not above.

    Parameters
    ----------
    directory : Path
        The spool directory.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / _FILE
        self._counts: dict[str, float] = {}
        self._times: dict[str, list[float]] = {}
        self._saved: dict[str, float] = {}
        self._next = 0.0

    def add(self, name: str, amount: float) -> None:
        """Count something."""
        self._counts[name] = self._counts.get(name, 0) + amount

    def add_time(self, name: str, seconds: float) -> None:
        """Count something that took so long."""
        times = self._times.get(name)
        if times is None:
            times = self._times[name] = [0.0] * (len(BOUNDS) + 2)
        times[bisect_left(BOUNDS, seconds)] += 1
        times[-1] += seconds

    def save(self, *, at_once: bool = False) -> None:
        """Add what was counted since the last time to what others did, unless that was less than a second ago.

        If somebody else is at it, or it cannot be written, it waits for the next time.
        """
        if not at_once and time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _SAVE_SECONDS
        now = self._now()
        more = {name: count - self._saved.get(name, 0) for name, count in now.items()}
        if any(more.values()) and _add_to(self._path, more):
            self._saved = now

    def _now(self) -> dict[str, float]:
        now = dict(self._counts)
        for name, times in list(self._times.items()):
            *counts, total = times
            now |= {f"{name}/le/{bound}": count for bound, count in zip((*BOUNDS, "inf"), counts, strict=True) if count}
            now |= {f"{name}/sum": total, f"{name}/count": sum(counts)}
        return now


def measured(directory: Path) -> dict[str, float]:
    """What was counted at a spool so far, by name."""
    try:
        return _counts_in((directory / _FILE).read_bytes()[:_MOST_BYTES])
    except OSError:
        return {}


def _counts_in(text: bytes) -> dict[str, float]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    items = found.items() if isinstance(found, Mapping) else ()
    return {name: float(count) for name, count in items if _is_count(count)}


def _is_count(value: object) -> bool:
    """Whether it can be counted on with: what is infinite, or an integer beyond floats, would stay so for ever."""
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


def _add_to(path: Path, more: Mapping[str, float]) -> bool:
    """Add counts to those in a file; whether it was done."""
    with no_fork:
        try:
            descriptor = open_private_file(path)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            counts = _counts_in(os.pread(descriptor, _MOST_BYTES, 0))
            for name, count in more.items():
                counts[name] = counts.get(name, 0) + count
            text = json.dumps(counts).encode()
            # A reader sees the one or the other: blanks fill what was longer.
            os.pwrite(descriptor, text.ljust(os.fstat(descriptor).st_size), 0)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True
