"""Where files are now, by the longest directory that holds them."""

from pathlib import PurePosixPath, PureWindowsPath

import pytest

from bluesky_filestore.errors import PathError
from bluesky_filestore.model.root_map import RootMap


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/data/a.h5", "/archive/a.h5"),
        ("/data/2026/a.h5", "/recent/a.h5"),
        ("/data", "/archive"),
        ("/database/a.h5", "/database/a.h5"),
        ("/other/a.h5", "/other/a.h5"),
        ("Z:\\data\\run\\a.h5", "/mnt/z/run/a.h5"),
        ("z:/DATA/run/a.h5", "/mnt/z/run/a.h5"),
        ("\\\\server\\share\\a.h5", "/mnt/share/a.h5"),
        ("C:\\data\\a.h5", "C:\\data\\a.h5"),
    ],
)
def test_longest_directory(path, expected):
    """The longest directory of the map wins, whole names only, of either flavour."""
    moved = {"/data": "/archive", "/data/2026": "/recent", "Z:\\data": "/mnt/z", "\\\\server\\share": "/mnt/share"}
    for mapping in (moved, dict(reversed(moved.items()))):
        assert str(RootMap(mapping).find(path)) == expected


def test_to_windows():
    """A path of posix may be one of Windows now."""
    assert RootMap({"/data": "D:\\data"}).find("/data/run 1/a.h5") == PureWindowsPath("D:/data/run 1/a.h5")


def test_without_a_map():
    """Files are where they were."""
    assert RootMap().find("/data/a.h5") == RootMap({}).find_here("/data/a.h5") == PurePosixPath("/data/a.h5")


def test_path_that_this_machine_cannot_have():
    """A Windows path that is not mapped is named, with what to give."""
    with pytest.raises(PathError, match=r"is a windows path, which this machine has not; .* root_map=\{'C:"):
        RootMap({"/data": "/archive"}).find_here("C:\\data\\a.h5")


@pytest.mark.parametrize("mapping", [{"data": "/archive"}, {"/data": "archive"}])
def test_relative_directories(mapping):
    """Both directories have to be absolute."""
    with pytest.raises(PathError, match="The root part of the path must be absolute"):
        RootMap(mapping)
