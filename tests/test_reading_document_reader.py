"""The documents of a run, had back from the catalog as they went in."""

import itertools
import json
import logging
from pathlib import Path

import event_model
import numpy as np
import pytest
from document_streams import build, cases
from hypothesis import HealthCheck, given, note, settings
from small_runs import image_documents

from bluesky_filestore import CatalogWriter, documents
from bluesky_filestore.errors import DocumentError
from bluesky_filestore.model.normalize import unpacked

numbers = itertools.count()
NUMBER = {"source": "s", "dtype": "number", "shape": []}
IMAGE = {"source": "s", "dtype": "array", "shape": [1, 4, 6], "dtype_numpy": "<u2", "external": "FILESTORE:"}
ASSETS = ("resource", "stream_resource", "datum")


def written(catalog, pairs, **options):
    """What is had back of documents; and the run."""
    with CatalogWriter(catalog.client, settle=0.0, **options) as writer:
        for name, doc in pairs:
            writer(name, doc)
    run = catalog.client[pairs[0][1]["uid"]]
    return list(documents(run)), run


def exact(value):
    """Text that differs where values do, not-a-number included."""
    return json.dumps(value, sort_keys=True, default=lambda array: array.tolist())


def same(had, pairs):
    """Compare documents, in their order."""
    assert [name for name, _ in had] == [name for name, _ in pairs]
    for (_, doc), (_, original) in zip(had, pairs, strict=True):
        assert exact(doc) == exact(original)


def events_of(keys, *rows, timestamps=5.0, **more):
    """The documents of a run with these events."""
    run = event_model.compose_run(metadata=more)
    bundle = run.compose_descriptor(name="primary", data_keys=keys)
    pairs = [("start", run.start_doc), ("descriptor", bundle.descriptor_doc)]
    for row in rows:
        event = bundle.compose_event(data=row, timestamps=dict.fromkeys(row, timestamps), validate=False)
        pairs.append(("event", event))
    return [*pairs, ("stop", run.compose_stop())]


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(case=cases())
def test_any_legal_stream(catalog, data_directory, case):
    """Start, descriptors, events and stop come back in their order, and all assets that events use before the end."""
    built = build(case, data_directory / f"documents {next(numbers)}")
    note("\n".join(f"{name} {doc}" for name, doc in built.documents))
    had, _ = written(catalog, built.documents)
    singles = [pair for name, doc in built.documents for pair in unpacked(name, doc)]
    late = not case.stopped
    same(
        [pair for pair in had if pair[0] not in (*ASSETS, "stream_datum")],
        [pair for pair in singles if pair[0] not in (*ASSETS, "stream_datum")],
    )
    values = {exact(doc["data"]) for name, doc in singles if name == "event"}
    used = [doc for name, doc in singles if name == "datum" and any(doc["datum_id"] in value for value in values)]
    resources = {doc["resource"] for doc in used}
    expected = [exact(doc) for doc in used]
    expected += [exact(doc) for name, doc in singles if name == "stream_datum"]
    expected += [exact(doc) for name, doc in singles if name == "resource" and doc["uid"] in resources]
    expected += [exact(doc) for name, doc in singles if name == "stream_resource"]
    found = [exact(doc) for name, doc in had if name in (*ASSETS, "stream_datum")]
    assert (set(found) <= set(expected)) if late else (sorted(found) == sorted(expected))


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("integer", [1, 2, -3]),
        ("integer", [1, None, 2**60 + 1, 2**70, -(2**70)]),
        ("integer", [1, 1.5, "text", None, [1, 2], {"a": float("nan")}]),
        ("number", [1.5, float("nan"), None, float("inf"), 0.5, 2**53 + 1]),
        ("number", [1.0, "text", "2.5", True]),
        ("boolean", [True, None, False]),
        ("boolean", [True, 3, "true"]),
        ("string", ["a", "", "ü", None, "null", "1", '{"a": 1}', "nan"]),
        ("string", ["a", 3, "3", 3.5, None, [1, "a"]]),
        ("array", [[1, 2], [3, 4]]),
        ("array", [[1, 2], [1, 2, 3], [], None]),
        ("array", [[], []]),
        ("array", [[[1], [2, 3]], [[]]]),
        ("array", [["a", "bc"], ["d", "e"]]),
        ("array", [["a", 1], [2.5, None]]),
        ("array", [[1, 2**60 + 1], [0.5, 2**60 + 1]]),
        ("array", [[1.5, float("nan")], [float("inf"), 2.0]]),
        ("array", [{"a": [1]}, [1]]),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 1000])
