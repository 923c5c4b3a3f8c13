"""Files that damage, or somebody with a mind to it, has made, as a server meets them."""

import ctypes
import io
import lzma
import os
import resource
import struct
import threading
import time
import zlib

import h5py
import httpx
import numpy as np
import pytest
import tifffile
from PIL import Image
from tiled.client.utils import ClientError
from tiled.structures.array import ArrayStructure, BuiltinDtype
from tiled.structures.data_source import Asset, DataSource, Management

from bluesky_filestore import serve_catalog
from bluesky_filestore.files.readable import Roots
from bluesky_filestore.model.addressing import FILE_SERIES, HANDLED, HDF5_ROWS
from bluesky_filestore.model.specs import HDF5, JPEG_SERIES, NPY_SERIES, TIFF_SERIES

SHAPE = (1, 4, 4)
SECRET = b"SSSS"
ROWS = {"dataset": "d", "frames_per_event": 1, "rows": [[0, 0, 1, 1]]}
MEGABYTES = 1024


class Place:
    """A server, the directory that it may read, and one that it may not."""

    def __init__(self, directory):
        self.data, self.outside = directory / "data", directory / "outside"
        self.data.mkdir()
        self.outside.mkdir()
        self.server = serve_catalog(directory / "catalog", readable=self.data)
        self.keys = 0
        with h5py.File(self.data / "good.h5", "w") as file:
            file["d"] = np.ones(SHAPE, "u1")
        self.good = self.register(HDF5_ROWS, [self.data / "good.h5"], ROWS)

    def register(self, mimetype, paths, parameters=None, shape=SHAPE, *, is_directory=False):
        """The key of an array of a data source."""
        structure = ArrayStructure(
            shape=shape, chunks=tuple((n,) for n in shape), data_type=BuiltinDtype.from_numpy_dtype(np.dtype("u1"))
        )
        assets = [
            Asset(data_uri=f"file://localhost{path}", is_directory=is_directory, parameter="data_uris", num=number)
            for number, path in enumerate(paths)
        ]
        source = DataSource(
            structure_family="array",
            structure=structure,
            mimetype=mimetype,
            parameters=parameters or {},
            management=Management.external,
            assets=assets,
        )
        self.keys += 1
        self.server.client.new("array", [source], key=f"a{self.keys}")
        return f"a{self.keys}"

    def ask(self, key, query="", *, by_tiled=False):
        """The answer; with an origin it is Tiled that answers, else the short way."""
        headers = {"Authorization": f"Apikey {self.server.api_key}", "Accept": "application/octet-stream"}
        headers |= {"Origin": "http://x"} if by_tiled else {}
        return httpx.get(f"{self.server.uri}/api/v1/array/full/{key}{query}", headers=headers, timeout=30)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A server for all of them: none may be in the way of the next."""
    place = Place(tmp_path_factory.mktemp("doors"))
    with place.server:
        yield place


def npy(header):
    """A file of numpy's with this header."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + b"\0" * 128


def npz():
    """Several arrays in one file."""
    made = io.BytesIO()
    np.savez(made, a=np.zeros((4, 4), "u1"))
    return made.getvalue()


def image(form):
    """A picture of another format."""
    made = io.BytesIO()
    Image.new("L", (4, 4), 0x53).save(made, form)
    return made.getvalue()


def huge_png():
    """A picture that says that it has 3,600,000,000 pixels."""
    made = bytearray(image("PNG"))
    made[16:24] = struct.pack(">II", 60000, 60000)
    made[29:33] = struct.pack(">I", zlib.crc32(bytes(made[12:29])))
    return bytes(made)


def packed_tiff(compression, packed):
    """A file of 4 by 4 pixels whose one strip is packed."""
    entries = [(256, 4, 1, 4), (257, 4, 1, 4), (258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 1)]
    entries += [(273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, 4), (279, 4, 1, len(packed))]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<4sI", b"II*\0", 8 + len(packed)) + packed + directory + b"\0" * 4


def zeros(packer, count):
    """So many megabytes of zeros, packed."""
    return b"".join(packer.compress(b"\0" * 2**20) for _ in range(count)) + packer.flush()


