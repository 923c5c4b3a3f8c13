"""How long a stop document is held up by a catalog that does not answer, or only in its own time."""

import re
import threading
import time
from contextlib import closing, contextmanager

import httpx
import pytest
from proxy import Proxy, no_fault
from spooled import run_documents, states
from test_faults_catalog import flush, wait_for
from tiled.client import from_uri

from bluesky_filestore import CatalogWriter, documents
from bluesky_filestore.errors import CatalogError

LONGEST = 20.0
"""Seconds that a stop may wait for its run: longer than any of this takes."""


@pytest.fixture
def proxy(catalog):
    """A proxy before the session's catalog."""
    with Proxy(catalog.uri) as running:
        yield running


@contextmanager
def writing(proxy, catalog, tmp_path, **options):
    """A writer whose catalog is there when it is made, and well again at the end."""
    client = from_uri(proxy.uri, api_key=catalog.api_key, timeout=httpx.Timeout(60.0))
    writer = CatalogWriter(client, spool=tmp_path / "spool", **{"wait_on_stop": LONGEST, **options})
    try:
        yield writer
    finally:
        proxy.fault = no_fault
        proxy.release()
        try:
            writer.close()
        except CatalogError:
            # Its client may not have given up yet on what was held, and says that it is away.
            resumed = from_uri(proxy.uri, api_key=catalog.api_key)
            with CatalogWriter(resumed, spool=tmp_path / "spool") as another:
                another.flush()
            resumed.context.close()
        client.context.close()


def seconds_of(writer, pair):
    """How long a document holds up the plan."""
    began = time.monotonic()
    writer(*pair)
    return time.monotonic() - began


def delivered(writer, docs):
    """Hand over documents, and wait until the catalog has them."""
    for pair in docs:
        writer(*pair)
    wait_for(lambda: not writer.status().waiting)


@pytest.mark.parametrize("earlier_runs", [0, 3])
def test_hangs_in_the_middle(proxy, catalog, tmp_path, caplog, earlier_runs):
    """A catalog that answers nothing any more holds up a stop for some tenths of a second; the log says so."""
    with writing(proxy, catalog, tmp_path) as writer:
        for _ in range(earlier_runs):
            delivered(writer, run_documents(3)[1])
        uid, docs = run_documents(3)
        delivered(writer, docs[:-1])
        proxy.fault = lambda _: "hold"
        assert seconds_of(writer, docs[-1]) < 4.5
        assert re.search(r"and will be delivered: it has not answered for \d\.\d s\.", caplog.text)
        # The next one is not kept any longer, though its client may try for a minute.
        _, more = run_documents(3)
        assert max(seconds_of(writer, pair) for pair in more) < 4.5
    assert list(documents(catalog.client[uid])) == docs


def test_hangs_from_the_beginning(proxy, catalog, tmp_path):
    """So does one that has not answered since the writer was made."""
    proxy.fault = lambda _: "hold"
    writer = CatalogWriter.from_uri(proxy.uri, api_key=catalog.api_key, spool=tmp_path, wait_on_stop=LONGEST)
    uid, docs = run_documents(3)
    assert max(seconds_of(writer, pair) for pair in docs) < 4.5
    with pytest.raises(CatalogError, match="Nothing is lost"):
        writer.close()
    with CatalogWriter(catalog.client, spool=tmp_path):
        pass
    assert list(documents(catalog.client[uid])) == docs


def test_hangs_as_soon_as_its_client_was_made(proxy, catalog, tmp_path):
    """So does one that answered when its client was made, and nothing since."""
    with writing(proxy, catalog, tmp_path) as writer:
        proxy.fault = lambda _: "hold"
        uid, docs = run_documents(3)
        assert max(seconds_of(writer, pair) for pair in docs) < 4.5
    assert list(documents(catalog.client[uid])) == docs


@pytest.mark.parametrize("fault", ["cut", 500, 503, 429, 403])
def test_answers_with_errors(proxy, catalog, tmp_path, fault):
    """One that refuses whatever is asked holds up a stop no longer."""
    with writing(proxy, catalog, tmp_path) as writer:
        uid, docs = run_documents(3)
        delivered(writer, docs[:-1])
        proxy.fault = lambda _: fault
        assert seconds_of(writer, docs[-1]) < 4.5
        assert writer.status().error
    assert list(documents(catalog.client[uid])) == docs


def test_hangs_for_one_node(proxy, catalog, tmp_path):
    """A catalog that answers, but not where the run is, holds up a stop for `wait_on_stop`, and not longer."""
    with writing(proxy, catalog, tmp_path, wait_on_stop=1.5) as writer:
        uid, docs = run_documents(3)
        delivered(writer, docs[:-1])
        proxy.fault = lambda request: "hold" if uid in request.path else None
        assert 1.4 < seconds_of(writer, docs[-1]) < 4.5
        assert writer.status().error == ""
    assert list(documents(catalog.client[uid])) == docs


@pytest.mark.parametrize(("answer", "events"), [(0.3, 2000), (0.5, 1)])
def test_slow(proxy, catalog, tmp_path, answer, events):
    """A catalog that takes its time for each answer is waited for, from the first run on."""
    proxy.fault = lambda _: answer
    with writing(proxy, catalog, tmp_path) as writer:
        uid, docs = run_documents(events)
        for pair in docs:
            writer(*pair)
        assert "stop" in catalog.client[uid].metadata
        assert states(tmp_path / "spool", writer.status().catalog)[uid] == "delivered"


def test_slow_at_one_request(proxy, catalog, tmp_path):
    """A request that takes long is waited for as long as the catalog answers beside it."""
    with writing(proxy, catalog, tmp_path) as writer:
        uid, docs = run_documents(3)
        delivered(writer, docs[:3])
        proxy.fault = lambda request: 3.0 if request.is_append else None
        for pair in docs[3:]:
            writer(*pair)
        assert "stop" in catalog.client[uid].metadata


def test_whose_requests(proxy, catalog, tmp_path):
    """The plan's thread asks the catalog for nothing, whatever the catalog does."""
    askers = set()
    with writing(proxy, catalog, tmp_path) as writer:
        http = writer._spooling.uploaders[0].catalog.connect().context.http_client
        http.event_hooks["request"].append(lambda _: askers.add(threading.current_thread()))
        for fault in (None, 0.1, "hold"):
            proxy.fault = lambda _, fault=fault: fault
            for pair in run_documents(3)[1]:
                writer(*pair)
        assert askers
        assert threading.current_thread() not in askers
        http.event_hooks["request"].pop()


def test_another_process_delivers(proxy, catalog, tmp_path):
    """Where another writer delivers, a stop waits for what that does, and not where the catalog is silent."""
    with writing(proxy, catalog, tmp_path):
        client = from_uri(proxy.uri, api_key=catalog.api_key)
        with closing(CatalogWriter(client, spool=tmp_path / "spool", wait_on_stop=LONGEST)) as second:
            uid, docs = run_documents(3)
            delivered(second, docs)
            assert not second._spooling.uploaders[0].delivers
            assert "stop" in catalog.client[uid].metadata
            _, docs = run_documents(3)
            delivered(second, docs[:-1])
            proxy.fault = lambda _: "hold"
            assert seconds_of(second, docs[-1]) < 4.5
            proxy.fault = no_fault
            proxy.release()
            wait_for(lambda: not proxy.holding)
            flush(second)
        client.context.close()
