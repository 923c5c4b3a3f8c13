"""A run as one file: frame i is event i, for plain h5py and silx, wherever the files were moved together."""

import itertools
import json
import os
import resource

import event_model
import h5py
import numpy as np
import pytest
from document_streams import Camera, Case, Step, build, cases, complete_rows
from hypothesis import HealthCheck, event, given, note, settings
from silx.io import nxdata
from silx.io import open as open_with_silx
from small_runs import SmallRun, ordered_documents
from test_files_hdf5_pieces import FRAMES, write_eiger

from bluesky_filestore import export_nexus
from bluesky_filestore.errors import OptionError
from bluesky_filestore.files.hdf5 import shared_files

numbers = itertools.count()


def exported(documents, directory, **options):
    """A run's file beside its data, both moved to another place, and what was said of it."""
    (directory / "here" / "runs").mkdir(parents=True, exist_ok=True)
    written = export_nexus(documents, directory / "here" / "runs" / "run.nxs", **options)
    # HDF5 opens a file in one way only in a process.
    shared_files().close()
    (directory / "here").rename(directory / "there")
    return written, directory / "there" / "runs" / "run.nxs"


def raw(directory):
    """Where the detectors of a test write."""
    (directory / "here" / "raw").mkdir(parents=True, exist_ok=True)
    return directory / "here" / "raw"


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(case=cases())
def test_every_frame_belongs_to_its_event(tmp_path, monkeypatch, case):
    """Each frame of any legal stream of documents is that of its event, and what is not there is said."""
    directory, copy = tmp_path / str(next(numbers)), bool(len(case.stagings) % 2)
    built = build(case, directory / "here" / "raw")
    written, path = exported(built.documents, directory, copy=copy)
    note(f"{written}")
    note("\n".join(f"{name} {doc}" for name, doc in built.documents))
    monkeypatch.chdir(tmp_path)
    with h5py.File(path, "r") as file:
        for stream, rows in built.rows.items():
            group = file["entry"][stream]
            assert list(zip(group["seq_num"][:], group["motor"][:], strict=True)) == rows
            for index in case.streams[stream]:
                check_array(case.cameras[index], built, stream, group, written, copy)


def check_array(camera, built, stream, group, written, copy):
    """One array of a stream: as many rows as there are frames, or none and why."""
    name = f"{stream}/{camera.key}"
    expected = np.stack(built.frames[stream, camera.key])
    complete = complete_rows(built, stream, camera.key)
    if "data" not in group[camera.key]:
        event("not shown")
        assert group[camera.key].attrs["not_shown"] == written.lacks[name]
        assert complete == 0 or ("TIFF" in camera.kind and not copy)
        return
    found = group[camera.key]["data"]
    event(f"shown, {'virtual' if found.is_virtual else 'copied'}")
    np.testing.assert_array_equal(found[:], expected[:complete].reshape(found.shape))
    assert (name in written.lacks) == (complete < len(expected))
    if complete < len(expected):
        assert group[camera.key]["missing_events"][:].tolist() == list(range(complete, len(expected)))


def test_programs_plot_it_by_themselves(tmp_path):
    """Silx finds the frames over what was moved, with its units, and without frames the detector's number."""
    path = raw(tmp_path) / "a.h5"
    with h5py.File(path, "w") as file:
        file["/entry/data/data"] = FRAMES
    documents = ordered_documents([(path, number) for number in range(25)], {"shape": [1, 4, 6]}, sample="Fe")
    plain = [(name, doc) for name, doc in documents if name not in ("resource", "datum")]
    for name, doc in plain[1:-1]:
        doc["data_keys" if name == "descriptor" else "data"].pop("image")
    plain[1:-1] = [
        (name, doc if name == "descriptor" else {**doc, "filled": {}, "timestamps": {"x": 5.0, "image_sum": 5.0}})
        for name, doc in plain[1:-1]
    ]
    # The documents were changed: made anew for the run with frames.
    documents = ordered_documents([(path, number) for number in range(25)], {"shape": [1, 4, 6]}, sample="Fe")
    export_nexus(plain, tmp_path / "plain.nxs")
    _, moved = exported(documents, tmp_path)
    with open_with_silx(str(moved)) as file:
        plot = nxdata.get_default(file, validate=True)
        assert (plot.is_valid, plot.issues, plot.signal_name) == (True, [], "image (counts)")
        assert plot.axes_names[0] == "x (mm)"
        assert plot.axes[0][:].tolist() == [row / 4 for row in range(25)]
        np.testing.assert_array_equal(plot.signal[:, 0], FRAMES)
        assert file["entry/start/sample"][()] == b"Fe"
        assert file["entry/primary/x"].attrs["units"] == "mm"
    with open_with_silx(str(tmp_path / "plain.nxs")) as file:
        plot = nxdata.get_default(file, validate=True)
        assert (plot.is_valid, plot.signal_name, plot.axes_names) == (True, "image_sum (counts)", ["x (mm)"])


def test_frames_in_no_order(tmp_path):
    """However many frames and in whatever order, from files with any name, also through links to directories."""
    directory = raw(tmp_path)
    (tmp_path / "link").symlink_to(directory, target_is_directory=True)
    rng = np.random.default_rng(3)
    frames = {tmp_path / "link" / f"100%b {name}.h5": rng.integers(0, 60000, (700, 1, 2), "u2") for name in "ab"}
    for path, values in frames.items():
        with h5py.File(path, "w") as file:
            file["/entry/data/data"] = values
    places = [(path, int(number)) for path in frames for number in rng.permutation(700)]
    order = [places[place] for place in rng.permutation(len(places))]
    written, path = exported(ordered_documents(order, {"shape": [1, 1, 2]}), tmp_path)
    assert written.ok
    with h5py.File(path, "r") as file:
        data = file["entry/data/data"]
        assert len(data.virtual_sources()) <= 100
        np.testing.assert_array_equal(data[:, 0], [frames[file][number] for file, number in order])
        assert data[5].tolist() == [frames[order[5][0]][order[5][1]].tolist()]


