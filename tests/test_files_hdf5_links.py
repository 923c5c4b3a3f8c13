"""Datasets that external links lead to: on each way the same frames, and the same words where a link is broken."""

import subprocess
import sys

import h5py
import numpy as np
import pytest

from bluesky_filestore import fill, open_array
from bluesky_filestore.errors import DocumentError, LockedFileError, MissingFileError, UnreadableFileError
from bluesky_filestore.files.hdf5 import HDF5Files
from bluesky_filestore.handlers.hdf5 import AreaDetectorHDF5Handler
from tests.test_bad_input import FRAMES, Documents

NAME = "/entry/data/data"


def linked(directory, how):
    """A file whose dataset is a link to one of another directory, which links to a third."""
    (directory / "far").mkdir()
    with h5py.File(directory / "a.h5", "w") as file:
        file[NAME] = h5py.ExternalLink("far/b.h5", "/link")
    with h5py.File(directory / "far" / "b.h5", "w") as file:
        file["link"] = h5py.ExternalLink("c.h5", "/d")
    if how != "gone":
        with h5py.File(directory / "far" / "c.h5", "w") as file:
            match how:
                case "virtual":
                    layout = h5py.VirtualLayout(FRAMES.shape, FRAMES.dtype)
                    layout[...] = h5py.VirtualSource("e.h5", "d", FRAMES.shape)
                    file.create_virtual_dataset("d", layout, fillvalue=9)
                case "plain":
                    file["d"] = FRAMES
                case "other":
                    file["e"] = FRAMES
    with h5py.File(directory / "far" / "e.h5", "w") as file:
        file["d"] = FRAMES


def ways(directory):
    """Each way to the first frame."""
    path, documents = str(directory / "a.h5"), Documents(root=directory).all
    return {
        "pool": lambda: HDF5Files().read(path, NAME, [0]),
        "handler": lambda: AreaDetectorHDF5Handler(path)(point_number=0),
        "fill": lambda: next(doc for name, doc in fill(documents, patience=0) if name == "event")["data"]["image"],
        "open_array": lambda: open_array(documents)[0],
    }


@pytest.mark.parametrize("way", ["pool", "handler", "fill", "open_array"])
@pytest.mark.parametrize("how", ["plain", "virtual"])
def test_links_are_followed(tmp_path, way, how):
    """Each file is looked for beside the one that names it."""
    linked(tmp_path, how)
    assert np.array_equal(np.ravel(ways(tmp_path)[way]()), FRAMES[0].ravel())


@pytest.mark.parametrize("way", ["pool", "handler", "fill", "open_array"])
@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [("gone", MissingFileError, "c.h5 is not there"), ("other", UnreadableFileError, "c.h5 has no dataset /d")],
)
def test_a_broken_link_names_what_is_behind_it(tmp_path, way, how, kind, words):
    """The links, the file that they lead to, and what is wrong there."""
    linked(tmp_path, how)
    said = (
        rf"dataset {NAME} of file {tmp_path}/a.h5 is a link to /link of file {tmp_path}/far/b.h5: "
        rf"dataset /link of file {tmp_path}/far/b.h5 is a link to /d of file {tmp_path}/far/c.h5: "
    )
    # What documents come to is looked at before anything is read.
    with pytest.raises(DocumentError if way == "open_array" else kind, match=f"{said}file .*{words}"):
        ways(tmp_path)[way]()


WRITER = """
import h5py, sys
with h5py.File(sys.argv[1], "r+") as file:
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("way", ["pool", "handler", "fill"])
def test_a_locked_file_says_how_it_could_be_read(tmp_path, way):
    """The error names the file that is locked, be it behind a link, and what lets others read while one writes."""
    linked(tmp_path, "plain")
    command = [sys.executable, "-c", WRITER, str(tmp_path / "far" / "c.h5")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "open\n"
        try:
            with pytest.raises(LockedFileError, match=r"c.h5 is open for writing.*FileStoreHDF5 with swmr=True"):
                ways(tmp_path)[way]()
        finally:
            writer.stdin.close()
