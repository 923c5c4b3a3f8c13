"""The simulated camera: ADSimDetector's records and states, with frames from `pattern`.

`_task` takes frames, and is None while ``Acquire`` is 0; `_queued` frames are in the queues of plugins, and keep
``AcquireBusy`` at 1 if ``WaitForPlugins`` is on. All of it happens in the event loop of the IOC.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from . import pattern, scene
from .frame import COLOR_MODES, DATA_TYPES, Frame
from .port import Port
from .records import Records

__all__ = ["Camera"]

_SINGLE, _MULTIPLE, _CONTINUOUS = range(3)
"""ImageMode."""

_PEAKS = 1
"""Of SimMode; what a beamline sees, with ``Offset`` for the place of the sample. All others give `pattern`."""

_IDLE, _ACQUIRE, _READOUT, _WAITING, _ABORTED = 0, 1, 2, 7, 10
"""DetectorState."""

_CAMERA_COLORS = ("Mono", "RGB1", "RGB2", "RGB3")
"""ColorMode of the camera, which has no Bayer."""


class Camera(Port):
    """A camera that takes frames while ``Acquire`` is 1.

    Parameters
    ----------
    records : Records
        All records of the IOC.
    prefix : str
        What the camera's records begin with: ``cam1:``.
    emit : callable
        ``await emit(port name, frame)`` hands a frame to the plugins.
    """

    def __init__(self, records: Records, prefix: str, emit: Callable[[str, Frame], Awaitable[None]]) -> None:
        super().__init__(records, prefix)
        self._emit = emit
        self._task: asyncio.Task[None] | None = None
        self._queued = 0
        self.start_task: Callable[..., asyncio.Task[None]] = asyncio.create_task
        self.writers["Acquire"] = self._write_acquire

    def count_queued(self, change: int) -> None:
        """A plugin has put a frame into its queue (+1) or is done with one (-1)."""
        self._queued += change
        self.parameters.set("NumQueuedArrays", self._queued)
        if self._queued == 0:
            self._release_busy()
        self.parameters.flush()

    def _write_acquire(self) -> None:
        p = self.parameters
        running = self._task is not None
        if p.integer("Acquire") and not running:
            p.set("StatusMessage", "Acquiring data")
            p.set("AcquireBusy", 1)
            self._task = self.start_task(self._acquire())
        elif not p.integer("Acquire") and self._task is not None:
            self._task.cancel()
            self._task = None
            p.set("StatusMessage", "Acquisition stopped")
            p.set("DetectorState", _IDLE if p.integer("ImageMode") == _CONTINUOUS else _ABORTED)
            self._release_busy()

    def _release_busy(self) -> None:
        """End ``AcquireBusy`` with the acquisition or, if it waits for the plugins, with the last frame."""
        p = self.parameters
        waits = p.integer("WaitForPlugins") and self._queued
        if not p.integer("Acquire") and not waits:
            p.set("AcquireBusy", 0)

    async def _acquire(self) -> None:
        """Take frames until there are enough; a stop cancels this task."""
        p = self.parameters
        p.set("NumImagesCounter", 0)
        due = time.monotonic()
        while True:
            p.set("DetectorState", _ACQUIRE)
            p.flush()
            await asyncio.sleep(p.number("AcquireTime"))
            frame = self._read_out()
            if p.integer("ArrayCallbacks"):
                await self._emit(self.port_name, frame)
            if self._has_enough():
                break
            due += p.number("AcquirePeriod")
            rest = due - time.monotonic()
            if rest >= 0:
                p.set("DetectorState", _WAITING)
                p.flush()
            else:
                due -= rest
            await asyncio.sleep(max(rest, 0))
        self._task = None
        p.set("StatusMessage", "Waiting for acquisition")
        p.set("DetectorState", _IDLE)
        p.set("Acquire", 0)
        self._release_busy()
        p.flush()

    def _has_enough(self) -> bool:
        p = self.parameters
        mode = p.integer("ImageMode")
        if mode == _MULTIPLE:
            return p.integer("NumImagesCounter") >= p.integer("NumImages")
        return mode == _SINGLE

    def _read_out(self) -> Frame:
        """Take the next frame; only now does the camera's idea of its size change."""
        p = self.parameters
        frame = self._picture(p.integer("ArrayCounter") + 1)
        x, y, colors = frame.size_xyz
        for name, value in (("ArraySizeX", x), ("ArraySizeY", y), ("ArraySizeZ", colors)):
            p.set(name, value)
        p.set("ArraySize", frame.array.nbytes)
        p.set("DetectorState", _READOUT)
        p.set("ArrayCounter", frame.number)
        p.set("NumImagesCounter", p.integer("NumImagesCounter") + 1)
        p.set("UniqueId", frame.number)
        p.set("TimeStamp", frame.epics_time)
        p.flush()
        return self.with_attributes(frame)

    def _picture(self, number: int) -> Frame:
        p = self.parameters
        x, y = self._readout_size("X"), self._readout_size("Y")
        mode = _CAMERA_COLORS[p.integer("ColorMode")]
        shape = {"Mono": (y, x), "RGB1": (y, x, 3), "RGB2": (y, 3, x), "RGB3": (3, y, x)}[mode]
        dtype = DATA_TYPES[p.integer("DataType")]
        if p.integer("SimMode") == _PEAKS:
            array = scene.frame(number, shape, dtype, p.number("Offset"))
        else:
            array = pattern.frame(number, shape, dtype)
        return Frame(array, number, time.time(), COLOR_MODES.index(mode))

    def _readout_size(self, axis: str) -> int:
        """Pixels along an axis; settings that do not fit the sensor are put right, as the driver does."""
        p = self.parameters
        sensor = p.integer(f"MaxSize{axis}")
        binning = min(max(p.integer(f"Bin{axis}"), 1), sensor)
        start = min(max(p.integer(f"Min{axis}"), 0), sensor - 1)
        size = min(max(p.integer(f"Size{axis}"), binning), sensor - start)
        for name, value in ((f"Bin{axis}", binning), (f"Min{axis}", start), (f"Size{axis}", size)):
            p.set(name, value)
        return max(size // binning, 1)
