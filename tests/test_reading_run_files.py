"""The files of a run: each that an event needs, and what it leads to, in the documents' words and where it is."""

import hashlib
import os
from collections import defaultdict
from pathlib import Path

import event_model
import h5py
import numpy as np
import pytest
from document_streams import KINDS, Camera, Case, Step, build, cases
from hypothesis import HealthCheck, given, settings

from bluesky_filestore.errors import DocumentError, MissingFileError, PathError
from bluesky_filestore.files.readable import Roots
from bluesky_filestore.model.root_map import RootMap
from bluesky_filestore.reading.from_documents import DocumentedRun
from bluesky_filestore.reading.run_files import files_of, find_files, make_manifest
from tests.test_bad_input import FRAMES, IMAGE, Documents

PRIMARY = ("primary", "image")


def documented(documents, **root_map):
    """What documents come to."""
    return DocumentedRun(getattr(documents, "all", documents), RootMap(root_map.get("root_map")))


def expected_files(built, case, directory):
    """For each file and array the rows that need it, by the places that the generator noted."""
    cameras = {camera.key: camera for camera in case.cameras}
    needed = defaultdict(set)
    for (stream, key), places in built.places.items():
        camera = cameras[key]
        for row, (name, index) in enumerate(places):
            numbers = range(index * camera.frames, (index + 1) * camera.frames)
            suffix = "tiff" if "TIFF" in camera.kind else "h5"
            one = camera.kind in ("AD_HDF5", "stream HDF5")
            for file in [f"{name}.h5"] if one else [f"{name}_{number:06d}.{suffix}" for number in numbers]:
                needed[str(directory / file), (stream, key)].add(row)
    return needed


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cases())
def test_each_file_that_events_need_is_found(tmp_path_factory, case):
    """Rewound, thrown away, late, in pages, of several streams, cut short: its files, and the rows that need them."""
    directory = tmp_path_factory.mktemp("run") / "data"
    built = build(case, directory)
    found = files_of(documented(built.documents))
    needed = {
        (file.path, key): {row for part in parts for row in part}
        for file in found
        for key, parts in file.needed_by.items()
        # Of a stream without events the rows are points.
        if built.rows[key[0]]
    }
    assert needed == expected_files(built, case, directory)
    assert all(file.here == file.path for file in found)
    assert len({file.path for file in found}) == len(found)


def vary(kind):
    """A run whose events have frames of varying number."""
    camera = Camera("cam_image", kind, 2, "<u2")
    return Case((camera,), {"primary": (0,)}, ((Step("primary"),) * 3, (Step("primary"),) * 2), varies=True)


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_rows_that_differ(tmp_path, kind):
    """They are all that were written."""
    built = build(vary(kind), tmp_path / "data")
    found = files_of(documented(built.documents))
    assert sorted(file.path for file in found) == sorted(map(str, (tmp_path / "data").iterdir()))


def test_an_array_that_is_refused_has_its_files_all_the_same(tmp_path):
    """A spec that nobody knows, an event without its datum, a datum that nobody used, a resource without any."""
    documents = Documents("NOBODY_KNOWS", "a.dat", tmp_path)
    (tmp_path / "a.dat").write_bytes(b"1")
    (file,) = files_of(documented(documents))
    assert (file.path, dict(file.needed_by)) == (f"{tmp_path}/a.dat", {PRIMARY: (range(3),)})
    without = [pair for place, pair in enumerate(documents.all) if place != documents.where("datum", 1)]
    assert [file.path for file in files_of(documented(without))] == [f"{tmp_path}/a.dat"]
    series = Documents("AD_TIFF", "", tmp_path, template="%s%s_%3.3d.tiff", filename="t")
    events = [pair for pair in series.all if pair[0] != "event"]
    assert [file.path for file in files_of(documented(events))] == [f"{tmp_path}/t_{n:03d}.tiff" for n in range(3)]
    unused = [pair for pair in Documents("AD_HDF5", "a.h5", tmp_path).all if pair[0] not in ("event", "datum")]
    assert [(file.path, dict(file.needed_by)) for file in files_of(documented(unused))] == [(f"{tmp_path}/a.h5", {})]


def test_a_directory_is_no_file_and_that_is_said(tmp_path):
    """Which of its files are the run's, nobody knows."""
    (tmp_path / "d").mkdir()
    found = find_files(documented(Documents("NOBODY_KNOWS", "d", tmp_path)))
    assert found.files == []
    assert found.problems == [f"{tmp_path}/d is a directory; which files of it are the run's, nobody knows"]


