"""Watching an acquisition: until the camera is done, its IOC is gone, or nothing moves any more.

A watch belongs to one trigger and runs in a thread of its own until the trigger's status is done, whoever ends it:
ophyd's mixin when ``Acquire`` falls, the detector when the connection is lost, or the watch.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

from ophyd.utils.errors import InvalidState

from bluesky_filestore.errors import IOCUnreachableError, MissingFramesError

from .waiting import is_connected, optional, pv_name

__all__ = ["AcquisitionWatch", "fail", "lost_connection"]

_PAUSE = 0.5
"""Seconds between two looks at the records."""
_SOON = 0.01
"""The same while a running acquisition is waited for."""


def fail(status: Any, error: Exception) -> None:
    """End a status with an error, unless it has ended already."""
    try:
        if not status.done:
            status.set_exception(error)
    except InvalidState:
        # Somebody else was faster.
        return


class AcquisitionWatch:
    """Ends a trigger's status with an error if the acquisition does not go on.

    Parameters
    ----------
    detector : Device
        With a ``cam``.
    signal : ophyd.Signal
        What starts the acquisition.
    status : ophyd.status.StatusBase
        The trigger's.
    timeout : float or None
        Seconds without any news of the camera, beyond exposure time and period; None for ever.
    """

    def __init__(self, detector: Any, signal: Any, status: Any, timeout: float | None) -> None:
        self._detector = detector
        self._signal = signal
        self._status = status
        self._timeout = timeout
        self._ended = threading.Event()
        status.add_callback(lambda *args, **kwargs: self._ended.set())

    @property
    def is_over(self) -> bool:
        """Whether it watches no more."""
        return self._ended.is_set()

    def cancel(self) -> None:
        """Watch no more, and begin nothing; the status stays as it is: whoever gave up does not wait for it."""
        self._ended.set()

    def start(self, begin: Callable[[], None] | None = None, is_free: Callable[[], bool] = lambda: True) -> None:
        """Watch from now on.

        Parameters
        ----------
        begin : callable, optional
            Starts the acquisition, as soon as the one that is running has ended.
        is_free : callable
            Whether it has.
        """
        layer = getattr(self._signal, "cl", None)
        thread_class = getattr(layer, "thread_class", None) or threading.Thread
        thread_class(target=self._run, args=(begin, is_free), daemon=True).start()

    def _run(self, begin: Callable[[], None] | None, is_free: Callable[[], bool]) -> None:
        try:
            if begin is not None and self._watch(is_free, _SOON) and not self.is_over:
                begin()
            self._watch(lambda: False, _PAUSE)
        except Exception as error:  # noqa: BLE001 - the plan that waits for the status is told
            fail(self._status, error)

    def _watch(self, condition: Callable[[], bool], pause: float) -> bool:
        """Wait for a condition; False if the status was done before, or has been ended since nothing moved."""
        seen, since = self._news(), time.monotonic()
        while not self._ended.wait(pause):
            if condition():
                return True
            news = self._news()
            if news not in (None, seen):
                seen, since = news, time.monotonic()
            problem = self._problem(time.monotonic() - since)
            if problem is not None:
                fail(self._status, problem)
                return False
        return False

    def _news(self) -> tuple[Any, ...] | None:
        """Something that changes as long as the camera takes frames; None if its IOC does not answer."""
        names = ("array_counter", "num_images_counter", "detector_state")
        try:
            return tuple(signal.get() for name in names if (signal := self._of_camera(name)) is not None)
        except Exception:  # noqa: BLE001 - a get that a disconnection breaks off raises what the client library likes
            return None

    def _of_camera(self, name: str) -> Any:
        return optional(self._detector, f"cam.{name}")

    def _problem(self, quiet: float) -> Exception | None:
        """What to say after so many seconds without news."""
        if not is_connected(self._signal):
            return lost_connection(self._detector, self._signal)
        if self._timeout is None or quiet < self._timeout:
            return None
        try:
            times = [signal.get() for name in _TIMES if (signal := self._of_camera(name)) is not None]
            acquire = self._signal.get()
        except Exception:  # noqa: BLE001 - as above
            return lost_connection(self._detector, self._signal)
        if quiet < self._timeout + max(times, default=0.0):
            return None
        return MissingFramesError(
            f"{self._detector.name} was triggered, and no frame has come for {quiet:.1f} s; {pv_name(self._signal)} is "
            f"{acquire!r}. Expected the camera to be done, or a frame at least every trigger_timeout={self._timeout} s "
            f"beyond its exposure. Look whether it waits for an external trigger; raise trigger_timeout, or set it to "
            f"None, if that takes longer."
        )


_TIMES = ("acquire_time", "acquire_period")


def lost_connection(detector: Any, signal: Any) -> IOCUnreachableError:
    """The error of an acquisition whose IOC is gone."""
    return IOCUnreachableError(
        f"{detector.name} was acquiring when {pv_name(signal)} stopped to answer: its IOC died, was restarted, or "
        f"can't be reached. The frames of this point are lost. Start the IOC, look at its files, and stage again."
    )
