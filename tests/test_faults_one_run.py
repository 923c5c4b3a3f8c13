"""A catalog that is there and fails at one run, one table or one request: the others never wait for it."""

import itertools
import logging
import time

import pytest
from effort import some
from proxy import Proxy
from small_runs import SmallRun

from bluesky_filestore import CatalogWriter
from bluesky_filestore.errors import CatalogUnreachableError

numbers = itertools.count(100)


@pytest.fixture
def place(catalog, data_directory, tmp_path):
    """A proxy, runs with files, and a writer by way of the proxy."""
    with Proxy(catalog.uri) as proxy:
        runs = [SmallRun(data_directory, next(numbers), 6) for _ in range(4)]
        writer = CatalogWriter.from_uri(
            proxy.uri, api_key=catalog.api_key, spool=tmp_path / "spool", wait_on_stop=0, park_after=1.0, interval=0.05
        )
        yield proxy, runs, writer, catalog.client
        proxy.fault = lambda _: None
        writer.close()


def feed(writer, run):
    """Hand all documents of a run to a writer."""
    for name, doc in run.documents:
        writer(name, doc)


def ended(client, run):
    """Whether a run is in the catalog to its end."""
    return run.uid in client and "stop" in client[run.uid].metadata


def wait_for(condition, timeout=60.0):
    """Wait for something that the delivery brings about."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)


PARTS = {
    "run": lambda uid, request: uid in request.path,
    "table": lambda uid, request: request.is_append and uid in request.path,
    "array": lambda uid, request: request.method == "PATCH" and "/array/" in request.path and uid in request.path,
    "its end": lambda uid, request: request.method == "PATCH" and request.path.endswith(uid),
}


# All that answers is one kind but 404, which may mean that something is gone.
CASES = [
    *[("run", 404), ("run", 503), ("table", 503), ("table", 404), ("array", 404), ("array", 503), ("its end", 503)],
    *[("its end", 404), ("table", 429), ("array", 500)],
]


@pytest.mark.parametrize(("part", "status"), some(CASES))
def test_for_ever(place, caplog, part, status):
    """The others are complete; the run is parked with the reason, and has what could be had of it."""
    proxy, (bad, *good), writer, client = place
    proxy.fault = lambda request: status if PARTS[part](bad.uid, request) else None
    with caplog.at_level(logging.CRITICAL):
        for run in (bad, *good):
            feed(writer, run)
        wait_for(lambda: all(ended(client, run) for run in good))
        for run in good:
            run.compare(client)
        wait_for(lambda: bad.uid in writer.status().catalogs[0].parked, timeout=110)
    reason = writer.status().catalogs[0].parked[bad.uid]
    assert "the proxy says so" in reason or part == "run", reason
    assert "KeyError" not in reason
    if part in ("table", "array"):
        assert ended(client, bad)
        assert any("the proxy says so" in note for note in client[bad.uid].metadata["notes"])
    if part == "its end":
        # It comes as soon as it goes, without anybody's asking for the run.
        proxy.fault = lambda _: None
        writer.flush()
        wait_for(lambda: ended(client, bad))


@pytest.mark.parametrize(("part", "status"), some(CASES, 1))
def test_for_a_while(place, caplog, part, status):
    """What goes at the second or third time is delivered as if nothing had been."""
    proxy, (bad, *good), writer, client = place
    times = itertools.count()
    proxy.fault = lambda request: status if PARTS[part](bad.uid, request) and next(times) < 2 else None
    with caplog.at_level(logging.CRITICAL):
        for run in (bad, *good):
            feed(writer, run)
        wait_for(lambda: all(ended(client, run) for run in (bad, *good)))
    for run in (bad, *good):
        run.compare(client)


def test_flush_says_which_run(place, caplog):
    """Who flushes is told at once which run the catalog fails at, and that nothing is lost."""
    proxy, (bad, good, *_), writer, client = place
    proxy.fault = lambda request: 500 if bad.uid in request.path else None
    with caplog.at_level(logging.CRITICAL):
        feed(writer, bad)
        feed(writer, good)
        with pytest.raises(CatalogUnreachableError, match=rf"run {bad.uid}: .*the proxy says so.*Nothing is lost"):
            writer.flush()
        # Slow as it may have been, it may have been given up meanwhile: closing says so until it is parked.
        proxy.fault = lambda _: None
        wait_for(lambda: ended(client, bad) or bad.uid in writer.status().catalogs[0].parked)
    assert ended(client, good)


def test_nothing_is_parked_while_nothing_goes(place, caplog):
    """A server that answers questions and takes nothing, as one with a full disk, uses up nobody's patience."""
    proxy, runs, writer, client = place
    proxy.fault = lambda request: 500 if request.method != "GET" else None
    with caplog.at_level(logging.CRITICAL):
        for run in runs:
            feed(writer, run)
        time.sleep(5)
        assert not writer.status().catalogs[0].parked
        proxy.fault = lambda _: None
        wait_for(lambda: all(ended(client, run) for run in runs))
    for run in runs:
        run.compare(client)
