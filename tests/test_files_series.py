"""Frames that are a file each: TIFF, NPY, JPEG and HDF5."""

import os
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from bluesky_filestore.errors import (
    AddressError,
    ForbiddenFileError,
    MissingFileError,
    TruncatedFileError,
    UnreadableFileError,
)
from bluesky_filestore.files import tiff
from bluesky_filestore.files.hdf5 import HDF5Files
from bluesky_filestore.files.readable import ANYWHERE, Roots
from bluesky_filestore.files.registered import Registered, frames_of
from bluesky_filestore.files.series import FrameFiles, file_reader, frame_shape_of
from bluesky_filestore.model.specs import HDF5, JPEG_SERIES, NPY_SERIES, TIFF_SERIES

RNG = np.random.default_rng(0)
FRAME = RNG.integers(0, 60000, (24, 40), dtype="u2")

PLAIN = {
    "as tifffile does": (FRAME, {}),
    "with a description": (FRAME, {"description": "frame 1 of 2", "metadata": None}),
    "big-endian": (FRAME, {"byteorder": ">"}),
    "signed": (FRAME.astype("i4"), {}),
    "float": (FRAME.astype("f8"), {}),
    "bytes": (FRAME.astype("u1"), {}),
    "colours": (RNG.integers(0, 255, (24, 40, 3), dtype="u1"), {"photometric": "rgb"}),
    "in strips": (FRAME, {"rowsperstrip": 5}),
    "min is white": (FRAME, {"photometric": "miniswhite"}),
}
OTHER = {
    "packed": (FRAME, {"compression": "zlib"}),
    "packed in strips": (FRAME, {"compression": "zlib", "rowsperstrip": 5}),
    "packed big-endian colours": (
        RNG.integers(0, 60000, (24, 40, 3), dtype="u2"),
        {"compression": "zlib", "rowsperstrip": 7, "byteorder": ">", "photometric": "rgb"},
    ),
    "packed with the old number": (FRAME, {"compression": 32946}),
    "packed in tiles": (FRAME, {"compression": "zlib", "tile": (16, 16)}),
    "with predictor": (FRAME, {"compression": "zlib", "predictor": True}),
    "in tiles": (FRAME, {"tile": (16, 16)}),
    "BigTIFF": (FRAME, {"bigtiff": True}),
    "pages": (np.stack([FRAME, FRAME]), {}),
    "colour planes": (RNG.integers(0, 255, (3, 24, 40), dtype="u1"), {"photometric": "rgb", "planarconfig": 2}),
    "bilevel": (FRAME > 30000, {}),
    "pages behind one entry": (np.stack([FRAME, FRAME]), {"truncate": True}),
    "ImageJ": (FRAME, {"imagej": True}),
}


@pytest.mark.parametrize("name", [*PLAIN, *OTHER])
def test_tiff_as_tifffile_reads_it(tmp_path, name):
    """Whatever the layout, the pixels are those that tifffile reads; plain ones are read by their place."""
    values, options = (PLAIN | OTHER)[name]
    path = str(tmp_path / "a.tiff")
    tifffile.imwrite(path, values, **options)
    with ANYWHERE.opened(path) as descriptor:
        found = tiff.read_tiff(descriptor, path)
        pixels = tiff.plain_pixels(descriptor)
        assert (pixels is not None) == (name not in OTHER)
    expected = tifffile.imread(path)
    assert (found.dtype.newbyteorder("="), found.shape) == (expected.dtype, expected.shape)
    assert (found == expected).all()


@pytest.mark.parametrize("cut", [4, 100, 1000, -1])
def test_tiff_cut_short(tmp_path, cut):
    """A file that was cut short anywhere is not read."""
    path = tmp_path / "a.tiff"
    tifffile.imwrite(path, FRAME)
    os.truncate(path, cut if cut > 0 else path.stat().st_size + cut)
    read = file_reader(TIFF_SERIES, "", hdf5=HDF5Files())
    with pytest.raises(UnreadableFileError, match=r"a.tiff"):
        read(str(path), {}, None)


def test_packed_otherwise_than_it_says(tmp_path):
    """Of strips that do not hold what they should the error is ours."""
    path = tmp_path / "a.tiff"
    tifffile.imwrite(path, FRAME, compression="zlib", rowsperstrip=24)
    read = file_reader(TIFF_SERIES, "", hdf5=HDF5Files())
    with tifffile.TiffFile(path) as file:
        offset = file.pages[0].dataoffsets[0]
    data = bytearray(path.read_bytes())
    data[offset + 20 : offset + 40] = bytes(20)
    path.write_bytes(data)
    with pytest.raises(UnreadableFileError, match=r"a.tiff cannot be read: its pixels cannot be unpacked"):
        read(str(path), {}, None)
    few = zlib.compress(FRAME[:3].tobytes())
    data[offset : offset + len(few)] = few
    path.write_bytes(data)
    with pytest.raises(UnreadableFileError, match=r"a.tiff cannot be read: .*corrupted strip"):
        read(str(path), {}, None)


