"""The manifest of a run in its catalog: made behind the writer, on request, and never of half of a run."""

import hashlib
import itertools
import json
import logging
import os
import threading
import time
from pathlib import Path

import httpx
import pytest
from bluesky_tiled_plugins import TiledWriter
from document_streams import KINDS, Camera, Case, Step, build

from bluesky_filestore import CatalogWriter, documents, relocate, undo_relocation, verify_run
from bluesky_filestore.bundles import describing
from bluesky_filestore.bundles.manifests import describe_files, manifest_of
from bluesky_filestore.bundles.sidecars import read_sidecar, sidecar_name
from bluesky_filestore.catalogs.tiled import nodes
from bluesky_filestore.errors import CatalogUnreachableError, DocumentError
from bluesky_filestore.files import checksums
from bluesky_filestore.model.manifest import Manifest
from bluesky_filestore.reading.run_tree import RunTree
from tests.test_bad_input import Documents

numbers = itertools.count()


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A machine that is busy takes its time; that a writer waits no longer than promised is a test of its own."""
    monkeypatch.setattr("bluesky_filestore.bundles.follow_ups._AT_CLOSE_SECONDS", 60.0)


@pytest.fixture
def built(data_directory):
    """Builds a run of a detector of some kind, twice staged, with a dark stream."""

    def make(kind="AD_HDF5", events=4):
        directory = data_directory / "manifests" / str(next(numbers))
        camera = Camera("cam_image", kind, 2, "<u2")
        steps = (Step("primary"), Step("dark")) * events
        return build(Case((camera,), {"primary": (0,), "dark": (0,)}, (steps, steps)), directory), directory

    return make


def deliver(client, built, **options):
    """Write a run; whatever the writer says is in the log."""
    with CatalogWriter(client, spool=None, **options) as writer:
        for name, doc in built.documents:
            writer(name, doc)
    return client[built.uid]


def files_in(directory):
    """Its data files, with their checksums."""
    files = (path for path in directory.iterdir() if not path.name.endswith(".jsonl"))
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("kind", KINDS)
def test_the_writer_describes_files(catalog, built, kind):
    """Of any kind: each file's checksum is in the catalog when the writer is closed, and the run reads as before."""
    run, directory = built(kind)
    node = deliver(catalog.client, run, checksums=True)
    manifest = manifest_of(run.uid, RunTree(node))
    assert {entry.path: entry.sha256 for entry in manifest.entries} == files_in(directory)
    for entry in manifest.entries:
        found = Path(entry.path).stat()
        assert (entry.size, entry.modified_ns) == (found.st_size, found.st_mtime_ns)
    events = [[doc for name, doc in pairs if name == "event"] for pairs in (documents(node), run.documents)]
    assert events[0] == events[1]
    assert node["primary"]["cam_image"].read().shape == (8, 2, 4, 6)
    # Who lists runs does not get it.
    assert "manifest" not in json.dumps(node.metadata, default=dict)
    assert "manifest" not in json.dumps(node["primary"].metadata, default=dict)


def test_nobody_asked(catalog, built):
    """By default files are not read again, and there is nothing beside them."""
    run, directory = built()
    node = deliver(catalog.client, run)
    assert manifest_of(run.uid, RunTree(node)) is None
    assert sorted(path.suffix for path in directory.iterdir()) == [".h5", ".h5"]


def test_a_file_beside_the_files(catalog, built):
    """It holds the run as it went in, and its manifest; no checksums were asked for."""
    run, directory = built("AD_TIFF")
    deliver(catalog.client, run, sidecars=True)
    sidecar = read_sidecar(directory / sidecar_name(run.uid))
    assert [pair[1]["uid"] for pair in sidecar.documents if pair[0] == "event"] == [
        doc["uid"] for name, doc in run.documents if name == "event"
    ]
    assert sidecar.directory == str(directory)
    assert {entry.path for entry in sidecar.manifest.entries} == set(files_in(directory))
    assert not any(entry.sha256 for entry in sidecar.manifest.entries)


