"""Frames of HDF5 datasets, by their place in the file and through the pool."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import h5py
import hdf5plugin
import numpy as np
import pytest
from h5py._objects import phil

from bluesky_filestore.errors import (
    ForbiddenFileError,
    LimitError,
    LockedFileError,
    MissingFileError,
    TruncatedFileError,
    UnreadableFileError,
)
from bluesky_filestore.files.hdf5 import HDF5Files
from bluesky_filestore.files.hdf5_frames import stored_chunk
from bluesky_filestore.files.hdf5_rows import HDF5Dataset, HDF5Frames, SpanIndex
from bluesky_filestore.files.readable import Roots
from bluesky_filestore.files.rows import array_of
from bluesky_filestore.model.addressing import RowSpan

FRAMES = np.random.default_rng(0).integers(0, 60000, (40, 16, 8), dtype="u2")
DATASETS = {
    "contiguous": {"data": FRAMES},
    "chunk_a_frame": {"data": FRAMES, "chunks": (1, 16, 8)},
    "chunk_of_three": {"data": FRAMES, "chunks": (3, 16, 8)},
    "chunks_in_a_frame": {"data": FRAMES, "chunks": (3, 5, 8)},
    "gzip": {"data": FRAMES, "chunks": (3, 5, 8), "compression": "gzip"},
    "gzip_frames": {"data": FRAMES, "chunks": (1, 16, 8), "compression": "gzip"},
    "gzip_threes": {"data": FRAMES.astype(">i4"), "chunks": (3, 16, 8), "compression": "gzip", "shuffle": True},
    "gzip_bool": {"data": FRAMES > 30000, "chunks": (3, 16, 8), "compression": "gzip", "shuffle": True},
    "gzip_scalars": {"data": FRAMES[:, 0, 0], "chunks": (7,), "compression": "gzip"},
    "gzip_sums": {"data": FRAMES, "chunks": (1, 16, 8), "compression": "gzip", "fletcher32": True},
    "lz4": {"data": FRAMES, "chunks": (1, 16, 8), **hdf5plugin.LZ4()},
    "big_endian": {"data": FRAMES.astype(">i4"), "chunks": (1, 16, 8)},
    "bool": {"data": FRAMES > 30000},
    "float": {"data": FRAMES.astype("f8")},
    "scalars": {"data": FRAMES[:, 0, 0]},
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A file with the frames in each layout."""
    path = tmp_path_factory.mktemp("hdf5") / "a.h5"
    with h5py.File(path, "w") as file:
        for name, options in DATASETS.items():
            file.create_dataset(name, **options)
        file["soft"] = h5py.SoftLink("/chunk_a_frame")
        file["entry/data/deep"] = FRAMES
        file["entry/to_deep"] = h5py.SoftLink("data/deep")
    return str(path)


@pytest.fixture
def files():
    """A pool of its own."""
    with HDF5Files() as pool:
        yield pool


@pytest.mark.parametrize("name", [*DATASETS, "soft", "/entry/data/deep", "entry/to_deep"])
def test_any_layout(path, files, name):
    """Frames in any order and any part of them are those that h5py reads, whatever the layout."""
    with h5py.File(path) as file:
        expected = file[name][...]
    for part in [(), (slice(3, 9),), (0, slice(None, None, -2)), (slice(None), 3)]:
        if len(part) > expected.ndim - 1:
            continue
        for frames in [range(40), range(5, 30, 3), [3, 4, 5, 39, 0, 0], [7], range(0)]:
            found = files.read(path, name, frames, part)
            wanted = expected[list(frames)][(slice(None), *part)]
            assert (found.dtype, found.shape) == (expected.dtype, wanted.shape)
            assert (found == wanted).all()


