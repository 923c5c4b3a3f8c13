"""Whose axis is the first of a dataset? One answer for the catalog, `open_array` and `fill`."""

import h5py
import numpy as np
import pytest

from bluesky_filestore import fill, open_array
from bluesky_filestore.errors import DocumentError, UnreadableFileError
from bluesky_filestore.model.file_facts import FileFacts
from bluesky_filestore.model.frame_axis import why_not_served
from bluesky_filestore.model.frame_map import Source
from bluesky_filestore.model.paths import pure_path
from bluesky_filestore.model.specs import HDF5
from bluesky_filestore.operations.structure import event_structure
from tests.test_bad_input import IMAGE, Documents

AXES = [
    # what the descriptor says, frames per point, the file, whether its first axis is that of frames
    ([1, 4, 6], 1, (6, 4, 6), True),
    ([4, 6], 1, (6, 4, 6), True),
    ([2, 4, 6], 2, (6, 4, 6), True),
    ([4, 6], 2, (6, 4, 6), True),
    ([5, 4, 6], 1, (6, 4, 6), True),
    ([1, 3, 5], 1, (6, 4, 6), True),
    ([0, 0], 1, (6, 4, 6), True),
    ([1, 4, 6], 1, (6, 4, 6, 3), True),
    ([1, 6], 1, (6, 6), True),
    ([6], 1, (6, 6), True),
    ([1], 1, (6,), True),
    ([1], 1, (6, 1), True),
    ([1, 4, 6], 1, (4, 6), False),
    ([4, 6], 1, (4, 6), False),
    ([1, 4, 6], 1, (24,), False),
    ([1, 4, 6], 1, (2, 3, 4, 6), False),
    ([4, 6], 1, (2, 3, 4, 6), False),
    ([1, 4, 6], 1, (1, 6, 3, 4, 6), False),
    ([2, 4, 6], 2, (3, 2, 4, 6), False),
    ([4, 6], 1, (5, 6, 3), True),
    ([4, 6], 1, (10, 6, 4), True),
    ([4, 6], 1, (4, 6, 3), False),
    ([1, 4, 6], 1, (4, 6, 3), False),
    ([4, 6], 1, (4, 6, 10), False),
    ([1, 4, 6], 1, (4, 10, 6), False),
    ([2, 4, 6], 2, (4, 6, 10), False),
    ([4, 6, 3], 1, (4, 6, 3, 10), False),
    ([6], 1, (6, 10), False),
    ([], 1, (6, 4), False),
    ([1], 1, (6, 4), False),
]


def documents_of(tmp_path, declared, frames, values):
    """The documents of three events with frames of one file."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["/entry/data/data"] = values
    image = {name: value for name, value in IMAGE.items() if name != "dtype_numpy"} | {"shape": declared}
    return Documents(root=tmp_path, image=image, frame_per_point=frames).all


@pytest.mark.parametrize(("declared", "frames", "stored", "good"), AXES)
def test_one_answer_on_each_way(tmp_path, declared, frames, stored, good):
    """What the catalog would register is read with the right values by the others, and what it refuses they refuse."""
    values = np.arange(np.prod(stored), dtype="<u2").reshape(stored)
    documents = documents_of(tmp_path, declared, frames, values)
    source = Source("a", HDF5, pure_path("/data/a.h5", "posix"), dataset="/entry/data/data", frames_per_index=frames)
    data_key = {**IMAGE, "shape": declared}
    if good:
        assert event_structure(data_key, source, FileFacts(stored, "<u2")).frames == frames
        assert np.array_equal(np.ravel(open_array(documents)[...]), values[: 3 * frames].ravel())
        events = [doc for name, doc in fill(documents, patience=0) if name == "event"]
        assert np.array_equal(np.ravel([doc["data"]["image"] for doc in events]), values[: 3 * frames].ravel())
        return
    for refused, act in (
        (DocumentError, lambda: event_structure(data_key, source, FileFacts(stored, "<u2"))),
        (DocumentError, lambda: open_array(documents)),
        (UnreadableFileError, lambda: list(fill(documents, patience=0))),
    ):
        with pytest.raises(refused, match="first axis is not that of frames"):
            act()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((3, 4), [("x", "<f8"), ("y", "<i4")]), "fields x, y"),
        (np.zeros((3, 4), "V5"), "no numbers"),
        (np.float64(5), "axis"),
        (h5py.Empty("<f8"), "axis|shape"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(tmp_path, values, words):
    """A dataset of compound or opaque type, of one number, or of nothing, is refused with the reason."""
    documents = documents_of(tmp_path, [1, 4], 1, values)
    with pytest.raises(DocumentError, match=words):
        open_array(documents)
    with pytest.raises(UnreadableFileError, match=words):
        list(fill(documents, patience=0))


def test_a_group_is_told_from_a_dataset(tmp_path):
    """Where several datasets lie in a group, which are not numbered pieces of one, the reason names them."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for number in (1, 2):
            file[f"/entry/data/data/channel_{number}"] = np.zeros((3, 4, 6), "<u2")
    documents = Documents(root=tmp_path).all
    with pytest.raises(DocumentError, match=r"a group of 2 .channel_1, channel_2"):
        open_array(documents)


def test_kinds_of_elements():
    """Numbers, booleans and texts of fixed length can be served."""
    assert not any(why_not_served((3,), dtype) for dtype in ("<u2", ">f8", "?", "<c8", "S5", "<f2"))
