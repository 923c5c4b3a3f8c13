"""Who is told of what is new in a run is told of its end, by each kind of server that tells anybody."""

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import httpx
import pytest
from redis_servers import REDIS, redis_server
from small_runs import SmallRun
from tiled.client import from_uri
from tiled.client.stream import Subscription
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from bluesky_filestore import CatalogWriter, serve_catalog
from bluesky_filestore.catalogs.tiled.once import FailedOnceError, _AsksOnce
from bluesky_filestore.catalogs.tiled.streams import Streams
from bluesky_filestore.leanings import _logged

# What Tiled's client does to a version of websockets that is newer than it.
pytestmark = pytest.mark.filterwarnings("ignore:connect:DeprecationWarning")


@pytest.fixture(scope="module")
def stock_options():
    """The stock server has webhooks, too."""
    return {"enable_webhooks": True}


NEEDS_REDIS = pytest.mark.skipif(not REDIS, reason="redis-server is not installed")


@pytest.fixture(scope="module", params=["stock", "ours", pytest.param("ours with Redis", marks=NEEDS_REDIS), "nobody"])
def server(request, tmp_path_factory) -> "Iterator[tuple[str, str, Path, bool]]":
    """The address and key of a server, a directory that it reads, and whether it streams."""
    data = tmp_path_factory.mktemp("data")
    if request.param == "stock":
        client, data = request.getfixturevalue("stock")
        yield str(client.context.api_uri), client.context.api_key, data, True
    else:
        with ExitStack() as stack:
            streams = request.param == "ours"
            if request.param == "ours with Redis":
                streams = stack.enter_context(redis_server(tmp_path_factory.mktemp("redis")))
            served = stack.enter_context(serve_catalog(readable=data, streams=streams))
            yield served.uri, served.api_key, data, bool(streams)


@pytest.fixture
def asked(monkeypatch) -> list[tuple[str, str]]:
    """The requests about streams that go to servers."""
    asked, send = [], httpx.Client.send

    def noting(self, request, **options):
        if any(part in request.url.path for part in ("/stream/", "/webhooks/")):
            asked.append((request.method, request.url.path.partition("/api/v1")[2]))
        return send(self, request, **options)

    monkeypatch.setattr(httpx.Client, "send", noting)
    return asked


def until(is_so) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_every_node_is_closed_once(server, asked):
    """Each node of a run is closed once, what is in it first; a server that tells nobody anything is asked once."""
    uri, key, data, streams = server
    runs = [SmallRun(data, number) for number in range(2)]
    with CatalogWriter.from_uri(uri, api_key=key, spool=None, wait_on_stop=0) as writer:
        for run in runs:
            for name, doc in run.documents:
                writer(name, doc)
        writer.flush()
        assert writer.status().problems == ()
    closed = [path.removeprefix("/stream/close/").lstrip("/") for method, path in asked if method == "DELETE"]
    for run in runs if streams else ():
        expected = {f"/primary/{key}" for key in ("internal", "wave", "pair", "image")} | {"/primary", ""}
        of_run = [path.removeprefix(run.uid) for path in closed if path.startswith(run.uid)]
        assert sorted(of_run) == sorted(expected)
        assert of_run[-2:] == ["/primary", ""]
    if not streams:
        assert closed == []
    assert [each for each in asked if each[0] == "GET"] == [
        ("GET", "/stream/single/"),
        *([] if streams else [("GET", "/webhooks/target/")]),
    ]


def _unchanging(name, doc):
    """An event whose values stay of one type, so that its table is never made anew."""
    return (name, doc | {"data": doc["data"] | {"x": 1, "pair": [1, 2]}}) if name == "event" else (name, doc)


def test_subscribers_end(server, request):
    """The stock client's subscriptions, and those of bluesky-tiled-plugins, get all rows and end with the run.

    So does one of a table that is made anew because its values turn out to be others, with that.
    """
    streaming = pytest.importorskip("bluesky_tiled_plugins.streaming", reason="bluesky-tiled-plugins before 2.0.12")
    uri, key, data, streams = server
    if not streams:
        return
    stays = "ours" not in request.node.name
    if not stays:
        # As everything of ours, to whoever has no key.
        with pytest.raises(InvalidStatus, match="401"), connect(f"{uri.replace('http', 'ws')}/api/v1/stream/single/"):
            pass
    run, rows, ended, updates = SmallRun(data, 5), [], [], []
    documents = [_unchanging(*each) if stays else each for each in run.documents]
    client = from_uri(uri, api_key=key)
    mine = {"run_filter": lambda update: update.key == run.uid}
    everything = streaming.subscribe_to_streams(client, updates.append, streams=None, **mine)
    with CatalogWriter.from_uri(uri, api_key=key, spool=None) as writer:
        for name, doc in documents[:8]:
            writer(name, doc)
        writer.flush()
        node = client[run.uid]
        table = node["primary"].base["internal"]

        # Tiled holds callbacks weakly.
        def take(update):
            rows.extend(update.data()["seq_num"].tolist())

        def end(subscription):
            ended.append(subscription)

        subscriptions: list[Subscription] = [table.subscribe(), node["primary"].base.subscribe(), node.base.subscribe()]
        subscriptions[0].new_data.add_callback(take)
        for subscription in subscriptions:
            subscription.stream_closed.add_callback(end)
            subscription.start_in_thread(0)
        for name, doc in documents[8:]:
            writer(name, doc)
    until(lambda: len(ended) == 3)
    assert set(rows) >= set(range(1, run.events + 1 if stays else 2))
    # Of those that have ended the plugins keep a list all the same.
    of_run = [each for address, (each, *_) in everything._subscriptions.items() if run.uid in address]
    until(lambda: all(each._disconnect_event.is_set() for each in of_run))
    assert len(of_run) == 6
    assert {key for update in updates for key in update.data_keys} >= {"x", "wave", "pair", "image"}
    everything.disconnect()
    for subscription in subscriptions:
        subscription.disconnect()
    client.context.close()


