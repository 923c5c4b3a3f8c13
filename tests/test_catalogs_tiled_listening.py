"""Who listens to a catalog hears what its server says, whatever it says, and makes do with one that says nothing."""

import sys
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from types import SimpleNamespace

import httpx
import msgpack
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

from bluesky_filestore.catalogs.tiled import listening
from bluesky_filestore.catalogs.tiled.listening import Listener, News
from bluesky_filestore.catalogs.tiled.once import FailedOnceError
from bluesky_filestore.leanings import _logged

SCHEMA = {"type": "container-schema", "version": 1}


class Says:
    """A server that says something to whoever comes to a node, by its path."""

    def __init__(self):
        self.messages, self.keys, self.paths, self.status = {}, [], [], {}
        self.open, self.lock = [], threading.Lock()
        self._server = serve(self._say, "127.0.0.1", 0, process_request=self._judge, close_timeout=1)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.uri = f"http://127.0.0.1:{self._server.socket.getsockname()[1]}/api/v1/metadata"

    def _judge(self, connection, request):
        path, _, query = request.path.removeprefix("/api/v1/stream/single").partition("?")
        assert query == "envelope_format=msgpack"
        with self.lock:
            self.paths.append(path)
            self.keys.append(request.headers.get("Authorization"))
        status = self.status.get(path, 101)
        return None if status == 101 else connection.respond(HTTPStatus(status), "so it is")

    def _say(self, connection):
        path = connection.request.path.removeprefix("/api/v1/stream/single").partition("?")[0]
        try:
            connection.send(msgpack.packb(SCHEMA))
            with self.lock:
                self.open.append((path, connection))
            for message in self.messages.pop(path, ()):
                connection.send(message if isinstance(message, str | bytes) else msgpack.packb(message))
            for _ in connection:
                pass
        except ConnectionClosed:
            pass

    def close(self):
        """Say nothing more."""
        self._server.shutdown()
        self._thread.join()


@pytest.fixture
def says() -> "Iterator[Says]":
    """A server that says something."""
    server = Says()
    yield server
    server.close()


@pytest.fixture
def listen(says) -> "Iterator":
    """Makes who listens to it."""
    made = []

    def make(**context):
        about = SimpleNamespace(authentication=SimpleNamespace(providers=[]))
        node = SimpleNamespace(
            uri=says.uri, context=SimpleNamespace(**{"api_key": "k", "server_info": about} | context)
        )
        made.append(Listener(node))
        return made[-1]

    yield make
    for each in made:
        each.close()


def until(is_so):
    """Wait until something is so."""
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_is_said(says, listen):
    """Each message comes once, with its node; the first one of each websocket says what the node is, and does not."""
    said = [
        {"type": "container-child-created", "key": "x", "metadata": {"container-child-created": [1]}},
        {"type": "a"},
    ]
    says.messages = {"/a": said, "/a/b": [{"type": "b"}]}
    listener, addresses = listen(), [f"{says.uri}/a", f"{says.uri}/a/b"]
    assert not listener.hears(addresses)
    listener.listen_to(addresses)
    until(lambda: listener.hears(addresses) and len(listener._ears.news) == 3)
    assert listener.has_news
    news = listener.take()
    assert [each for each in news if each.address == addresses[0]] == [News(addresses[0], each) for each in said]
    assert [each for each in news if each.address == addresses[1]] == [News(addresses[1], {"type": "b"})]
    assert not listener.has_news
    assert listener.connections == 2
    assert says.keys == ["Apikey k"] * 2
    listener.listen_to(addresses[:1])
    until(lambda: not listener.hears(addresses))
    assert listener.hears(addresses[:1])
    listener.close()
    listener.close()
    listener.listen_to(addresses)
    assert not [each for each in threading.enumerate() if each.name == "catalog-listener"]


def test_another_node_in_its_place(says, listen):
    """When a node is made anew its websocket is, and those of what is in it; others stay."""
    addresses = [f"{says.uri}{path}" for path in ("/a", "/a/b", "/a/b/c", "/a/bc")]
    listener = listen()
    listener.listen_to(addresses)
    until(lambda: listener.hears(addresses))
    next(socket for path, socket in says.open if path == "/a").send(
        msgpack.packb({"type": "container-child-created", "key": "b"})
    )
    until(lambda: listener.connections == 6 and listener.hears(addresses))
    assert sorted(says.paths) == ["/a", "/a/b", "/a/b", "/a/b/c", "/a/b/c", "/a/bc"]


