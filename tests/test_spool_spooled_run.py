"""Runs in a spool as JSON lines."""

import datetime
import json
import math

import event_model
import numpy as np
from spooled import NUMBER, put, run_documents

from bluesky_filestore.spool.spooled_run import exported, find_run

IMAGE = {"source": "s", "dtype": "array", "shape": [1, 4, 6], "external": "FILESTORE:"}


def lines_of(directory, uid):
    """The exported documents of a run."""
    (run,) = find_run([directory], uid)
    return [tuple(json.loads(line)) for line in exported(run)]


def test_values(tmp_path):
    """Arrays become lists, bytes base64, dates ISO 8601; NaN and big integers stay."""
    run = event_model.compose_run(
        metadata={
            "array": np.arange(6, dtype="u2").reshape(2, 3),
            "bytes": b"\x00\xff",
            "when": datetime.datetime(2024, 5, 6, 7, 8, tzinfo=datetime.UTC),
            "big": 2**70,
            "nan": math.nan,
            "text": "µm",
        }
    )
    put(tmp_path, [("start", run.start_doc)])
    ((_, start),) = lines_of(tmp_path, run.start_doc["uid"])
    assert math.isnan(start.pop("nan"))
    expected = {
        "uid": run.start_doc["uid"],
        "array": [[0, 1, 2], [3, 4, 5]],
        "bytes": "AP8=",
        "when": "2024-05-06T07:08:00+00:00",
        "big": 2**70,
        "text": "µm",
    }
    assert {name: start[name] for name in expected} == expected


def test_many_documents(tmp_path):
    """The order is kept over any number of documents, and other runs stay out."""
    (uid, docs), (_, others) = run_documents(2500), run_documents(10)
    mixed = [pair for both in zip(docs, others, strict=False) for pair in both]
    put(tmp_path, [*mixed, *docs[len(others) :]])
    assert lines_of(tmp_path, uid) == docs


def test_announced_by_an_earlier_run(tmp_path):
    """A resource, or datum, that an earlier run announced comes along with the run that refers to it, and no other."""
    first = event_model.compose_run()
    bundle = first.compose_descriptor(name="primary", data_keys={"image": IMAGE})
    resources = [
        first.compose_resource(spec="AD_HDF5", root="/", resource_path=name, resource_kwargs={}) for name in ("a", "b")
    ]
    early = resources[0].compose_datum(datum_kwargs={"point_number": 0})
    earlier = [
        ("start", first.start_doc),
        ("descriptor", bundle.descriptor_doc),
        *(("resource", resource.resource_doc) for resource in resources),
        ("datum", early),
        ("datum", resources[1].compose_datum(datum_kwargs={"point_number": 0})),
        ("stop", first.compose_stop()),
    ]
    second = event_model.compose_run()
    bundle = second.compose_descriptor(name="primary", data_keys={"image": IMAGE})
    late = resources[0].compose_datum(datum_kwargs={"point_number": 1})
    events = [
        bundle.compose_event(
            data={"image": datum["datum_id"]}, timestamps={"image": 5.0}, filled={"image": False}, validate=False
        )
        for datum in (early, late)
    ]
    later = [
        ("start", second.start_doc),
        ("descriptor", bundle.descriptor_doc),
        ("event", events[0]),
        ("datum", late),
        ("event", events[1]),
        ("stop", second.compose_stop()),
    ]
    put(tmp_path, [*earlier, *later])
    announced = [("resource", resources[0].resource_doc), ("datum", early)]
    assert lines_of(tmp_path, second.start_doc["uid"]) == [later[0], *announced, *later[1:]]


def test_stream_resource_of_an_earlier_run(tmp_path):
    """The same for stream resources, and for events in pages."""
    first, second = event_model.compose_run(), event_model.compose_run()
    resource = first.compose_stream_resource(
        mimetype="application/x-hdf5", uri="file://localhost/a.h5", data_key="image", parameters={"dataset": "/d"}
    )
    bundle = second.compose_descriptor(
        name="primary", data_keys={"x": NUMBER, "image": {**IMAGE, "external": "STREAM:"}}
    )
    datum = resource.compose_stream_datum(
        indices={"start": 0, "stop": 1}, seq_nums={"start": 1, "stop": 2}, descriptor=bundle.descriptor_doc
    )
    page = event_model.pack_event_page(bundle.compose_event(data={"x": 1.0}, timestamps={"x": 5.0}))
    later = [
        ("start", second.start_doc),
        ("descriptor", bundle.descriptor_doc),
        ("stream_datum", datum),
        ("event_page", page),
    ]
    put(tmp_path, [("start", first.start_doc), ("stream_resource", resource.stream_resource_doc), *later])
    announced = ("stream_resource", resource.stream_resource_doc)
    assert lines_of(tmp_path, second.start_doc["uid"]) == [later[0], announced, *later[1:]]


def test_put_there_twice(tmp_path):
    """Of two writers that put in the same run, the one that had more of it counts."""
    uid, docs = run_documents(3)
    put(tmp_path, docs[:4])
    put(tmp_path, docs)
    assert lines_of(tmp_path, uid) == docs


def test_put_there_once_more(tmp_path):
    """A run that one writer was given a second time is exported once."""
    uid, docs = run_documents(3)
    put(tmp_path, [*docs, *docs])
    assert lines_of(tmp_path, uid) == docs


def test_odd_documents(tmp_path):
    """What is not of its schema, and keys that JSON has nothing for, are exported as they can be."""
    uid, docs = run_documents(1)
    start = {**docs[0][1], "odd": {("a", 1): [{(2,): np.arange(2)}]}}
    event = {"descriptor": docs[1][1]["uid"], "data": None}
    odd = [("event", event), ("datum", {"datum_id": [{}], "resource": {}}), ("stream_datum", {})]
    put(tmp_path, [("start", start), docs[1], *odd, *docs[2:]])
    lines = lines_of(tmp_path, uid)
    assert lines[0][1]["odd"] == {"('a', 1)": [{"(2,)": [0, 1]}]}
    assert ("event", event) in lines
