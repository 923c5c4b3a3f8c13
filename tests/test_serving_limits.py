"""What is refused as too much, each limit set low; and how limits are set."""

import threading

import h5py
import httpx
import numpy as np
import pytest
import tifffile
from PIL import Image
from tiled.structures.array import ArrayStructure, BuiltinDtype
from tiled.structures.data_source import Asset, DataSource, Management

from bluesky_filestore import Limits, serve_catalog
from bluesky_filestore.errors import LimitError, OptionError
from bluesky_filestore.files.hdf5 import HDF5Files
from bluesky_filestore.files.readable import Roots
from bluesky_filestore.files.registered import Registered, frames_of
from bluesky_filestore.model.addressing import FILE_SERIES, HDF5_ROWS
from bluesky_filestore.model.limits import check_width
from bluesky_filestore.model.specs import HDF5, JPEG_SERIES, NPY_SERIES, TIFF_SERIES
from bluesky_filestore.serving.frames_adapter import FramesAdapter

ROWS = {"dataset": "d", "frames_per_event": 1, "rows": [[0, 0, 3, 1]]}
SERIES = {"mimetype": TIFF_SERIES, "templates": ["f_%06d.tif"], "frames_per_event": 1, "rows": [[0, 0, 3, 1]]}
FRAMES = np.arange(48, dtype="u1").reshape(3, 4, 4)


