"""Whether a run has its data: every kind of damage to every kind of run is found and named, and good runs are good."""

import itertools
import json
import shutil
import time
from pathlib import Path

import event_model
import h5py
import numpy as np
import pytest
from command_line import run as command
from document_streams import KINDS, Camera, Case, Step, build, cases
from effort import times
from hypothesis import HealthCheck, given, settings

from bluesky_filestore import CatalogWriter, verify_run
from bluesky_filestore.bundles.manifests import describe_files
from bluesky_filestore.errors import DocumentError, OptionError, RunNotFoundError

numbers = itertools.count()


def one_camera(kind, frames=1, events=5):
    """A run of one detector."""
    camera = Camera("cam_image", kind, frames, "<u2")
    return Case((camera,), {"primary": (0,)}, ((Step("primary"),) * events,))


@pytest.fixture
def written(catalog, data_directory):
    """Writes a case to the catalog and gives what was built, and where its files are."""

    def write(case, without=()):
        directory = data_directory / "verify" / str(next(numbers))
        built = build(case, directory)
        with CatalogWriter(catalog.client, spool=None) as writer:
            for name, doc in built.documents:
                if name not in without:
                    writer(name, doc)
        return built, directory

    return write


def files_of(directory):
    """The data files of a run."""
    return sorted(path for path in directory.rglob("*") if path.is_file())


def cut_short(directory):
    """The last file loses its end."""
    path = files_of(directory)[-1]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove(directory):
    """The last file is gone."""
    files_of(directory)[-1].unlink()


def empty(directory):
    """The last file is of 0 bytes."""
    files_of(directory)[-1].write_bytes(b"")


def replace_all(directory):
    """The files of another run of the same kind are in their places."""
    for path in files_of(directory):
        if path.suffix == ".h5":
            with h5py.File(path, "r+") as file:
                file["/entry/data/data"][...] = file["/entry/data/data"][...][::-1] + 1
        else:
            path.write_bytes(path.read_bytes()[:-4] + b"abcd")


def exchange(directory):
    """Two files are exchanged, or two frames of one."""
    paths = files_of(directory)
    if len(paths) > 1:
        first, last = paths[0], paths[-1]
        first.rename(directory / "aside")
        last.rename(first)
        (directory / "aside").rename(last)
    else:
        with h5py.File(paths[0], "r+") as file:
            values = file["/entry/data/data"][...]
            file["/entry/data/data"][...] = values[::-1]


def other_type(directory):
    """The last file holds numbers of another type."""
    path = files_of(directory)[-1]
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            values = file["/entry/data/data"][...].astype("<f4")
            del file["/entry/data/data"]
            file["/entry/data/data"] = values
    else:
        import tifffile

        tifffile.imwrite(path, tifffile.imread(path).astype("<f4"))


DAMAGES = [cut_short, remove, empty, replace_all, exchange, other_type]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found(written, catalog, damage, kind):
    """Whatever happens to the files after the run, a finding names a file or events, and what to do."""
    built, directory = written(one_camera(kind, frames=2))
    good = verify_run(catalog.client, built.uid)
    assert good.exit_code == 0, str(good)
    # The time of a file tells less than it seems where files are written within one tick of the clock.
    time.sleep(0.01)
    damage(directory)
    report = verify_run(catalog.client, built.uid)
    assert report.exit_code == 1, f"{damage.__doc__} {report}"
    for finding in report.problems:
        assert finding.plugin == "primary/cam_image"
        assert finding.advice
    assert any(finding.file or finding.events for finding in report.problems), str(report)


def test_moved_files(written, catalog, tmp_path):
    """Files that were moved cannot be looked at, and are all right once it is said where they are."""
    built, directory = written(one_camera("AD_TIFF"))
    shutil.move(directory, tmp_path / "moved")
    report = verify_run(catalog.client, built.uid)
    assert report.exit_code == 2, str(report)
    assert "root_map" in str(report)
    moved = {str(directory): str(tmp_path / "moved")}
    from_documents = verify_run(built.documents, root_map=moved)
    assert from_documents.exit_code == 0, str(from_documents)


