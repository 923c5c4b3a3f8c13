"""How a thread with much to do lets those with little to do go first."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["small_slices"]

_SLICE = 0.0005
_lock = threading.Lock()
_busy = 0
_usual = 0.0


@contextmanager
def small_slices() -> Iterator[None]:
    """Have the interpreter change threads after half a millisecond, not after five, as long as this lasts.

    A thread that wants to run has to wait for the one that runs until its time is over (`sys.setswitchinterval`): a
    plan's callback, which takes some ten microseconds, for an uploader that goes through thousands of documents.
    """
    global _busy, _usual
    with _lock:
        if not _busy:
            _usual = sys.getswitchinterval()
            sys.setswitchinterval(min(_SLICE, _usual))
        _busy += 1
    try:
        yield
    finally:
        with _lock:
            _busy -= 1
            if not _busy:
                sys.setswitchinterval(_usual)
