"""The parameters of our own data sources, there and back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluesky_filestore.errors import AddressError
from bluesky_filestore.model.addressing import (
    FileSeries,
    HandledPart,
    HandledRows,
    HDF5Rows,
    RowSpan,
    parsed_slice,
)

ROWS = {"dataset": "/entry/data/data", "frames_per_event": 2, "rows": [[0, 4, 3, 2], [1, 9, 1, 0]]}
SERIES = {"mimetype": "image/tiff", "templates": ["a_%06d.tiff"], "frames_per_event": 1, "rows": [[0, 4, 3, 1]]}

spans = st.builds(RowSpan, st.integers(0, 1), st.integers(100, 200), st.integers(1, 20), st.integers(-5, 5))
some_rows = st.lists(spans, min_size=1, max_size=5).map(tuple)
arguments = st.sampled_from([{}, {"column": "x"}, {"row": 1, "part": [2, 3]}, {"asset": 5}, {"spec": "B", "parts": []}])
handled_parts = st.builds(
    HandledPart, st.integers(0, 3), arguments, st.lists(arguments, min_size=1, max_size=3), st.booleans()
)


@given(
    st.builds(
        HDF5Rows, st.just("/d"), st.integers(1, 5), some_rows, st.sampled_from(["", "0:2,1", "...,::2"]), st.booleans()
    )
)
def test_rows_come_back(rows):
    """Rows of datasets are the same after a way through JSON."""
    assert HDF5Rows.from_parameters(json.loads(json.dumps(rows.to_parameters()))) == rows


@given(
    st.builds(
        FileSeries,
        st.just("image/tiff"),
        st.just(("a_%06d.tiff", "50%%_%i.tiff")),
        st.integers(1, 5),
        some_rows,
        st.sampled_from(["", "/entry/data"]),
    )
)
def test_series_come_back(series):
    """Series are the same after a way through JSON."""
    assert FileSeries.from_parameters(json.loads(json.dumps(series.to_parameters()))) == series


def test_names_of_files():
    """A file's name is its directory's template, filled in."""
    series = FileSeries.from_parameters({**SERIES, "templates": ["50%%_%06d.tiff", "b_%d.tiff"]})
    assert (series.file_name(0, 7), series.file_name(1, 12)) == ("50%_000007.tiff", "b_12.tiff")


def test_last_frame():
    """The frames of the last event of a span, whichever way it goes."""
    assert [RowSpan(0, 9, 4, step).last for step in (1, 0, -3)] == [12, 9, 0]


@pytest.mark.parametrize(
    ("text", "indices"),
    [
        ("", ()),
        (":", (slice(None),)),
        ("(1:3, ..., 0)", (slice(1, 3), ..., 0)),
        ("[::2, -1]", (slice(None, None, 2), -1)),
    ],
)
def test_slices(text, indices):
    """A slice in words is what numpy is indexed with."""
    assert parsed_slice(text) == indices


@pytest.mark.parametrize("text", ["a", "1:2:3:4", "::0", "1,,2", "__import__('os')"])
def test_slices_that_say_nothing(text):
    """Nothing but numbers and ranges is taken."""
    with pytest.raises(AddressError, match="expected whole numbers and ranges"):
        parsed_slice(text)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rows": []}, "there are no rows"),
        ({"rows": 7}, r"expected \[\[asset, first, count, step\], ...\]"),
        ({"rows": [[0, 1, 2]]}, r"expected \[\[asset, first, count, step\], ...\]"),
        ({"rows": [[0, 1, 2, "1"]]}, "not made of four whole numbers"),
        ({"rows": [[0, 1, 2, True]]}, "not made of four whole numbers"),
        ({"rows": [[0, 1, 0, 1]]}, "at least one event"),
        ({"rows": [[0, 1, 3, -1]]}, "names no frames"),
        ({"rows": [[-1, 1, 3, 1]]}, "names no frames"),
        ({"frames_per_event": 0}, "expected at least 1"),
        ({"frames_per_event": True}, "expected int"),
        ({"frames_per_event": "1"}, "expected int"),
        ({"dataset": ""}, "has no name"),
        ({"dataset": None}, "expected str"),
        ({"slice": "x"}, "cannot be understood"),
        ({"swmr": 1}, "expected bool"),
        ({"tomorrow": 1}, r"have \['tomorrow'\] that are not known"),
    ],
)
def test_bad_rows(changes, words):
    """What cannot be followed exactly is refused, what is not known as well."""
    with pytest.raises(AddressError, match=words):
        HDF5Rows.from_parameters({**ROWS, **changes})
    with pytest.raises(AddressError, match=r"lack \['dataset'\]"):
        HDF5Rows.from_parameters({name: value for name, value in ROWS.items() if name != "dataset"})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"templates": ["a.tiff"]}, "has no field for the file's number"),
        ({"templates": ["%d_%d.tiff"]}, "has no field for the file's number"),
        ({"templates": [7]}, "has no field for the file's number"),
        ({"templates": ["%s_%d.tiff"]}, "cannot be filled in"),
        ({"templates": ["../%d.tiff"]}, "leads into another directory"),
        ({"templates": ["..\\%d.tiff"]}, "leads into another directory"),
        ({"templates": "a_%d.tiff"}, "expected list"),
        ({"templates": []}, "expected one template a directory"),
        ({"rows": [[1, 0, 1, 1]]}, "there are templates for 1"),
        ({"mimetype": None}, "expected str"),
        ({"rows": []}, "there are no rows"),
    ],
)
def test_bad_series(changes, words):
    """A series that leads anywhere but to files of its directories is refused."""
    with pytest.raises(AddressError, match=words):
        FileSeries.from_parameters({**SERIES, **changes})


@given(st.builds(HandledRows, st.just("ANY"), st.lists(handled_parts, min_size=1, max_size=3).map(tuple)))
def test_handled_come_back(rows):
    """What handlers are asked is the same after a way through JSON, of one Resource and of several."""
    assert HandledRows.from_parameters(json.loads(json.dumps(rows.to_parameters()))) == rows


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({}, "do not say what the events are"),
        ({"spec": "A", "datum_kwargs": {}}, "do not say what the events are"),
        ({"spec": "A", "parts": []}, "do not say what the events are"),
        ({"spec": "A", "parts": [7]}, "do not say what the events are"),
        ({"spec": 7, "datum_kwargs": [{}]}, "do not say what the events are"),
        ({"spec": "A", "datum_kwargs": []}, "expected a mapping in datum_kwargs for each"),
        ({"spec": "A", "datum_kwargs": [7]}, "expected a mapping in datum_kwargs for each"),
        ({"spec": "A", "datum_kwargs": [{}], "resource_kwargs": [7]}, "expected a mapping in datum_kwargs for each"),
        ({"spec": "A", "datum_kwargs": [{}], "directory": 1}, "expected bool"),
        ({"spec": "A", "parts": [{"datum_kwargs": [{}]}]}, "asset of a part is None"),
        ({"spec": "A", "parts": [{"datum_kwargs": [{}], "asset": -1}]}, "asset of a part is -1"),
    ],
)
def test_bad_handled(parameters, words):
    """Parameters that do not say what a handler is asked are refused."""
    with pytest.raises(AddressError, match=words):
        HandledRows.from_parameters(parameters)