def test_many_files_that_are_missing(written, catalog):
    """Of many files that are gone there is one line: how many, the first of them, and all their events."""
    built, directory = written(one_camera("AD_TIFF", events=24))
    describe_files(catalog.client[built.uid])
    paths = files_of(directory)
    for path in paths[5:20]:
        path.unlink()
    report = verify_run(catalog.client, built.uid, checksums=True)
    assert [finding.check for finding in report.problems] == ["files", "checksums"], str(report)
    for finding in report.problems:
        assert finding.words.startswith("15 files are not there, of events 5, 6, 7, 8, 9, 10 and 9 more; the first: ")
        assert str(paths[5]) in finding.words
        assert (finding.file, finding.events) == (str(paths[5]), tuple(range(5, 20)))
    (problem,) = describe_files(catalog.client[built.uid]).problems
    assert str(paths[5]) in problem
    assert "and 14 more" in problem


@pytest.mark.parametrize("lacking", ["stop", "event", "datum"])
def test_documents_that_are_missing(written, catalog, lacking):
    """A run without its end, its events, or what its frames are told by, is none that has its data."""
    built, _ = written(one_camera("AD_HDF5"), without=(lacking,))
    report = verify_run(catalog.client, built.uid)
    assert report.exit_code == 1, str(report)


@pytest.mark.parametrize(("which", "check"), [(2, "events"), (-1, "end")])
def test_events_that_are_missing(written, which, check):
    """Events that the numbers of the others skip, or that the stop counts, are missed."""
    built, _ = written(one_camera("AD_HDF5"))
    events = [number for number, (name, _) in enumerate(built.documents) if name == "event"]
    left = [pair for number, pair in enumerate(built.documents) if number != events[which]]
    report = verify_run(left)
    assert [(each.check, each.stream) for each in report.problems] == [(check, "primary")], str(report)


def test_frames_that_were_never_written(written, catalog):
    """Frames that the file has a place for, and no data, are named by their events."""
    built, directory = written(one_camera("AD_HDF5"))
    (path,) = files_of(directory)
    with h5py.File(path, "r+") as file:
        values = file["/entry/data/data"][...]
        del file["/entry/data/data"]
        made = file.create_dataset("/entry/data/data", values.shape, values.dtype, chunks=(1, *values.shape[1:]))
        made[[0, 1, 2, 4]] = values[[0, 1, 2, 4]]
    report = verify_run(built.documents)
    (finding,) = report.problems
    assert (finding.events, finding.file) == ((3,), str(path))
    assert not verify_run(catalog.client, built.uid).ok


def test_frames_that_no_event_has(written, catalog):
    """More frames than events speak of are told, and are no problem: a paused plan leaves such."""
    case = one_camera("AD_HDF5", events=3)
    steps = (Step("primary"), Step("primary", "thrown away"), Step("primary"))
    built, _ = written(Case(case.cameras, case.streams, (steps,)))
    report = verify_run(catalog.client, built.uid)
    assert report.exit_code == 0, str(report)
    assert "1 of 3 frames" in str(report)


def test_numbers_without_end(written):
    """Documents that claim any sequence number cost neither memory nor time."""
    built, _ = written(one_camera("AD_HDF5", events=2))
    number = [place for place, (name, _) in enumerate(built.documents) if name == "event"][-1]
    changed = [
        (name, {**doc, "seq_num": 10**12} if at == number else doc) for at, (name, doc) in enumerate(built.documents)
    ]
    assert f"{10**12 - 2:,} events are not there" in str(verify_run(changed))


