"""Our adapters in a server of somebody else's, and our server with somebody else's database."""

import contextlib
import getpass
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from serving import configured_server, free_port
from tiled.client import from_uri
from tiled.client.utils import ClientError
from tiled.structures.array import ArrayStructure, BuiltinDtype
from tiled.structures.core import Spec
from tiled.structures.data_source import Asset, DataSource, Management

from bluesky_filestore import serve_catalog
from bluesky_filestore.errors import CatalogError
from bluesky_filestore.model.addressing import HDF5_ROWS, HDF5Rows, RowSpan
from bluesky_filestore.serving import adapters

FRAMES = np.arange(6 * 4 * 5, dtype="u2").reshape(6, 4, 5)
CONFIG = Path(__file__).parent.parent / "docs" / "how-to" / "config.yml"


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Data files."""
    directory = tmp_path_factory.mktemp("elsewhere")
    with h5py.File(directory / "a.h5", "w") as file:
        file["d"] = FRAMES
    return directory


def register(client, path, key="rows"):
    """Register rows of a file that no adapter but ours can serve: they are out of order."""
    rows = HDF5Rows("d", 1, (RowSpan(0, 4, 1, 1), RowSpan(0, 0, 1, 1), RowSpan(0, 2, 1, 1)))
    source = DataSource(
        structure_family="array",
        structure=ArrayStructure(
            shape=(3, 4, 5), chunks=((3,), (4,), (5,)), data_type=BuiltinDtype.from_numpy_dtype(FRAMES.dtype)
        ),
        mimetype=HDF5_ROWS,
        parameters=rows.to_parameters(),
        management=Management.external,
        assets=[Asset(data_uri=f"file://localhost{path}", is_directory=False, parameter="data_uris", num=0)],
    )
    return client.new("array", [source], key=key)


@contextlib.contextmanager
def tiled_server(config, tmp_path):
    """Tiled's own server, started from a configuration file; a client of it."""
    with configured_server(config, tmp_path, TILED_SINGLE_USER_API_KEY="secret") as uri:
        client = from_uri(uri, api_key="secret")
        yield client
        client.context.close()


def settled(config, directory, tmp_path):
    """A configuration with the places of this test."""
    text = yaml.safe_dump(config).replace("/var/lib/tiled", str(tmp_path)).replace("/data\n", f"{directory}\n")
    return yaml.safe_load(text)


def test_config_of_the_how_to(directory, tmp_path):
    """The config.yml of the documentation starts a server of runs, with our rows, and nothing from elsewhere."""
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["d"] = FRAMES
    (directory / "link.h5").unlink(missing_ok=True)
    (directory / "link.h5").symlink_to(tmp_path / "b.h5")
    with tiled_server(settled(yaml.safe_load(CONFIG.read_text()), directory, tmp_path), tmp_path) as client:
        start = {"uid": "a run", "time": 1.0, "scan_id": 7}
        client.create_container("a run", metadata={"start": start}, specs=[Spec("BlueskyRun", version="3.0")])
        assert client[-1].start == client[7].start == start
        assert (register(client, directory / "a.h5").read() == FRAMES[[4, 0, 2]]).all()
        with pytest.raises(ClientError, match=r"403: file .*link.h5, which is .*b.h5, is outside the directories"):
            register(client, directory / "link.h5", "linked").read()
        with pytest.raises(ClientError, match=r"404: file .*gone.h5 is not there"):
            register(client, directory / "gone.h5", "gone").read()


def test_adapters_by_name(directory, tmp_path):
    """Our adapters can be named one by one in a configuration."""
    by_name = dict(adapters.NAMES)
    config = {
        "authentication": {"single_user_api_key": "secret"},
        "catalog": {
            "uri": f"sqlite:///{tmp_path / 'catalog.db'}",
            "init_if_not_exists": True,
            "writable_storage": [str(tmp_path / "arrays")],
            "readable_storage": [str(directory)],
            "adapters_by_mimetype": by_name,
        },
    }
    with tiled_server(config, tmp_path) as client:
        assert (register(client, directory / "a.h5").read() == FRAMES[[4, 0, 2]]).all()


def test_names_in_the_how_to():
    """The how-to names each adapter, as it is named."""
    text = CONFIG.with_name("add-to-a-tiled-server.md").read_text()
    for mimetype, name in adapters.NAMES.items():
        assert f"    {mimetype}: {name}\n" in text


def postgresql_program(name):
    """A program of PostgreSQL's server; distributions do not put them on the path."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *map(str, places)]))


@pytest.fixture(scope="module")
def postgresql():
    """The URI of an empty database of a real PostgreSQL, started here."""
    if postgresql_program("initdb") is None:
        pytest.skip("PostgreSQL is not installed (no initdb)")
    # PostgreSQL refuses to run as root.
    owner = "postgres" if os.getuid() == 0 else getpass.getuser()
    options = {"user": owner, "cwd": "/", "check": True, "capture_output": True, "timeout": 90}
    place = Path(tempfile.mkdtemp(prefix="postgresql-"))
    port = free_port()
    shutil.chown(place, owner)
    control = [postgresql_program("pg_ctl"), "-D", str(place / "db"), "-w"]
    try:
        subprocess.run([postgresql_program("initdb"), "-D", str(place / "db"), "-A", "trust", "-U", "me"], **options)
        listening = f"-p {port} -k {place} -c listen_addresses=127.0.0.1 -c fsync=off"
        # The server keeps what it is given as output open.
        quiet = {**options, "capture_output": False, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run([*control, "-l", str(place / "log"), "-o", listening, "start"], **quiet)
        try:
            yield f"postgresql://me:word@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], **quiet)
    finally:
        shutil.rmtree(place)


def test_postgresql(postgresql, directory, tmp_path):
    """Catalog and event tables are kept in PostgreSQL, and a second start serves the same."""
    with serve_catalog(tmp_path / "kept", readable=directory, database=postgresql) as server:
        assert (register(server.client, directory / "a.h5")[1] == FRAMES[0]).all()
        table = server.client.create_appendable_table(schema_of({"x": [1, 2]}), key="table")
        table.append_partition(0, arrow({"x": [1, 2]}))
        table.append_partition(0, arrow({"x": [3]}))
        assert table.read()["x"].tolist() == [1, 2, 3]
        (asset,) = table.include_data_sources().data_sources()[0].assets
        assert asset.data_uri.startswith("postgresql:")
        assert list(Path(server.directory).glob("*.db")) == []
    with serve_catalog(tmp_path / "kept", readable=directory, database=postgresql) as server:
        assert (server.client["rows"].read() == FRAMES[[4, 0, 2]]).all()
        assert server.client["table"].read()["x"].tolist() == [1, 2, 3]
        server.client.delete_contents(["rows"])
        assert "rows" not in server.client


def arrow(columns):
    """Columns as a table."""
    import pyarrow

    return pyarrow.table(columns)


def schema_of(columns):
    """The schema of columns."""
    return arrow(columns).schema


def test_database_that_is_none(tmp_path):
    """What is no database is said to be none, and a password is not shown."""
    for uri in ("mysql://me@host/db", "nonsense"):
        with pytest.raises(
            CatalogError, match=r"not given by a URI of PostgreSQL or SQLite; expected e.g. postgresql:"
        ):
            serve_catalog(tmp_path, database=uri)
    with pytest.raises(CatalogError, match=r"at postgresql://127.0.0.1:\d+/db") as caught:
        serve_catalog(tmp_path, database=f"postgresql://me:word@127.0.0.1:{free_port()}/db")
    assert "word" not in str(caught.value)