BROKEN = {
    "several.npy": npz,
    "more than numbers count.npy": lambda: npy(
        "{'descr':'<u2','fortran_order':False,'shape':(1180591620717411303424,)}"
    ),
    "deep.npy": lambda: npy("{'descr':'<u2','fortran_order':False,'shape':" + "-" * 3000 + "1}"),
    "no words.npy": lambda: npy("{'descr':(("),
    "no end.npy": lambda: npy("{'descr':'<u2','fortran_order':False,'shape':(1000000000000,)}"),
    "negative.npy": lambda: npy("{'descr':'<u2','fortran_order':False,'shape':(-4,4)}"),
    "of objects.npy": lambda: npy("{'descr':'|O','fortran_order':False,'shape':(4,4)}"),
    "unknown version.npy": lambda: b"\x93NUMPY\xff\0" + b"\0" * 128,
    "eps.jpg": lambda: image("EPS"),
    "png.jpg": lambda: image("PNG"),
    "gif.jpg": lambda: image("GIF"),
    "huge png.jpg": huge_png,
    "deflated.tif": lambda: packed_tiff(8, zeros(zlib.compressobj(9), 300)),
    "deflated a little.tif": lambda: packed_tiff(8, zeros(zlib.compressobj(9), 5)),
    "deflated twice.tif": lambda: packed_tiff(32946, zeros(zlib.compressobj(9), 300)),
    "lzma.tif": lambda: packed_tiff(34925, zeros(lzma.LZMACompressor(preset=0), 64)),
    "no lzma.tif": lambda: packed_tiff(34925, b"xxxx" * 8),
}
KINDS = {"npy": NPY_SERIES, "jpg": JPEG_SERIES, "tif": TIFF_SERIES}


@pytest.mark.parametrize("name", BROKEN)
def test_files_that_are_not_what_they_should_be(place, name):
    """They are refused in words, at once, and cost no memory."""
    (place.data / name).write_bytes(BROKEN[name]())
    key = place.register(KINDS[name[-3:]], [place.data / name])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for by_tiled in (False, True):
        answer = place.ask(key, by_tiled=by_tiled)
        assert answer.status_code == 422, answer.text
        assert name in answer.json()["detail"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * MEGABYTES
    assert place.ask(place.good).content == b"\1" * 16


def test_header_of_hdf5(place):
    """A header that makes no sense is refused in words."""
    made = bytearray((place.data / "good.h5").read_bytes())
    made[13] = 0
    (place.data / "header.h5").write_bytes(made)
    for mimetype, parameters in ((HDF5_ROWS, ROWS), (HDF5, {"dataset": "d"})):
        assert place.ask(place.register(mimetype, [place.data / "header.h5"], parameters)).status_code == 422


@pytest.mark.parametrize("mimetype", [NPY_SERIES, TIFF_SERIES, JPEG_SERIES, HDF5_ROWS])
def test_no_name_of_a_file(place, mimetype):
    """What cannot be a file's name is told so."""
    key = place.register(mimetype, [f"{place.data}/a\0b"], ROWS if mimetype == HDF5_ROWS else None)
    assert place.ask(key).status_code == 422


def test_tiff_that_names_others(place):
    """A description that puts the frame into another file is not followed: a file's frame is in it."""
    tifffile.imwrite(place.outside / "s.tif", np.full((4, 4), 0x53, "u1"), metadata=None, compression="zlib")
    described = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="4" SizeY="4" SizeC="1" SizeZ="1" SizeT="1">'
        f'<TiffData IFD="0" PlaneCount="1"><UUID FileName="{place.outside}/s.tif">'
        "urn:uuid:00000000-0000-0000-0000-000000000002</UUID></TiffData></Pixels></Image></OME>"
    )
    tifffile.imwrite(place.data / "ome.tif", np.zeros((4, 4), "u1"), description=described, metadata=None)
    answer = place.ask(place.register(TIFF_SERIES, [place.data / "ome.tif"]))
    assert (answer.status_code, answer.content) == (200, b"\0" * 16)


@pytest.mark.parametrize("template", ["%800000000d", "%.800000000d", "%-800000000i", "%d%800000000x", "%%%0800000000d"])
def test_wide_templates(place, template):
    """A field wider than any path is refused before it is filled in."""
    series = {"mimetype": TIFF_SERIES, "templates": [template], "frames_per_event": 1, "rows": [[0, 0, 1, 1]]}
    kwargs = {"template": f"%s%s{template}", "filename": "x", "frame_per_point": 1}
    handled = {"spec": "AD_TIFF", "resource_kwargs": kwargs, "datum_kwargs": [{"point_number": 0}]}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for mimetype, parameters in ((FILE_SERIES, series), (HANDLED, handled)):
        key = place.register(mimetype, [place.data], parameters, is_directory=True)
        answer = place.ask(key)
        assert 400 <= answer.status_code < 500
        assert len(answer.content) < 10_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * MEGABYTES


def test_rows_without_end(place):
    """An array that claims more rows than anybody could be sent is answered at once."""
    key = place.register(
        HDF5_ROWS, [place.data / "good.h5"], {**ROWS, "rows": [[0, 0, 10**12, 0]]}, shape=(10**12, 4, 4)
    )
    begun = time.monotonic()
    assert place.ask(key, by_tiled=True).status_code == 400
    assert place.ask(key, "?slice=7", by_tiled=True).content == b"\1" * 16
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    "asked", [" 0", "+0", "0_0", "(0)", "0:0", "::0", "1:", "0,0:0", "0,::-1", "5", "0:1:1:1", "..."]
)
def test_slices(place, asked):
    """The short way answers as Tiled does, or better where Tiled has no answer; it is never the server's fault."""
    quoted = {"slice": asked}
    mine, tileds = (place.ask(place.good, "?" + str(httpx.QueryParams(quoted)), by_tiled=by) for by in (False, True))
    assert mine.status_code < 500
    # Tiled cannot write down that there are no bytes.
    empty = asked in ("0:0", "1:", "0,0:0")
    assert (mine.status_code, mine.content) == ((200, b"") if empty else (tileds.status_code, tileds.content))


