"""A trigger that gives a status however fast the camera is, and that ends whatever becomes of the IOC.

**The states of a detector that is staged**

========= ================================================================================================
free      `Acquire` is 0 in the record and in `_acquire_seen`; what `_status` was has ended
acquiring `Acquire` is 1 and `_status` is the trigger's; or it is None, and somebody else's acquisition runs
waiting   the same, and `_waiting` has the statuses of triggers that take their frames afterwards, one after the other
========= ================================================================================================

=================== ================================== =====================================================
in                  when                               then
=================== ================================== =====================================================
free                `trigger()`                        acquiring: the datum is made, then `Acquire` is put
acquiring, waiting  `trigger()`                        waiting: the datum is made, `Acquire` is not put
acquiring           `Acquire` falls                    free: ophyd's mixin finishes the status, and forgets it
waiting             `Acquire` falls                    acquiring: the watch of the first that waits puts `Acquire`;
                                                       waiting, if there are more
acquiring, waiting  the connection is lost             free: all statuses fail with an `IOCUnreachableError`
acquiring, waiting  nothing moves for too long         as it is, but the status fails with a `MissingFramesError`
any                 `unstage()`                        not staged: watches are cancelled, so that none begins anything
=================== ================================== =====================================================

**Threads.** The plan's thread stages, triggers and unstages. The control layer's calls `_note_acquire` and
`_note_connection`, in this order after ophyd's own: `_acquire_seen` is the last value of ``Acquire`` that the monitor
has brought, after `_status` has been dealt with. From when ``Acquire`` is put, `_acquire_put`, until the monitor brings
something, for a second at most, the detector is not free, whatever else is seen. Each trigger has an `AcquisitionWatch`
in a thread of its own, until its status is done, whoever ends it; of the detector it touches `_status`, `_acquire_put`
and `_waiting` only, when it is its turn to begin. What it reads of the camera `stage` has made:
ophyd makes a signal when it is asked for first, and pyepics mixes up channels that are made by a thread while another
one clears others.
"""

import math
import threading
import time
from collections.abc import Callable
from typing import Any

from ophyd.areadetector import trigger_mixins as stock
from ophyd.device import Staged

from bluesky_filestore.errors import IOCUnreachableError, MissingFramesError, StageError

from .plugin import FileStorePluginBase
from .staging import PutBackReport, devices_below, end_stage_not_begun, errors_gathered, raise_together
from .statuses import ADTriggerStatus, fail
from .waiting import answers, is_connected, optional, pv_name, wait_until_connected

__all__ = ["SingleTrigger"]

_IDLE = (0, "0", "Done")
_SETTING_TIMEOUT = 10.0
"""Seconds that each setting of the camera may take to be put back."""
_PAUSE = 0.5
"""Seconds between two looks at the records."""
_SOON = 0.01
"""The same while a running acquisition is waited for."""
_LATEST_MONITOR = 1.0
"""Seconds after which it is no longer expected that a record says that it was put."""
_MOVING = ("array_counter", "num_images_counter", "detector_state")
_TIMES = ("acquire_time", "acquire_period")


