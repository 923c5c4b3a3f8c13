"""Arrays read straight from the files, or through the catalog."""

import itertools
import logging
import pickle
import shutil

import h5py
import numpy as np
import pytest
import tifffile
from document_streams import build, cases, complete_rows
from hypothesis import HealthCheck, given, note, settings
from tiled.structures.array import ArrayStructure, BuiltinDtype
from tiled.structures.data_source import Asset, DataSource, Management

from bluesky_filestore import open_array
from bluesky_filestore.errors import (
    CatalogError,
    DocumentError,
    MissingFileError,
    TruncatedFileError,
    UnreadableFileError,
)
from bluesky_filestore.model.addressing import FILE_SERIES, HANDLED, HDF5_ROWS, FileSeries, HDF5Rows, RowSpan
from bluesky_filestore.model.specs import HDF5, TIFF_SERIES

FRAMES = np.random.default_rng(0).integers(0, 60000, (12, 8, 6), dtype="u2")
CHUNKS = {"chunks": [[12], [8], [6]]}
SPANS = (RowSpan(0, 3, 2, 1), RowSpan(0, 6, 3, -3))
ROWS = [3, 4, 6, 3, 0]
SERIES = FileSeries(TIFF_SERIES, ("%02d.tiff",), 1, SPANS).to_parameters()
HANDLED_FILE = {
    "spec": "HDF5",
    "resource_kwargs": {"dataset": "d", "frame_per_point": 2},
    "datum_kwargs": [{"point_number": number} for number in range(6)],
}
HANDLED_SERIES = {
    "spec": "AD_TIFF",
    "resource_kwargs": {"template": "%s%s%02d.tiff", "filename": ""},
    "datum_kwargs": [{"point_number": number} for number in ROWS],
}
REGISTERED = {
    "hdf5": (HDF5, ["all.h5"], FRAMES, {"dataset": "d"}, {}),
    "points of two": (HDF5, ["all.h5"], FRAMES.reshape(6, 2, 8, 6), {"dataset": "d", "slice": "0:12"}, {}),
    "two files sliced": (HDF5, ["first.h5", "second.h5"], FRAMES[2:11:2], {"dataset": "d", "slice": "2:11:2"}, {}),
    "rows": (HDF5_ROWS, ["all.h5"], FRAMES[ROWS], HDF5Rows("d", 1, SPANS).to_parameters(), {}),
    "tiff": (TIFF_SERIES, [f"{n:02}.tiff" for n in range(12)], FRAMES[:, np.newaxis], {}, CHUNKS),
    "series": (FILE_SERIES, ["."], FRAMES[ROWS], SERIES, {}),
    "handled": (HANDLED, ["all.h5"], FRAMES.reshape(6, 2, 8, 6), HANDLED_FILE, {}),
    "handled series": (HANDLED, ["."], FRAMES[ROWS][:, np.newaxis], HANDLED_SERIES, {}),
}
numbers = itertools.count()


def fill_directory(directory):
    """Files of all kinds with the same frames."""
    directory.mkdir(parents=True)
    for name, some in (("all", FRAMES), ("first", FRAMES[:5]), ("second", FRAMES[5:])):
        with h5py.File(directory / f"{name}.h5", "w") as file:
            file.create_dataset("d", data=some, chunks=(1, 8, 6))
    for number, frame in enumerate(FRAMES):
        tifffile.imwrite(directory / f"{number:02}.tiff", frame)
    return directory


@pytest.fixture
def directory(data_directory):
    """Files of this test alone, which the catalog can read."""
    return fill_directory(data_directory / "open array" / str(next(numbers)))


@pytest.fixture
def register(catalog, directory):
    """Registers an array with the files of the directory, named as if they were elsewhere if asked."""

    def registered(name, *, shape=None, dtype="u2", where=None):
        mimetype, files, values, parameters, properties = REGISTERED[name]
        shape = shape or values.shape
        structure = ArrayStructure(
            shape=shape,
            chunks=((shape[0] - 2, 2), *((size,) for size in shape[1:])),
            data_type=BuiltinDtype.from_numpy_dtype(np.dtype(dtype)),
        )
        is_directory = files == ["."]
        assets = [
            Asset(f"file://localhost{where or directory}/{file}", is_directory, "data_uris", number)
            for number, file in enumerate(files)
        ]
        source = DataSource(
            structure_family="array",
            structure=structure,
            mimetype=mimetype,
            parameters=parameters,
            properties=properties,
            management=Management.external,
            assets=assets,
        )
        return catalog.client.new("array", [source], key=f"open_array_{next(numbers)}")

    return registered


