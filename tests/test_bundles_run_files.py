"""Runs written as one file each when they are delivered, and by the command."""

import itertools
import logging

import event_model
import h5py
import numpy as np
import pytest
from command_line import run
from small_runs import SmallRun
from typer.testing import CliRunner

from bluesky_filestore import CatalogWriter, export_nexus
from bluesky_filestore.bundles.run_files import filled_in
from bluesky_filestore.cli.entry import app
from bluesky_filestore.errors import OptionError, TemplateError
from bluesky_filestore.files.hdf5 import shared_files

numbers = itertools.count(1)


@pytest.fixture
def small(data_directory):
    """A run with frames in a file that catalog and tests see."""
    directory = data_directory / "run files" / str(next(numbers))
    directory.mkdir(parents=True)
    return SmallRun(directory, 3)


def feed(writer, documents):
    """Give the writer documents."""
    for name, doc in documents:
        writer(name, doc)


def frames_in(path):
    """The frames of a run file."""
    shared_files().close()
    with h5py.File(path, "r") as file:
        return file["entry/data/data"][:][:, 0]


@pytest.mark.parametrize("spool", ["spool", None])
def test_written_when_delivered(catalog, small, tmp_path, spool, caplog):
    """Each run has its file when the writer is closed, whether there is a spool or not."""
    caplog.set_level(logging.INFO)
    template = tmp_path / "files" / "{time:%Y/%m}" / "{number:03d}_{uid}.nxs"
    with CatalogWriter(catalog.client, spool=spool and tmp_path / spool, run_file=template) as writer:
        feed(writer, small.documents)
    assert writer.status().problems == ()
    (path,) = (tmp_path / "files").rglob("*.nxs")
    assert path.name == f"003_{small.uid}.nxs"
    assert f"Run {small.uid} is in {path}." in caplog.messages
    np.testing.assert_array_equal(frames_in(path), small.images)
    small.compare(catalog.client)


def test_file_that_cannot_be_written(catalog, small, tmp_path, caplog):
    """It is said which and why, and nothing of the run is lost; the next one is written."""
    other = SmallRun(small.directory, 4)
    (tmp_path / "3").touch()
    with CatalogWriter(catalog.client, run_file=f"{tmp_path}/{{number}}/{{uid}}.nxs") as writer:
        feed(writer, small.documents)
        feed(writer, other.documents)
    (problem,) = writer.status().problems
    assert problem.startswith(f"the file of run {small.uid} is not written (")
    assert f"`bluesky-filestore nexus {small.uid}` writes it" in problem
    assert problem in caplog.messages
    small.compare(catalog.client)
    np.testing.assert_array_equal(frames_in(tmp_path / "4" / f"{other.uid}.nxs"), other.images)


def test_close_waits_for_no_dead_disk(catalog, small, tmp_path, monkeypatch):
    """A file that is never done keeps no writer open for ever."""
    import threading

    from bluesky_filestore.bundles import run_file

    goes_on = threading.Event()
    monkeypatch.setattr(run_file, "write_nexus", lambda *arguments: goes_on.wait(60))
    monkeypatch.setattr("bluesky_filestore.bundles.run_files._LAST_SECONDS", 0.2)
    writer = CatalogWriter(catalog.client, run_file=f"{tmp_path}/{{uid}}.nxs")
    feed(writer, small.documents)
    writer.flush()
    writer.close()
    goes_on.set()
    assert any("is still being written" in problem for problem in writer.status().problems)


def test_plan_waits_for_no_file(catalog, small, tmp_path, monkeypatch):
    """The stop returns while the file is being written."""
    import threading

    from bluesky_filestore.bundles import run_file

    goes_on, written = threading.Event(), run_file.write_nexus

    def slowly(*arguments):
        assert goes_on.wait(20)
        written(*arguments)

    monkeypatch.setattr(run_file, "write_nexus", slowly)
    writer = CatalogWriter(catalog.client, run_file=f"{tmp_path}/{{uid}}.nxs")
    feed(writer, small.documents)
    assert not list(tmp_path.glob("*.nxs"))
    goes_on.set()
    writer.close()
    assert [each.name for each in tmp_path.iterdir()] == [f"{small.uid}.nxs"]


@pytest.mark.parametrize("template", ["/data/run.nxs", "/data/{uid.real}.nxs", "/data/{}", "/data/{uid", ""])
def test_templates_that_are_none(catalog, template):
    """Two runs never have one file."""
    with pytest.raises(OptionError, match="run_file="):
        CatalogWriter(catalog.client, run_file=template)


