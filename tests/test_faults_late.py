"""What was asked of a catalog, and is done only when everybody has forgotten it."""

import math
from contextlib import contextmanager
from itertools import count

import httpx
import pyarrow
import pytest
from proxy import Proxy
from small_runs import SmallRun
from spooled import states
from test_faults_catalog import fault_of_the_first, flush, wait_for
from tiled.client import from_uri

from bluesky_filestore import CatalogWriter

LATEST = "bluesky_filestore.delivery.lane._LATEST_SECONDS"
_numbers = count(500)


def is_append(request):
    """Whether rows are appended to a table."""
    return request.is_append


def is_removal(request):
    """Whether a table is removed."""
    return request.method == "DELETE" and request.path.endswith("/internal")


def is_growth(request):
    """Whether more frames of a file are registered."""
    return request.method == "PUT" and "/data_source/" in request.path


@pytest.fixture
def late(catalog, monkeypatch):
    """A proxy before the session's catalog and a client; the later look comes when the test says so."""
    monkeypatch.setattr(LATEST, math.inf)
    with Proxy(catalog.uri) as proxy, closing_client(proxy.uri, catalog.api_key) as client:
        yield proxy, client


@contextmanager
def closing_client(uri, api_key):
    """A client that does not wait long for an answer."""
    client = from_uri(uri, api_key=api_key, timeout=httpx.Timeout(2.0))
    yield client
    client.context.close()


def write_with_one_held(writer, run, proxy, condition):
    """Write a run, of which the catalog gets the first request of a kind only when the run was closed."""
    half, most = len(run.documents) // 2 + 2, len(run.documents) - 5
    for name, doc in run.documents[:half]:
        writer(name, doc)
    if condition is not is_append:
        flush(writer)
    proxy.fault = fault_of_the_first(condition, "hold")
    for name, doc in run.documents[half:most]:
        writer(name, doc)
    if condition is is_growth:
        wait_for(lambda: proxy.holding)
    for name, doc in run.documents[most:]:
        writer(name, doc)
    wait_for(lambda: proxy.holding)
    wait_for(lambda: not writer.status().waiting)
    proxy.release()
    wait_for(lambda: not proxy.holding)


def test_another_process_looks_later(late, catalog, data_directory, tmp_path, monkeypatch):
    """That something may still come is known to who delivers next."""
    proxy, client = late
    run = SmallRun(data_directory, next(_numbers))
    with CatalogWriter(client, spool=tmp_path, interval=0.01, wait_on_stop=0.0) as writer:
        proxy.fault = fault_of_the_first(is_append, "drop answer")
        for name, doc in run.documents:
            writer(name, doc)
        wait_for(lambda: states(tmp_path, client.uri) == {run.uid: "settling"})
    with CatalogWriter(client, spool=tmp_path, interval=0.01) as writer:
        wait_for(lambda: run.uid in writer.status().unsettled_runs)
        table = catalog.client[run.uid]["primary"].base["internal"]
        table.append_partition(0, pyarrow.Table.from_pandas(table.read().iloc[:2], preserve_index=False))
        monkeypatch.setattr(LATEST, 0.0)
        wait_for(lambda: states(tmp_path, client.uri) == {run.uid: "delivered"})
    run.compare(catalog.client)


def rows(catalog, run):
    """How many rows and frames a catalog has of a run; none if it has no table."""
    stream = catalog.client[run.uid]["primary"].base
    try:
        events = len(stream["internal"].read(["seq_num"]))
    except KeyError:
        events = 0
    return events, stream["image"].shape[0]


@pytest.mark.parametrize(
    ("condition", "left"),
    [
        (is_append, lambda found: found[0] > 12),
        (is_removal, lambda found: found[0] == 0),
        (is_growth, lambda found: found[1] < 12),
    ],
    ids=["append", "removal", "growth"],
)
def test_after_the_run_was_closed(condition, left, late, catalog, data_directory, tmp_path, monkeypatch):
    """What comes after a run was closed is found by a later look, and the run made right."""
    proxy, client = late
    run = SmallRun(data_directory, next(_numbers))
    with CatalogWriter(client, spool=tmp_path, interval=0.01, wait_on_stop=0.0) as writer:
        write_with_one_held(writer, run, proxy, condition)
        wait_for(lambda: left(rows(catalog, run)))
        assert states(tmp_path, client.uri) == {run.uid: "settling"}
        assert "looked at again: " + run.uid[:8] in str(writer.status())
        monkeypatch.setattr(LATEST, 0.0)
        wait_for(lambda: states(tmp_path, client.uri) == {run.uid: "delivered"})
        assert writer.status().problems == ()
    run.compare(catalog.client)


def test_values_of_another_type(late, catalog, data_directory, tmp_path, monkeypatch):
    """Whole numbers that come when their array was made anew for fractions are found by the later look, too."""
    proxy, client = late
    run = SmallRun(data_directory, next(_numbers))

    def is_pairs(request):
        return request.method == "PATCH" and request.path.endswith("/pair")

    with CatalogWriter(client, spool=tmp_path, interval=0.01, wait_on_stop=0.0) as writer:
        proxy.fault = fault_of_the_first(is_pairs, "hold")
        for name, doc in run.documents[:7]:
            writer(name, doc)
        wait_for(lambda: proxy.holding)
        wait_for(lambda: not writer.status().waiting)
        for name, doc in run.documents[7:]:
            writer(name, doc)
        wait_for(lambda: not writer.status().waiting)
        pairs = catalog.client[run.uid]["primary"].base["pair"]
        assert pairs.read().tolist() == run.pairs
        proxy.release()
        wait_for(lambda: not proxy.holding)
        wait_for(lambda: pairs.read().tolist() != run.pairs)
        assert states(tmp_path, client.uri) == {run.uid: "settling"}
        monkeypatch.setattr(LATEST, 0.0)
        wait_for(lambda: states(tmp_path, client.uri) == {run.uid: "delivered"})
        assert writer.status().problems == ()
    run.compare(catalog.client)
