"""Runs packed, moved and unpacked: with all documents, files and frames, wherever it was interrupted."""

import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import h5py
import numpy as np
import pytest
from document_streams import KINDS, Camera, Case, Step, build
from rocrate.rocrate import ROCrate
from small_runs import image_documents, plain
from typer.testing import CliRunner

from bluesky_filestore import (
    CatalogWriter,
    describe_files,
    documents,
    open_array,
    open_pack,
    pack,
    unpack,
    verify_run,
)
from bluesky_filestore.bundles.unpacking import _Target
from bluesky_filestore.cli.entry import app
from bluesky_filestore.errors import ChangedFileError, MissingFileError, OptionError, PackError, RunNotFoundError

ENDINGS = ["", ".tar", ".zip"]
numbers = itertools.count()


def one_camera(kind, events=3, frames=2):
    """A run of one detector, in two streams that share its files."""
    camera = Camera("cam_image", kind, frames, "<u2")
    steps = tuple(Step("primary" if number % 3 else "dark") for number in range(events))
    return Case((camera,), {"primary": (0,), "dark": (0,)}, (steps,))


@pytest.fixture(scope="module")
def night(catalog, data_directory):
    """Runs of all kinds in the catalog, and where their files are."""
    directory = data_directory / "night"
    runs = [build(one_camera(kind), directory / kind.replace(" ", "_")) for kind in KINDS]
    with CatalogWriter(catalog.client, spool=None) as writer:
        for built in runs:
            for pair in built.documents:
                writer(*pair)
    return runs, directory


@pytest.fixture
def here(data_directory):
    """A directory that the server may read."""
    directory = data_directory / "bundles" / str(next(numbers))
    directory.mkdir(parents=True)
    return directory


def bytes_below(directory):
    """All files below a directory, by name and that of their directory."""
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("ending", "which"), [("", [0, 4]), (".tar", [0, 1, 2, 3, 4]), (".zip", [1])])
def test_there_and_back(catalog, night, here, tmp_path, ending, which):
    """Packed, moved, and unpacked into another catalog where the files never were: all is as it was, to the byte."""
    runs, directory = [night[0][number] for number in which], night[1]
    kinds = [KINDS[number].replace(" ", "_") for number in which]
    before = {name: data for kind in kinds for name, data in bytes_below(directory / kind).items()}
    packed = pack(catalog.client, [built.uid[:8] for built in runs], to=here / f"pack{ending}")
    assert (packed.uids, packed.files, packed.notes) == (tuple(built.uid for built in runs), len(before), ())
    assert [path.name for path in here.iterdir()] == [f"pack{ending}"]
    moved = here / "moved" / f"away{ending}"
    moved.parent.mkdir()
    packed.path.rename(moved)
    elsewhere, into, gone = catalog.client.create_container(), here / "data of others", tmp_path / "gone"
    shutil.move(directory, gone)
    try:
        unpacked = unpack(moved, elsewhere, into=into)
        assert [(each.state, each.words) for each in unpacked] == [("unpacked", ())] * len(runs)
        assert bytes_below(into) == before
        for built in runs:
            run = elsewhere[built.uid]
            for (stream, key), frames in built.frames.items():
                np.testing.assert_array_equal(run[stream].base[key].read(), np.stack(frames))
            said = [doc for name, doc in documents(run) if name in ("resource", "stream_resource")]
            assert said
            assert all(str(into) in unquote(str(doc)) for doc in said)
        for built in runs:
            # The pack's checksums came along.
            report = verify_run(elsewhere, built.uid, checksums=True)
            assert report.exit_code == 0, str(report)
            assert "are as they were when the manifest was made" in str(report)
        again = unpack(moved, elsewhere, into=into, uids=runs[-1].uid[:8])
        assert [(each.uid, each.state, each.words) for each in again] == [(runs[-1].uid, "there", ())]
    finally:
        shutil.move(gone, directory)


def test_opened_where_it_is(night, here):
    """Documents and frames of any pack are read without unpacking it; of an archive nothing is left behind."""
    runs, _ = night
    for built, ending in itertools.product(runs, ENDINGS):
        path = pack(built.documents, to=here / f"{built.uid}{ending}").path
        with open_pack(path) as opened:
            run = opened[built.uid[:8]]
            assert list(plain(documents(run))) == list(plain(built.documents))
            for (stream, key), frames in built.frames.items():
                np.testing.assert_array_equal(open_array(run, key, stream)[...], np.stack(frames))
            report = verify_run(run, checksums=True)
            assert report.exit_code == 0, str(report)
            assert "are as they were when the manifest was made" in str(report)
            # The files of the pack are looked at, whether the originals are still there or not.
            files = (path if not ending else Path(opened._out.name)) / "files"
            lost = next(file for file in files.rglob("*") if file.is_file())
            assert not ending or files.parent.stat().st_mode & 0o777 == 0o700
            shutil.move(lost, here / "lost")
            report = verify_run(run, checksums=True)
            assert report.exit_code == 1
            assert str(lost) in str(report)
            shutil.move(here / "lost", lost)
            with pytest.raises(PackError, match="in a pack already"):
                pack(run, to=here / "again.tar")
        assert files.exists() == (not ending)