def test_done_again_it_reads_what_is_new(catalog, built):
    """Files that are as they were are not read; one that is another is told, and what was known of it stays."""
    run, directory = built()
    node = deliver(catalog.client, run)
    read = []
    first = describe_files(node, on_bytes=read.append)
    assert sum(read) == first.bytes == sum(path.stat().st_size for path in directory.iterdir())
    read.clear()
    assert describe_files(node, on_bytes=read.append).manifest == first.manifest
    assert describe_files(node, checksums=False).manifest == first.manifest
    changed, copied = sorted(directory.iterdir())
    os.utime(copied, ns=(7, 7))
    content = bytearray(changed.read_bytes())
    content[-1] ^= 1
    changed.write_bytes(content)
    again = describe_files(node, on_bytes=read.append)
    assert sum(read) == first.bytes
    assert f"{changed}: its bytes are others" in again.problems[0]
    assert len(again.problems) == 1
    before, now = first.manifest.by_path, manifest_of(run.uid, RunTree(node)).by_path
    assert now[str(changed)] == before[str(changed)]
    assert now[str(copied)].modified_ns == 7
    assert describe_files(node, replace=True).problems == ()
    sha256 = manifest_of(run.uid, RunTree(node)).by_path[str(changed)].sha256
    assert sha256 == hashlib.sha256(content).hexdigest()


def test_interrupted_in_the_middle(catalog, data_directory, monkeypatch):
    """What was kept before is right, what was not is said not to be known, and the next time makes up for it."""
    cameras = tuple(Camera(f"{name}_image", "AD_HDF5", 1, "<u2") for name in ("one", "other"))
    directory = data_directory / "manifests" / str(next(numbers))
    node = deliver(catalog.client, build(Case(cameras, {"primary": (0, 1)}, ((Step("primary"),) * 2,)), directory))
    replace_entries, kept = nodes.replace_entries, []

    def once(node, entries):
        if kept:
            raise httpx.ConnectError("gone")
        kept.append(replace_entries(node, entries))

    monkeypatch.setattr("bluesky_filestore.catalogs.tiled.manifests.replace_entries", once)
    with pytest.raises(CatalogUnreachableError):
        describe_files(node)
    report = verify_run(node, checksums=True)
    assert (report.exit_code, "1 files are not in the manifest" in str(report)) == (2, True), str(report)
    monkeypatch.undo()
    describe_files(node)
    assert verify_run(node, checksums=True).exit_code == 0


def test_what_cannot_be_looked_at_is_said(catalog, built, data_directory):
    """A file that is gone, one that an earlier manifest knows, a run that goes on."""
    run, directory = built()
    node = deliver(catalog.client, run)
    gone = sorted(directory.iterdir())[0]
    kept = gone.rename(directory.parent / "elsewhere")
    found = describe_files(node)
    assert [entry.path for entry in found.manifest.entries] == [str(path) for path in directory.iterdir()]
    assert f"file {gone} is not there" in found.problems[0]
    kept.rename(gone)
    whole = describe_files(node)
    assert len(whole.manifest.entries) == 2
    gone.unlink()
    assert set(describe_files(node).manifest.entries) == set(whole.manifest.entries)
    going_on = Documents(root=data_directory)
    with CatalogWriter(catalog.client, spool=None) as writer:
        for name, doc in going_on.all[:-1]:
            writer(name, doc)
        time.sleep(0)
        until = time.monotonic() + 20
        while going_on.uid not in catalog.client and time.monotonic() < until:
            time.sleep(0.05)
        with pytest.raises(DocumentError, match="has not ended"):
            describe_files(catalog.client[going_on.uid])
        writer(*going_on.all[-1])


def test_files_of_what_is_no_array(stock, monkeypatch):
    """They are in the run's own metadata, where a stock server has no array of them; as many as there is room for."""
    client, readable = stock
    steps = (Step("primary"), Step("dark"), Step("dark"))
    case = Case((Camera("cam_image", "AD_HDF5", 2, "<u2"),), {"primary": (0,), "dark": (0,)}, (steps, steps))
    run = build(case, readable / "refused")
    node = deliver(client, run, checksums=True)
    assert "cam_image" not in node["dark"].base
    manifest = manifest_of(run.uid, RunTree(node))
    assert {entry.path: entry.sha256 for entry in manifest.entries} == files_in(readable / "refused")
    assert Manifest.from_columns(run.uid, node.metadata["manifest"]) == manifest
    monkeypatch.setattr("bluesky_filestore.catalogs.tiled.manifests.MOST_IN_RUN", 1)
    assert "only a sidecar has their checksums" in describe_files(node).problems[0]


