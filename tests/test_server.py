"""The embedded Tiled server."""

import logging
import socket
import threading

import h5py
import httpx
import numpy as np
import pyarrow
import pytest
from tiled.client import from_uri
from tiled.structures.array import ArrayStructure, BuiltinDtype
from tiled.structures.data_source import Asset, DataSource, Management

from bluesky_filestore import serve_catalog
from bluesky_filestore.errors import CatalogError, DirectoryMissingError


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A directory that the catalog may read, and one beside it."""
    parent = tmp_path_factory.mktemp("server")
    for name in ("readable", "elsewhere"):
        (parent / name).mkdir()
        with h5py.File(parent / name / "a.h5", "w") as file:
            file["data"] = np.arange(6.0)
    return parent


@pytest.fixture(scope="module")
def running(data):
    """A running catalog."""
    with serve_catalog(data / "catalog", readable=data / "readable") as catalog:
        yield catalog


def register(client, path, key):
    """Register the array in a file."""
    structure = ArrayStructure(shape=(6,), chunks=((6,),), data_type=BuiltinDtype.from_numpy_dtype(np.dtype("f8")))
    source = DataSource(
        structure_family="array",
        structure=structure,
        mimetype="application/x-hdf5",
        parameters={"dataset": "data"},
        assets=[Asset(data_uri=f"file://localhost{path}", is_directory=False, parameter="data_uris", num=0)],
        management=Management.external,
    )
    return client.new("array", [source], key=key)


def test_serves_what_is_readable(running, data):
    """Files below the readable directories are served."""
    register(running.client, data / "readable" / "a.h5", "inside")
    assert running.client["inside"].read().tolist() == [0, 1, 2, 3, 4, 5]


def test_refuses_what_is_elsewhere(running, data):
    """Files elsewhere are refused, and the client is told why."""
    node = register(running.client, data / "elsewhere" / "a.h5", "outside")
    with pytest.raises(
        httpx.HTTPStatusError, match=r"403: Refusing to serve .*elsewhere/a.h5.* among the readable ones"
    ):
        node.read()


def test_address_and_key(running):
    """The address is on loopback, and nobody comes in without the key."""
    assert running.uri.startswith("http://127.0.0.1:")
    client = from_uri(running.uri, api_key=running.api_key)
    assert "inside" in client
    client.context.close()
    assert httpx.get(f"{running.uri}/api/v1/metadata/").status_code == 401
    assert running.uri in repr(running)


def test_logs_go_to_files(running, capfd):
    """The terminal is the user's."""
    list(running.client)
    assert "GET /api/v1" in (running.directory / "access.log").read_text()
    assert capfd.readouterr() == ("", "")


def test_same_runs_after_a_restart(tmp_path):
    """A directory that was served before is served as it was left."""
    with serve_catalog(tmp_path / "kept", api_key="secret") as first:
        first.client.create_container("run", metadata={"start": {"uid": "run"}})
        first.client.write_table({"x": [1, 2]}, key="table")
    with serve_catalog(tmp_path / "kept") as second:
        assert second.api_key != "secret"
        assert second.client["run"].metadata["start"] == {"uid": "run"}
        assert second.client["table"].read()["x"].tolist() == [1, 2]


def test_closing_leaves_nothing():
    """Threads, handlers and a temporary directory are gone, and closing again is harmless."""
    before = set(threading.enumerate())
    catalog = serve_catalog()
    assert list(catalog.client) == []
    directory = catalog.directory
    catalog.close()
    catalog.close()
    assert not directory.exists()
    assert set(threading.enumerate()) <= before
    logging.getLogger("tiled").info("Nothing of this server's is left to hear this.")
    with pytest.raises(httpx.ConnectError):
        httpx.get(catalog.uri)


def test_two_servers_in_a_process(tmp_path):
    """Each server has a key of its own."""
    with serve_catalog(tmp_path / "one") as one, serve_catalog(tmp_path / "two") as two:
        for server in (one, two, one):
            assert list(server.client) == []
        assert httpx.get(f"{one.uri}/api/v1/metadata/?api_key={two.api_key}").status_code == 401


def test_key_with_other_characters(tmp_path):
    """A key that Tiled would not take is refused before anything starts."""
    with pytest.raises(CatalogError, match=r"other characters than letters and digits"):
        serve_catalog(tmp_path, api_key="top secret!")


def test_port_taken(tmp_path):
    """A port that is not free is named."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(
            CatalogError, match=rf"port {port} on 127.0.0.1 is taken by another program; expected a free"
        ):
            serve_catalog(tmp_path, port=port)
    with pytest.raises(CatalogError, match=r"port 99999 on 127.0.0.1 cannot be used"):
        serve_catalog(tmp_path, port=99999)


def test_directory_that_cannot_be_made(tmp_path):
    """A catalog that cannot be kept is said to be so."""
    (tmp_path / "file").touch()
    with pytest.raises(CatalogError, match=r"cannot be kept in .*file.*; expected a directory this user may write to"):
        serve_catalog(tmp_path / "file")


def test_broken_catalog(tmp_path):
    """A database that is none is named."""
    (tmp_path / "catalog.db").write_text("This is not a database, and long enough not to be an empty one." * 10)
    with pytest.raises(CatalogError, match=str(tmp_path)):
        serve_catalog(tmp_path)


def test_readable_directory_missing(tmp_path):
    """A directory that shall be readable has to be there."""
    with pytest.raises(DirectoryMissingError, match=r"nowhere shall be readable by the catalog and is not there"):
        serve_catalog(tmp_path, readable=[tmp_path / "nowhere"])


def test_waiting_ends_with_the_server():
    """The blocking form returns when the server is closed."""
    catalog = serve_catalog()
    waiting = threading.Thread(target=catalog.wait)
    waiting.start()
    catalog.close()
    waiting.join(timeout=10)
    assert not waiting.is_alive()


def test_tables_are_read_while_they_grow(running):
    """A table can be read while rows are appended to it, and appended to while it is read."""
    stream = running.client.create_container("tables").create_container("growing")
    table = stream.create_appendable_table(pyarrow.schema([("x", pyarrow.int64())]), key="internal")
    statuses, grown = [], threading.Event()

    def read():
        with httpx.Client(headers={"Authorization": f"Apikey {running.api_key}"}, timeout=30) as client:
            while not grown.is_set():
                statuses.append(client.get(f"{running.uri}/api/v1/table/full/tables/growing/internal").status_code)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(30):
        table.append_partition(0, pyarrow.table({"x": [number] * 10}))
    grown.set()
    for reader in readers:
        reader.join()
    assert set(statuses) == {200}
    assert len(table.read()) == 300


def test_two_writers_of_one_run(catalog):
    """Who makes what another writer has made is told so, and what to do: it may end a plan."""
    from tiled.client.utils import ClientError

    catalog.client.create_container("made twice")
    with pytest.raises(ClientError, match=r"made by another writer; expected one writer for a run: .* unsubscribe one"):
        catalog.client.create_container("made twice")
