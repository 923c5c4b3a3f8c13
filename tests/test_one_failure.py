"""Something fails while operations are made of documents: it is noted, and costs nothing else."""

import numpy as np
import pytest
from spooled import Applied
from test_operations_run import IMAGE, NUMBER, Writing

from bluesky_filestore.delivery.health import CatalogHealth
from bluesky_filestore.delivery.lane import Lane
from bluesky_filestore.delivery.problems import Problems
from bluesky_filestore.delivery.run_delivery import CUT_SHORT
from bluesky_filestore.operations import event_table, run
from bluesky_filestore.operations.arrays import ExternalArrays
from bluesky_filestore.operations.columns import Column
from bluesky_filestore.operations.event_table import EventTable
from bluesky_filestore.operations.operations import (
    AppendArray,
    AppendRows,
    CloseRun,
    CreateRun,
    CreateStream,
    EndStreams,
    PlaceArray,
)
from bluesky_filestore.spool.encoding import decode, encode
from bluesky_filestore.spool.entries import Entry

TEXT = {"source": "s", "dtype": "string", "shape": []}
LIST = {"source": "s", "dtype": "array", "shape": [2]}


class Unspeakable:
    """A value that fails at whatever is done with it."""

    def __str__(self):
        raise RuntimeError("no words for this")

    __repr__ = __iter__ = __len__ = __array__ = __str__


def lane_of_run(catalog, problems):
    """A lane, and the run that it expects."""
    lane = Lane(catalog, problems, CatalogHealth(catalog))
    return lane, lane.expect(Entry(1, "r", 1, 1, 1.0, None, "waiting", ""))


def delivered(documents, *, is_spooled=True):
    """What a catalog got of documents, and what was noted."""
    catalog, problems = Applied(), Problems()
    lane, _ = lane_of_run(catalog, problems)
    for name, doc in documents:
        lane.hand_on(name, decode(encode(doc)) if is_spooled else doc)
    lane.write()
    return catalog.operations, problems


def run_with(start=None, value="a", configuration=None):
    """The documents of a run with three events, one of them with an odd value."""
    yield "start", {"uid": "r", "time": 1.0, **(start or {})}
    keys = {"x": TEXT, "y": NUMBER}
    more = {"configuration": configuration or {}, "hints": {}, "object_keys": {"x": ["x"], "y": ["y"]}}
    yield "descriptor", {"uid": "d", "run_start": "r", "name": "primary", "time": 1.0, "data_keys": keys, **more}
    for number in (1, 2, 3):
        data = {"x": value if number == 2 else "b", "y": float(number)}
        times = {"timestamps": {"x": 1.0, "y": 1.0}, "filled": {}}
        yield "event", {"uid": f"e{number}", "descriptor": "d", "seq_num": number, "time": 1.0, "data": data, **times}
    yield "stop", {"uid": "s", "run_start": "r", "time": 2.0, "exit_status": "success", "num_events": {"primary": 3}}


ODD = {(0, 1): "left", 3: {(1,): {None: 2}}, b"\xff": 1, True: 0, 1.5: 2}


@pytest.mark.parametrize(
    "odd",
    [
        {"start": {"positions": ODD}},
        {"configuration": {"x": {"data": {"m": ODD}, "timestamps": {}, "data_keys": {}}}},
        {"value": ODD},
        {"start": {"a": ODD}, "value": [ODD], "configuration": {"x": {"data": {"m": ODD}, "timestamps": {}}}},
    ],
)
def test_odd_keys(odd):
    """A mapping with keys that are no text costs nothing: not the run, nor the stream, nor an event."""
    operations, problems = delivered(run_with(**odd))
    assert [type(each) for each in operations] == [CreateRun, CreateStream, AppendRows, CloseRun, EndStreams]
    assert operations[2].columns["y"] == [1.0, 2.0, 3.0]
    assert problems.loss("r") == ""


def test_value_that_cannot_be_written():
    """An event whose value fails at everything has an empty cell, and is noted; other cells and events are there."""
    operations, problems = delivered(run_with(value=Unspeakable()), is_spooled=False)
    assert [type(each) for each in operations] == [CreateRun, CreateStream, AppendRows, CloseRun, EndStreams]
    assert operations[2].columns["x"] == ["b", None, "b"]
    assert operations[2].columns["y"] == [1.0, 2.0, 3.0]
    assert "Of event 'e2' of stream 'primary' the value of 'x' cannot be written: RuntimeError(" in problems.loss("r")
    assert any("no words for this" in note for note in operations[-2].metadata["notes"])