def write_links(directory):
    """A file with a link, to one with a virtual dataset of two, one of them with external storage."""
    (directory / "far").mkdir()
    with h5py.File(directory / "a.h5", "w") as file:
        file["/entry/data/data"] = h5py.ExternalLink("far/b.h5", "d")
        file["/entry/other"] = h5py.ExternalLink("far/b.h5", "d")
        file["/entry/gone"] = h5py.ExternalLink("gone.h5", "d")
    layout = h5py.VirtualLayout(FRAMES.shape, FRAMES.dtype)
    layout[:2] = h5py.VirtualSource("c.h5", "d", (2, *FRAMES.shape[1:]))
    layout[2:] = h5py.VirtualSource(str(directory / "far" / "e.h5"), "d", (1, *FRAMES.shape[1:]))
    with h5py.File(directory / "far" / "b.h5", "w", libver="latest") as file:
        file.create_virtual_dataset("d", layout)
    with h5py.File(directory / "far" / "c.h5", "w") as file:
        external = [(str(directory / "raw.bin"), 0, FRAMES[:2].nbytes)]
        file.create_dataset("d", FRAMES[:2].shape, FRAMES.dtype, external=external)[...] = FRAMES[:2]
    with h5py.File(directory / "far" / "e.h5", "w") as file:
        file["d"] = FRAMES[2:]


def test_what_files_lead_to_is_the_runs_too(tmp_path):
    """Links, virtual datasets and external storage, each file once, in words that outlive a move of them all."""
    (tmp_path / "old").mkdir()
    write_links(tmp_path / "old")
    run = documented(Documents(root=tmp_path / "old"))
    found = {file.path.removeprefix(f"{tmp_path}/old/"): file for file in files_of(run)}
    assert sorted(found) == ["a.h5", "far/b.h5", "far/c.h5", "far/e.h5", "gone.h5", "raw.bin"]
    assert {name: file.led_from.removeprefix(f"{tmp_path}/old/") for name, file in found.items()} == {
        "a.h5": "",
        "far/b.h5": "a.h5",
        "gone.h5": "a.h5",
        "far/c.h5": "far/b.h5",
        "far/e.h5": "far/b.h5",
        "raw.bin": "far/c.h5",
    }
    assert all(dict(file.needed_by) == {PRIMARY: (range(3),)} for file in found.values())
    (tmp_path / "old").rename(tmp_path / "new")
    moved = documented(Documents(root=tmp_path / "old"), root_map={str(tmp_path / "old"): str(tmp_path / "new")})
    there = {file.path: file.here for file in files_of(moved)}
    # External storage is absolute, and HDF5 looks for it nowhere else.
    assert there.pop(f"{tmp_path}/old/raw.bin") == f"{tmp_path}/old/raw.bin"
    assert there == {path: path.replace("old", "new") for path in (f.path for f in found.values()) if "raw" not in path}


def test_numbered_sources_are_counted_up(tmp_path):
    """As many as there are, and the first that is not."""
    layout = h5py.VirtualLayout((4, 4, 6), "<u2", maxshape=(None, 4, 6))
    layout[: h5py.h5s.UNLIMITED] = h5py.VirtualSource("f.h5", "d", (2, 4, 6), maxshape=(None, 4, 6))[
        : h5py.h5s.UNLIMITED
    ]
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        space = h5py.h5s.create_simple((0, 4, 6), (h5py.h5s.UNLIMITED, 4, 6))
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        source = h5py.h5s.create_simple((2, 4, 6))
        space.select_hyperslab((0, 0, 0), (h5py.h5s.UNLIMITED, 1, 1), (2, 1, 1), (2, 4, 6))
        properties.set_virtual(space, b"part_%b.h5", b"d", source)
        h5py.h5d.create(file.id, b"data", h5py.h5t.NATIVE_UINT16, space, properties)
    for number in range(2):
        with h5py.File(tmp_path / f"part_{number}.h5", "w") as file:
            file["d"] = FRAMES[:2]
    found = files_of(documented(Documents(root=tmp_path, key="/data")))
    assert [Path(file.path).name for file in found] == ["a.h5", "part_0.h5", "part_1.h5", "part_2.h5"]


def eiger(directory):
    """A run of an Eiger: a master file a point, which links to data files."""
    documents = Documents("AD_EIGER", "s", directory, images_per_file=2)
    for name, doc in documents.all:
        if name == "datum":
            doc["datum_kwargs"] = {"seq_id": doc["datum_kwargs"]["point_number"] + 1}
    for sequence in (1, 2, 3):
        with h5py.File(directory / f"s_{sequence}_master.h5", "w") as file:
            file["/entry/data/data_000001"] = h5py.ExternalLink(f"s_{sequence}_data_000001.h5", "/entry/data/data")
        with h5py.File(directory / f"s_{sequence}_data_000001.h5", "w") as file:
            file["/entry/data/data"] = FRAMES[:1]
    return documents


