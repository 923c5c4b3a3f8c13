"""How far those who follow a run are behind it, and what they cost the plan and the delivery.

Run as ``python benchmarks/following.py [--events 1000] [--rate 100] [--followers 5] [--streams] [--quiet 10]``. Events
with a frame in an HDF5 file, which is there already, are given to a `CatalogWriter` at a steady rate, with a catalog in
a process of its own: first by itself, then with followers that read the spool and each frame, each in a process of its
own, and one that reads the catalog, whose server says what is new (``--streams``), or is asked. Shown are the lag, from
the time in the event to its frame in the follower's hands, but of the first second, in which a process loads what reads
frames; the requests of a follower, and those of them that it made in some seconds before the first event, in which
nothing happened; the time of each call of the writer; and for how long the delivery goes on after the last event.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import event_model
import h5py
import numpy as np
from blocking import KEY, server

from bluesky_filestore import CatalogWriter

IMAGE = {"source": "s", "dtype": "array", "dtype_numpy": "<u2", "external": "FILESTORE:"}

_FOLLOW = """
import json, sys, time
from pathlib import Path
import httpx
from bluesky_filestore import follow
where, uid, frames = sys.argv[1:]
how = {"spool": False} if "://" in where else {}
requests, send = [], httpx.Client.send
def noting(self, request, **options):
    requests.append(time.time())
    return send(self, request, **options)
httpx.Client.send = noting
with follow(where if how else Path(where), uid, **how) as events:
    events.poll(3.0)
    print("ready", flush=True)
    lags, values = [], []
    for event in events:
        # The first frame of a process loads what reads it.
        values.append(int(event["image"][0, 0, 0]) if frames == "frames" else event.row % 60000)
        lags.append(time.time() - event.time)
assert values == [row % 60000 for row in range(len(values))], values
print(json.dumps([lags, requests]))
"""


def begin(directory: Path, events: int, size: int = 128) -> tuple[Any, Any, list[tuple[str, Any]]]:
    """A run, what makes its events, and its first documents."""
    with h5py.File(directory / "images.h5", "w") as file:
        images = file.create_dataset("/entry/data/data", (events, size, size), "<u2", chunks=(1, size, size))
        frame = np.random.default_rng(1).poisson(100, (size, size)).astype("<u2")
        for number in range(events):
            frame[0, 0] = number % 60000
            images[number] = frame
    run = event_model.compose_run()
    bundle = run.compose_descriptor(name="primary", data_keys={"image": {**IMAGE, "shape": [1, size, size]}})
    resource = run.compose_resource(
        spec="AD_HDF5", root=str(directory), resource_path="images.h5", resource_kwargs={"frame_per_point": 1}
    )
    first = [
        ("start", run.start_doc),
        ("descriptor", bundle.descriptor_doc),
        ("resource", resource.resource_doc),
    ]
    return run, (bundle, resource), first


def scan(
    writer: CatalogWriter, directory: Path, events: int, rate: float, quiet: float, commands: list[list[str]]
) -> dict[str, Any]:
    """One run, followed by some."""
    run, (bundle, resource), first = begin(directory, events)
    for name, doc in first:
        writer(name, doc)
    uid = run.start_doc["uid"]
    writer.flush()
    ends = [
        subprocess.Popen([sys.executable, "-c", _FOLLOW, where, uid, frames], stdout=subprocess.PIPE, text=True)
        for where, frames in commands
    ]
    for each in ends:
        assert each.stdout is not None
        each.stdout.readline()
    since = time.time()
    time.sleep(quiet if commands else 0)
    until = time.time()
    calls, began = [], time.perf_counter()
    for number in range(events):
        time.sleep(max(0.0, began + number / rate - time.perf_counter()))
        datum = resource.compose_datum(datum_kwargs={"point_number": number})
        data = {"image": datum["datum_id"]}
        event = bundle.compose_event(data=data, timestamps={"image": 1.0}, filled={"image": False}, validate=False)
        for name, doc in (("datum", datum), ("event", event)):
            called = time.perf_counter()
            writer(name, doc)
            calls.append(time.perf_counter() - called)
    ended = time.perf_counter()
    writer("stop", run.compose_stop())
    writer.flush()
    delivered = time.perf_counter() - ended
    told = [json.loads(each.communicate()[0]) for each in ends]
    lags = [lags for lags, _ in told]
    assert all(len(each) == events for each in lags), list(map(len, lags))
    lags = [each[int(rate) :] for each in lags]
    requests = [(len(made), sum(since < each < until for each in made)) for _, made in told]
    return {"calls": calls, "delivered": delivered, "lags": lags, "requests": requests}


def shown(seconds: list[float]) -> str:
    """The median and two tails, in ms."""
    cuts = statistics.quantiles(seconds, n=1000)
    return f"p50 {1e3 * cuts[499]:8.2f} ms   p99 {1e3 * cuts[989]:8.2f} ms   max {1e3 * max(seconds):8.2f} ms"


def main() -> None:
    """Measure, and show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--followers", type=int, default=5)
    parser.add_argument("--interval", type=float, default=0.5, help="of the writer")
    parser.add_argument("--quiet", type=float, default=0.0, help="seconds of nothing before the first event")
    parser.add_argument("--streams", action="store_true", help="the server says what is new")
    options = parser.parse_args()
    os.environ["TILED_API_KEY"] = KEY
    with (
        tempfile.TemporaryDirectory() as scratch,
        server(Path(scratch) / "catalog", streams=options.streams) as (uri, _),
    ):
        directory = Path(scratch)
        with CatalogWriter.from_uri(uri, api_key=KEY, spool=directory / "spool", interval=options.interval) as writer:
            spool, how = str(directory / "spool"), (options.events, options.rate)
            for title, commands in (
                ("warming up", []),
                ("by itself", []),
                ("followed in the spool", [[spool, "frames"]] * options.followers),
                ("followed in the catalog", [[uri, "frames"]]),
                ("by itself again", []),
            ):
                count = 100 if title == "warming up" else options.events
                found = scan(writer, directory, count, how[1], options.quiet, commands)
                print(f"{title}: delivered {found['delivered']:.2f} s after the last event")
                print(f"  a call     {shown(found['calls'])}")
                for lags, (requests, of_nothing) in zip(found["lags"], found["requests"], strict=True):
                    print(f"  lag        {shown(lags)}   {requests} requests, {of_nothing} of nothing")


if __name__ == "__main__":
    main()
