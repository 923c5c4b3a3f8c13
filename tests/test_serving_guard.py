"""What stands before Tiled's application, and who gets to see what."""

import io
import logging
import os

import httpx
import numpy as np
import pyarrow
import pytest
from spooled import run_documents
from tiled.client import from_uri
from tiled.client.container import Container

from bluesky_filestore import CatalogWriter, serve_catalog
from bluesky_filestore.catalog_address import container_address, shown_address
from bluesky_filestore.catalogs.tiled.connecting import connect
from bluesky_filestore.errors import CatalogError, FileStoreError

SECRET = "a sample nobody may know of"  # noqa: S105
# What a client has to know before it has a key: that this is a Tiled server, and how to come by one.
OPEN = {
    "/",
    "/healthz",
    "/api/v1/",
    "/api/v1",
    "/docs",
    "/redoc",
    "/openapi.json",
    "/robots.txt",
    "/tiled-ui-settings",
    "/api/v1/auth/logout",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A server with a run's worth of secrets."""
    with serve_catalog(tmp_path_factory.mktemp("guard")) as server:
        run = server.client.create_container("run", metadata={"start": {"sample": SECRET}})
        run.write_array(np.frombuffer(SECRET.encode(), "u1"), key="array", metadata={"sample": SECRET})
        table = run.create_appendable_table(pyarrow.schema([("x", "double"), ("text", "string")]), key="table")
        table.append_partition(0, {"x": [1.0, 2.0, 3.0], "text": [SECRET] * 3})
        yield server


@pytest.mark.parametrize("key", [None, "wrong"])
def test_no_route_answers_without_the_key(place, key):
    """Each route that the server has, whatever the method, and the ones it has not told of."""
    headers = {} if key is None else {"Authorization": f"Apikey {key}"}
    schema = httpx.get(f"{place.uri}/openapi.json").json()
    routes = [(path, method) for path, methods in schema["paths"].items() for method in methods]
    assert len(routes) > 40
    routes += [(f"/zarr/{version}/{{path}}", "get") for version in ("v2", "v3")]
    answered = []
    for path, method in routes:
        for node in ("run", "run/array", "run/table", "run/array/0", "run/zarr.json", ""):
            filled = path
            while "{" in filled:
                before, _, rest = filled.partition("{")
                name, _, after = rest.partition("}")
                filled = before + (node if name.startswith("path") else "x") + after
            answer = httpx.request(method, place.uri + filled, headers=headers, timeout=30)
            assert SECRET not in answer.text, f"{method} {filled}"
            # The pages of the browser's interface are the same for everybody, and hold nothing.
            if answer.is_success and path not in OPEN and not path.startswith("/ui"):
                answered.append(f"{method} {filled}: {answer.status_code} {answer.text[:80]}")
    assert not answered


def test_there_is_no_zarr_for_anybody(place):
    """Not with the key either: the client that zarr is for has none."""
    for path in ("/zarr/v2/", "/zarr/v2/run/array/0", "/zarr/v3/run/zarr.json", "/%7Aarr/v2/"):
        answer = httpx.get(place.uri + path, headers={"Authorization": f"Apikey {place.api_key}"})
        assert answer.status_code == 404
        assert SECRET not in answer.text


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
