"""Values that tables, arrays and JSON do not have: none changes without a word, and documents() has each as it came."""

import datetime
import math

import event_model
import numpy as np
import pytest
from spooled import run_documents

from bluesky_filestore import CatalogWriter, documents
from bluesky_filestore.model.event_record import exact_json, from_exact_json

WHEN = datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)


def write(catalog, spool, values, dtype="number", pause=0.0, **metadata):
    """A run with a key of these values beside a plain one; its node, its documents and the writer's status."""
    run = event_model.compose_run(metadata=metadata, validate=False)
    plain = {"source": "s", "dtype": "number", "shape": []}
    keys = {"value": {"source": "s", "dtype": dtype, "shape": []}, "plain": plain}
    bundle = run.compose_descriptor(name="primary", data_keys=keys, validate=False)
    pairs = [("start", run.start_doc), ("descriptor", bundle.descriptor_doc)]
    for number, value in enumerate(values):
        data = {"value": value, "plain": float(number)}
        pairs.append(("event", bundle.compose_event(data=data, timestamps=dict.fromkeys(data, 1.0), validate=False)))
    pairs.append(("stop", run.compose_stop()))
    with CatalogWriter(catalog.client, spool=spool, interval=0.05, validate=False) as writer:
        for name, doc in pairs:
            writer(name, doc)
            if pause and name == "event":
                writer.flush()
    return catalog.client[run.start_doc["uid"]], pairs, writer.status()


def same(one, other):
    """Whether two values are the same, NaN being NaN, and arrays lists."""
    return exact_json(one) == exact_json(other)


@pytest.mark.parametrize(
    ("values", "dtype", "note"),
    [
        ([True, False, None], "boolean", "has empty cells, beside which clients read True and False as text"),
        ([1, None, 2**60 + 1], "integer", "those beyond 2**53 are rounded"),
        ([1, None, 3], "integer", ""),
        ([2**63, 2**64 - 1], "integer", "is text, that of JSON"),
        ([WHEN, WHEN], "string", ""),
        ([1.5, "a"], "number", "is text, that of JSON"),
        ([b"a", b"b"], "string", ""),
        ([{(1, 2): 3}, {"a": 1}], "string", ""),
        ([{1: {2: 3}}, {"!bytes": 1}], "string", ""),
        ([np.complex128(1j), np.complex64(2)], "number", "type complex"),
        ([np.longdouble("0.1"), 2.0], "number", "longdouble is kept as 0.1"),
        ([np.ma.masked, 2.0], "number", "MaskedConstant is kept as None"),
        ([np.ma.masked_array([1.0, 2.0], [0, 1]), np.ma.masked_array([1.0, 2.0], [0, 0])], "array", "are NaN"),
        ([np.ma.masked_array([1, 2], [0, 1]), [3, 4]], "array", "stored as JSON text"),
        ([np.ones(2, ">f8"), np.ones(2, ">f8")], "array", ""),
        ([np.ones(2, np.longdouble) / 3, np.ones(2, np.longdouble)], "array", "ndarray is kept as"),
        ([np.array(["1", "2"]), np.array(["a", "b"])], "array", "stored as JSON text"),
        ([[1.0, 2.0], [3.0]], "array", "stored as JSON text"),
    ],
)
def test_values_of_events(catalog, tmp_path, values, dtype, note):
    """Each event is there with its other values; what is of another type says so."""
    run, pairs, status = write(catalog, tmp_path / "spool", values, dtype)
    assert run["primary"].read()["plain"].values.tolist() == [float(number) for number in range(len(values))]
    notes = run.metadata["notes"]
    assert any(note in one for one in notes) if note else not notes
    assert sum(len(each.parked) for each in status.catalogs) == 0
    if "complex" in note or "is kept as" in note:
        assert any(note in problem for problem in status.problems)
        return
    sent = [doc["data"]["value"] for name, doc in pairs if name == "event"]
    back = [doc["data"]["value"] for name, doc in documents(run) if name == "event"]
    assert len(back) == len(sent)
    assert all(map(same, back, sent)), back


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (math.nan, None),
        (math.inf, None),
        ({"deep": [1.0, -math.inf]}, {"deep": [1.0, None]}),
        (2**64, str(2**64)),
        pytest.param(-(10**5000), hex(-(10**5000)), id="huge"),
        (2**64 - 1, 2**64 - 1),
        (WHEN, str(WHEN)),
        (b"a", "b'a'"),
        ({(0, 1): "left"}, {"(0, 1)": "left"}),
        ({3: 1}, {"3": 1}),
        (np.array([1.0, math.nan]), [1.0, None]),
        (np.float64(1.5), 1.5),
    ],
)
def test_values_of_metadata(catalog, tmp_path, value, stored):
    """What JSON has no number for is null, never a text that looks like one; documents() has it as it came."""
    run, _, _ = write(catalog, tmp_path / "spool", [1.0], sample=value)
    assert run.metadata["start"]["sample"] == stored
    assert same(dict(documents(run))["start"]["sample"], value)
    is_changed = (not same(value, stored) and not isinstance(value, dict)) or "deep" in str(value)
    assert any("of the start, 1 values are null or text" in one.lower() for one in run.metadata["notes"]) == is_changed


