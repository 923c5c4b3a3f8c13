"""Frames by their numbers: the same answers on every way from documents to frames."""

import subprocess
import sys

import event_model
import h5py
import numpy as np
import pytest
import tifffile

from bluesky_filestore import fill, open_array
from bluesky_filestore.errors import FileStoreError, LockedFileError
from bluesky_filestore.files.hdf5 import HDF5Files, shared_files
from bluesky_filestore.files.numbered import DatasetFrames, SourceArrays
from bluesky_filestore.files.registered import Registered, frames_of
from bluesky_filestore.handlers.hdf5 import HDF5DatasetHandler
from bluesky_filestore.model.frame_map import Source
from bluesky_filestore.model.paths import pure_path
from bluesky_filestore.model.specs import HDF5, TIFF_SERIES

DATASET = "/entry/data/data"


def key_of(shape, external):
    """The data key of an image of unsigned 16-bit numbers."""
    return {"source": "s", "dtype": "array", "shape": list(shape), "dtype_numpy": "<u2", "external": external}


def old_documents(directory, spec, shape, events, path="", **kwargs):
    """A run whose events name a datum each."""
    run = event_model.compose_run()
    stream = run.compose_descriptor(name="primary", data_keys={"image": key_of(shape, "FILESTORE:")})
    resource = run.compose_resource(spec=spec, root=str(directory), resource_path=path, resource_kwargs=kwargs)
    yield from [("start", run.start_doc), ("descriptor", stream.descriptor_doc), ("resource", resource.resource_doc)]
    for number in range(events):
        datum = resource.compose_datum({"point_number": number})
        yield "datum", datum
        data = {"image": datum["datum_id"]}
        yield "event", stream.compose_event(data=data, timestamps={"image": 1.0}, filled={"image": False})
    yield "stop", run.compose_stop()


