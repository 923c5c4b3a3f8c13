"""Virtual datasets of whatever can be registered: what they show is what is read straight from the files."""

import os
import subprocess
import sys

import h5py
import hdf5plugin
import numpy as np
import pytest

from bluesky_filestore.errors import AddressError
from bluesky_filestore.files.array_in_files import ArrayInFiles
from bluesky_filestore.files.hdf5 import HDF5Files, shared_files
from bluesky_filestore.files.hdf5_views import view_of
from bluesky_filestore.files.nexus import Group, Shown, write_nexus
from bluesky_filestore.files.registered import Registered, frames_of
from bluesky_filestore.model.addressing import FILE_SERIES, HDF5_ROWS, FileSeries, HDF5Rows, RowSpan
from bluesky_filestore.model.specs import HDF5, TIFF_SERIES

DATASET = "/entry/data/data"
VALUES = [np.random.default_rng(place).integers(0, 60000, (7 + place, 4, 6), "u2") for place in range(3)]


@pytest.fixture
def paths(tmp_path):
    """Three files of 7, 8 and 9 frames, and a series of a file for each frame of the first."""
    for place, values in enumerate(VALUES):
        with h5py.File(tmp_path / f"{place}.h5", "w") as file:
            file[DATASET] = values
    for number, values in enumerate(VALUES[0]):
        with h5py.File(tmp_path / f"one_{number:03d}.h5", "w") as file:
            file[DATASET] = values[np.newaxis]
    return [str(tmp_path / f"{place}.h5") for place in range(3)]


def shown(registered, directory):
    """What plain h5py reads through a file that shows an array, and the view."""
    array = ArrayInFiles(registered, frames_of)
    with HDF5Files() as files:
        view = view_of(array, files)
    write_nexus(directory / "view.h5", Group("NXentry", {"data": Shown(view)}))
    shared_files().close()
    with h5py.File(directory / "view.h5", "r") as file:
        return file["entry/data"][...], view


def joined(text, shape, **more):
    """Whole files joined, and a slice of that."""
    return HDF5, {"dataset": DATASET, "slice": text, **more}, shape


def rows(spans, frames, shape, text=""):
    """Rows anywhere."""
    return HDF5_ROWS, HDF5Rows(DATASET, frames, tuple(RowSpan(*span) for span in spans), text).to_parameters(), shape


def series(spans, frames, shape):
    """A file for each frame."""
    made = tuple(RowSpan(*span) for span in spans)
    return FILE_SERIES, FileSeries(HDF5, ("one_%03d.h5",), frames, made, DATASET).to_parameters(), shape


WAYS = {
    "all": joined("", (24, 4, 6)),
    "every third": joined("1:24:3", (8, 4, 6)),
    "backwards": joined("20:2:-2", (9, 4, 6)),
    "events across files": joined("", (8, 3, 4, 6)),
    "an axis of one": joined("2:22", (20, 1, 4, 6)),
    "frames joined": joined("0:6", (3, 8, 6)),
    "part of each": joined(":,1:3,0:6:2", (24, 2, 3)),
    "line of each": joined(":,2,:", (24, 6)),
    "one element": joined(":,2,-1", (24,)),
    "spans": rows([(0, 5, 2, 1), (2, 0, 3, 3), (1, 7, 3, -2), (0, 3, 3, 0)], 1, (11, 1, 4, 6)),
    "spans of events": rows([(0, 4, 2, -2), (1, 0, 3, 1)], 2, (5, 2, 4, 6)),
    "spans of parts": rows([(2, 8, 1, 1), (0, 0, 2, 3)], 1, (3, 4), ":,1"),
    "series": series([(0, 6, 3, -2), (0, 0, 2, 1)], 1, (5, 1, 4, 6)),
    "series of events": series([(0, 4, 2, -1)], 2, (2, 2, 4, 6)),
}


@pytest.mark.parametrize("way", WAYS)
def test_any_rows(paths, tmp_path, way):
    """Whatever is registered, each row of the virtual dataset is that of the array."""
    mimetype, parameters, shape = WAYS[way]
    assets = [str(tmp_path)] if mimetype == FILE_SERIES else paths
    registered = Registered(mimetype, parameters, {}, assets, shape, np.dtype("u2"))
    found, view = shown(registered, tmp_path)
    np.testing.assert_array_equal(found, ArrayInFiles(registered, frames_of).read(...), strict=True)
    assert view.missing == {}


@pytest.mark.parametrize(
    ("way", "words"),
    [
        (joined(":,::-1,:", (24, 4, 6)), "cannot say"),
        (joined("", (8, 12, 6)), "no axis of their own"),
        (joined("3:4", (4, 6), squeeze=True), "4 rows are not made of 1 frames"),
        ((TIFF_SERIES, {}, (2, 4, 6)), "in no HDF5 files"),
    ],
)
def test_what_no_virtual_dataset_can_say(paths, tmp_path, way, words):
    """What HDF5 has no words for is refused, never shown otherwise."""
    registered = Registered(way[0], way[1], {}, paths[: 3 - (way[0] == TIFF_SERIES)], way[2], np.dtype("u2"))
    with pytest.raises(AddressError, match=words):
        shown(registered, tmp_path)


def test_packed_frames(tmp_path):
    """Frames that need a plugin are errors where it is not, and the view says which; never the fill value."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset(DATASET, data=VALUES[0], chunks=(1, 4, 6), **hdf5plugin.Bitshuffle())
    registered = Registered(HDF5, {"dataset": DATASET}, {}, [str(tmp_path / "a.h5")], (7, 4, 6), np.dtype("u2"))
    found, view = shown(registered, tmp_path)
    np.testing.assert_array_equal(found, VALUES[0])
    assert view.filters == (32008,)
    code = f"import h5py; print(h5py.File({str(tmp_path / 'view.h5')!r})['entry/data'][0])"
    bare = {**os.environ, "HDF5_PLUGIN_PATH": str(tmp_path)}
    alone = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=bare)
    assert alone.returncode == 1, alone.stdout
    assert "plugin" in alone.stderr
