"""The simulated IOC without the network: states, counters, plugins, files."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from bluesky_filestore.sim import pattern
from bluesky_filestore.sim.frame import DATA_TYPES
from bluesky_filestore.sim.simulator import Simulator

Script = Callable[[Simulator], Awaitable[None]]


def play(script: Script, *, plugin_delay: float = 0.0) -> Simulator:
    """Run a script on a simulator with a small, quick camera; returns it as it was left."""

    async def main() -> Simulator:
        async with Simulator(plugin_delay=plugin_delay) as simulator:
            put(simulator, "cam1:", SizeX=16, SizeY=12, AcquireTime=0.0, AcquirePeriod=0.0, ImageMode="Multiple")
            await script(simulator)
        return simulator

    return asyncio.run(asyncio.wait_for(main(), timeout=20))


def put(simulator: Simulator, prefix: str, **values: object) -> None:
    """Put several records of one port, in order."""
    for name, value in values.items():
        simulator.put(prefix + name, value)


async def acquire(simulator: Simulator, count: int) -> None:
    """Take frames, and wait for the plugins as well."""
    put(simulator, "cam1:", WaitForPlugins=1, NumImages=count, Acquire=1)
    await simulator.until_done("cam1:Acquire")


def prepare(simulator: Simulator, plugin: str, directory: Path, extension: str, **values: object) -> None:
    """Set a file plugin up, all but Capture."""
    put(simulator, plugin, EnableCallbacks=1, FilePath=str(directory), FileName="f", AutoIncrement=1, NumCapture=0)
    put(simulator, plugin, FileTemplate=f"%s%s_%6.6d.{extension}", **values)


def read(path: Path) -> np.ndarray:
    """The frames of an HDF5 file."""
    with h5py.File(path) as file:
        return file["entry/data/data"][:]


@pytest.mark.parametrize("color", ["Mono", "RGB1"])
@pytest.mark.parametrize("dtype", range(len(DATA_TYPES)))
def test_every_type(tmp_path: Path, dtype: int, color: str) -> None:
    """Frames of each type and colour arrive in the file as the pattern says, and the records tell the type."""

    async def script(simulator: Simulator) -> None:
        put(simulator, "cam1:", DataType=dtype, ColorMode=color)
        prepare(simulator, "HDF1:", tmp_path, "h5", FileWriteMode="Stream", LazyOpen=1, Capture=1)
        await acquire(simulator, 3)
        put(simulator, "HDF1:", Capture=0)

    records = play(script).records
    shape = (12, 16) if color == "Mono" else (12, 16, 3)
    expected = [pattern.frame(number, shape, DATA_TYPES[dtype]) for number in (1, 2, 3)]
    np.testing.assert_array_equal(read(tmp_path / "f_000000.h5"), expected)
    assert records["HDF1:DataType_RBV"] == dtype
    sizes = [records[f"HDF1:ArraySize{axis}_RBV"] for axis in range(4)]
    assert sizes == ([16, 12, 0, 0] if color == "Mono" else [3, 16, 12, 0])
    assert [records[f"cam1:ArraySize{axis}_RBV"] for axis in "XYZ"] == [16, 12, 0 if color == "Mono" else 3]


def test_camera_fits_the_sensor() -> None:
    """Size, start and binning that do not fit are put right when a frame is taken, not before."""

    async def script(simulator: Simulator) -> None:
        put(simulator, "cam1:", MinX=1000, SizeX=100, SizeY=13, BinY=2)
        assert simulator.records["cam1:SizeX_RBV"] == 100
        assert simulator.records["cam1:ArraySizeX_RBV"] == 1024
        await acquire(simulator, 1)

    records = play(script).records
    names = ("SizeX_RBV", "ArraySizeX_RBV", "ArraySizeY_RBV", "ArraySize_RBV")
    assert [records[f"cam1:{name}"] for name in names] == [24, 24, 6, 144]


def test_continuous_until_stopped() -> None:
    """A continuous acquisition ends by Acquire=0 only, and then the camera is idle, not aborted."""

    async def script(simulator: Simulator) -> None:
        put(simulator, "cam1:", ImageMode="Continuous", AcquirePeriod=0.001, Acquire=1)
        while simulator.records["cam1:ArrayCounter_RBV"] < 5:
            await asyncio.sleep(0.001)
        put(simulator, "cam1:", Acquire=0)
        await simulator.until_done("cam1:Acquire")

    records = play(script).records
    assert (records["cam1:DetectorState_RBV"], records["cam1:AcquireBusy"]) == (0, 0)


def test_stop_and_start_at_once() -> None:
    """A stop and a start without a moment between them begin a new acquisition of full length."""

    async def script(simulator: Simulator) -> None:
        put(simulator, "cam1:", AcquirePeriod=0.005, NumImages=50, Acquire=1)
        await asyncio.sleep(0.01)
        put(simulator, "cam1:", NumImages=3, Acquire=0)
        put(simulator, "cam1:", Acquire=1)
        await simulator.until_done("cam1:Acquire")

    assert play(script).records["cam1:NumImagesCounter_RBV"] == 3


def test_acquire_done_before_the_last_frame(tmp_path: Path) -> None:
    """Without WaitForPlugins the acquisition is over before a slow plugin has the last frame; with it, not."""
    captured = []

    async def script(simulator: Simulator) -> None:
        prepare(simulator, "HDF1:", tmp_path, "h5", FileWriteMode="Stream", LazyOpen=1, Capture=1)
        put(simulator, "cam1:", NumImages=3)
        for waits in (0, 1):
            put(simulator, "cam1:", WaitForPlugins=waits, Acquire=1)
            await simulator.until_done("cam1:Acquire")
            captured.append(simulator.records["HDF1:NumCaptured_RBV"])

    records = play(script, plugin_delay=0.02).records
    assert captured[0] < 3
    assert captured[1] == 6
    assert records["cam1:NumQueuedArrays"] == 0


def test_blocking_callbacks(tmp_path: Path) -> None:
    """With blocking callbacks the camera waits for the plugin, whose queue stays empty."""

    async def script(simulator: Simulator) -> None:
        prepare(simulator, "HDF1:", tmp_path, "h5", FileWriteMode="Stream", LazyOpen=1, Capture=1)
        put(simulator, "HDF1:", BlockingCallbacks=1)
        put(simulator, "cam1:", NumImages=3, Acquire=1)
        await simulator.until_done("cam1:Acquire")
        assert simulator.records["HDF1:NumCaptured_RBV"] == 3

    play(script, plugin_delay=0.01)


def test_full_queue_drops_frames() -> None:
    """A plugin that can't keep up loses frames when its queue is full, and counts them."""

    async def script(simulator: Simulator) -> None:
        put(simulator, "HDF1:", EnableCallbacks=1, QueueSize=2)
        await acquire(simulator, 10)

    records = play(script, plugin_delay=0.05).records
    assert 7 <= records["HDF1:DroppedArrays_RBV"] <= 8


