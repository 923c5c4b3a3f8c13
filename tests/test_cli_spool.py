"""The commands that show and move what is in spools, on real spools and real catalogs."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, suppress

import h5py
import numpy as np
import pytest
from command_line import COMMAND, run, running
from proxy import Proxy, no_fault
from small_runs import image_documents
from spooled import put, put_and_die, run_documents, states
from typer.testing import CliRunner

from bluesky_filestore import CatalogWriter, documents, serve_catalog
from bluesky_filestore.cli import app
from bluesky_filestore.errors import (
    CatalogAccessError,
    CatalogUnreachableError,
    RunNotFoundError,
    SpoolDamagedError,
    SpoolError,
)
from bluesky_filestore.spool import Ledger, Store
from bluesky_filestore.spool.places import spool_for

NOBODY = "http://127.0.0.1:9/api/v1/metadata/"


def invoke(*arguments, answer=None):
    """Run the command in this process; what it raises comes through."""
    return CliRunner().invoke(app, [str(each) for each in arguments], input=answer, catch_exceptions=False)


def wait_for(condition, timeout=30.0):
    """Wait until something is the case."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def spool(tmp_path):
    """A place for a spool."""
    return tmp_path / "the spool"


@pytest.fixture
def unused_port():
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def uri(catalog):
    """The address of the session's catalog, as a spool knows it."""
    return str(catalog.client.uri)


@pytest.fixture
def key(catalog, monkeypatch):
    """The key of the session's catalog is in the environment."""
    monkeypatch.setenv("TILED_API_KEY", catalog.api_key)


@pytest.fixture
def proxy(catalog):
    """A proxy before the session's catalog."""
    with Proxy(catalog.uri) as running:
        yield running


def test_status_without_spools(tmp_path, monkeypatch):
    """A user without spools is told so, and a directory that is none is not made one."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert "No spool of this user" in invoke("status").stdout
    assert json.loads(invoke("status", "--json").stdout) == {"spools": []}
    with pytest.raises(SpoolError, match=r"there is no spool in .*expected a directory with a spool\.db"):
        invoke("status", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_status_of_what_waits(spool):
    """Runs that nobody delivers: how many, why, and what to type."""
    put(spool, run_documents(3)[1], run_documents(5)[1], catalogs=[NOBODY])
    shown = invoke("status", spool).stdout
    for words in (
        f"catalog    {NOBODY} does not answer",
        f"no catalog answers at {NOBODY}",
        "2 runs waiting",
        "14 waiting, the oldest run began",
        f"nobody delivers: bluesky-filestore resume '{spool}'",
    ):
        assert words in shown


def test_status_for_programs(spool, catalog, uri):
    """The same as JSON, while a writer delivers."""
    _, docs = run_documents(3)
    with CatalogWriter(catalog.client, spool=spool) as writer:
        for name, doc in docs:
            writer(name, doc)
        (found,) = json.loads(invoke("status", spool, "--json").stdout)["spools"]
    assert found["directory"] == str(spool)
    (ours,) = found["catalogs"]
    assert ours.pop("uploader") == os.getpid()
    assert ours == {
        "catalog": uri,
        "answers": True,
        "error": "",
        "runs": {"delivered": 1},
        "documents_waiting": 0,
        "oldest_seconds": None,
        "parked": {},
    }


def test_status_of_all_spools(catalog, tmp_path, monkeypatch):
    """By default those that writers made without being told where."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with CatalogWriter(catalog.client) as writer:
        for name, doc in run_documents(1)[1]:
            writer(name, doc)
    shown = invoke("status").stdout
    assert str(tmp_path / "bluesky-filestore" / "spool") in shown
    assert "1 run delivered" in shown
    assert "answers" in shown