def test_other_programs(night, here):
    """Tar and unzip make the folder of a tar and a zip, an RO-Crate's reader finds all, sums are those of sha256sum."""
    runs, _ = night
    built = runs[1]
    kinds = {ending: pack(built.documents, to=here / f"a{ending}").path for ending in ENDINGS}
    for name in ("t/a", "z/a"):
        (here / name).mkdir(parents=True)
    subprocess.run(["tar", "-xf", kinds[".tar"], "-C", here / "t" / "a"], check=True)
    subprocess.run([sys.executable, "-m", "zipfile", "-e", kinds[".zip"], here / "z" / "a"], check=True)
    assert bytes_below(here / "t") == bytes_below(here / "z") == bytes_below(here / "a")
    crate = ROCrate(here / "a")
    assert crate.root_dataset["datePublished"]
    files = [path for path in (here / "a").rglob("*") if path.is_file() and path.name != "ro-crate-metadata.json"]
    listed = {entity.id: entity for entity in crate.data_entities}
    assert {str(path.relative_to(here / "a")) for path in files} <= set(listed)
    for path in files:
        entity = listed[str(path.relative_to(here / "a"))]
        if "files" in path.relative_to(here / "a").parts:
            assert entity["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
            assert int(entity["contentSize"]) == path.stat().st_size
    lines = (here / "a" / "runs" / built.uid / "documents.jsonl").read_text().splitlines()
    assert [json.loads(line)[0] for line in lines] == [name for name, _ in built.documents]
    # Packed again by another program, as the folder that it is.
    subprocess.run(["tar", "-cf", here / "again.tar", "-C", here, "a"], check=True)
    shutil.make_archive(str(here / "again"), "zip", here, "a")
    for again in ("again.tar", "again.zip"):
        with open_pack(here / again) as opened:
            assert list(plain(documents(opened[built.uid]))) == list(plain(built.documents))
            assert opened[built.uid].manifest().entries


@pytest.mark.parametrize("most", [5, 6, 7, 20])
def test_many_files_in_a_crate(night, here, monkeypatch, most):
    """Of more files than are listed the directories are: whatever is a part of something is there."""
    monkeypatch.setattr("bluesky_filestore.bundles.crate._MOST_LISTED", most)
    pack(night[0][1].documents, to=here / "a")
    graph = json.loads((here / "a" / "ro-crate-metadata.json").read_text())["@graph"]
    named = {entity["@id"] for entity in graph}
    parts = {part["@id"] for entity in graph for part in entity.get("hasPart", ())}
    assert parts <= named
    assert len([name for name in named if name.endswith(".tiff")]) == (6 if most >= 6 else 0)
    # The root, and what tells of it, are parts of nothing.
    assert named - parts == {"./", "ro-crate-metadata.json", "#bluesky_filestore"}
    assert len(ROCrate(here / "a").data_entities) == len(parts)


def test_checksums_of_the_catalog(catalog, night, here):
    """A file that is not the one whose checksum the catalog has is not packed, and is once it is back."""
    built, directory = night[0][1], night[1]
    assert describe_files(catalog.client[built.uid]).manifest.has_checksums
    path = sorted((directory / KINDS[1]).iterdir())[2]
    good, found = path.read_bytes(), path.stat()
    for bad in (good[:-1] + bytes([good[-1] ^ 1]), good + b"?"):
        path.write_bytes(bad)
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
        with pytest.raises(ChangedFileError, match=r"is not the file whose checksum .* manifest --replace"):
            pack(catalog.client, built.uid, to=here / "a.tar")
        assert not (here / "a.tar").exists()
    path.write_bytes(good)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert pack(catalog.client, built.uid, to=here / "a.tar").files == 6


def test_files_that_files_lead_to(catalog, here):
    """What HDF5 files have data from is packed too, and found from where they are then, and nothing else is."""
    data = here / "data"
    (data / "raw").mkdir(parents=True)
    values = np.arange(24, dtype="<u2").reshape(1, 4, 6)
    for name in ("linked", "virtual"):
        with h5py.File(data / "raw" / f"{name}.h5", "w") as file:
            file["frames"] = values
    (data / "scan").mkdir()
    with h5py.File(data / "scan" / "linking.h5", "w") as file:
        file["/entry/data/data"] = h5py.ExternalLink("../raw/linked.h5", "/frames")
    with h5py.File(data / "scan" / "made.h5", "w") as file:
        layout = h5py.VirtualLayout((1, 4, 6), "<u2")
        layout[:] = h5py.VirtualSource("../raw/virtual.h5", "frames", (1, 4, 6))
        file.create_virtual_dataset("/entry/data/data", layout)
    with h5py.File(data / "scan" / "small.h5", "w") as file:
        file.create_dataset("/entry/data/data", data=values, chunks=(1, 4, 6), compression="gzip")
    runs = [image_documents(data / "scan" / f"{name}.h5") for name in ("linking", "made", "small")]
    elsewhere = catalog.client.create_container()
    for run, ending in itertools.product(runs, (".tar", ".zip")):
        packed = pack(run, to=here / f"{run[0][1]['uid']}{ending}")
        assert packed.files == (1 if run is runs[2] else 2)
    shutil.rmtree(data)
    for run, ending in itertools.product(runs, (".tar", ".zip")):
        with open_pack(here / f"{run[0][1]['uid']}{ending}") as opened:
            np.testing.assert_array_equal(open_array(opened[run[0][1]["uid"]], "image")[0], values)
    for run in runs[:2]:
        uid = run[0][1]["uid"]
        (unpacked,) = unpack(here / f"{uid}.tar", elsewhere, into=here / "there")
        assert (unpacked.state, unpacked.files) == ("unpacked", 2)
        np.testing.assert_array_equal(elsewhere[uid]["primary"].base["image"].read()[0], values)
        np.testing.assert_array_equal(open_array(elsewhere[uid], "image")[0], values)


def test_no_room_for_frames(night, here, monkeypatch):
    """Where the files of a packed run have no room it is said before any is written, and what to do."""
    built = night[0][0]
    path = pack(built.documents, to=here / "a.tar").path
    with open_pack(path) as opened, monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 0, 10))
        with pytest.raises(PackError, match=r"has 10 free; expected room .* TMPDIR .* or unpack it"):
            open_array(opened[built.uid], "cam_image", "primary")
        assert not [each for each in Path(opened._out.name).rglob("*") if each.is_file()]


