"""Processes that take documents are killed, at any point: what was taken reaches the catalog, each document once."""

import itertools
import json
import os
import random
import secrets
import signal
import time
from contextlib import closing, suppress

import event_model
import h5py
import numpy as np
import pytest
from acquiring import acquirer
from effort import times

from bluesky_filestore import documents
from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
from bluesky_filestore.delivery.settings import DeliverySettings
from bluesky_filestore.delivery.uploader import Uploader
from bluesky_filestore.spool import Ledger

KILLS = times(8)
EVENTS = 12
SHAPE = (3, 4)
NUMBER = {"source": "s", "dtype": "number", "shape": []}
IMAGE = {"source": "s", "dtype": "array", "shape": [1, *SHAPE], "dtype_numpy": "<u2", "external": "FILESTORE:"}
WAVE = {"source": "s", "dtype": "array", "shape": [3]}
TOLD = ("start", "descriptor", "event", "stop")


def run_documents(directory, number):
    """The documents of a run with a number, a small array and an image, whose file is there."""
    name = f"killed {number}.h5"
    with h5py.File(directory / name, "w") as file:
        file["/entry/data/data"] = frames_of(number)
    run = event_model.compose_run(metadata={"number": number})
    yield "start", run.start_doc
    bundle = run.compose_descriptor(name="primary", data_keys={"x": NUMBER, "wave": WAVE, "image": IMAGE})
    yield "descriptor", bundle.descriptor_doc
    resource = run.compose_resource(
        spec="AD_HDF5", root=str(directory), resource_path=name, resource_kwargs={"frame_per_point": 1}
    )
    yield "resource", resource.resource_doc
    for point in range(EVENTS):
        datum = resource.compose_datum(datum_kwargs={"point_number": point})
        yield "datum", datum
        data = {"x": point / 4, "wave": [number, point, 7], "image": datum["datum_id"]}
        yield "event", bundle.compose_event(data=data, timestamps=dict.fromkeys(data, 5.0), filled={"image": False})
    yield "stop", run.compose_stop()


def frames_of(number):
    """What the detector saw."""
    return np.arange(EVENTS * SHAPE[0] * SHAPE[1], dtype="<u2").reshape(EVENTS, *SHAPE) + 100 * number


def taken_before_the_kill(process, order, when):
    """Have the documents handed over by a child, kill it, and tell how many it said were taken."""
    process.stdin.write(json.dumps(order).encode() + b"\n")
    process.stdin.flush()
    child = int(process.stderr.readline())
    taken, last = 0, when.randint(0, 2 * EVENTS + 6)
    while taken < last:
        said = os.read(process.stdout.fileno(), 1)
        if said == b"!":
            break
        taken += 1
    # Then the uploader is somewhere in the middle of what it does.
    time.sleep(when.choice([0.0, 0.001, 0.003, 0.1]) * when.random())
    with suppress(ProcessLookupError):
        # Unless it has come to its end.
        os.kill(child, signal.SIGKILL)
    assert process.stderr.readline().strip() == b"over"
    os.set_blocking(process.stdout.fileno(), False)
    rest = process.stdout.read() or b""
    os.set_blocking(process.stdout.fileno(), True)
    return taken + rest.count(b".")


def deliver(spool, client):
    """Deliver all that is in a spool."""
    uploader = Uploader(spool, TiledCatalog(client), DeliverySettings(interval=0.02))
    with closing(Ledger(spool)) as ledger:
        number, deadline = ledger.register_catalog(uploader.catalog.uri), time.monotonic() + 60
        while any(entry.state not in ("delivered", "parked") for entry in ledger.entries(number)):
            assert time.monotonic() < deadline, ledger.entries(number)
            uploader.look_around()
            uploader.wake()
            time.sleep(0.05)
        parked = [entry for entry in ledger.entries(number) if entry.state == "parked"]
    uploader.close()
    assert parked == []


@pytest.mark.timeout(600)
def test_killed_again_and_again(catalog, data_directory, tmp_path):
    """Each process that comes after a killed one goes on with what that left, and is killed in turn."""
    seed = secrets.randbits(32)
    print("seed", seed)
    when, spool = random.Random(seed), tmp_path / "spool"
    taken = []
    with acquirer() as process:
        for number in range(KILLS):
            pairs = list(run_documents(data_directory, number))
            file = tmp_path / "documents"
            file.write_text(json.dumps(pairs))
            order = {"uri": catalog.uri, "api_key": catalog.api_key, "spool": str(spool), "documents": str(file)}
            taken.append((pairs, taken_before_the_kill(process, order, when)))
    deliver(spool, catalog.client)
    assert sum(had < len(pairs) for pairs, had in taken) > KILLS // 5, "most of them were to be killed in between"
    for pairs, had in taken:
        compare(catalog.client, pairs, had)


def compare(client, pairs, count):
    """What the catalog has is what was taken, and at the most the one document that was being taken."""
    uid = pairs[0][1]["uid"]
    if uid not in client:
        assert count == 0
        return
    run = client[uid]
    back = [(name, doc) for name, doc in documents(run) if name in TOLD]
    had = [doc["uid"] for _, doc in back]
    expected = [doc["uid"] for name, doc in pairs[:count] if name in TOLD]
    one_more = [doc["uid"] for name, doc in pairs[: count + 1] if name in TOLD]
    assert had in (expected, one_more)
    told = [(name, doc) for name, doc in pairs if name in TOLD]
    for (name, doc), (_, sent) in zip(back, told, strict=False):
        entries = ("uid", "data", "seq_num", "timestamps") if name == "event" else ("uid",)
        assert {entry: doc[entry] for entry in entries} == {entry: sent[entry] for entry in entries}
    events = sum(name == "event" for name, _ in itertools.islice(told, len(had)))
    if events:
        stream = run["primary"]
        assert stream["x"].read().tolist() == [point / 4 for point in range(events)]
        number = pairs[0][1]["number"]
        assert stream["wave"].read().tolist() == [[number, point, 7] for point in range(events)]
        np.testing.assert_array_equal(stream["image"].read()[:, 0], frames_of(number)[:events])
    stopped = len(had) == len(told)
    assert ("stop" in run.metadata) == stopped
    assert any("cut short" in note for note in run.metadata["notes"]) == (not stopped)
