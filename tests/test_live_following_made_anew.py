"""Events of a run as they come: from tables that are made anew, or have rows that they should not have."""

import time
from collections.abc import Iterator
from functools import partial

import event_model
import pytest
from proxy import Proxy
from small_runs import SmallRun

from bluesky_filestore import CatalogWriter, follow, serve_catalog

SECONDS = 20
WHOLE = {"source": "s", "dtype": "integer", "shape": []}


@pytest.fixture(scope="module")
def server(data_directory, tmp_path_factory) -> "Iterator":
    """A server that streams."""
    with serve_catalog(tmp_path_factory.mktemp("server"), readable=data_directory, streams=True) as running:
        yield running


@pytest.mark.parametrize("last", [2.5, "2", "words", True], ids=repr)
def test_a_column_of_another_type(server, tmp_path, last):
    """Rows of a table that was made anew are not taken for those of the one before, whose types were others."""
    run = event_model.compose_run()
    bundle = run.compose_descriptor(name="primary", data_keys={"x": WHOLE})
    event = partial(bundle.compose_event, timestamps={"x": 1.0}, validate=False)
    with (
        Proxy(server.uri) as proxy,
        CatalogWriter.from_uri(
            proxy.uri, api_key=server.api_key, spool=tmp_path / "spool", interval=0.02, wait_on_stop=0
        ) as writer,
    ):
        writer("start", run.start_doc)
        writer("descriptor", bundle.descriptor_doc)
        writer("event", event(data={"x": 0}))
        writer("event", event(data={"x": 1}))
        writer.flush(SECONDS)
        # Long enough that all there is to know is heard.
        with follow(server.client, run.start_doc["uid"], interval=2 * SECONDS, spool=False) as follower:
            events, source, deadline = [follower.poll(SECONDS), follower.poll(SECONDS)], follower._source, SECONDS
            deadline += time.monotonic()
            while not source._news.is_complete(source._events):
                assert follower.poll(0.02) is None
                assert time.monotonic() < deadline
            # The websocket of the new table is there before its rows are.
            proxy.fault = lambda request: 1.0 if request.is_append else None
            writer("event", event(data={"x": last}))
            writer.flush(SECONDS)
            proxy.fault = lambda _: None
            events.append(follower.poll(SECONDS))
            writer("stop", run.compose_stop())
            assert list(follower) == []
    assert [repr(each["x"]) for each in events] == ["0", "1", repr(last)]


def test_rows_that_are_there_twice(server, tmp_path, data_directory):
    """Rows that a gateway has sent twice, until the writer finds them, are events once, with what is theirs."""
    run = SmallRun(data_directory, 22)
    with (
        Proxy(server.uri) as proxy,
        CatalogWriter.from_uri(
            proxy.uri, api_key=server.api_key, spool=tmp_path / "spool", interval=0.02, wait_on_stop=0
        ) as writer,
    ):
        for name, doc in run.documents[:9]:
            writer(name, doc)
        writer.flush(SECONDS)
        with follow(server.client, run.uid, interval=0.05, spool=False) as follower:
            proxy.fault = lambda request: "twice" if request.is_append else None
            for name, doc in run.documents[9:11]:
                writer(name, doc)
            writer.flush(SECONDS)
            proxy.fault = lambda _: None
            assert len(server.client[run.uid]["primary"].base["internal"].read()) == 5
            writer(*run.documents[11])
            writer(*run.documents[12])
            events = [follower.poll(SECONDS) for _ in range(5)]
            for name, doc in run.documents[13:]:
                writer(name, doc)
            events += follower
        writer.flush(SECONDS)
    assert [(each.position, each.row) for each in events] == [(n + 1, n) for n in range(run.events)]
    assert [each["x"] for each in events] == run.x
    assert [each["wave"] for each in events] == run.waves
    run.compare(server.client)