def test_rows_of_another_writer(catalog, data_directory):
    """A run of bluesky-tiled-plugins' writer whose frames are more than its events is found."""
    from bluesky_tiled_plugins import TiledWriter

    directory = data_directory / "verify" / str(next(numbers))
    directory.mkdir(parents=True)
    uids = []
    for frames in (3, 4):
        with h5py.File(directory / f"{frames}.h5", "w") as file:
            file["/entry/data/data"] = np.arange(frames * 12).reshape(frames, 3, 4)
        run = event_model.compose_run()
        keys = {
            "image": {"source": "s", "dtype": "array", "shape": [1, 3, 4], "dtype_numpy": "<i8", "external": "STREAM:"}
        }
        keys["x"] = {"source": "s", "dtype": "number", "shape": []}
        bundle = run.compose_descriptor(name="primary", data_keys=keys)
        resource = run.compose_stream_resource(
            mimetype="application/x-hdf5",
            uri=f"file://localhost{directory}/{frames}.h5",
            data_key="image",
            parameters={"dataset": "/entry/data/data", "chunk_shape": [1, 3, 4]},
        )
        writer = TiledWriter(catalog.client)
        writer("start", run.start_doc)
        writer("descriptor", bundle.descriptor_doc)
        writer("stream_resource", resource.stream_resource_doc)
        indices = {"start": 0, "stop": frames}
        datum = resource.compose_stream_datum(indices=indices, seq_nums={"start": 1, "stop": frames + 1})
        writer("stream_datum", {**datum, "descriptor": bundle.descriptor_doc["uid"]})
        for point in range(3):
            writer("event", bundle.compose_event(data={"x": float(point)}, timestamps={"x": 5.0}))
        writer("stop", run.compose_stop())
        uids.append(run.start_doc["uid"])
    good, shifted = (verify_run(catalog.client, uid) for uid in uids)
    assert good.exit_code == 0, str(good)
    assert shifted.exit_code == 1, str(shifted)
    assert "4 rows for 3 events" in str(shifted)


@settings(
    max_examples=times(20),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(case=cases())
def test_no_false_alarm(data_directory, case):
    """Any legal run whose files are whole is good; one that lacks frames, or its stop, is not."""
    built = build(case, data_directory / "verify" / str(next(numbers)))
    # A RunEngine counts those that it emitted.
    counts = {name: max(seq_num for seq_num, _ in rows) for name, rows in built.rows.items()}
    documents = [(name, {**doc, "num_events": counts} if name == "stop" else doc) for name, doc in built.documents]
    report = verify_run(documents)
    late = any(step.action == "late datum" for steps in case.stagings for step in steps)
    if case.stopped and not case.frames_cut and not late:
        assert report.exit_code == 0, str(report)
    elif not case.stopped:
        assert not report.ok


def test_runs_that_cannot_be_verified(catalog, written):
    """It is said what is no run, and which run is meant."""
    built, _ = written(one_camera("AD_HDF5"))
    with pytest.raises(OptionError, match="is no run"):
        verify_run(catalog.client)
    with pytest.raises(RunNotFoundError, match="no run"):
        verify_run(catalog.client, "nothing like it")
    with pytest.raises(RunNotFoundError, match="expected"):
        verify_run(catalog.client[built.uid], "nothing like it")
    with pytest.raises(DocumentError):
        verify_run(built.documents[1:])


def test_command(catalog, written):
    """The command says what is wrong, and exits with what there is to do about it."""
    good, _ = written(one_camera("AD_HDF5"))
    bad, directory = written(one_camera("AD_TIFF"))
    remove(directory)
    server = ("--uri", catalog.uri, "--api-key", catalog.api_key)
    done = command("verify", good.uid, *server)
    assert (done.returncode, "all is well" in done.stdout) == (0, True), done.stdout + done.stderr
    done = command("verify", good.uid, bad.uid, *server, "--json")
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert [report["exit_code"] for report in reports] == [0, 1]
    assert done.returncode == 1
    assert {finding["key"] for finding in reports[1]["findings"] if finding["ok"] is False} == {"cam_image"}
    done = command("verify", "--last", *server)
    assert done.returncode == 1
    assert bad.uid in done.stdout
    assert Path(files_of(directory)[0]).parent.name in done.stdout
    done = command("verify", "--since", "2999-01-01", *server)
    assert (done.returncode, "no such runs" in done.stdout) == (0, True), done.stdout + done.stderr
    done = command("verify", "--last", "--uri", "http://127.0.0.1:1")
    assert (done.returncode, "no catalog answers" in done.stderr) == (2, True), done.stdout + done.stderr
    done = command("verify", "--last", "--all", *server)
    assert done.returncode == 2
