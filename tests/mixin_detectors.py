"""Detectors as a beamline would write them, with stock ophyd's file stores and with ours, and how tests use them."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ClassVar

import event_model
import h5py
import numpy as np
import pytest
from bluesky import RunEngine
from ophyd import Component, Device, Signal
from ophyd.areadetector import filestore_mixins as stock
from ophyd.areadetector.detectors import SimDetector
from ophyd.areadetector.plugins import (
    HDF5Plugin,
    HDF5Plugin_V34,
    ProcessPlugin_V34,
    ROIPlugin_V34,
    TIFFPlugin_V34,
)
from ophyd.areadetector.trigger_mixins import SingleTrigger

import bluesky_filestore
from bluesky_filestore.model.paths import join_resource
from bluesky_filestore.sim import SimulatedIOC, client_environment
from bluesky_filestore.sim.ioc import free_port

ACQUIRE_TIME = 0.1
"""Seconds: so long that a trigger has returned before the camera is done."""


class StockHDF5(HDF5Plugin_V34, stock.FileStoreHDF5IterativeWrite):
    """The HDF5 plugin in the class order everybody uses, with ophyd's own file store."""


class OurHDF5(HDF5Plugin_V34, bluesky_filestore.FileStoreHDF5IterativeWrite):
    """The same with ours: one import line changed."""


class StockTIFF(TIFFPlugin_V34, stock.FileStoreTIFFIterativeWrite):
    """The TIFF plugin with ophyd's own file store."""


class OurTIFF(TIFFPlugin_V34, bluesky_filestore.FileStoreTIFFIterativeWrite):
    """The same with ours."""


class OurHDF5Single(HDF5Plugin_V34, bluesky_filestore.FileStoreHDF5SingleIterativeWrite):
    """The HDF5 plugin, one file a frame."""


class UnversionedStockHDF5(HDF5Plugin, stock.FileStoreHDF5IterativeWrite):
    """The un-versioned plugin, which lacks records."""


class UnversionedOurHDF5(HDF5Plugin, bluesky_filestore.FileStoreHDF5IterativeWrite):
    """The same with ours."""


class StockCamera(SingleTrigger, SimDetector):
    """A camera with ophyd's own trigger."""


class Camera(bluesky_filestore.SingleTrigger, SimDetector):
    """A camera, triggered as most are."""


class Chain(Camera):
    """The same with what may stand between it and a file plugin."""

    roi1 = Component(ROIPlugin_V34, "ROI1:")
    proc1 = Component(ProcessPlugin_V34, "Proc1:")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Not switched on by staging, so that other tests find them as they were.
        self.roi1.stage_sigs.clear()
        self.proc1.stage_sigs.clear()


class Bare(Device, bluesky_filestore.FileStoreHDF5IterativeWrite):
    """A plugin with no more than what a file store can't do without, all of it soft."""

    file_path = Component(Signal, value="")
    file_name = Component(Signal, value="")
    file_number = Component(Signal, value=0)
    file_template = Component(Signal, value="")
    file_write_mode = Component(Signal, value="Stream")
    auto_increment = Component(Signal, value="No")
    auto_save = Component(Signal, value="No")
    array_counter = Component(Signal, value=5)
    num_capture = Component(Signal, value=3)
    capture = Component(Signal, value=0)


class BareCam(Device):
    """A camera that knows how many images it takes."""

    num_images = Component(Signal, value=4)


class BareDetector(Device):
    """A test double of a detector."""

    cam = Component(BareCam, "")
    file = Component(Bare, "", write_path_template="/data/%Y", root="/data")
    _image_name = "double_image"

    def make_data_key(self):
        return {"source": "", "dtype": "array", "shape": [4, 2, 2], "external": "FILESTORE:"}


def make(ioc: SimulatedIOC, base: type = Camera, **plugins: Any) -> Any:
    """A connected detector with these file plugins, each a class or a tuple of class and options.

    It writes to a directory of its own below the IOC's.
    """
    components = {}
    for attribute, given in plugins.items():
        plugin_class, options = given if isinstance(given, tuple) else (given, {})
        options = {"write_path_template": f"{ioc.directory}/%Y/%m/%d", "root": str(ioc.directory), **options}
        suffix = "TIFF1:" if issubclass(plugin_class, TIFFPlugin_V34) else "HDF1:"
        components[attribute] = Component(plugin_class, suffix, **options)
    detector = type("Detector", (base,), components)(ioc.prefix, name="det")
    detector.wait_for_connection(timeout=20)
    detector.read_attrs = list(plugins)
    detector.cam.stage_sigs.update(num_images=1, acquire_time=ACQUIRE_TIME, acquire_period=ACQUIRE_TIME)
    return detector


