"""Frames that were never written are no data: they are named, on each way, and never given as fill values."""

from itertools import product

import h5py
import numpy as np
import pytest

from bluesky_filestore import fill, open_array
from bluesky_filestore.errors import TruncatedFileError, UnreadableFileError
from bluesky_filestore.files.hdf5 import HDF5Files
from bluesky_filestore.files.hdf5_written import written_frames
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


def short(directory, **options):
    """Of three chunks, the one in the middle is shorter than a frame; no filter has packed it."""
    with h5py.File(directory / "a.h5", "w") as file:
        dataset = file.create_dataset(NAME, FRAMES.shape, "<u2", chunks=(1, 4, 6), **options)
        dataset[0], dataset[2] = FRAMES[0], FRAMES[2]
        dataset.id.write_direct_chunk((1, 0, 0), FRAMES[1].tobytes()[:20], filter_mask=len(options))


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
    "short chunk": short,
    "short chunk without its filter": lambda directory: short(directory, compression="gzip"),
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


def test_a_chunk_that_a_filter_left_alone(tmp_path):
    """A filter that may fail leaves a chunk as it was, which is right."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("d", FRAMES.shape, "<u2", chunks=(1, 4, 6), compression="gzip")
        dataset[0], dataset[2] = FRAMES[0], FRAMES[2]
        dataset.id.write_direct_chunk((1, 0, 0), FRAMES[1].tobytes(), filter_mask=1)
    with HDF5Files() as files:
        assert np.array_equal(files.read(str(tmp_path / "a.h5"), "d", range(3)), FRAMES)


def cut(length, patched):
    """A file that ends in the middle of its last chunk, and may say that this is its end."""

    def damage(path):
        content = bytearray(path.read_bytes()[:-length])
        if patched:
            content[40:48] = len(content).to_bytes(8, "little")
        path.write_bytes(content)

    return damage


def index_without_signature(path):
    """The index of chunks is no index."""
    content = bytearray(path.read_bytes())
    place = content.find(b"TREE\1")
    content[place : place + 4] = b"XXXX"
    path.write_bytes(content)


def damaged_chunk(path):
    """A chunk has other bytes than were packed."""
    with h5py.File(path) as file:
        chunk = file["d"].id.get_chunk_info(2)
    content = bytearray(path.read_bytes())
    for place in range(10, 20):
        content[chunk.byte_offset + place] ^= 0x55
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("compression", "damage"),
    [
        *product([None, "gzip"], [cut(500, False), cut(500, True), index_without_signature]),
        # Of what is not packed nothing tells that it was changed.
        ("gzip", damaged_chunk),
    ],
)
def test_damaged_files(tmp_path, compression, damage):
    """What of a frame cannot be read is never made up."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        frames = np.random.default_rng(0).integers(1, 60000, (3, 40, 60), "<u2")
        file.create_dataset("d", data=frames, chunks=(1, 40, 60), compression=compression)
    damage(path)
    with HDF5Files() as files, pytest.raises(UnreadableFileError, match=f"file {path}"):
        files.read(str(path), "d", [2])


@pytest.mark.parametrize("target", ["/nowhere/x", "/d"])
def test_soft_links_that_lead_nowhere(tmp_path, target):
    """A link to nothing, or to itself, is no dataset."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["d"] = h5py.SoftLink(target)
    with HDF5Files() as files, pytest.raises(UnreadableFileError, match="has no dataset d"):
        files.read(str(tmp_path / "a.h5"), "d", [0])


def test_nothing_written(tmp_path):
    """A dataset of which nothing was ever written has no frame."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("d", (3, 4), "<u2")
        assert list(written_frames(file["d"], "a.h5").lost(range(3))) == [0, 1, 2]


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


def sources(directory, **values):
    """Files each with a dataset "d"."""
    for name, frames in values.items():
        with h5py.File(directory / f"{name}.h5", "w") as file:
            file.create_dataset("d", data=frames, maxshape=(None, *frames.shape[1:]), chunks=(1, *frames.shape[1:]))


def strided(directory, *starts):
    """Six frames, of which each other one comes from one of two files."""
    frames = np.arange(6 * 24, dtype="<u2").reshape(6, 4, 6) + 1
    sources(directory, even=frames[::2], odd=frames[1::2])
    layout = h5py.VirtualLayout(frames.shape, "<u2")
    for start in starts:
        layout[start::2] = h5py.VirtualSource(f"{('even', 'odd')[start]}.h5", "d", (3, 4, 6))
    with h5py.File(directory / "a.h5", "w") as file:
        file.create_virtual_dataset("d", layout, fillvalue=9)
    return frames