@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
def test_values_of_every_kind(catalog, dtype, values, batch_size):
    """Values come back as they went in, whatever the table made of them."""
    pairs = events_of({"x": {"source": "s", "dtype": dtype, "shape": []}}, *({"x": value} for value in values))
    had, _ = written(catalog, pairs, batch_size=batch_size, interval=3600)
    original = [doc["data"]["x"] for name, doc in pairs if name == "event"]
    found = [doc["data"]["x"] for name, doc in had if name == "event"]
    assert [exact(a) for a in found] == [exact(b) for b in original] or found == original
    assert [doc["timestamps"] for name, doc in had if name == "event"] == [{"x": 5.0}] * len(values)


def test_arrays_of_numpy(catalog):
    """Arrays come back as lists."""
    keys = {"w": {"source": "s", "dtype": "array", "shape": [2]}}
    had, _ = written(catalog, events_of(keys, {"w": np.array([1, 2], "u1")}, {"w": np.array([3, 4], "u1")}))
    assert [doc["data"]["w"] for name, doc in had if name == "event"] == [[1, 2], [3, 4]]


@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
def test_keys_of_every_kind(catalog):
    """Keys come back under their own names, also those that no column can have."""
    long = "k" * 70
    keys = {"time": NUMBER, "seq_num": NUMBER, "ts_x": NUMBER, "x": NUMBER, "_event": NUMBER, "det(1)": NUMBER}
    keys |= {"A": NUMBER, "a": NUMBER, long: {**NUMBER, "dtype": "string"}}
    rows = [{key: "text" if key == long else float(number) for key in keys} for number in range(3)]
    rows[1]["det(1)"] = None
    had, run = written(catalog, pairs := events_of(keys, *rows))
    same(had, pairs)
    assert set(run["primary"].read()) >= {"time_", "seq_num_", "x"}


def test_2000_columns(catalog):
    """Very wide events come back whole."""
    keys = {f"k{number}": NUMBER for number in range(2000)}
    had, _ = written(catalog, pairs := events_of(keys, {key: float(at) for at, key in enumerate(keys)}))
    same(had, pairs)


def test_start_and_stop(catalog):
    """What JSON or Tiled does not have in metadata comes back all the same."""
    more = {"big": 2**70, "none": float("nan"), "tiled_specs": ["XAS"], "numpy": np.arange(3), "nested": {"a": [1]}}
    had, run = written(catalog, pairs := events_of({"x": NUMBER}, {"x": 1.0}, **more))
    same(had, pairs)
    assert "tiled_specs" not in run.metadata["start"]


def test_several_descriptors(catalog):
    """Each event has its own descriptor, and each descriptor its own configuration, hints and keys."""
    run = event_model.compose_run()
    configuration = [
        {"det": {"data": {"gain": gain}, "timestamps": {"gain": 1.0}, "data_keys": {"gain": NUMBER}}}
        for gain in (1.0, float("nan"), 3.0)
    ]
    bundles = [
        run.compose_descriptor(
            name="primary",
            validate=False,
            data_keys={"x": NUMBER, **more},
            configuration=configuration[number],
            object_keys={"det": ["x"]},
            hints={"det": {"fields": ["x"][:number]}},
        )
        for number, more in enumerate([{}, {}, {"y": NUMBER}])
    ]
    pairs = [("start", run.start_doc)]
    for number, bundle in enumerate(bundles):
        pairs.append(("descriptor", bundle.descriptor_doc))
        data = {key: float(number) for key in bundle.descriptor_doc["data_keys"]}
        pairs.append(("event", bundle.compose_event(data=data, timestamps=dict.fromkeys(data, 5.0), seq_num=1)))
    event = bundles[0].compose_event(data={"x": 7.0}, timestamps={"x": 5.0}, seq_num=1)
    pairs += [("event", event), ("stop", run.compose_stop())]
    had, _ = written(catalog, pairs)
    same(had, pairs)


def test_streams_in_turn(catalog):
    """Events of several streams come back in the order in which they were emitted, rewinds included."""
    run = event_model.compose_run()
    bundles = {name: run.compose_descriptor(name=name, data_keys={"x": NUMBER}) for name in ("b", "a")}
    pairs = [("start", run.start_doc), *(("descriptor", bundle.descriptor_doc) for bundle in bundles.values())]
    for stream, seq_num in [("a", 1), ("b", 1), ("a", 2), ("a", 2), ("b", 1), ("b", 2), ("a", 3)]:
        event = bundles[stream].compose_event(data={"x": 1.0}, timestamps={"x": 5.0}, seq_num=seq_num)
        pairs.append(("event", {**event, "time": 5.0}))
    pairs.append(("stop", run.compose_stop()))
    had, _ = written(catalog, pairs)
    same(had, pairs)


