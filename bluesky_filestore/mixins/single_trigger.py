"""A trigger that gives a status however fast the camera is, and whatever becomes of the IOC."""

import time
from typing import Any

from ophyd.areadetector import trigger_mixins as stock
from ophyd.device import Staged

from bluesky_filestore.errors import IOCUnreachableError, StageError

from .acquisition import AcquisitionWatch, fail, lost_connection
from .plugin import FileStorePluginBase
from .putting_back import PutBackReport, devices_below, raise_together
from .waiting import is_connected, pv_name, wait_until_connected

__all__ = ["SingleTrigger"]

_IDLE = (0, "0", "Done")
_SETTING_TIMEOUT = 10.0
"""Seconds that each setting of the camera may take to be put back."""


class SingleTrigger(stock.SingleTrigger):
    """ophyd's mixin of the same name, for cameras that may be done at once, and IOCs that may be gone.

    That one starts the camera, then has the datums made, and returns a status that it forgets as soon as the camera is
    done. If that comes first it returns None, and the plan ends: 'NoneType' object has no attribute 'add_callback'. It
    happens now and then, the more often the shorter the exposure and the busier the machine.

    While an acquisition is running, which ``Acquire=1`` would not change, a trigger waits until that is over and then
    takes frames of its own: after a pause in an exposure and a resume the point has its own.

    The attributes that have to do with the state: `_status` is the status of the acquisition that is running;
    `_acquire_seen` is the last value of ``Acquire`` that the monitor has brought, after `_status` has been dealt with.

    Parameters
    ----------
    trigger_timeout : float or None, optional
        Seconds without a further frame, beyond exposure time and period, after which a trigger's status ends with an
        error; None to wait for ever, as for rare external triggers.
    """

    def __init__(self, *args: Any, trigger_timeout: float | None = 60.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.trigger_timeout = trigger_timeout
        self._acquire_seen: Any = 0
        self._waiting_status: Any = None
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
        self._status = self._waiting_status = None
        try:
            staged = super().stage()
        except Exception as error:
            if is_connected(signal):
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
        report = PutBackReport(_SETTING_TIMEOUT)
        errors: list[Exception] = []
        devices = list(devices_below(self))
        plugins = [device for device in devices if isinstance(device, FileStorePluginBase)]
        for device in devices:
            if device not in plugins:
                report.attach(device)
        for plugin in plugins:
            plugin._errors_at_unstage = errors
        try:
            unstaged = super().unstage()
        finally:
            for plugin in plugins:
                plugin._errors_at_unstage = None
            self._acquisition_signal.clear_sub(self._note_acquire)
            self._acquisition_signal.clear_sub(self._note_connection, event_type=self._acquisition_signal.SUB_META)
            report.log(self.name)
        raise_together(errors)
        return unstaged

    def trigger(self) -> Any:
        """Take the frames of one point.

        Returns
        -------
        ophyd.areadetector.trigger_mixins.ADTriggerStatus
            It is finished when the camera is; it fails with an `IOCUnreachableError` if the IOC is gone, and with a
            `MissingFramesError` if no frame comes for `trigger_timeout` seconds.

        Raises
        ------
        StageError
            If the detector is not staged.
        """
        if self._staged != Staged.yes:
            raise StageError(f"{self.name} is not staged; call stage() before trigger().")
        is_free = self._is_free()
        status = self._status_type(self)
        watch = AcquisitionWatch(self, self._acquisition_signal, status, self.trigger_timeout)
        self._watches = [*(other for other in self._watches if not other.is_over), watch]
        if is_free:
            self._status = status
        else:
            self._waiting_status = status
        self.generate_datum(self._image_name, time.time(), {})
        if is_free:
            self._acquisition_signal.put(1, wait=False)
            watch.start()
        else:
            watch.start(self._begin_waiting, self._is_free)
        return status

    def _is_free(self) -> bool:
        """Whether the camera is idle, and what the last acquisition brought has been dealt with."""
        return self._acquire_seen in _IDLE and self._acquisition_signal.get() in _IDLE

    def _begin_waiting(self) -> None:
        """Start the acquisition of a trigger that came while another one was running."""
        self._status, self._waiting_status = self._waiting_status, None
        self._acquisition_signal.put(1, wait=False)

    def _note_acquire(self, value: Any = None, **kwargs: Any) -> None:
        self._acquire_seen = value

    def _note_connection(self, connected: bool = True, **kwargs: Any) -> None:
        """The connection is gone, and with it the acquisition: an IOC that comes back knows nothing of it."""
        if connected:
            return
        for device in devices_below(self):
            # What did not answer now may be served all the same.
            device.__dict__.pop("_components_not_served", None)
        self._acquire_seen = 0
        for status in (self._status, self._waiting_status):
            if status is not None:
                fail(status, lost_connection(self, self._acquisition_signal))
        self._status = self._waiting_status = None
