"""What bluesky-tiled-plugins' own tests of TiledWriter give it, given to ours: the same arrays for the stock client.

Their cases in own words, all in one run: each parameter that their consolidators know, and each form of a Datum.
"""

import copy
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import event_model
import h5py
import numpy as np
import pytest
import tifffile
from bluesky_tiled_plugins import TiledWriter
from PIL import Image

from bluesky_filestore import CatalogWriter
from bluesky_filestore.model.frame_map import Assets
from bluesky_filestore.model.normalize import source_of_stream_resource
from bluesky_filestore.model.specs import HDF5, JPEG_SERIES, TIFF_SERIES
from bluesky_filestore.operations.announcing import announce
from bluesky_filestore.operations.structure import event_structure

EVENTS = 3
CUBE = np.arange(EVENTS * 13 * 17, dtype="<i8").reshape(EVENTS, 13, 17)
MANY = np.arange(EVENTS * 6 * 5 * 7, dtype="<u2").reshape(EVENTS, 6, 5, 7)
NUMBERS = np.linspace(0, 1, EVENTS)
WIDE = np.arange(EVENTS * 40, dtype="<f8").reshape(EVENTS, 1, 40)


@dataclass
class Case:
    """One stream with one key."""

    mimetype: str
    shape: list[int]
    """As the descriptor has it."""
    expected: np.ndarray
    """The array of all events."""
    parameters: dict[str, Any] = field(default_factory=dict)
    path: str = ""
    """Of the file, or what stands before the template."""
    dims: tuple[str, ...] | None = None
    theirs: tuple[int, ...] | None = None
    """The shape that TiledWriter gives the same values, where that is another: its rows are no events then, or each
    frame has an axis that its descriptor does not speak of."""
    datums: tuple[dict[str, Any], ...] = ()
    """Of a Resource: what its Datums say."""
    spec: str = ""
    """Of a Resource."""

    def given(self, shape: tuple[int, ...]) -> "Case":
        """The same, to which TiledWriter gives another shape."""
        return replace(self, theirs=shape)

    def with_dims(self, *dims: str) -> "Case":
        """The same, with names for the axes of an event."""
        return replace(self, dims=dims)


def of_resource(spec, path, shape, expected, datums, **kwargs):
    """A case of a Resource and a Datum an event."""
    return Case("", shape, expected, kwargs, path, spec=spec, datums=tuple(datums))


POINTS = tuple({"point_number": number} for number in range(EVENTS))


def of_dataset(shape, expected, name="cube", **parameters):
    """A case of one HDF5 file."""
    return Case(HDF5, shape, expected, {"dataset": name, **parameters}, "all.h5")