def new_documents(directory, mimetype, shape, events, path="", **parameters):
    """A run whose arrays a stream_datum tells of."""
    run = event_model.compose_run()
    stream = run.compose_descriptor(name="primary", data_keys={"image": key_of(shape, "STREAM:")})
    resource = run.compose_stream_resource(
        mimetype=mimetype, uri=f"file://localhost{directory}/{path}", data_key="image", parameters=parameters
    )
    yield from [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
    yield "stream_resource", resource.stream_resource_doc
    indices = event_model.StreamRange(start=0, stop=events)
    seq_nums = event_model.StreamRange(start=1, stop=events + 1)
    yield "stream_datum", resource.compose_stream_datum(indices, seq_nums, stream.descriptor_doc)
    for _ in range(events):
        yield "event", stream.compose_event(data={}, timestamps={}, filled={})
    yield "stop", run.compose_stop()


def filled(documents):
    """The arrays of the events."""
    return [doc["data"]["image"] for name, doc in fill(documents, patience=0) if name == "event"]


def write_series(directory, frames):
    """A file a frame, as areaDetector's HDF5 plugin writes them in Single mode."""
    for number, frame in enumerate(frames):
        with h5py.File(directory / f"a_{number}.h5", "w") as file:
            file[DATASET] = frame


@pytest.mark.parametrize("shape", [(4, 6), (1, 4, 6), (4, 6, 3), (4, 3, 6), (3, 4, 6)], ids=str)
def test_one_frame_a_hdf5_file(tmp_path, shape):
    """Images in colours are one frame a file where the descriptor says so, on each way."""
    frames = np.arange(3 * np.prod(shape), dtype="u2").reshape(3, *shape)
    write_series(tmp_path, frames)
    event = (1, *shape[1:]) if shape[0] == 1 else (1, *shape)
    expected = frames.reshape(3, *event)
    template = {"template": "%s%s_%d.h5", "filename": "a"}
    new = list(new_documents(tmp_path, HDF5, event, 3, template="a_%d.h5", dataset=DATASET))
    old = list(old_documents(tmp_path, "AD_HDF5_SINGLE", event, 3, **template))
    for documents in (old, new):
        np.testing.assert_array_equal(open_array(documents)[...], expected, strict=True)
        np.testing.assert_array_equal(filled(documents), expected, strict=True)


def test_several_frames_in_a_file_of_a_series(tmp_path):
    """They are refused on each way: nobody says which is meant."""
    write_series(tmp_path, np.zeros((3, 2, 4, 6), "u2"))
    old = list(old_documents(tmp_path, "AD_HDF5_SINGLE", (1, 4, 6), 3, template="%s%s_%d.h5", filename="a"))
    new = list(new_documents(tmp_path, HDF5, (1, 4, 6), 3, template="a_%d.h5", dataset=DATASET))
    for read in (filled, open_array):
        for documents in (old, new):
            with pytest.raises(FileStoreError, match="holds 2 frames; expected one"):
                read(documents)


def test_a_shape_that_varies(tmp_path):
    """Where the descriptor does not say how many frames an event has, an index is a frame, or what the source says."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file[DATASET] = np.arange(4 * 24, dtype="u2").reshape(4, 4, 6)
    documents = list(new_documents(tmp_path, HDF5, (1, 4, 6), 2, path="a.h5", dataset=DATASET))
    documents[1][1]["data_keys"]["image"]["shape"] = [None, 4, 6]
    for read in (filled, open_array):
        assert [array[0, 0, 0] for array in read(documents)] == [0, 24]
    documents[2][1]["parameters"]["multiplier"] = 2
    assert [array.shape for array in filled(documents)] == [(2, 4, 6)] * 2


def test_frames_are_read_as_the_file_grows(tmp_path):
    """A frame that is not there yet is an error that counts those that are; then it is there."""
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        frames = file.create_dataset("d", (0, 4, 6), "u2", maxshape=(None, 4, 6), chunks=(1, 4, 6))
        file.swmr_mode = True
        read = DatasetFrames(str(tmp_path / "a.h5"), "d")
        for number in range(3):
            with pytest.raises(FileStoreError, match=rf"holds {number} frames .* expected at least {number + 1}"):
                read.read(range(number, number + 1))
            frames.resize(number + 1, 0)
            frames[number] = number
            frames.flush()
            np.testing.assert_array_equal(read.read(range(number, number + 1)), np.full((1, 4, 6), number, "u2"))


WRITER = """
import h5py, sys
with h5py.File(sys.argv[1], "r+") as file:
    print("open", flush=True)
    sys.stdin.readline()
"""


def test_locking(tmp_path):
    """Where the documents say so, HDF5's locks do not matter; the pools for both do not get in each other's way."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("d", data=np.zeros((3, 4, 6), "u2"), compression="gzip")
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "open\n"
        with pytest.raises(LockedFileError, match="its writer keeps others out"):
            HDF5DatasetHandler(str(path), "d")(point_number=0)
        with HDF5DatasetHandler(str(path), "d", locking=False) as handler:
            assert handler(point_number=2).shape == (1, 4, 6)
        writer.stdin.write("\n")
    assert shared_files(False) is shared_files(False) is not shared_files()


def test_a_pool_of_ones_own(tmp_path):
    """It is the one that is used, also before it has a file open."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("d", data=np.zeros((3, 4, 6), "u2"), compression="gzip")
    parameters = {"dataset": "d", "slice": ""}
    with HDF5Files() as files:
        registered = Registered(HDF5, parameters, {}, (str(path),), (3, 4, 6), np.dtype("u2"))
        frames_of(registered, files=files)().read(range(3))
        assert len(files) == 1


def test_unpacked_chunks_are_kept(tmp_path):
    """Frame after frame of a packed chunk is read from the open dataset, which keeps what it has unpacked."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("d", data=np.zeros((8, 4, 6), "u2"), chunks=(8, 4, 6), compression="gzip")
    with HDF5Files() as files:
        for frame in range(8):
            files.read(str(path), "d", range(frame, frame + 1))
        (entry,) = files._pool._files.values()
        kept = entry.datasets["d"]
        assert kept
        files.close_file(str(path))
        assert not kept
        assert len(files) == 0


def test_byte_order_of_tiff(tmp_path):
    """It is no part of the values, whether the pixels are plain or packed."""
    frames = np.arange(48, dtype=">u2").reshape(2, 4, 6)
    for number, compression in enumerate((None, "zlib")):
        tifffile.imwrite(tmp_path / f"a_{number}.tif", frames[number], byteorder=">", compression=compression)
    source = Source("a", TIFF_SERIES, pure_path(tmp_path, "posix"), f"{tmp_path}/a_%d.tif")
    arrays = SourceArrays(source, str(tmp_path), key_of((1, 4, 6), "STREAM:"))
    for index in range(2):
        said, values = arrays.format(index=index), arrays(index)
        assert said.dtype == values.dtype == np.dtype("u2")
        assert values.dtype.isnative
        np.testing.assert_array_equal(values[0], frames[index])


def test_several_words_for_one_thing(tmp_path):
    """Of several words for the dataset and for the frames a point, each way goes by the same."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in ("d", "e", "f"):
            file[name] = np.full((4, 4, 6), ord(name), "u2")
    words = {"key": "d", "dataset": "e", "path": "f", "frames_per_point": 2, "frame_per_point": 1}
    documents = list(old_documents(tmp_path, "HDF5", (2, 4, 6), 2, path="a.h5"))
    documents[2][1]["resource_kwargs"] = words
    expected = np.full((2, 2, 4, 6), ord("d"), "u2")
    np.testing.assert_array_equal(filled(documents), expected, strict=True)
    np.testing.assert_array_equal(open_array(documents)[...], expected, strict=True)
