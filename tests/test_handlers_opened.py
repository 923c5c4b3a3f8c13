"""What goes wrong in handlers, which are anybody's code, is told with file and datum."""

import pytest

from bluesky_filestore import fill
from bluesky_filestore.errors import UnreadableFileError
from tests.test_bad_input import Documents, hdf5


class Foreign:
    """A handler that raises what it likes."""

    specs = frozenset({"FOREIGN"})

    def __init__(self, path, frame_per_point=1):
        self.path = path

    def __call__(self, point_number):
        raise KeyError(f"series_{point_number}")


def test_a_foreign_error_names_file_and_datum(tmp_path):
    """The error is an OSError that names the file, the datum and what was raised."""
    documents = Documents("FOREIGN", "o.h5", tmp_path).all
    with pytest.raises(UnreadableFileError, match=r"FOREIGN.*point_number.*o.h5.*KeyError"):
        list(fill(documents, {"FOREIGN": Foreign}, patience=0))


def test_arguments_that_a_handler_does_not_know(tmp_path):
    """Unknown resource_kwargs are told with file and handler."""
    hdf5(tmp_path, "a.h5")
    documents = Documents("AD_HDF5", "a.h5", tmp_path, colour="red").all
    with pytest.raises(UnreadableFileError, match=r"AD_HDF5.*colour.*a.h5.*TypeError"):
        list(fill(documents, patience=0))
