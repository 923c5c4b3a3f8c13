"""How fast runs are copied out of a databroker, documents and frames compared.

    python benchmarks/migrating.py [--runs 200]

Runs of 50 events with five numbers and one image (64 x 64, HDF5) each, from a MongoDB as mongomock keeps it, to
`serve_catalog` with SQLite, on one machine.
"""

import argparse
import tempfile
import time
from pathlib import Path

import event_model
import h5py
import mongomock
import numpy as np
from suitcase.mongo_normalized import Serializer

from bluesky_filestore import serve_catalog
from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
from bluesky_filestore.sources.databroker import MongoRuns
from bluesky_filestore.sources.migrating import Migration

EVENTS, SHAPE = 50, (64, 64)
DAY = 86_400


def fill_database(serializer: Serializer, directory: Path, number: int) -> None:
    """Have databroker keep one run."""
    name = f"{number}.h5"
    with h5py.File(directory / name, "w") as file:
        file["/entry/data/data"] = np.full((EVENTS, *SHAPE), number, "<u2")
    run = event_model.compose_run(metadata={"scan_id": number})
    serializer("start", run.start_doc)
    image = {"source": "s", "dtype": "array", "shape": [1, *SHAPE], "dtype_numpy": "<u2", "external": "FILESTORE:"}
    numbers = {f"x{column}": {"source": "s", "dtype": "number", "shape": []} for column in range(5)}
    bundle = run.compose_descriptor(name="primary", data_keys={**numbers, "image": image})
    serializer("descriptor", bundle.descriptor_doc)
    resource = run.compose_resource(
        spec="AD_HDF5", root=str(directory), resource_path=name, resource_kwargs={"frame_per_point": 1}
    )
    serializer("resource", resource.resource_doc)
    for point in range(EVENTS):
        datum = resource.compose_datum(datum_kwargs={"point_number": point})
        serializer("datum", datum)
        data = {**dict.fromkeys(numbers, point / 3), "image": datum["datum_id"]}
        event = bundle.compose_event(data=data, timestamps=dict.fromkeys(data, 5.0), filled={"image": False})
        serializer("event", event)
    serializer("stop", run.compose_stop())


def main() -> None:
    """Copy, and say how long it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    runs = parser.parse_args().runs
    database = mongomock.MongoClient()["metadatastore"]
    serializer = Serializer(database, database)
    serializer.create_indexes()
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory) / "data"
        data.mkdir()
        for number in range(runs):
            fill_database(serializer, data, number)
        source = MongoRuns(database)
        began = time.monotonic()
        for uid in list(source.uids()):
            sum(1 for _ in source.documents_of(uid))
        reading = time.monotonic() - began
        with serve_catalog(Path(directory) / "catalog", readable=[data]) as catalog:
            began = time.monotonic()
            with Migration(source, TiledCatalog(catalog.client), Path(directory) / "state") as migration:
                states = [each.state for each in migration.copy()]
            took = time.monotonic() - began
    print(f"{runs} runs of {EVENTS} events: {states.count('same')} the same")
    print(f"documents read from the source: {runs / reading:.1f} runs/s")
    print(f"copied and compared: {runs / took:.1f} runs/s, 1,000,000 runs in {took / runs * 1e6 / DAY:.1f} days")


if __name__ == "__main__":
    main()
