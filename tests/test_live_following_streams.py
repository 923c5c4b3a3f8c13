"""Events of a run as they come: from a catalog whose server streams."""

import asyncio
import gc
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import event_model
import httpx
import numpy as np
import pytest
from redis_servers import REDIS, redis_server
from relaying import Relay
from small_runs import SmallRun
from tiled.client import from_uri

from bluesky_filestore import CatalogWriter, follow, serve_catalog
from bluesky_filestore.catalogs.tiled import listening
from bluesky_filestore.errors import CatalogUnreachableError
from bluesky_filestore.live import following_news
from bluesky_filestore.live.following_news import NewsOfRun

COUNT = {"source": "s", "dtype": "number", "shape": []}
SECONDS = 20
NEEDS_REDIS = pytest.mark.skipif(not REDIS, reason="redis-server is not installed")


@pytest.fixture(
    scope="module",
    params=[
        "memory",
        pytest.param("redis", marks=NEEDS_REDIS),
    ],
)
def server(request, data_directory, tmp_path_factory) -> "Iterator":
    """A server that streams, by either of Tiled's stores."""
    directory = tmp_path_factory.mktemp("server")
    if request.param == "memory":
        with serve_catalog(directory, readable=data_directory, streams=True) as running:
            yield running
    else:
        with (
            redis_server(tmp_path_factory.mktemp("redis")) as address,
            serve_catalog(directory, readable=data_directory, streams=address) as running,
        ):
            yield running


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """The requests of this thread."""
    asked, send, thread = [], httpx.Client.send, threading.current_thread()

    def noting(self, request, **options):
        if threading.current_thread() is thread:
            asked.append(request.url.path)
        return send(self, request, **options)

    monkeypatch.setattr(httpx.Client, "send", noting)
    return asked


class Scan:
    """A run of which one event comes at a time."""

    def __init__(self, writer, *streams):
        self._writer, self._run = writer, event_model.compose_run()
        self.uid = self._run.start_doc["uid"]
        self._streams = {}
        self.number = 0
        writer("start", self._run.start_doc)
        for name in streams:
            self.begin(name)
        writer.flush()

    def begin(self, name):
        """Declare a stream."""
        self._streams[name] = self._run.compose_descriptor(name=name, data_keys={"x": COUNT})
        self._writer("descriptor", self._streams[name].descriptor_doc)

    def take(self, name="primary", x=None):
        """One event."""
        x = float(self.number) if x is None else x
        self._writer("event", self._streams[name].compose_event(data={"x": x}, timestamps={"x": 1.0}))
        self.number += 1

    def end(self):
        """The stop document."""
        self._writer("stop", self._run.compose_stop())


@pytest.fixture
def writer(server, tmp_path) -> "Iterator[CatalogWriter]":
    """A writer that writes soon."""
    with CatalogWriter.from_uri(
        server.uri, api_key=server.api_key, spool=tmp_path / "spool", interval=0.02, wait_on_stop=0
    ) as writer:
        yield writer


def hear(follower):
    """Go on until all is heard that may be new in the run; the events that came until then."""
    source, deadline, events = follower._source, time.monotonic() + SECONDS, []
    while source._news is None or not source._news.is_complete(source._events):
        assert time.monotonic() < deadline
        event = follower.poll(0.02)
        events += [] if event is None else [event]
    return events


def listeners():
    """The threads that listen to catalogs."""
    return [thread for thread in threading.enumerate() if thread.name == "catalog-listener"]


def test_no_request_while_nothing_happens(server, writer, asked):
    """What is heard costs no request: neither while nothing happens, nor when rows are appended."""
    scan = Scan(writer, "primary")
    scan.take()
    scan.take()
    with follow(server.client, scan.uid, interval=0.05, spool=False) as follower:
        events = hear(follower)
        while len(events) < 2:
            events.append(follower.poll(SECONDS))
        asked.clear()
        assert follower.poll(1.0) is None
        assert asked == []
        for _ in range(5):
            scan.take()
            events.append(follower.poll(SECONDS))
        assert asked == []
        scan.end()
        assert follower.poll(SECONDS) is None
        assert follower.is_over
        assert [each["x"] for each in events] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
        assert [(each.position, each.row, each.seq_num) for each in events] == [(n + 1, n, n + 1) for n in range(7)]
        assert [each.uid for each in follow(server.client, scan.uid, spool=False)] == [each.uid for each in events]
    assert listeners() == []


