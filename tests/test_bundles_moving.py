"""Files of runs brought elsewhere: nothing is lost wherever it is interrupted, and everything is read as before."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import h5py
import httpx
import numpy as np
import pytest
from bluesky_tiled_plugins import TiledWriter
from document_streams import KINDS, Camera, Case, Step, build
from effort import some
from small_runs import image_documents
from test_bundles_relocating import deliver, everything_in, frames_by_all_ways, one_camera

from bluesky_filestore import copy_files, describe_files, move_files, serve_catalog, undo_relocation, verify_run
from bluesky_filestore.bundles.sidecars import sidecar_name
from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
from bluesky_filestore.errors import OptionError
from bluesky_filestore.files.copying import copy_file
from bluesky_filestore.sources.recovering import recover

numbers = itertools.count()
KEY = "cam_image"


@pytest.fixture(scope="module")
def catalog(tmp_path_factory, data_directory):
    """A catalog with these runs alone: a move looks through all of them."""
    with serve_catalog(tmp_path_factory.mktemp("moving"), readable=data_directory) as server:
        yield server


@pytest.fixture
def place(data_directory):
    """A directory of its own that the server reads."""
    path = data_directory / "moving" / str(next(numbers))
    path.mkdir(parents=True)
    return path


def contents(directory):
    """What is in the files below a directory, by their paths there."""
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()
    }


@pytest.mark.parametrize("kind", some(list(KINDS), 1))
def test_moved(catalog, place, kind):
    """The files of a run of each kind are elsewhere, the originals gone, other files there, all is read as before."""
    uid = deliver(catalog.client, build(one_camera(kind), place / "old").documents)
    expected, files = frames_by_all_ways(catalog.client, uid), contents(place / "old")
    (place / "old" / "other.txt").write_text("of somebody else")
    report = move_files(catalog.client, [uid[:12]], place / "new")
    assert report.ok, str(report)
    assert len(report.removed) == len(files)
    assert contents(place / "new") == files
    assert list(contents(place / "old")) == ["other.txt"]
    np.testing.assert_array_equal(frames_by_all_ways(catalog.client, uid), expected)
    checked = verify_run(catalog.client, uid)
    assert checked.exit_code == 0, str(checked)
    assert move_files(catalog.client, [uid], place / "new").removed == []


def test_sidecars_go_along(catalog, place):
    """A run is found again where its files are: copies and moved files have their sidecar beside them."""
    uid = deliver(catalog.client, build(one_camera("AD_TIFF"), place / "data" / "old").documents)
    describe_files(catalog.client[uid], sidecar=True)
    expected = frames_by_all_ways(catalog.client, uid)
    assert copy_files(catalog.client, [uid], place / "copy").ok
    assert sidecar_name(uid) in contents(place / "copy")
    assert move_files(catalog.client, [uid], place / "new").ok
    assert contents(place / "data") == {}
    assert contents(place / "new") == contents(place / "copy")
    lost = TiledCatalog(catalog.client.create_container())
    (found,) = recover(place / "new", lost, place / "state")
    assert (found.state, found.words) == ("recovered", ())
    np.testing.assert_array_equal(frames_by_all_ways(lost.connect(), uid), expected)
    report = verify_run(lost.connect(), uid, checksums=True)
    assert report.exit_code == 0, str(report)


def test_copied(catalog, place):
    """A copy leaves the catalog alone, unless that shall name it; then it can be undone, since the originals stay."""
    uid = deliver(catalog.client, build(one_camera("AD_HDF5"), place / "old").documents)
    before, files = everything_in(catalog.client, uid), contents(place / "old")
    assert copy_files(catalog.client, [uid], place / "copy").ok
    assert everything_in(catalog.client, uid) == before
    assert contents(place / "copy") == contents(place / "old") == files
    report = copy_files(catalog.client, [uid], place / "copy", rewrite=True)
    assert report.relocated == [uid]
    assert str(place / "copy") in str(everything_in(catalog.client, uid)["primary", KEY])
    assert verify_run(catalog.client, uid).exit_code == 0
    undo_relocation(catalog.client, report.journal)
    assert everything_in(catalog.client, uid) == before
    with pytest.raises(OptionError, match="expected a list"):
        copy_files(catalog.client, uid, place / "copy")


def virtual_file(directory, name, *, absolute=False, apart="parts"):
    """An HDF5 file that is made of parts of others: a virtual dataset and an external link; its documents."""
    (directory / apart).mkdir(parents=True, exist_ok=True)
    part, linked = directory / apart / f"{name} part.h5", directory / apart / f"{name} linked.h5"
    frames = np.arange(24, dtype="<u2").reshape(1, 4, 6)
    for path in (part, linked):
        with h5py.File(path, "w") as file:
            file["data"] = frames
    refer = (lambda path: str(path)) if absolute else (lambda path: str(path.relative_to(directory)))
    with h5py.File(directory / f"{name}.h5", "w") as file:
        layout = h5py.VirtualLayout((1, 4, 6), "<u2")
        layout[:] = h5py.VirtualSource(refer(part), "data", (1, 4, 6))
        file.create_virtual_dataset("/entry/data/data", layout)
        file["/entry/linked"] = h5py.ExternalLink(refer(linked), "data")
    return image_documents(directory / f"{name}.h5")


def test_files_that_files_refer_to(catalog, place):
    """What an HDF5 file has its data from goes along, and is found; where it could not be, nothing is moved."""
    uid = deliver(catalog.client, virtual_file(place / "old", "virtual"))
    expected = frames_by_all_ways(catalog.client, uid, "image")
    assert expected.any()
    report = move_files(catalog.client, [uid], place / "new")
    assert sorted(map(str, report.removed)) == sorted(
        str(place / "old" / name) for name in ("virtual.h5", "parts/virtual part.h5", "parts/virtual linked.h5")
    )
    np.testing.assert_array_equal(frames_by_all_ways(catalog.client, uid, "image"), expected)
    with h5py.File(place / "new" / "virtual.h5") as file:
        np.testing.assert_array_equal(file["/entry/linked"][...], expected.reshape(1, 4, 6))
    fixed = deliver(catalog.client, virtual_file(place / "fixed", "absolute", absolute=True))
    report = move_files(catalog.client, [fixed], place / "elsewhere")
    assert "by that path" in report.refused[fixed]
    assert len(contents(place / "fixed")) == 3
    assert not (place / "elsewhere").exists()
    # Beside the file that names it, it is found by its name.
    beside = deliver(catalog.client, virtual_file(place / "beside", "near", absolute=True, apart="."))
    assert len(move_files(catalog.client, [beside], place / "there").removed) == 3
    np.testing.assert_array_equal(frames_by_all_ways(catalog.client, beside, "image"), expected)


@pytest.mark.parametrize("write", ["ours", "TiledWriter"])
def test_what_other_runs_need_stays(catalog, place, write):
    """Files that another run refers to are copied, and not removed: files alone, of a series, or by a link."""
    old = place / "old"
    shared = build(one_camera("stream HDF5"), old).documents
    uid = deliver(catalog.client, shared)
    again = [(name, dict(doc)) for name, doc in shared]
    other = f"another {uid[8:]}"
    for name, doc in again:
        doc.update({"uid": other} if name == "start" else {})
        doc.update({"run_start": other} if "run_start" in doc else {})
    writer = TiledWriter(catalog.client)
    if write == "ours":
        deliver(catalog.client, again)
    else:
        for pair in again:
            writer(*pair)
    files = contents(old)
    report = move_files(catalog.client, [uid], place / "new")
    assert report.ok, str(report)
    assert report.removed == []
    assert set(report.kept.values()) == {other}
    assert contents(old) == contents(place / "new") == files
    assert verify_run(catalog.client, uid).exit_code == 0
    assert verify_run(catalog.client, other).exit_code == 0
    assert len(move_files(catalog.client, [other], place / "third").removed) == len(files)


def test_damaged_files_of_other_runs(catalog, place):
    """What is damaged of another run beside them keeps nobody from moving his files; it needs no others any more."""
    uid = deliver(catalog.client, virtual_file(place / "old", "good"))
    damaged = virtual_file(place / "old", "damaged")
    other = deliver(catalog.client, damaged)
    path = place / "old" / "damaged.h5"
    path.write_bytes(path.read_bytes()[:1000])
    report = move_files(catalog.client, [uid], place / "new")
    assert report.ok, str(report)
    assert len(report.removed) == 3
    assert verify_run(catalog.client, uid).exit_code == 0
    assert "cut short" in str(verify_run(catalog.client, other))
    assert path.exists()


def test_nothing_is_written_over(catalog, place):
    """A file of another content in the way refuses the run, and stays; one of the same content is the copy."""
    uid = deliver(catalog.client, build(one_camera("AD_TIFF"), place / "old").documents)
    before, files = everything_in(catalog.client, uid), contents(place / "old")
    (place / "new").mkdir()
    first, second, *_ = files
    (place / "new" / first).write_bytes(files[first])
    (place / "new" / second).write_text("of somebody else")
    report = move_files(catalog.client, [uid], place / "new")
    assert "nothing is written over" in report.refused[uid]
    assert everything_in(catalog.client, uid) == before
    assert contents(place / "old") == files
    assert (place / "new" / second).read_text() == "of somebody else"
    (place / "new" / second).unlink()
    assert move_files(catalog.client, [uid], place / "new").ok
    assert contents(place / "new") == files


def test_the_same_directory_under_another_name(catalog, place):
    """Files are not moved onto themselves, which would remove them."""
    uid = deliver(catalog.client, build(one_camera("AD_HDF5"), place / "old").documents)
    (place / "link").symlink_to(place / "old")
    report = move_files(catalog.client, [uid], place / "link")
    assert "are the same file" in report.refused[uid]
    assert len(contents(place / "old")) == 1


class Killed(BaseException):
    """As if the process had ended."""


def killed_at(number, patch):
    """Have the n-th step to the disk or to the catalog end the program, before it or after it."""
    steps = itertools.count(1)

    def dies(step):
        def take(*arguments, **options):
            place = next(steps)
            if place == number:
                raise Killed
            found = step(*arguments, **options)
            if place == number - 1 and step is not httpx.Client.send:
                next(steps)
                raise Killed
            return found

        return take

    for owner, name in ((os, "fsync"), (os, "link"), (Path, "unlink"), (httpx.Client, "send")):
        patch.setattr(owner, name, dies(getattr(owner, name)))
    return steps


def test_killed_at_any_step(catalog, place):
    """Wherever a move ends, each file is whole in one place at least, and the same call finishes it."""
    case = Case((Camera(KEY, "AD_TIFF", 1, "<u2"),), {"primary": (0,)}, ((Step("primary"),),))
    built = build(case, place / "0")
    uid = deliver(catalog.client, built.documents)
    expected, files = frames_by_all_ways(catalog.client, uid), contents(place / "0")
    for number in itertools.count(1, 12):
        old, new = place / str(number // 12), place / str(number // 12 + 1)
        with pytest.MonkeyPatch.context() as patch, suppress(Killed):
            steps = killed_at(number, patch)
            move_files(catalog.client, [uid], new)
        there = {**(contents(new) if new.exists() else {}), **contents(old)}
        assert {name: content for name, content in there.items() if name in files} == files
        report = move_files(catalog.client, [uid], new)
        assert report.ok, str(report)
        assert contents(new) == files
        assert contents(old) == {}
        if next(steps) < number:
            break
    np.testing.assert_array_equal(frames_by_all_ways(catalog.client, uid), expected)
    assert verify_run(catalog.client, uid).exit_code == 0
    assert number > 20


PROGRAM = """
import os, sys
import bluesky_filestore.bundles.moving as moving
from tiled.client import from_uri

