"""What stands before Tiled's application, and who gets to see what."""

import asyncio
import gc
import io
import itertools
import logging
import os
import re
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pyarrow
import pytest
import yaml
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from spooled import run_documents
from starlette.responses import PlainTextResponse
from tiled.client import from_uri
from tiled.client.container import Container
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as connect_websocket

from bluesky_filestore import CatalogWriter, serve_catalog
from bluesky_filestore.catalog_address import container_address
from bluesky_filestore.catalogs.tiled.connecting import connect
from bluesky_filestore.errors import CatalogError, FileStoreError
from bluesky_filestore.serving.guard import Guard
from bluesky_filestore.visible import shown_address

SECRET = "a sample nobody may know of"  # noqa: S105
# What is answered to anybody. Whoever adds to it says why, in the guard.
OPEN = {"/", "/healthz", "/api/v1/"}
METHODS = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "get", ""]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A server with a run's worth of secrets."""
    with serve_catalog(tmp_path_factory.mktemp("guard")) as server:
        run = server.client.create_container("run", metadata={"start": {"sample": SECRET}})
        run.write_array(np.frombuffer(SECRET.encode(), "u1"), key="array", metadata={"sample": SECRET})
        table = run.create_appendable_table(pyarrow.schema([("x", "double"), ("text", "string")]), key="table")
        table.append_partition(0, {"x": [1.0, 2.0, 3.0], "text": [SECRET] * 3})
        yield server


@pytest.fixture(scope="module")
def guard(place):
    """What the server runs."""
    return place._server.config.app


@pytest.fixture(scope="module")
def routes(guard):
    """Each route that the application has, by its path and its methods; a websocket's has none."""
    # By its type: `isinstance` asks what a weak proxy stands for, which may be gone.
    (app,) = [each for each in gc.get_objects() if issubclass(type(each), FastAPI) and is_behind(guard, each)]
    found = {(each.path, tuple(getattr(each, "methods", None) or ())) for each in iter_route_contexts(app.routes)}
    assert len(found) > 60
    assert ("/static", ()) in found
    assert any(path.startswith("/api/v1/stream/single") and not methods for path, methods in found)
    return found


def is_behind(guard, app):
    """Whether an application is that of this server, of several in the process."""
    return app.state.root_tree is guard.app.app.app.app._arrays._tree


def spelled(path):
    """A path with a node in it, and as others would write it."""
    for node in ("run", "run/array", "run/array/0", ""):
        filled = re.sub(r"{(\w+)(:path)?}", lambda found, node=node: node if found[2] else "x", path)
        yield from (filled, f"{filled}/", filled.rstrip("/"), f"/{filled}", filled.replace("/", "//"), filled.upper())
        yield from (f"/.{filled}", f"/x/..{filled}", f"{filled}\0", f"{filled}%2f", f"{filled};x", f"http://x{filled}")


def keys(key):
    """Headers and queries with a key, in each place that one may be in."""
    for name in ("Authorization", "authorization"):
        yield [(name.lower().encode(), b"Apikey " + key.encode())], b""
    yield [(b"authorization", b"Bearer " + key.encode())], b""
    yield [(b"cookie", b"a=b; tiled_api_key=" + key.encode())], b""
    yield [], b"api_key=" + key.encode()
    yield [], b"a=b&access_token=" + key.encode()


async def asked(guard, path, method="GET", headers=(), query=b"", host=b"127.0.0.1:8000", kind="http"):
    """The status that a request is answered with by what the server runs, and the answer."""
    told = []

    async def send(message):
        told.append(message)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    raw = [*((b"host", each) for each in ([host] if isinstance(host, bytes) else host)), *headers]
    scope = {"type": kind, "path": path, "raw_path": path.encode(), "query_string": query, "headers": raw}
    scope |= {
        "method": method,
        "scheme": "http",
        "root_path": "",
        "http_version": "1.1",
        "client": None,
        "server": None,
    }
    await guard(scope | {"extensions": {"websocket.http.response": {}}, "state": {}, "subprotocols": []}, receive, send)
    return told[0].get("status"), b"".join(message.get("body", b"") for message in told)


