"""How fast runs are verified: one of many events, and many of a few.

Run as ``python benchmarks/verifying.py [--runs 1000] [--events 1000] [--repeats 3]``. The server is ours,
a process of its own, as at a beamline. A run of the many has 10 events with two numbers, and an HDF5 file with its
frames; the one has ``--events``. `verify` as a command goes the same way as what is measured here, several at once.
"""

import argparse
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

from bluesky_filestore import CatalogWriter
from bluesky_filestore.catalogs.tiled.connecting import connect
from bluesky_filestore.checking.verify import verify_run, verify_runs

KEY, SHAPE, FEW = "key", (32, 32), 10
NUMBER = {"source": "s", "dtype": "number", "shape": [], "dtype_numpy": "<f8"}
IMAGE = {"source": "s", "dtype": "array", "shape": [1, *SHAPE], "dtype_numpy": "<u2", "external": "FILESTORE:"}


def serve(directory: Path) -> None:
    """Serve the directory until the standard input ends."""
    import logging

    from bluesky_filestore import serve_catalog

    logging.disable(logging.INFO)
    with serve_catalog(directory / "catalog", readable=directory, api_key=KEY) as server:
        print(server.uri, flush=True)
        sys.stdin.read()


def documents_of_run(directory: Path, number: int, events: int) -> tuple[str, list[tuple[str, Any]]]:
    """A run with its file."""
    name = f"{number}.h5"
    with h5py.File(directory / name, "w") as file:
        frames = (np.arange(events * np.prod(SHAPE)).reshape(events, *SHAPE) + number).astype("<u2")
        file.create_dataset("/entry/data/data", data=frames, chunks=(1, *SHAPE))
    run = event_model.compose_run()
    bundle = run.compose_descriptor(name="primary", data_keys={"x": NUMBER, "y": NUMBER, "image": IMAGE})
    resource = run.compose_resource(
        spec="AD_HDF5", root=str(directory), resource_path=name, resource_kwargs={"frame_per_point": 1}
    )
    documents = [
        ("start", run.start_doc),
        ("descriptor", bundle.descriptor_doc),
        ("resource", resource.resource_doc),
    ]
    for point in range(events):
        datum = resource.compose_datum(datum_kwargs={"point_number": point})
        data = {"x": float(point), "y": 1.0, "image": datum["datum_id"]}
        event = bundle.compose_event(data=data, timestamps=dict.fromkeys(data, 5.0), filled={"image": False})
        documents += [("datum", datum), ("event", event)]
    return run.start_doc["uid"], [*documents, ("stop", run.compose_stop())]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.serve)
        return
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        command = [sys.executable, __file__, "--serve", made]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            try:
                client = connect(server.stdout.readline().strip(), api_key=KEY)
                measure(client, directory, options)
            finally:
                server.stdin.close()


def measure(client: Any, directory: Path, options: argparse.Namespace) -> None:
    """Write the runs, and verify them."""
    big, documents = documents_of_run(directory, 0, options.events)
    uids = []
    with CatalogWriter(client, spool=None) as writer:
        for name, doc in documents:
            writer(name, doc)
        for number in range(1, options.runs + 1):
            uid, documents = documents_of_run(directory, number, FEW)
            uids.append(uid)
            for name, doc in documents:
                writer(name, doc)
    seconds = []
    for _ in range(options.repeats):
        before = time.perf_counter()
        report = verify_run(client, big)
        seconds.append(time.perf_counter() - before)
        if report.exit_code:
            raise SystemExit(str(report))
    print(f"a run of {options.events:,} events: {statistics.median(seconds):.3f} s")
    for _ in range(options.repeats):
        before = time.perf_counter()
        reports = [report for _, report in verify_runs(client, uids)]
        taken = time.perf_counter() - before
        bad = [report for report in reports if isinstance(report, str) or report.exit_code]
        if bad or len(reports) != len(uids):
            raise SystemExit(f"{len(bad)} of {len(reports)}: {bad[0] if bad else ''}")
        print(f"{len(uids):,} runs of {FEW} events: {len(uids) / taken:.1f} runs/s")


if __name__ == "__main__":
    main()