def test_spans(path, files):
    """Events of two frames in several spans are put together in their order."""
    spans = [RowSpan(0, 3, 5, 2), RowSpan(0, 30, 4, -3), RowSpan(0, 1, 3, 0)]
    frames = HDF5Frames(HDF5Dataset(files, (path,), "gzip"), SpanIndex(spans, 2))
    firsts = [3, 5, 7, 9, 11, 30, 27, 24, 21, 1, 1, 1]
    expected = FRAMES[[first + part for first in firsts for part in (0, 1)]].reshape(12, 2, 16, 8)
    for index in [..., 3, slice(2, 9, 3), (slice(None, None, -1), 1), (slice(None), 0, 3, slice(1, 4))]:
        assert (array_of(frames, expected.shape, index) == expected[index]).all()


def test_no_file_is_kept_from_its_writers(path, files, tmp_path):
    """A file of the pool can be opened for writing and replaced, and the next reading sees it."""
    mine = tmp_path / "a.h5"
    for seed in (1, 2, 3):
        frames = np.random.default_rng(seed).integers(0, 9, (4, 3, 2), dtype="u2")
        with h5py.File(tmp_path / "next.h5", "w") as file:
            file.create_dataset("d", data=frames, chunks=(1, 3, 2), compression="gzip" if seed < 3 else None)
        (tmp_path / "next.h5").replace(mine)
        assert (files.read(str(mine), "d", range(4)) == frames).all()


def test_growing_file(files, tmp_path):
    """Of a file that is written in SWMR mode, frames are there as soon as they were flushed."""
    path = str(tmp_path / "growing.h5")
    with h5py.File(path, "w", libver="latest") as file:
        dataset = file.create_dataset("d", shape=(0, 3, 2), maxshape=(None, 3, 2), dtype="u2", chunks=(1, 3, 2))
        file.swmr_mode = True
        for count in range(1, 5):
            dataset.resize(count, axis=0)
            dataset[count - 1] = count
            dataset.flush()
            assert files.layout(path, "d", swmr=True).count == count
            assert files.read(path, "d", [count - 1], swmr=True).max() == count
            with pytest.raises(TruncatedFileError, match=rf"holds {count} frames in dataset d; frame {count} "):
                files.read(path, "d", [count], swmr=True)
    assert files.read(path, "d", range(4), swmr=True)[:, 0, 0].tolist() == [1, 2, 3, 4]


GROWING = """
import h5py, sys, time
with h5py.File(sys.argv[1], "w", libver="latest") as file:
    dataset = file.create_dataset("d", shape=(1, 3, 2), maxshape=(None, 3, 2), dtype="u2", chunks=(1, 3, 2))
    dataset[0] = 1
    file.swmr_mode = True
    dataset.flush()
    print("open", flush=True)
    for count in range(2, 100_000):
        dataset.resize(count, axis=0)
        dataset[count - 1] = count
        dataset.flush()
        time.sleep(0.001)
"""