def broken(*_, **__):
    """What somebody overlooked."""
    raise RuntimeError("overlooked")


def broken_for(original, which):
    """A method that fails for one object only."""

    def method(self, *arguments, **options):
        return broken() if which(self, *arguments) else original(self, *arguments, **options)

    return method


BREAKS = {
    "events of a stream": (EventTable, "take", lambda self: self._stream == "baseline"),
    "an array": (ExternalArrays, "_take", lambda _, array: array[1] == "image"),
    "a column": (Column, "fit", lambda _, values: 17.0 in values),
    "a record": (event_table, "completed", None),
    "an array of events": (event_table, "exact_array", None),
    "notes": (EventTable, "all_notes", lambda self: self._stream == "baseline"),
    "the rest of the documents": (run, "exact_json", None),
}


@pytest.mark.parametrize("which", BREAKS)
@pytest.mark.parametrize("in_batches", [False, True])
def test_all_else_is_made(monkeypatch, which, in_batches):
    """Whatever fails in making one operation, all others are made, once, and what failed is told."""
    owner, name, is_meant = BREAKS[which]
    writing = Writing({"x": NUMBER, "list": LIST, "image": IMAGE})
    other = writing.describe({"z": NUMBER}, name="baseline")
    monkeypatch.setattr(owner, name, broken if is_meant is None else broken_for(getattr(owner, name), is_meant))
    operations = []
    for number in range(3):
        writing.event(x=float(number), list=[1, 2], image=writing.datum(number))
        writing.event(stream=other, z=17.0 if number == 1 else float(number))
        if in_batches:
            operations += writing.run.take()
    writing.describe({"late": NUMBER}, name="late")
    writing.run.receive("stop", writing.composed.compose_stop())
    operations += writing.run.take()
    kinds = [type(each) for each in operations]
    assert [kinds.count(kind) for kind in (CreateRun, CreateStream, CloseRun)] == [1, 3, 1]
    rows = [each for each in operations if isinstance(each, AppendRows) and each.stream == "primary"]
    assert [value for each in rows for value in each.columns["x"]] == [0.0, 1.0, 2.0]
    others = [each for each in operations if isinstance(each, AppendRows) and each.stream == "baseline"]
    values = [value for each in others for value in each.columns["z"]]
    assert values == {"events of a stream": [], "a column": [0.0, None, 2.0]}.get(which, [0.0, 17.0, 2.0])
    assert any(isinstance(each, PlaceArray) for each in operations) == (which != "an array")
    assert any(isinstance(each, AppendArray) for each in operations) == (which != "an array of events")
    losses = writing.run.take_losses()
    notes = operations[-1].metadata["notes"]
    if which == "an array of events":
        # It is text then, which is noted.
        assert "list" in rows[0].columns
    else:
        assert any("overlooked" in words for words in [*losses, *notes])
    assert writing.run.take_losses() == []


def test_end_that_fails(monkeypatch):
    """A run that cannot even be closed is told, and not tried for ever."""
    problems = Problems()
    lane, delivery = lane_of_run(Applied(), problems)
    for name, doc in list(run_with())[:-1]:
        lane.hand_on(name, doc)
    monkeypatch.setattr(run.Run, "_close", broken)
    lane.cut_short("r", CUT_SHORT)
    assert not delivery.is_open
    assert "its end cannot be written: RuntimeError('overlooked')" in problems.loss("r")


def test_stop_that_fails():
    """A stop that cannot be used leaves its run open, to be closed without it; its rows are there."""
    catalog, problems = Applied(), Problems()
    lane, _ = lane_of_run(catalog, problems)
    for name, doc in run_with():
        lane.hand_on(name, {**doc, "more": Unspeakable()} if name == "stop" else doc)
    lane.cut_short("r", CUT_SHORT)
    lane.write()
    kinds = [type(each) for each in catalog.operations]
    assert kinds == [CreateRun, CreateStream, AppendRows, CloseRun, EndStreams]
    assert np.isclose(catalog.operations[2].columns["y"], [1.0, 2.0, 3.0]).all()