def test_no_route_answers_without_the_key(guard, routes):
    """Each route, with whatever method, spelled anyhow, with no key and a wrong one, wherever it may be."""

    async def ask_all():
        answered, count = set(), 0
        none = [([], b"")]
        wrong = [*none, *keys("wrong"), *keys("")]
        for path, methods in routes:
            own = ("websocket", ""), *(("http", each) for each in {"GET", *methods})
            every = *own, *(("http", each) for each in METHODS)
            (plain, *others) = dict.fromkeys(spelled(path))
            for texts, ways, given in (([plain], every, wrong), ({*others} - OPEN, own, none)):
                for text, (kind, method), (headers, query) in itertools.product(texts, ways, given):
                    status, body = await asked(guard, text, method, headers, query, kind=kind)
                    count += 1
                    is_open = text in OPEN and kind == "http" and method in ("GET", "HEAD")
                    if not is_open and (status != 401 or b"answers nobody without its key" not in body):
                        answered.add((kind, method, text, query, status))
        return answered, count

    answered, count = asyncio.run(ask_all())
    assert count > 10_000
    assert not answered


def test_what_is_open_is_open_whole(guard):
    """Not for writing, and not for websockets, however little would come of it."""

    async def ask_all():
        return {
            (path, kind, method)
            for path in OPEN
            for kind, method in (
                ("websocket", ""),
                *(("http", each) for each in METHODS if each not in ("GET", "HEAD")),
            )
            if (await asked(guard, path, method, kind=kind))[0] != 401
        }

    assert not asyncio.run(ask_all())


def test_routes_over_the_wire(place, routes):
    """The same with requests, without a key and with it: it is the key that makes the difference."""
    with httpx.Client(base_url=place.uri, timeout=30) as client:
        for path in OPEN:
            assert client.get(path, headers={"Authorization": "Apikey wrong"}).status_code == 200
            assert SECRET not in client.get(path).text
            assert "set-cookie" not in {*client.get(f"{path}?api_key=wrong").headers} or not client.cookies.get(
                "tiled_api_key"
            )
        client.cookies.clear()
        for path, methods in routes:
            for method in methods:
                answer = client.request(method, next(spelled(path)))
                assert answer.status_code == 401 or path in OPEN, (path, method)
        for way in ({"headers": {"Authorization": f"Apikey {place.api_key}"}}, {"params": {"api_key": place.api_key}}):
            assert SECRET in client.get("/api/v1/metadata/run", **way).text
        # A browser that was given the key once has it as a cookie by now.
        assert SECRET in client.get("/api/v1/metadata/run").text
        assert client.get("/docs").status_code == client.get("/openapi.json").status_code == 200
        assert client.get("/ui/").status_code == client.get("/tiled-ui-settings").status_code == 200


def test_a_new_route_is_closed(guard, routes):
    """What a later Tiled comes with asks for the key, whether it does so itself or not."""
    new = Guard(PlainTextResponse("new"), "key")
    status = partial(asked, new, "/brand/new")
    assert asyncio.run(status())[0] == 401
    assert asyncio.run(status(headers=[(b"authorization", b"APIKEY key ")])) == (200, b"new")


@pytest.mark.parametrize(
    ("key", "status", "words"),
    [
        (None, 401, b"answers nobody without its key"),
        ("wrong", 401, b"answers nobody without its key"),
        ("right", 404, b"streams nothing"),
    ],
)
def test_websockets(place, key, status, words):
    """A stream is refused in words, to whoever has no key in others."""
    headers = {} if key is None else {"Authorization": f"Apikey {place.api_key if key == 'right' else key}"}
    uri = f"{place.uri.replace('http', 'ws')}/api/v1/stream/single/run/array"
    with pytest.raises(InvalidStatus) as refused, connect_websocket(uri, additional_headers=headers):
        pass
    assert refused.value.response.status_code == status
    assert words in refused.value.response.body