def test_templates():
    """What a plan was given never leads elsewhere, and what does not fit is said."""
    start = {"uid": "../../5c\0/", "time": 0.0, "sample": "Fe O/..", "scan_id": 7}
    path = filled_in("/data/{time:%Y}/{sample}_{scan_id:05d}_{uid}.nxs", start)
    assert str(path) in {f"/data/{year}/Fe_O_.._00007_.._.._5c_.nxs" for year in (1969, 1970)}
    with pytest.raises(TemplateError, match="has no 'number'"):
        filled_in("/data/{number}{uid}", start)
    with pytest.raises(TemplateError, match="does not fit"):
        filled_in("/data/{sample:05d}{uid}", start)


def test_command(catalog, small, tmp_path):
    """The run is found by how its uid begins; the exit code says whether the file has all frames."""
    with CatalogWriter(catalog.client) as writer:
        feed(writer, small.documents)
    where = ["--uri", catalog.uri, "--api-key", catalog.api_key]
    written = CliRunner().invoke(app, ["nexus", small.uid[:13], "--to", str(tmp_path), *where])
    assert written.exit_code == 0, written.output
    assert "primary/image: 12 rows of [1, 3, 4]" in written.output
    np.testing.assert_array_equal(frames_in(tmp_path / f"{small.uid[:8]}.nxs"), small.images)
    (small.directory / "small 3.h5").unlink()
    lacking = run("nexus", small.uid, "--to", tmp_path / "again.nxs", *where)
    assert lacking.returncode == 1
    assert "lacking: primary/image: " in lacking.stdout


def test_command_without_a_run(catalog, tmp_path):
    """What is not there is a sentence, and an exit code of its own."""
    unknown = CliRunner().invoke(app, ["nexus", "no-such-run", "--uri", catalog.uri, "--api-key", catalog.api_key])
    assert unknown.exit_code == 2
    assert "Error: run no-such-run:" in unknown.stderr
    several = CliRunner().invoke(app, ["nexus", "one", "two", "--to", str(tmp_path / "run.nxs")])
    assert several.exit_code == 2


def test_run_of_another_writer(catalog, data_directory, tmp_path):
    """A run of bluesky-tiled-plugins' writer is shown as its catalog has it."""
    from bluesky_tiled_plugins import TiledWriter

    directory = data_directory / "run files" / str(next(numbers))
    directory.mkdir(parents=True)
    frames = np.arange(36).reshape(3, 3, 4)
    with h5py.File(directory / "a.h5", "w") as file:
        file["/entry/data/data"] = frames
    made = event_model.compose_run(metadata={"sample": "Fe"})
    image = {"source": "s", "dtype": "array", "shape": [1, 3, 4], "dtype_numpy": "<i8", "external": "STREAM:"}
    keys = {"image": image, "x": {"source": "s", "dtype": "number", "shape": [], "units": "mm"}}
    bundle = made.compose_descriptor(name="primary", data_keys=keys)
    resource = made.compose_stream_resource(
        mimetype="application/x-hdf5",
        uri=f"file://localhost{directory}/a.h5",
        data_key="image",
        parameters={"dataset": "/entry/data/data", "chunk_shape": [1, 3, 4]},
    )
    datum = resource.compose_stream_datum(indices={"start": 0, "stop": 3}, seq_nums={"start": 1, "stop": 4})
    writer = TiledWriter(catalog.client)
    writer("start", made.start_doc)
    writer("descriptor", bundle.descriptor_doc)
    writer("stream_resource", resource.stream_resource_doc)
    writer("stream_datum", {**datum, "descriptor": bundle.descriptor_doc["uid"]})
    for point in range(3):
        writer("event", bundle.compose_event(data={"x": float(point)}, timestamps={"x": 5.0}))
    writer("stop", made.compose_stop())
    written = export_nexus(catalog.client[made.start_doc["uid"]], tmp_path / "run.nxs")
    assert written.ok
    np.testing.assert_array_equal(frames_in(written.path), frames)
    with h5py.File(written.path) as file:
        assert file["entry/primary/x"][:].tolist() == [0.0, 1.0, 2.0]
        assert file["entry/primary/x"].attrs["units"] == "mm"
        assert file["entry/start/sample"].asstr()[()] == "Fe"