@pytest.mark.parametrize("name", REGISTERED)
def test_any_registration(register, name):
    """Each kind of registration is read straight, and is what the catalog gives."""
    expected = REGISTERED[name][2]
    node = register(name)
    array = open_array(node)
    assert array.source == "files"
    assert (array.shape, array.dtype, array.chunks) == (node.shape, node.dtype, node.chunks)
    assert (array.ndim, array.size, array.nbytes) == (expected.ndim, expected.size, expected.nbytes)
    np.testing.assert_array_equal(array, expected)
    np.testing.assert_array_equal(array[...], node.read())
    for index in (2, -1, (slice(1, 4), ..., slice(None, None, -2)), slice(None, None, -1), (0, ..., 3), np.int64(1)):
        np.testing.assert_array_equal(array[index], expected[index])
    assert [row.tolist() for row in array] == expected.tolist()
    assert len(array) == len(expected)
    assert "straight from files" in repr(array)


def test_an_element_is_a_number(register):
    """What numpy gives as a number is one."""
    found = open_array(register("hdf5"))[1, 2, 3]
    assert isinstance(found, np.uint16)
    assert found == FRAMES[1, 2, 3]


def test_as_an_array(register):
    """It is taken for an array of any dtype, and is not told that it need not be read."""
    array = open_array(register("hdf5"))
    assert np.asarray(array, dtype="f8").dtype == "f8"
    assert np.mean(array) == FRAMES.mean()
    with pytest.raises(ValueError, match=r"cannot be had without being read"):
        np.array(array, copy=False)


@pytest.mark.parametrize("index", [[0, 1], np.array([True] * 12), None, True, 1.5, "a"])
def test_other_indices(register, index):
    """What is no basic index is refused with a way out."""
    with pytest.raises(IndexError, match=r"is none of whole numbers, slices and '...'; for other indices use .dask"):
        open_array(register("hdf5"))[index]


def sent(value):
    """A value as another process gets it."""
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - made here


def test_dask(register):
    """The dask array has the chunks of the catalog, takes any index, and is read in other processes too."""
    array = open_array(register("rows"))
    assert array.dask.chunks == array.chunks
    assert array.dask is array.dask
    np.testing.assert_array_equal(array.dask[[4, 0], 1:].compute(), FRAMES[ROWS][[4, 0], 1:])
    np.testing.assert_array_equal(sent(array.dask).compute(), FRAMES[ROWS])
    np.testing.assert_array_equal(sent(array)[1], FRAMES[4])


@pytest.mark.parametrize("name", REGISTERED)
def test_files_elsewhere(register, directory, name, tmp_path, caplog):
    """Files that were moved are found with a map; without one the catalog is asked, and that is said."""
    caplog.set_level(logging.INFO, "bluesky_filestore.reading")
    node = register(name, where="/nowhere")
    asked = open_array(node)
    assert asked.source == "catalog"
    assert "/nowhere" in asked.reason
    assert "through the catalog: file /nowhere" in caplog.messages[-1]
    shutil.copytree(directory, tmp_path / "moved")
    found = open_array(node, root_map={"/": "/neither", "/nowhere": str(tmp_path / "moved")})
    assert found.source == "files"
    np.testing.assert_array_equal(found[1:3], REGISTERED[name][2][1:3])
    assert "straight from files" in caplog.messages[-1]


def test_files_of_a_windows_machine(register, directory):
    """A path of another system is mapped, or the catalog is asked."""
    node = register("tiff", where="/Z:/data/run")
    assert "which this machine has not" in open_array(node).reason
    found = open_array(node, root_map={"Z:\\data\\run": str(directory)})
    np.testing.assert_array_equal(found[5:7, 0], FRAMES[5:7])


def test_through_the_catalog(register, directory):
    """What only the server reaches is read through it, in parts as well, and its errors are the catalog's words."""
    node = register("points of two")
    through = open_array(node, root_map={str(directory): "/nowhere"})
    assert through.source == "catalog"
    expected = REGISTERED["points of two"][2]
    for index in (..., 3, (slice(1, 5, 2), 0), (-1, ..., slice(2, 4)), (0, 1, 2, 3)):
        np.testing.assert_array_equal(through[index], expected[index])
    np.testing.assert_array_equal(through.dask[2].compute(), expected[2])
    with pytest.raises(IndexError, match=r"index 6 is out of range"):
        through[6]
    (directory / "all.h5").unlink()
    with pytest.raises(CatalogError, match=r"failed \(status 404\): file .*all.h5 is not there"):
        through[0]


