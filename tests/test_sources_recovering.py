"""A catalog that was lost, made anew from what lies beside the files: the same runs, wherever the files are by now."""

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest
from document_streams import KINDS, Camera, Case, Step, build
from typer.testing import CliRunner

from bluesky_filestore import CatalogWriter, documents, verify_run
from bluesky_filestore.bundles.manifests import manifest_of
from bluesky_filestore.bundles.sidecars import SUFFIX, read_sidecar, write_sidecar
from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
from bluesky_filestore.cli.entry import app
from bluesky_filestore.errors import PathError, SourceError
from bluesky_filestore.model.manifest import Manifest
from bluesky_filestore.reading.run_tree import RunTree
from bluesky_filestore.sources.recovering import recover
from tests.test_bad_input import Documents

numbers = itertools.count()
PROGRAM = """
import os, sys
from pathlib import Path
import tiled.client.array, tiled.client.dataframe
from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
from bluesky_filestore.catalogs.tiled.connecting import connect
from bluesky_filestore.sources.recovering import recover

directory, state, uri, key = sys.argv[1:]
for _ in sys.stdin:
    child = os.fork()
    if not child:
        list(recover(Path(directory), TiledCatalog(connect(uri, api_key=key)), Path(state)))
        os._exit(0)
    print(child, flush=True)
    os.waitpid(child, 0)
"""
"""What is imported takes longest: each recovery is a process that was forked from one."""


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A machine that is busy takes its time; that a writer waits no longer than promised is a test of its own."""
    monkeypatch.setattr("bluesky_filestore.bundles.follow_ups._AT_CLOSE_SECONDS", 60.0)


@pytest.fixture
def written(catalog, data_directory):
    """Writes runs with sidecars, of a kind each, in a directory each below one; gives that, and the uids."""

    def write(kinds=KINDS, events=3):
        directory = data_directory / "recovering" / str(next(numbers))
        uids = []
        with CatalogWriter(catalog.client, spool=None, checksums=True, sidecars=True) as writer:
            for number, kind in enumerate(kinds):
                cameras = (Camera("cam_image", kind, 1, "<u2"), Camera("other_image", "AD_HDF5", 1, "<u2"))
                steps = (Step("primary"),) * events
                built = build(Case(cameras, {"primary": (0, 1)}, (steps, steps)), directory / str(number) / "det")
                for name, doc in built.documents:
                    writer(name, doc)
                uids.append(built.uid)
        return directory, uids

    return write


def lose(catalog, uids):
    """The catalog has them no more."""
    for uid in uids:
        node = catalog.client[uid]
        node.context.http_client.delete(node.uri, params={"external_only": False, "recursive": True}).raise_for_status()
        assert uid not in catalog.client


def contents(catalog, uid):
    """All that a catalog says of a run, and its frames."""
    node = catalog.client[uid]
    frames = [np.asarray(node["primary"][key].read()).tolist() for key in ("cam_image", "other_image")]
    return list(documents(node)), manifest_of(uid, RunTree(node)), frames, dict(node.metadata["stop"])


def test_lost_runs_are_there_again(catalog, written, tmp_path):
    """Documents, frames and manifests are what they were; what is there is left alone, however often one asks."""
    directory, uids = written(("AD_HDF5", "AD_TIFF", "stream HDF5"))
    before = {uid: contents(catalog, uid) for uid in uids}
    changed = catalog.client[uids[0]]["primary"]
    changed.update_metadata({"by": "hand"})
    lose(catalog, uids[1:])
    target = TiledCatalog(catalog.client)
    found = list(recover(directory, target, tmp_path))
    assert [(each.uid, each.state, each.words) for each in found] == [
        (uid, "there" if uid == uids[0] else "recovered", ()) for uid in uids
    ]
    assert {uid: contents(catalog, uid) for uid in uids[1:]} == {uid: before[uid] for uid in uids[1:]}
    assert catalog.client[uids[0]]["primary"].metadata["by"] == "hand"
    assert all(verify_run(catalog.client, uid, checksums=True).exit_code == 0 for uid in uids)
    assert {each.state for each in recover(directory, target, tmp_path)} == {"there"}
    lose(catalog, uids[1:2])
    assert [each.uid for each in recover(directory, target, tmp_path) if each.state == "recovered"] == [uids[1]]
    assert contents(catalog, uids[1]) == before[uids[1]]


@pytest.mark.parametrize("how", ["whole tree", "one directory", "said"])
def test_files_that_were_moved(catalog, written, tmp_path, how):
    """They are found beside the sidecar, or where one says, and the catalog has the paths of now."""
    directory, uids = written(("stream TIFF", "AD_HDF5_SINGLE"))
    before = {uid: contents(catalog, uid) for uid in uids}
    lose(catalog, uids)
    new, root_map = directory.with_name(f"{directory.name} moved"), None
    if how == "one directory":
        # Their directory has another name, and lies elsewhere.
        for number in range(2):
            shutil.copytree(directory / str(number) / "det", new / f"flat {number}")
        shutil.rmtree(directory)
    else:
        directory.rename(new)
    if how == "said":
        root_map = {str(directory): str(new)}
    found = list(recover(new, TiledCatalog(catalog.client), tmp_path, root_map=root_map))
    assert [(each.state, each.words) for each in found] == [("recovered", ())] * 2
    for uid in uids:
        _, manifest, frames, stop = contents(catalog, uid)
        assert (frames, stop) == before[uid][2:]
        assert {entry.sha256 for entry in manifest.entries} == {entry.sha256 for entry in before[uid][1].entries}
        assert all(entry.path.startswith(f"{new}/") for entry in manifest.entries)
        assert verify_run(catalog.client, uid, checksums=True).exit_code == 0


def test_killed_at_any_point(catalog, written, tmp_path):
    """The next one goes on, to the same."""
    directory, uids = written(KINDS[::2])
    before = {uid: contents(catalog, uid) for uid in uids}
    lose(catalog, uids)
    when = random.Random(13)
    arguments = [sys.executable, "-c", PROGRAM, str(directory), str(tmp_path), catalog.uri, catalog.api_key]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for _ in range(4):
            process.stdin.write("again\n")
            process.stdin.flush()
            child = int(process.stdout.readline())
            time.sleep(when.uniform(0.05, 1.0))
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        process.stdin.close()
    found = list(recover(directory, TiledCatalog(catalog.client), tmp_path))
    assert {each.state for each in found} <= {"there", "recovered"}
    assert {uid: contents(catalog, uid) for uid in uids} == before


def hostile(directory):
    """Sidecars as nobody should write them, each with what is said of it."""
    good = Documents(root=directory)

    def sidecar(name, change, words, uid=good.uid):
        pairs = [(kind, dict(doc)) for kind, doc in good.all]
        change(pairs)
        (directory / name).mkdir()
        path = write_sidecar(pairs, Manifest(uid, ()), directory / name, "/data")
        return path, words

    def other_run(pairs):
        pairs[good.where("stop")][1]["run_start"] = "another"

    def no_uid(pairs):
        pairs[good.where("event")][1]["uid"] = ["a", "list"]

    def no_data(pairs):
        pairs[good.where("event")][1]["data"] = 5

    def more(pairs):
        pairs.append(pairs[good.where("event")])

    def pages(pairs):
        pairs.insert(3, ("event_page", {"uid": []}))

    def unknown(pairs):
        pairs[good.where("event")][1]["descriptor"] = "another"

    def elsewhere(pairs):
        pairs[0][1]["uid"] = "../../other"

    def file(name, content):
        (directory / f"{name}{SUFFIX}").write_bytes(content)
        return directory / f"{name}{SUFFIX}"

    yield sidecar("a", other_run, "is of another run")
    yield sidecar("b", no_uid, "expected a str")
    yield sidecar("c", no_data, "expected a dict")
    yield sidecar("d", more, "expected it to be the last")
    yield sidecar("e", pages, "event_page")
    yield sidecar("f", unknown, "is of another run")
    yield sidecar("g", elsewhere, "which no catalog can have", "../../other")
    yield file("empty", b""), "no manifest"
    yield file("noise", bytes(range(256)) * 10), "not of JSON"
    (directory / f"link{SUFFIX}").symlink_to("/etc/passwd")
    yield directory / f"link{SUFFIX}", "outside the directories"
    os.mkfifo(directory / f"pipe{SUFFIX}")
    yield directory / f"pipe{SUFFIX}", "is not a file"


def test_what_is_of_no_use_is_refused(catalog, written, tmp_path):
    """Each in clear words; the rest goes on."""
    directory, (uid,) = written(KINDS[:1])
    before = contents(catalog, uid)
    lose(catalog, [uid])
    (directory / "bad").mkdir()
    bad = dict(hostile(directory / "bad"))
    found = {each.path: each for each in recover(directory, TiledCatalog(catalog.client), tmp_path)}
    for path, words in bad.items():
        assert (found[path].state, words in " ".join(found[path].words)) == ("refused", True), found[path]
    assert [each.state for path, each in found.items() if path not in bad] == ["recovered"]
    assert contents(catalog, uid) == before


def test_two_that_say_different_things(catalog, written, tmp_path):
    """Nobody can tell which is right; copies are alike."""
    directory, (uid, other) = written(KINDS[:2])
    lose(catalog, [uid, other])
    shutil.copytree(directory / "1", directory / "copy of 1")
    (path,) = (directory / "0" / "det").glob(f"*{SUFFIX}")
    sidecar = read_sidecar(path)
    changed = [(name, {**doc, "time": 5.0} if name == "stop" else doc) for name, doc in sidecar.documents]
    (directory / "x").mkdir()
    write_sidecar(changed, sidecar.manifest, directory / "x", "/data")
    found = list(recover(directory, TiledCatalog(catalog.client), tmp_path))
    assert sorted((each.uid, each.state) for each in found) == sorted(
        [(uid, "refused"), (uid, "refused"), (other, "recovered")]
    )
    assert "say different things" in next(each.words[0] for each in found if each.uid == uid)
    assert uid not in catalog.client


def test_the_command(catalog, written, tmp_path):
    """It says what became of each; what another does at the same time, a directory that is none, a map of nothing."""
    directory, (uid,) = written(KINDS[:1])
    lose(catalog, [uid])
    where = ["--uri", catalog.uri, "--api-key", catalog.api_key, "--state", str(tmp_path)]
    answer = CliRunner().invoke(app, ["recover", str(directory), *where])
    assert (answer.exit_code, answer.stdout) == (0, f"recovered {uid}\n1 recovered.\n")
    (directory / f"x{SUFFIX}").write_bytes(b"")
    answer = CliRunner().invoke(app, ["recover", str(directory), *where])
    assert (answer.exit_code, "1 refused, 1 there." in answer.stdout) == (1, True)
    target = TiledCatalog(catalog.client)
    going_on = recover(directory, target, tmp_path)
    next(going_on)
    with pytest.raises(SourceError, match="another process recovers"):
        next(recover(directory, target, tmp_path))
    going_on.close()
    with pytest.raises(SourceError, match="there is no directory"):
        next(recover(directory / "none", target, tmp_path))
    with pytest.raises(PathError):
        next(recover(directory, target, tmp_path, root_map={"a": "b"}))