@pytest.mark.parametrize("message", ["words", b"\xc1", b"\x93", 7, [1], "more"], ids=repr)
def test_what_is_not_understood(says, listen, monkeypatch, message):
    """It is said that there was something, and no more is kept than is allowed."""
    if message == "more":
        monkeypatch.setattr(listening, "_MOST_BYTES", 1000)
        says.messages = {"/a": [{"type": "a", "payload": bytes(600)}] * 2}
    else:
        says.messages = {"/a": [message]}
    listener = listen()
    listener.listen_to([f"{says.uri}/a"])
    until(lambda: listener.has_news and listener._ears.news[-1].message == {})
    assert listener.take() == [News(f"{says.uri}/a", {})]


def test_a_server_that_refuses(says, listen):
    """Who is refused at the first node comes to no other, and does not come again soon."""
    says.status = {"/a": 404}
    listener = listen()
    listener.listen_to([f"{says.uri}/a", f"{says.uri}/a/b"])
    until(lambda: listener.is_refused)
    time.sleep(0.5)
    assert says.paths == ["/a"]


def test_a_server_that_comes_back(says, listen):
    """Whoever cannot be answered now, or is cut off, comes again; meanwhile it is known that nothing is heard."""
    says.status = {"/a": 503}
    listener, addresses = listen(), [f"{says.uri}/a", f"{says.uri}/a/b"]
    listener.listen_to(addresses)
    until(lambda: len(says.paths) > 1)
    assert not listener.is_refused
    says.status = {}
    until(lambda: listener.hears(addresses))
    before = listener.connections
    for _, socket in says.open:
        socket.close()
    until(lambda: not listener.hears(addresses))
    until(lambda: listener.hears(addresses))
    assert listener.connections > before
    listener.renew()
    assert not listener.hears(addresses)
    until(lambda: listener.hears(addresses))


def test_where_users_log_in(says, listen):
    """Without an API key, one is made for each websocket and taken back; nobody's key is asked for of others."""
    made, revoked = [], []

    def create(**options):
        made.append(options)
        if len(made) == 1:
            raise FailedOnceError(httpx.ConnectError("away"))
        return {"secret": f"s{len(made)}", "first_eight": f"f{len(made)}"}

    about = SimpleNamespace(authentication=SimpleNamespace(providers=["someone"]))
    listener = listen(api_key=None, server_info=about, create_api_key=create, revoke_api_key=revoked.append)
    listener.listen_to([f"{says.uri}/a"])
    until(lambda: listener.hears([f"{says.uri}/a"]) and revoked)
    assert (says.keys, revoked) == (["Apikey s2"], ["f2"])
    anybody = listen(api_key=None)
    anybody.listen_to([f"{says.uri}/a"])
    until(lambda: anybody.hears([f"{says.uri}/a"]))
    assert says.keys[1:] == [None]


def test_a_key_that_is_not_taken_back(says, listen):
    """A websocket stays open though its key could not be taken back, and is not counted on once it is cut."""
    revoked = []

    def revoke(key):
        revoked.append(key)
        raise FailedOnceError(httpx.ConnectError("away"))

    about = SimpleNamespace(authentication=SimpleNamespace(providers=["someone"]))
    made = {"secret": "s", "first_eight": "f"}
    listener = listen(api_key=None, server_info=about, create_api_key=lambda **_: made, revoke_api_key=revoke)
    listener.listen_to([f"{says.uri}/a"])
    until(lambda: listener.hears([f"{says.uri}/a"]) and revoked)
    time.sleep(0.5)
    assert says.paths == ["/a"]
    says.status = {"/a": 404}
    says.open[0][1].close()
    until(lambda: listener.is_refused)
    assert not listener.hears([f"{says.uri}/a"])


def test_who_may_make_no_key(says, listen):
    """Who may not have a key does not ask for one again and again."""
    asked = []

    def create(**options):
        asked.append(options)
        raise httpx.HTTPStatusError("no", request=httpx.Request("POST", says.uri), response=httpx.Response(403))

    about = SimpleNamespace(authentication=SimpleNamespace(providers=["someone"]))
    listener = listen(api_key=None, server_info=about, create_api_key=create)
    listener.listen_to([f"{says.uri}/a"])
    until(lambda: listener.is_refused)
    time.sleep(0.5)
    assert len(asked) == 1


def test_without_websockets(says, listen, monkeypatch, caplog):
    """With a package for websockets that is otherwise nothing is heard, and the log says so once."""
    monkeypatch.setitem(sys.modules, "websockets.asyncio.client", None)
    _logged.clear()
    for _ in range(2):
        listener = listen()
        listener.listen_to([f"{says.uri}/a"])
        until(lambda: listener.is_refused)  # noqa: B023 - it is called at once
    assert says.paths == []
    assert len([each for each in caplog.records if "asked at intervals" in each.message]) == 1