class Detectors:
    """Makes detectors for small frames, and keeps those without options: connecting is what takes the time."""

    _kept: ClassVar[dict[Any, tuple[Any, dict[Any, Any]]]] = {}

    def __init__(self, ioc: SimulatedIOC) -> None:
        self._ioc = ioc
        self._made: list[Any] = []

    def __call__(self, size: tuple[int, int] = (48, 32), base: type = Camera, **plugins: Any) -> Any:
        """A detector as `make` makes it, whose camera will send frames of this size, (x, y)."""
        if all(isinstance(given, type) for given in plugins.values()):
            detector = self._keep(base, plugins)
        else:
            detector = make(self._ioc, base, **plugins)
            self._made.append(detector)
        set_size(detector, *size)
        return detector

    def _keep(self, base: type, plugins: dict[str, Any]) -> Any:
        key = (self._ioc.port, base, *plugins.items())
        if key not in self._kept:
            detector = make(self._ioc, base, **plugins)
            devices = [getattr(detector, name) for name in ("cam", *plugins)]
            self._kept[key] = detector, {device: device.stage_sigs.copy() for device in devices}
        detector, stage_sigs = self._kept[key]
        for device, sigs in stage_sigs.items():
            device.stage_sigs = sigs.copy()
        return detector

    def close(self) -> None:
        """Disconnect those that are not kept."""
        for detector in self._made:
            detector.destroy()


def set_size(detector: Any, x: int, y: int, data_type: str = "UInt8") -> None:
    """Set what the camera's next frames will be like."""
    for signal, value in ((detector.cam.size.size_x, x), (detector.cam.size.size_y, y)):
        signal.set(value).wait(20)
    detector.cam.data_type.set(data_type).wait(20)
    detector.cam.color_mode.set("Mono").wait(20)
    for axis in ("x", "y"):
        getattr(detector.cam, f"bin_{axis}").set(1).wait(20)


def point(detector: Any) -> dict[str, Any]:
    """Trigger, wait, read."""
    detector.trigger().wait(20)
    return {key: reading["value"] for key, reading in detector.read().items()}


@contextmanager
def staged(detector: Any) -> Iterator[Any]:
    """A detector staged for the length of a with-block."""
    detector.stage()
    try:
        yield detector
    finally:
        detector.unstage()


def runs_of(plan: Any) -> list[list[tuple[str, dict[str, Any]]]]:
    """The documents of each run of a plan, valid every one."""
    runs: list[list[tuple[str, dict[str, Any]]]] = []

    def keep(name: str, doc: dict[str, Any]) -> None:
        if name == "start":
            runs.append([])
        event_model.schema_validators[event_model.DocumentNames[name]].validate(dict(doc))
        runs[-1].append((name, doc))

    engine = RunEngine()
    try:
        engine(plan, keep)
    finally:
        engine.loop.call_soon_threadsafe(engine.loop.stop)
        engine._th.join()
        engine.loop.close()
    return runs


def of(run: list[tuple[str, dict[str, Any]]], name: str) -> list[dict[str, Any]]:
    """The documents of one kind."""
    return [doc for kind, doc in run if kind == name]


def documented_file(documents: list[tuple[str, dict[str, Any]]]) -> Path:
    """The file, or directory, of the only Resource."""
    (resource,) = (doc for name, doc in documents if name == "resource")
    return Path(join_resource(resource["root"], resource["resource_path"]))


def frames_in(path: Path) -> np.ndarray:
    """All frames of an HDF5 file of areaDetector's."""
    with h5py.File(path) as file:
        return np.asarray(file["/entry/data/data"])


def outcome(function: Callable[[], Any], seconds: float) -> str:
    """What comes of a call: 'done', 'hangs', or the error's class and text."""
    results = ["hangs"]

    def run() -> None:
        try:
            function()
        except Exception as error:  # noqa: BLE001 - the error is what is asked for
            results[0] = f"{type(error).__name__}: {error}"
        else:
            results[0] = "done"

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return results[0]


def in_fresh_ioc(scenario: Callable[[SimulatedIOC], Any], directory: Path, **options: Any) -> Any:
    """Run a function of a test module in another process, with an IOC that has just been started.

    That is for plugins that must not have seen a frame, and for calls that hang.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    port = free_port()
    process = context.Process(target=_child, args=(scenario, directory, {**options, "port": port}, theirs))
    with pytest.MonkeyPatch.context() as patch:
        # The client library reads these when ophyd is imported, which is before the IOC can set them.
        for name, value in client_environment(port).items():
            patch.setenv(name, value)
        process.start()
    theirs.close()
    try:
        if not ours.poll(90):
            raise TimeoutError(f"{scenario.__name__} did not end")
        result = ours.recv()
    finally:
        process.kill()
        process.join()
    if isinstance(result, Exception):
        raise result
    return result


def _child(scenario: Callable[[SimulatedIOC], Any], directory: Path, options: Any, pipe: Connection) -> None:
    with SimulatedIOC(directory, **options) as ioc:
        try:
            result = scenario(ioc)
        except Exception as error:  # noqa: BLE001 - it is raised again in the test
            result = RuntimeError(f"{type(error).__name__}: {error}")
        pipe.send(result)
        # Threads that hang would keep the process alive; the IOC ends with us.
        os._exit(0)
