"""Files that became others after their run was registered, end to end: writer, server, clients."""

import os
import shutil
import time
from pathlib import Path

import event_model
import h5py
import httpx
import numpy as np
import pytest
import tifffile
from bluesky import plan_stubs

from bluesky_filestore import CatalogWriter, open_array, serve_catalog, sim
from bluesky_filestore.errors import CatalogError, ChangedFileError
from bluesky_filestore.model.addressing import FILE_SERIES, FileSeries
from bluesky_filestore.sim import pattern

EVENTS = 5
KEYS = {"hdf5": "{name}.h5", "tiff": "{name}_3.tiff"}


def write_files(directory, name, seed):
    """An HDF5 file and a TIFF series of the same frames."""
    frames = np.random.default_rng(seed).integers(0, 60000, (EVENTS, 4, 6), dtype="u2")
    with h5py.File(directory / f"{name}.h5", "w") as file:
        file.create_dataset("entry/data/data", data=frames, chunks=(1, 4, 6), maxshape=(None, 4, 6))
    for number, frame in enumerate(frames):
        tifffile.imwrite(directory / f"{name}_{number}.tiff", frame)
    return frames


def documents_of(directory, name, count=EVENTS, first=0):
    """A run of events that each have a frame of the file and one of the series."""
    run = event_model.compose_run()
    image = {"source": "s", "dtype": "array", "shape": [1, 4, 6], "dtype_numpy": "<u2", "external": "FILESTORE:"}
    bundle = run.compose_descriptor(name="primary", data_keys=dict.fromkeys(KEYS, image))
    pairs = [("start", run.start_doc), ("descriptor", bundle.descriptor_doc)]
    kwargs = {"hdf5": {}, "tiff": {"template": "%s%s_%d.tiff", "filename": name}}
    resources = {
        key: run.compose_resource(
            spec=f"AD_{key.upper()}",
            root=str(directory),
            resource_path=f"{name}.h5" if key == "hdf5" else "",
            resource_kwargs={"frame_per_point": 1, **kwargs[key]},
        )
        for key in KEYS
    }
    pairs += [("resource", resource.resource_doc) for resource in resources.values()]
    for event in range(count):
        data = {}
        for key, resource in resources.items():
            datum = resource.compose_datum(datum_kwargs={"point_number": first + event})
            pairs.append(("datum", datum))
            data[key] = datum["datum_id"]
        doc = bundle.compose_event(data=data, timestamps=dict.fromkeys(data, 5.0), filled=dict.fromkeys(data, False))
        pairs.append(("event", doc))
    return [*pairs, ("stop", run.compose_stop())]


def written(client, pairs):
    """A run's stream in the catalog."""
    with CatalogWriter(client, spool=None) as writer:
        for name, doc in pairs:
            writer(name, doc)
    return client[pairs[0][1]["uid"]]["primary"].base


def refusal(node, index=...):
    """What a client is told."""
    with pytest.raises(httpx.HTTPStatusError) as raised:
        node.read(index)
    assert raised.value.response.status_code == 409
    return str(raised.value.response.json()["detail"])


def first_file(node):
    """The file of the first frame of an array, or of the first directory of a series."""
    (source,) = node.data_sources()
    path = Path(source.assets[0].data_uri.removeprefix("file://localhost"))
    if source.mimetype != FILE_SERIES:
        return path
    series = FileSeries.from_parameters(source.parameters)
    return path / series.file_name(series.rows[0].asset, series.rows[0].first)


@pytest.fixture
def directory(data_directory, request):
    """A place of this test alone, which the catalog can read."""
    made = data_directory / "changed files" / "".join(filter(str.isalnum, request.node.name))
    made.mkdir(parents=True)
    return made