@pytest.mark.parametrize("swmr", [True, False])
def test_file_that_grows_fast(files, tmp_path, swmr):
    """Frames that exist come, right, however fast their file grows, whether or not it was said that it does."""
    path = str(tmp_path / "fast.h5")
    with subprocess.Popen([sys.executable, "-c", GROWING, path], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "open\n"
        try:
            found = [files.read(path, "d", [0], swmr=swmr)[0, 0, 0] for _ in range(50)]
        finally:
            writer.kill()
    assert found == [1] * 50


WRITER = """
import h5py, sys
with h5py.File(sys.argv[1], "w") as file:
    file["d"] = range(6)
    file.flush()
    print("open", flush=True)
    sys.stdin.read()
"""


def test_file_that_is_being_written(files, tmp_path):
    """A file that another program holds open for writing is said to be so, and read when it is closed."""
    path = str(tmp_path / "locked.h5")
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout.readline() == "open\n"
        with pytest.raises(LockedFileError, match=r"locked.h5 is .* try again later"):
            files.read(path, "d", [0])
        writer.stdin.close()
        assert writer.wait(timeout=30) == 0
    assert files.read(path, "d", [5]).tolist() == [5]


def test_what_cannot_be_read(path, files, tmp_path):
    """Missing, foreign and shortened files, and datasets that are not there, are named."""
    with pytest.raises(MissingFileError, match=r"nowhere.h5 is not there"):
        files.read(str(tmp_path / "nowhere.h5"), "d", [0])
    with pytest.raises(UnreadableFileError, match=r"a.h5 has no dataset nothing"):
        files.read(path, "nothing", [0])
    with pytest.raises(TruncatedFileError, match=r"holds 40 frames in dataset gzip; frame 40 \(counted from 0\)"):
        files.read(path, "gzip", [1, 40])
    (tmp_path / "text.h5").write_text("This is no HDF5 file.")
    with pytest.raises(UnreadableFileError, match=r"text.h5 cannot be read"):
        files.read(str(tmp_path / "text.h5"), "d", [0])
    with h5py.File(tmp_path / "short.h5", "w") as file:
        file["d"] = FRAMES
    os.truncate(tmp_path / "short.h5", 6000)
    with pytest.raises(TruncatedFileError, match=r"short.h5 ends after 6000 bytes"):
        files.read(str(tmp_path / "short.h5"), "d", [39])


def test_cut_short_after_it_was_known(files, tmp_path):
    """A file that loses its end between two readings is found out at the second."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["d"] = FRAMES
    assert files.read(str(path), "d", [39]).shape == (1, 16, 8)
    os.truncate(path, path.stat().st_size - 100)
    with pytest.raises(TruncatedFileError, match=r"a.h5 ends after"):
        files.read(str(path), "d", [39])


@pytest.mark.parametrize("how", ["link", "virtual", "storage"])
def test_other_files_have_to_be_under_the_roots(files, tmp_path, how):
    """Data in another file are read below the roots, and refused elsewhere."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for directory in (inside, outside):
        directory.mkdir()
        with h5py.File(directory / "b.h5", "w") as file:
            file["d"] = FRAMES
        (directory / "raw.bin").write_bytes(FRAMES.tobytes())
    roots = Roots.of([inside])
    for directory, name in ((inside, "good"), (outside, "bad")):
        with h5py.File(inside / f"{name}.h5", "w") as file:
            if how == "link":
                file["e/d"] = h5py.ExternalLink(str(directory / "b.h5"), "/d")
            elif how == "virtual":
                layout = h5py.VirtualLayout(FRAMES.shape, "u2")
                layout[:] = h5py.VirtualSource(str(directory / "b.h5"), "d", FRAMES.shape)
                file.create_virtual_dataset("e/d", layout)
            else:
                raw = [(str(directory / "raw.bin"), 0, FRAMES.nbytes)]
                file.create_dataset("e/d", FRAMES.shape, "u2", external=raw)
    assert (files.read(str(inside / "good.h5"), "e/d", [3, 5], roots=roots) == FRAMES[[3, 5]]).all()
    with pytest.raises(ForbiddenFileError, match=r"outside the directories that may be read"):
        files.read(str(inside / "bad.h5"), "e/d", [0], roots=roots)


FLIPPED = """
import sys
from bluesky_filestore.errors import UnreadableFileError
from bluesky_filestore.files.hdf5 import HDF5Files
try:
    HDF5Files().read(sys.argv[1], "d", [0], swmr=True)
except UnreadableFileError as error:
    print(error)
"""


@pytest.mark.parametrize("place", [50, 64, 100])
def test_a_flipped_bit_is_found_at_once(tmp_path, place):
    """A damaged file of the newer format is an error, and not tried again while all of h5py waits."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("d", data=FRAMES, chunks=(1, 16, 8), maxshape=(None, 16, 8))
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    command = [sys.executable, "-c", FLIPPED, str(path)]
    assert "a.h5" in subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


KILLED = (
    GROWING.replace("range(2, 100_000)", "range(2, 40)")
    + """
        if count == 39:
            import os
            os._exit(0)
"""
)


def test_a_writer_in_swmr_mode_that_was_killed(files, tmp_path):
    """What it wrote is read, however long ago; where a bit of it is another one, that is said at once."""
    path = tmp_path / "a.h5"
    subprocess.run([sys.executable, "-c", KILLED, str(path)], timeout=60, check=True, capture_output=True)
    assert files.read(str(path), "d", range(39))[:, 0, 0].tolist() == list(range(1, 40))
    content = path.read_bytes()
    places = [12, *(content.index(name) + 8 for name in (b"OHDR", b"EAHD", b"EAIB", b"EADB"))]
    for place, when in [(place, when) for place in places for when in (None, (1, 1))]:
        damaged = bytearray(content)
        damaged[place] ^= 4
        path.write_bytes(damaged)
        os.utime(path, when)
        command = [sys.executable, "-c", FLIPPED, str(path)]
        said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        assert "a.h5 is marked as being written in SWMR mode, and is damaged" in said, place
        assert "h5clear -s" in said


def test_what_is_no_file_is_not_opened(files, tmp_path):
    """A pipe or a directory is refused without waiting for it."""
    os.mkfifo(tmp_path / "pipe.h5")
    (tmp_path / "directory.h5").mkdir()
    for name in ("pipe.h5", "directory.h5"):
        with pytest.raises(UnreadableFileError, match=f"{name} is not a file"):
            files.read(str(tmp_path / name), "d", [0])


def test_missing_filter(files, tmp_path):
    """A filter that is not installed is named, with the remedy."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_chunk((1, 4, 6))
        settings.set_filter(31999, h5py.h5z.FLAG_OPTIONAL, (1,))
        space = h5py.h5s.create_simple((1, 4, 6))
        data = h5py.h5d.create(file.id, b"d", h5py.h5t.STD_U16LE, space, settings)
        data.write_direct_chunk((0, 0, 0), bytes(48), 0)
    with pytest.raises(UnreadableFileError, match="HDF5 filter 31999, which is not installed here"):
        files.read(str(tmp_path / "a.h5"), "d", [0])


def test_links_in_a_circle(files, tmp_path):
    """Links that lead nowhere end."""
    for one, other in (("a", "b"), ("b", "a")):
        with h5py.File(tmp_path / f"{one}.h5", "w") as file:
            file["d"] = h5py.ExternalLink(f"{other}.h5", "/d")
            file["s"] = h5py.SoftLink("/s")
    with pytest.raises(LimitError, match=r"more than 8 external links"):
        files.read(str(tmp_path / "a.h5"), "d", [0])
    with pytest.raises(UnreadableFileError, match=r"has no dataset s"):
        files.read(str(tmp_path / "a.h5"), "s", [0])


def test_many_threads_and_few_files(tmp_path):
    """Threads that read more files than the pool may keep get their own frames, and few files stay open."""
    for number in range(12):
        with h5py.File(tmp_path / f"{number}.h5", "w") as file:
            file.create_dataset("d", data=FRAMES + number, chunks=(1, 16, 8), compression="gzip")
    with HDF5Files(most_files=3) as files:

        def read(job):
            number, frame = job % 12, job % 40
            found = files.read(str(tmp_path / f"{number}.h5"), "d", [frame])
            return (found[0] == FRAMES[frame] + number).all()

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(read, range(400)))
        assert len(files) <= 3
    assert len(files) == 0
    assert threading.active_count() < 50


def test_nobody_reads_beside():
    """While a chunk is read as it is stored no other thread may call HDF5, whatever h5py does."""
    free = []

    def take():
        free.append(phil.acquire(False))
        if free[-1]:
            phil.release()

    def read(corner):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(take).result()
        return 0, bytes(corner)

    dataset = SimpleNamespace(id=SimpleNamespace(read_direct_chunk=read))
    assert stored_chunk(dataset, (1, 2)) == (0, b"\x01\x02")
    assert free == [False]
