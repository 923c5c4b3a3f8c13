"""How fast documents become a readable run: bluesky-tiled-plugins' TiledWriter and ours, side by side in one run.

Run as ``python benchmarks/writing.py [--repeats 5] [--events 10000]``. The time is that from the first document to
the moment when the catalog has the whole run, and in brackets that until the stock client has read all of a column
and the last frame, which takes the server the same time for both. Both writers write to the same server, by turns:
first to a stock Tiled server, then to one with our adapters. Plain ophyd's documents of TIFF files cannot be read
through TiledWriter at all: both are given stream documents for them.

Live, each writer is given the same events as fast as it takes them, in the mode in which they can be read while the
run goes on: TiledWriter with a batch size of one, ours as it is by default. How far behind ours is then is measured
as well, with events that come at a steady rate.
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
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# The client would ask ten times for what the server cannot read.
os.environ.setdefault("TILED_RETRY_ATTEMPTS", "1")

import event_model
import h5py
import httpx
import numpy as np
import tifffile

SHAPE = (8, 8)
NUMBERS = 5
RATE, LIVE_SECONDS, LOOK_EVERY = 50, 5, 0.1
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


def seconds(make: Callable[[], Any], client: Any, pairs: Pairs) -> tuple[float, float]:
    """From the first document to the moment when the run is in the catalog, and to its last row and frame read."""
    gc.collect()
    begin = time.perf_counter()
    writer = make()
    for name, doc in pairs:
        writer(name, doc)
    if hasattr(writer, "flush"):
        writer.flush()
    written = time.perf_counter() - begin
    run = client[pairs[0][1]["uid"]]
    events = sum(name == "event" for name, _ in pairs)
    if run["primary"]["x0"].read().shape != (events,) or run["primary"]["image"][events - 1].shape[-2:] != SHAPE:
        raise SystemExit("what was written is not what was read")
    read = time.perf_counter() - begin
    if hasattr(writer, "close"):
        writer.close()
    return written, read


def compare(client: Any, directory: Path, kind: str, asked: argparse.Namespace) -> None:
    """Batches of 10,000, and live."""
    from bluesky_tiled_plugins.writing.tiled_writer import TiledWriter

    from bluesky_filestore import CatalogWriter

    def ours() -> Any:
        return CatalogWriter(client)

    def theirs(batch_size: int) -> Callable[[], Any]:
        return lambda: TiledWriter(client, batch_size=batch_size)

    for title, count, batch_size in (("in batches", asked.events, 10_000), ("live", asked.live, 1)):
        makers = {"ours": ours, f"TiledWriter(batch_size={batch_size})": theirs(batch_size)}
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in makers}
        for _ in range(asked.repeats):
            # By turns: what else the machine does befalls both.
            for name, make in makers.items():
                # TiledWriter changes the documents it is given: each time others.
                pairs = list(documents(directory / str(count), kind, count))
                taken[name].append(seconds(make, client, pairs))
        medians = {name: [statistics.median(each) for each in zip(*taken[name], strict=True)] for name in makers}
        for name, (written, read) in medians.items():
            print(
                f"    {title:10} {name:30} {written:7.2f} s for {count} events = {count / written:7.0f} events/s "
                f"({read:.2f} s with reading)"
            )
        (written, read), (their_written, their_read) = medians.values()
        print(
            f"    {title:10} {their_written / written:.2f} times as fast, {their_read / read:.2f} times with reading "
            f"(its time is {written / their_written:.3f} of TiledWriter's)"
        )
    behind = [lag(client, directory / str(asked.events), kind) for _ in range(asked.repeats)]
    print(
        f"    behind     events at {RATE} a second can be read {statistics.median(behind):.2f} s later "
        f"({max(behind):.2f} s at most)"
    )


def lag(client: Any, directory: Path, kind: str) -> float:
    """The longest time, in seconds, until an event's row and frame are in the catalog, at a steady rate."""
    from bluesky_filestore import CatalogWriter

    pairs = list(documents(directory, kind, RATE * LIVE_SECONDS))
    uid, given, worst = pairs[0][1]["uid"], [], 0.0
    with CatalogWriter(client) as writer:
        begin, looked, readable = time.perf_counter(), 0.0, 0
        for name, doc in pairs:
            if name == "event":
                time.sleep(max(0.0, begin + len(given) / RATE - time.perf_counter()))
                given.append(time.perf_counter())
            writer(name, doc)
            if name == "event" and time.perf_counter() - looked > LOOK_EVERY:
                asked_at = looked = time.perf_counter()
                readable = max(readable, frames_readable(client, uid))
                # The oldest event that could not be read then.
                worst = max(worst, asked_at - given[readable] if readable < len(given) else 0.0)
    return worst


def frames_readable(client: Any, uid: str) -> int:
    """How many events have both row and frame in the catalog."""
    try:
        # Frames are registered after the rows of their events. Tables are not read here: a Tiled server with DuckDB may
        # crash if one is read while it grows.
        return int(client[uid].base["primary"].base["image"].shape[0])
    except (KeyError, httpx.TransportError):
        # Not there yet, or an idle connection was closed.
        return 0


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


def serve_apart(directory: str, kind: str, ready: Any, done: Any) -> None:
    """A server in a process of its own, so that its memory is not ours."""
    if kind == "stock":
        from tiled.server import SimpleTiledServer

        with SimpleTiledServer(Path(directory, kind), readable_storage=[directory]) as server:
            ready.put((server.uri, None))
            done.get()
    else:
        from bluesky_filestore import serve_catalog

        with serve_catalog(Path(directory, kind), readable=[directory]) as catalog:
            ready.put((catalog.uri, catalog.api_key))
            done.get()


@contextmanager
def server(directory: str, kind: str) -> Iterator[Any]:
    """A client of a server in a process of its own."""
    import multiprocessing

    from tiled.client import from_uri

    context = multiprocessing.get_context("spawn")
    ready, done = context.Queue(), context.Queue()
    process = context.Process(target=serve_apart, args=(directory, kind, ready, done), daemon=True)
    process.start()
    uri, api_key = ready.get()
    client = from_uri(uri, api_key=api_key)
    yield client
    client.context.close()
    done.put(None)
    process.join()


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--live", type=int, default=300)
    parser.add_argument("--datums", type=int, default=1_000_000)
    parser.add_argument("--only", choices=["hdf5", "tiff", "memory"])
    parser.add_argument("--server", choices=["stock", "ours"])
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_STATE_HOME"] = str(Path(scratch, "state"))
        for count in {asked.events, asked.live}:
            write_files(Path(scratch, str(count)), count)
        for kind_of_server in [asked.server] if asked.server else ["stock", "ours"]:
            with server(scratch, kind_of_server) as client:
                for kind in ("hdf5", "tiff"):
                    if asked.only in (None, kind):
                        print(f"{kind_of_server} server, {kind}, medians of {asked.repeats}")
                        compare(client, Path(scratch), kind, asked)
                if asked.only in (None, "memory") and kind_of_server == (asked.server or "stock"):
                    memory(client, Path(scratch, str(asked.events)), asked.datums)
    return 0


if __name__ == "__main__":
    sys.exit(main())