FRAMES = {"dataset": "d", "frames_per_event": 1, "rows": [[0, 0, 3, 1]]}
SERIES = {"mimetype": TIFF_SERIES, "templates": ["f_%d.tif"], "frames_per_event": 1, "rows": [[0, 0, 3, 1]]}
HANDLERS = {"spec": "AD_HDF5", "resource_kwargs": {"frame_per_point": 1}, "datum_kwargs": [{"point_number": 0}] * 3}
WRONG = {
    "dataset": [None, 5, "", "group", "text", "fields", "empty", "number", "none", "/", "..", ["d"], "d\0", "a" * 9999],
    "rows": [None, 5, "x", [], [[]], [[0, 0, 3]], [[0, -1, 3, 1]], [["0", 0, 3, 1]], [[9, 0, 3, 1]], [[0, 2, 3, -1]]],
    "frames_per_event": [None, 0, -1, 2, 1.5, "1", True],
    "slice": [None, 5, "0", "x", "0:1", "...,...", "0,0,0,0,0", ":,:,::0", ":,:,5"],
    "swmr": [None, 5, "no", []],
    "templates": [None, 5, [], [5], ["f.tif"], ["%s"], ["%d%d"], ["../%d"], ["%d\0"], ["%(a)d"], ["%"]],
    "mimetype": [None, 5, "x/y", HDF5, JPEG_SERIES],
    "spec": [None, 5, "nobody", []],
    "resource_kwargs": [None, 5, [], {"foo": 1}, {"frame_per_point": "x"}, {"frame_per_point": -1}],
    "datum_kwargs": [None, 5, [], [5], [{}] * 3, [{"point_number": -1}] * 3, [{"foo": 1}] * 3, [{"point_number": "x"}]],
}


@pytest.mark.parametrize(
    ("mimetype", "right"),
    [(HDF5_ROWS, FRAMES), (FILE_SERIES, SERIES), (HANDLED, HANDLERS)],
    ids=["rows", "series", "h"],
)
def test_registrations_that_are_wrong(place, mimetype, right):
    """Whatever is registered, it is never the server that failed, and nobody waits."""
    with h5py.File(place.data / "all.h5", "w") as file:
        file["d"] = file["entry/data/data"] = np.ones((3, 4, 4), "u1")
        file["text"], file["fields"] = np.array([b"a"] * 3), np.zeros(3, [("a", "u1")])
        file["empty"], file["number"] = h5py.Empty("u1"), 5
        file.create_group("group")
    for number in range(3):
        tifffile.imwrite(place.data / f"f_{number}.tif", np.ones((4, 4), "u1"))
    is_series = mimetype == FILE_SERIES
    paths = [place.data if is_series else place.data / "all.h5"]
    wrong = [({**right, name: value}, (3, 4, 4)) for name in right for value in WRONG[name]]
    wrong += [({**right, "unknown": 1}, (3, 4, 4))]
    wrong += [(right, shape) for shape in ((3,), (3, 4, 5), (2, 4, 4), (0, 4, 4), (1,) * 40)]
    failed = []
    for parameters, shape in wrong:
        try:
            key = place.register(mimetype, paths, parameters, shape, is_directory=is_series)
        except ClientError:
            continue
        failed += [(parameters, shape)] * (place.ask(key, "?slice=0").status_code >= 500)
    assert failed == []
    key = place.register(mimetype, paths, right, (3, 4, 4), is_directory=is_series)
    assert place.ask(key).content == b"\1" * 48


def test_directory_that_is_swapped(tmp_path):
    """Whatever becomes a link between two looks, nothing is opened but what lies beneath the roots."""
    inside, link, outside = tmp_path / "data" / "real", tmp_path / "data" / "link", tmp_path / "outside"
    for directory, value in ((inside, 1), (outside, 0x53)):
        directory.mkdir(parents=True)
        (directory / "f").write_bytes(bytes([value]))
    link.symlink_to(outside)
    roots = Roots.of([tmp_path / "data"])
    exchange, ended = ctypes.CDLL(None).renameat2, threading.Event()

    def swap():
        while not ended.is_set():
            exchange(-100, os.fsencode(inside), -100, os.fsencode(link), 2)

    swapping = threading.Thread(target=swap)
    swapping.start()
    seen = set()
    try:
        for _ in range(3000):
            try:
                with roots.opened(str(inside / "f")) as descriptor:
                    seen.add(os.read(descriptor, 1))
            except OSError as error:
                seen.add(type(error).__name__)
    finally:
        ended.set()
        swapping.join()
    assert b"\1" in seen
    assert b"S" not in seen
