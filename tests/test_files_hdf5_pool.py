"""Files that are kept open, and whoever wants to write to them meanwhile."""

import subprocess
import sys
import time

import h5py
import hdf5plugin
import numpy as np
import pytest

from bluesky_filestore.files import hdf5_pool
from bluesky_filestore.files.hdf5 import HDF5Files

FRAMES = np.random.default_rng(0).integers(0, 60000, (6, 16, 8), dtype="u2")
PACKED = {"data": FRAMES, "chunks": (1, 16, 8), "compression": "gzip"}


@pytest.fixture
def files():
    """A pool of its own."""
    with HDF5Files() as pool:
        yield pool


def _plain(path):
    with h5py.File(path, "w") as file:
        file["d"] = FRAMES


def _gzip(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("d", **PACKED)


def _lz4_of_newer_format(path):
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("d", data=FRAMES, chunks=(1, 16, 8), **hdf5plugin.LZ4())


def _written_with_swmr(path):
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("d", **PACKED)
        file.swmr_mode = True


def _behind_a_user_block(path):
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_dataset("d", **PACKED)


def _linked(path):
    other = path.with_name("other.h5")
    _gzip(other)
    with h5py.File(path, "w") as file:
        file["d"] = h5py.ExternalLink(other.name, "d")


def _virtual(path):
    other = path.with_name("other.h5")
    _gzip(other)
    layout = h5py.VirtualLayout(FRAMES.shape, "u2")
    layout[:] = h5py.VirtualSource(other.name, "d", FRAMES.shape)
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("d", layout)


KINDS = [_plain, _gzip, _lz4_of_newer_format, _written_with_swmr, _behind_a_user_block, _linked, _virtual]


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("mode", ["r+", "a", "w"])
def test_written_to_by_who_has_read_it(files, tmp_path, make, mode):
    """A file that was read is free for whoever wants to write to it, in this process, and is read anew then."""
    make(tmp_path / "a.h5")
    path = str(tmp_path / "a.h5")
    assert (files.read(path, "d", range(6)) == FRAMES).all()
    for each in tmp_path.iterdir():
        with h5py.File(each, mode) as file:
            for name in list(file):
                del file[name]
            file.create_dataset("d", **{**PACKED, "data": FRAMES[::-1]})
    assert (files.read(path, "d", [0, 5, 1]) == FRAMES[[5, 0, 4]]).all()


@pytest.mark.parametrize("swmr", [True, False])
def test_what_is_written_to_here_is_not_kept(files, tmp_path, swmr):
    """A file that this process is writing is read, and is closed, and no longer marked or locked, when it closes it."""
    path = str(tmp_path / "a.h5")
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("d", **PACKED)
        file.flush()
        if swmr:
            file.swmr_mode = True
        assert (files.read(path, "d", [3], swmr=swmr) == FRAMES[3]).all()
    assert len(files) == 0
    with h5py.File(path, "a") as file:
        file["e"] = [1]
    assert (files.read(path, "d", [4]) == FRAMES[4]).all()


WRITER = """
import h5py, sys
with h5py.File(sys.argv[1], "w", libver="latest") as file:
    file.create_dataset("d", data=[[1, 2], [3, 4]], chunks=(1, 2), compression="gzip")
    file.swmr_mode = True
    print("open", flush=True)
    sys.stdin.read()
"""


def test_what_grew_is_closed_soon(files, tmp_path, monkeypatch):
    """A file that another process writes in SWMR mode stays open only for as long as somebody reads it."""
    monkeypatch.setattr(hdf5_pool, "_IDLE_SECONDS", 0.2)
    path = str(tmp_path / "a.h5")
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout.readline() == "open\n"
        for _ in range(5):
            assert files.read(path, "d", [1], swmr=True).tolist() == [[3, 4]]
        assert len(files) == 1
    deadline = time.monotonic() + 30
    while len(files) and time.monotonic() < deadline:
        time.sleep(0.01)
    with h5py.File(path, "a") as file:
        file["e"] = [1]
