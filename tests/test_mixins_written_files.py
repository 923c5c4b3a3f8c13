"""What the mixins find in the files that a plugin has closed."""

import h5py
import numpy as np
import pytest

from bluesky_filestore.files.hdf5_opening import open_hdf5
from bluesky_filestore.mixins.written_files import broken_file, missing_rows

HELD = [
    {},
    {"locking": False},
    {"libver": "latest", "swmr": True},
    {"libver": "latest", "swmr": True, "locking": False},
]


@pytest.mark.parametrize("options", HELD, ids=str)
def test_held_open(options, tmp_path):
    """A file that this process has open, in whatever way, is looked into and read."""
    path = tmp_path / "held.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("entry/data/data", data=np.ones((4, 3, 2)), chunks=(1, 3, 2), maxshape=(None, 3, 2))
    with h5py.File(path, "r", **options):
        assert missing_rows(path, 4) == ([], "")
        assert missing_rows(path, 5)[0] == [4]
        assert broken_file(path, 0, is_hdf5=True) is None
        for locking in (None, False):
            with open_hdf5(str(path), locking=locking) as file:
                assert file["entry/data/data"].shape == (4, 3, 2)