def test_numbered_pieces(tmp_path):
    """What an Eiger writes, dataset by dataset, is one array."""
    master = write_eiger(raw(tmp_path))
    order = [(master, number) for number in [9, 10, 24, *range(5, 21)]]
    _, path = exported(ordered_documents(order, {"shape": [1, 4, 6], "dtype_numpy": "<u4"}), tmp_path)
    with h5py.File(path, "r") as file:
        np.testing.assert_array_equal(file["entry/data/data"][:, 0], FRAMES[[number for _, number in order]])


@pytest.mark.parametrize(("dtype", "fill"), [("<u2", 65535), ("<i4", 2**31 - 1), ("<f4", np.nan)])
def test_lost_frames_are_no_zeros(tmp_path, dtype, fill):
    """Frames that were never written are named, and are not what HDF5 makes of them; nor is a file that is gone."""
    path = raw(tmp_path) / "a.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("/entry/data/data", (6, 3, 4), dtype, chunks=(1, 3, 4))
        for number in (0, 1, 4):
            data[number] = number + 1
    places = [(path, number) for number in range(8)]
    written, moved = exported(ordered_documents(places, {"dtype_numpy": dtype}), tmp_path)
    assert not written.ok
    assert written.lacks["primary/image"].startswith("events 2-3, 5-7: ")
    with h5py.File(moved, "r") as file:
        data = file["entry/data/data"]
        np.testing.assert_array_equal(data[:, 0, 0, 0], np.array([1, 2, fill, fill, 5, fill], dtype))
        assert data.attrs["missing_events"] == "events 2-3, 5-7"
        assert file["entry/data/missing_events"][:].tolist() == [2, 3, 5, 6, 7]
    (tmp_path / "there" / "raw" / "a.h5").unlink()
    with h5py.File(moved, "r") as file:
        np.testing.assert_array_equal(file["entry/data/data"][0], np.full((1, 3, 4), fill, dtype))


def test_metadata_of_every_kind(tmp_path):
    """What HDF5 has no type for is text, names that it cannot have are others, and the rest is as it was."""
    odd = {"a/b": 1, "a.b": "x\0y\udcfc", ".": [1, "a", None], "mixed": [1, 2.5], "none": None, "big": 2**70, "": "e"}
    deep = {"deep": {"er": {"list": [[1, 2], [3, 4]]}}, "texts": ["ä", ""], "empty": [], "flag": True, "ü": {}}
    run = event_model.compose_run()
    keys = {key: {"source": "s", "dtype": "number", "shape": []} for key in ("x", "time", "timestamps", "é: 1")}
    bundle = run.compose_descriptor(name="primary", data_keys=keys, configuration={})
    events = [
        bundle.compose_event(data=dict.fromkeys(keys, value), timestamps=dict.fromkeys(keys, 5.0)) for value in (1.5, 2)
    ]
    start_doc = {**run.start_doc, "odd": odd, "rest": deep}
    documents = [("start", start_doc), ("descriptor", bundle.descriptor_doc), *(("event", each) for each in events)]
    written = export_nexus([*documents, ("stop", run.compose_stop())], tmp_path / "run.nxs")
    assert written.ok
    with h5py.File(tmp_path / "run.nxs") as file:
        start = file["entry/start"]
        named = {node.attrs.get("name", name): node for name, node in start["odd"].items()}
        assert set(named) == {name.replace("\0", "") for name in odd}
        assert named["a/b"][()] == 1
        assert named["a.b"].asstr()[()] == "x\\0y\\udcfc"
        assert [json.loads(named[name].asstr()[()]) for name in (".", "mixed", "none")] == [
            [1, "a", None],
            [1, 2.5],
            None,
        ]
        assert start["rest/deep/er/list"][:].tolist() == [[1, 2], [3, 4]]
        assert start["rest/texts"].asstr()[:].tolist() == ["ä", ""]
        assert start["rest/flag"][()]
        columns = [node for node in file["entry/primary"].values() if isinstance(node, h5py.Dataset)]
        assert sum(node[:].tolist() == [1.5, 2] for node in columns) == 4


def test_what_was_there_stays_until_all_is_there(tmp_path):
    """A file that cannot be written leaves what was there, and nothing else; a data file is never overwritten."""
    case = Case((Camera("cam_image", "AD_TIFF", 1, "<u2"),), {"primary": (0,)}, ((Step("primary"),) * 3,))
    built = build(case, raw(tmp_path) / "tiff")
    written = export_nexus(built.documents, tmp_path / "run.nxs")
    assert "copy=True (--copy)" in written.lacks["primary/cam_image"]
    before = (tmp_path / "run.nxs").read_bytes()
    # What a process left that was killed.
    (tmp_path / ".run.nxs.1.2.part").touch()
    os.utime(tmp_path / ".run.nxs.1.2.part", (0, 0))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"."):
            export_nexus(built.documents, tmp_path / "run.nxs", copy=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "run.nxs").read_bytes() == before
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == ["run.nxs"]
    small = SmallRun(raw(tmp_path), 1)
    with pytest.raises(OptionError, match="is there and is no run file"):
        export_nexus(small.documents, raw(tmp_path) / "small 1.h5")
    with pytest.raises(OptionError, match=f"shows run {built.uid}"):
        export_nexus(small.documents, tmp_path / "run.nxs")
    with pytest.raises(OptionError, match="is no run;"):
        export_nexus("5c450e1a", tmp_path / "other.nxs")
