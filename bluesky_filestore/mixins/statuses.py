"""What a plan waits for: statuses that fail at once, and without a word of what has nothing to do with it."""

from typing import Any

from ophyd.areadetector import trigger_mixins as stock
from ophyd.status import DeviceStatus
from ophyd.utils.errors import InvalidState

__all__ = ["ADTriggerStatus", "FlightStatus", "fail"]


class _FailsAtOnce(DeviceStatus):
    """Stops its device when it fails, and connects to nothing before that.

    ophyd's writes the device's ``repr`` for its log first, which makes a signal of each record that was not asked for
    yet: in whatever thread the failure is noticed, one after the other. Of an IOC that is gone the first of them takes
    a second, prints a traceback that is about that record, and the device is not stopped.
    """

    def _handle_failure(self) -> None:
        if getattr(self, "_call_stop_on_failure", True):
            self.device.stop()


class ADTriggerStatus(_FailsAtOnce, stock.ADTriggerStatus):
    """ophyd's status of a trigger; if it fails the plan is told at once."""


class FlightStatus(_FailsAtOnce):
    """The status of what a flyer does; if it fails the plan is told at once."""


def fail(status: Any, error: Exception) -> None:
    """End a status with an error, unless it has ended already."""
    try:
        if not status.done:
            status.set_exception(error)
    except InvalidState:
        # Somebody else was faster.
        return