def test_handler_that_is_not_here(register, monkeypatch):
    """What needs a handler that this process has not is left to the catalog, and that is said."""
    monkeypatch.setitem(HANDLED_FILE, "spec", "NOBODYS")
    array = open_array(register("handled"))
    assert array.source == "catalog"
    assert "NOBODYS" in array.reason


def test_values_in_the_catalog(catalog):
    """An array that is in no file is read through the catalog."""
    node = catalog.client.write_array(FRAMES, key=f"open_array_{next(numbers)}")
    array = open_array(node)
    assert "its values are in the catalog itself" in array.reason
    np.testing.assert_array_equal(array[3], FRAMES[3])


def test_other_files_than_registered(register, directory):
    """Files with frames of another shape or dtype are no frames of the array, even if the elements are as many."""
    for shape in ((12, 6, 8), (12, 4, 12), (24, 4, 6)):
        with pytest.raises(UnreadableFileError, match=r"frames of shape \[8, 6\]; expected frames for an array of"):
            open_array(register("hdf5", shape=shape))
    with pytest.raises(UnreadableFileError, match=r"the files hold uint16; expected uint8"):
        open_array(register("hdf5", dtype="u1"))[0]
    array = open_array(register("tiff"))
    tifffile.imwrite(directory / "03.tiff", FRAMES[3].T)
    np.testing.assert_array_equal(array[4, 0], FRAMES[4])
    with pytest.raises(UnreadableFileError, match=r"03.tiff holds a frame of shape \[6, 8\]; expected \[8, 6\]"):
        array[2:5]


@pytest.mark.parametrize("name", ["tiff", "series", "hdf5", "rows", "two files sliced"])
def test_file_that_disappears(register, directory, name):
    """A file that is gone later is named, with the index; when it is there again it is read."""
    array = open_array(register(name))
    gone = directory / {"tiff": "03.tiff", "series": "03.tiff", "two files sliced": "second.h5"}.get(name, "all.h5")
    place = {"series": 0, "rows": 0, "two files sliced": 4}.get(name, 3)
    np.testing.assert_array_equal(array[place], REGISTERED[name][2][place])
    away = gone.rename(f"{gone}.away")
    with pytest.raises(MissingFileError, match=rf"file .*{gone.name} is not there") as caught:
        array[place]
    if gone.suffix == ".tiff":
        assert str(caught.value).startswith(f"frame {place} (counted from 0) cannot be read")
    assert caught.value.__notes__[-1].endswith(f"index [{place}].")
    if gone.suffix == ".tiff" or name == "two files sliced":
        np.testing.assert_array_equal(array[1], REGISTERED[name][2][1])
    away.rename(gone)
    np.testing.assert_array_equal(array[place], REGISTERED[name][2][place])


@pytest.mark.parametrize("name", ["hdf5", "two files sliced"])
def test_frames_so_far(register, directory, name):
    """Of a file that was cut short, the frames that are there are read; one that is not is named."""
    array = open_array(register(name))
    file = "all.h5" if name == "hdf5" else "second.h5"
    with h5py.File(directory / file, "r+") as opened:
        del opened["d"]
        opened.create_dataset("d", data=FRAMES[:7] if name == "hdf5" else FRAMES[5:7], chunks=(1, 8, 6))
    expected, there = REGISTERED[name][2], 7 if name == "hdf5" else 3
    np.testing.assert_array_equal(array[:there], expected[:there])
    np.testing.assert_array_equal(open_array(register(name))[:there], expected[:there])
    with pytest.raises(TruncatedFileError, match=rf"{file} holds {there if name == 'hdf5' else 2} frames .*; frame"):
        array[there]


def test_what_is_no_array(catalog):
    """A container, or a name, is not taken for an array."""
    with pytest.raises(TypeError, match=r"'det_image' is no array; expected one such as run"):
        open_array("det_image")
    with pytest.raises(TypeError, match=r"is no array; expected one such as run\['primary'\]\['det_image'\]"):
        open_array(catalog.client)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(case=cases())
