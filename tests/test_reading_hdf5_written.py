"""Frames that were never written are no data: they are named, on each way, and never given as fill values."""

import h5py
import numpy as np
import pytest

from bluesky_filestore import fill, open_array
from bluesky_filestore.errors import TruncatedFileError
from bluesky_filestore.reading.hdf5 import HDF5Files
from bluesky_filestore.reading.hdf5_written import unwritten_frames
from tests.test_bad_input import Documents

NAME = "/entry/data/data"
FRAMES = np.arange(3 * 24, dtype="<u2").reshape(3, 4, 6) + 1


def chunked(directory, **options):
    """Of three frames, the one in the middle was never written, or half of it."""
    chunks = options.pop("chunks", (1, 4, 6))
    with h5py.File(directory / "a.h5", "w") as file:
        dataset = file.create_dataset(NAME, FRAMES.shape, "<u2", chunks=chunks, fillvalue=9, **options)
        dataset[0], dataset[2] = FRAMES[0], FRAMES[2]
        if chunks[1] == 2:
            dataset[1, :2] = FRAMES[1, :2]


def virtual(directory, lost="file", middle=None):
    """A virtual dataset of three files; the second is not there, or has not the dataset, or not all of it."""
    layout = h5py.VirtualLayout(FRAMES.shape, "<u2")
    for part in range(3):
        if part != 1 or lost != "mapping":
            layout[part] = h5py.VirtualSource(f"part{part}.h5", "d", (1, 4, 6))[0]
        if part != 1:
            with h5py.File(directory / f"part{part}.h5", "w") as file:
                file["d"] = FRAMES[part : part + 1]
    if lost != "file":
        with h5py.File(directory / "part1.h5", "w") as file:
            if lost == "chunk":
                file.create_dataset("d", (1, 4, 6), "<u2", chunks=(1, 4, 6))
            elif lost == "mapping":
                file["d"] = FRAMES[1:2]
    with h5py.File(directory / "a.h5", "w") as file:
        file.create_virtual_dataset(NAME, layout, fillvalue=9)


def storage(directory):
    """External storage in three files, the second too short."""
    parts = []
    for part, values in enumerate(FRAMES):
        path = directory / f"{part}.raw"
        path.write_bytes(values.tobytes()[: 10 if part == 1 else None])
        parts.append((str(path), 0, values.nbytes))
    with h5py.File(directory / "a.h5", "w") as file:
        file.create_dataset(NAME, FRAMES.shape, "<u2", external=parts)


MAKERS = {
    "chunk": chunked,
    "compressed chunk": lambda directory: chunked(directory, compression="gzip"),
    "half a frame": lambda directory: chunked(directory, chunks=(1, 2, 6)),
    "growing": lambda directory: chunked(directory, maxshape=(None, 4, 6)),
    "source file": virtual,
    "source dataset": lambda directory: virtual(directory, "dataset"),
    "chunk of source": lambda directory: virtual(directory, "chunk"),
    "mapping": lambda directory: virtual(directory, "mapping"),
    "external storage": storage,
}


@pytest.mark.parametrize("how", MAKERS)
def test_lost_frames_are_named(tmp_path, how):
    """The frame in the middle is named; the two others are read."""
    MAKERS[how](tmp_path)
    documents = Documents(root=tmp_path)
    with HDF5Files() as files:
        assert np.array_equal(files.read(str(tmp_path / "a.h5"), NAME, [0, 2]), FRAMES[[0, 2]])
        with pytest.raises(TruncatedFileError, match=r"no data for frames 1 \(counted from 0\)"):
            files.read(str(tmp_path / "a.h5"), NAME, range(3))
    array = open_array(documents.all)
    assert np.array_equal(np.ravel(array[0]), FRAMES[0].ravel())
    with pytest.raises(TruncatedFileError, match="no data for frames 1"):
        array[1]
    with pytest.raises(TruncatedFileError, match="no data for frames 1"):
        list(fill(documents.all, patience=0))


def test_nothing_written(tmp_path):
    """A dataset of which nothing was ever written has no frame."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("d", (3, 4), "<u2")
        assert unwritten_frames(file["d"], "a.h5").all()


def test_gaps_between_modules_are_let_be(tmp_path):
    """What no module of a detector covers, within a frame that others cover, is no frame that is missing."""
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file["d"] = FRAMES
    layout = h5py.VirtualLayout((3, 9, 6), "<u2")
    for top in (0, 5):
        layout[:, top : top + 4] = h5py.VirtualSource("part.h5", "d", FRAMES.shape)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_virtual_dataset("d", layout, fillvalue=9)
    with HDF5Files() as files:
        assert (files.read(str(tmp_path / "a.h5"), "d", [1])[0, 4] == 9).all()