@pytest.mark.parametrize("timestamp", [math.nan, math.inf, 5, None, "now"])
def test_timestamps(catalog, tmp_path, timestamp):
    """Whatever a timestamp is, documents() has it."""
    _, pairs = run_documents(2)
    pairs = [
        (name, {**doc, "timestamps": dict.fromkeys(doc["timestamps"], timestamp)} if name == "event" else doc)
        for name, doc in pairs
    ]
    with CatalogWriter(catalog.client, spool=tmp_path, interval=0.05, validate=False) as writer:
        for name, doc in pairs:
            writer(name, doc)
    back = [doc["timestamps"] for name, doc in documents(catalog.client[pairs[0][1]["uid"]]) if name == "event"]
    sent = [doc["timestamps"] for name, doc in pairs if name == "event"]
    assert len(back) == len(sent)
    assert all(map(same, back, sent)), back


ODD_NAMES = [
    "a\nb",
    "a\0b",
    "a/b",
    "..",
    "",
    "a%20b",
    "a?",
    "k" * 300,
    "\u00fc" * 120,
    "a\udcff",
    "\udcff",
    "a'b",
    "_a",
    "a--b",
]


@pytest.mark.parametrize("values", [[1.0, 2.0], ["a", "b"], [[1, 2], [3, 4]]])
def test_keys_of_any_name(catalog, tmp_path, values):
    """What no node and no column can be called is in a column of another name; all other keys stay what they are."""
    run = event_model.compose_run()
    plain = {"source": "s", "dtype": "number", "shape": []}
    kind = {list: "array", str: "string", float: "number"}[type(values[0])]
    keys = {key: {**plain, "dtype": kind} for key in ODD_NAMES} | {"plain": plain}
    bundle = run.compose_descriptor(name="primary", data_keys=keys, validate=False)
    sent = [{**dict.fromkeys(ODD_NAMES, value), "plain": float(number)} for number, value in enumerate(values)]
    with CatalogWriter(catalog.client, spool=tmp_path, interval=0.05) as writer:
        writer("start", run.start_doc)
        writer("descriptor", bundle.descriptor_doc)
        for data in sent:
            writer("event", bundle.compose_event(data=data, timestamps=dict.fromkeys(data, 1.0), validate=False))
        writer("stop", run.compose_stop())
    assert sum(len(each.parked) for each in writer.status().catalogs) == 0
    node = catalog.client[run.start_doc["uid"]]
    assert node["primary"].read()["plain"].values.tolist() == [0.0, 1.0]
    back = [doc["data"] for name, doc in documents(node) if name == "event"]
    assert back == sent


@pytest.mark.parametrize("pause", [0.0, 0.01])
def test_array_that_turns_ragged(catalog, tmp_path, pause):
    """Whatever becomes of one key, the stock client reads the stream."""
    values = [[1.0, 2.0], [3.0, 4.0], [5.0], [6.0, 7.0]]
    run, _, _ = write(catalog, tmp_path / "spool", values, "array", pause)
    read = run["primary"].read()
    assert read["plain"].values.tolist() == [0.0, 1.0, 2.0, 3.0]
    back = [doc["data"]["value"] for name, doc in documents(run) if name == "event"]
    assert back == values


@pytest.mark.parametrize(
    "value",
    [
        {1: "a"},
        {"!bytes": "61"},
        {(1, (2, 3)): [b"x", {None: WHEN}]},
        {"a": 1j},
        [[], {}],
        pytest.param([10**5000, {10**5000: -(10**5000)}, {"!integer": "1"}], id="huge"),
    ],
)
def test_exact_json(value):
    """What goes into exact JSON comes out of it."""
    assert from_exact_json(exact_json(value)) == value


@pytest.mark.parametrize("depth", [150, 450, 900, 3000])
def test_values_that_are_nested_deeply(catalog, tmp_path, depth):
    """A value that is nested more deeply than anybody can read costs at most itself."""
    value = []
    for _ in range(depth):
        value = [value]
    run, _, status = write(catalog, tmp_path / "spool", [value, 2.0], "string", sample=value)
    assert run["primary"].base["internal"].read(["plain"])["plain"].tolist() == [0.0, 1.0]
    assert sum(len(each.parked) for each in status.catalogs) == 0
    assert "sample" in run.metadata["start"]
