"""A trigger that gives a status however fast the camera is."""

import time
from typing import Any

from ophyd.areadetector import trigger_mixins as stock
from ophyd.device import Staged

from bluesky_filestore.errors import StageError

__all__ = ["SingleTrigger"]


class SingleTrigger(stock.SingleTrigger):
    """ophyd's mixin of the same name, for cameras that may be done at once.

    That one starts the camera, then has the datums made, and returns a status that it forgets as soon as the camera is
    done. If that comes first it returns None, and the plan ends: 'NoneType' object has no attribute 'add_callback'. It
    happens now and then, the more often the shorter the exposure and the busier the machine.
    """

    def trigger(self) -> Any:
        """Take the frames of one point.

        Returns
        -------
        ophyd.areadetector.trigger_mixins.ADTriggerStatus
            It is finished when the camera is.

        Raises
        ------
        StageError
            If the detector is not staged.
        """
        if self._staged != Staged.yes:
            raise StageError(f"{self.name} is not staged; call stage() before trigger().")
        self._status = status = self._status_type(self)
        self.generate_datum(self._image_name, time.time(), {})
        self._acquisition_signal.put(1, wait=False)
        return status
