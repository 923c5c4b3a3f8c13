"""How fast documents become a readable run: bluesky-tiled-plugins' TiledWriter and ours, side by side in one run.

Run as ``python benchmarks/writing.py [--repeats 5] [--events 10000]``. The time is that from the first document to
the moment when the stock client has read the run's last row and, for HDF5, its last frame. Each writer has a stock
Tiled server of its own; ours is asked for both the stock server and the same number of documents. Plain ophyd's
documents of TIFF files cannot be read through TiledWriter at all: it is given stream documents for them instead.
"""

import argparse
import gc
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# The client would ask ten times for what the server cannot read.
os.environ.setdefault("TILED_RETRY_ATTEMPTS", "1")

import event_model
import h5py
import numpy as np
import tifffile

SHAPE = (8, 8)
NUMBERS = 5
FEW = 30
MEGABYTE = 2**20
Pairs = list[tuple[str, Any]]


def data_keys(external: str) -> dict[str, Any]:
    """Some numbers and an image."""
    keys = {f"x{n}": {"source": "s", "dtype": "number", "shape": [], "dtype_numpy": "<f8"} for n in range(NUMBERS)}
    image = {"source": "s", "dtype": "array", "shape": [1, *SHAPE], "dtype_numpy": "<u2", "external": external}
    return {**keys, "image": image}


def documents(directory: Path, kind: str, count: int, first: int = 0) -> Iterator[tuple[str, Any]]:
    """A run with a datum (HDF5) or a stream_datum (TIFF) for each event."""
    run = event_model.compose_run()
    yield "start", run.start_doc
    bundle = run.compose_descriptor(name="primary", data_keys=data_keys("FILESTORE:" if kind == "hdf5" else "STREAM:"))
    yield "descriptor", bundle.descriptor_doc
    numbers = {f"x{n}": float(n) for n in range(NUMBERS)}
    if kind == "hdf5":
        kwargs = {"frame_per_point": 1}
        old = run.compose_resource(
            spec="AD_HDF5", root=str(directory), resource_path="frames.h5", resource_kwargs=kwargs
        )
        yield "resource", old.resource_doc
    else:
        parameters = {"template": "frame_{:06d}.tiff", "chunk_shape": (1, *SHAPE)}
        new = run.compose_stream_resource(
            mimetype="multipart/related;type=image/tiff",
            uri=f"file://localhost{directory}/",
            data_key="image",
            parameters=parameters,
        )
        yield "stream_resource", new.stream_resource_doc
    for point in range(first, first + count):
        data = dict(numbers)
        if kind == "hdf5":
            datum = old.compose_datum(datum_kwargs={"point_number": point}, validate=False)
            yield "datum", datum
            data["image"] = datum["datum_id"]
        else:
            at, seq_num = (event_model.StreamRange(start=s, stop=s + 1) for s in (point, point - first + 1))
            yield "stream_datum", new.compose_stream_datum(at, seq_num, bundle.descriptor_doc, validate=False)
        filled = {"image": False} if kind == "hdf5" else {}
        yield (
            "event",
            bundle.compose_event(data=data, timestamps=dict.fromkeys(data, 1.0), filled=filled, validate=False),
        )
    yield "stop", run.compose_stop()


def write_files(directory: Path, count: int) -> None:
    """The frames of all events, as one file and as a series."""
    directory.mkdir()
    frame = np.arange(64, dtype="<u2").reshape(SHAPE)
    with h5py.File(directory / "frames.h5", "w") as file:
        file.create_dataset("/entry/data/data", data=np.broadcast_to(frame, (count, *SHAPE)), chunks=(1, *SHAPE))
    for number in range(count):
        tifffile.imwrite(directory / f"frame_{number:06d}.tiff", frame)


