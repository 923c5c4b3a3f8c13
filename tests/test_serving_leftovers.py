"""A server that was killed when it made an array: the next one makes it."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import zarr
from leaning import logged_anew  # noqa: F401 - a fixture
from tiled.adapters.zarr import ZarrArrayAdapter

from bluesky_filestore import serve_catalog
from bluesky_filestore.serving import guard
from bluesky_filestore.serving.leftovers import replace_leftovers

VALUES = np.arange(6.0).reshape(2, 3)


@pytest.fixture
def running(tmp_path):
    """A server."""
    with serve_catalog(tmp_path / "catalog") as catalog:
        yield catalog


def left_behind(running, directory, key):
    """A run, and where the storage of an array of it is of which the catalog knows nothing."""
    run = running.client.create_container("run")
    run.write_array(np.ones((5, 7), "u1"), key=key)
    (place,) = (directory / "catalog" / "arrays" / "run").iterdir()
    shutil.copytree(place, directory / "kept")
    run.delete_contents(key, external_only=False)
    (directory / "kept").rename(place)
    return run, place


@pytest.mark.parametrize("key", ["wave", "a key, with spaces & more"])
def test_made_again(running, tmp_path, monkeypatch, key):
    """Where something is left of an array another can be made, of whatever shape."""
    monkeypatch.setattr("bluesky_filestore.serving.leftovers._REMOVED_SECONDS", 0.0)
    run, place = left_behind(running, tmp_path, key)
    made = run.write_array(VALUES, key=key)
    np.testing.assert_array_equal(made.read(), VALUES)
    assert zarr.open_array(place).shape == VALUES.shape


def test_one_that_is_being_removed(running, tmp_path, monkeypatch):
    """It is waited for, and not removed: its storage goes after its node."""
    run, place = left_behind(running, tmp_path, "wave")
    waited = []

    def sleep(seconds):
        waited.append(seconds)
        place.rename(tmp_path / "removed")

    monkeypatch.setattr("bluesky_filestore.serving.leftovers.time", SimpleNamespace(sleep=sleep))
    made = run.write_array(VALUES, key="wave")
    assert waited == [1.0]
    np.testing.assert_array_equal(made.read(), VALUES)
    assert zarr.open_array(tmp_path / "removed").shape == (5, 7)


def test_once_a_process():
    """Servers of one process share Tiled's class."""
    replace_leftovers()
    before = ZarrArrayAdapter.init_storage.__func__
    replace_leftovers()
    assert ZarrArrayAdapter.init_storage.__func__ is before


def test_without(tmp_path, monkeypatch, caplog, logged_anew):  # noqa: F811
    """A Tiled that has it otherwise makes arrays as ever."""

    def fail():
        raise AttributeError("gone")

    monkeypatch.setattr(guard, "replace_leftovers", fail)
    with serve_catalog(tmp_path / "catalog") as catalog:
        np.testing.assert_array_equal(catalog.client.write_array(VALUES, key="wave").read(), VALUES)
    assert caplog.text.count("How Tiled makes arrays is not as expected here") == 1
