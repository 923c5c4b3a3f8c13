"""How fast frames are read back: through a stock Tiled server and ours, and straight from the files, in one run.

Run as ``python benchmarks/reading.py [--repeats 5] [--frames 1000 10000 100000]``. Both servers are processes of their
own with the same runs, each frame 512 x 512 uint16. HDF5 files have 1,000 frames that were written, at equal distances,
however many they have; the names of a TIFF series are hard links to 100 files. Frames are registered as a stock server
takes them; a TIFF series of more than 10,000 frames, whose list of files takes a stock server minutes to take, is
registered at ours alone, as a series. Beside them, the same frames by `open_array`, and by h5py, with the file open,
or tifffile; and for the whole array as many bytes by read(2). Packed TIFF files are compressed (zlib).

"client alone" is the stock client with a server that answers at once with bytes it has ready: faster than that is no
server. Memory is told of a server that is idle, and how much it grows over that.
"""

import argparse
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import h5py
import numpy as np
import tifffile
from tiled.client import from_uri
from tiled.client.array import ArrayClient
from tiled.client.container import Container
from tiled.structures.array import ArrayStructure, BuiltinDtype
from tiled.structures.data_source import Asset, DataSource, Management

from bluesky_filestore import open_array
from bluesky_filestore.model.addressing import FILE_SERIES, FileSeries, RowSpan
from bluesky_filestore.model.specs import HDF5, TIFF_SERIES

SIZE, DATASET, KEY = 512, "/entry/data/data", "key"
WRITTEN, NAMES_A_FILE, RANDOM = 1000, 100, 40
MOST_LISTED = 10_000
CHUNK = 8
# Not those that the ways of a catalog of runs are found by: what is below a run is asked for by its path.
ARRAYS = {"array": ArrayClient, "container": Container}


def serve(kind: str, directory: Path) -> None:
    """Serve the directory until the standard input ends."""
    import logging

    logging.disable(logging.INFO)
    if kind == "ready":
        answer_at_once()
    if kind == "ours":
        from bluesky_filestore import serve_catalog

        with serve_catalog(directory / kind, readable=directory, api_key=KEY) as server:
            print(server.uri, flush=True)
            sys.stdin.read()
        return
    import uvicorn
    from tiled.catalog import from_uri as catalog_from_uri
    from tiled.config import Authentication
    from tiled.server.app import build_app

    (directory / kind).mkdir()
    tree = catalog_from_uri(directory / kind / "catalog.db", readable_storage=[directory], init_if_not_exists=True)
    app = build_app(tree, authentication=Authentication(single_user_api_key=KEY))
    # With the protocol named, small answers do not wait for one another (Nagle).
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.bind(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{bound.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="critical")).run([bound])