def test_interleaved(tmp_path):
    """Frames that come in turn from several files are all there; what only one of them has is named."""
    path = str(tmp_path / "a.h5")
    frames = strided(tmp_path, 0, 1)
    with HDF5Files() as files:
        assert np.array_equal(files.read(path, "d", range(6)), frames)
    strided(tmp_path, 0)
    with HDF5Files() as files:
        assert np.array_equal(files.read(path, "d", [0, 2, 4]), frames[::2])
        with pytest.raises(TruncatedFileError, match="no data for frames 1, 3, 5"):
            files.read(path, "d", range(6))
    with h5py.File(tmp_path / "odd.h5", "w") as file:
        file["d"] = frames[1:4:2]
    strided_again = h5py.VirtualLayout(frames.shape, "<u2")
    for start, name in enumerate(("even", "odd")):
        strided_again[start::2] = h5py.VirtualSource(f"{name}.h5", "d", (3, 4, 6))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("d", strided_again, fillvalue=9)
    with HDF5Files() as files, pytest.raises(UnreadableFileError):
        files.read(path, "d", range(6))


def test_a_module_that_is_missing_in_one_frame(tmp_path):
    """A frame of which fewer modules are there than of others is named."""
    sources(tmp_path, upper=FRAMES, lower=FRAMES[:2])
    layout = h5py.VirtualLayout((3, 8, 6), "<u2")
    layout[:, :4] = h5py.VirtualSource("upper.h5", "d", FRAMES.shape)
    layout[:2, 4:] = h5py.VirtualSource("lower.h5", "d", (2, 4, 6))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_virtual_dataset("d", layout, fillvalue=9)
    with HDF5Files() as files:
        assert np.array_equal(files.read(str(tmp_path / "a.h5"), "d", [0, 1])[:, 4:], FRAMES[:2])
        with pytest.raises(TruncatedFileError, match="no data for frames 2 "):
            files.read(str(tmp_path / "a.h5"), "d", [2])


def test_without_end(tmp_path):
    """A virtual dataset that is as long as what it is made of has all its frames, fewer and more than were mapped."""
    sources(tmp_path, part=FRAMES)
    for mapped in (1, 3, 5):
        layout = h5py.VirtualLayout((mapped, 4, 6), "<u2", maxshape=(None, 4, 6))
        source = h5py.VirtualSource("part.h5", "d", (mapped, 4, 6), maxshape=(None, 4, 6))
        layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_virtual_dataset("d", layout, fillvalue=9)
        with HDF5Files() as files:
            assert files.layout(str(tmp_path / "a.h5"), "d").shape == FRAMES.shape
            assert np.array_equal(files.read(str(tmp_path / "a.h5"), "d", range(3)), FRAMES), mapped


@pytest.mark.parametrize("deep", [3, 30])
def test_too_deep_to_follow(tmp_path, deep):
    """Where virtual datasets are made of one another and it cannot be told what is missing, nothing is given."""
    sources(tmp_path, v0=FRAMES)
    for number in range(1, deep):
        layout = h5py.VirtualLayout(FRAMES.shape, "<u2")
        layout[...] = h5py.VirtualSource(f"v{number - 1}.h5", "d", FRAMES.shape)
        with h5py.File(tmp_path / f"v{number}.h5", "w") as file:
            file.create_virtual_dataset("d", layout, fillvalue=9)
    path = str(tmp_path / f"v{deep - 1}.h5")
    with HDF5Files() as files:
        if deep < 8:
            assert np.array_equal(files.read(path, "d", range(3)), FRAMES)
            (tmp_path / "v0.h5").unlink()
            with pytest.raises(TruncatedFileError, match="no data for frames 0, 1, 2"):
                files.read(path, "d", range(3))
            return
        with pytest.raises(
            UnreadableFileError, match="is number 9 of those that lead to one another, or to itself; expected 8"
        ):
            files.read(path, "d", range(3))


def test_frames_that_are_only_claimed_take_no_memory(tmp_path):
    """A file of a few bytes may say that it has any number of frames; what is kept of it goes by what was written."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("d", (4 * 10**11, 4, 6), "<u2", chunks=(1, 4, 6))
        dataset[7] = FRAMES[0]
    path = str(tmp_path / "a.h5")
    with HDF5Files() as files:
        layout = files.layout(path, "d")
        assert layout.chunks.tolist() == [7]
        assert layout.written.starts.tolist() == [0, 7, 8]
        assert np.array_equal(files.read(path, "d", [7]), FRAMES[:1])
        with pytest.raises(TruncatedFileError, match="no data for frames 399999999999 "):
            files.read(path, "d", [7, 4 * 10**11 - 1])


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}])
@pytest.mark.parametrize("place", ["of another", "in the header"])
def test_chunks_in_one_another(tmp_path, options, place):
    """Of a file that has two chunks at one place, or one in its header, no frame is read from there."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("d", data=FRAMES, chunks=(1, 4, 6), **options)
        first, second = (dataset.id.get_chunk_info(number).byte_offset for number in range(2))
    data, wrong = (tmp_path / "a.h5").read_bytes(), first if place == "of another" else 8
    assert data.count(second.to_bytes(8, "little")) == 1
    (tmp_path / "a.h5").write_bytes(data.replace(second.to_bytes(8, "little"), wrong.to_bytes(8, "little")))
    with HDF5Files() as files, pytest.raises(UnreadableFileError, match=r"a\.h5 .* of dataset /d lie in one another"):
        files.read(str(tmp_path / "a.h5"), "d", [1])
