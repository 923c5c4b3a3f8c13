"""How fast events are filled: event-model's Filler with the public handlers and `fill`, side by side in one run.

Run as ``python benchmarks/filling.py [--repeats 5] [--frames 1000] [--size 512]``. Both get the same documents and
files, and each frame is had as a numpy array: the public HDF5 handler answers with a dask array, which is computed.
Medians over the repeats; the files are read once before.
"""

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import event_model
import h5py
import numpy as np
import tifffile
from area_detector_handlers.handlers import AreaDetectorHDF5Handler, AreaDetectorTiffHandler

from bluesky_filestore import fill, handler_registry

PUBLIC = {"AD_HDF5": AreaDetectorHDF5Handler, "AD_TIFF": AreaDetectorTiffHandler}
Pairs = list[tuple[str, Any]]


def write(directory: Path, spec: str, frames: int, size: int) -> None:
    """The files of a run, as areaDetector lays them out."""
    rng = np.random.default_rng(0)
    if spec == "AD_TIFF":
        for number in range(frames):
            tifffile.imwrite(directory / f"a_{number:06d}.tiff", rng.integers(0, 60000, (size, size), np.uint16))
        return
    with h5py.File(directory / "a.h5", "w") as file:
        shape = (frames, size, size)
        dataset = file.create_dataset("/entry/data/data", shape, "u2", chunks=(1, size, size))
        for number in range(frames):
            dataset[number] = rng.integers(0, 60000, (size, size), np.uint16)


def documents(directory: Path, spec: str, frames: int, size: int) -> Pairs:
    """A run with an image and five numbers an event."""
    run = event_model.compose_run()
    keys = {f"x{n}": {"source": "s", "dtype": "number", "shape": []} for n in range(5)}
    image = {"source": "s", "dtype": "array", "shape": [1, size, size], "external": "FILESTORE:"}
    stream = run.compose_descriptor(name="primary", data_keys={**keys, "image": image})
    series = {"template": "%s%s_%6.6d.tiff", "filename": "a"}
    resource = run.compose_resource(
        spec=spec,
        root=str(directory),
        resource_path="a.h5" if spec == "AD_HDF5" else "",
        resource_kwargs={"frame_per_point": 1} | (series if spec == "AD_TIFF" else {}),
    )
    pairs = [("start", run.start_doc), ("descriptor", stream.descriptor_doc), ("resource", resource.resource_doc)]
    for number in range(frames):
        datum = resource.compose_datum({"point_number": number})
        data = {**dict.fromkeys(keys, 1.0), "image": datum["datum_id"]}
        event = stream.compose_event(data=data, timestamps=dict.fromkeys(data, 1.0), filled={"image": False})
        pairs += [("datum", datum), ("event", event)]
    return pairs


def with_filler(pairs: Pairs, handlers: Any) -> Iterator[tuple[str, Any]]:
    """Through event-model's Filler, which may not change the documents: they are filled again."""
    with event_model.Filler(handlers, inplace=False, retry_intervals=[]) as filler:
        for name, doc in pairs:
            yield filler(name, doc)


def seconds(filled: Iterable[tuple[str, Any]]) -> float:
    """The time until every frame was had as a numpy array."""
    began = time.perf_counter()
    for name, doc in filled:
        if name == "event":
            np.asarray(doc["data"]["image"])
    return time.perf_counter() - began


def raw_seconds(directory: Path, spec: str, frames: int) -> float:
    """The same frames with h5py or tifffile alone."""
    began = time.perf_counter()
    if spec == "AD_HDF5":
        with h5py.File(directory / "a.h5") as file:
            dataset = file["/entry/data/data"]
            for number in range(frames):
                dataset[number : number + 1]
    else:
        for number in range(frames):
            tifffile.imread(directory / f"a_{number:06d}.tiff")
    return time.perf_counter() - began


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--size", type=int, default=512)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{options.frames} frames of {options.size} x {options.size} uint16, ms a frame, {options.repeats} repeats")
    for spec in PUBLIC:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            write(directory, spec, options.frames, options.size)
            pairs = documents(directory, spec, options.frames, options.size)
            ways: dict[str, Callable[[], float]] = {
                "public Filler, public handler": lambda pairs=pairs: seconds(with_filler(pairs, PUBLIC)),
                "public Filler, our handler": lambda pairs=pairs: seconds(with_filler(pairs, handler_registry)),
                "fill": lambda pairs=pairs: seconds(fill(pairs)),
                "library alone": lambda d=directory, s=spec: raw_seconds(d, s, options.frames),
            }
            times: dict[str, list[float]] = {way: [] for way in ways}
            raw_seconds(directory, spec, options.frames)
            # In turns, so that what else the machine does meanwhile is everybody's.
            for _ in range(options.repeats):
                for way, measure in ways.items():
                    times[way].append(measure() / options.frames * 1000)
            public = statistics.median(times["public Filler, public handler"])
            for way, measured in times.items():
                median = statistics.median(measured)
                print(f"{spec:8} {way:30} {median:8.3f} ms   public takes {public / median:6.1f} times as long")


if __name__ == "__main__":
    main()