def series(directory, mimetype, count=5, **options):
    """Files of a type with frames of their number, and how they are read."""
    suffix = {TIFF_SERIES: "tiff", NPY_SERIES: "npy", JPEG_SERIES: "jpg", HDF5: "h5"}[mimetype]
    values = [np.full((24, 40), 10 * number, dtype="u1") for number in range(count)]
    for number, value in enumerate(values):
        path = directory / f"{number}.{suffix}"
        if mimetype == TIFF_SERIES:
            tifffile.imwrite(path, value)
        elif mimetype == NPY_SERIES:
            np.save(path, value)
        elif mimetype == JPEG_SERIES:
            Image.fromarray(value).save(path)
        else:
            with h5py.File(path, "w") as file:
                file["entry/data"] = value[np.newaxis]
    read = file_reader(mimetype, "entry/data", hdf5=HDF5Files(), **options)
    return FrameFiles(lambda n: f"{directory}/{n}.{suffix}", count, (24, 40), np.dtype("u1"), read)


@pytest.mark.parametrize("mimetype", [TIFF_SERIES, NPY_SERIES, JPEG_SERIES, HDF5])
def test_series_of_each_type(tmp_path, mimetype):
    """Frames come in the order asked for, whole or in part."""
    frames = series(tmp_path, mimetype, roots=Roots.of([tmp_path]))
    assert frames.read([4, 0, 2])[:, 0, 0].tolist() == [40, 0, 20]
    assert frames.read(range(1, 5, 2), (slice(0, 3), 7)).tolist() == [[10] * 3, [30] * 3]
    assert frames.read(range(0)).shape == (0, 24, 40)


@pytest.mark.parametrize("mimetype", [TIFF_SERIES, NPY_SERIES, JPEG_SERIES, HDF5])
def test_what_cannot_be_read(tmp_path, mimetype):
    """Missing and broken files are named, in whatever format."""
    frames = series(tmp_path, mimetype)
    first, second, third = (frames.path_of(number) for number in (1, 2, 3))
    Path(first).unlink()
    with pytest.raises(MissingFileError, match=rf"{first} is not there"):
        frames.read([1])
    os.truncate(second, 0)
    with pytest.raises(UnreadableFileError, match=rf"{second}"):
        frames.read([2])
    os.truncate(third, 60)
    with pytest.raises(UnreadableFileError, match=rf"{third}"):
        frames.read([3])


def test_frame_of_another_size(tmp_path):
    """A file of another size, or of numbers that would be cut, is not taken for a frame of the series."""
    frames = series(tmp_path, TIFF_SERIES)
    tifffile.imwrite(tmp_path / "2.tiff", np.zeros((24, 41), "u1"))
    with pytest.raises(UnreadableFileError, match=r"2.tiff holds a frame of shape \[24, 41\]; expected \[24, 40\]"):
        frames.read(range(5))
    tifffile.imwrite(tmp_path / "2.tiff", np.zeros((40, 24), "u1"))
    with pytest.raises(UnreadableFileError, match=r"shape \[40, 24\]"):
        frames.read([2])
    tifffile.imwrite(tmp_path / "2.tiff", np.zeros((24, 40), "u2"))
    with pytest.raises(UnreadableFileError, match=r"2.tiff holds uint16 for frame 2; expected uint8"):
        frames.read([2])