def test_tiff_stream(tmp_path: Path) -> None:
    """A TIFF plugin in Stream mode writes one file a frame."""

    async def script(simulator: Simulator) -> None:
        prepare(simulator, "TIFF1:", tmp_path, "tiff", FileWriteMode="Stream")
        await acquire(simulator, 1)
        put(simulator, "TIFF1:", Capture=1)
        await acquire(simulator, 3)
        assert simulator.records["TIFF1:NumCaptured_RBV"] == 3
        put(simulator, "TIFF1:", Capture=0)

    play(script)
    files = sorted(tmp_path.iterdir())
    assert [pattern.number(tifffile.imread(file)) for file in files] == [2, 3, 4]


@pytest.mark.parametrize(("plugin", "extension", "files"), [("HDF1:", "h5", 1), ("JPEG1:", "jpg", 3)])
def test_capture_mode(tmp_path: Path, plugin: str, extension: str, files: int) -> None:
    """Capture mode gathers frames, and writes them when it has enough."""

    async def script(simulator: Simulator) -> None:
        prepare(simulator, plugin, tmp_path, extension, FileWriteMode="Capture", AutoSave=1)
        await acquire(simulator, 1)
        put(simulator, plugin, NumCapture=3, Capture=1)
        await acquire(simulator, 2)
        assert list(tmp_path.iterdir()) == []
        await acquire(simulator, 2)

    records = play(script).records
    assert (records[f"{plugin}NumCaptured_RBV"], records[f"{plugin}Capture_RBV"]) == (3, 0)
    assert len(list(tmp_path.iterdir())) == files
    if plugin == "HDF1:":
        assert [pattern.number(frame) for frame in read(tmp_path / "f_000000.h5")] == [2, 3, 4]


def test_write_file(tmp_path: Path) -> None:
    """WriteFile writes the latest frame by hand."""

    async def script(simulator: Simulator) -> None:
        prepare(simulator, "TIFF1:", tmp_path, "tiff")
        await acquire(simulator, 2)
        put(simulator, "TIFF1:", WriteFile=1)
        await simulator.until_done("TIFF1:WriteFile")

    play(script)
    assert pattern.number(tifffile.imread(tmp_path / "f_000000.tiff")) == 2


def test_single_mode_cannot_capture() -> None:
    """In Single mode Capture falls back to 0 at once."""

    async def script(simulator: Simulator) -> None:
        put(simulator, "TIFF1:", EnableCallbacks=1)
        await acquire(simulator, 1)
        put(simulator, "TIFF1:", Capture=1)
        assert simulator.records["TIFF1:Capture"] == 0

    play(script)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"FileTemplate": "%d.tiff"}, "Error opening file the file, status=3 .*does not take path, name and number.*"),
        ({"FilePath": "/no/such"}, "Error opening file /no/such/f_000000.tiff, status=3"),
    ],
)
def test_write_error(tmp_path: Path, values: dict[str, str], words: str) -> None:
    """What can't be written is told by WriteStatus and WriteMessage."""

    async def script(simulator: Simulator) -> None:
        prepare(simulator, "TIFF1:", tmp_path, "tiff", AutoSave=1)
        put(simulator, "TIFF1:", **values)
        await acquire(simulator, 1)

    records = play(script).records
    assert records["TIFF1:WriteStatus"] == 1
    assert re.fullmatch(words, str(records["TIFF1:WriteMessage"]))


