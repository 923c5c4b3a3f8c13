"""bluesky's own writer beside ours on one catalog: neither ends the plan, nor touches what the other made."""

import time

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import pytest
from bluesky import RunEngine
from bluesky_tiled_plugins.writing.tiled_writer import TiledWriter
from ophyd.sim import det, motor

from bluesky_filestore import CatalogWriter
from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
from bluesky_filestore.delivery import run_delivery
from bluesky_filestore.errors import OtherWriterError
from bluesky_filestore.operations.operations import CreateRun


@bpp.run_decorator()
def slow_scan(pause):
    """A run with pauses, in which what is handed on is delivered."""
    yield from bps.sleep(pause)
    for position in range(4):
        yield from bps.mv(motor, position)
        yield from bps.trigger_and_read([det, motor])
        yield from bps.sleep(pause)


ORDERS = [("first", 1, 0.2), ("first", 10_000, 0.0), ("last", 1, 0.0)]


@pytest.mark.parametrize(("ours", "batch_size", "pause"), ORDERS)
def test_a_plan_with_both(catalog, tmp_path, ours, batch_size, pause):
    """The plan ends well, the run is the other's and complete, and ours is parked with the reason."""
    engine = RunEngine({})
    with CatalogWriter(catalog.client, spool=tmp_path / "spool", interval=0.01, batch_size=1) as writer:
        both = [writer, TiledWriter(catalog.client, batch_size=batch_size)]
        for each in both if ours == "first" else both[::-1]:
            engine.subscribe(each)
        (uid,) = engine(slow_scan(pause))
        deadline = time.monotonic() + 30
        while uid not in (parked := writer.status().catalogs[0].parked):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert "made in the catalog" in parked[uid]
    assert "of a CatalogWriter and a TiledWriter of one RunEngine and one catalog, unsubscribe one" in parked[uid]
    run = catalog.client[uid]
    assert "filestore" not in run.metadata
    assert run.metadata["stop"]["num_events"] == {"primary": 4}
    assert run["primary"]["det"].read().shape == (4,)


def test_a_run_is_made_although_nothing_follows(catalog, tmp_path, monkeypatch):
    """A run whose start document is all there is of it is in the catalog after a while, and at once if flushed."""
    uids = [f"alone-{number}-{time.time_ns()}" for number in range(2)]
    with CatalogWriter(catalog.client, spool=tmp_path / "spool", interval=0.01) as writer:
        writer("start", {"uid": uids[0], "time": 0.0})
        writer.flush()
        assert uids[0] in catalog.client
        monkeypatch.setattr(run_delivery, "_HELD_SECONDS", 0.3)
        writer("start", {"uid": uids[1], "time": 0.0})
        deadline = time.monotonic() + 30
        while uids[1] not in catalog.client:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_run_of_an_earlier_version(catalog):
    """A run without our mark is another writer's, but one that the spool says was begun: that gets the mark."""
    uid = f"before-{time.time_ns()}"
    catalog.client.create_container(uid, metadata={"start": {"uid": uid}})
    tiled, operation = TiledCatalog(catalog.client), CreateRun(uid, {"start": {"uid": uid}})
    with pytest.raises(OtherWriterError, match=r"made in the catalog at .* by another writer"):
        tiled.apply(operation)
    tiled.claim(uid)
    tiled.apply(operation)
    TiledCatalog(catalog.client).apply(operation)
    assert catalog.client[uid].metadata["filestore"] == {}