def test_links_that_lead_out(tmp_path):
    """A link to a file below the roots is followed, one that leads out is not, nor is one of a directory."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    frames = series(inside, TIFF_SERIES, roots=Roots.of([inside]))
    tifffile.imwrite(outside / "9.tiff", np.full((24, 40), 90, "u1"))
    (inside / "1.tiff").unlink()
    (inside / "1.tiff").symlink_to(inside / "2.tiff")
    assert frames.read([1])[0, 0, 0] == 20
    (inside / "1.tiff").unlink()
    (inside / "1.tiff").symlink_to(outside / "9.tiff")
    with pytest.raises(ForbiddenFileError, match=r"1.tiff, which is .*9.tiff, is outside the directories"):
        frames.read([1])
    (inside / "door").symlink_to(outside)
    out = FrameFiles(lambda n: f"{inside}/door/9.tiff", 1, (24, 40), np.dtype("u1"), frames.read_file)
    with pytest.raises(ForbiddenFileError, match=r"outside the directories"):
        out.read([0])


@pytest.mark.parametrize("name", ["file", "link", "away/file", "nothing", "link to nothing", "pipe", "file (deleted)"])
def test_real_path(tmp_path, name):
    """A path is admitted as it is without links, whatever is there, and nothing is opened for that."""
    (tmp_path / "real").mkdir()
    (tmp_path / "away").symlink_to("real")
    for file in ("file", "file (deleted)", "real/file"):
        (tmp_path / file).touch()
    (tmp_path / "link").symlink_to("real/file")
    (tmp_path / "link to nothing").symlink_to("real/nothing")
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / name
    assert Roots.of([tmp_path]).admit(str(path)) == str(path.resolve())
    with pytest.raises(ForbiddenFileError, match=r"is outside the directories that may be read"):
        Roots.of([tmp_path / "elsewhere"]).admit(str(path))


def test_what_is_no_file(tmp_path):
    """A pipe or a directory in the place of a file neither hangs nor is read."""
    frames = series(tmp_path, NPY_SERIES)
    for number in (0, 1):
        (tmp_path / f"{number}.npy").unlink()
    os.mkfifo(tmp_path / "0.npy")
    (tmp_path / "1.npy").mkdir()
    for number in (0, 1):
        with pytest.raises(UnreadableFileError, match=rf"{number}.npy is not a file"):
            frames.read([number])


@pytest.mark.parametrize("kept", [0, 1, 60, 0.3, 0.7, -100, -1])
@pytest.mark.parametrize("mimetype", [TIFF_SERIES, NPY_SERIES, JPEG_SERIES])
def test_files_cut_short(tmp_path, mimetype, kept):
    """Whatever is missing of a file, no pixels are made up for it."""
    frames = series(tmp_path, mimetype)
    path = Path(frames.path_of(3))
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(UnreadableFileError, match=f"frame 3 .*file {path}"):
        frames.read(range(5))


def test_several_arrays_in_a_file(tmp_path):
    """A file of numpy's npz under the name of a frame is refused."""
    frames = series(tmp_path, NPY_SERIES)
    with Path(frames.path_of(3)).open("wb") as file:
        np.savez(file, FRAME)
    with pytest.raises(UnreadableFileError, match="holds several arrays"):
        frames.read([3])


def test_pickled_objects_are_not_loaded(tmp_path):
    """A NPY file that would run code is refused."""
    frames = series(tmp_path, NPY_SERIES)
    np.save(tmp_path / "0.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(UnreadableFileError, match=r"0.npy holds objects of Python's, which are not loaded"):
        frames.read([0])


def test_unknown_type():
    """A type that nobody reads is named beside those that are known."""
    with pytest.raises(AddressError, match=r"no reader for files of type 'image/gif'; expected one of"):
        file_reader("image/gif", "", hdf5=HDF5Files())


def test_shape_of_a_frame():
    """An array's axes are taken apart where the events end; what does not go up is refused."""
    assert frame_shape_of((10, 1, 24, 40), 10) == (24, 40)
    assert frame_shape_of((5, 48, 40), 10) == (960,)
    with pytest.raises(AddressError, match=r"shape \[10, 24\] is not made of 7 frames"):
        frame_shape_of((10, 24), 7)


def test_one_file_many_names(tmp_path):
    """Truncation says how much is there."""
    frames = series(tmp_path, TIFF_SERIES)
    path = tmp_path / "0.tiff"
    with ANYWHERE.opened(str(path)) as descriptor:
        offset = tiff.plain_pixels(descriptor).offset
    os.truncate(path, offset + 100)
    with pytest.raises(TruncatedFileError, match=rf"0.tiff ends after {offset + 100} bytes"):
        frames.read([0])


def test_truths_are_no_numbers(tmp_path):
    """A TIFF file that has lost the number of its bits is black and white to tifffile, and no array of numbers."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.arange(24, dtype="u2").reshape(4, 6) * 999)
    with tifffile.TiffFile(path) as file:
        place = file.pages.first.tags["BitsPerSample"].offset
    data = bytearray(path.read_bytes())
    data[place : place + 2] = b"\xff\xff"
    path.write_bytes(data)
    frames = frames_of(Registered(TIFF_SERIES, {}, {}, [str(path)], (1, 4, 6), np.dtype("<u2")))()
    with pytest.raises(UnreadableFileError, match=r"holds bool for frame 0; expected uint16"):
        frames.read([0])