def test_files_are_whole_after_the_ioc_stops(tmp_path: Path) -> None:
    """An IOC that is stopped while it captures closes its files."""

    async def script(simulator: Simulator) -> None:
        prepare(simulator, "HDF1:", tmp_path, "h5", FileWriteMode="Stream", LazyOpen=1, Capture=1)
        await acquire(simulator, 2)

    play(script)
    assert len(read(tmp_path / "f_000000.h5")) == 2


def test_squashing(tmp_path: Path) -> None:
    """The average of N frames, and only that, goes on to a TIFF plugin that listens to the process plugin."""

    async def script(simulator: Simulator) -> None:
        put(simulator, "Proc1:", EnableCallbacks=1, EnableFilter=1, FilterType="Average", NumFilter=4)
        put(simulator, "Proc1:", AutoResetFilter=1, FilterCallbacks="Array N only", DataTypeOut="Float64")
        prepare(simulator, "TIFF1:", tmp_path, "tiff", NDArrayPort="PROC1", AutoSave=1)
        put(simulator, "Proc1:", ResetFilter=1)
        await acquire(simulator, 8)

    play(script)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2
    for file, first in zip(files, (1, 5), strict=True):
        frames = [pattern.frame(number, (12, 16), "uint8") for number in range(first, first + 4)]
        np.testing.assert_allclose(tifffile.imread(file), np.mean(frames, axis=0))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("RecursiveAve", lambda frames: np.mean(frames, axis=0)),
        ("Sum", lambda frames: np.sum(frames, axis=0)),
        ("Difference", lambda frames: frames[2] - frames[1]),
    ],
)
def test_filters(kind: str, expected: Callable[[np.ndarray], np.ndarray]) -> None:
    """The filters do what their names say, after three frames."""

    async def script(simulator: Simulator) -> None:
        put(simulator, "Proc1:", EnableCallbacks=1, EnableFilter=1, FilterType=kind, NumFilter=3, DataTypeOut="Float64")
        put(simulator, "ROI1:", EnableCallbacks=1, NDArrayPort="PROC1")
        await acquire(simulator, 3)

    simulator = play(script)
    roi = next(plugin for plugin in simulator.plugins if plugin.prefix == "ROI1:")
    frames = np.array([pattern.frame(number, (12, 16), "uint8") for number in (1, 2, 3)], dtype=np.float64)
    assert roi.last is not None
    np.testing.assert_allclose(roi.last.array, expected(frames))


def test_region(tmp_path: Path) -> None:
    """A region of interest is cut, binned and mirrored, and goes to the file in its own size."""

    async def script(simulator: Simulator) -> None:
        put(simulator, "ROI1:", EnableCallbacks=1, MinX=2, SizeX=8, BinX=2, MinY=3, SizeY=100, ReverseY=1)
        put(simulator, "ROI1:", DataTypeOut="UInt16")
        prepare(simulator, "HDF1:", tmp_path, "h5", NDArrayPort="ROI1", AutoSave=1)
        await acquire(simulator, 1)

    records = play(script).records
    whole = pattern.frame(1, (12, 16), "uint8").astype(np.uint16)
    np.testing.assert_array_equal(read(tmp_path / "f_000000.h5"), (whole[3:, 2:10:2] + whole[3:, 3:10:2])[::-1])
    assert (records["ROI1:SizeY_RBV"], records["ROI1:MaxSizeX_RBV"]) == (9, 16)
    assert (records["HDF1:ArraySize0_RBV"], records["HDF1:ArraySize1_RBV"]) == (4, 9)


def test_image() -> None:
    """An enabled image plugin shows the latest frame as a waveform."""

    async def script(simulator: Simulator) -> None:
        put(simulator, "image1:", EnableCallbacks=1)
        await acquire(simulator, 2)

    shown = play(script).records["image1:ArrayData"]
    np.testing.assert_array_equal(shown, pattern.frame(2, (12, 16), "uint8").reshape(-1))


def test_bad_put() -> None:
    """A value that a record can't hold is refused, and a record that is not there as well."""
    simulator = Simulator()
    with pytest.raises(ValueError, match="takes one of Single, Multiple, Continuous; it was given 'Never'"):
        simulator.put("cam1:ImageMode", "Never")
    with pytest.raises(KeyError, match="cam1:NoSuch"):
        simulator.put("cam1:NoSuch", 1)