HOSTS = {
    b"127.0.0.1": True,
    b"LocalHost:1": True,
    b"[::1]:65535": True,
    b"data.example.org": True,
    b"Data.Example.org:443": True,
    b"evil.example.org": False,
    b"127.0.0.1.evil.example.org": False,
    b"evil@127.0.0.1": False,
    b"127.0.0.1:8000@evil": False,
    b"localhost.": False,
    b"localhost:": False,
    b"127.0.0.1, evil": False,
    b"127.0.0.2": False,
    b"2130706433": False,
    b"[::]": False,
    b"::1": False,
    b"0.0.0.0": False,
    b"": False,
    b"localhost\xff": False,
    b"local host": False,
}


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_names_of_the_server(host, kind):
    """It is asked as what it is, in the header of a proxy as well; else a stranger's page may have its address."""
    guard = Guard(PlainTextResponse("fine"), "key", ["Data.example.org"])
    headers = [(b"authorization", b"Apikey key")]
    for asking in (
        {"host": host},
        {"host": b"localhost", "headers": [*headers, (b"x-forwarded-host", host)]},
        {"host": [b"localhost", host]},
    ):
        for path in ("/", "/api/v1/metadata/"):
            status, body = asyncio.run(asked(guard, path, **{"kind": kind, "headers": headers} | asking))
            assert (status == 200) == HOSTS[host], (asking, body)
            assert status == 200 or (status == 400 and b"This server is asked as" in body and b"--host-name" in body)
    assert asyncio.run(asked(guard, "/", host=[]))[0] == 400


ORIGINS = {
    b"http://localhost:8000": True,
    b"http://data.example.org": True,
    b"https://data.example.org:444": True,
    b"http://localhost": False,
    b"http://localhost:8001": False,
    b"http://127.0.0.1:8000": False,
    b"http://evil.example.org": False,
    b"http://evil@localhost:8000": False,
    b"localhost:8000": False,
    b"null": False,
    b"": False,
}


@pytest.mark.parametrize("origin", ORIGINS)
def test_pages_of_elsewhere(origin):
    """A cookie, or a link with a key, does nothing for a page of another server; who has the key may show it."""
    guard = Guard(PlainTextResponse("fine"), "key", ["data.example.org"])
    for path in ("/", "/api/v1/metadata/"):
        for headers, query in list(keys("key"))[3:5]:
            for kind, method in (("http", "GET"), ("http", "POST"), ("http", "OPTIONS"), ("websocket", "")):
                headers = [*headers, (b"origin", origin)]
                how = {"method": method, "headers": headers, "query": query, "host": b"localhost:8000", "kind": kind}
                status, body = asyncio.run(asked(guard, path, **how))
                assert status == (200 if ORIGINS[origin] else 403), (how, body)
                assert status == 200 or b"which is not of this server" in body
        shown = [(b"authorization", b"Apikey key"), (b"origin", origin)]
        assert asyncio.run(asked(guard, path, headers=shown))[0] == 200


def test_names_are_given(tmp_path):
    """By an option, where the server is started."""
    with serve_catalog(tmp_path, host_names="data.example.org") as server:
        headers = {"Authorization": f"Apikey {server.api_key}"}
        for name, status in (("data.example.org", 200), ("other.example.org", 400)):
            answer = httpx.get(f"{server.uri}/api/v1/metadata/", headers=headers | {"Host": name})
            assert answer.status_code == status
        assert "asked as 'other.example.org'; expected one of 127.0.0.1, [::1], data.example.org" in answer.text


def test_there_is_no_zarr_for_anybody(place):
    """Not with the key either: the client that zarr is for has none."""
    for path in ("/zarr/v2/", "/zarr/v2/run/array/0", "/zarr/v3/run/zarr.json", "/%7Aarr/v2/"):
        answer = httpx.get(place.uri + path, headers={"Authorization": f"Apikey {place.api_key}"})
        assert answer.status_code == 404
        assert SECRET not in answer.text


