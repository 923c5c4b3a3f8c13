"""What bluesky-tiled-plugins' own clients, and whoever else reads a run with Tiled alone, make of our runs."""

import json

import event_model
import h5py
import numpy as np
import pandas
import pytest
import tifffile
from bluesky_tiled_plugins.queries import PartialUID, ScanID, ScanIDRange, TimeRange
from bluesky_tiled_plugins.writing.validator import ValidationException
from serving import configured_server
from tiled.client import from_uri
from tiled.queries import FullText, Key
from tiled.structures.core import Spec

from bluesky_filestore import CatalogWriter, documents

SHAPE = (4, 6)
EVENTS = 6
EXPORTER = "bluesky_tiled_plugins.exporters:json_seq_exporter"


def configuration(directory, data):
    """The configuration of a stock server that exports documents as bluesky-tiled-plugins' instructions say."""
    return {
        "authentication": {"single_user_api_key": "secret"},
        "trees": [
            {
                "path": "/",
                "tree": "catalog",
                "args": {
                    "uri": f"sqlite:///{directory}/catalog.db",
                    "init_if_not_exists": True,
                    "writable_storage": [str(directory / "storage"), f"sqlite:///{directory}/tables.db"],
                    "readable_storage": [str(data)],
                },
            }
        ],
        "routers": ["bluesky_tiled_plugins.routers.validator:router"],
        "media_types": {"BlueskyRun": {"application/json-seq": EXPORTER}},
    }


@pytest.fixture(scope="module", params=["stock", "ours"])
def place(request, tmp_path_factory):
    """A client of a server, and a directory that the server can read."""
    data = request.getfixturevalue("data_directory") / f"clients {request.param}"
    data.mkdir()
    if request.param == "ours":
        yield request.getfixturevalue("catalog").client, data
        return
    directory = tmp_path_factory.mktemp("server")
    with configured_server(configuration(directory, data), directory) as uri:
        client = from_uri(uri, api_key="secret")
        yield client, data
        client.context.close()


def documents_of(directory, name, **metadata):
    """A run of numbers, texts and frames of an HDF5 file and a TIFF series, with configuration and hints."""
    frames = np.arange(24 * EVENTS).reshape(EVENTS, *SHAPE).astype("<u2")
    with h5py.File(directory / f"{name}.h5", "w") as file:
        file["/entry/data/data"] = frames
    for number, frame in enumerate(frames):
        tifffile.imwrite(directory / f"{name}_{number}.tiff", frame + 1)
    run = event_model.compose_run(metadata={"plan_name": "count", **metadata})
    image = {"source": "s", "dtype": "array", "shape": [1, *SHAPE], "dtype_numpy": "<u2", "external": "FILESTORE:"}
    keys = {
        "x": {"source": "s", "dtype": "number", "shape": []},
        "name": {"source": "s", "dtype": "string", "shape": []},
        "hdf5": image,
        "tiff": image,
    }
    configuration = {"det": {"data": {"gain": 2.0}, "timestamps": {"gain": 1.0}, "data_keys": {"gain": keys["x"]}}}
    bundle = run.compose_descriptor(
        name="primary", data_keys=keys, configuration=configuration, hints={"det": {"fields": ["x"]}}
    )
    pairs = [("start", run.start_doc), ("descriptor", bundle.descriptor_doc)]
    kwargs = {"hdf5": {}, "tiff": {"template": "%s%s_%d.tiff", "filename": name}}
    resources = {
        key: run.compose_resource(
            spec=f"AD_{key.upper()}",
            root=str(directory),
            resource_path=f"{name}.h5" if key == "hdf5" else "",
            resource_kwargs={"frame_per_point": 1, **kwargs[key]},
        )
        for key in kwargs
    }
    pairs += [("resource", resource.resource_doc) for resource in resources.values()]
    for event in range(EVENTS):
        data = {"x": float(event), "name": f"point {event}"}
        for key, resource in resources.items():
            datum = resource.compose_datum(datum_kwargs={"point_number": event})
            pairs.append(("datum", datum))
            data[key] = datum["datum_id"]
        doc = bundle.compose_event(data=data, timestamps=dict.fromkeys(data, 5.0), filled=dict.fromkeys(kwargs, False))
        pairs.append(("event", doc))
    return [*pairs, ("stop", run.compose_stop())], frames[:, np.newaxis]


def written(client, pairs):
    """The run, as the stock client has it."""
    with CatalogWriter(client) as writer:
        for name, doc in pairs:
            writer(name, doc)
    return client[pairs[0][1]["uid"]]


@pytest.fixture(scope="module")
def run(place):
    """A run, its documents and its frames."""
    client, data = place
    pairs, frames = documents_of(data, "run")
    return written(client, pairs), pairs, frames


def only(pairs, kind):
    """The documents of one kind."""
    return [dict(doc) for name, doc in pairs if name == kind]


