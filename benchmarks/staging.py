"""What our file stores cost against ophyd's own, operation by operation, and what counting the frames costs.

Run as ``python benchmarks/staging.py``. The first table is on fake devices, so that it is Python's time that is
measured; the last line is on the simulated IOC. Both ratios come from one run.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from bluesky_filestore.sim import SimulatedIOC

STAGES, POINTS = 15, 20
OPERATIONS = ("stage", "trigger", "read", "describe", "collect", "unstage")
ALLOWED_RATIO = 1.5
ALLOWED_COUNTING = 0.001
"""Seconds a point."""


def fake_detector(file_store: type) -> Any:
    """A detector with an HDF5 plugin, without an IOC, set up as if it had seen a frame."""
    from ophyd import Component
    from ophyd.areadetector.detectors import SimDetector
    from ophyd.areadetector.plugins import HDF5Plugin_V34
    from ophyd.areadetector.trigger_mixins import SingleTrigger
    from ophyd.sim import make_fake_device

    plugin = type("Plugin", (HDF5Plugin_V34, file_store), {})
    component = Component(plugin, "HDF1:", write_path_template="/data/%Y/%m/%d", root="/data")
    detector = make_fake_device(type("Detector", (SingleTrigger, SimDetector), {"hdf5": component}))("X:", name="det")
    cam, hdf5 = detector.cam, detector.hdf5
    for signal, value in (
        (cam.size.size_x, 640), (cam.size.size_y, 480), (cam.array_size.array_size_x, 640),
        (cam.array_size.array_size_y, 480), (cam.bin_x, 1), (cam.bin_y, 1), (cam.data_type, "UInt8"),
        (cam.color_mode, "Mono"), (cam.data_type_disabled, 0), (cam.num_images, 1), (cam.port_name, "CAM"),
        (hdf5.nd_array_port, "CAM"), (hdf5.port_name, "HDF1"), (hdf5.plugin_type, "NDFileHDF5"),
        (hdf5.array_size.width, 640), (hdf5.array_size.height, 480), (hdf5.array_size.depth, 0),
        (hdf5.data_type, "UInt8"), (hdf5.color_mode, "Mono"), (hdf5.file_path_exists, 1), (hdf5.write_status, 0),
        (hdf5.write_message, ""), (hdf5.lazy_open, "No"), (hdf5.dropped_arrays, 0), (hdf5.num_captured, 0),
        (hdf5.capture, 0), (hdf5.num_capture, 0), (hdf5.file_write_mode, "Stream"), (hdf5.enable, 1),
        (hdf5.blocking_callbacks, 1),
        (hdf5.full_file_name, ""), (hdf5.file_path, ""), (hdf5.file_name, ""), (hdf5.file_template, ""),
        (hdf5.create_directory, 0), (hdf5.file_number, 0),
    ):  # fmt: skip
        signal.sim_put(value)
    hdf5.enable.sim_set_enum_strs(("Disable", "Enable"))
    hdf5.blocking_callbacks.sim_set_enum_strs(("No", "Yes"))
    detector.read_attrs = ["hdf5"]
    hdf5.capture.sim_set_putter(lambda value, **_: open_file(hdf5, value))
    return detector


def open_file(hdf5: Any, capture: int) -> None:
    """What the IOC does on ``Capture``."""
    if capture:
        number = hdf5.file_number.get()
        values = (hdf5.file_path.get().rstrip("/") + "/", hdf5.file_name.get(), number)
        hdf5.full_file_name.sim_put(hdf5.file_template.get() % values)
        hdf5.file_number.sim_put(number + 1)
        hdf5.num_captured.sim_put(0)
    hdf5.capture.sim_put(capture)


def timed(spent: dict[str, list[float]], name: str, function: Callable[[], Any]) -> Any:
    """Call, and keep how long it took."""
    began = time.perf_counter()
    result = function()
    spent[name].append(time.perf_counter() - began)
    return result


def measure(file_store: type) -> dict[str, float]:
    """Seconds for each operation, the median of all."""
    detector = fake_detector(file_store)
    spent: dict[str, list[float]] = {name: [] for name in OPERATIONS}
    for _ in range(STAGES):
        timed(spent, "stage", detector.stage)
        for point in range(POINTS):
            status = timed(spent, "trigger", detector.trigger)
            detector.hdf5.num_captured.sim_put(point + 1)
            detector.cam.acquire.sim_put(0)
            status.wait(5)
            timed(spent, "read", detector.read)
            if point == 0:
                # As bluesky does: once a stream, after the first reading.
                timed(spent, "describe", detector.describe)
            timed(spent, "collect", lambda: list(detector.collect_asset_docs()))
        timed(spent, "unstage", detector.unstage)
    return {name: statistics.median(times) for name, times in spent.items()}


def counting(ioc: SimulatedIOC) -> float:
    """Seconds that a point takes longer when its frames are counted and are there."""
    from bluesky_filestore.sim import SimDetectorHDF5

    reading: dict[str, float] = {}
    for confirm_frames in ("point", "never"):
        detector = SimDetectorHDF5(
            ioc.prefix, name="det", write_path_template=str(ioc.directory), confirm_frames=confirm_frames
        )
        detector.wait_for_connection(timeout=20)
        detector.stage()
        spent: dict[str, list[float]] = {"read": []}
        for _ in range(5 * POINTS):
            before = detector.hdf5.num_captured.get()
            detector.trigger().wait(10)
            while detector.hdf5.num_captured.get() == before:
                time.sleep(0.001)
            timed(spent, "read", detector.read)
        list(detector.collect_asset_docs())
        detector.unstage()
        detector.destroy()
        reading[confirm_frames] = statistics.median(spent["read"])
    return reading["point"] - reading["never"]


def main() -> int:
    """Print the tables; 1 if a promise is broken."""
    with tempfile.TemporaryDirectory() as directory, SimulatedIOC(directory) as ioc:
        from ophyd.areadetector.filestore_mixins import FileStoreHDF5IterativeWrite as Stock

        from bluesky_filestore import FileStoreHDF5IterativeWrite as Ours

        stock, ours = measure(Stock), measure(Ours)
        print(f"{'on fake devices':<16}{'ophyd':>10}{'ours':>10}{'ratio':>8}")
        for name in OPERATIONS:
            print(f"{name:<16}{stock[name] * 1e3:>7.3f} ms{ours[name] * 1e3:>7.3f} ms{ours[name] / stock[name]:>8.2f}")
        ratio = sum(ours.values()) / sum(stock.values())
        print(f"{'in sum':<16}{sum(stock.values()) * 1e3:>7.3f} ms{sum(ours.values()) * 1e3:>7.3f} ms{ratio:>8.2f}")
        extra = counting(ioc)
        print(f"counting the frames of a point on the simulated IOC: {extra * 1e3:.3f} ms")
    return int(ratio > ALLOWED_RATIO or extra > ALLOWED_COUNTING)


if __name__ == "__main__":
    sys.exit(main())
