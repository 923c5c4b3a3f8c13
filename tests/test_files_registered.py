"""What a data source says of its frames; what they are, the tests of the adapters and of open_array show."""

import h5py
import numpy as np
import pytest

from bluesky_filestore.errors import AddressError, MissingFileError, TruncatedFileError, UnreadableFileError
from bluesky_filestore.files.array_in_files import ArrayInFiles
from bluesky_filestore.files.hdf5 import HDF5Files
from bluesky_filestore.files.readable import ANYWHERE
from bluesky_filestore.files.registered import Registered, checked_dtype, frames_of, joined_datasets
from bluesky_filestore.model.specs import HDF5

FRAMES = np.arange(6 * 4 * 5, dtype="u2").reshape(6, 4, 5)


def registered(path, shape=FRAMES.shape, mimetype=HDF5, **parameters):
    """An array of one file."""
    return Registered(mimetype, {"dataset": "d", **parameters}, {}, [str(path)], shape, FRAMES.dtype)


@pytest.fixture
def path(tmp_path):
    """A file with all the frames."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["d"] = FRAMES
    return tmp_path / "a.h5"


def test_what_nothing_reads(path):
    """A mimetype, or a slice, that means nothing to us is refused by name."""
    with pytest.raises(AddressError, match=r"files of type 'image/x-raw' are not among those .*; expected one of"):
        frames_of(registered(path, mimetype="image/x-raw"))
    with pytest.raises(AddressError, match=r"slice is \[0, 3\]; expected words"):
        frames_of(registered(path, slice=[0, 3]))


def test_dtype_that_loses_nothing():
    """Numbers are given in the registered dtype where that keeps them."""
    assert checked_dtype(FRAMES, np.dtype(">u4")).dtype == ">u4"
    assert checked_dtype(FRAMES, FRAMES.dtype) is FRAMES
    with pytest.raises(UnreadableFileError, match=r"the files hold uint16; expected int16"):
        checked_dtype(FRAMES, np.dtype("i2"))


@pytest.mark.parametrize(
    ("text", "frames"), [("", range(8)), ("0:8", range(8)), ("1:9:2", range(1, 9, 2)), ("7:3:-1", range(7, 3, -1))]
)
@pytest.mark.parametrize("inner", ["", "1:3"])
def test_frames_so_far(path, text, frames, inner):
    """Of a file with too few frames, those that are there have their right places, and others are named."""
    expected = FRAMES[:, 1:3] if inner else FRAMES
    array = ArrayInFiles(registered(path, (len(frames), *expected.shape[1:]), slice=f"{text or ':'},{inner or ':'}"))
    for place, frame in enumerate(frames):
        if frame < len(FRAMES):
            np.testing.assert_array_equal(array.read(place), expected[frame])
        else:
            with pytest.raises(TruncatedFileError, match=rf"a.h5 holds 6 frames .*; frame {frame} "):
                array.read(place)


@pytest.mark.parametrize(("text", "shape"), [("-8:", (8, 4, 5)), ("::-1", (8, 4, 5)), ("", (4, 2, 4, 6))])
def test_frames_that_cannot_be_told(path, text, shape):
    """Frames that are counted from an end that is not there are not guessed."""
    joined = joined_datasets(registered(path, shape, slice=text), HDF5Files(), ANYWHERE)
    assert joined.frames_so_far() is None
    with pytest.raises(UnreadableFileError, match=r"frames? to give|to give; expected"):
        ArrayInFiles(registered(path, shape, slice=text)).read(0)


def test_first_file_missing(tmp_path):
    """Without the first file nothing is known."""
    with pytest.raises(MissingFileError, match=r"gone.h5 is not there"):
        ArrayInFiles(registered(tmp_path / "gone.h5")).check_reach()
