"""The whole IOC without the network: records in, records out, frames through the plugins, files on disk."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from .camera import Camera
from .disk import Disk
from .file_formats import Hdf5Plugin, JpegPlugin, TiffPlugin
from .frame import Frame
from .plugin import ImagePlugin, Plugin, Wiring
from .port import Port
from .processing import CodecPlugin, ProcessPlugin, RoiPlugin, TransformPlugin
from .records import Records, Value, load_records

__all__ = ["Simulator"]

_CAMERA = "cam1:"

_PLUGINS: dict[str, type[Plugin]] = {
    "Codec1:": CodecPlugin,
    "HDF1:": Hdf5Plugin,
    "JPEG1:": JpegPlugin,
    "Proc1:": ProcessPlugin,
    "Proc1:TIFF:": TiffPlugin,
    "ROI1:": RoiPlugin,
    "TIFF1:": TiffPlugin,
    "Trans1:": TransformPlugin,
    "image1:": ImagePlugin,
}
"""The plugins that do their work. Any other port of the record list sees frames and does nothing with them."""

_BUSY = {"Acquire": ("Acquire", "AcquireBusy"), "AcquireBusy": ("AcquireBusy",)} | {
    name: (name,) for name in ("Capture", "ReadFile", "WriteFile")
}
"""Busy records, and what must be 0 before a put with put-callback to them is complete."""


class Simulator:
    """A camera with its plugins, run inside an asyncio event loop.

    Parameters
    ----------
    plugin_delay : float
        Seconds that every frame spends in a plugin on top of the work itself: a slow disk.
    disk_space : int, optional
        Bytes that the file plugins may write altogether, after which the disk is full.

    Examples
    --------
    >>> async def take_one() -> int:
    ...     async with Simulator() as simulator:
    ...         simulator.put("cam1:ImageMode", "Single")
    ...         simulator.put("cam1:Acquire", 1)
    ...         await simulator.until_done("cam1:Acquire")
    ...         return simulator.records["cam1:ArrayCounter_RBV"]
    >>> asyncio.run(take_one())
    1
    """

    def __init__(self, *, plugin_delay: float = 0.0, disk_space: int | None = None) -> None:
        specs = load_records()
        self.records = Records(specs)
        self.camera = Camera(self.records, _CAMERA, self._emit)
        wiring = Wiring(self._emit, self.camera.count_queued, plugin_delay, Disk(disk_space))
        prefixes = sorted({name.rpartition(":")[0] + ":" for name in specs} - {_CAMERA})
        self.plugins = [
            _PLUGINS.get(prefix, Plugin)(self.records, prefix, wiring)
            for prefix in prefixes
            if f"{prefix}EnableCallbacks" in specs
        ]
        self._ports: dict[str, Port] = {prefix: Port(self.records, prefix) for prefix in prefixes}
        self._ports |= {port.prefix: port for port in (self.camera, *self.plugins)}
        self._tasks = asyncio.TaskGroup()
        self._runners: list[asyncio.Task[None]] = []
        self._waiting: list[asyncio.Future[None]] = []
        self.listener: Callable[[str, Value], None] = lambda name, value: None
        self.records.listener = self._publish

    async def __aenter__(self) -> Self:
        """Start the plugins' tasks."""
        await self._tasks.__aenter__()
        self.camera.start_task = self._tasks.create_task
        self._runners = [self._tasks.create_task(plugin.run()) for plugin in self.plugins]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the camera, end captures so that files are whole, and stop the plugins."""
        self.put("cam1:Acquire", 0)
        for plugin in self.plugins:
            if f"{plugin.prefix}Capture" in self.records:
                self.put(f"{plugin.prefix}Capture", 0)
        for task in self._runners:
            task.cancel()
        await self._tasks.__aexit__(kind, error, trace)

    def put(self, name: str, value: Any) -> None:
        """A client puts a value to a record.

        Parameters
        ----------
        name : str
            The record without the IOC's prefix.
        value : object
            What the client sends; an enum takes its word or its index.

        Raises
        ------
        ValueError
            If the record can't hold the value.
        """
        coerced = self.records.record(name).coerce(value)
        prefix, _, base = name.rpartition(":")
        port = self._ports[prefix + ":"]
        if base.endswith("_RBV"):
            self.records.post(name, coerced)
        else:
            port.write(base, coerced)

    def joins_running(self, name: str, value: Value) -> bool:
        """Whether a put does nothing but wait for what is running: ``Acquire=1`` while the camera acquires."""
        return name == f"{_CAMERA}Acquire" and bool(value) and self.is_busy(name)

    def is_busy(self, name: str) -> bool:
        """Whether a put with put-callback to this record is still under way."""
        prefix, _, base = name.rpartition(":")
        waited = (f"{prefix}:{other}" for other in _BUSY.get(base, ()))
        return any(self.records[record] for record in waited if record in self.records)

    async def until_done(self, name: str) -> None:
        """Wait until a put to this record is complete."""
        while self.is_busy(name):
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future

    def _publish(self, name: str, value: Value) -> None:
        """Pass an update on, and wake whoever waits for a busy record."""
        self.listener(name, value)
        if name.rpartition(":")[2] in _BUSY:
            waiting, self._waiting = self._waiting, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    async def _emit(self, port_name: str, frame: Frame) -> None:
        for plugin in self.plugins:
            if plugin.listens_to(port_name):
                await plugin.receive(frame)