def test_run(run):
    """BlueskyRun has start, stop, descriptors and streams."""
    node, pairs, _ = run
    assert type(node).__name__ == "BlueskyRunV3"
    assert (node.start, node.stop) == (pairs[0][1], pairs[-1][1])
    (descriptor,) = node.descriptors
    assert {**only(pairs, "descriptor")[0], "object_keys": {}} == descriptor
    assert list(node) == ["primary"]
    assert pairs[0][1]["uid"][:8] in repr(node)


def test_stream(run):
    """BlueskyEventStream reads all, some, and the timestamps; its columns are at hand by name."""
    node, _, frames = run
    stream = node["primary"]
    assert type(stream).__name__ == "BlueskyEventStreamV3"
    dataset = stream.read()
    assert dataset["x"].values.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert dataset["name"].values.tolist() == [f"point {event}" for event in range(EVENTS)]
    np.testing.assert_array_equal(dataset["hdf5"].values, frames)
    np.testing.assert_array_equal(dataset["tiff"].values, frames + 1)
    assert set(stream.read(variables=["x", "ts_x"]).data_vars) == {"x", "ts_x"}
    assert stream["ts_x"].read().tolist() == [5.0] * EVENTS
    np.testing.assert_array_equal(stream["hdf5"][2], frames[2])


def test_documents(run):
    """run.documents() gives start, descriptor, events and stop as they were, but for the uids of events."""
    node, pairs, _ = run
    told = [(name, doc) for name, doc in node.documents()]
    assert (dict(told[0][1]), dict(told[-1][1])) == (pairs[0][1], pairs[-1][1])
    assert [doc["uid"] for doc in only(told, "descriptor")] == [only(pairs, "descriptor")[0]["uid"]]
    numbers = [(doc["seq_num"], doc["data"]["x"], doc["data"]["name"]) for doc in only(told, "event")]
    assert numbers == [(doc["seq_num"], doc["data"]["x"], doc["data"]["name"]) for doc in only(pairs, "event")]
    assert {doc["data_key"] for doc in only(told, "stream_resource")} == {"hdf5", "tiff"}
    for doc in only(told, "stream_datum"):
        assert doc["indices"]["stop"] - doc["indices"]["start"] == EVENTS


def test_validate(place):
    """The plugins' validator finds nothing to mend; on a stock server it would have a chunk a file of a series.

    Stock servers are asked once for each chunk, whatever its size: such chunks are not registered of themselves.
    """
    client, data = place
    pairs, frames = documents_of(data, "valid")
    node = written(client, pairs)
    before = node["primary"]["tiff"].chunks
    if "stock" in data.name:
        with pytest.raises(ValidationException, match=r"of 'primary/tiff' failed: Chunk shape mismatch"):
            node.validate(fix_errors=False, raise_on_error=True)
        with pytest.warns(UserWarning, match=r"'primary/tiff': Fixed chunk shape mismatch: \(6, .* -> \(1, "):
            assert node.validate(raise_on_error=True)
    else:
        assert node.validate(fix_errors=False, raise_on_error=True)
        assert node.validate(raise_on_error=True)
        assert client[pairs[0][1]["uid"]]["primary"]["tiff"].chunks == before
    np.testing.assert_array_equal(node["primary"]["hdf5"].read(), frames)
    np.testing.assert_array_equal(node["primary"]["tiff"].read(), frames + 1)


def test_exports(run, tmp_path):
    """A run, its table and its arrays go into files of the formats that Tiled has.

    HDF5 is none of them: Tiled makes it of nothing with nested metadata, which all Bluesky runs have.
    """
    node, _, frames = run
    stream = node["primary"]
    stream.base["internal"].export(tmp_path / "table.csv")
    assert pandas.read_csv(tmp_path / "table.csv")["x"].tolist() == list(range(EVENTS))
    for key, expected in (("hdf5", frames), ("tiff", frames + 1)):
        stream[key].export(tmp_path / "image.raw", format="application/octet-stream")
        assert (tmp_path / "image.raw").read_bytes() == expected.tobytes()
        stream[key].export(tmp_path / "image.tiff", slice=np.s_[3, 0])
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "image.tiff"), expected[3, 0])
    node.export(tmp_path / "run.json-seq", format="application/json-seq")
    names = [json.loads(line)["name"] for line in (tmp_path / "run.json-seq").read_text().split("\x1e")[1:]]
    assert (names[0], names[-1], names.count("event")) == ("start", "stop", EVENTS)
    node.export(tmp_path / "run.json", format="application/json")
    assert json.loads((tmp_path / "run.json").read_text())["metadata"]["start"]["plan_name"] == "count"