CASES = {
    "numbers": of_dataset([], NUMBERS, "numbers", chunk_shape=[100]),
    "numbers of one": of_dataset([1], NUMBERS, "numbers"),
    "frames": of_dataset([13, 17], CUBE),
    "frames with an axis": of_dataset([1, 13, 17], CUBE[:, None]),
    "chunks longer than the run": of_dataset([13, 17], CUBE, chunk_shape=[100, 13, 17]),
    "chunks of a frame": of_dataset([13, 17], CUBE, chunk_shape=[1, 13, 17]),
    "chunks along frames": of_dataset([13, 17], CUBE, chunk_shape=[2]),
    "chunks within frames": of_dataset([13, 17], CUBE, chunk_shape=[2, 5, 17]),
    "chunks that are joined": of_dataset([13, 17], CUBE, chunk_shape=[2], join_chunks=True),
    "stacked": of_dataset([13, 17], CUBE, join_method="stack"),
    "swmr and locking": of_dataset([13, 17], CUBE, swmr=False, locking=False),
    "a slice": of_dataset([5, 17], CUBE[:, :5], slice=":,:5,:"),
    "a slice in a tuple": of_dataset([5, 17], CUBE[:, :5], slice="(:, :5, :)"),
    "a slice of a row": of_dataset([17], CUBE[:, 5], slice=":,5,:"),
    "a slice of columns": of_dataset([13, 5], CUBE[:, :, 2:12:2], slice=":,:,2:12:2"),
    "a slice, squeezed": of_dataset([1, 17], CUBE[:, None, 5], slice=":,5,:", squeeze=True),
    "a slice of one, squeezed": of_dataset([17], CUBE[:, 5], slice=":,5:6,:", squeeze=True),
    "an axis of one": of_dataset([1, 40], WIDE, "wide", chunk_shape=[1, 1, 40]),
    "an axis of one, squeezed": of_dataset([40], WIDE[:, 0], "wide", squeeze=True),
    "frames of an event": of_dataset([6, 5, 7], MANY, "flat", chunk_shape=[6, 5, 7]),
    "frames of an event, in two": of_dataset([6, 5, 7], MANY, "stacked"),
    "a multiplier": of_dataset([5, 7], MANY, "flat", multiplier=6),
    "a multiplier that is declared": of_dataset([6, 5, 7], MANY, "flat", multiplier=6),
    "a multiplier, with an axis": of_dataset([1, 5, 7], MANY, "flat", multiplier=6),
    "a multiplier of one": of_dataset([13, 17], CUBE, multiplier=1).given((EVENTS, 1, 13, 17)),
    "frames joined": of_dataset([1, 13, 17], CUBE[:, None], join_method="concat").given(CUBE.shape),
    "frames of an event, joined": of_dataset([6, 5, 7], MANY, "flat", join_method="concat").given((18, 5, 7)),
    "named axes": of_dataset([13, 17], CUBE).with_dims("y", "x"),
    "named axes, one of them of length one": of_dataset([1, 40], WIDE, "wide").with_dims("frame", "bin"),
    "files of HDF5": Case(HDF5, [1, 13, 17], CUBE[:, None], {"dataset": "d", "template": "part_{:06d}.h5"}, "parts/"),
    "files of HDF5, in C": Case(
        HDF5, [13, 17], CUBE, {"dataset": "d", "template": "%s_%6.6d.h5", "filename": "part"}, "parts/"
    ),
    "pictures": Case(TIFF_SERIES, [5, 7], MANY[:, 0], {"template": "first_{:05d}.tif"}, "tiff/"),
    "pictures with an axis": Case(
        TIFF_SERIES, [1, 5, 7], MANY[:, :1], {"template": "/first_{:05d}.tif", "chunk_shape": [1, 5, 7]}, "tiff"
    ),
    "pictures in C": Case(
        TIFF_SERIES, [5, 7], MANY[:, 0], {"template": "%s_%5.5d.tif", "filename": "first", "chunk_shape": [1]}, "tiff/"
    ),
    "a stem": Case(TIFF_SERIES, [5, 7], MANY[:, 0], {"template": "_{:05d}.tif"}, "tiff/first"),
    "pictures of one frame": Case(
        TIFF_SERIES, [6, 5, 7], MANY, {"template": "one_{:d}.tif", "chunk_shape": [1, 5, 7]}, "tiff/"
    ),
    "pictures of two frames": Case(
        TIFF_SERIES, [6, 5, 7], MANY, {"template": "two_{:d}.tif", "chunk_shape": [2, 5, 7]}, "tiff/"
    ),
    "pictures of all frames": Case(TIFF_SERIES, [6, 5, 7], MANY, {"template": "six_{:d}.tif"}, "tiff/"),
    "pictures, multiplied": Case(
        TIFF_SERIES, [5, 7], MANY, {"template": "one_{:d}.tif", "chunk_shape": [1], "multiplier": 6}, "tiff/"
    ),
    "files of an event": Case(
        TIFF_SERIES, [6, 5, 7], MANY, {"template": "two_{:d}.tif", "files_per_datum": 3}, "tiff/"
    ),
    "files of an event, of one frame": Case(
        TIFF_SERIES, [6, 5, 7], MANY, {"template": "one_{:d}.tif", "files_per_datum": 6}, "tiff/"
    ),
    "frames by number": of_resource(
        "AD_HDF5_SWMR_STREAM", "all.h5", [1, 13, 17], CUBE[:, None], ({"dataset": "cube", "frame": n} for n in range(3))
    ),
    "frames by number, of one dataset": of_resource(
        "AD_HDF5_SWMR_STREAM", "all.h5", [13, 17], CUBE, ({"frame": n} for n in range(3)), dataset="cube"
    ),
    "points of a dataset": of_resource(
        "AD_HDF5", "all.h5", [13, 17], CUBE, ({"dataset": "cube", **point} for point in POINTS)
    ),
    "a multiplier of old": of_resource("AD_HDF5_SWMR", "all.h5", [5, 7], MANY, POINTS, dataset="flat", multiplier=6),
    "frames a point": of_resource("HDF5", "all.h5", [6, 5, 7], MANY, POINTS, dataset="flat", frame_per_point=6),
    "files of HDF5 of old": of_resource(
        "AD_HDF5", "/parts/", [1, 13, 17], CUBE[:, None], POINTS, dataset="d", template="%s%s_%6.6d.h5", filename="part"
    ),
    "pictures of old": of_resource(
        "AD_TIFF", "/tiff/", [1, 5, 7], MANY[:, :1], POINTS, template="/%s%s_%5.5d.tif", filename="first"
    ),
    "pictures of old, indices": of_resource(
        "AD_TIFF",
        "/tiff/",
        [1, 5, 7],
        MANY[:, :1],
        ({"indices": {"start": n, "stop": n + 1}} for n in range(EVENTS)),
        template="%s%s_%5.5d.tif",
        filename="first",
    ),
    "pictures of old, several a point": of_resource(
        "AD_TIFF", "/tiff/", [6, 5, 7], MANY, POINTS, template="%s%s_%d.tif", filename="one", frame_per_point=6
    ),
    "pictures of a simulated signal": of_resource(
        "AD_TIFF", "tiff/first", [5, 7], MANY[:, 0], ({"index": n} for n in range(3)), template="_{:05d}.tif"
    ),
    "arrays of a simulated signal": of_resource(
        "NPY_SEQ", "npy/a", [5, 7], MANY[:, 0], ({"index": n} for n in range(3))
    ),
    "photographs": Case(JPEG_SERIES, [16, 16], np.full((EVENTS, 16, 16), 90, "u1"), {"template": "{:d}.jpg"}, "jpeg/"),
}
SERIES = {name: case for name, case in CASES.items() if "template" in case.parameters or case.spec == "NPY_SEQ"}


