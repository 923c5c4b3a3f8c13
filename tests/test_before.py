"""What an earlier version wrote, into a catalog and into a spool, is read as it was meant."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bluesky_filestore import documents, open_array, serve_catalog
from bluesky_filestore.cli import app

DATA = Path(__file__).parent / "data" / "before"
# Where they lay when they were written, and the address of the catalog.
HOME, ADDRESS = "/data/before", "http://127.0.0.1:8765"
FRAMES = np.arange(6 * 4 * 6, dtype="u2").reshape(6, 4, 6)
PAIRS = FRAMES.reshape(3, 2, 4, 6)
SINGLES = FRAMES[:3, np.newaxis]
RUNS = {
    "plain": PAIRS,
    "turned": PAIRS[::-1],
    "series": SINGLES,
    "turned_series": SINGLES[::-1],
    "handled": FRAMES[:3],
    "streamed": SINGLES,
}


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """Catalog, files and spool in another place than they were written in, and the server of the catalog."""
    home = tmp_path_factory.mktemp("before")
    for name in ("catalog", "files", "spool"):
        shutil.copytree(DATA / name, home / name)
    with closing(sqlite3.connect(home / "catalog" / "catalog.db")) as database, database:
        database.execute("UPDATE assets SET data_uri = replace(data_uri, ?, ?)", (HOME, str(home)))
    with serve_catalog(home / "catalog", readable=home / "files") as server:
        yield home, server


@pytest.mark.parametrize("uid", RUNS)
def test_arrays_come_back(moved, uid):
    """Every array has its frames, through the server and straight from the files."""
    home, server = moved
    array = server.client[uid]["primary"]["image"]
    np.testing.assert_array_equal(np.asarray(array.read()).squeeze(), RUNS[uid].squeeze())
    straight = open_array(array, root_map={HOME: str(home)})
    np.testing.assert_array_equal(np.asarray(straight).squeeze(), RUNS[uid].squeeze())


@pytest.mark.parametrize("uid", RUNS)
def test_events_and_documents_come_back(moved, uid):
    """Every run has its events, and its documents as they went in."""
    run = moved[1].client[uid]
    assert run["primary"]["x"].read().tolist() == [0.0, 0.5, 1.0]
    received = list(documents(run))
    assert [name for name, _ in received].count("event") == 3
    assert (received[0][1]["uid"], received[-1][1]["exit_status"]) == (uid, "success")
    if uid != "streamed":
        assert np.isnan(received[0][1]["odd"])
        assert run["primary"]["wave"].read().tolist() == [[float(number)] * 5 for number in range(3)]


def test_a_spool_is_delivered(moved):
    """What waited is delivered, what was parked stays so until it is asked for, what was cut short is closed."""
    home, server = moved
    command = CliRunner()
    spool = str(home / "spool")
    assert command.invoke(app, ["rename", ADDRESS, server.uri, "--spool", spool]).exit_code == 0
    resume = ["resume", spool, "--api-key", server.api_key]
    assert "parked" in command.invoke(app, resume).output
    assert sorted(set(server.client) - set(RUNS)) == ["cut", "waiting"]
    assert command.invoke(app, [*resume, "--run", "parked"]).exit_code == 0
    for uid in ("waiting", "parked", "cut"):
        run = server.client[uid]
        assert run["primary"]["x"].read().tolist() == [0.0, 0.5, 1.0]
        array = open_array(list(documents(run)), root_map={HOME: str(home)})
        np.testing.assert_array_equal(np.asarray(array), SINGLES)
    assert "stop" not in server.client["cut"].metadata
    assert any("cut short" in note for note in server.client["cut"].metadata["notes"])