def test_whatever_a_stream_holds(server, writer, data_directory):
    """Values in arrays and in files, and columns that change their type, come as they do where nothing is streamed."""
    run = SmallRun(data_directory, 21)
    for name, doc in run.documents[:5]:
        writer(name, doc)
    writer.flush()
    # Long enough that it ends only because of what is heard.
    with follow(server.client, run.uid, interval=2 * SECONDS, spool=False) as follower:
        events = hear(follower)
        for name, doc in run.documents[5:]:
            writer(name, doc)
            if name == "event":
                events.append(follower.poll(SECONDS))
        assert follower.poll(SECONDS) is None
        assert [each.position for each in events] == list(range(1, run.events + 1))
        assert [each["x"] for each in events] == run.x
        for event in events:
            np.testing.assert_array_equal(event["wave"], run.waves[event.row])
            np.testing.assert_array_equal(event["image"][0], run.images[event.row])


def test_streams_that_begin_later(server, writer):
    """Streams that take turns, and one that begins when the run is heard, come in their order."""
    scan, expected = Scan(writer, "primary", "dark"), []
    with follow(server.client, scan.uid, interval=2 * SECONDS, spool=False) as follower:
        scan.take("primary")
        events = hear(follower)
        for name in ("dark", "primary", "primary", "late", "dark", "late", "primary"):
            if name == "late" and "late" not in expected:
                scan.begin("late")
            scan.take(name)
            expected.append(name)
            events.append(follower.poll(SECONDS))
        scan.end()
        assert follower.poll(SECONDS) is None
    assert [each.stream for each in events] == ["primary", *expected]
    assert [each["x"] for each in events] == list(map(float, range(8)))


def test_sockets_that_are_cut(server, writer):
    """While nothing is heard it is asked, and then heard again: nothing comes twice, nothing is left out."""
    scan = Scan(writer, "primary")
    with Relay(server.uri) as relay:
        client = from_uri(relay.uri, api_key=server.api_key)
        with follow(client, scan.uid, interval=0.05, spool=False) as follower:
            events = []
            for _ in range(3):
                scan.take()
                events.append(follower.poll(SECONDS))
                events += hear(follower)
                relay.cut()
                for _ in range(3):
                    scan.take()
                    events.append(follower.poll(SECONDS))
            events += hear(follower)
            scan.end()
            assert list(follower) == []
        client.context.close()
    assert [each["x"] for each in events] == list(map(float, range(12)))


def test_a_server_that_starts_again(data_directory, tmp_path):
    """A run is followed on after its server was away, by websockets as before."""
    with serve_catalog(tmp_path / "catalog", readable=data_directory, streams=True) as served:
        port, key = int(served.uri.rpartition(":")[2]), served.api_key
        writer = CatalogWriter.from_uri(served.uri, api_key=key, spool=tmp_path / "spool", interval=0.02)
        scan = Scan(writer, "primary")
        scan.take()
        client = from_uri(served.uri, api_key=key)
        follower = follow(client, scan.uid, interval=0.05, spool=False)
        events = hear(follower)
    scan.take()
    assert follower.poll(0.3) is None
    with serve_catalog(tmp_path / "catalog", readable=data_directory, port=port, api_key=key, streams=True):
        events.append(follower.poll(2 * SECONDS))
        events += hear(follower)
        scan.take()
        scan.end()
        events += follower
        writer.close()
        client.context.close()
    assert [each["x"] for each in events] == [0.0, 1.0, 2.0]


@NEEDS_REDIS
def test_a_redis_that_goes_away(tmp_path):
    """While Redis is away what is written waits, as for a catalog that is away; a new one has it all go on."""
    with ExitStack() as stack:
        first = stack.enter_context(ExitStack())
        address = first.enter_context(redis_server(tmp_path))
        served = stack.enter_context(serve_catalog(streams=address))
        writer = stack.enter_context(
            CatalogWriter.from_uri(served.uri, api_key=served.api_key, spool=tmp_path / "spool", interval=0.02)
        )
        scan = Scan(writer, "primary")
        scan.take()
        follower = stack.enter_context(follow(served.client, scan.uid, interval=0.05, spool=False))
        events = [follower.poll(SECONDS), *hear(follower)]
        first.close()
        scan.take()
        with pytest.raises(CatalogUnreachableError, match="status 503: This request cannot be answered now"):
            writer.flush(1.0)
        stack.enter_context(redis_server(tmp_path, int(address.rpartition(":")[2].partition("/")[0])))
        events.append(follower.poll(2 * SECONDS))
        events += hear(follower)
        scan.take()
        scan.end()
        events += follower
    assert [each["x"] for each in events] == [0.0, 1.0, 2.0]


