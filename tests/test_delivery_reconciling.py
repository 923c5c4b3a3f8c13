"""What is said at the end of a run of frames that are not in its files."""

import itertools
import logging

import h5py
import pytest
from document_streams import KINDS, Camera, Case, Step, build

from bluesky_filestore import CatalogWriter

numbers = itertools.count()


@pytest.fixture
def written(catalog, data_directory, caplog):
    """Writes a run of four events of two frames, with files damaged before; gives its node and what was logged."""

    def write(kind, damage=None, **options):
        directory = data_directory / "reconciling" / str(next(numbers))
        case = Case((Camera("cam_image", kind, 2, "<u2"),), {"primary": (0,)}, ((Step("primary"),) * 4,))
        built = build(case, directory)
        if damage is not None:
            damage(sorted(directory.iterdir()))
        caplog.clear()
        with caplog.at_level(logging.WARNING, "bluesky_filestore"):
            with CatalogWriter(catalog.client, spool=None, settle=5.0, **options) as writer:
                for name, doc in built.documents:
                    writer(name, doc)
                writer.flush(30)
            return catalog.client[built.uid], [record.getMessage() for record in caplog.records]

    return write


def leave_out(paths):
    """Two frames in the middle of a file are not there, or their files are cut short."""
    if len(paths) > 1:
        for path in paths[4:6]:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return
    with h5py.File(paths[0], "r+") as file:
        values = file["/entry/data/data"][...]
        del file["/entry/data/data"]
        made = file.create_dataset("/entry/data/data", values.shape, values.dtype, chunks=(1, *values.shape[1:]))
        made[:4], made[6:] = values[:4], values[6:]


@pytest.mark.parametrize("kind", KINDS)
def test_frames_that_are_not_there(written, kind):
    """They are a line of the log, a note, and named by their events in the metadata, whatever the files are."""
    run, logged = written(kind, leave_out)
    # Files that nothing can be read of end the array; what lies in the middle of a file shows when it is looked for.
    is_one_file = kind in ("AD_HDF5", "stream HDF5")
    about = run.metadata["filestore"]["unreadable" if is_one_file else "missing"]["primary"]["cam_image"]
    assert about["events"] == ([2] if is_one_file else [2, 3])
    assert about["reason"]
    (line,) = [message for message in logged if "cam_image" in message]
    words = "has frames that are not in its files" if is_one_file else "ends before the events do"
    assert words in line
    assert any(words in note for note in run.metadata["notes"])


def test_nothing_is_said(written):
    """Of a run that has its frames, nor where nobody asked for it."""
    run, logged = written("AD_HDF5")
    assert (run.metadata["filestore"], run.metadata["notes"], logged) == ({}, [], [])
    run, logged = written("AD_HDF5", leave_out, reconcile=False)
    assert (run.metadata["filestore"], run.metadata["notes"], logged) == ({}, [], [])
