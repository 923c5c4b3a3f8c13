"""The files are laid out as the real IOC lays them out."""

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from bluesky_filestore.sim import pattern
from bluesky_filestore.sim.file_formats import JpegFile, TiffFile
from bluesky_filestore.sim.frame import COLOR_MODES, DATA_TYPES, Frame, FrameMismatchError
from bluesky_filestore.sim.hdf5_file import Hdf5File, Hdf5Options

TIME = 631152000.0 + 1000.25
"""A quarter of a second after 1000 s of EPICS time."""

SHAPES = {"Mono": (6, 8), "RGB1": (6, 8, 3), "RGB2": (6, 3, 8), "RGB3": (3, 6, 8)}


def make_frame(number: int, dtype: str = "uint8", mode: str = "Mono") -> Frame:
    """The camera's frame with this number."""
    return Frame(pattern.frame(number, SHAPES[mode], dtype), number, TIME, COLOR_MODES.index(mode))


def write_hdf5(path: Path, frames: list[Frame], options: Hdf5Options | None = None, *, stream: bool = True) -> None:
    """A whole file."""
    file = Hdf5File(path, frames[0], options or Hdf5Options(), stream=stream)
    for frame in frames:
        file.write(frame)
    file.close()


@pytest.mark.parametrize("mode", SHAPES)
@pytest.mark.parametrize("dtype", DATA_TYPES)
def test_hdf5_stream(tmp_path: Path, dtype: str, mode: str) -> None:
    """Frames come back bit for bit, one frame a chunk, in a data set that can grow."""
    write_hdf5(tmp_path / "a.h5", [make_frame(n, dtype, mode) for n in (5, 6, 7)])
    with h5py.File(tmp_path / "a.h5") as file:
        data = file["entry/data/data"]
        assert data.chunks == (1, *SHAPES[mode])
        assert data.maxshape == (None, *SHAPES[mode])
        assert [pattern.number(frame) for frame in data] == [5, 6, 7]
        np.testing.assert_array_equal(data[1], pattern.frame(6, SHAPES[mode], dtype))


def test_hdf5_layout(tmp_path: Path) -> None:
    """The groups, attributes and per-frame data sets are those of the default layout."""
    write_hdf5(tmp_path / "a.h5", [make_frame(n) for n in (5, 6, 7)])
    with h5py.File(tmp_path / "a.h5") as file:
        attributes = dict(file["entry/data/data"].attrs)
        assert (attributes["signal"], attributes["NDArrayNumDims"]) == (1, 2)
        assert {name for name in attributes if name.startswith("NDArrayDim")} == {
            "NDArrayDimOffset",
            "NDArrayDimBinning",
            "NDArrayDimReverse",
        }
        assert file["entry/data/data"] == file["entry/instrument/detector/data"]
        times = file["entry/instrument/NDAttributes"]
        assert list(times["NDArrayUniqueId"]) == [5, 6, 7]
        assert list(times["NDArrayTimeStamp"]) == [1000.25] * 3
        assert list(times["NDArrayEpicsTSSec"]) == [1000] * 3
        assert list(times["NDArrayEpicsTSnSec"]) == [250_000_000] * 3
        assert list(file["entry/instrument/detector/NDAttributes/ColorMode"]) == [0, 0, 0]
        assert file["entry/instrument/performance/timestamp"].shape == (3, 5)


def test_hdf5_single(tmp_path: Path) -> None:
    """In Single mode there is no frame axis."""
    write_hdf5(tmp_path / "a.h5", [make_frame(5)], stream=False)
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["entry/data/data"][:], pattern.frame(5, (6, 8), "uint8"))
        assert list(file["entry/instrument/NDAttributes/NDArrayUniqueId"]) == [5]


def test_hdf5_without_frames(tmp_path: Path) -> None:
    """A file that no frame reached holds one frame of zeros, and no word about any frame."""
    Hdf5File(tmp_path / "a.h5", make_frame(5), Hdf5Options(), stream=True).close()
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["entry/data/data"][:], np.zeros((1, 6, 8), np.uint8))
        assert file["entry/instrument/NDAttributes/NDArrayUniqueId"].shape == (0,)