@pytest.mark.parametrize("key", KEYS)
def test_overwritten(catalog, directory, key):
    """A second run's file over that of the first: each way to its frames names it; one can be told to read anyway."""
    frames = write_files(directory, "first", 1)
    node = written(catalog.client, documents_of(directory, "first"))[key]
    lazy = open_array(node)
    np.testing.assert_array_equal(node.read()[:, 0], frames)
    np.testing.assert_array_equal(lazy[3, 0], frames[3])
    others = write_files(directory, "second", 2)
    changed = directory / KEYS[key].format(name="first")
    size = changed.stat().st_size
    shutil.copyfile(directory / KEYS[key].format(name="second"), changed)
    for index in ((3,), ..., (slice(2, 5), ..., slice(2))):
        words = refusal(node, index)
        assert str(changed) in words
        assert f"which had {size} bytes, written 2" in words
    with pytest.raises(ChangedFileError, match=f"file {changed} is not the file that was registered"):
        lazy[3]
    with pytest.raises(ChangedFileError, match=str(changed)):
        open_array(node)[3]
    np.testing.assert_array_equal(open_array(node, allow_changed=True)[3, 0], others[3])
    if key == "tiff":
        np.testing.assert_array_equal(node.read((slice(3),))[:, 0], frames[:3])


def test_delivered_again(catalog, directory):
    """A run that is delivered again is registered with the files as they are now."""
    write_files(directory, "first", 1)
    pairs = documents_of(directory, "first")
    stream = written(catalog.client, pairs)
    others = write_files(directory, "first", 2)
    for key in KEYS:
        assert str(directory) in refusal(stream[key])
    again = written(catalog.client, pairs)
    for key in KEYS:
        np.testing.assert_array_equal(again[key].read()[:, 0], others)
        np.testing.assert_array_equal(open_array(again[key])[:, 0], others)


def test_server_that_allows_it(tmp_path):
    """A server reads what is there if it is told so."""
    write_files(tmp_path, "first", 1)
    pairs = documents_of(tmp_path, "first")
    with serve_catalog(tmp_path / "catalog", readable=[tmp_path]) as server:
        stream = written(server.client, pairs)
        others = write_files(tmp_path, "first", 2)
        assert "first.h5" in refusal(stream["hdf5"])
    with serve_catalog(tmp_path / "catalog", readable=[tmp_path], allow_changed=True) as server:
        stream = server.client[pairs[0][1]["uid"]]["primary"].base
        for key in KEYS:
            np.testing.assert_array_equal(stream[key].read()[:, 0], others)


def test_the_same_files_elsewhere(catalog, directory, tmp_path):
    """Copies without their times, links, and files that were touched are what was registered."""
    frames = write_files(directory, "first", 1)
    stream = written(catalog.client, documents_of(directory, "first"))
    moved = tmp_path / "archive"
    shutil.copytree(directory, moved, copy_function=shutil.copyfile)
    for file in directory.iterdir():
        os.utime(file)
    for key in KEYS:
        np.testing.assert_array_equal(stream[key].read()[:, 0], frames)
        np.testing.assert_array_equal(open_array(stream[key])[:, 0], frames)
        np.testing.assert_array_equal(open_array(stream[key], root_map={str(directory): str(moved)})[:, 0], frames)


def test_two_runs_on_one_file(catalog, directory):
    """A run that goes on in the file of the run before takes nothing from it."""
    frames = write_files(directory, "shared", 1)
    first = written(catalog.client, documents_of(directory, "shared"))["hdf5"]
    more = np.random.default_rng(3).integers(0, 60000, (3, 4, 6), dtype="u2")
    with h5py.File(directory / "shared.h5", "a") as file:
        dataset = file["entry/data/data"]
        dataset.resize(EVENTS + 3, axis=0)
        dataset[EVENTS:] = more
    for number, frame in enumerate(more, start=EVENTS):
        tifffile.imwrite(directory / f"shared_{number}.tiff", frame)
    second = written(catalog.client, documents_of(directory, "shared", 3, EVENTS))["hdf5"]
    for node, expected in ((first, frames), (second, more)):
        np.testing.assert_array_equal(node.read()[:, 0], expected)
        np.testing.assert_array_equal(open_array(node)[:, 0], expected)