def virtual(path, names, dataset="d"):
    """A virtual dataset of one frame each of some files."""
    layout = h5py.VirtualLayout((len(names), 4, 4), "u1")
    for row, name in enumerate(names):
        layout[row] = h5py.VirtualSource(name, dataset, (3, 4, 4))[0]
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("d", layout)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Files of each kind that a limit is about."""
    directory = tmp_path_factory.mktemp("limits")
    with h5py.File(directory / "a.h5", "w") as file:
        file["d"] = FRAMES
        file.create_dataset("packed", data=FRAMES, chunks=(3, 4, 4), compression="gzip")
    for number, frame in enumerate(FRAMES):
        tifffile.imwrite(directory / f"f_{number:06d}.tif", frame)
    tifffile.imwrite(directory / "packed.tif", FRAMES[0], compression="zlib")
    np.save(directory / "f.npy", FRAMES[0])
    Image.fromarray(FRAMES[0]).save(directory / "f.jpg")
    virtual(directory / "v1.h5", ["a.h5", "a.h5", "a.h5"])
    virtual(directory / "v2.h5", ["v1.h5", "v1.h5", "v1.h5"])
    virtual(directory / "v3.h5", ["v2.h5", "v2.h5", "v2.h5"])
    with h5py.File(directory / "link.h5", "w") as file:
        file["d"] = h5py.ExternalLink("link2.h5", "d")
    with h5py.File(directory / "link2.h5", "w") as file:
        file["d"] = h5py.ExternalLink("a.h5", "d")
    return directory


CASES = {
    "frames": ({"frames": 2}, HDF5_ROWS, "a.h5", ROWS, "its rows claim 3 frames; expected 2 at most"),
    "frames of a series": ({"frames": 2}, FILE_SERIES, "", SERIES, "its rows claim 3 frames; expected 2 at most"),
    "spans": (
        {"spans": 1},
        HDF5_ROWS,
        "a.h5",
        {**ROWS, "rows": [[0, 0, 1, 1], [0, 1, 2, 1]]},
        "is made of 2 row spans; expected 1",
    ),
    "template_width": ({"template_width": 5}, FILE_SERIES, "", SERIES, "has 6 characters; expected 5 at most"),
    "unpacked_bytes of TIFF": ({"unpacked_bytes": 15}, TIFF_SERIES, "f_000000.tif", {}, "16 bytes"),
    "unpacked_bytes of packed TIFF": ({"unpacked_bytes": 15}, TIFF_SERIES, "packed.tif", {}, "unpacks to 16 bytes"),
    "unpacked_bytes of NPY": ({"unpacked_bytes": 15}, NPY_SERIES, "f.npy", {}, "holds 16 bytes; expected 15"),
    "unpacked_bytes of JPEG": ({"unpacked_bytes": 15}, JPEG_SERIES, "f.jpg", {}, "unpacks to 16 bytes; expected 15"),
    "unpacked_bytes of a chunk": (
        {"unpacked_bytes": 47},
        HDF5_ROWS,
        "a.h5",
        {**ROWS, "dataset": "packed"},
        "a chunk of packed .* has 48 bytes; expected 47",
    ),
    "virtual_sources": ({"virtual_sources": 2}, HDF5_ROWS, "v1.h5", ROWS, "has 3 parts; expected 2 at most"),
    "virtual_depth": ({"virtual_depth": 2}, HDF5_ROWS, "v3.h5", ROWS, "is number 3 of those that lead to one another"),
    "virtual_depth of links": ({"virtual_depth": 1}, HDF5_ROWS, "link.h5", ROWS, "more than 1 external links"),
    "virtual_parts": ({"virtual_parts": 2}, HDF5_ROWS, "v3.h5", ROWS, "are made of 3 parts of parts or more"),
}


@pytest.mark.parametrize("case", CASES)
def test_each_limit(data, case):
    """One less than there is refuses it and says what was found, the limit and how it is set; the default reads."""
    limits, mimetype, name, parameters, words = CASES[case]
    shape = FRAMES.shape if mimetype in (HDF5_ROWS, FILE_SERIES) else (1, 4, 4)
    path = str(data / name) if name else str(data)
    registered = Registered(mimetype, parameters, {}, (path,), shape, np.dtype("u1"))

    def read(limits):
        with HDF5Files() as files:
            return frames_of(registered, files=files, roots=Roots.of([data], limits))().read(range(shape[0]))

    assert read(Limits()).shape == shape
    with pytest.raises(LimitError, match=words) as refused:
        read(Limits(**limits))
    (name,) = limits
    assert f"Limits({name}=...)" in str(refused.value)


def test_known_layouts_are_no_way_around(data):
    """What somebody else looked at before, under other limits, is refused all the same."""
    with HDF5Files() as files:
        assert files.layout(str(data / "v1.h5"), "d", roots=Roots.of([data])).count == 3
        with pytest.raises(LimitError, match="has 3 parts"):
            files.read(str(data / "v1.h5"), "d", range(3), roots=Roots.of([data], Limits(virtual_sources=2)))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"frames": 0}, "the limit frames is 0; expected a number above 0"),
        ({"frames": -1}, "is -1"),
        ({"frames": 1.5}, "is 1.5"),
        ({"frames": True}, "is True"),
        ({"response_seconds": "5"}, "is '5'"),
        ({"response_seconds": float("nan")}, "is nan"),
        ({"nothing": 1}, "there is no limit nothing; expected some of response_bytes, "),
    ],
)
def test_limits_that_are_none(values, words):
    """What is no limit is refused when it is set."""
    with pytest.raises(OptionError, match=words):
        Limits.of(values)


@pytest.mark.parametrize("words", ["frames", "frames=", "frames=x", "=5", "frames=-1", "none=1"])
def test_words_that_are_no_limit(words):
    """The same on a command line."""
    with pytest.raises(OptionError):
        Limits.parsed([words])


def test_widths_of_many_digits():
    """A width that Python makes no number of is too wide."""
    with pytest.raises(LimitError, match="characters"):
        check_width("%" + "9" * 5000 + "d", Limits())
    check_width("%06d%%99999999", Limits())


@pytest.fixture(scope="module")
def small(data, tmp_path_factory):
    """A server that answers with 40 bytes, within two seconds, to paths of ten segments."""
    limits = Limits(response_bytes=40, response_seconds=2.0, path_segments=10)
    with serve_catalog(tmp_path_factory.mktemp("small"), readable=data, limits=limits) as server:
        structure = ArrayStructure(
            shape=(3, 4, 4), chunks=((3,), (4,), (4,)), data_type=BuiltinDtype.from_numpy_dtype(np.dtype("u1"))
        )
        uri = f"file://localhost{data}/a.h5"
        asset = Asset(data_uri=uri, is_directory=False, parameter="data_uris", num=0)
        for key, mimetype, parameters in (("rows", HDF5_ROWS, ROWS), ("plain", HDF5, {"dataset": "d"})):
            source = DataSource(
                structure_family="array",
                structure=structure,
                mimetype=mimetype,
                parameters=parameters,
                management=Management.external,
                assets=[asset],
            )
            server.client.new("array", [source], key=key)
        server.client.write_array(FRAMES, key="uploaded")
        yield server


def ask(server, path, **headers):
    """What the server answers."""
    headers = {"Authorization": f"Apikey {server.api_key}", "Accept": "application/octet-stream", **headers}
    return httpx.get(f"{server.uri}{path}", headers=headers, timeout=20)


@pytest.mark.parametrize("by_tiled", [False, True])
@pytest.mark.parametrize("key", ["rows", "plain", "uploaded"])
def test_bytes_of_an_answer(small, key, by_tiled):
    """Whichever way the answer comes, it is not larger; a slice of it is given."""
    headers = {"Origin": small.uri} if by_tiled else {}
    for path in (f"/api/v1/array/full/{key}", f"/api/v1/array/block/{key}?block=0,0,0"):
        answer = ask(small, path, **headers)
        assert answer.status_code == 400
        assert "40" in answer.json()["detail"]
    assert ask(small, f"/api/v1/array/full/{key}?slice=1", **headers).content == FRAMES[1].tobytes()


def test_segments_of_a_path(small):
    """A path is refused by its segments, before anybody looks for it."""
    for count, status in ((5, 404), (11, 414), (20_000, 414)):
        answer = ask(small, "/api/v1/metadata" + "/a" * count)
        assert answer.status_code == status
    assert "path_segments" in answer.json()["detail"]


def test_time_of_an_answer(small, monkeypatch):
    """What is not there in time is answered with 503 and words, while its thread is still at it; others go on."""
    going, read = threading.Event(), FramesAdapter.read

    def stuck(self, *args):
        going.wait(20)
        return read(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(FramesAdapter, "read", stuck)
        for headers in ({}, {"Origin": small.uri}):
            answer = ask(small, "/api/v1/array/full/rows?slice=0", **headers)
            assert answer.status_code == 503
            assert "no answer after 2 s" in answer.json()["detail"]
        assert ask(small, "/api/v1/array/full/uploaded?slice=0").content == FRAMES[0].tobytes()
    going.set()
    assert ask(small, "/api/v1/array/full/rows?slice=0").content == FRAMES[0].tobytes()
