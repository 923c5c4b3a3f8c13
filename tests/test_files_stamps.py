"""Files that are not those that were registered, and files that are although they look otherwise."""

import itertools
import json
import os
import re
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from bluesky_filestore.errors import ChangedFileError, MissingFileError, UnreadableFileError
from bluesky_filestore.files import stamps as module
from bluesky_filestore.files.array_in_files import ArrayInFiles
from bluesky_filestore.files.registered import Registered
from bluesky_filestore.files.stamps import Stamp, Stamps, stamps_of, without_stamps
from bluesky_filestore.model.addressing import FILE_SERIES, HANDLED, HDF5_ROWS, FileSeries, HDF5Rows, RowSpan
from bluesky_filestore.model.specs import HDF5, JPEG_SERIES, NPY_SERIES, TIFF_SERIES
from bluesky_filestore.reading.from_node import frames_of

FRAMES = np.random.default_rng(0).integers(0, 60000, (6, 8, 60), dtype="u2")
OTHERS = np.random.default_rng(1).integers(0, 60000, (6, 8, 60), dtype="u2")
SPANS = (RowSpan(0, 4, 5, -1),)
HANDLED_FILE = {
    "spec": "HDF5",
    "resource_kwargs": {"dataset": "d"},
    "datum_kwargs": [{"point_number": n} for n in range(6)],
}
KINDS = {
    "hdf5": (HDF5, ["all.h5"], {"dataset": "d"}),
    "joined": (HDF5, ["first.h5", "second.h5"], {"dataset": "d", "slice": "0:6"}),
    "rows": (HDF5_ROWS, ["all.h5"], HDF5Rows("d", 1, SPANS).to_parameters()),
    "tiff": (TIFF_SERIES, [f"{n}.tiff" for n in range(6)], {}),
    "npy": (NPY_SERIES, [f"{n}.npy" for n in range(6)], {}),
    "jpeg": (JPEG_SERIES, [f"{n}.jpg" for n in range(6)], {}),
    "series": (FILE_SERIES, ["."], FileSeries(TIFF_SERIES, ("%d.tiff",), 1, SPANS).to_parameters()),
    "hdf5 series": (FILE_SERIES, ["."], FileSeries(HDF5, ("%d.h5",), 1, SPANS, "d").to_parameters()),
    "handled": (HANDLED, ["all.h5"], HANDLED_FILE),
}
OF_HDF5 = ("hdf5", "joined", "rows", "hdf5 series", "handled")
counter = itertools.count()


def write(directory, frames, **layout):
    """Files of all kinds with the same frames."""
    directory.mkdir(exist_ok=True)
    for name, some in (("all", frames), ("first", frames[:3]), ("second", frames[3:])):
        write_hdf5(directory / f"{name}.h5", some, **layout)
    for number, frame in enumerate(frames):
        write_hdf5(directory / f"{number}.h5", frame[np.newaxis], **layout)
        tifffile.imwrite(directory / f"{number}.tiff", frame)
        np.save(directory / f"{number}.npy", frame)
        Image.fromarray((frame >> 8).astype("u1")).save(directory / f"{number}.jpg")
    return directory


def write_hdf5(path, frames, **layout):
    """One file that can grow."""
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "d", data=frames, chunks=(1, *frames.shape[1:]), maxshape=(None, *frames.shape[1:]), **layout
        )


@pytest.fixture
def directory(tmp_path):
    """Files of this test alone."""
    return write(tmp_path / "registered", FRAMES)


def registered(kind, directory):
    """An array as it is registered, with what its files are like now, after a journey through JSON."""
    mimetype, files, parameters = KINDS[kind]
    count, dtype = (5, "u2") if "row" in kind or "series" in kind else (6, "u1" if kind == "jpeg" else "u2")
    paths = [str(directory / file) for file in files]
    array = Registered(mimetype, parameters, {}, paths, (count, *FRAMES.shape[1:]), np.dtype(dtype))
    properties = frames_of(array)().stamped(None).to_properties()
    return replace(array, properties=json.loads(json.dumps(properties)))


def files_of(kind, directory):
    """The files that a kind has frames in."""
    suffix = {"tiff": "?.tiff", "npy": "?.npy", "jpeg": "?.jpg", "series": "?.tiff", "hdf5 series": "?.h5"}.get(kind)
    names = ["first.h5", "second.h5"] if kind == "joined" else ["all.h5"]
    return sorted(directory.glob(suffix)) if suffix else [directory / name for name in names]


