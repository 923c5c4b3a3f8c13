"""What every plugin does: take frames from a port it names, one at a time, in its own task or the camera's."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np

from .disk import Disk
from .frame import Frame
from .port import Port
from .records import Records

__all__ = ["ImagePlugin", "Plugin", "Wiring"]

_AXES = 10
"""Dimensions that the records of a plugin have room for."""


@dataclass(frozen=True, slots=True)
class Wiring:
    """What a plugin needs to know of the rest of the IOC."""

    emit: Callable[[str, Frame], Awaitable[None]]
    """``await emit(port name, frame)`` hands a frame on to the plugins that listen to that port."""

    count_queued: Callable[[int], None]
    """Tells the camera that a frame went into a queue (+1) or has been dealt with (-1)."""

    delay: float = 0.0
    """Seconds that each frame takes on top of the work itself: a slow disk."""

    disk: Disk = field(default_factory=Disk)
    """Where file plugins write."""


class Plugin(Port):
    """A plugin that looks at frames: sizes, type and counter, as NDPluginDriver keeps them.

    Parameters
    ----------
    records : Records
        All records of the IOC.
    prefix : str
        What the plugin's records begin with: ``HDF1:``.
    wiring : Wiring
        The rest of the IOC.
    """

    counts_all = True
    """Whether ``ArrayCounter`` counts each frame; a file plugin counts those it keeps."""

    def __init__(self, records: Records, prefix: str, wiring: Wiring) -> None:
        super().__init__(records, prefix)
        self._wiring = wiring
        self._queue: deque[Frame] = deque()
        self._arrived = asyncio.Event()
        self._taken = -float("inf")
        self.last: Frame | None = None
        """The latest frame seen; None for a plugin that has not been primed."""

    def listens_to(self, port_name: str) -> bool:
        """Whether the plugin is enabled and takes its frames from this port."""
        p = self.parameters
        return bool(p.integer("EnableCallbacks")) and p.text("NDArrayPort") == port_name

    async def receive(self, frame: Frame) -> None:
        """Take a frame: work on it at once if callbacks block, else queue it for the plugin's own task.

        One that comes sooner than ``MinCallbackTime`` after the one before is passed over, and counted nowhere.
        """
        p = self.parameters
        now = time.monotonic()
        if now - self._taken < p.number("MinCallbackTime"):
            return
        self._taken = now
        if p.integer("BlockingCallbacks"):
            await self._process(frame)
            await asyncio.sleep(self._wiring.delay)
        elif len(self._queue) >= p.integer("QueueSize"):
            p.set("DroppedArrays", p.integer("DroppedArrays") + 1)
            p.flush()
        else:
            self._queue.append(frame)
            self._wiring.count_queued(+1)
            self._arrived.set()

    async def run(self) -> None:
        """Work on the queued frames, for ever."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._queue:
                await asyncio.sleep(self._wiring.delay)
                await self._process(self._queue[0])
                self._queue.popleft()
                self._wiring.count_queued(-1)

    async def _process(self, frame: Frame) -> None:
        """Note what the frame is like, do the plugin's work, and hand on what comes out of it."""
        frame = self.with_attributes(frame)
        self.last = frame
        self._describe(frame)
        if self.counts_all:
            p = self.parameters
            p.set("ArrayCounter", p.integer("ArrayCounter") + 1)
        result = self.work(frame)
        self.parameters.flush()
        if result is not None and self.parameters.integer("ArrayCallbacks"):
            await self._wiring.emit(self.port_name, result)

    def _describe(self, frame: Frame) -> None:
        p = self.parameters
        sizes = frame.dimensions
        for axis in range(_AXES):
            p.set(f"ArraySize{axis}", sizes[axis] if axis < len(sizes) else 0)
        for name, size in zip(("ArraySizeX", "ArraySizeY", "ArraySizeZ"), frame.size_xyz, strict=True):
            p.set(name, size)
        p.set("ArraySize", frame.array.nbytes)
        p.set("NDimensions", len(sizes))
        p.set("DataType", frame.data_type)
        p.set("ColorMode", frame.color_mode)
        p.set("Codec", frame.codec)
        p.set("CompressedSize", frame.array.nbytes)
        p.set("UniqueId", frame.number)
        p.set("TimeStamp", frame.epics_time)
        p.set("EpicsTSSec", frame.epics_seconds)
        p.set("EpicsTSNsec", frame.epics_nanoseconds)
        p.flush()

    def work(self, frame: Frame) -> Frame | None:
        """The plugin's own work; returns what goes on to the plugins that listen to it, if anything."""
        return None


class ImagePlugin(Plugin):
    """Shows each frame as the waveform ``ArrayData``, as NDPluginStdArrays does."""

    def work(self, frame: Frame) -> None:
        """Put the frame's elements, the fastest axis first, into ``ArrayData``.

        The waveform holds 32-bit integers; of a frame that has more elements than the waveform, the
        rest is cut off.
        """
        name = f"{self.prefix}ArrayData"
        count = self.records.record(name).count
        self.records.post(name, frame.array.reshape(-1)[:count].astype(np.int32))