def seconds(make: Callable[[], Any], client: Any, pairs: Pairs) -> float:
    """From the first document to the last row and frame read."""
    gc.collect()
    begin = time.perf_counter()
    writer = make()
    for name, doc in pairs:
        writer(name, doc)
    if hasattr(writer, "close"):
        writer.close()
    run = client[pairs[0][1]["uid"]]
    events = sum(name == "event" for name, _ in pairs)
    if run["primary"]["x0"].read().shape != (events,) or run["primary"]["image"][events - 1].shape[-2:] != SHAPE:
        raise SystemExit("what was written is not what was read")
    return time.perf_counter() - begin


def compare(client: Any, directory: Path, kind: str, events: int, repeats: int) -> None:
    """Batches of 10,000, and one event at a time, extrapolated from fewer."""
    from bluesky_tiled_plugins.writing.tiled_writer import TiledWriter

    from bluesky_filestore import CatalogWriter

    few = min(events, FEW)
    writers: dict[str, tuple[Callable[[], Any], int]] = {
        "ours": (lambda: CatalogWriter(client), events),
        "TiledWriter(batch_size=10000)": (lambda: TiledWriter(client, batch_size=10_000), events),
        "ours, written after each event": (lambda: CatalogWriter(client, batch_size=1), few),
        "TiledWriter(batch_size=1)": (lambda: TiledWriter(client, batch_size=1), few),
    }
    rates = {}
    for name, (make, count) in writers.items():
        # TiledWriter changes the documents it is given: each time others.
        files = directory / str(count)
        taken = [seconds(make, client, list(documents(files, kind, count))) for _ in range(repeats)]
        median = statistics.median(taken)
        rates[name] = count / median
        total = "" if count == events else f", {events / rates[name]:.0f} s for {events} (extrapolated from {count})"
        print(f"  {name:32} {median:7.2f} s for {count} events = {rates[name]:7.0f} events/s{total}")
    print(f"  ratio in batches of 10,000: {rates['ours'] / rates['TiledWriter(batch_size=10000)']:.2f}")
    live = rates["ours"] / rates["TiledWriter(batch_size=1)"]
    print(f"  ratio live (ours is readable within a second): {live:.0f}")


def resident() -> float:
    """How much memory this process has, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory(catalog: Any, directory: Path, datums: int) -> None:
    """How the writing process grows with a run of very many datums; the server is another process."""
    from bluesky_filestore import CatalogWriter

    with CatalogWriter(catalog) as writer:
        for name, doc in documents(directory, "hdf5", 20_000):
            writer(name, doc)
        gc.collect()
        before, peak = resident(), 0.0
        for number, (name, doc) in enumerate(documents(directory, "hdf5", datums)):
            writer(name, doc)
            if number % 10_000 == 0:
                peak = max(peak, resident())
        gc.collect()
        after = resident()
    grown, peak = (after - before) / MEGABYTE, (peak - before) / MEGABYTE
    print(f"memory of the writing process with {datums} datums: {grown:+.0f} MB after the run, {peak:+.0f} MB at most")


def serve_apart(directory: str, ready: Any, done: Any) -> None:
    """A stock server in a process of its own, so that its memory is not ours."""
    from tiled.server import SimpleTiledServer

    with SimpleTiledServer(Path(directory, "server"), readable_storage=[directory]) as server:
        ready.put(server.uri)
        done.get()


def main() -> int:
    """Print the tables."""
    import multiprocessing

    from tiled.client import from_uri

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--datums", type=int, default=1_000_000)
    parser.add_argument("--only", choices=["hdf5", "tiff", "memory"])
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as scratch:
        for count in {asked.events, min(asked.events, FEW)}:
            write_files(Path(scratch, str(count)), count)
        ready, done = context.Queue(), context.Queue()
        process = context.Process(target=serve_apart, args=(scratch, ready, done), daemon=True)
        process.start()
        client = from_uri(ready.get())
        for kind in ("hdf5", "tiff"):
            if asked.only in (None, kind):
                print(f"{kind}, {asked.events} events, medians of {asked.repeats}, first document to last row read")
                compare(client, Path(scratch), kind, asked.events, asked.repeats)
        if asked.only in (None, "memory"):
            memory(client, Path(scratch, str(asked.events)), asked.datums)
        client.context.close()
        done.put(None)
        process.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
