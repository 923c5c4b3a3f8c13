"""Whether bytes of files are as they were: what no size, shape or sample tells is found by the manifest, and named."""

import itertools
import json
import os
import shutil

import event_model
import pytest
from command_line import run as command
from document_streams import KINDS, Camera, Case, Step, build
from typer.testing import CliRunner

from bluesky_filestore import CatalogWriter, verify_run
from bluesky_filestore.bundles.manifests import describe_files
from bluesky_filestore.bundles.sidecars import SUFFIX
from bluesky_filestore.cli.entry import app
from bluesky_filestore.files import readable

numbers = itertools.count()
DIRTY = 30


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A machine that is busy takes its time; that a writer waits no longer than promised is a test of its own."""
    monkeypatch.setattr("bluesky_filestore.bundles.follow_ups._AT_CLOSE_SECONDS", 60.0)


@pytest.fixture(scope="module")
def described(catalog, data_directory):
    """Writes a run of a kind of detector with its manifest; gives the run's node, documents and directory."""

    def write(kind, **options):
        directory = data_directory / "checksums" / str(next(numbers))
        case = Case((Camera("cam_image", kind, 1, "<u2"),), {"primary": (0,)}, ((Step("primary"),) * 5,) * 2)
        built = build(case, directory)
        with CatalogWriter(catalog.client, spool=None, **{"checksums": True, **options}) as writer:
            for name, doc in built.documents:
                writer(name, doc)
        return catalog.client[built.uid], built.documents, directory

    return write


def files_in(directory):
    """The data files."""
    return sorted(path for path in directory.iterdir() if not path.name.endswith(SUFFIX))


def rewritten(path, content):
    """Other bytes in a file of the same size and time, as a disk makes them that forgets."""
    times = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def flip_a_byte(directory):
    """A bit of the third frame: neither the first, nor the last."""
    path = files_in(directory)[0 if len(files_in(directory)) < 3 else 2]
    content = bytearray(path.read_bytes())
    at = content.rindex(bytes([DIRTY, 0])) if bytes([DIRTY, 0]) in content else len(content) - 1
    content[at] ^= 4
    rewritten(path, bytes(content))
    return [path]


def exchange(directory):
    """Two files of the same size, each with the name of the other."""
    one, other = files_in(directory)[:2]
    contents = one.read_bytes(), other.read_bytes()
    rewritten(one, contents[1])
    rewritten(other, contents[0])
    return [one, other]


def cut_short(directory):
    """The end of one is gone."""
    path = files_in(directory)[-1]
    os.truncate(path, path.stat().st_size - 2)
    return [path]


def remove(directory):
    """One is gone."""
    path = files_in(directory)[-1]
    path.unlink()
    return [path]


def problems_of(report):
    """The files that are said to be others."""
    return [finding for finding in report.findings if finding.check == "checksums" and finding.ok is False]


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_found_and_named(described, kind):
    """Whatever is done to files of a run, these and no others are named, with their events; good ones are good."""
    node, _, directory = described(kind)
    good = verify_run(node, checksums=True)
    assert good.exit_code == 0, str(good)
    assert f"{len(files_in(directory))} files" in str(good)
    whole = directory.with_name(f"{directory.name} whole")
    shutil.copytree(directory, whole)
    for damage in (flip_a_byte, exchange, cut_short, remove):
        damaged = damage(directory)
        report = verify_run(node, checksums=True)
        found = problems_of(report)
        assert sorted(finding.file for finding in found) == sorted(map(str, damaged)), damage.__doc__
        per_file = 5 if len(files_in(directory)) < 5 else 1
        assert [len(finding.events) for finding in found] == [per_file] * len(damaged)
        assert {finding.plugin for finding in found} == {"primary/cam_image"}
        assert report.exit_code == 1
        shutil.rmtree(directory)
        # Copies have other times, which is no damage.
        shutil.copytree(whole, directory, copy_function=shutil.copyfile)
        assert verify_run(node, checksums=True).exit_code == 0


