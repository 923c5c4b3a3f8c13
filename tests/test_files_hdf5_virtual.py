"""Virtual datasets are put together from their parts as by HDF5, and refused where HDF5 would make something up."""

import fcntl
import math
import os

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bluesky_filestore.errors import (
    ForbiddenFileError,
    LockedFileError,
    TruncatedFileError,
    UnreadableFileError,
)
from bluesky_filestore.files import hdf5_pool
from bluesky_filestore.files.hdf5 import HDF5Files
from bluesky_filestore.files.hdf5_links import check_links
from bluesky_filestore.files.readable import Roots

FRAMES = np.arange(3 * 24, dtype="<u2").reshape(3, 4, 6) + 1
UNLIMITED = h5py.h5s.UNLIMITED


def write(path, frames, name="d", **options):
    """A file with a dataset."""
    with h5py.File(path, "w") as file:
        file.create_dataset(name, data=frames, **options)


def virtual(path, shape, parts, dtype="<u2", name="d", **options):
    """A file with a virtual dataset: what is taken from which file, and where it goes."""
    layout = h5py.VirtualLayout(shape, dtype, **options)
    for into, source, taken in parts:
        layout[into] = source[taken] if taken is not None else source
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset(name, layout, fillvalue=9)


def mapped(path, shape, *mappings, name="d", most=None):
    """A virtual dataset of dataspaces as they are: (target, file, dataset, source)."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    for target, file, dataset, source in mappings:
        properties.set_virtual(target, file.encode(), dataset.encode(), source)
    with h5py.File(path, "a") as file:
        space = h5py.h5s.create_simple(shape, most or shape)
        h5py.h5d.create(file.id, name.encode(), h5py.h5t.STD_U16LE, space, properties)


def selected(shape, *hyperslab, most=None):
    """A dataspace with a selection."""
    space = h5py.h5s.create_simple(shape, most or shape)
    if hyperslab:
        start, count, stride, block = hyperslab
        space.select_hyperslab(start, count, stride, block)
    return space


def read(path, frames, part=(), **options):
    """Frames of the dataset "d"."""
    with HDF5Files() as files:
        return files.read(str(path), "d", frames, part, **options)


@st.composite
def layouts(draw):
    """How a source is cut into blocks, and where these go: a shape, and a hyperslab, for each of the two."""
    dimensions = [draw(st.integers(1, 3)) for _ in range(3)]
    sides = []
    for _ in range(2):
        axes = []
        for size in dimensions:
            block = draw(st.sampled_from([each for each in range(1, size + 1) if size % each == 0]))
            stride = block + draw(st.integers(0, 2))
            start, count = draw(st.integers(0, 2)), size // block
            room = start + (count - 1) * stride + block + draw(st.integers(0, 1))
            axes.append((room, start, count, stride, block))
        shape, *hyperslab = zip(*axes, strict=True)
        sides.append((shape, hyperslab))
    return sides


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sides=layouts(), data=st.data())
def test_any_selection_is_read_as_by_hdf5(tmp_path, sides, data):
    """Of whatever blocks, whatever frames and parts of frames are asked for."""
    (shape, into), (held, taken) = sides
    for name in ("a.h5", "b.h5"):
        (tmp_path / name).unlink(missing_ok=True)
    write(tmp_path / "b.h5", np.arange(1, math.prod(held) + 1, dtype="<u2").reshape(held))
    mapped(tmp_path / "a.h5", shape, (selected(shape, *into), "b.h5", "d", selected(held, *taken)))
    with h5py.File(tmp_path / "a.h5") as file:
        expected = file["d"][()]
    whole = [frame for frame in range(shape[0]) if expected[frame].any()]
    frames = data.draw(st.lists(st.sampled_from(whole), max_size=5))
    part = data.draw(st.sampled_from([(), (slice(1, None),), (0,), (slice(None, None, -1), 0)]))
    index = (slice(None), *part)
    assert np.array_equal(read(tmp_path / "a.h5", frames, part), expected[frames][index])
    lost = sorted(set(range(shape[0])) - set(whole))
    if lost:
        with pytest.raises(TruncatedFileError, match=f"no data for frames {lost[0]}"):
            read(tmp_path / "a.h5", range(shape[0]))


@pytest.mark.parametrize("held", [(3, 4, 6), (12, 6), (72,), (1, 3, 4, 6), (1, 72), (3, 24), (3, 2, 2, 6), (6, 12)])
def test_all_of_a_dataset_of_another_shape(tmp_path, held):
    """Frames that are made of several rows, or of a part of one, are those that HDF5 puts together."""
    with h5py.File(tmp_path / "b.h5", "w") as file:
        dataset = file.create_dataset("d", held, "<u2", chunks=(1,) * (len(held) - 1) + held[-1:])
        dataset[()] = FRAMES.reshape(held)
    virtual(tmp_path / "a.h5", FRAMES.shape, [(..., h5py.VirtualSource("b.h5", "d", held), None)])
    assert np.array_equal(read(tmp_path / "a.h5", [2, 0, 1]), FRAMES[[2, 0, 1]])
    assert np.array_equal(read(tmp_path / "a.h5", [1], (slice(1, 3),)), FRAMES[[1], 1:3])


@pytest.mark.parametrize(
    ("held", "row", "lost"), [((3, 4, 6), 1, "1"), ((12, 6), 5, "1"), ((1, 3, 4, 6), 0, "0, 1, 2")]
)
def test_frames_of_a_part_that_are_lost_are_named(tmp_path, held, row, lost):
    """Those that the rows which were never written are for, and no others."""
    with h5py.File(tmp_path / "b.h5", "w") as file:
        dataset = file.create_dataset("d", held, "<u2", chunks=(1, *held[1:]))
        for number, values in enumerate(FRAMES.reshape(held)):
            if number != row:
                dataset[number] = values
    virtual(tmp_path / "a.h5", FRAMES.shape, [(..., h5py.VirtualSource("b.h5", "d", held), None)])
    with pytest.raises(TruncatedFileError, match=rf"a.h5 has no data for frames {lost} \(counted"):
        read(tmp_path / "a.h5", range(3))
    if lost == "1":
        assert np.array_equal(read(tmp_path / "a.h5", [0, 2]), FRAMES[[0, 2]])


def test_what_became_of_another_shape_is_refused(tmp_path):
    """A dataset that is written anew with other frames is no part of what was mapped."""
    virtual(tmp_path / "a.h5", FRAMES.shape, [(..., h5py.VirtualSource("b.h5", "d", (12, 6)), None)])
    write(tmp_path / "b.h5", np.ones((13, 6), "<u2"))
    with pytest.raises(UnreadableFileError, match=r"dataset d of file b.h5 has the shape \[13, 6\], which is not"):
        read(tmp_path / "a.h5", [0])


@pytest.mark.parametrize(
    ("held", "dtype"),
    [("<u4", "<u2"), ("<f4", "<i4"), ("<f8", "<f4"), ("<i2", "<u2"), ("<u2", "<i2"), ("<i4", "<f4"), ("<c8", "<f4")],
)
def test_values_that_do_not_fit_are_refused(tmp_path, held, dtype):
    """HDF5 clips and rounds them without a word; what has all its values in the other type is read."""
    virtual(tmp_path / "a.h5", FRAMES.shape, [(..., h5py.VirtualSource("b.h5", "d", FRAMES.shape), None)], dtype)
    write(tmp_path / "b.h5", FRAMES.astype(held))
    words = f"dataset d of file b.h5 holds {np.dtype(held)}, of which {np.dtype(dtype)} cannot hold all values"
    with pytest.raises(UnreadableFileError, match=f"virtual dataset d of file {tmp_path}/a.h5 .*{words}"):
        read(tmp_path / "a.h5", [0])
    for fitting in (dtype, np.dtype(dtype).newbyteorder(">")):
        write(tmp_path / "b.h5", FRAMES.astype(fitting))
        assert np.array_equal(read(tmp_path / "a.h5", [0]), FRAMES[:1])


def test_wider_types_hold_all_values(tmp_path):
    """Values of a narrower type are those that were written."""
    virtual(tmp_path / "a.h5", FRAMES.shape, [(..., h5py.VirtualSource("b.h5", "d", FRAMES.shape), None)], ">f8")
    write(tmp_path / "b.h5", FRAMES)
    found = read(tmp_path / "a.h5", range(3))
    assert found.dtype == ">f8"
    assert np.array_equal(found, FRAMES)


def nested(directory, deep, wide, rows=1):
    """Virtual datasets of one another, each of which leads to the next in several places."""
    write(directory / "v0.h5", np.ones((rows, wide, 1), "<u2"))
    for number in range(1, deep + 1):
        source = h5py.VirtualSource(f"v{number - 1}.h5", "d", (rows, wide, 1))
        virtual(
            directory / f"v{number}.h5",
            (rows, wide, 1),
            [((slice(None), slice(at, at + 1)), source, (slice(None), slice(at, at + 1))) for at in range(wide)],
        )
    return directory / f"v{deep}.h5"


@pytest.fixture
def opened(monkeypatch):
    """The files that are opened."""
    paths = []
    stock = hdf5_pool.open_hdf5
    monkeypatch.setattr(hdf5_pool, "open_hdf5", lambda path, **options: paths.append(path) or stock(path, **options))
    return paths


def test_each_file_is_opened_once(tmp_path, opened):
    """However many parts lead to it, and however often they are read."""
    path = nested(tmp_path, deep=3, wide=6)
    with HDF5Files() as files:
        for _ in range(2):
            assert (files.read(str(path), "d", [0]) == 1).all()
    assert sorted(opened) == [str(tmp_path / f"v{number}.h5") for number in range(4)]


def test_only_what_is_asked_for_is_opened(tmp_path, opened):
    """A frame of one file does not depend on the others, which may be many, or gone."""
    parts = [(number, h5py.VirtualSource(f"b{number}.h5", "d", (4, 6)), None) for number in range(50)]
    virtual(tmp_path / "a.h5", (50, 4, 6), parts)
    write(tmp_path / "b7.h5", FRAMES[0])
    assert np.array_equal(read(tmp_path / "a.h5", [7]), FRAMES[:1])
    assert opened == [str(tmp_path / "a.h5"), str(tmp_path / "b7.h5")]


def test_parts_without_end_are_refused(tmp_path, opened):
    """Four files of a few kB may stand for any number of parts: there is a bound to what is looked at."""
    path = nested(tmp_path, deep=5, wide=20)
    with pytest.raises(
        UnreadableFileError, match=r"made of 5,001 parts of parts or more .read fewer frames.*expected 5,000 at most"
    ):
        read(path, [0])
    assert len(opened) == 6


def test_a_part_that_grows_behind_a_master_that_is_closed(tmp_path):
    """A file that is being written in SWMR mode is read as far as it is written, whatever the master is opened with."""
    with h5py.File(tmp_path / "b.h5", "w", libver="latest") as writer:
        growing = writer.create_dataset("d", (0, 4, 6), "<u2", maxshape=(None, 4, 6), chunks=(1, 4, 6))
        writer.swmr_mode = True
        source = h5py.VirtualSource("b.h5", "d", FRAMES.shape)
        virtual(tmp_path / "fixed.h5", FRAMES.shape, [(..., source, None)])
        source = h5py.VirtualSource("b.h5", "d", (1, 4, 6), maxshape=(None, 4, 6))
        ever = slice(UNLIMITED)
        virtual(tmp_path / "endless.h5", (1, 4, 6), [(ever, source, ever)], maxshape=(None, 4, 6))
        with HDF5Files() as files:
            for written in (1, 2):
                growing.resize(written, axis=0)
                growing[written - 1] = FRAMES[written - 1]
                growing.flush()
                assert files.layout(str(tmp_path / "endless.h5"), "d").count == written
                for name in ("fixed", "endless"):
                    path = str(tmp_path / f"{name}.h5")
                    assert np.array_equal(files.read(path, "d", range(written)), FRAMES[:written])
                    with pytest.raises(TruncatedFileError, match=rf"{name}.h5 .*frames? {written}"):
                        files.read(path, "d", range(written + 1))


def test_a_part_that_is_locked_is_named(tmp_path):
    """Not the file that leads to it."""
    virtual(tmp_path / "a.h5", FRAMES.shape, [(..., h5py.VirtualSource("b.h5", "d", FRAMES.shape), None)])
    write(tmp_path / "b.h5", FRAMES)
    descriptor = os.open(tmp_path / "b.h5", os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(LockedFileError, match=f"^file {tmp_path}/b.h5 is open for writing"):
            read(tmp_path / "a.h5", [0])
    finally:
        os.close(descriptor)


def test_numbered_parts(tmp_path):
    """There are as many frames as numbered files; "%%" stands for "%"."""
    target = selected((1, 4, 6), (0, 0, 0), (UNLIMITED, 1, 1), (1, 4, 6), (1, 4, 6), most=(UNLIMITED, 4, 6))
    mapped(
        tmp_path / "a.h5",
        (1, 4, 6),
        (target, "100%% %b.h5", "d", selected((1, 4, 6))),
        most=(UNLIMITED, 4, 6),
    )
    for number in range(3):
        write(tmp_path / f"100% {number}.h5", FRAMES[number : number + 1])
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["d"].shape == FRAMES.shape
    assert np.array_equal(read(tmp_path / "a.h5", [2, 0]), FRAMES[[2, 0]])
    (tmp_path / "100% 1.h5").unlink()
    with pytest.raises(TruncatedFileError, match=r"holds 1 frames in dataset d; frame 2"):
        read(tmp_path / "a.h5", [0, 2])


@pytest.mark.parametrize("name", ["b.h5", "gone/b.h5"])
def test_where_parts_are_looked_for(tmp_path, monkeypatch, name):
    """Beside the file that names them, wherever that is by now; not where the program or its environment say."""
    elsewhere, moved = tmp_path / "elsewhere", tmp_path / "moved"
    elsewhere.mkdir()
    moved.mkdir()
    named = name if "/" not in name else str(tmp_path / name)
    virtual(moved / "a.h5", FRAMES.shape, [(..., h5py.VirtualSource(named, "d", FRAMES.shape), None)])
    write(elsewhere / "b.h5", np.zeros_like(FRAMES))
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("HDF5_VDS_PREFIX", str(elsewhere))
    with pytest.raises(TruncatedFileError, match=r"no data for frames 0 .*b.h5 is not there"):
        read(moved / "a.h5", [0])
    write(moved / "b.h5", FRAMES)
    (tmp_path / "link.h5").symlink_to(moved / "a.h5")
    for path in (moved / "a.h5", tmp_path / "link.h5"):
        assert np.array_equal(read(path, [0]), FRAMES[:1])


@pytest.mark.parametrize("endless", [False, True])
def test_what_is_no_file_is_not_opened(tmp_path, endless):
    """HDF5 would wait at a pipe for ever."""
    os.mkfifo(tmp_path / "b.h5")
    most = (None, 4, 6) if endless else None
    ever = slice(UNLIMITED) if endless else slice(None)
    source = h5py.VirtualSource("b.h5", "d", FRAMES.shape, maxshape=most)
    virtual(tmp_path / "a.h5", FRAMES.shape, [(ever, source, ever)], maxshape=most)
    with pytest.raises(UnreadableFileError, match=r"b.h5 is not a file"):
        read(tmp_path / "a.h5", [0])
    with pytest.raises(UnreadableFileError, match=r"b.h5 is not a file"):
        check_links(str(tmp_path / "a.h5"), Roots.of([tmp_path]))


@pytest.mark.parametrize("how", ["link", "virtual"])
@pytest.mark.parametrize("where", ["cwd", "prefix"])
def test_whole_files_lead_nowhere_else(tmp_path, monkeypatch, how, where):
    """Where a whole file is left to HDF5, whatever HDF5 would find by its names has to be under the roots."""
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    write(outside / "b.h5", FRAMES)
    if where == "cwd":
        monkeypatch.chdir(outside)
    else:
        monkeypatch.setenv("HDF5_EXT_PREFIX" if how == "link" else "HDF5_VDS_PREFIX", str(outside))
    if how == "link":
        with h5py.File(inside / "a.h5", "w") as file:
            file["l"] = h5py.ExternalLink("b.h5", "d")
    else:
        virtual(inside / "a.h5", FRAMES.shape, [(..., h5py.VirtualSource("b.h5", "d", FRAMES.shape), None)])
    with pytest.raises(ForbiddenFileError, match=r"outside/b.h5 is outside the directories"):
        check_links(str(inside / "a.h5"), Roots.of([inside]))
    if where == "cwd":
        write(inside / "b.h5", FRAMES)
        check_links(str(inside / "a.h5"), Roots.of([inside]))
