"""The package as it is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

import bluesky_filestore

HEAVY = ("h5py", "tifffile", "ophyd", "tiled", "event_model", "numpy")


def test_import_is_light():
    """Importing the package loads none of the large libraries; the first use of a name does."""
    code = f"import sys, bluesky_filestore; print([name for name in {HEAVY!r} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize("name", bluesky_filestore.__all__)
def test_public_names_are_there(name):
    """Every public name can be had from the package, and tab completion shows it."""
    assert getattr(bluesky_filestore, name) is not None
    assert name in dir(bluesky_filestore)


def test_unknown_name():
    """A typing error is an AttributeError that repeats the name."""
    with pytest.raises(AttributeError, match="FileStoreHDF6"):
        bluesky_filestore.FileStoreHDF6  # noqa: B018


def test_type_checkers_and_completion_see_the_same_names():
    """The names listed for type checkers are those that are loaded lazily."""
    source = Path(bluesky_filestore.__file__).read_text(encoding="utf-8")
    listed = source.split("if TYPE_CHECKING:")[1].split("_HOMES")[0]
    missing = [name for name in bluesky_filestore.__all__ if name != "__version__" and name not in listed]
    assert missing == []
