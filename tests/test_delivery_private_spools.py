"""What a writer keeps that cannot use its spool is found by whoever looks into that, also when it was killed."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from command_line import run as command
from disks import fill, small_disk
from proxy import Proxy, no_fault
from small_runs import SmallRun
from spooled import put, run_documents
from tiled.client import from_uri
from typer.testing import CliRunner

from bluesky_filestore import CatalogWriter, documents
from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
from bluesky_filestore.cli import app
from bluesky_filestore.delivery.private_spools import remove_if_over
from bluesky_filestore.delivery.resuming import follow
from bluesky_filestore.delivery.service import Service, spools_below
from bluesky_filestore.errors import SpoolError
from bluesky_filestore.spool import places

WRITER = """
import json, os, signal, sys
from bluesky_filestore import CatalogWriter

uri, api_key, spool, docs = sys.argv[1:]
writer = CatalogWriter.from_uri(uri, api_key=api_key, spool=spool, wait_on_stop=0)
for name, doc in json.loads(docs):
    writer(name, doc)
print(writer.directory)
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


LASTING = """
import json, sys
from bluesky_filestore import CatalogWriter

uri, api_key, docs = sys.argv[1:]
writer = CatalogWriter.from_uri(uri, api_key=api_key, spool=None, wait_on_stop=0)
for name, doc in json.loads(docs):
    writer(name, doc)
print(writer.directory)
"""


@pytest.fixture
def proxy(catalog):
    """A proxy before the session's catalog."""
    with Proxy(catalog.uri) as running:
        yield running


@pytest.fixture
def spool(tmp_path):
    """A place for a spool, where there is a file."""
    path = tmp_path / "my spool"
    path.write_text("mine")
    return path


def killed(proxy, catalog, spool, docs):
    """A writer that could not use its spool, and was killed while its catalog was away; where it has kept documents."""
    proxy.fault = lambda request: "cut"
    arguments = (proxy.uri, catalog.api_key, str(spool), json.dumps(docs))
    process = subprocess.run(
        [sys.executable, "-c", WRITER, *arguments], capture_output=True, text=True, timeout=100, check=False
    )
    assert process.returncode == -signal.SIGKILL, process.stderr
    proxy.fault = no_fault
    return Path(process.stdout.strip())


def test_killed(proxy, catalog, spool):
    """The next writer says where they are, `status` shows them, and `resume` delivers them and leaves nothing there."""
    uid, docs = run_documents(3)
    kept = killed(proxy, catalog, spool, docs)
    assert places.kept_instead(spool) == [kept]
    assert str(kept) in command("status", spool).stdout
    spool.unlink()
    with CatalogWriter(catalog.client, spool=spool) as writer:
        (said,) = writer.status().problems
    assert said.startswith(f"{len(docs)} documents wait in {kept}, ")
    assert f"`bluesky-filestore resume '{spool}'` delivers them" in said
    resumed = command("resume", spool, "--api-key", catalog.api_key)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert list(documents(catalog.client[uid])) == docs
    assert not kept.exists()
    with CatalogWriter(catalog.client, spool=spool) as writer:
        assert writer.status().problems == ()


def test_where_there_is_no_spool(proxy, catalog, spool):
    """They are found while the spool cannot be used still, and by who delivers for others."""
    uid, docs = run_documents(2)
    kept = killed(proxy, catalog, spool, docs)
    assert spools_below([spool]) == spools_below([spool.parent]) == [kept]
    resumed = command("resume", spool, "--api-key", catalog.api_key)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert list(documents(catalog.client[uid])) == docs
    assert not kept.exists()


def test_by_default(catalog, monkeypatch, tmp_path):
    """Those of a spool that nobody named are among those of the user; a writer that lives keeps its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    home = places.home()
    home.parent.mkdir(parents=True)
    home.write_text("mine")
    uid, docs = run_documents(2)
    with CatalogWriter(catalog.client) as writer:
        for name, doc in docs:
            writer(name, doc)
        assert places.all_spools() == [writer.directory]
        assert str(writer.directory) in command("status").stdout
        assert command("resume", "--api-key", catalog.api_key).returncode == 0
        assert writer.directory.exists()
    assert list(documents(catalog.client[uid])) == docs
    assert places.all_spools() == []


def test_of_somebody_else(spool, monkeypatch):
    """What others put there by such a name is nobody's business: who delivered it would be told what to write."""
    made = places.private_directory(spool)
    (made / "spool.db").touch()
    assert places.kept_instead(spool) == [made]
    link = made.with_name(f"{made.name}_")
    link.symlink_to(made)
    assert places.kept_instead(spool) == [made]
    monkeypatch.setattr(os, "getuid", lambda: -1)
    assert places.kept_instead(spool) == []
    link.unlink()
    (made / "spool.db").unlink()
    made.rmdir()