@pytest.mark.parametrize("compression", ["zlib", "Blosc", "BSLZ4", "LZ4"])
def test_hdf5_compression(tmp_path: Path, compression: str) -> None:
    """Compressed frames come back bit for bit, in chunks of as many frames as was asked for."""
    frames = [make_frame(n) for n in range(5)]
    write_hdf5(tmp_path / "a.h5", frames, Hdf5Options(frames_per_chunk=2, compression=compression))
    with h5py.File(tmp_path / "a.h5") as file:
        data = file["entry/data/data"]
        assert data.chunks == (2, 6, 8)
        assert data.id.get_create_plist().get_nfilters() == 1
        np.testing.assert_array_equal(data[:], [frame.array for frame in frames])


def test_hdf5_unknown_compression(tmp_path: Path) -> None:
    """A compression that is not simulated is refused, and the others are named."""
    with pytest.raises(ValueError, match="'szip' is not simulated; choose one of None, zlib, Blosc, BSLZ4, LZ4"):
        Hdf5File(tmp_path / "a.h5", make_frame(1), Hdf5Options(compression="szip"), stream=True)


def test_hdf5_swmr(tmp_path: Path) -> None:
    """In SWMR mode a reader sees each frame while the file is being written."""
    file = Hdf5File(tmp_path / "a.h5", make_frame(1), Hdf5Options(swmr=True), stream=True)
    with h5py.File(tmp_path / "a.h5", "r", swmr=True) as reader:
        for number in (1, 2, 3):
            file.write(make_frame(number))
            reader["entry/data/data"].refresh()
            assert pattern.number(reader["entry/data/data"][number - 1]) == number
    file.close()


def test_hdf5_mismatch(tmp_path: Path) -> None:
    """A frame of another type is refused, and the file keeps what it has."""
    file = Hdf5File(tmp_path / "a.h5", make_frame(1), Hdf5Options(), stream=True)
    with pytest.raises(
        FrameMismatchError, match=re.escape("the frame is (6, 8) uint16, the file was made for (6, 8) uint8")
    ):
        file.write(make_frame(2, "uint16"))
    file.write(make_frame(3))
    file.close()
    with h5py.File(tmp_path / "a.h5") as written:
        assert [pattern.number(frame) for frame in written["entry/data/data"]] == [3]


@pytest.mark.parametrize("mode", list(SHAPES))
@pytest.mark.parametrize("dtype", DATA_TYPES)
def test_tiff(tmp_path: Path, dtype: str, mode: str) -> None:
    """One uncompressed page holds the frame, and private tags what belongs to it."""
    frame = make_frame(70000, dtype, mode)
    TiffFile(tmp_path / "a.tiff").write(frame)
    with tifffile.TiffFile(tmp_path / "a.tiff") as file:
        (page,) = file.pages
        stored = np.moveaxis(frame.array, 1, 0) if mode == "RGB2" else frame.array
        np.testing.assert_array_equal(page.asarray(), stored)
        assert page.compression == 1
        tags = {code: page.tags[code].value for code in (65000, 65001, 65002, 65003, 65010)}
    assert tags == {
        65000: 1000.25,
        65001: 70000,
        65002: 1000,
        65003: 250_000_000,
        65010: f"ColorMode:{frame.color_mode}",
    }


def test_jpeg(tmp_path: Path) -> None:
    """A JPEG has the frame's size; what JPEG can't hold is refused."""
    JpegFile(tmp_path / "a.jpg", 90).write(make_frame(1))
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.size == (8, 6)
    with pytest.raises(FrameMismatchError, match="JPEG holds UInt8, Mono or RGB1; the frame is uint16 Mono"):
        JpegFile(tmp_path / "b.jpg", 90).write(make_frame(1, "uint16"))