def test_what_the_documentation_closes(tmp_path, monkeypatch):
    """The application of the how-to answers as a stock server, but for what that tells people without a key."""
    args = {"uri": str(tmp_path / "c.db"), "init_if_not_exists": True, "writable_storage": str(tmp_path / "data")}
    trees = [{"path": "/", "tree": "catalog", "args": args}]
    config = {"authentication": {"single_user_api_key": "key"}, "trees": trees}
    (tmp_path / "config.yml").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("TILED_CONFIG", str(tmp_path / "config.yml"))
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "docs" / "how-to")
    import closed

    stock = closed.app_factory()
    monkeypatch.setattr(closed, "app_factory", lambda: stock)

    async def ask(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            paths = ("/zarr/v2/.zgroup", "/zarr/v3/zarr.json", "/api/graphql", "/healthz", "/api/v1/metadata/")
            right = await client.get("/api/v1/metadata/", headers={"Authorization": "Apikey key"})
            return [(await client.get(path)).status_code for path in paths] + [right.status_code]

    async def ask_both():
        async with stock.router.lifespan_context(stock):
            return await ask(stock), await ask(closed.app())

    assert asyncio.run(ask_both()) == ([200, 200, 200, 200, 401, 200], [404, 404, 404, 200, 401, 200])


@pytest.mark.parametrize("expected", ["1", "2", "3"])
def test_rows_that_were_expected(place, expected):
    """A column is asked for as long as it was when its structure was asked for; that many rows come, at once."""
    headers = {"Authorization": f"Apikey {place.api_key}", "Accept": "application/octet-stream"}
    url = f"{place.uri}/api/v1/array/full/run/table/x"
    answer = httpx.get(url, params={"expected_shape": expected}, headers=headers)
    assert np.frombuffer(answer.content).tolist() == [1.0, 2.0, 3.0][: int(expected)]


def test_column_of_a_run_that_grows(place, monkeypatch):
    """The stock client reads a column while rows come, each time a beginning of it."""
    monkeypatch.setenv("TILED_RETRY_ATTEMPTS", "1")
    table = place.client["run"].create_appendable_table(pyarrow.schema([("n", "double")]), key="grows")
    table.append_partition(0, {"n": [0.0]})
    client = from_uri(place.uri, api_key=place.api_key)
    try:
        column = Container.__getitem__(client, "run")["grows"]["n"]
        for number in range(1, 4):
            table.append_partition(0, {"n": [float(number)]})
            assert column.read().tolist() == [0.0]
    finally:
        client.context.close()


def test_keys_are_nowhere(place, tmp_path):
    """Not in what is printed or logged, not in a spool, and not in what is asked of a server."""
    key = place.api_key
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logging.getLogger().addHandler(handler)
    told = []
    try:
        for number, uri in enumerate(
            [f"{place.uri}?api_key={key}", f"{place.uri}/api/v1/?api_key={key}%0A", place.uri]
        ):
            with CatalogWriter.from_uri(uri, spool=tmp_path / f"{number}", api_key=f" {key}\n") as writer:
                told.append(str(writer.status()))
        for uri in (
            f"http://127.0.0.1:1/?api_key={key}",
            f"http://local host:x/?api_key={key}",
            f"http://user:{key}@127.0.0.1:1/",
            f"file:///?api_key={key}",
        ):
            for make in (CatalogWriter, CatalogWriter.from_uri, connect, container_address):
                try:
                    told.append(str(make(uri)))
                except FileStoreError as error:
                    told.append(f"{error} {error!r}")
        with pytest.raises(CatalogError) as refused:
            connect(place.uri, api_key=f"{key}\nx")
        told.append(str(refused.value))
        httpx.get(f"{place.uri}/api/v1/metadata/?api_key={key}")
    finally:
        logging.getLogger().removeHandler(handler)
    told.append(stream.getvalue())
    written = [path for path in (*tmp_path.rglob("*"), *place.directory.glob("*.log")) if path.is_file()]
    assert len(written) > 3
    assert not [words for words in told if key in words]
    assert not [path for path in written if key.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://localhost:8000/api/v1?api_key=x", "http://localhost:8000/api/v1"),
        ("http://user:pass@localhost/a#x", "http://localhost/a"),
        ("user:p@ss@host/a?b", "host/a"),
        ("", ""),
    ],
)
def test_addresses_as_they_are_shown(uri, shown):
    """Without query, fragment and user, also of what is no address."""
    assert shown_address(uri) == shown