def test_queries(place):
    """The plugins' catalog of runs finds runs by scan id, uid, time and metadata."""
    client, data = place
    root = client.create_container("runs", specs=[Spec("CatalogOfBlueskyRuns", version="3.0")])
    uids = {}
    for scan_id in (3, 4, 5):
        pairs, _ = documents_of(data, f"scan{scan_id}", scan_id=scan_id, sample=f"sample{scan_id}")
        uids[scan_id] = pairs[0][1]["uid"]
        written(root, pairs)
    catalog = client["runs"]
    assert type(catalog).__name__ == "CatalogOfBlueskyRuns"
    found = {
        "scan id": list(catalog.search(ScanID(4))),
        "range": list(catalog.search(ScanIDRange(4, 6))),
        "uid": list(catalog.search(PartialUID(uids[3][:10]))),
        "time": list(catalog.search(TimeRange(since="2020", timezone="UTC"))),
        "later": list(catalog.search(TimeRange(since="2120", timezone="UTC"))),
        "key": list(catalog.search(Key("start.sample") == "sample5")),
        "text": list(catalog.search(FullText("sample5"))),
    }
    assert {name: set(keys) for name, keys in found.items()} == {
        "scan id": {uids[4]},
        "range": {uids[4], uids[5]},
        "uid": {uids[3]},
        "time": set(uids.values()),
        "later": set(),
        "key": {uids[5]},
        "text": {uids[5]},
    }
    assert catalog[4].start["uid"] == uids[4]
    assert catalog[uids[5][:10]].start["uid"] == uids[5]
    assert catalog[-1].start["uid"] == uids[5]


def test_wide_stream(place):
    """A stream of 2,000 numbers is read as a whole and by column, and its documents come back.

    With run.documents() only from a server that uses our exporter: the plugins' own takes every table but the first
    for an array, and no table of SQLite's or PostgreSQL's has room for so many columns and their timestamps.
    """
    client, data = place
    composed = event_model.compose_run()
    number = {"source": "s", "dtype": "number", "shape": []}
    bundle = composed.compose_descriptor(name="primary", data_keys={f"k{n}": number for n in range(2000)})
    pairs = [("start", composed.start_doc), ("descriptor", bundle.descriptor_doc)]
    for event in range(3):
        values = {f"k{n}": float(n + event) for n in range(2000)}
        doc = bundle.compose_event(data=values, timestamps=dict.fromkeys(values, 1.0 + event), filled={})
        pairs.append(("event", doc))
    pairs.append(("stop", composed.compose_stop()))
    node = written(client, pairs)
    dataset = node["primary"].read()
    assert len(dataset.data_vars) == 2000
    assert dataset["k1999"].values.tolist() == [1999.0, 2000.0, 2001.0]
    assert node["primary"]["ts_k1500"].read().tolist() == [1.0, 2.0, 3.0]
    assert list(documents(node)) == pairs
    if "ours" in data.name:
        told = [(doc["seq_num"], doc["data"], doc["timestamps"]) for name, doc in node.documents() if name == "event"]
        assert told == [(doc["seq_num"], doc["data"], doc["timestamps"]) for doc in only(pairs, "event")]


def test_a_detector_that_lags_behind(catalog, data_directory, tmp_path):
    """Of a fly scan of which one detector has fewer frames all that there is is read, and what lacks is said."""
    with h5py.File(data_directory / "lags.h5", "w") as file:
        file["/d"] = np.arange(24, dtype="<u2").reshape(4, 2, 3)
    run = event_model.compose_run()
    key = {"source": "s", "dtype": "array", "shape": [1, 2, 3], "dtype_numpy": "<u2", "external": "STREAM:"}
    bundle = run.compose_descriptor(name="primary", data_keys={"first": key, "second": key})
    pairs = [("start", run.start_doc), ("descriptor", bundle.descriptor_doc)]
    for name, count in (("first", 4), ("second", 3)):
        made = run.compose_stream_resource(
            mimetype="application/x-hdf5",
            uri=f"file://localhost{data_directory}/lags.h5",
            data_key=name,
            parameters={"dataset": "/d", "chunk_shape": (1,)},
        )
        pairs.append(("stream_resource", made.stream_resource_doc))
        datum = made.compose_stream_datum(
            indices={"start": 0, "stop": count},
            seq_nums={"start": 1, "stop": count + 1},
            descriptor=bundle.descriptor_doc,
        )
        pairs.append(("stream_datum", datum))
    with CatalogWriter(catalog.client, spool=tmp_path) as writer:
        for name, doc in [*pairs, ("stop", run.compose_stop())]:
            writer(name, doc)
    node = catalog.client[run.start_doc["uid"]]
    read = node["primary"].read()
    assert [len(read[name]) for name in ("first", "second")] == [4, 3]
    missing = {"events": [3], "reason": "its stream_datums speak of 3 of the 4 points of its stream"}
    assert node.metadata["filestore"]["missing"] == {"primary": {"second": missing}}
    assert any("'second' in stream 'primary' ends before the events do" in note for note in node.metadata["notes"])