def another(path, tmp_path, frames=OTHERS):
    """A file like one, of other frames."""
    return write(tmp_path / f"others {next(counter)}", frames) / path.name


def overwritten(path, tmp_path):
    """Written again, in the same place."""
    path.write_bytes(another(path, tmp_path).read_bytes())


def replaced(path, tmp_path):
    """Another file put in its place."""
    another(path, tmp_path).replace(path)


def linked(path, tmp_path):
    """A link to another file in its place."""
    there = another(path, tmp_path)
    path.unlink()
    path.symlink_to(there)


def shortened(path, tmp_path):
    """Cut short."""
    os.truncate(path, path.stat().st_size // 2)


def other_shape(path, tmp_path):
    """Frames of another shape."""
    another(path, tmp_path, OTHERS[:, :4]).replace(path)


def emptied(path, tmp_path):
    """Nothing but zeros of the same size, and the same time."""
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns + 1))


def nothing(path, tmp_path):
    """Nothing."""


def touched(path, tmp_path):
    """Another time."""
    os.utime(path, ns=(0, 10**18))


def copied(path, tmp_path):
    """A copy in its place, with a time of its own."""
    copy = path.with_name("copy")
    shutil.copyfile(path, copy)
    copy.replace(path)


def grown(path, tmp_path):
    """More frames behind the others, and another dataset before they are closed."""
    with h5py.File(path, "a") as file:
        file["d"].resize(len(file["d"]) + 3, axis=0)
        file["d"][-3:] = OTHERS[:3]
        file["more"] = OTHERS


def repacked(path, tmp_path):
    """The same frames packed in another way."""
    with h5py.File(path) as file:
        frames = file["d"][...]
    write_hdf5(path, frames, compression="gzip")


@pytest.mark.parametrize("change", [overwritten, replaced, linked, shortened, other_shape, emptied])
@pytest.mark.parametrize("kind", KINDS)
def test_changed(kind, change, directory, tmp_path):
    """Whatever became of the files, no frame comes, and the error names the file, and what was registered."""
    array = ArrayInFiles(registered(kind, directory), frames_of)
    array.read(0)
    files = files_of(kind, directory)
    sizes = [file.stat().st_size for file in files]
    for file in files:
        change(file, tmp_path)
    for opened in (array, ArrayInFiles(array.registered, frames_of)):
        for index in (0, 1, ...):
            with pytest.raises(UnreadableFileError) as raised:
                opened.read(index)
            words = str(raised.value)
            named = [(file, size) for file, size in zip(files, sizes, strict=True) if str(file) in words]
            assert len(named) == 1, words
            assert f"not the file that was registered, which had {named[0][1]} bytes, written 2" in words
            assert "allow_changed=True" in words


@pytest.mark.parametrize("kind", KINDS)
def test_one_of_several(kind, directory, tmp_path):
    """Of several files, only that which was changed is refused."""
    files = files_of(kind, directory)
    if len(files) == 1:
        return
    array = ArrayInFiles(registered(kind, directory), frames_of)
    expected = array.read()
    changed = files[1]
    overwritten(changed, tmp_path)
    first, count = (3, 3) if kind == "joined" else (len(expected) - 2 if "series" in kind else 1, 1)
    refused = range(first, first + count)
    for row in range(len(expected)):
        if row in refused:
            with pytest.raises(ChangedFileError, match=re.escape(str(changed))):
                array.read(row)
        else:
            np.testing.assert_array_equal(array.read(row), expected[row])


@pytest.mark.parametrize("change", [nothing, touched, copied])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same(kind, change, directory, tmp_path):
    """Files with other times are the same files, as often as they are asked for."""
    array = ArrayInFiles(registered(kind, directory), frames_of)
    expected = array.read()
    for file in files_of(kind, directory):
        change(file, tmp_path)
    for opened in (array, array, ArrayInFiles(array.registered, frames_of)):
        np.testing.assert_array_equal(opened.read(), expected)
        np.testing.assert_array_equal(opened.read(2), expected[2])