class SingleTrigger(stock.SingleTrigger):
    """ophyd's mixin of the same name, for cameras that may be done at once, and IOCs that may be gone.

    That one starts the camera, then has the datums made, and returns a status that it forgets as soon as the camera is
    done. If that comes first it returns None, and the plan ends: 'NoneType' object has no attribute 'add_callback'. It
    happens now and then, the more often the shorter the exposure and the busier the machine.

    While an acquisition is running, which ``Acquire=1`` would not change, a trigger waits until that is over and then
    takes frames of its own: after a pause in an exposure and a resume the point has its own.

    Parameters
    ----------
    trigger_timeout : float or None, optional
        Seconds without a further frame, beyond exposure time and period, after which a trigger's status ends with an
        error; None to wait for ever, as for rare external triggers.
    """

    _status_type: Any = ADTriggerStatus

    def __init__(self, *args: Any, trigger_timeout: float | None = 60.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.trigger_timeout = trigger_timeout
        self._acquire_seen: Any = 0
        self._acquire_put = -math.inf
        self._waiting: list[Any] = []
        self._watches: list[AcquisitionWatch] = []

    def stage(self) -> Any:
        """Stage, once the IOC is there.

        Raises
        ------
        IOCUnreachableError
            If it is not, or goes while this lasts.
        """
        signal = self._acquisition_signal
        wait_until_connected(self, [signal], _SETTING_TIMEOUT)
        self._status, self._waiting = None, []
        try:
            for name in (*_MOVING, *_TIMES):
                # Made before a thread that watches asks for it.
                optional(self, f"cam.{name}")
            staged = super().stage()
        except Exception as error:
            end_stage_not_begun(self)
            if answers(signal):
                raise
            # Whatever was being asked for or waited for just then: that is not the reason.
            raise IOCUnreachableError(
                f"{self.name} could not be staged: the IOC of {pv_name(signal)} does not answer any more. Look whether "
                f"it runs, and stage again. ({type(error).__name__}: {error})"
            ) from error
        # After ophyd's own subscription: what is noted here has been dealt with there.
        signal.subscribe(self._note_acquire)
        signal.subscribe(self._note_connection, event_type=signal.SUB_META, run=False)
        return staged

    def unstage(self) -> Any:
        """Put everything back that can be, whatever fails on the way; what can't be is named in the log.

        Raises
        ------
        StageError, MissingFramesError, ExtraFramesError
            What a file plugin's `unstage` raises, after all devices have been unstaged.
        """
        # A trigger that waits for its turn must not start the camera when that is stopped below.
        for watch in self._watches:
            watch.cancel()
        self._watches.clear()
        self._waiting = []
        report = PutBackReport(_SETTING_TIMEOUT)
        devices = list(devices_below(self))
        plugins = [device for device in devices if isinstance(device, FileStorePluginBase)]
        for device in devices:
            if device not in plugins:
                report.attach(device)
        try:
            with errors_gathered(plugins) as errors:
                unstaged = super().unstage()
        finally:
            self._acquisition_signal.clear_sub(self._note_acquire)
            self._acquisition_signal.clear_sub(self._note_connection, event_type=self._acquisition_signal.SUB_META)
            report.log(self.name)
        raise_together(errors)
        return unstaged

    def trigger(self) -> Any:
        """Take the frames of one point.

        Returns
        -------
        ADTriggerStatus
            It is finished when the camera is; it fails with an `IOCUnreachableError` if the IOC is gone, and with a
            `MissingFramesError` if no frame comes for `trigger_timeout` seconds.

        Raises
        ------
        StageError
            If the detector is not staged.
        """
        if self._staged != Staged.yes:
            raise StageError(f"{self.name} is not staged; call stage() before trigger().")
        is_free = not self._waiting and self._is_free()
        status = self._status_type(self)
        watch = AcquisitionWatch(self, self._acquisition_signal, status, self.trigger_timeout)
        self._watches = [*(other for other in self._watches if not other.is_over), watch]
        if is_free:
            self._status = status
        else:
            self._waiting.append(status)
            status.add_callback(lambda *args, **kwargs: self._forget_waiting(status))
        self.generate_datum(self._image_name, time.time(), {})
        if is_free:
            self._acquire()
            watch.start()
        else:
            watch.start(self._begin_waiting, lambda: self._waiting[:1] == [status] and self._is_free())
        return status

    def _is_free(self) -> bool:
        """Whether the camera is idle, and what the last acquisition brought has been dealt with."""
        if time.monotonic() < self._acquire_put + _LATEST_MONITOR:
            return False
        return self._acquire_seen in _IDLE and self._acquisition_signal.get() in _IDLE

    def _begin_waiting(self) -> None:
        """Start the acquisition of the first trigger that came while another one was running."""
        status = self._waiting[0]
        self._acquire_put = time.monotonic()
        self._forget_waiting(status)
        self._status = status
        self._acquire()

    def _acquire(self) -> None:
        self._acquire_put = time.monotonic()
        self._acquisition_signal.put(1, wait=False)

    def _forget_waiting(self, status: Any) -> None:
        self._waiting = [waiting for waiting in self._waiting if waiting is not status]

    def _note_acquire(self, value: Any = None, **kwargs: Any) -> None:
        self._acquire_seen, self._acquire_put = value, -math.inf

    def _note_connection(self, connected: bool = True, **kwargs: Any) -> None:
        """The connection is gone, and with it the acquisition: an IOC that comes back knows nothing of it."""
        if connected:
            return
        for device in devices_below(self):
            # What did not answer now may be served all the same.
            device.__dict__.pop("_components_not_served", None)
        self._acquire_seen = 0
        for status in (self._status, *self._waiting):
            if status is not None:
                fail(status, lost_connection(self, self._acquisition_signal))
        self._status, self._waiting = None, []


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
        try:
            return tuple(signal.get() for name in _MOVING if (signal := self._of_camera(name)) is not None)
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


def lost_connection(detector: Any, signal: Any) -> IOCUnreachableError:
    """The error of an acquisition whose IOC is gone."""
    return IOCUnreachableError(
        f"{detector.name} was acquiring when {pv_name(signal)} stopped to answer: its IOC died, was restarted, or "
        f"can't be reached. The frames of this point are lost. Start the IOC, look at its files, and stage again."
    )