def test_who_goes_before_it_is_answered(server, request, caplog):
    """Whoever asks for a websocket and is gone before there is one is no error of the server."""
    uri, key, *_ = server
    if "ours" not in request.node.name:
        return
    there = httpx.URL(uri)
    head = f"GET /api/v1/stream/single/ HTTP/1.1\r\nHost: {there.host}:{there.port}\r\nAuthorization: Apikey {key}\r\n"
    head += "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
    for _ in range(20):
        with socket.create_connection((there.host, there.port)) as gone:
            gone.sendall(f"{head}{base64.b64encode(bytes(16)).decode()}\r\n\r\n".encode())
    # Behind all of these.
    with connect(
        f"{uri.replace('http', 'ws')}/api/v1/stream/single/", additional_headers={"Authorization": f"Apikey {key}"}
    ):
        pass
    time.sleep(0.2)
    assert [each.message for each in caplog.records if each.levelname == "ERROR"] == []


class _Called(BaseHTTPRequestHandler):
    """Somebody who is called."""

    calls: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self):
        """A call."""
        self.calls.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments):
        """Nothing is said of it."""


def test_a_webhook_is_called(stock):
    """Whoever has registered for it is called for the run itself, once, when it has all of it."""
    client, data = stock
    receiver = HTTPServer(("127.0.0.1", 0), _Called)
    thread = threading.Thread(target=receiver.serve_forever)
    thread.start()
    try:
        hook = {"url": f"http://127.0.0.1:{receiver.server_port}", "events": ["stream-closed"]}
        client.context.http_client.post(f"{client.context.api_uri}webhooks/target/", json=hook).raise_for_status()
        run = SmallRun(data, 7)
        with CatalogWriter(client, spool=None) as writer:
            for name, doc in run.documents:
                writer(name, doc)
        until(lambda: [run.uid] in [call["path"] for call in _Called.calls])
    finally:
        receiver.shutdown()
        receiver.server_close()
        thread.join()
    paths = [tuple(call["path"]) for call in _Called.calls]
    assert len(paths) == len(set(paths)) == 6
    assert {call["type"] for call in _Called.calls} == {"stream-closed"}


class _Answers(httpx.BaseTransport):
    """A server that answers requests about streams in some way."""

    def __init__(self, answers):
        self.answers, self.asked = answers, []

    def handle_request(self, request):
        """An answer, or a failure."""
        path = request.url.path.removeprefix("/api/v1")
        self.asked.append((request.method, path))
        answer = next(answer for part, answer in self.answers.items() if path.startswith(part))
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer, json={}, request=request)


TOLD = {"/stream/single": 101, "/stream/close": 200}
CASES = {
    "streams": (TOLD, 3, ""),
    "nobody is told": ({"/stream/single": 500, "/webhooks": 404}, 0, ""),
    "no websockets get through": ({"/stream/single": 426, "/webhooks": 405}, 0, ""),
    "webhooks only": ({"/stream/single": 500, "/webhooks": 403, "/stream/close": 200}, 3, ""),
    "may not": (TOLD | {"/stream/close": 403}, 3, "status 403"),
    "nodes are gone": (TOLD | {"/stream/close": 404}, 3, "status 404"),
    "fails": (TOLD | {"/stream/close": 500}, 1, "Server error '500"),
    "hangs": (TOLD | {"/stream/close": httpx.ReadTimeout("slow")}, 1, "slow"),
    "does not say": ({"/stream/single": 503}, 0, "503"),
}


@pytest.mark.parametrize("case", CASES)
def test_servers_of_any_kind(case, caplog):
    """Whatever a server makes of it, it costs no run anything: no error, no second try, one line in the log."""
    answers, closed, words = CASES[case]
    streams, transport = _streams(answers)
    _logged.clear()
    for run in ("a", "b"):
        streams.expect_end(run, [f"http://here/api/v1/metadata/{run}/{path}" for path in ("s/t", "s", "")])
        streams.end(run)
        streams.end(run)
    assert len([path for method, path in transport.asked if method == "DELETE"]) == 2 * closed
    assert len([path for method, path in transport.asked if method == "GET"]) <= (2 if case != "does not say" else 4)
    assert [record.message for record in caplog.records if words in record.message and words] or not words
    assert len([record for record in caplog.records if record.name.endswith("streams")]) <= 1


def test_a_server_that_is_away():
    """While there is no server it is an error, as for all else that is to be done; then the rest is said."""
    answers = TOLD | {"/stream/close/a/s": httpx.ConnectError("away")}
    streams, transport = _streams(dict(reversed(answers.items())))
    streams.expect_end("a", [f"http://here/api/v1/metadata/a/{path}" for path in ("t", "s", "")])
    with pytest.raises(FailedOnceError, match="away"):
        streams.end("a")
    del transport.answers["/stream/close/a/s"]
    streams.end("a")
    assert [path for method, path in transport.asked if method == "DELETE"] == [
        f"/stream/close/a/{path}" for path in ("t", "s", "s", "")
    ]


def _streams(answers):
    transport = _Answers(answers)
    client = httpx.Client(transport=transport)
    root = SimpleNamespace(uri="http://here/api/v1/metadata/", context=SimpleNamespace(http_client=_AsksOnce(client)))
    return Streams(root), transport