def test_right_frames_of_documents(tmp_path_factory, case):
    """Documents alone say where the frames of each event are, for any legal stream of documents."""
    built = build(case, tmp_path_factory.mktemp("documents") / "files")
    note("\n".join(f"{name} {doc}" for name, doc in built.documents))
    for stream in built.rows:
        for index in case.streams[stream]:
            camera = case.cameras[index]
            expected = np.stack(built.frames[stream, camera.key])
            complete = complete_rows(built, stream, camera.key)
            if not complete:
                with pytest.raises(DocumentError, match=r"cannot be read: refused: .*"):
                    open_array(built.documents, camera.key, stream)
                continue
            array = open_array(built.documents, camera.key, stream)
            assert array.shape == (complete, *expected.shape[1:])
            np.testing.assert_array_equal(array, expected[:complete])


def small_run(directory):
    """The documents of two events of one detector."""
    import event_model

    run = event_model.compose_run()
    key = {"source": "s", "dtype": "array", "shape": [1, 8, 6], "dtype_numpy": "<u2", "external": "FILESTORE:"}
    stream = run.compose_descriptor(
        name="primary", data_keys={"image": key, "x": {"source": "s", "dtype": "number", "shape": []}}
    )
    files = run.compose_resource(
        spec="AD_TIFF",
        root=str(directory.parent),
        resource_path=directory.name,
        resource_kwargs={"template": "%s/%s%02d.tiff", "filename": "", "frame_per_point": 1},
    )
    documents = [("start", run.start_doc), ("descriptor", stream.descriptor_doc), ("resource", files.resource_doc)]
    for number in range(2):
        datum = files.compose_datum({"point_number": number})
        event = stream.compose_event(
            data={"image": datum["datum_id"], "x": 1.0}, timestamps={"image": 0.0, "x": 0.0}, filled={"image": False}
        )
        documents += [("datum", datum), ("event", event)]
    return documents


def test_documents_of_moved_files(directory):
    """Files of documents are mapped as those of a catalog are; nothing else can give them."""
    documents = small_run(directory)
    directory.rename(directory.parent / "moved away")
    try:
        found = open_array(documents, root_map={str(directory): str(directory.parent / "moved away")})
        np.testing.assert_array_equal(found[:, 0], FRAMES[:2])
        assert "primary/image of run" in repr(found)
    finally:
        (directory.parent / "moved away").rename(directory)
    with pytest.raises(MissingFileError, match=r"file /nowhere/.*00.tiff is not there"):
        open_array(documents, root_map={str(directory.parent): "/nowhere"})
    with pytest.raises(DocumentError, match=r"is a windows path, which this machine has not"):
        open_array(documents, root_map={str(directory.parent): "Z:\\data"})


def test_documents_that_do_not_say(directory):
    """Keys that are not there, or whose frames nobody documented, are told from one another."""
    documents = small_run(directory)
    with pytest.raises(DocumentError, match=r"0 arrays .* and data key 'x'; expected .*: primary/image"):
        open_array(documents, "x")
    with pytest.raises(DocumentError, match=r"there is no start of a run"):
        open_array([])
    with pytest.raises(DocumentError, match=r"there is no start of a run"):
        open_array(documents[1:])
    with pytest.raises(DocumentError, match=r"expected documents of one run"):
        open_array([*documents, *small_run(directory)])
    with pytest.raises(DocumentError, match=r"'image' of stream 'primary' .* cannot be read: no document says where"):
        open_array(documents[:2])
    with pytest.raises(DocumentError, match=r"cannot be read: refused: .*never announced"):
        open_array([pair for pair in documents if pair[0] != "resource"])


def test_problems_with_other_documents(directory, caplog):
    """What is wrong with a document that does not matter is in the log, and the rest is read."""
    documents = small_run(directory)
    other = {**documents[2][1], "spec": "AD_HDF5"}
    array = open_array([*documents, ("resource", other)])
    np.testing.assert_array_equal(array[1, 0], FRAMES[1])
    assert "came twice, with different words" in caplog.text


def test_a_file_that_may_not_be_read(register):
    """A file that the server may not read is said to be that, and the key is not blamed for it."""
    node = register("hdf5", where="/elsewhere/beyond")
    with pytest.raises(CatalogError, match=r"refused \(status 403\): .*outside the readable storage area"):
        open_array(node)[0]
