"""Documents against their schemas."""

import event_model
import numpy as np
import pytest
from event_model import DocumentNames, schema_validators
from hypothesis import given
from hypothesis import strategies as st

from bluesky_filestore.model.validate import schema_fault

EVENT = {"uid": "e", "descriptor": "d", "seq_num": 1, "time": 5.0, "data": {}, "timestamps": {}, "filled": {}}
DATUM = {"datum_id": "r/0", "resource": "r", "datum_kwargs": {"point_number": 0}}
STREAM_DATUM = {
    "uid": "u",
    "stream_resource": "r",
    "descriptor": "d",
    "indices": {"start": 0, "stop": 1},
    "seq_nums": {"start": 1, "stop": 2},
}
anything = st.sampled_from([None, 1, 1.5, True, "a", [], {}, {"a": 1}, {"a": True}, {"start": 1, "stop": "b"}])


def test_good_documents():
    """What event-model composes has no fault."""
    run = event_model.compose_run()
    bundle = run.compose_descriptor(name="primary", data_keys={"x": {"source": "s", "dtype": "number", "shape": []}})
    event = bundle.compose_event(data={"x": np.float32(1)}, timestamps={"x": 5.0})
    pairs = [("start", run.start_doc), ("descriptor", bundle.descriptor_doc), ("event", event)]
    pairs += [("event_page", event_model.pack_event_page(event)), ("stop", run.compose_stop())]
    assert [schema_fault(name, doc) for name, doc in pairs] == [""] * 5


@pytest.mark.parametrize(
    ("name", "doc", "words"),
    [
        ("event", {**EVENT, "seq_num": "1"}, "seq_num: '1' is not of type 'integer'"),
        ("event", {**EVENT, "filled": {"image": 3}}, "filled.image: 3 is not valid under any of the given schemas"),
        ("datum", {"datum_id": "a"}, "'datum_kwargs' is a required property"),
        ("start", {"uid": "a"}, "'time' is a required property"),
        ("event", None, "it is a NoneType; expected a mapping"),
        ("evnt", {}, "there is no document 'evnt'"),
    ],
)
def test_faults(name, doc, words):
    """A fault is told with its place."""
    assert schema_fault(name, doc) == words


def test_long_faults():
    """A fault in a large document is told in a few words."""
    fault = schema_fault("event", {**EVENT, "data": ["x" * 10_000]})
    assert len(fault) < 400


def test_older_forms():
    """What earlier schemas allowed, and is read as today's, is no fault."""
    resource = {"uid": "r", "spec": "AD_HDF5", "root": "/", "resource_path": "a.h5", "resource_kwargs": {}}
    assert schema_fault("stream_resource", resource) == ""
    key = {"source": "s", "dtype": "array", "shape": [1], "external": None}
    assert schema_fault("descriptor", {"uid": "d", "run_start": "s", "time": 1.0, "data_keys": {"x": key}}) == ""


@given(
    which=st.sampled_from([("event", EVENT), ("datum", DATUM), ("stream_datum", STREAM_DATUM)]),
    changes=st.dictionaries(st.sampled_from([*EVENT, *DATUM, *STREAM_DATUM, "odd"]), anything, max_size=2),
    without=st.sampled_from([None, *EVENT, *DATUM, *STREAM_DATUM]),
)
def test_the_quick_checks_are_right(which, changes, without):
    """A document has a fault just if event-model's validator has one to tell."""
    name, doc = which[0], {**which[1], **changes}
    doc.pop(without, None)
    assert bool(schema_fault(name, doc)) != schema_validators[DocumentNames[name]].is_valid(doc)