def test_what_a_handler_names_is_found(tmp_path):
    """Of an Eiger the path is what names begin with: master files, and the data files that they link to."""
    names = sorted(f"{tmp_path}/s_{n}_{kind}.h5" for n in (1, 2, 3) for kind in ("master", "data_000001"))
    assert sorted(file.path for file in files_of(documented(eiger(tmp_path)))) == names


def test_paths_of_another_machine(tmp_path):
    """They stay as the documents have them; where they are here the map says, or nobody."""
    documents = Documents(path="b/a.h5", root="C:\\data")
    for name, doc in documents.all:
        if name == "resource":
            doc["path_semantics"] = "windows"
    (file,) = files_of(documented(documents))
    assert (file.path, file.here) == ("C:\\data\\b\\a.h5", None)
    with pytest.raises(PathError, match="none of this machine"):
        make_manifest(documented(documents))
    (file,) = files_of(documented(documents, root_map={"C:\\data": str(tmp_path)}))
    assert (file.path, file.here) == ("C:\\data\\b\\a.h5", f"{tmp_path}/b/a.h5")


def test_documents_that_claim_too_much_are_refused(tmp_path):
    """Nobody counts up to 10**12."""
    run = event_model.compose_run()
    bundle = run.compose_descriptor(name="primary", data_keys={"image": IMAGE | {"external": "STREAM:"}})
    resource = run.compose_stream_resource(
        mimetype="application/octet-stream",
        uri=f"file://localhost{tmp_path}/",
        data_key="image",
        parameters={"template": "{:06d}.bin"},
    )
    ranges = event_model.StreamRange(start=0, stop=10**12), event_model.StreamRange(start=1, stop=10**12 + 1)
    datum = resource.compose_stream_datum(*ranges, bundle.descriptor_doc)
    claimed = [("start", run.start_doc), ("descriptor", bundle.descriptor_doc)]
    claimed += [("stream_resource", resource.stream_resource_doc), ("stream_datum", datum)]
    with pytest.raises(DocumentError, match="more than 2,000,000 files"):
        files_of(documented(claimed))


def test_the_manifest_is_of_what_is_there(tmp_path):
    """Size, time and checksum; a file that is as it was is not read again; what is not there is an error, or told."""
    write_links(tmp_path)
    run, read, problems = documented(Documents(root=tmp_path)), [], []
    with pytest.raises(MissingFileError, match=r"gone\.h5"):
        make_manifest(run)
    manifest = make_manifest(run, on_bytes=read.append, on_problem=lambda file, error: problems.append(file.path))
    assert problems == [f"{tmp_path}/gone.h5"]
    for entry in manifest.entries:
        content, found = Path(entry.path).read_bytes(), Path(entry.path).stat()
        assert (entry.sha256, entry.size) == (hashlib.sha256(content).hexdigest(), len(content))
        assert entry.modified_ns == found.st_mtime_ns
    assert sum(read) == sum(entry.size for entry in manifest.entries)
    read.clear()
    (tmp_path / "gone.h5").write_bytes(b"123")
    os.utime(tmp_path / "far" / "c.h5", ns=(7, 7))
    again = make_manifest(run, known=manifest, on_bytes=read.append)
    assert sum(read) == 3 + (tmp_path / "far" / "c.h5").stat().st_size
    assert [entry.path for entry in again.entries if manifest.by_path.get(entry.path) != entry] == [
        f"{tmp_path}/gone.h5",
        f"{tmp_path}/far/c.h5",
    ]
    assert not make_manifest(run, checksums=False).has_checksums


def test_only_what_may_be_read_is_looked_into(tmp_path):
    """A link that leads out is listed, and neither followed nor read."""
    (tmp_path / "in").mkdir()
    with h5py.File(tmp_path / "in" / "a.h5", "w") as file:
        file["/entry/data/data"] = h5py.ExternalLink("../out.h5", "d")
    with h5py.File(tmp_path / "out.h5", "w") as file:
        file["d"] = h5py.ExternalLink("secret.h5", "d")
    roots, problems = Roots.of([tmp_path / "in"]), []
    found = find_files(documented(Documents(root=tmp_path / "in")), roots=roots)
    assert [file.path for file in found.files] == [f"{tmp_path}/in/a.h5", f"{tmp_path}/out.h5"]
    assert "outside the directories that may be read" in found.problems[0]
    run = documented(Documents(root=tmp_path / "in"))
    manifest = make_manifest(run, roots=roots, on_problem=lambda file, error: problems.append(str(error)))
    assert ([entry.path for entry in manifest.entries], len(problems)) == ([f"{tmp_path}/in/a.h5"], 1)
    assert np.all(["outside" in words for words in problems])


def test_resources_that_say_nothing_are_told(tmp_path):
    """Whose files nobody can know: they are not all of a run then."""
    found = find_files(documented(Documents("AD_TIFF", "", tmp_path)))
    assert (found.files, len(found.problems)) == ([], 1)
    assert "no template of the files' names" in found.problems[0]