def test_a_stock_server(stock):
    """A stock server and client read what is registered, and open_array knows the files again."""
    client, data = stock
    frames = write_files(data, "first", 1)
    stream = written(client, documents_of(data, "first"))
    for key in KEYS:
        assert stream[key].data_sources()[0].properties["as_registered"]["files"]
        np.testing.assert_array_equal(stream[key].read()[:, 0], frames)
    write_files(data, "first", 2)
    for key in KEYS:
        with pytest.raises(ChangedFileError, match=r"first"):
            open_array(stream[key])


def test_through_the_catalog(catalog, directory):
    """An array whose last file is gone is read through the catalog, whose words are the same."""
    write_files(directory, "first", 1)
    node = written(catalog.client, documents_of(directory, "first"))["tiff"]
    write_files(directory, "first", 2)
    (directory / "first_4.tiff").unlink()
    array = open_array(node, root_map={str(directory): "/nowhere"})
    assert array.source == "catalog"
    with pytest.raises(CatalogError, match=r"first_1\.tiff is not the file that was registered"):
        array[1]


@pytest.mark.parametrize("options", [{}, {"swmr": True}], ids=["locked", "swmr"])
@pytest.mark.parametrize("kind", ["SimDetectorHDF5", "SimDetectorTIFF"])
def test_of_a_detector(ioc, catalog, run_engine, kind, options):
    """Runs of one staging, whose file grows and is closed after they ended, are read; that of another run is not."""
    if kind == "SimDetectorTIFF" and options:
        return
    detector = getattr(sim, kind)(
        ioc.prefix, name="det", write_path_template=f"{ioc.directory}/%Y", root=ioc.directory, **options
    )
    detector.wait_for_connection(timeout=10)

    def two_runs():
        yield from plan_stubs.stage(detector)
        for _ in range(2):
            yield from plan_stubs.open_run()
            for _ in range(3):
                yield from plan_stubs.trigger_and_read([detector])
            yield from plan_stubs.close_run()
        yield from plan_stubs.unstage(detector)

    with CatalogWriter(catalog.client) as writer:
        run_engine.subscribe(writer)
        uids = [*run_engine(two_runs()), *run_engine(two_runs())]
    detector.destroy()
    nodes = [catalog.client[uid]["primary"].base["det_image"] for uid in uids]
    for node in nodes:
        assert "as_registered" in node.data_sources()[0].properties
        for array in (node.read(), open_array(node)[...]):
            numbers = [pattern.number(frame) for frame in array[:, 0]]
            assert np.diff(numbers).tolist() == [1, 1]
    here, there = map(first_file, nodes[::2])
    shutil.copyfile(there, here)
    assert str(here) in refusal(nodes[0], (0,))
    with pytest.raises(ChangedFileError, match=here.name):
        open_array(nodes[0])


@pytest.mark.parametrize("overwritten", [True, False])
def test_delivered_after_its_files_were_overwritten(catalog, directory, overwritten):
    """What was written long after a run's end is not taken for the run's when that comes late into the catalog."""
    name = f"late_{overwritten}"
    frames = write_files(directory, name, 3)
    pairs = documents_of(directory, name)
    ended = time.time() - 3600
    pairs[-1][1]["time"] = ended
    for file in directory.glob(f"{name}*"):
        os.utime(file, (ended + 2, ended + 2))
    if overwritten:
        write_files(directory, name, 4)
    stream = written(catalog.client, pairs)
    notes = catalog.client[pairs[0][1]["uid"]].metadata["notes"]
    for key in KEYS:
        assert ("as_registered" in stream[key].data_sources()[0].properties) == (not overwritten)
        said = [note for note in notes if f"'{key}' in stream 'primary' was not compared with its files" in note]
        assert len(said) == overwritten
        assert not overwritten or "they may hold what a later run wrote. Look whether they are this run's" in said[0]
        assert overwritten or (stream[key].read() == frames[:, np.newaxis]).all()
