"""Many runs at once, and runs that have little to be verified."""

import logging
import socket
import sqlite3
import threading
import time
from contextlib import closing
from types import SimpleNamespace

import event_model
import numpy as np
import pytest
import uvicorn
from command_line import run as command
from small_runs import SmallRun
from tiled.catalog import from_uri as catalog_from_uri
from tiled.client.container import Container
from tiled.config import Authentication
from tiled.server.app import build_app

from bluesky_filestore import CatalogWriter, serve_catalog, verify_run
from bluesky_filestore.catalogs.tiled.below import Below, can_search_below, runs_with_contents
from bluesky_filestore.catalogs.tiled.connecting import connect
from bluesky_filestore.catalogs.tiled.nodes import find_runs
from bluesky_filestore.checking.verify import verify_runs
from bluesky_filestore.reading import run_tree
from bluesky_filestore.reading.run_tree import RunTree

KEY = "secret"
RUNS = 203


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """A stock server with more runs than two pages of what is listed, some of them of one time."""
    directory = tmp_path_factory.mktemp("stock")
    tree = catalog_from_uri(directory / "catalog.db", writable_storage=str(directory / "data"), init_if_not_exists=True)
    app = build_app(tree, authentication=Authentication(single_user_api_key=KEY))
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    thread = threading.Thread(target=server.run, args=([bound],), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.02)
    client = connect(f"http://127.0.0.1:{bound.getsockname()[1]}", api_key=KEY)
    for number in range(RUNS):
        start = {"uid": f"run-{number}", "time": 1.7e9 + number // 2}
        client.create_container(start["uid"], metadata={"start": start, "stop": {"exit_status": "success"}})
    yield client
    client.context.close()
    server.should_exit = True
    thread.join(30)
    bound.close()


def test_all_of_a_stock_server(stock):
    """A stock server gives two pages of runs in the order of their time; all are found, each once, the latest first."""
    found = find_runs(stock)
    assert sorted(found) == sorted(f"run-{number}" for number in range(RUNS))
    assert found[0] == f"run-{RUNS - 1}"
    assert len(find_runs(stock, since=1.7e9 + 50)) == RUNS - 100
    assert find_runs(stock, most=1) == found[:1]
    reports = dict(verify_runs(stock, found[:60]))
    assert list(reports) == found[:60]
    assert {report.exit_code for report in reports.values()} == {0}


def test_a_stock_tree_beside_ours(stock):
    """A server that knows the name of our search, and has a stock tree, is asked for each run by itself."""
    assert "filestore_below" in stock.context.server_info.queries
    assert runs_with_contents(stock, ["run-1", "run-2"]) == {}
    assert Below.decode(**Below(["run-1"]).encode()) == Below(["run-1"])


@pytest.mark.parametrize("older", ["server", "client"])
def test_a_tiled_that_cannot_search_below(stock, caplog, monkeypatch, older):
    """Where server or client are of a Tiled without such a search, runs and streams are asked for one by one."""
    run = stock["run-1"]
    if "primary" not in run:
        run.create_container("primary")
    for node in (stock, run):
        if older == "server":
            monkeypatch.delitem(node.item["links"], "search_deep", raising=False)
    if older == "client":
        monkeypatch.delattr(Container, "search_deep", raising=False)
    with caplog.at_level(logging.WARNING):
        assert not can_search_below(stock)
        assert runs_with_contents(stock, ["run-1", "run-2"]) == {}
        assert list(RunTree(run).streams) == ["primary"]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("kind", ["array", "table"])
def test_what_is_just_being_made(tmp_path, monkeypatch, kind):
    """Tiled before 0.2.20 lists for a moment what has no structure yet; whoever asks then is told when it is there."""
    with serve_catalog(tmp_path) as server:
        stream = server.client.create_container("run").create_container("primary")
        if kind == "array":
            stream.write_array(np.arange(3), key="it")
        else:
            stream.write_table({"x": [1]}, key="it")
        with closing(sqlite3.connect(tmp_path / "catalog.db")) as database:
            database.execute("CREATE TABLE held AS SELECT * FROM data_sources")
            database.execute("DELETE FROM data_sources")
            database.commit()

        def made_meanwhile(_):
            with closing(sqlite3.connect(tmp_path / "catalog.db")) as database:
                database.execute("INSERT INTO data_sources SELECT * FROM held")
                database.commit()

        monkeypatch.setattr(run_tree, "time", SimpleNamespace(sleep=made_meanwhile))
        assert RunTree(server.client["run"]).children("primary")["it"].read() is not None


def test_the_latest_has_a_time(stock, catalog):
    """Of whatever stands where a run's time should be, nothing is taken for the latest run, or for one since then."""
    for client in (stock, catalog.client):
        times = {"run of noon": "noon", "run of true": True, "run of none": None, "run of now": 2e9}
        for uid, time_of_it in times.items():
            client.create_container(uid, metadata={"start": {"uid": uid, "time": time_of_it}})
        client.create_container("no run at all", metadata={})
        try:
            assert find_runs(client, most=1) == find_runs(client, since=2e9) == ["run of now"]
            assert find_runs(client, since=3e9) == []
        finally:
            client.delete_contents([*times, "no run at all"])


def test_a_catalog_that_goes_away(tmp_path):
    """Runs are told in the order asked for, one that is not there among them; of a catalog that is gone, at once."""
    runs = [SmallRun(tmp_path, number, events=2) for number in range(3)]
    with serve_catalog(tmp_path / "catalog", readable=[tmp_path], api_key=KEY) as server:
        with CatalogWriter(server.client, spool=None) as writer:
            for run in runs:
                for name, doc in run.documents:
                    writer(name, doc)
        uids = [runs[2].uid, "nothing like it", runs[0].uid[:8], runs[1].uid]
        (tmp_path / "small 1.h5").unlink()
        client = connect(server.uri, api_key=KEY)
        told = list(verify_runs(client, uids))
        assert [uid for uid, _ in told] == uids
        assert "no run" in told[1][1]
        assert [told[number][1].exit_code for number in (0, 2, 3)] == [0, 0, 1], str(told)
        done = command("verify", "--all", "--uri", server.uri, "--api-key", KEY)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "2 of 3 runs are well, something is wrong with 1," in done.stdout
        assert runs[0].uid not in done.stdout
    begin = time.monotonic()
    told = list(verify_runs(client, [*uids, *(f"run-{number}" for number in range(100))]))
    assert all("no catalog answers" in sentence for _, sentence in told), told[0]
    # Tiled's client would ask for half a minute, each time.
    assert time.monotonic() - begin < 20
    client.context.close()


def test_little_to_verify(catalog, tmp_path, caplog):
    """Runs without events, without streams, and without files are well; one that goes on is asked about again."""
    empty, numbers = event_model.compose_run(), event_model.compose_run()
    keys = {"x": {"source": "s", "dtype": "number", "shape": []}}
    described, unused = (run.compose_descriptor(name="primary", data_keys=keys) for run in (numbers, empty))
    event = described.compose_event(data={"x": 1.0}, timestamps={"x": 5.0})
    documents = [("start", empty.start_doc), ("descriptor", unused.descriptor_doc), ("stop", empty.compose_stop())]
    more = [("start", numbers.start_doc), ("descriptor", described.descriptor_doc), ("event", event)]
    with caplog.at_level(logging.WARNING), CatalogWriter(catalog.client, wait_on_stop=10.0) as writer:
        for name, doc in [*documents, *more]:
            writer(name, doc)
        deadline = time.monotonic() + 20
        while numbers.start_doc["uid"] not in catalog.client and time.monotonic() < deadline:
            time.sleep(0.1)
        going_on = verify_run(catalog.client, numbers.start_doc["uid"])
        assert going_on.exit_code == 2, str(going_on)
        assert "it is going on" in str(going_on)
        assert not going_on.ok
        writer("stop", numbers.compose_stop())
    for uid in (empty.start_doc["uid"], numbers.start_doc["uid"]):
        report = verify_run(catalog.client, uid)
        assert report.exit_code == 0, str(report)
    assert verify_run(documents[:1] + documents[2:]).exit_code == 0