def test_no_place(night, here):
    """A directory that is not there is said as such."""
    with pytest.raises(PackError, match=r"no directory .*nowhere; expected one for the pack"):
        pack(night[0][0].documents, to=here / "nowhere" / "a.tar")


def test_what_is_missing(night, here):
    """A file that is gone is named and nothing is packed, unless it may be; then it is noted."""
    runs, directory = night
    moved = {str(directory): "/nowhere"}
    with pytest.raises(MissingFileError, match=r"files of run .* are not there: .*night.*root_map.*allow_missing"):
        pack(runs[1].documents, to=here / "a.tar", root_map=moved)
    packed = pack(runs[1].documents, to=here / "a.tar", root_map=moved, allow_missing=True)
    assert packed.files == 0
    assert "are not there" in packed.notes[0]
    with open_pack(here / "a.tar") as opened:
        assert list(plain(documents(opened[runs[1].uid]))) == list(plain(runs[1].documents))


def test_what_is_there_already(catalog, night, here):
    """A run that a catalog has with other documents or in another place is refused, and the files of others stay."""
    runs, _ = night
    packed = pack(runs[0].documents, to=here / "pack").path
    (there,) = unpack(packed, catalog.client, into=here / "into")
    assert there.state == "refused"
    assert "with its files in another directory" in there.words[0]
    assert not bytes_below(here / "into")

    elsewhere = catalog.client.create_container()
    changed = [(name, {**doc, "plan_name": "another"} if name == "start" else doc) for name, doc in runs[0].documents]
    with CatalogWriter(elsewhere, spool=None) as writer:
        for pair in changed:
            writer(*pair)
    (refused,) = unpack(packed, elsewhere, into=here / "into")
    assert refused.state == "refused"
    assert any("plan_name" in words for words in refused.words)

    (name,) = bytes_below(packed / "files")
    other = next((packed / "files").rglob("*.h5")).relative_to(packed / "files")
    (here / "into" / other).parent.mkdir(parents=True)
    (here / "into" / other).write_bytes(b"mine")
    with pytest.raises(PackError, match=r"is there, and is another file .* unpack into another directory"):
        unpack(packed, catalog.client.create_container(), into=here / "into")
    assert bytes_below(here / "into") == {name: b"mine"}


