"""A run in a file beside its data: there and back, as a whole or not at all, and nothing else's place is taken."""

import datetime
import errno
import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bluesky_filestore.bundles import sidecars
from bluesky_filestore.bundles.sidecars import SUFFIX, read_sidecar, sidecar_name, sidecars_below, write_sidecar
from bluesky_filestore.errors import FileStoreError, ForbiddenFileError, ManifestError
from bluesky_filestore.files.readable import Roots
from bluesky_filestore.model.manifest import Manifest, ManifestEntry
from bluesky_filestore.sources.archives import read_archive
from tests.test_bad_input import Documents


def a_run(directory):
    """Documents with values that JSON has no words for, and a manifest."""
    documents = Documents(root=directory)
    documents.all[0][1]["odd"] = {"nan": float("inf"), "big": 2**70, "when": datetime.datetime(2026, 11, 25), 5: b"a"}
    return documents.all, Manifest(documents.uid, (ManifestEntry(f"{directory}/a.h5", 3, 4, "0a" * 32),))


def test_there_and_back(tmp_path):
    """All of it, whatever is in the documents; others read the documents as JSON lines."""
    documents, manifest = a_run(tmp_path)
    path = write_sidecar(documents, manifest, tmp_path, "/data/2026")
    found = read_sidecar(path, Roots.of([tmp_path]))
    assert (list(found.documents), found.manifest, found.directory) == (documents, manifest, "/data/2026")
    assert list(sidecars_below(tmp_path)) == [path]
    assert [name for name, _ in map(json.loads, path.read_text().splitlines())] == [
        *(name for name, _ in documents),
        "manifest",
    ]
    assert [name for name, _ in read_archive(path)] == [name for name, _ in documents]
    again = write_sidecar(documents, Manifest(manifest.uid, ()), tmp_path, "/data/2026")
    assert (again, read_sidecar(path).manifest.entries) == (path, ())
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("uid", ["../../x", "a/b", "", ".", "a" * 300, "C:x", "a\0b", "ä", "\ud800"])
def test_names_are_safe(uid):
    """Whatever the uid is."""
    name = sidecar_name(uid)
    assert name.endswith(SUFFIX)
    assert name.removesuffix(SUFFIX).isalnum()
    assert name != sidecar_name(f"{uid}2")


def other_run(path, documents):
    """The sidecar of another run, by mishap."""
    write_sidecar(Documents().all, Manifest("other", ()), path.parent, "/")
    (path.parent / sidecar_name("other")).rename(path)


def somebodys(path, documents):
    """A file of somebody."""
    path.write_bytes(b"my notes")


def a_directory(path, documents):
    """A directory."""
    path.mkdir()


def a_pipe(path, documents):
    """A pipe, which nobody writes to."""
    os.mkfifo(path)


def a_link(path, documents):
    """A link to a sidecar of the run elsewhere."""
    elsewhere = path.parent / "elsewhere"
    elsewhere.mkdir()
    path.symlink_to(write_sidecar(documents, Manifest(documents[0][1]["uid"], ()), elsewhere, "/"))


@pytest.mark.parametrize("what", [other_run, somebodys, a_directory, a_pipe, a_link])
def test_nothing_else_s_place_is_taken(tmp_path, what):
    """It stays as it is, and an error names it."""
    documents, manifest = a_run(tmp_path)
    path = tmp_path / sidecar_name(manifest.uid)
    what(path, documents)
    before = os.lstat(path)
    with pytest.raises(ManifestError, match="is no sidecar of run"):
        write_sidecar(documents, manifest, tmp_path, "/data")
    assert os.lstat(path) == before
    assert not [each for each in tmp_path.iterdir() if "unfinished" in each.name]


def test_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    """On a full disk the one before stays, and nothing is left; without links it appears all the same."""
    documents, manifest = a_run(tmp_path)
    path = write_sidecar(documents, manifest, tmp_path, "/data")
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_sidecar(documents, Manifest(manifest.uid, ()), tmp_path, "/data")
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (before, [path])
    monkeypatch.undo()
    path.unlink()

    def no_links(*paths):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    assert write_sidecar(documents, manifest, tmp_path, "/data").read_bytes() == before


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 3),
    st.one_of(st.binary(max_size=4), st.sampled_from([b"\n", b"[", b'"', b"9"])),
)
def test_damage_is_seen(tmp_path, place, lost, put):
    """Any bytes changed, lost or put in between: it is refused, or says the same of the run."""
    documents, manifest = a_run(tmp_path)
    path = write_sidecar(documents, manifest, tmp_path, "/data")
    content = path.read_bytes()
    at = int(place * len(content))
    path.write_bytes(content[:at] + put + content[at + lost :])
    try:
        found = read_sidecar(path)
    except FileStoreError:
        pass
    else:
        assert (list(found.documents), found.manifest, found.directory) == (documents, manifest, "/data")
    finally:
        path.unlink()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no manifest"),
        (b"\xff\n", "is not of JSON"),
        (b"[" * 100_000 + b"\n", "is not of JSON"),
        (b'["start", {"uid": "u"}]', "does not end"),
        (b'["stop", {}]\n', "expected one start"),
        (b'["start", {"uid": "u"}]\n["start", {}]\n', "expected one start"),
        (b'["start", {"uid": "u"}]\n', "no manifest"),
        (b'["start", {"uid": "u"}]\n["manifest", {}]\n["stop", {}]\n', "comes after its manifest"),
        (b'["start", {"uid": "u"}]\n["__import__", {}]\n', "is no document"),
        (b'["start", {"uid": "u", "t": {"!date": "x"}}]\n', "is no|no manifest|not of JSON"),
        (b'{"name": 5}\n', "is no document"),
    ],
)
def test_what_is_none_is_refused(tmp_path, content, words):
    """In words that name the file."""
    path = tmp_path / f"a{SUFFIX}"
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=words) as error:
        read_sidecar(path)
    assert str(path) in str(error.value)


def test_where_and_how_large_it_may_be(tmp_path, monkeypatch):
    """Not behind a link that leads out, and not without bounds."""
    (tmp_path / "in").mkdir()
    documents, manifest = a_run(tmp_path)
    path = write_sidecar(documents, manifest, tmp_path, "/data")
    (tmp_path / "in" / path.name).symlink_to(path)
    with pytest.raises(ForbiddenFileError):
        read_sidecar(tmp_path / "in" / path.name, Roots.of([tmp_path / "in"]))
    monkeypatch.setattr(sidecars, "_LARGEST", 100)
    with pytest.raises(ManifestError, match="expected 100 at most"):
        read_sidecar(path)
    monkeypatch.undo()
    monkeypatch.setattr(sidecars, "_LONGEST_LINE", 30)
    with pytest.raises(ManifestError, match="does not end within 30 bytes"):
        read_sidecar(path)