@pytest.mark.parametrize("change", [grown, repacked])
@pytest.mark.parametrize("kind", [kind for kind in OF_HDF5 if kind != "hdf5 series"])
def test_frames_behind(kind, change, directory, tmp_path):
    """HDF5 files that a later run goes on in, or that were packed otherwise, hold the frames that were registered."""
    array = ArrayInFiles(registered(kind, directory), frames_of)
    expected = array.read()
    for file in files_of(kind, directory):
        change(file, tmp_path)
    for opened in (array, ArrayInFiles(array.registered, frames_of)):
        np.testing.assert_array_equal(opened.read(), expected)


def test_compared_once(directory, monkeypatch):
    """Frames are compared once for each state of a file, not for each reading."""
    array = registered("hdf5", directory)
    touched(directory / "all.h5", None)
    compared = []

    def counted(values):
        compared.append(1)
        return module.frame_sample(values)

    monkeypatch.setattr("bluesky_filestore.files.hdf5_rows.frame_sample", counted)
    for _ in range(3):
        ArrayInFiles(array, frames_of).read(3)
    assert len(compared) == 2
    os.utime(directory / "all.h5", ns=(0, 2 * 10**18))
    ArrayInFiles(array, frames_of).read(3)
    assert len(compared) == 4


def test_a_missing_file_is_missing(directory):
    """What is not there is said so."""
    array = ArrayInFiles(registered("tiff", directory), frames_of)
    (directory / "2.tiff").unlink()
    with pytest.raises(MissingFileError, match=r"2\.tiff is not there"):
        array.read(2)


@pytest.mark.parametrize("kind", KINDS)
def test_without_stamps(kind, directory, tmp_path):
    """What was registered before files were looked at is read as it was, and so is what may be another file."""
    array = registered(kind, directory)
    assert without_stamps({**array.properties, "chunks": [[6]]}) == {"chunks": [[6]]}
    for file in files_of(kind, directory):
        overwritten(file, tmp_path)
    read = ArrayInFiles(replace(array, properties={}), frames_of).read()
    others = write(tmp_path / "the others", OTHERS)
    np.testing.assert_array_equal(read, ArrayInFiles(registered(kind, others), frames_of).read())


def test_very_many_files(directory):
    """Of very many files some evenly spaced ones are looked at, the first and the last among them; they are small."""
    looked = []

    def look(number, before):
        looked.append(number)
        return Stamp(number, 10**18 + number, ("0123456789abcdef", "fedcba9876543210"))

    stamps = Stamps.made(range(100_001), look)
    assert (len(looked), looked[0], looked[-1]) == (1000, 0, 100_000)
    assert max(np.diff(looked)) - min(np.diff(looked)) <= 1
    assert stamps.nearest(100_000)[0] == 100_000
    assert abs(stamps.nearest(55_555)[0] - 55_555) <= 50
    assert len(json.dumps(stamps.to_properties())) < 80_000
    assert stamps_of(stamps.to_properties()) == stamps
    assert len(Stamps.made(range(500), look, sample_bytes=2**25).numbers) == 8


def test_unchanged_files_are_not_read_again(directory, tmp_path, monkeypatch):
    """Another look reads only what changed since the last."""
    array = registered("tiff", directory)
    overwritten(directory / "3.tiff", tmp_path)
    read = []
    original = module.byte_samples
    monkeypatch.setattr(
        "bluesky_filestore.files.series.byte_samples",
        lambda path, *more: (read.append(path), original(path, *more))[1],
    )
    again = frames_of(replace(array, properties={}))().stamped(array.stamps)
    assert read == [str(directory / "3.tiff")]
    assert [old == new for old, new in zip(array.stamps.stamps, again.stamps, strict=True)] == [True] * 3 + [False] + [
        True
    ] * 2


def test_behind_external_links(directory, tmp_path):
    """The file that counts is that where a link leads."""
    with h5py.File(directory / "all.h5", "w") as file:
        file["d"] = h5py.ExternalLink("frames.h5", "d")
    write_hdf5(directory / "frames.h5", FRAMES)
    array = ArrayInFiles(registered("hdf5", directory), frames_of)
    array.read()
    write_hdf5(directory / "frames.h5", OTHERS)
    with pytest.raises(ChangedFileError, match=re.escape(str(directory / "frames.h5"))):
        array.read(2)
