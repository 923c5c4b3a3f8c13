"""What a TIFF file has no pixels for is never given as zeros."""

import os
import struct
from contextlib import contextmanager

import numpy as np
import pytest
import tifffile

from bluesky_filestore.errors import TruncatedFileError, UnreadableFileError
from bluesky_filestore.files.tiff import read_tiff
from bluesky_filestore.handlers import handler_registry

PIXELS = np.arange(1, 64 * 48 + 1, dtype=np.uint16).reshape(64, 48)
WRITTEN = {
    "one strip": {},
    "strips": {"rowsperstrip": 16},
    "zlib": {"rowsperstrip": 16, "compression": "zlib"},
    "tiles": {"tile": (16, 16)},
    "tiles of zlib": {"tile": (16, 16), "compression": "zlib"},
    "big-endian": {"rowsperstrip": 16, "byteorder": ">"},
    "predictor": {"rowsperstrip": 16, "compression": "zlib", "predictor": True},
    "BigTIFF": {"rowsperstrip": 16, "bigtiff": True},
}


@contextmanager
def opened(path):
    """A file's descriptor."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def take_out(path, tag, place):
    """Have a strip or tile without its place, or its size."""
    with tifffile.TiffFile(path, mode="r+b") as file:
        entry = file.pages[0].tags[tag]
        values = list(np.atleast_1d(entry.value))
        values[place] = 0
        entry.overwrite([int(value) for value in values] if len(values) > 1 else 0)


def header_only(width, length, strips=1):
    """A TIFF file of 400 bytes whose header speaks of so many pixels and strips."""
    entries = [(256, 4, 1, width), (257, 4, 1, length), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1)]
    entries += [(273, 4, strips, 200), (277, 3, 1, 1), (278, 4, 1, length), (279, 4, strips, 8)]
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + b"\0" * 4 + b"\0" * 280


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((2**31, 2**31), "holds 9,223,372,036,854,775,808 bytes of pixels; expected 4,294,967,296 at most"),
        ((200_000, 2**21), "holds 838,860,800,000 bytes of pixels; expected 4,294,967,296 at most"),
        ((2, 2, 2**32 - 1), "no data for all of its pixels"),
        ((2, 2, 2**20), "no data for all of its pixels"),
    ],
)
def test_header_that_speaks_of_too_much(tmp_path, size, words):
    """No memory is asked for what a file of 400 bytes cannot hold, and the error is that of a file."""
    path = tmp_path / "frame_000.tif"
    path.write_bytes(header_only(*size))
    handler = handler_registry["AD_TIFF"](str(tmp_path), "%s%s_%3.3d.tif", "frame", 1)
    with pytest.raises(UnreadableFileError, match=words):
        handler(0)


@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize("what", ["offsets", "sizes"])
@pytest.mark.parametrize("written", WRITTEN)
def test_without_a_place(tmp_path, written, what, place):
    """It is an error on each way; one strip that says only no size is whole."""
    path = tmp_path / "frame_000.tif"
    tifffile.imwrite(path, PIXELS, metadata=None, **WRITTEN[written])
    with opened(path) as descriptor:
        np.testing.assert_array_equal(read_tiff(descriptor, str(path)), PIXELS)
    tags = (324, 325) if "tile" in written else (273, 279)
    take_out(path, tags[what == "sizes"], place)
    handler = handler_registry["AD_TIFF"](str(tmp_path), "%s%s_%3.3d.tif", "frame", 1)
    with opened(path) as descriptor:
        if (written, what) == ("one strip", "sizes"):
            np.testing.assert_array_equal(read_tiff(descriptor, str(path)), PIXELS)
            return
        with pytest.raises(TruncatedFileError, match="has no data for all of its pixels"):
            read_tiff(descriptor, str(path))
    with pytest.raises(TruncatedFileError, match="has no data for all of its pixels"):
        handler(0)


@pytest.mark.parametrize("written", [written for written in WRITTEN if written != "one strip"])
def test_fewer_strips_than_rows(tmp_path, written):
    """Rows that no strip or tile is for are missing."""
    path = tmp_path / "frame.tif"
    tifffile.imwrite(path, PIXELS, metadata=None, **WRITTEN[written])
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags["ImageLength"].overwrite(80)
    with opened(path) as descriptor, pytest.raises(TruncatedFileError, match="has no data for all of its pixels"):
        read_tiff(descriptor, str(path))