def write_files(directory: Path) -> None:
    """All files of all cases."""
    with h5py.File(directory / "all.h5", "w") as file:
        file["cube"], file["numbers"], file["wide"] = CUBE, NUMBERS, WIDE
        file["flat"], file["stacked"] = MANY.reshape(-1, 5, 7), MANY
    for name in ("parts", "tiff", "jpeg", "npy"):
        (directory / name).mkdir()
    for number in range(EVENTS):
        with h5py.File(directory / "parts" / f"part_{number:06}.h5", "w") as file:
            file["d"] = CUBE[number : number + 1]
        tifffile.imwrite(directory / "tiff" / f"first_{number:05}.tif", MANY[number, 0])
        np.save(directory / "npy" / f"a_{number}.npy", MANY[number, 0])
        Image.fromarray(np.full((16, 16), 90, "u1")).save(directory / "jpeg" / f"{number}.jpg")
    for name, frames in (("one", 1), ("two", 2), ("six", 6)):
        for number, part in enumerate(MANY.reshape(-1, frames, 5, 7)):
            image = part[0] if frames == 1 else part
            tifffile.imwrite(directory / "tiff" / f"{name}_{number}.tif", image, photometric="minisblack")


def documents_of(directory: Path, all_cases=CASES):
    """One run of cases: a stream of StreamResources, and one of Resources."""
    run = event_model.compose_run()
    yield "start", run.start_doc
    for name, of_cases in (("streams", of_streams), ("resources", of_resources)):
        cases = {key: case for key, case in all_cases.items() if bool(case.spec) == (name == "resources")}
        data_keys = {}
        for key, case in cases.items():
            data_keys[key] = {"source": "s", "dtype": "array", "shape": case.shape, "external": "STREAM:"}
            data_keys[key] |= {"dtype_numpy": case.expected.dtype.str}
            data_keys[key] |= {"dims": list(case.dims)} if case.dims else {}
        bundle = run.compose_descriptor(name=name, data_keys=data_keys)
        yield "descriptor", bundle.descriptor_doc
        yield from of_cases(run, bundle, cases, directory)
    yield "stop", run.compose_stop()


def of_streams(run, bundle, cases, directory):
    """StreamResources and StreamDatums."""
    for key, case in cases.items():
        uri = f"file://localhost{directory}/{case.path}"
        resource = run.compose_stream_resource(
            data_key=key, mimetype=case.mimetype, uri=uri, parameters=case.parameters
        )
        yield "stream_resource", resource.stream_resource_doc
        for first, last in ((0, 2), (2, EVENTS)):
            indices = {"start": first, "stop": last}
            datum = resource.compose_stream_datum(indices, descriptor=bundle.descriptor_doc)
            yield "stream_datum", datum | {"seq_nums": {"start": first + 1, "stop": last + 1}}