def test_status_without_a_catalog(spool):
    """A spool of which nobody said where it goes: what to type."""
    put(spool, run_documents(1)[1])
    shown = invoke("status", spool).stdout
    assert "1 run waiting" in shown
    assert f"bluesky-filestore resume '{spool}' --uri ADDRESS" in shown
    refused = invoke("resume", spool)
    assert refused.exit_code == 2
    assert "knows no catalog yet" in " ".join(refused.stderr.split())


def test_status_of_a_damaged_spool(spool):
    """A broken database is named, and left where it is by who only looks; one that was put aside is shown."""
    put(spool, run_documents(1)[1], catalogs=[NOBODY])
    (spool / "spool.db").write_bytes(os.urandom(8192))
    (spool / "spool.db-wal").unlink(missing_ok=True)
    with pytest.raises(SpoolDamagedError, match="damaged"):
        invoke("status", spool)
    Store(spool).close()
    assert "a broken database was put aside in" in invoke("status", spool).stdout


def test_damaged_spool_among_others(tmp_path, monkeypatch):
    """A broken spool is named, and the others are shown and delivered all the same."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    fine, broken = spool_for("http://fine"), spool_for("http://broken")
    put(fine, run_documents(1)[1], catalogs=[NOBODY])
    broken.mkdir()
    (broken / "spool.db").write_bytes(os.urandom(8192))
    shown = invoke("status")
    assert "1 run waiting" in shown.stdout
    assert f"Left out: the spool database {broken / 'spool.db'} is damaged" in shown.stderr
    assert f"{fine} -> {NOBODY}" in invoke("resume", "--wait", 0).stdout


def test_watch(spool):
    """It looks again until Ctrl-C."""
    put(spool, run_documents(3)[1], catalogs=[NOBODY])
    with running("status", spool, "--watch", "--json", until="}") as (process, lines):
        put(spool, run_documents(3)[1])
        counts = []
        while 2 not in counts:
            counts.append(json.loads(process.stdout.readline())["spools"][0]["catalogs"][0]["runs"]["waiting"])
    assert json.loads(lines[0])["spools"][0]["catalogs"][0]["runs"] == {"waiting": 1}


def test_watch_on_a_terminal(spool):
    """On a terminal the screen is drawn anew, and given back at Ctrl-C."""
    put(spool, run_documents(3)[1], catalogs=[NOBODY])
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen:
        process = subprocess.Popen(
            [*COMMAND, "status", str(spool), "--watch"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
        )
        os.close(theirs)
        try:
            shown = b""
            while shown.count(b"nobody delivers") < 2:
                shown += screen.read(4096)
            process.send_signal(signal.SIGINT)
            with suppress(OSError):
                while part := screen.read(4096):
                    shown += part
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()
            process.wait()
    assert b"Traceback" not in shown


def test_resume(spool, catalog, uri, key):
    """What waits is delivered, with the run of a process that was killed; every document once."""
    uid, docs = run_documents(2500, scan_id=3)
    put(spool, docs, catalogs=[uri])
    killed = put_and_die(spool)
    shown = invoke("resume", spool)
    assert shown.exit_code == 0, shown.output
    assert f"{spool} -> {uri}" in shown.stdout
    assert "2 runs delivered" in shown.stdout
    assert list(documents(catalog.client[uid])) == docs
    assert catalog.client[killed]["primary"]["x"].read().tolist() == [0, 1, 2]
    assert "cut short" in catalog.client[killed].metadata["notes"][0]
    again = invoke("resume", spool)
    assert again.exit_code == 0
    assert "Nothing waits to be delivered." in again.stdout


def test_resume_names_the_run_that_is_in_the_way(spool, catalog, key):
    """A run at which the catalog fails is said at once, tried for as long as was asked, and parked; others go on."""
    (bad, bad_docs), (good, good_docs) = run_documents(3), run_documents(2)
    with Proxy(catalog.uri) as proxy:
        put(spool, bad_docs, good_docs, catalogs=[f"{proxy.uri}/api/v1/metadata/"])
        proxy.fault = lambda request: 500 if request.is_append and bad in request.path else None
        shown = invoke("resume", spool, "--park-after", "1")
    assert shown.exit_code == 1
    assert f"Run {bad}: " in shown.stdout
    assert "It is tried again for 1 s." in shown.stdout
    assert "1 run delivered, 1 parked" in shown.stdout
    assert "stop" in catalog.client[good].metadata
    assert "the proxy says so" in catalog.client[bad].metadata["notes"][0]


def test_resume_without_a_catalog_that_answers(spool):
    """After a while it gives up, says that nothing is lost, and exits with 1."""
    put(spool, run_documents(3)[1], catalogs=[NOBODY])
    shown = invoke("resume", spool, "--wait", 0.3)
    assert shown.exit_code == 1
    assert f"no catalog answers at {NOBODY}" in shown.stdout
    assert "Nothing is lost: 6 documents wait" in shown.stdout


def test_resume_waits_for_the_catalog(spool, tmp_path, unused_port):
    """A catalog that comes back in time gets everything."""
    uid, docs = run_documents(3)
    put(spool, docs, catalogs=[f"http://127.0.0.1:{unused_port}/api/v1/metadata/"])
    arguments = ("resume", spool, "--wait", 60, "--api-key", "secret")
    with (
        subprocess.Popen([*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, text=True) as process,
        serve_catalog(tmp_path / "kept", port=unused_port, api_key="secret") as catalog,
    ):
        assert "1 run delivered" in process.communicate(timeout=60)[0]
        assert process.returncode == 0
        assert list(documents(catalog.client[uid])) == docs


def test_resume_waits_for_a_new_catalog(spool, tmp_path, unused_port):
    """One that the spool does not know yet is waited for just so, and that is said."""
    uid, docs = run_documents(3)
    put(spool, docs, catalogs=[NOBODY])
    arguments = ("resume", spool, "--uri", f"http://127.0.0.1:{unused_port}", "--wait", 60, "--api-key", "secret")
    with subprocess.Popen([*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().startswith("Waiting for the catalog: no catalog answers at http://127.0.0.1:")
        with serve_catalog(tmp_path / "kept", port=unused_port, api_key="secret") as catalog:
            assert "1 run delivered" in process.communicate(timeout=60)[0]
            assert process.returncode == 0
            assert list(documents(catalog.client[uid])) == docs


@pytest.mark.parametrize(("more", "until"), [((), "->"), (("--uri", "http://127.0.0.1:11"), "Waiting")])
def test_resume_is_interrupted(spool, more, until):
    """Ctrl-C ends it at once, and nothing is lost."""
    put(spool, run_documents(3)[1], catalogs=[NOBODY])
    with running("resume", spool, "--wait", "inf", *more, until=until) as (process, _):
        pass
    assert process.returncode == 130
    assert set(states(spool, NOBODY).values()) == {"waiting"}


def test_resume_with_a_wrong_key(spool, uri):
    """A key that is not taken is said at once, however long it could wait."""
    put(spool, run_documents(3)[1], catalogs=[uri])
    shown = invoke("resume", spool, "--api-key", "wrong", "--wait", "inf")
    assert shown.exit_code == 1
    assert "does not take this API key" in shown.stdout


def test_resume_to_another_catalog(spool, catalog, uri, profile):
    """An address that the spool does not know gets all runs; a profile names it as well."""
    uid, docs = run_documents(3)
    put(spool, docs, catalogs=[NOBODY])
    shown = invoke("resume", spool, "--uri", catalog.uri, "--api-key", catalog.api_key)
    assert shown.exit_code == 0, shown.output
    assert list(documents(catalog.client[uid])) == docs
    assert states(spool, NOBODY) == {uid: "waiting"}

    profile(catalog.uri)
    second, docs = run_documents(3)
    put(spool, docs)
    shown = invoke("resume", spool, "--profile", "ours", "--api-key", catalog.api_key)
    assert shown.exit_code == 0, shown.output
    assert states(spool, uri) == {uid: "delivered", second: "delivered"}


def test_options_that_do_not_fit(spool, catalog):
    """One key is not sent to several catalogs, and a catalog is named once."""
    put(spool, run_documents(1)[1], catalogs=[NOBODY, "http://127.0.0.1:10/api/v1/metadata/"])
    for options, words in (
        (["--api-key", "secret"], "one API key is for one catalog"),
        (["--uri", NOBODY, "--profile", "ours"], "give --uri or --profile"),
    ):
        shown = invoke("resume", spool, *options)
        assert shown.exit_code == 2
        assert words in " ".join(shown.stderr.replace("│", " ").split())
    with pytest.raises(CatalogUnreachableError, match=r"no catalog answers at http://127\.0\.0\.1:11"):
        invoke("resume", spool, "--uri", "http://127.0.0.1:11", "--wait", 0.3)
    with pytest.raises(CatalogAccessError, match="does not take this API key"):
        invoke("resume", spool, "--uri", catalog.uri, "--api-key", "wrong")


def test_resume_beside_a_process_that_delivers(spool, tmp_path, unused_port):
    """It says who delivers, and watches that to its end."""
    uid, docs = run_documents(3)
    with serve_catalog(tmp_path / "kept", port=unused_port, api_key="secret") as catalog:
        writer = CatalogWriter.from_uri(catalog.uri, api_key="secret", spool=spool)
        writer(*docs[0])
    with closing(writer):
        for name, doc in docs[1:]:
            writer(name, doc)
        with running("resume", spool, "--wait", 60, until="delivers already", interrupt=False) as (process, lines):
            assert f"Process {os.getpid()} delivers already" in lines[-1]
            with serve_catalog(tmp_path / "kept", port=unused_port, api_key="secret") as catalog:
                assert "1 run delivered" in process.communicate(timeout=60)[0]
                assert list(documents(catalog.client[uid])) == docs
        assert process.returncode == 0


def test_a_directory_of_spools(spool, catalog, uri, key):
    """What `deliver` takes the other commands take, too: a directory with spools in it."""
    runs = [run_documents(2) for _ in range(2)]
    for number, (_, docs) in enumerate(runs):
        put(spool / f"beamline {number}", docs, catalogs=[uri])
    assert invoke("status", spool).stdout.count("1 run waiting") == 2
    assert f"is parked in {spool / 'beamline 1'}" in invoke("park", runs[1][0], "--spool", spool).stdout
    assert invoke("resume", spool).exit_code == 1
    assert invoke("resume", spool, "--run", runs[1][0]).exit_code == 0
    assert [list(documents(catalog.client[uid])) for uid, _ in runs] == [docs for _, docs in runs]


def test_resume_of_a_run_that_is_going_on(spool, catalog, key):
    """It does not wait for the end of a plan."""
    uid, docs = run_documents(3)
    with CatalogWriter(catalog.client, spool=spool) as writer:
        for name, doc in docs[:-1]:
            writer(name, doc)
        shown = invoke("resume", spool)
        assert shown.exit_code == 0
        assert "What is still going on is delivered by the process that takes the data" in shown.stdout
        writer(*docs[-1])
    assert list(documents(catalog.client[uid])) == docs


def test_resume_behind_runs_that_never_end(spool, catalog, uri, key):
    """However many runs of a source lack their stop, what came later is waited for."""
    with closing(Store(spool, source="kafka://nowhere/topic")) as store:
        for _ in range(120):
            store.append("start", run_documents(0)[1][0][1])
    late = [run_documents(3) for _ in range(2)]
    put(spool, *(docs for _, docs in late), catalogs=[uri])
    shown = invoke("resume", spool)
    assert shown.exit_code == 0, shown.output
    assert [list(documents(catalog.client[uid])) for uid, _ in late] == [docs for _, docs in late]
    assert "What is still going on is delivered by the process that takes the data" in shown.stdout


def test_park_and_resume(spool, catalog, uri, key):
    """A parked run is not delivered and others are; asked for, it is, from its first document."""
    (kept, kept_docs), (other, other_docs) = run_documents(3), run_documents(2)
    put(spool, kept_docs, other_docs, catalogs=[uri])
    assert f"Run {kept} is parked" in invoke("park", kept[:13], "--reason", "not for all", "--spool", spool).stdout
    shown = invoke("resume", spool)
    assert shown.exit_code == 1
    assert "1 run delivered, 1 parked" in shown.stdout
    assert f"parked {kept}: not for all" in shown.stdout
    assert kept not in catalog.client
    assert other in catalog.client
    status = invoke("status", spool).stdout
    assert "not for all" in status
    assert f"try one again: bluesky-filestore resume '{spool}' --run {kept[:8]};" in status
    with pytest.raises(SpoolError, match=rf"run {other} is delivered already; there is nothing to park"):
        invoke("park", other, "--spool", spool)
    shown = invoke("resume", spool, "--run", kept[:13])
    assert shown.exit_code == 0, shown.output
    assert list(documents(catalog.client[kept])) == kept_docs


def test_commands_that_are_said(spool, proxy, catalog, key):
    """What an error, or a command, says to type works as it stands, also for a spool that its user named."""
    uid, docs = run_documents(3)
    writer = CatalogWriter.from_uri(proxy.uri, spool=spool, wait_on_stop=0)
    proxy.fault = lambda request: "cut"
    for pair in docs:
        writer(*pair)
    with pytest.raises(CatalogUnreachableError, match=r"and so does the next writer with that spool\.$") as refused:
        writer.close()
    proxy.fault = no_fault
    _, said, _ = str(refused.value).split("`")
    *_, undo = invoke("park", uid, "--spool", spool).stdout.split("Undo it with: ")
    for command, words in ((said, "1 run parked"), (undo, "1 run delivered")):
        program, *arguments = shlex.split(command)
        assert program == "bluesky-filestore"
        assert words in invoke(*arguments).stdout
    assert list(documents(catalog.client[uid])) == docs


def test_files_that_came_late(spool, catalog, data_directory, key):
    """A run whose files never came is parked with that reason, and completed when they are there."""
    name = f"{spool.parent.name}.h5"
    docs = image_documents(data_directory / name)
    uid = docs[0][1]["uid"]
    with CatalogWriter(catalog.client, spool=spool, settle=0.0) as writer:
        for pair in docs:
            writer(*pair)
        wait_for(lambda: states(spool, str(catalog.client.uri)) == {uid: "parked"})
        assert writer.status().catalogs[0].parked[uid].startswith("files were still missing")
    assert list(catalog.client[uid]["primary"].base) == ["internal"]
    assert "cannot be found" in catalog.client[uid].metadata["notes"][0]
    with h5py.File(data_directory / name, "w") as file:
        file["/entry/data/data"] = np.arange(24, dtype="u2").reshape(1, 4, 6)
    shown = invoke("resume", spool, "--run", uid)
    assert shown.exit_code == 0, shown.output
    assert catalog.client[uid]["primary"]["image"].read().ravel().tolist() == list(range(24))
    assert catalog.client[uid].metadata["notes"] == []
    assert list(documents(catalog.client[uid])) == docs


def test_park_while_it_is_delivered(spool, catalog, uri):
    """A run in the middle of its delivery by another is dropped, and stays parked."""
    uid, docs = run_documents(3)
    with CatalogWriter(catalog.client, spool=spool) as writer:
        for name, doc in docs[:3]:
            writer(name, doc)
        wait_for(lambda: states(spool, uri) == {uid: "uploading"})
        invoke("park", uid, "--spool", spool)
        for name, doc in docs[3:-1]:
            writer(name, doc)
        writer.flush()
        assert states(spool, uri) == {uid: "parked"}
        assert "parked by hand" in invoke("status", spool).stdout


def test_park_without_a_catalog(spool):
    """Where nothing is delivered there is nothing to park."""
    uid, docs = run_documents(1)
    put(spool, docs)
    with pytest.raises(SpoolError, match="knows no catalog yet; there is nothing to park"):
        invoke("park", uid, "--spool", spool)


def test_abbreviated_uids(spool):
    """The beginning of a uid is enough if only one run begins so."""
    docs = [run_documents(1, uid=f"ab{n}-run")[1] for n in range(7)]
    put(spool, *docs, run_documents(1, uid="ab")[1], catalogs=[NOBODY])
    assert "Run ab3-run is parked" in invoke("park", "ab3", "--spool", spool).stdout
    assert "Run ab is parked" in invoke("park", "ab", "--spool", spool).stdout
    with pytest.raises(RunNotFoundError, match=r"8 runs begin with 'a': ab, ab0-run, .* and 3 more; give more"):
        invoke("park", "a", "--spool", spool)
    with pytest.raises(RunNotFoundError, match=r"no run begins with 'b' in .*; expected the uid of a run"):
        invoke("park", "b", "--spool", spool)


def test_forget(spool):
    """It asks first, says what is lost, and then it is gone."""
    uid, docs = run_documents(3)
    put(spool, docs, catalogs=[NOBODY])
    shown = invoke("forget", uid[:8], "--spool", spool, answer="n\n")
    assert shown.exit_code == 1
    assert f"Run {uid}, 6 documents in {spool}" in shown.stdout
    assert f"waiting: {NOBODY}" in shown.stdout
    assert "lost for good. Forget it?" in shown.stdout
    with pytest.raises(RunNotFoundError, match="no run begins with ''"):
        invoke("forget", "", "--spool", spool, "--yes")
    assert states(spool, NOBODY) == {uid: "waiting"}
    assert "is forgotten" in invoke("forget", uid, "--spool", spool, "--yes").stdout
    assert states(spool, NOBODY) == {}


def test_forget_what_is_going_on(spool):
    """Documents that still come must have a place to go."""
    uid, docs = run_documents(3)
    with closing(Store(spool)) as store:
        for name, doc in docs[:-1]:
            store.append(name, doc)
        with pytest.raises(SpoolError, match=rf"run {uid} is still going on; park it"):
            invoke("forget", uid, "--spool", spool, "--yes")


def test_export(spool, tmp_path):
    """Documents as JSON lines, to standard output or a file."""
    uid, docs = run_documents(3)
    put(spool, docs, run_documents(2)[1], catalogs=[NOBODY])
    lines = invoke("export", uid[:10], "--spool", spool).stdout.splitlines()
    assert [tuple(json.loads(line)) for line in lines] == docs
    invoke("export", uid, "--spool", spool, "--output", tmp_path / "run.jsonl")
    assert (tmp_path / "run.jsonl").read_text().splitlines() == lines


def test_a_run_with_a_hole(spool, catalog, uri, key):
    """A run that the spool holds only a part of is not delivered, and says so."""
    uid, docs = run_documents(3)
    put(spool, docs, catalogs=[uri])
    with closing(Ledger(spool)) as ledger:
        ledger._connection.execute("UPDATE runs SET fault = 'the spool was damaged in the middle of the run'")
    with pytest.raises(SpoolError, match=r"cannot be delivered \(the spool was damaged .*bluesky-filestore export"):
        invoke("resume", spool, "--run", uid)


def test_errors_are_sentences(tmp_path):
    """One line and exit code 1, as with the other commands."""
    shown = run("status", tmp_path)
    assert shown.returncode == 1
    assert shown.stderr.startswith("Error: there is no spool in")
    assert "Traceback" not in shown.stderr


def test_status_loads_quickly():
    """Looking at a spool needs neither Tiled nor ophyd."""
    code = "import bluesky_filestore.cli.spools, bluesky_filestore.spool.status, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"tiled", "ophyd", "h5py", "pandas", "bluesky"}.intersection(loaded)
