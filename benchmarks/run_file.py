"""How fast a run is written as one file, and a frame read through it, beside the frame read where it is; in one run.

Run as ``python benchmarks/run_file.py [--events 10000] [--size 256]``. Runs of so many events, each a frame of uint16,
which is read by h5py: the file opened, the frame read, the file closed. "in order" is a file of all frames; "rewound"
goes back a frame at every hundredth; "in no order" is the worst that there is, and "series" a file for each frame. Of
writing the time is given with and without what is made of the documents, which `open_array` needs as well.

Times are medians; those of the process (CPU) beside those of the clock, for machines on which others work, too.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import event_model
import h5py
import numpy as np

from bluesky_filestore.bundles.nexus_entry import entry_of
from bluesky_filestore.bundles.run_contents import contents_of
from bluesky_filestore.files.hdf5 import shared_files
from bluesky_filestore.files.nexus import write_nexus
from bluesky_filestore.model.root_map import RootMap

DATASET, LOOKS = "/entry/data/data", 101


def write_frames(directory: Path, events: int, size: int) -> None:
    """One file of all frames, and a file for each of them."""
    frame = np.random.default_rng(1).integers(0, 60000, (size, size), "u2")
    with h5py.File(directory / "all.h5", "w") as file:
        data = file.create_dataset(DATASET, (events, size, size), "u2", chunks=(1, size, size))
        for number in range(events):
            data[number] = frame + np.uint16(number)
    for number in range(events):
        with h5py.File(directory / f"one_{number:06d}.h5", "w") as file:
            file[DATASET] = frame + np.uint16(number)


def documents(directory: Path, size: int, order: list[int], *, series: bool) -> Iterator[tuple[str, Any]]:
    """A run with these frames in this order."""
    run = event_model.compose_run()
    image = {"source": "s", "dtype": "array", "shape": [1, size, size], "external": "FILESTORE:"}
    keys = {"x": {"source": "s", "dtype": "number", "shape": []}, "image": image}
    bundle = run.compose_descriptor(name="primary", data_keys=keys)
    made = run.compose_resource(
        spec="AD_HDF5_SINGLE" if series else "AD_HDF5",
        root=str(directory),
        resource_path="" if series else "all.h5",
        resource_kwargs={"frame_per_point": 1} | ({"template": "%s%s_%6.6d.h5", "filename": "one"} if series else {}),
        validate=False,
    )
    yield from (("start", run.start_doc), ("descriptor", bundle.descriptor_doc), ("resource", made.resource_doc))
    for row, number in enumerate(order):
        datum = made.compose_datum(datum_kwargs={"point_number": number}, validate=False)
        yield "datum", datum
        data = {"x": row / 4, "image": datum["datum_id"]}
        times = dict.fromkeys(data, 5.0)
        yield "event", bundle.compose_event(data=data, timestamps=times, filled={"image": False}, validate=False)
    yield "stop", run.compose_stop()


def looked_at(read: Callable[[int], None], events: int) -> tuple[float, float]:
    """How long a look at a frame takes, by the clock and of the process, in milliseconds."""
    rows = np.random.default_rng(2).integers(0, events, LOOKS).tolist()
    clock, process = [], []
    for row in rows:
        began = time.perf_counter(), time.process_time()
        read(row)
        clock.append(time.perf_counter() - began[0])
        process.append(time.process_time() - began[1])
    return 1000 * statistics.median(clock), 1000 * statistics.median(process)


def measure(kind: str, directory: Path, order: list[int], size: int) -> None:
    """Write a run file and look at its frames."""
    path, series = directory / f"{kind}.nxs", kind == "series"
    pairs = list(documents(directory, size, order, series=series))
    began = time.perf_counter(), time.process_time()
    contents = contents_of(pairs, RootMap(None))
    gathered = time.perf_counter(), time.process_time()
    write_nexus(path, entry_of(contents, copy=False).entry)
    written = time.perf_counter(), time.process_time()
    shared_files().close()

    def through(row: int) -> None:
        with h5py.File(path, "r") as file:
            assert file["entry/data/data"][row].shape[-1] == size

    def direct(row: int) -> None:
        number = order[row]
        with h5py.File(directory / (f"one_{number:06d}.h5" if series else "all.h5"), "r") as file:
            assert file[DATASET][() if series else number].shape[-1] == size

    with h5py.File(path, "r") as file, h5py.File(directory / "all.h5", "r") as frames:
        for row in range(0, len(order), max(1, len(order) // 20)):
            np.testing.assert_array_equal(file["entry/data/data"][row].reshape(size, size), frames[DATASET][order[row]])
    reads = (direct, through)
    # The better of two rounds in turns: the first one warms up.
    rounds = [[looked_at(read, len(order)) for read in reads] for _ in range(2)]
    ways = [tuple(map(min, zip(*of_way, strict=True))) for of_way in zip(*rounds, strict=True)]
    times = [(last - first) for first, last in zip(gathered, written, strict=True)]
    whole = [(last - first) for first, last in zip(began, written, strict=True)]
    ratios = [many / one for one, many in zip(*ways, strict=True)]
    print(
        f"{kind:12} written in {times[0]:6.2f} s ({times[1]:5.2f} s CPU), with the documents {whole[0]:6.2f} s "
        f"({whole[1]:5.2f} s CPU), {path.stat().st_size / 1e6:5.2f} MB; a frame {ways[0][0]:6.2f} ms where it is, "
        f"{ways[1][0]:6.2f} ms through the file: {ratios[0]:4.2f} times (CPU {ratios[1]:4.2f})"
    )


def main() -> None:
    """Measure all kinds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=256)
    options = parser.parse_args()
    events = options.events
    rewound = [number for first in range(0, events, 100) for number in (*range(first, first + 100), first + 99)]
    orders = {
        "in order": list(range(events)),
        "rewound": rewound[:events],
        "in no order": np.random.default_rng(3).permutation(events).tolist(),
        "series": list(range(events)),
    }
    with tempfile.TemporaryDirectory() as name:
        write_frames(Path(name), events, options.size)
        for kind, order in orders.items():
            measure(kind, Path(name), order, options.size)


if __name__ == "__main__":
    main()