def of_resources(run, bundle, cases, directory):
    """Resources, Datums and events."""
    resources = {}
    for key, case in cases.items():
        resources[key] = run.compose_resource(
            spec=case.spec, root=str(directory), resource_path=case.path, resource_kwargs=case.parameters
        )
        yield "resource", resources[key].resource_doc
    for event in range(EVENTS):
        datums = {key: resources[key].compose_datum(datum_kwargs=case.datums[event]) for key, case in cases.items()}
        yield from (("datum", datum) for datum in datums.values())
        data = {key: datum["datum_id"] for key, datum in datums.items()}
        yield (
            "event",
            bundle.compose_event(data=data, timestamps=dict.fromkeys(data, 0.0), filled=dict.fromkeys(data, False)),
        )


def arrays_of(run):
    """The nodes of a run's arrays."""
    return {key: array for stream in run.base.values() for key, array in stream.base.items()}


@pytest.fixture(scope="module")
def runs(stock, tmp_path_factory):
    """What TiledWriter made of the documents, and what ours did."""
    client, data = stock
    write_files(data)
    theirs, ours = list(documents_of(data)), list(documents_of(data))
    writer = TiledWriter(client)
    for name, doc in copy.deepcopy(theirs):
        writer(name, doc)
    with CatalogWriter(client, spool=tmp_path_factory.mktemp("spool")) as writer:
        for name, doc in ours:
            writer(name, doc)
    return [arrays_of(client[docs[0][1]["uid"]]) for docs in (theirs, ours)]


@pytest.fixture(scope="module")
def served(catalog, data_directory, tmp_path_factory):
    """What ours makes on our server of those that are registered there in another way."""
    directory = data_directory / "tiled writer"
    directory.mkdir()
    write_files(directory)
    documents = list(documents_of(directory, SERIES))
    with CatalogWriter(catalog.client, spool=tmp_path_factory.mktemp("spool")) as writer:
        for name, doc in documents:
            writer(name, doc)
    return arrays_of(catalog.client[documents[0][1]["uid"]])


@pytest.mark.filterwarnings("ignore:.*join_method='concat'.*:DeprecationWarning")
@pytest.mark.parametrize("name", CASES)
def test_same_arrays(served, runs, name):
    """Each is that of TiledWriter, and what is in the files; also on our server, and event by event."""
    theirs, ours = (arrays[name] for arrays in runs)
    case = CASES[name]
    expected = case.expected
    np.testing.assert_array_equal(ours.read(), expected, err_msg="ours", strict=True)
    if name in SERIES:
        np.testing.assert_array_equal(served[name][1], expected[1], err_msg="served", strict=True)
    np.testing.assert_array_equal(theirs.read(), expected.reshape(case.theirs or expected.shape), strict=True)
    assert ours.structure().dims == theirs.structure().dims


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.spec])
def test_same_shape_without_the_files(name):
    """Where the files are out of reach, documents alone say the shape of an event that the files have."""
    case = CASES[name]
    uri = f"file://localhost/nowhere/{case.path}"
    doc = {"uid": "r", "data_key": "a", "mimetype": case.mimetype, "uri": uri, "parameters": case.parameters}
    key = {"dtype": "array", "shape": case.shape, "dtype_numpy": case.expected.dtype.str}
    event = event_structure(key, source_of_stream_resource(doc), None)
    assert (event.shape, event.dtype) == (case.expected.shape[1:], case.expected.dtype.str)
    assert math.prod(event.shape) == event.frames * math.prod(event.frame_shape)


@pytest.mark.parametrize(
    ("spec", "resource_kwargs", "datum_kwargs"),
    [
        ("AD_HDF5_SWMR_STREAM", {"dataset": "d", "frame_per_point": 5}, {"frame": 4}),
        ("AD_HDF5_SWMR_STREAM", {"dataset": "d"}, {"frame": -1}),
        ("AD_HDF5_SWMR_STREAM", {}, {"dataset": "d"}),
        ("AD_HDF5", {}, {"dataset": "d", "frame": 4}),
        ("AD_HDF5", {}, {"frame": 4}),
        ("AD_TIFF", {"template": "%s%s_%d.tif"}, {"dataset": "d", "point_number": 4}),
    ],
)
def test_datums_that_do_not_say_which_frame(spec, resource_kwargs, datum_kwargs):
    """They are refused with the reason: of five frames a point, a frame's number may be that of the first or last."""
    assets = Assets()
    doc = {"uid": "r", "spec": spec, "root": "/data", "resource_path": "a", "resource_kwargs": resource_kwargs}
    announce("resource", doc, assets)
    announce("datum", {"datum_id": "d", "resource": "r", "datum_kwargs": datum_kwargs}, assets)
    assert "expected a 'point_number' from 0 on alone" in assets.why_unusable("d")