def test_a_name_that_is_taken(night, here):
    """A pack is never written over; the same again is said to be there."""
    runs, _ = night
    first = pack(runs[0].documents, to=here / "a.zip")
    again = pack(runs[0].documents, to=here / "a.zip")
    assert (again.files, again.size, again.notes) == (first.files, first.size, ("it was there already",))
    with pytest.raises(PackError, match="already; expected a name that is free"):
        pack(runs[1].documents, to=here / "a.zip")
    (here / "b").mkdir()
    with pytest.raises(PackError, match=r"pack\.json of the pack"):
        pack(runs[1].documents, to=here / "b")
    with pytest.raises(PackError, match=r"a folder, or a name that ends in \.tar or \.zip"):
        pack(runs[0].documents, to=here / "c.tar.gz")


def test_which_runs(catalog, night, here):
    """Which runs are meant has to be said, and has to be so."""
    runs, _ = night
    with pytest.raises(OptionError, match="not said which runs"):
        pack(catalog.client, to=here / "a")
    with pytest.raises(RunNotFoundError):
        pack(catalog.client, "no such run", to=here / "a")
    with pytest.raises(OptionError, match="expected the start"):
        pack(runs[0].documents[1:], to=here / "a")
    packed = pack(catalog.client[runs[0].uid], to=here / "a")
    with pytest.raises(RunNotFoundError, match="expected just one of"):
        unpack(packed.path, catalog.client, into=here / "b", uids="no such run")


def test_commands(catalog, night, here):
    """The commands pack, unpack and verify, say what was done, and exit with 1 where a run is not there as it was."""
    runs, _ = night
    key = ("--api-key", catalog.api_key)
    run = CliRunner()
    done = run.invoke(app, ["pack", runs[1].uid[:8], "--to", str(here / "a.tar"), "--uri", catalog.uri, *key])
    assert done.exit_code == 0, done.output
    assert f"1 runs with 6 files, 1,824 bytes, are in {here / 'a.tar'}" in done.output
    elsewhere = catalog.client.create_container()
    unpack_to = ["unpack", str(here / "a.tar"), "--into", str(here / "into"), *key]
    done = run.invoke(app, [*unpack_to, "--uri", elsewhere.uri])
    assert (done.exit_code, done.output) == (0, f"unpacked {runs[1].uid}: 6 files, 1,824 bytes\n")
    done = run.invoke(app, [*unpack_to, "--uri", catalog.uri])
    assert done.exit_code == 1
    assert "refused" in done.output
    assert "with its files in another directory" in done.output


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            {"root": "Z:\\data", "resource_path": "run\\a.h5", "path_semantics": "windows"},
            {"root": "INTO/DATA", "resource_path": "run/a.h5", "path_semantics": "posix"},
        ),
        (
            {"root": "", "resource_path": "z:/data/run/a.h5", "path_semantics": "windows"},
            {"root": "INTO/DATA/run", "resource_path": "a.h5", "path_semantics": "posix"},
        ),
        (
            {"root": "/DATA", "resource_path": "run/a.h5", "path_semantics": "posix"},
            {"root": "INTO/DATA", "resource_path": "run/a.h5", "path_semantics": "posix"},
        ),
        (
            {"root": "/", "resource_path": "DATA/run/a.h5", "path_semantics": "posix"},
            {"root": "INTO", "resource_path": "DATA/run/a.h5", "path_semantics": "posix"},
        ),
        (
            {"root": "/mnt/other name", "resource_path": "/run/a.h5", "path_semantics": "posix"},
            {"root": "INTO/DATA", "resource_path": "run/a.h5", "path_semantics": "posix"},
        ),
    ],
)
def test_paths(catalog, here, said, expected):
    """Whatever the documents call the directory, their paths are those of the new one, with the same part below it."""
    data, into = here / "data", here / "into"
    (data / "run").mkdir(parents=True)
    values = np.arange(24, dtype="<u2").reshape(1, 4, 6)
    with h5py.File(data / "run" / "a.h5", "w") as file:
        file["/entry/data/data"] = values

    def put(text):
        return text.replace("INTO", str(into)).replace("/DATA", str(data)).replace("DATA", str(data).lstrip("/"))

    run = image_documents(data / "run" / "a.h5")
    said, expected = ({key: put(value) for key, value in each.items()} for each in (said, expected))
    run = [(name, {**doc, **said} if name == "resource" else doc) for name, doc in run]
    moved = {"Z:\\data": str(data), "/mnt/other name": str(data)}
    packed = pack(run, to=here / "pack", root_map=moved).path
    with open_pack(packed) as opened:
        found = opened[run[0][1]["uid"]]
        assert list(plain(documents(found))) == list(plain(run))
        np.testing.assert_array_equal(open_array(found, "image")[0], values)
        new = dict(_Target(into, opened, None).moved(found))["resource"]
    assert {key: new[key] for key in expected} == expected