def test_passwords_of_databases(tmp_path):
    """A database's password is in no error, wherever in its URI it stands."""
    for uri in ("postgresql://u:PASSW0RD@127.0.0.1:1/x", "postgresql://127.0.0.1:1/x?user=u&password=PASSW0RD"):
        with pytest.raises(CatalogError) as refused:
            serve_catalog(tmp_path / "never", database=uri)
        assert "PASSW0RD" not in str(refused.value)


def test_lane_leaves_to_tiled_what_it_does_not_understand(place, monkeypatch, caplog):
    """Where Tiled's inside has changed, the answer is Tiled's, and that is logged once."""
    from bluesky_filestore.serving.known_arrays import KnownArrays

    async def changed(*_):
        raise AttributeError("no attribute 'context'")

    monkeypatch.setattr(KnownArrays, "find", changed)
    headers = {"Authorization": f"Apikey {place.api_key}", "Accept": "application/octet-stream"}
    for _ in range(2):
        answer = httpx.get(f"{place.uri}/api/v1/array/full/run/array", headers=headers)
        assert answer.content.decode() == SECRET
    assert caplog.text.count("Arrays are left to Tiled") == 1


def test_files_are_private(tmp_path):
    """What is kept for a user is his alone, whatever the umask: documents, catalogs, logs."""
    before = os.umask(0)
    try:
        with (
            serve_catalog(tmp_path / "catalog") as server,
            CatalogWriter(server.client, spool=tmp_path / "spool") as writer,
        ):
            for document in run_documents(2)[1]:
                writer(*document)
            writer.flush()
            # Those that SQLite and Tiled make beside and below.
            made = [tmp_path / "catalog", tmp_path / "spool", *(tmp_path / "catalog").iterdir()]
            made += (path for path in (tmp_path / "spool").rglob("*"))
    finally:
        os.umask(before)
    assert {"catalog.db", "access.log", "server.log", "arrays"} <= {path.name for path in made}
    assert [path for path in made if path.exists() and path.stat().st_mode & 0o077] == []


def test_the_page_of_runs(place):
    """The page is behind the key as all else, and lists runs with what is known of their frames, and nothing more."""
    lacks = {"missing": {"primary": {"image": {"events": [3], "reason": "its file ends"}}}}
    start = {"uid": "a-run", "time": 1e9, "scan_id": 12, "plan_name": "<b>", "sample_name": ["x"], "secret": SECRET}
    stop = {"time": 1e9 + 5, "exit_status": "success", "num_events": {"primary": 4, "dark": "x"}}
    metadata = {"start": start, "stop": stop, "filestore": lacks, "notes": []}
    place.client.create_container("a-run", metadata=metadata)
    with httpx.Client(base_url=place.uri) as client:
        for path in ("/filestore", "/filestore/runs", "/metrics"):
            assert client.get(path).status_code == 401
        assert (
            "<title>filestore"
            in client.get("/filestore", params={"api_key": place.api_key}, follow_redirects=True).text
        )
        assert "bluesky_filestore_" in client.get("/metrics").text
        assert "tiled_request_duration" in client.get("/api/v1/metrics").text
        answer = client.get("/filestore/runs", params={"limit": 100})
    assert SECRET not in answer.text
    listed = {each["uid"]: each for each in answer.json()["runs"]}
    assert answer.json()["count"] == len(listed) >= 2
    assert listed["a-run"] == {
        "uid": "a-run",
        "scan": "12",
        "plan": "<b>",
        "sample": "['x']",
        "time": 1e9,
        "seconds": 5.0,
        "events": 4,
        "status": "success",
        "frames": "lacking",
        "why": "missing: primary/image",
    }
    assert listed["run"]["status"] == "open"