@NEEDS_REDIS
def test_a_server_that_accepts_too_soon(tmp_path, monkeypatch):
    """A server accepts who listens before its store has it told what is new: until then nothing is counted on."""
    monkeypatch.setattr(listening, "_SETTLE_SECONDS", 3.0)
    with ExitStack() as stack:
        redis = Relay(stack.enter_context(redis_server(tmp_path)), b"SUBSCRIBE", 1.5)
        served = stack.enter_context(serve_catalog(streams=stack.enter_context(redis).uri.replace("http", "redis")))
        writer = stack.enter_context(
            CatalogWriter.from_uri(served.uri, api_key=served.api_key, spool=tmp_path / "spool", interval=0.02)
        )
        scan = Scan(writer, "primary")
        scan.take()
        writer.flush(SECONDS)
        # Long enough that it ends only because of what is heard.
        with follow(served.client, scan.uid, interval=4 * SECONDS, spool=False) as follower:
            events = hear(follower)
            scan.take()
            events.append(follower.poll(SECONDS))
            scan.end()
    assert [each["x"] for each in events] == [0.0, 1.0]


def test_who_goes_away(server, writer, recwarn):
    """Neither who closes a follower while another thread waits for it, nor who forgets it, leaves a thread behind."""
    scan = Scan(writer, "primary")
    closed, forgotten = (follow(server.client, scan.uid, interval=0.02, spool=False) for _ in range(2))
    hear(closed)
    hear(forgotten)
    assert len(listeners()) == 2
    waiting = threading.Thread(target=list, args=(closed,))
    waiting.start()
    closed.close()
    waiting.join(SECONDS)
    assert not waiting.is_alive()
    (left,) = listeners()
    del forgotten
    gc.collect()
    left.join(SECONDS)
    assert not left.is_alive()


def test_asynchronously(server, writer):
    """Beside other tasks events come as they are heard, and whoever is cancelled has taken none."""
    scan = Scan(writer, "primary")

    async def go_on():
        events = []
        with follow(server.client, scan.uid, interval=0.02, spool=False) as follower:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await anext(follower)
            for _ in range(3):
                scan.take()
                events.append(await anext(follower))
            scan.end()
            events += [each async for each in follower]
        return events

    assert [each["x"] for each in asyncio.run(go_on())] == [0.0, 1.0, 2.0]


def test_messages_that_are_not_understood(server, writer, monkeypatch):
    """What another version of Tiled may say has the run asked about until it is there."""
    monkeypatch.setattr(following_news, "rows_of_message", lambda message: message["in other words"])
    scan, events = Scan(writer, "primary"), []
    scan.take()
    with follow(server.client, scan.uid, interval=0.5, spool=False) as follower:
        monkeypatch.setattr(following_news, "_UNSURE_SECONDS", 0.2)
        events += hear(follower)
        for _ in range(3):
            scan.take()
            events.append(follower.poll(SECONDS))
        scan.end()
        assert list(follower) == []
    assert [each["x"] for each in events] == [0.0, 1.0, 2.0, 3.0]


def test_a_server_that_has_forgotten_how_far_it_was(server, writer, monkeypatch, asked):
    """After some minutes of nothing websockets are made anew, and it is asked once."""
    scan = Scan(writer, "primary")
    scan.take()
    with follow(server.client, scan.uid, interval=2 * SECONDS, spool=False) as follower:
        hear(follower)
        before = follower._source._news.connections
        monkeypatch.setattr(following_news, "_RENEW_SECONDS", 0.2)
        deadline = time.monotonic() + SECONDS
        while follower._source._news.connections < before + 4:
            assert follower.poll(0.02) is None
            assert time.monotonic() < deadline
        monkeypatch.undo()
        scan.take()
        assert follower.poll(SECONDS)["x"] == 1.0


def test_where_nothing_is_streamed(catalog, tmp_path):
    """A server that does not stream is asked at intervals, and by one attempt at a websocket."""
    with CatalogWriter(catalog.client, spool=tmp_path / "spool", interval=0.02) as writer:
        scan = Scan(writer, "primary")
        with follow(catalog.client, scan.uid, interval=0.02, spool=False) as follower:
            assert follower.poll(0.5) is None
            assert follower._source._news.is_refused
            assert not follower._source._news.is_heard
            scan.take()
            assert follower.poll(SECONDS)["x"] == 0.0
            scan.end()
            assert list(follower) == []
    assert isinstance(follower._source._news, NewsOfRun)
    assert listeners() == []


def test_a_stock_server(stock, tmp_path, asked):
    """A server without anything of ours is heard as ours is."""
    client, _ = stock
    with CatalogWriter(client, spool=tmp_path / "spool", interval=0.02) as writer:
        scan = Scan(writer, "primary")
        scan.take()
        with follow(client, scan.uid, interval=2 * SECONDS, spool=False) as follower:
            events = hear(follower)
            asked.clear()
            assert follower.poll(0.5) is None
            for _ in range(3):
                scan.take()
                events.append(follower.poll(SECONDS))
            assert asked == []
            scan.end()
            assert list(follower) == []
    assert [each["x"] for each in events] == [0.0, 1.0, 2.0, 3.0]
