"""Write a catalog, its data files and a spool as the installed version does, for later versions to read.

    python tests/data/before/write.py

It writes to /data/before, which the documents and the catalog then name, and copies what a later version needs beside
this file. Run it with the version that a release is made of; it uses nothing but public names.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import event_model
import h5py
import numpy as np
import tifffile
from tiled.client import from_uri

from bluesky_filestore import CatalogWriter, serve_catalog

HOME = Path("/data/before")
FILES = HOME / "files"
KEY = "secret"
PORT = 8765
EVENTS = 3
SHAPE = (4, 6)
NUMBER = {"source": "s", "dtype": "number", "shape": []}
WAVE = {"source": "s", "dtype": "array", "shape": [5], "dtype_numpy": "<f8"}


def frames(count):
    """The frames of each run: all numbers differ."""
    return np.arange(count * SHAPE[0] * SHAPE[1], dtype="u2").reshape(count, *SHAPE)


def image(frames_per_event):
    """The data key of an image in files."""
    shape = [frames_per_event, *SHAPE]
    return {"source": "s", "dtype": "array", "shape": shape, "dtype_numpy": "<u2", "external": "FILESTORE:"}


def documents(name, spec, path, resource_kwargs, datums, frames_per_event=1, *, root=FILES):
    """A run with a number, an array and an image for each of its datums."""
    run = event_model.compose_run(uid=name, metadata={"scan_id": 1, "plan_name": "count", "odd": float("nan")})
    keys = {"x": NUMBER, "wave": WAVE, "image": image(frames_per_event)}
    bundle = run.compose_descriptor(name="primary", data_keys=keys)
    resource = run.compose_resource(spec=spec, root=str(root), resource_path=path, resource_kwargs=resource_kwargs)
    yield from (("start", run.start_doc), ("descriptor", bundle.descriptor_doc), ("resource", resource.resource_doc))
    for number, datum_kwargs in enumerate(datums):
        datum = resource.compose_datum(datum_kwargs=datum_kwargs)
        yield "datum", datum
        data = {"x": number / 2, "wave": [float(number)] * 5, "image": datum["datum_id"]}
        yield "event", bundle.compose_event(data=data, timestamps=dict.fromkeys(data, 5.0), filled={"image": False})
    yield "stop", run.compose_stop()


def streamed():
    """A run with an image of stream documents."""
    run = event_model.compose_run(uid="streamed", metadata={})
    keys = {"x": NUMBER, "image": {**image(1), "external": "STREAM:"}}
    bundle = run.compose_descriptor(name="primary", data_keys=keys)
    resource = run.compose_stream_resource(
        mimetype="application/x-hdf5",
        uri=f"file://localhost{FILES}/plain.h5",
        data_key="image",
        parameters={"dataset": "/entry/data/data", "chunk_shape": (1, *SHAPE)},
    )
    yield from (("start", run.start_doc), ("descriptor", bundle.descriptor_doc))
    yield "stream_resource", resource.stream_resource_doc
    datum = resource.compose_stream_datum(event_model.StreamRange(start=0, stop=EVENTS))
    yield "stream_datum", {**datum, "descriptor": bundle.descriptor_doc["uid"], "seq_nums": {"start": 1, "stop": 4}}
    for number in range(EVENTS):
        yield "event", bundle.compose_event(data={"x": number / 2}, timestamps={"x": 5.0})
    yield "stop", run.compose_stop()


def runs():
    """The runs of the catalog."""
    points = [{"point_number": number} for number in range(EVENTS)]
    dataset = {"dataset": "/entry/data/data"}
    series = {"template": "%s%s_%6.6d.tiff", "filename": "series", "frame_per_point": 1}
    yield documents("plain", "AD_HDF5", "plain.h5", {"frame_per_point": 2, **dataset}, points, 2)
    yield documents("turned", "AD_HDF5", "plain.h5", {"frame_per_point": 2, **dataset}, points[::-1], 2)
    yield documents("series", "AD_TIFF", "", series, points)
    yield documents("turned_series", "AD_TIFF", "", series, points[::-1])
    yield documents("handled", "NPY_SEQ", "numbered", {}, [{"index": number} for number in range(EVENTS)])
    yield streamed()


def write_files():
    """The data files."""
    FILES.mkdir(parents=True)
    with h5py.File(FILES / "plain.h5", "w") as file:
        file.create_dataset("entry/data/data", data=frames(2 * EVENTS), chunks=(1, *SHAPE))
    for number, frame in enumerate(frames(EVENTS)):
        tifffile.imwrite(FILES / f"series_{number:06d}.tiff", frame)
        np.save(FILES / f"numbered_{number}.npy", frame)


def put_and_die(uri):
    """Put runs into a spool whose catalog is away, one without its stop, and end as if killed."""
    writer = CatalogWriter.from_uri(uri, api_key=KEY, spool=HOME / "spool", settle=0.0, wait_on_stop=0.0)
    points = [{"point_number": number} for number in range(EVENTS)]
    for uid in ("waiting", "parked", "cut"):
        for name, doc in documents(uid, "AD_HDF5", "plain.h5", {"dataset": "/entry/data/data"}, points):
            if (uid, name) != ("cut", "stop"):
                writer(name, doc)
    command = [sys.executable, "-m", "bluesky_filestore.cli", "park", "parked", "--spool", HOME / "spool"]
    subprocess.run(command, check=True, cwd=HOME)
    os._exit(0)


def main():
    """Write it all."""
    shutil.rmtree(HOME, ignore_errors=True)
    write_files()
    with serve_catalog(HOME / "catalog", readable=FILES, port=PORT, api_key=KEY) as server:
        with CatalogWriter(from_uri(server.uri, api_key=KEY), spool=HOME / "spool", settle=0.0) as writer:
            for run in runs():
                for name, doc in run:
                    writer(name, doc)
        uri = server.uri
    if not os.fork():
        put_and_die(uri)
    os.wait()
    here = Path(__file__).parent
    for name in ("catalog", "files", "spool"):
        shutil.rmtree(here / name, ignore_errors=True)
        shutil.copytree(HOME / name, here / name, ignore=shutil.ignore_patterns("*.log"))
    # The killed process left its last pages in a file beside the database.
    with closing(sqlite3.connect(here / "spool" / "spool.db")) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


if __name__ == "__main__":
    main()