def test_a_close_gives_up_and_says_so(catalog, built, monkeypatch, caplog):
    """It waits no longer than it promises, nothing half is kept, and it can be done later."""
    monkeypatch.setattr("bluesky_filestore.bundles.follow_ups._AT_CLOSE_SECONDS", 0.2)
    going_on = threading.Event()

    def slow(path, *, roots, on_bytes):
        going_on.set()
        while True:
            on_bytes(0)
            time.sleep(0.01)

    monkeypatch.setattr("bluesky_filestore.reading.run_files.digest_of", slow)
    run, _ = built()
    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        node = deliver(catalog.client, run, checksums=True)
    assert going_on.is_set()
    assert time.monotonic() - began < 10
    assert f"bluesky-filestore manifest {run.uid}" in caplog.text
    assert manifest_of(run.uid, RunTree(node)) is None
    monkeypatch.setattr("bluesky_filestore.reading.run_files.digest_of", checksums.digest_of)
    assert describe_files(node).manifest.has_checksums


def test_it_goes_behind_the_plan(catalog, built, monkeypatch):
    """A stop does not wait for it, and it is one thread of low priority, for all runs."""
    seen = []

    def digest_of(path, **options):
        seen.append((threading.get_ident(), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
        time.sleep(0.3)
        return checksums.digest_of(path, **options)

    monkeypatch.setattr("bluesky_filestore.reading.run_files.digest_of", digest_of)
    monkeypatch.setattr(describing, "_LOOK_SECONDS", 0.05)
    runs = [built()[0] for _ in range(2)]
    with CatalogWriter(catalog.client, spool=None, checksums=True) as writer:
        for run in runs:
            for name, doc in run.documents:
                writer(name, doc)
            assert run.uid in catalog.client
            assert len(seen) < 3
    assert len(seen) == 4
    assert len({thread for thread, _ in seen}) == 1
    assert min(nice for _, nice in seen) >= 10
    assert all(manifest_of(run.uid, RunTree(catalog.client[run.uid])).has_checksums for run in runs)


def test_another_process_delivers(catalog, built, tmp_path, monkeypatch):
    """Who was asked for checksums makes them all the same."""
    monkeypatch.setattr(describing, "_AWAY_SECONDS", 0.2)
    run, directory = built()
    with CatalogWriter(catalog.client, spool=tmp_path) as other:
        until = time.monotonic() + 20
        while not other._spooling.uploaders[0].delivers and time.monotonic() < until:
            time.sleep(0.02)
        with CatalogWriter(catalog.client, spool=tmp_path, checksums=True) as writer:
            for name, doc in run.documents:
                writer(name, doc)
            assert not writer._spooling.uploaders[0].delivers
    manifest = manifest_of(run.uid, RunTree(catalog.client[run.uid]))
    assert {entry.path: entry.sha256 for entry in manifest.entries} == files_in(directory)


@pytest.mark.parametrize("kind", ["stream HDF5", "stream TIFF"])
def test_runs_of_another_writer(stock, kind):
    """TiledWriter's, too: their files are those that are registered, and flipped bytes are found."""
    client, readable = stock
    directory = readable / f"other {next(numbers)}"
    run = build(Case((Camera("cam_image", kind, 1, "<u2"),), {"primary": (0,)}, ((Step("primary"),) * 3,)), directory)
    writer = TiledWriter(client)
    for name, doc in run.documents:
        writer(name, doc)
    node = client[run.uid]
    assert verify_run(node, checksums=True).exit_code == 2
    found = describe_files(node, sidecar=True)
    assert {entry.path: entry.sha256 for entry in found.manifest.entries} == files_in(directory)
    assert found.problems == ("the catalog does not hold its documents, so that there is no sidecar to be written",)
    assert verify_run(node, checksums=True).exit_code == 0
    damaged = sorted(directory.iterdir())[0]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    (problem,) = [each for each in verify_run(node, checksums=True).problems if each.check == "checksums"]
    assert problem.file == str(damaged)


def test_a_manifest_follows_its_files(catalog, built):
    """Made before, between or after relocations, and whichever is undone: the manifest is of the files of then."""
    run, old = built("AD_TIFF", 2)
    new = old.with_name(f"{old.name} new")
    deliver(catalog.client, run)
    there, back = {str(old): str(new)}, {str(new): str(old)}
    old.rename(new)
    first = relocate(catalog.client, there, [run.uid])
    describe_files(catalog.client[run.uid])
    assert verify_run(catalog.client, run.uid, checksums=True).exit_code == 0
    new.rename(old)
    second = relocate(catalog.client, back, [run.uid])
    assert verify_run(catalog.client, run.uid, checksums=True).exit_code == 0
    describe_files(catalog.client[run.uid])
    old.rename(new)
    undo_relocation(catalog.client, second.journal)
    assert verify_run(catalog.client, run.uid, checksums=True).exit_code == 0
    new.rename(old)
    undo_relocation(catalog.client, first.journal)
    report = verify_run(catalog.client, run.uid, checksums=True)
    assert report.exit_code == 0, str(report)