def test_of_nobody(catalog, spool):
    """Who wants no spool has none: nobody looks for it."""
    with CatalogWriter(catalog.client, spool=None) as writer:
        assert places.kept_instead(spool) == []
        assert writer.directory not in places.all_spools()


def test_no_room_anywhere(catalog, spool, tmp_path, monkeypatch):
    """Where no spool can be made at all it is an error, and nothing is left."""
    made = tmp_path / "made"

    def private(_):
        made.mkdir()
        (made / "spool.db").mkdir()
        return made

    monkeypatch.setattr("bluesky_filestore.delivery.private_spools.private_directory", private)
    with pytest.raises(SpoolError, match=f"{made}"):
        CatalogWriter(catalog.client, spool=spool)
    assert not made.exists()


@pytest.fixture
def away(data_directory, tmp_path):
    """A run whose file is still on its way from the machine of its detector, and what brings it."""
    run = SmallRun(data_directory, 700 + len(list(data_directory.glob("small 7*.h5"))))
    (file,) = [each for each in data_directory.glob("small *.h5") if each.stem == f"small {run.number}"]
    file.rename(tmp_path / "away.h5")
    return run, lambda: (tmp_path / "away.h5").rename(file)


def wait_for(condition, timeout=30.0):
    """Wait until something is the case."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def feed(writer, docs):
    """Give a writer documents."""
    for name, doc in docs:
        writer(name, doc)


def test_no_room_in_memory(catalog, spool, tmp_path, monkeypatch):
    """Where the place for files in memory is full another one is taken, and what is kept there is found, too."""
    with small_disk(tmp_path / "shm") as mounted:
        if not mounted:
            pytest.skip("only root may mount a disk")
        fill(tmp_path / "shm")
        monkeypatch.setattr(places, "_IN_MEMORY", str(tmp_path / "shm"))
        uid, docs = run_documents(2)
        with CatalogWriter(catalog.client, spool=spool) as writer:
            feed(writer, docs)
            assert places.kept_instead(spool) == [writer.directory]
        assert list(documents(catalog.client[uid])) == docs
        assert places.kept_instead(spool) == []


def test_closed_while_files_are_missing(catalog, spool, away, caplog):
    """A run that is to be looked at again is kept, which is said, and whoever resumes has its files when they come."""
    run, bring = away
    writer = CatalogWriter(catalog.client, spool=spool)
    feed(writer, run.documents)
    writer.close()
    (kept,) = places.kept_instead(spool)
    assert kept == writer.directory
    named = f"{kept} keeps what is not delivered: 1 run settling for {catalog.client.uri} ({run.uid[:8]})."
    assert f"{named} `bluesky-filestore resume {kept}` goes on with it." in caplog.messages
    assert writer.status().unsettled_runs == (run.uid,)
    bring()
    spool.unlink()
    with CatalogWriter(catalog.client, spool=spool) as another:
        (said,) = another.status().problems
    assert said.startswith(f"1 run waits to be looked at again in {kept}, ")
    resumed = command("resume", spool, "--api-key", catalog.api_key)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    run.compare(catalog.client)
    assert not kept.exists()
    assert writer.status().unsettled_runs == (run.uid,), "it is as it was when the writer was closed"


def test_script_that_ends_while_files_are_missing(catalog, away):
    """So it is where a script ends that closes nothing, and wanted no spool."""
    run, bring = away
    arguments = [sys.executable, "-c", LASTING, catalog.uri, catalog.api_key, json.dumps(run.documents)]
    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=100, check=True)
    kept = Path(ended.stdout.strip())
    assert f"{kept} keeps what is not delivered: 1 run settling for " in ended.stderr
    bring()
    resumed = command("resume", kept, "--api-key", catalog.api_key)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    run.compare(catalog.client)
    assert not kept.exists()


def test_closed_while_an_answer_is_missing(proxy, catalog, spool, data_directory, monkeypatch):
    """A run of which not every answer came is looked at once more by whoever resumes, and only then let go."""
    monkeypatch.setattr("bluesky_filestore.delivery.lane._LATEST_SECONDS", math.inf)
    lost = iter(["drop answer"])
    proxy.fault = lambda request: next(lost, None) if request.is_append else None
    run = SmallRun(data_directory, 790)
    with CatalogWriter.from_uri(proxy.uri, api_key=catalog.api_key, spool=spool) as writer:
        feed(writer, run.documents)
    assert places.kept_instead(spool) == [writer.directory]
    monkeypatch.setattr("bluesky_filestore.delivery.lane._LATEST_SECONDS", 0.0)
    before = proxy.requests
    resumed = CliRunner().invoke(app, ["resume", str(spool), "--api-key", catalog.api_key], catch_exceptions=False)
    assert resumed.exit_code == 0, resumed.output
    assert proxy.requests > before
    run.compare(catalog.client)
    assert places.kept_instead(spool) == []


def test_service(proxy, catalog, spool, caplog):
    """Who delivers for others leaves alone what a writer is at, and removes what one has left when all is delivered."""
    uid, docs = run_documents(2)
    kept = killed(proxy, catalog, spool, docs)
    make_client = partial(from_uri, proxy.uri, api_key=catalog.api_key)
    service = Service([spool], lambda: TiledCatalog(make_client, f"{proxy.uri}/api/v1/metadata/"))
    caplog.set_level("INFO")
    try:
        with CatalogWriter(catalog.client, spool=spool) as writer:
            service.look()
            assert list(service.uploaders) == [kept]
            feed(writer, run_documents(1)[1])
            service._next_search = 0.0
            service.look()
            assert list(service.uploaders) == [kept]
        wait_for(lambda: service.look() or not kept.exists())
    finally:
        service.close(10.0)
    assert list(documents(catalog.client[uid])) == docs
    assert f"All that was kept in {kept} is delivered, and it is removed." in caplog.messages
    assert service.uploaders == {}
    assert not [each for each in caplog.records if each.levelname == "ERROR" and ".delivery." in each.name]


def test_gone_with_its_writer(catalog, spool, monkeypatch):
    """Who watches how a writer delivers is not told of an error when the place goes with the writer."""

    def ends(directory, *arguments, **options):
        yield from follow(directory, *arguments, **options)
        shutil.rmtree(directory)

    monkeypatch.setattr("bluesky_filestore.delivery.resuming.follow", ends)
    put(spool.parent / "there", run_documents(1)[1], catalogs=[f"{catalog.uri}/api/v1/metadata/"])
    arguments = ["resume", str(spool.parent / "there"), "--api-key", catalog.api_key]
    resumed = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert (resumed.exit_code, "all runs delivered" in resumed.output) == (0, True)


def test_resumed_while_it_is_closed(catalog, spool, monkeypatch):
    """What a writer is at until it is closed stays there, whoever resumes meanwhile."""
    monkeypatch.setattr("bluesky_filestore.bundles.follow_ups._AT_CLOSE_SECONDS", 60.0)
    began, resumed = threading.Event(), threading.Event()

    def slow(_):
        began.set()
        assert resumed.wait(30)

    writer = CatalogWriter(catalog.client, spool=spool, on_run_complete=slow)
    feed(writer, run_documents(3)[1])
    assert began.wait(30)
    closing = threading.Thread(target=writer.close)
    closing.start()
    wait_for(lambda: not list(writer.directory.glob("producer-*.lock")))
    remove_if_over(writer.directory)
    assert writer.directory.exists()
    assert writer.status().open_runs == ()
    resumed.set()
    closing.join()
    assert writer.status().problems[1:] == (), "but for that there was no spool"
    assert not writer.directory.exists()


def test_of_the_user(catalog, tmp_path):
    """A spool that its user has called so is the user's, and stays."""
    spool = tmp_path / "catalog-writer-beamline"
    spool.mkdir()
    (spool / "notes.txt").write_text("mine")
    with CatalogWriter(catalog.client, spool=spool) as writer:
        feed(writer, run_documents(1)[1])
    assert command("resume", spool, "--api-key", catalog.api_key).returncode == 0
    assert (spool / "notes.txt").exists()