def answer_at_once() -> None:
    """Answer whoever asks for a part of an array with as many bytes as are expected, all of them 0."""
    listening = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
    ready = memoryview(bytes(2**27))

    def answer(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while request := connection.recv(2**16):
            sizes = re.search(r"expected_shape=([0-9,]+)", unquote(request.decode("latin-1")))
            size = int(np.prod([int(size) for size in sizes[1].split(",")])) * 2
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {size}\r\n\r\n"
            connection.sendall(head.encode())
            connection.sendall(ready[:size])

    while True:
        threading.Thread(target=answer, args=[listening.accept()[0]], daemon=True).start()


@contextmanager
def ready_answers() -> Iterator[str]:
    """The address of a process that answers at once."""
    command = [sys.executable, __file__, "--serve", "ready", "."]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def asking(client: Any, path: str, address: str) -> Any:
    """An array whose frames the client asks of another server."""
    node = client[path]
    link = node.item["links"]["full"]
    node.item["links"]["full"] = address + link[link.index("/api/") :]
    return node


@contextmanager
def running(kind: str, directory: Path) -> Iterator[tuple[Any, int]]:
    """A client of a server in a process of its own, and the number of the process."""
    command = [sys.executable, __file__, "--serve", kind, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            uri = next(line for line in server.stdout if line.startswith("http")).strip()
            deadline = time.monotonic() + 60
            while True:
                try:
                    client = from_uri(uri, api_key=KEY, structure_clients=ARRAYS)
                    break
                except OSError:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
            yield client, server.pid
            client.context.close()
        finally:
            server.terminate()


def write(directory: Path, kind: str, frames: int) -> list[Path]:
    """The files of a run; all of them for a TIFF series."""
    if kind == "hdf5":
        path = directory / f"{frames}.h5"
        with h5py.File(path, "w") as file:
            data = file.create_dataset(DATASET, (frames, SIZE, SIZE), "u2", chunks=(1, SIZE, SIZE))
            for number in range(0, frames, frames // WRITTEN):
                data[number] = number % 2**16
        return [path]
    (directory / f"{kind}{frames}").mkdir()
    paths = [directory / f"{kind}{frames}" / f"{number:06d}.tiff" for number in range(frames)]
    for number, path in enumerate(paths):
        if number < NAMES_A_FILE:
            values = np.full((SIZE, SIZE), number, "u2")
            if kind == "packed":
                values[:-1] = np.random.default_rng(number).poisson(10, (SIZE - 1, SIZE))
            tifffile.imwrite(path, values, compression="zlib" if kind == "packed" else None)
        else:
            os.link(paths[number % NAMES_A_FILE], path)
    return paths


def register(client: Any, kind: str, paths: list[Path], frames: int) -> Any:
    """The array of a run, at the place it has in the tree of a run."""
    whole, rest = divmod(frames, CHUNK)
    shape, chunks = (frames, 1, SIZE, SIZE), ((CHUNK,) * whole + (rest,) * bool(rest), (1,), (SIZE,), (SIZE,))
    structure = ArrayStructure(shape=shape, chunks=chunks, data_type=BuiltinDtype.from_numpy_dtype(np.dtype("u2")))
    properties, parameters, mimetype = {}, {"dataset": DATASET, "slice": f"0:{frames}"}, HDF5
    if kind != "hdf5":
        properties, parameters, mimetype = {"chunks": [[frames], [SIZE], [SIZE]]}, {}, TIFF_SERIES
        if frames > MOST_LISTED:
            series = FileSeries(TIFF_SERIES, ("%06d.tiff",), 1, (RowSpan(0, 0, frames, 1),))
            properties, parameters, mimetype, paths = {}, series.to_parameters(), FILE_SERIES, [paths[0].parent]
    assets = [
        Asset(data_uri=f"file://localhost{path}", is_directory=path.is_dir(), parameter="data_uris", num=number)
        for number, path in enumerate(paths)
    ]
    source = DataSource(
        structure_family="array",
        structure=structure,
        mimetype=mimetype,
        parameters=parameters,
        properties=properties,
        management=Management.external,
        assets=assets,
    )
    run = client.create_container(f"{kind}{frames}").create_container("streams").create_container("primary")
    run.new("array", [source], key="image")
    return run["image"]


def memory(pid: int, name: str) -> int:
    """A figure of a process's memory, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) // 1024


def one_by_one(read: Callable[[int], Any], numbers: list[int], divisor: int) -> float:
    """The median time of one frame, in ms, after the first."""
    times = []
    for number in numbers:
        began = time.perf_counter()
        values = np.asarray(read(number))
        times.append(time.perf_counter() - began)
        assert not divisor or values.reshape(SIZE, SIZE)[-1, -1] == number % divisor
    return statistics.median(times[1:]) * 1000


def library(kind: str, paths: list[Path]) -> tuple[Callable[[int], Any], Callable[[], Any]]:
    """The library alone: a frame, and all of them."""
    if kind == "hdf5":
        data = h5py.File(paths[0])[DATASET]
        return lambda number: data[number], lambda: data[:]

    def loop() -> np.ndarray:
        values = np.empty((len(paths), SIZE, SIZE), "u2")
        for number, path in enumerate(paths):
            values[number] = tifffile.imread(path)
        return values

    return lambda number: tifffile.imread(paths[number]), loop


def raw(paths: list[Path], size: int) -> np.ndarray:
    """As many bytes of the files as the array has, by read(2)."""
    values, at = np.empty(size, "u1"), 0
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        end = min(size, at + os.fstat(descriptor).st_size)
        while at < end:
            at += os.readv(descriptor, [values[at:end].data])
        os.close(descriptor)
    return values[:at]


def measure(
    directory: Path, servers: dict[str, tuple[Any, int]], ready: str, kind: str, frames: int, repeats: int
) -> None:
    """Print the figures of one kind of files and one number of frames."""
    paths = write(directory, kind, frames)
    listed = kind == "hdf5" or frames <= MOST_LISTED
    nodes = {
        name: register(client, kind, paths, frames) for name, (client, _) in servers.items() if listed or name == "ours"
    }
    nodes["client alone"] = asking(servers["ours"][0], f"{kind}{frames}/streams/primary/image", ready)
    straight = open_array(nodes["ours"])
    assert straight.source == "files"
    frame, whole = library(kind, paths)
    ways = {"library alone": frame, "open_array": straight.__getitem__}
    ways |= {name: node.__getitem__ for name, node in nodes.items()}
    measure_frames(kind, frames, repeats, ways)
    if frames > WRITTEN:
        return
    both = {"read(2)": lambda: raw(paths, straight.nbytes), "library alone": whole, "open_array": straight.__array__}
    measure_whole(kind, frames, repeats, both | {name: node.read for name, node in nodes.items()})


def measure_frames(kind: str, frames: int, repeats: int, ways: dict[str, Callable[[int], Any]]) -> None:
    """Print how long a random frame takes."""
    divisor, step = (2**16, frames // WRITTEN) if kind == "hdf5" else (NAMES_A_FILE, 1)
    numbers = (np.random.default_rng(0).integers(0, frames // step, RANDOM) * step).tolist()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, read in ways.items():
            # A stock server takes seconds for each of the longest.
            some = numbers[:5] if name == "stock" and frames > MOST_LISTED else numbers
            times[name].append(one_by_one(read, some, 0 if name == "client alone" else divisor))
    medians = {name: statistics.median(each) for name, each in times.items()}
    for name, median in medians.items():
        told = compared(medians["library alone"] / median, medians.get("stock", 0) / median)
        print(f"{kind:6} {frames:7,} a random frame  {name:14} {median:8.3f} ms   {told}", flush=True)


def measure_whole(kind: str, frames: int, repeats: int, ways: dict[str, Callable[[], Any]]) -> None:
    """Print how fast the whole array is read."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, read in ways.items():
            began = time.perf_counter()
            size = read().nbytes
            rates[name].append(size / 1e6 / (time.perf_counter() - began))
    medians = {name: statistics.median(each) for name, each in rates.items()}
    for name, median in medians.items():
        told = compared(median / medians["library alone"], median / medians["stock"])
        print(f"{kind:6} {frames:7,} the whole array {name:14} {median:8.0f} MB/s {told}", flush=True)


def compared(with_library: float, with_stock: float) -> str:
    """How many times as fast."""
    stock = f", {with_stock:7.1f} x stock" if with_stock else ""
    return f"{with_library:6.2f} x the library{stock}"


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--frames", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--kinds", nargs="+", default=["hdf5", "tiff", "packed"])
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve[0], Path(options.serve[1]))
        return
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with running("stock", directory) as stock, running("ours", directory) as ours, ready_answers() as ready:
            servers = {"stock": stock, "ours": ours}
            idle = {name: memory(pid, "VmRSS") for name, (_, pid) in servers.items()}
            for kind in options.kinds:
                for frames in options.frames[:1] if kind == "packed" else options.frames:
                    measure(directory, servers, ready, kind, frames, options.repeats)
            for name, (_, pid) in servers.items():
                most = memory(pid, "VmHWM")
                print(f"memory of {name}: {idle[name]} MB idle, {most - idle[name]} MB more at the most: {most} MB")


if __name__ == "__main__":
    main()
