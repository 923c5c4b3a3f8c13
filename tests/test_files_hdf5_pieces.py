"""Datasets in numbered pieces, as Eigers write them: joined, read while they grow, and refused where one is missing."""

from pathlib import PurePosixPath

import h5py
import numpy as np
import pytest

from bluesky_filestore.errors import ForbiddenFileError, TruncatedFileError, UnreadableFileError
from bluesky_filestore.files.formats import inspect_files, stored_format
from bluesky_filestore.files.hdf5 import HDF5Files
from bluesky_filestore.files.readable import Roots
from bluesky_filestore.handlers.eiger import EigerHandler
from bluesky_filestore.model.addressing import HDF5_ROWS
from bluesky_filestore.model.frame_map import Rows, Source, Span
from bluesky_filestore.model.specs import HDF5
from bluesky_filestore.operations.forms import place
from bluesky_filestore.operations.placement import Placement, Refusal

FRAMES = np.arange(25 * 24, dtype="<u4").reshape(25, 4, 6)


def write_piece(directory, number, frames, seq_id=1):
    """A data file, in the place of the one before it."""
    path = directory / f"scan_{seq_id}_data_{number:06d}.h5"
    path.unlink(missing_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("/entry/data/data", data=frames, chunks=(1, 4, 6), compression="gzip")


def write_eiger(directory, frames=FRAMES, per_file=10, group="/entry/data", seq_id=1, virtual=False):
    """A master file and its data files; the path of the master."""
    master = directory / f"scan_{seq_id}_master.h5"
    count = -(-len(frames) // per_file)
    with h5py.File(master, "w") as file:
        links = file.create_group(group)
        for number in range(1, count + 1):
            name = f"scan_{seq_id}_data_{number:06d}.h5"
            links[f"data_{number:06d}"] = h5py.ExternalLink(name, "/entry/data/data")
            write_piece(directory, number, frames[(number - 1) * per_file : number * per_file], seq_id)
        if virtual:
            layout = h5py.VirtualLayout(frames.shape, frames.dtype)
            layout[: len(frames)] = h5py.VirtualSource("is_not_there.h5", "/entry/data/data", frames.shape)
            file.create_virtual_dataset("/entry/data/data", layout)
    return master


@pytest.mark.parametrize(
    ("group", "dataset"), [("/entry/data", "/entry/data"), ("/entry/data", "/entry/data/data"), ("/entry", "/entry")]
)
def test_joined(tmp_path, group, dataset):
    """By the group, or by the virtual dataset that was never written, each frame and each part of one is there."""
    master = str(write_eiger(tmp_path, group=group))
    with HDF5Files() as files:
        assert files.layout(master, dataset).shape == FRAMES.shape
        np.testing.assert_array_equal(files.read(master, dataset, range(25)), FRAMES)
        np.testing.assert_array_equal(
            files.read(master, dataset, [24, 9, 10], (slice(1, 3),)), FRAMES[[24, 9, 10], 1:3]
        )
        with pytest.raises(TruncatedFileError, match="frame 25 "):
            files.read(master, dataset, [25])
    assert stored_format(HDF5, master, dataset).shape == FRAMES.shape


def test_growing(tmp_path):
    """Pieces that are written one after the other are read as far as they are."""
    master = str(write_eiger(tmp_path))
    (tmp_path / "scan_1_data_000003.h5").unlink()
    with HDF5Files() as files:
        assert files.layout(master, "/entry/data", swmr=True).shape == (20, 4, 6)
        with pytest.raises(TruncatedFileError, match=r"frame 20 .*scan_1_data_000003\.h5"):
            files.read(master, "/entry/data", [20], swmr=True)
        write_piece(tmp_path, 3, FRAMES[20:23])
        assert files.read(master, "/entry/data", [22], swmr=True).tolist() == FRAMES[22:23].tolist()
        write_piece(tmp_path, 3, FRAMES[20:])
        assert files.layout(master, "/entry/data", swmr=True).shape == FRAMES.shape


def test_missing_in_the_middle(tmp_path):
    """Frames of a piece that is gone are an error that names it; those behind it stay where they were."""
    master = str(write_eiger(tmp_path))
    (tmp_path / "scan_1_data_000002.h5").unlink()
    with HDF5Files() as files:
        np.testing.assert_array_equal(files.read(master, "/entry/data", [9, 20, 24]), FRAMES[[9, 20, 24]])
        with pytest.raises(TruncatedFileError, match=r"frames 10, 19 .*scan_1_data_000002\.h5"):
            files.read(master, "/entry/data", [9, 10, 19, 20])


@pytest.mark.parametrize("gone", [(1, 2), (1, 2, 3)])
def test_of_unknown_length(tmp_path, gone):
    """Where nothing tells how long the missing pieces were, nothing is read."""
    master = str(write_eiger(tmp_path))
    for number in gone:
        (tmp_path / f"scan_1_data_{number:06d}.h5").unlink()
    with HDF5Files() as files, pytest.raises(UnreadableFileError, match=r"scan_1_data_000001\.h5"):
        files.read(master, "/entry/data", [24])


@pytest.mark.parametrize("how", ["of another type", "without a link", "of several lengths"])
def test_unclear(tmp_path, how):
    """Pieces that do not fit together are refused."""
    master = write_eiger(tmp_path, per_file=5)
    if how == "without a link":
        with h5py.File(master, "a") as file:
            del file["/entry/data/data_000002"]
    elif how == "of another type":
        write_piece(tmp_path, 2, FRAMES[:10].astype("<u2"))
    else:
        write_piece(tmp_path, 2, FRAMES[:3])
        (tmp_path / "scan_1_data_000003.h5").unlink()
    with HDF5Files() as files, pytest.raises(UnreadableFileError, match="cannot be put together"):
        files.read(str(master), "/entry/data", [0])


def test_outside(tmp_path):
    """A piece outside the directories that may be read is refused."""
    inside = tmp_path / "in"
    inside.mkdir()
    master = write_eiger(inside)
    write_piece(tmp_path, 2, FRAMES[:10])
    with h5py.File(master, "a") as file:
        del file["/entry/data/data_000002"]
        file["/entry/data/data_000002"] = h5py.ExternalLink(str(tmp_path / "scan_1_data_000002.h5"), "/entry/data/data")
    (inside / "scan_1_data_000002.h5").unlink()
    with HDF5Files() as files, pytest.raises(ForbiddenFileError):
        files.read(str(master), "/entry/data", [10], roots=Roots.of([str(inside)]))


def test_other_numbers_are_no_pieces(tmp_path):
    """Channels, and whatever else has numbers in its name, are not joined."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["/entry/channel_000001"] = file["/entry/data_1"] = FRAMES
    with HDF5Files() as files:
        for name in ("/entry/channel", "/entry/data", "/entry"):
            with pytest.raises(UnreadableFileError):
                files.read(str(tmp_path / "a.h5"), name, [0])


def test_handler(tmp_path):
    """A sequence as its master has it, a virtual dataset or not; what was aborted is no whole sequence."""
    write_eiger(tmp_path)
    write_eiger(tmp_path, FRAMES[:7] + 1, per_file=3, seq_id=12, virtual=True)
    with EigerHandler(str(tmp_path / "scan"), images_per_file=10) as handler:
        np.testing.assert_array_equal(handler(seq_id=1), FRAMES)
        np.testing.assert_array_equal(handler(seq_id=12), FRAMES[:7] + 1)
        np.testing.assert_array_equal(handler(seq_id=1, frame_num=21), FRAMES[21])
        assert handler.format(seq_id=12).shape == (7, 4, 6)
        assert len(handler.get_file_list([{"seq_id": 1}, {"seq_id": 12}])) == 4 + 4
        (tmp_path / "scan_12_data_000003.h5").unlink()
        with pytest.raises(TruncatedFileError, match=r"6 so far.*scan_12_data_000003\.h5"):
            handler(seq_id=12)
        np.testing.assert_array_equal(handler(seq_id=12, frame_num=5), FRAMES[5] + 1)


@pytest.mark.parametrize("ours", [(), (HDF5_ROWS,)])
def test_registered(tmp_path, ours):
    """Pieces are registered for our adapter, which joins them, and for no other."""
    master = write_eiger(tmp_path)
    source = Source("s", HDF5, PurePosixPath(master), dataset="/entry/data/data", frames_per_index=5)
    key = {"dtype": "array", "shape": [5, 4, 6]}
    placed = place(Rows((Span("s", 0, 5),), 5, 5), {"s": source}, key, inspect_files, ours=ours)
    if not ours:
        assert isinstance(placed, Refusal)
        assert "no stock adapter joins" in placed.reason
        return
    assert isinstance(placed, Placement)
    assert (placed.mimetype, placed.count, placed.files) == (HDF5_ROWS, 5, (str(master),))