def ended(step):
    def take(*arguments):
        found = step(*arguments)
        os.kill(os.getpid(), 9)
        return found
    return take

owner = moving._Moving if hasattr(moving._Moving, sys.argv[1]) else moving
setattr(owner, sys.argv[1], ended(getattr(owner, sys.argv[1])))
moving.move_files(from_uri(sys.argv[2], api_key=sys.argv[3]), [sys.argv[4]], sys.argv[5])
"""


@pytest.mark.parametrize("step", ["copy", "_remove"])
def test_killed(catalog, place, step):
    """A process that is killed behind the copies, or in the midst of removals: the next one finishes."""
    uid = deliver(catalog.client, build(one_camera("AD_TIFF", events=2), place / "old").documents)
    expected, files = frames_by_all_ways(catalog.client, uid), contents(place / "old")
    arguments = [step, catalog.uri, catalog.api_key, uid, str(place / "new")]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert {**contents(place / "new"), **contents(place / "old")} == files
    report = move_files(catalog.client, [uid], place / "new")
    assert report.ok, str(report)
    assert contents(place / "new") == files
    assert contents(place / "old") == {}
    np.testing.assert_array_equal(frames_by_all_ways(catalog.client, uid), expected)


def test_copies(tmp_path):
    """A copy has the times of its original, and what killed copies have left is gone."""
    source, target = tmp_path / "a [1].h5", tmp_path / "new" / "dir" / "a [1].h5"
    source.write_bytes(os.urandom(3_000_000))
    target.parent.mkdir(parents=True)
    (target.parent / f".{target.name}.12345678.partial").write_text("left")
    copy_file(str(source), str(target))
    assert contents(target.parent) == {target.name: source.read_bytes()}
    assert target.stat().st_mtime_ns == source.stat().st_mtime_ns
    shutil.rmtree(target.parent)