def test_filled_events(catalog):
    """Arrays that came with their events come back, and what ``filled`` said of them."""
    for filled in ({"image": True}, {"image": "datum"}, {}, None):
        pairs = events_of({"image": IMAGE}, {"image": [[[1, 2], [3, 4]]]})
        event = {key: value for key, value in pairs[2][1].items() if key != "filled"}
        pairs[2] = ("event", event if filled is None else {**event, "filled": filled})
        had, _ = written(catalog, pairs)
        same(had, pairs)


def test_resource_that_nobody_can_read(catalog):
    """Documents of a spec that cannot be registered come back, so that a handler can read them."""
    pairs = image_documents(Path("/a"), "ODD", row=3, column=4)
    had, _ = written(catalog, pairs)
    same(had, pairs)


def test_resource_of_an_earlier_run(catalog):
    """A staging that outlives a run: the later run, too, has the resource that its datums refer to."""
    runs = [event_model.compose_run() for _ in range(2)]
    resource = runs[0].compose_resource(spec="AD_HDF5", root="/", resource_path="a.h5", resource_kwargs={})
    for number, run in enumerate(runs):
        bundle = run.compose_descriptor(name="primary", data_keys={"image": IMAGE})
        datum = resource.compose_datum(datum_kwargs={"point_number": number})
        data = {"image": datum["datum_id"]}
        event = bundle.compose_event(data=data, timestamps={"image": 5.0}, filled={"image": False})
        pairs = [("start", run.start_doc), ("descriptor", bundle.descriptor_doc), ("resource", resource.resource_doc)]
        pairs += [("datum", datum), ("event", event), ("stop", run.compose_stop())]
        if number == 0:
            writer = CatalogWriter(catalog.client, settle=0.0)
        for name, doc in pairs:
            if number == 0 or name != "resource":
                writer(name, doc)
        same(list(documents(catalog.client[run.start_doc["uid"]])), pairs)
    writer.close()


def test_fly_scan(catalog):
    """Stream documents come back although there are no events."""
    run = event_model.compose_run()
    bundle = run.compose_descriptor(name="fly", data_keys={"image": {**IMAGE, "external": "STREAM:"}})
    resource = run.compose_stream_resource(
        mimetype="application/x-hdf5", uri="file://localhost/a.h5", data_key="image", parameters={"dataset": "d"}
    )
    pairs = [("start", run.start_doc), ("descriptor", bundle.descriptor_doc)]
    pairs.append(("stream_resource", resource.stream_resource_doc))
    for start in (0, 5, 20):
        ranges = [event_model.StreamRange(start=start + first, stop=start + first + 5) for first in (0, 1)]
        pairs.append(("stream_datum", resource.compose_stream_datum(*ranges, bundle.descriptor_doc)))
    pairs.append(("stop", run.compose_stop()))
    had, _ = written(catalog, pairs)
    same(had, pairs)


def test_run_that_goes_on(catalog):
    """Of an open run there is what was written so far."""
    pairs = events_of({"x": NUMBER}, {"x": 1.0}, {"x": 2.0})
    with CatalogWriter(catalog.client) as writer:
        writer(*pairs[0])
        writer.flush()
        same(list(documents(catalog.client[pairs[0][1]["uid"]])), pairs[:1])
        for name, doc in pairs[1:-1]:
            writer(name, doc)
        writer.flush()
        same(list(documents(catalog.client[pairs[0][1]["uid"]])), pairs[:-1])


@pytest.mark.filterwarnings("ignore:Tiled server does not support remote validation:UserWarning")
def test_the_stock_client_is_not_disturbed(catalog):
    """The stock client sees neither a key nor a document more than before."""
    pairs = events_of({"x": NUMBER, "n": {**NUMBER, "dtype": "integer"}}, {"x": 1.0, "n": 1}, {"x": 2.0, "n": None})
    _, run = written(catalog, pairs)
    assert set(run["primary"].read()) == {"x", "n"}
    assert [name for name, _ in run.documents()] == ["start", "descriptor", "event", "event", "stop"]
    assert run.validate(write_notes=False)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_run_of_another_writer(catalog, caplog):
    """A run that has no records is refused, with what to do."""
    from bluesky_tiled_plugins.writing.tiled_writer import TiledWriter

    pairs = events_of({"x": NUMBER}, {"x": 1.0})
    with caplog.at_level(logging.CRITICAL):
        writer = TiledWriter(catalog.client)
        for name, doc in pairs:
            writer(name, dict(doc))
    with pytest.raises(DocumentError, match=r"stream 'primary' has no column 'ts__event'.*Take what run.documents"):
        list(documents(catalog.client[pairs[0][1]["uid"]]))