def test_without_a_manifest_it_cannot_be_told(described, data_directory):
    """Nobody is told that all is well by something that nobody knew."""
    node, _, directory = described("AD_HDF5", checksums=False)
    assert verify_run(node).exit_code == 0
    report = verify_run(node, checksums=True)
    assert (report.exit_code, report.problems) == (2, ())
    assert "there is no manifest" in str(report)
    describe_files(node, checksums=False)
    assert "the manifest has the size alone" in str(verify_run(node, checksums=True))
    first, last = files_in(directory)
    hidden = first.rename(directory / "hidden")
    describe_files(node)
    hidden.rename(first)
    report = verify_run(node, checksums=True)
    assert report.exit_code == 2
    assert f"of 1 files the manifest has the size alone, which is as it was: {first}" in str(report)
    assert f"bluesky-filestore manifest {node.metadata['start']['uid']}" in str(report)
    assert last.exists()


def test_files_that_it_does_not_know_are_said(described, catalog):
    """Such as one that was not there when it was made."""
    node, _, directory = described("AD_HDF5", checksums=False)
    first, _ = files_in(directory)
    hidden = first.rename(directory / "hidden")
    describe_files(node)
    hidden.rename(first)
    report = verify_run(node, checksums=True)
    assert (report.exit_code, f"1 files are not in the manifest: {first}" in str(report)) == (2, True)


def test_what_cannot_be_looked_at_is_no_damage(described, monkeypatch):
    """A disk that is not mounted, and a file that is written to while it is read."""
    node, _, directory = described("AD_HDF5")
    away = directory.rename(directory.with_name("away"))
    report = verify_run(node, checksums=True)
    assert [finding.ok for finding in report.findings if finding.check == "checksums"] == [None, None]
    assert report.exit_code == 2
    moved = verify_run(node, checksums=True, root_map={str(directory): str(away)})
    assert [finding.ok for finding in moved.findings if finding.check == "checksums"] == [True]
    away.rename(directory)
    changing = readable.Signature(1, 2, 3, 4)
    monkeypatch.setattr("bluesky_filestore.files.checksums.signature_of", lambda path: changing)
    report = verify_run(node, checksums=True)
    assert [finding.ok for finding in report.findings if finding.check == "checksums"] == [None, None]
    assert "was written to, or replaced, while it was read" in str(report)


def test_documents_are_compared_with_the_sidecar(described):
    """Where there is no catalog; one that is damaged cannot be used, and that is said."""
    _, documents, directory = described("AD_TIFF", sidecars=True)
    assert verify_run(documents, checksums=True).exit_code == 0
    (sidecar,) = directory.glob(f"*{SUFFIX}")
    (damaged,) = flip_a_byte(directory)
    (problem,) = problems_of(verify_run(documents, checksums=True))
    assert problem.file == str(damaged)
    sidecar.write_bytes(sidecar.read_bytes()[:-30])
    report = verify_run(documents, checksums=True)
    assert (report.exit_code, "its manifest cannot be used" in str(report)) == (2, True)
    run = event_model.compose_run()
    assert verify_run([("start", run.start_doc), ("stop", run.compose_stop())], checksums=True).exit_code == 0


def test_the_commands(described, catalog):
    """`manifest` makes what `verify --checksums` goes by; exit codes tell, and JSON names file and events."""
    node, _, directory = described("AD_TIFF", checksums=False)
    uid = node.metadata["start"]["uid"]

    where = ("--uri", catalog.uri, "--api-key", catalog.api_key)

    def manifest(*words):
        answer = CliRunner().invoke(app, ["manifest", *words, *where])
        return answer.exit_code, answer.stdout.replace("\n", " ")

    code, said = manifest(uid[:10], "--sidecar")
    assert (code, f"{uid}: checksums of 10 files" in said) == (0, True), said
    assert (directory / f"{uid}{SUFFIX}").exists()
    (damaged,) = flip_a_byte(directory)
    verified = command("verify", uid, "--checksums", "--json", *where)
    findings = json.loads(verified.stdout)["findings"]
    (found,) = [each for each in findings if each["check"] == "checksums" and each["ok"] is False]
    assert (verified.returncode, found["file"], found["events"]) == (1, str(damaged), [2])
    damaged.touch()
    code, said = manifest(uid)
    assert (code, "its bytes are others" in said) == (1, True)
    assert manifest()[0] == 2
