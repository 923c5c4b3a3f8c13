"""Documents of a run in, operations out: no catalog, no file."""

import copy
import json

import event_model
import numpy as np
import pytest

from bluesky_filestore.errors import CatalogUnreachableError, DocumentError
from bluesky_filestore.model.addressing import FILE_SERIES, HANDLED, HDF5_ROWS
from bluesky_filestore.model.file_facts import FileFacts, Unseen
from bluesky_filestore.model.frame_map import Assets
from bluesky_filestore.model.normalize import unpacked
from bluesky_filestore.model.ragged_rows import RAGGED
from bluesky_filestore.model.specs import HDF5, OPAQUE
from bluesky_filestore.operations.operations import (
    AppendArray,
    AppendRows,
    CloseRun,
    CreateRun,
    CreateStream,
    DropArray,
    PlaceArray,
    UpdateStream,
)
from bluesky_filestore.operations.placement import reads_nothing_of_ours
from bluesky_filestore.operations.run import Run, announce

NUMBER = {"source": "s", "dtype": "number", "shape": []}
IMAGE = {"source": "s", "dtype": "array", "shape": [1, 4, 6], "dtype_numpy": "<u2", "external": "FILESTORE:"}


class Writing:
    """A run, and what it was composed of."""

    def __init__(self, data_keys=None, facts=None, reads=reads_nothing_of_ours, **metadata):
        self.facts = facts or FileFacts((100, 4, 6), "<u2")
        self.composed = event_model.compose_run(metadata=metadata)
        self.assets = Assets()
        self.run = Run(self.composed.start_doc, self.assets, lambda _source, files: [self.facts] * len(files), reads)
        self.uid = self.run.uid
        self.stream = self.describe(data_keys or {"x": NUMBER, "image": IMAGE})
        self.resource = self.composed.compose_resource(
            spec="AD_HDF5", root="/data", resource_path="a.h5", resource_kwargs={"frame_per_point": 1}
        )
        announce("resource", self.resource.resource_doc, self.assets)

    def describe(self, data_keys, name="primary", **more):
        """Another descriptor."""
        bundle = self.composed.compose_descriptor(name=name, data_keys=data_keys, **more)
        self.run.receive("descriptor", bundle.descriptor_doc)
        return bundle

    def event(self, stream=None, **data):
        """Another event."""
        stream = stream or self.stream
        filled = {key: False for key, entry in stream.descriptor_doc["data_keys"].items() if "external" in entry}
        doc = stream.compose_event(
            data=data, timestamps=dict.fromkeys(data, 5.0), filled={key: False for key in filled if key in data}
        )
        self.run.receive("event", doc)
        return doc

    def datum(self, index):
        """The id of a datum that was announced."""
        datum = self.resource.compose_datum(datum_kwargs={"point_number": index})
        announce("datum", datum, self.assets)
        return datum["datum_id"]

    def stop(self):
        """Stop, and take what is left."""
        self.run.receive("stop", self.composed.compose_stop())
        return self.run.take()


def only(operations, kind):
    """The operations of one kind."""
    return [operation for operation in operations if isinstance(operation, kind)]


def test_whole_run():
    """A run, its stream, its rows, its array, and its end, in this order."""
    writing = Writing(plan_name="count")
    for index in range(3):
        writing.event(x=float(index), image=writing.datum(index))
    operations = writing.stop()
    assert [type(operation) for operation in operations] == [CreateRun, CreateStream, AppendRows, PlaceArray, CloseRun]
    created, stream, rows, array, closed = operations
    assert created.metadata["start"]["plan_name"] == "count"
    assert stream.metadata["data_keys"]["image"]["external"] == "FILESTORE:"
    assert not {"name", "run_start", "object_keys"} & set(stream.metadata)
    assert rows.columns["seq_num"] == [1, 2, 3]
    assert rows.columns["x"] == [0.0, 1.0, 2.0]
    assert rows.columns["ts_image"] == [5.0, 5.0, 5.0]
    assert rows.types == {
        "seq_num": "int64",
        "time": "float64",
        "ts__event": "string",
        "x": "float64",
        "ts_x": "float64",
        "ts_image": "float64",
    }
    assert (array.shape, array.dtype, array.files) == ((3, 1, 4, 6), "<u2", ("/data/a.h5",))
    assert array.parameters == {"dataset": "/entry/data/data", "slice": "0:3"}
    assert closed.metadata["stop"]["exit_status"] == "success"
    assert (closed.metadata["filestore"], closed.metadata["notes"]) == ({}, [])


def test_batches():
    """What was taken is not taken again; rows and arrays go on where they were."""
    writing = Writing()
    writing.event(x=1.0, image=writing.datum(0))
    writing.run.take()
    assert writing.run.take() == []
    writing.event(x=2.0, image=writing.datum(1))
    rows, array = writing.run.take()
    assert (rows.first_row, rows.columns["x"]) == (1, [2.0])
    assert (array.shape[0], array.parameters["slice"], array.files, array.first_file) == (2, "0:2", (), 1)
    assert array.dims[0] == "image_event"
    # Only the names of its axes are others at the end: it has one with the table then.
    ended, closed = writing.stop()
    assert (ended.dims, ended.files, ended.first_file) == (None, (), 1)
    assert isinstance(closed, CloseRun)


def test_received_documents_stay_as_they_are():
    """No document is changed on its way."""
    writing = Writing({"time": NUMBER, "image": IMAGE}, md={"a": np.int64(3)})
    descriptor = copy.deepcopy(writing.stream.descriptor_doc)
    doc = writing.event(time=1.0, image=writing.datum(0))
    before = copy.deepcopy(doc)
    writing.stop()
    assert (doc, writing.stream.descriptor_doc) == (before, descriptor)


def test_keys_that_the_table_needs():
    """A key named like a column of the table gets another name, which is noted."""
    writing = Writing({"time": NUMBER, "seq_num": NUMBER})
    writing.event(time=1.5, seq_num=7.0)
    operations = writing.stop()
    (rows,) = only(operations, AppendRows)
    assert (rows.columns["time_"], rows.columns["seq_num_"], rows.columns["seq_num"]) == ([1.5], [7.0], [1])
    assert set(only(operations, CreateStream)[0].metadata["data_keys"]) == {"time_", "seq_num_"}
    assert "Data key 'time' of stream 'primary' is called 'time_' here." in operations[-1].metadata["notes"]


def test_later_descriptors():
    """Further descriptors of a stream are kept as updates of its configuration."""
    writing = Writing({"x": NUMBER})
    configuration = {"det": {"data": {"gain": 2}, "timestamps": {"gain": 1.0}, "data_keys": {"gain": NUMBER}}}
    again = writing.describe({"x": NUMBER}, configuration=configuration)
    writing.event(again, x=3.0)
    (update,) = only(writing.stop(), UpdateStream)
    (entry,) = update.metadata["_config_updates"]
    assert entry["uid"] == again.descriptor_doc["uid"]
    assert entry["configuration"]["det"]["data"] == {"gain": 2}


def test_tags_and_specs_of_the_start():
    """The start document's instructions to the catalog are followed and taken out."""
    writing = Writing(tiled_access_tags=["chemists"], tiled_specs=["XAS", {"name": "Y", "version": "2"}])
    (created,) = only(writing.run.take(), CreateRun)
    assert created.access_tags == ("chemists",)
    assert created.specs == ({"name": "XAS"}, {"name": "Y", "version": "2"})
    assert not {"tiled_access_tags", "tiled_specs"} & set(created.metadata["start"])


def test_metadata_of_numpy():
    """Numpy's numbers, infinities and integers beyond JSON's come as JSON can hold them."""
    writing = Writing(array=np.arange(3), one=np.float32(0.5), big=2**60, huge=2**70, none=float("nan"))
    start = only(writing.run.take(), CreateRun)[0].metadata["start"]
    assert (start["array"], start["one"], start["big"]) == ([0, 1, 2], 0.5, 2**60)
    assert (start["huge"], start["none"]) == (str(2**70), None)


def columns(data_keys, *events):
    """The columns of a stream with these events, one batch each."""
    writing = Writing(data_keys)
    operations = []
    for data in events:
        writing.event(**data)
        operations += writing.run.take()
    return [*operations, *writing.stop()]


@pytest.mark.parametrize(
    ("dtype", "values", "kind", "stored"),
    [
        ("integer", [1, 2], "int64", [1, 2]),
        ("number", [1, 2], "float64", [1.0, 2.0]),
        ("number", [2**60, 1], "int64", [2**60, 1]),
        ("integer", [np.int32(1), np.uint8(2)], "int64", [1, 2]),
        ("integer", [1, None], "int64", [1, None]),
        ("integer", [1, 1.5], "float64", [1.0, 1.5]),
        ("integer", [2**60, 1.5], "string", [str(2**60), "1.5"]),
        ("integer", [2**70], "string", [str(2**70)]),
        ("boolean", [True, np.False_], "bool", [True, False]),
        ("string", ["a", ""], "string", ["a", ""]),
        ("string", ["a", 3], "string", ["a", "3"]),
        ("string", [{"a": np.int64(1)}], "string", ['{"a": 1}']),
        ("number", [None, None], "float64", [None, None]),
    ],
)
def test_types_of_columns(dtype, values, kind, stored):
    """A column is of the narrowest type that holds all its values."""
    writing = Writing({"x": {"source": "s", "dtype": dtype, "shape": []}})
    for value in values:
        writing.event(x=value)
    (rows,) = only(writing.stop(), AppendRows)
    assert (rows.types["x"], rows.columns["x"]) == (kind, stored)


def test_columns_become_wider():
    """A later value of another type widens its column, and the operation says so."""
    key = {"x": {"source": "s", "dtype": "integer", "shape": []}}
    rows = only(columns(key, {"x": 1}, {"x": 2.5}, {"x": "text"}), AppendRows)
    assert [part.types["x"] for part in rows] == ["int64", "float64", "string"]
    assert [part.columns["x"] for part in rows] == [[1], [2.5], ["text"]]


def test_arrays_in_events():
    """Arrays of one shape stand beside the table."""
    key = {"w": {"source": "s", "dtype": "array", "shape": [3]}}
    parts = only(columns(key, {"w": [1, 2, 3]}, {"w": np.array([4, 5, 6])}), AppendArray)
    assert [part.first_row for part in parts] == [0, 1]
    assert np.concatenate([part.values for part in parts]).tolist() == [[1, 2, 3], [4, 5, 6]]


def test_ragged_arrays_in_events():
    """Arrays that differ in shape from the start are kept as text; those that change later end, with a note."""
    key = {"w": {"source": "s", "dtype": "array", "shape": [3]}}
    writing = Writing(key)
    for value in ([1, 2], [1, 2, 3], []):
        writing.event(w=value)
    (rows,) = only(writing.stop(), AppendRows)
    assert rows.columns["w"] == ["[1, 2]", "[1, 2, 3]", "[]"]
    operations = columns(key, {"w": [1, 2]}, {"w": [1, 2, 3]}, {"w": [1, 2]})
    assert len(only(operations, AppendArray)) == 1
    assert [rows.columns.get("w_") for rows in only(operations, AppendRows)] == [None, ["[1, 2, 3]"], ["[1, 2]"]]
    assert "The array 'w' in stream 'primary' ends before event 1" in operations[-1].metadata["notes"][0]


def test_arrays_become_wider():
    """Integers that become fractions widen their array, as long as each of them is exact as a float."""
    key = {"w": {"source": "s", "dtype": "array", "shape": [2]}}
    wide = only(columns(key, {"w": [1, 2]}, {"w": [1, 2.5]}, {"w": [3, 4]}), AppendArray)
    assert [str(part.values.dtype) for part in wide] == ["int64", "float64", "float64"]


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ([1, 2**53 + 1], [0.5, 1.5]),
        ([0.5, 1.5], [1, 2**53 + 1]),
        ([0.5, 1.5], [1, 2**63 + 1]),
        ([1, 2], [1, 2**63 + 1]),
        ([1, 2], [True, False]),
        ([True, False], [1, 2]),
        ([1, 2], ["a", "b"]),
    ],
)
def test_arrays_that_no_type_holds(first, then):
    """What an array does not hold just as it came goes on as text."""
    key = {"w": {"source": "s", "dtype": "array", "shape": [2]}}
    operations = columns(key, {"w": first}, {"w": then}, {"w": first})
    assert [part.values.tolist() for part in only(operations, AppendArray)] == [[first]]
    texts = [rows.columns.get("w_") for rows in only(operations, AppendRows)]
    assert texts == [None, [json.dumps(then)], [json.dumps(first)]]


def test_lists_of_text():
    """Lists of text are text from the first event on, however long they become."""
    key = {"w": {"source": "s", "dtype": "array", "shape": [2], "dtype_numpy": "<U1"}}
    operations = columns(key, {"w": ["a", "b"]}, {"w": np.array(["a", "longer"])})
    assert not only(operations, AppendArray)
    assert [rows.columns["w"] for rows in only(operations, AppendRows)] == [['["a", "b"]'], ['["a", "longer"]']]
    assert "hold no numbers; they are stored as JSON text" in operations[-1].metadata["notes"][0]


def test_text_under_a_name_that_no_column_can_have():
    """Text whose key is no name for a column is in a column of another name, which a note says."""
    keys = {"who(1)": {"source": "s", "dtype": "string", "shape": []}}
    operations = columns(keys, {"who(1)": "a"}, {"who(1)": "longer"})
    assert [rows.columns["column_3"] for rows in only(operations, AppendRows)] == [["a"], ["longer"]]
    assert operations[-1].metadata["notes"] == [
        "'who(1)' in stream 'primary' is in the column 'column_3': no column can have its name."
    ]


def test_events_that_bring_their_frames():
    """An event that is filled has its array itself."""
    writing = Writing()
    for number in range(2):
        doc = writing.stream.compose_event(
            data={"x": 1.0, "image": np.full((1, 4, 6), number)},
            timestamps={"x": 5.0, "image": 5.0},
            filled={"image": "datum"},
            validate=False,
        )
        writing.run.receive("event", doc)
    operations = writing.stop()
    (array,) = only(operations, AppendArray)
    assert array.values[:, 0, 0, 0].tolist() == [0, 1]
    assert operations[-1].metadata["filestore"] == {}


def test_keys_that_no_descriptor_has():
    """Values under a key that the descriptor does not have are left out, with a note."""
    writing = Writing({"x": NUMBER})
    doc = dict(writing.event(x=1.0))
    writing.run.receive("event", {**doc, "data": {"x": 1.0, "y": 2.0}})
    assert "Keys ['y'] of events of stream 'primary' are not in" in writing.stop()[-1].metadata["notes"][0]


def test_names_that_no_column_can_have():
    """Values whose key is no name for a column stand beside the table."""
    keys = {"det(1)": NUMBER, "A": NUMBER, "a": NUMBER}
    operations = columns(keys, {"det(1)": 1.0, "A": 2.0, "a": 3.0})
    assert {part.data_key for part in only(operations, AppendArray)} == {"det(1)", "a"}
    assert "A" in only(operations, AppendRows)[0].columns


def test_very_wide_tables():
    """2,000 scalar keys come in several tables, none wider than a database takes."""
    keys = {f"k{number}": NUMBER for number in range(2000)}
    parts = only(columns(keys, dict.fromkeys(keys, 1.0)), AppendRows)
    assert [part.table for part in parts] == ["internal", "internal_1", "internal_2", "internal_3", "internal_4"]
    assert max(len(part.columns) for part in parts) == 1000
    assert sum(len(part.columns) for part in parts) == 4003


def test_irregular_rows():
    """An array that turns out not to be expressible is taken out again, the rest of the run stays."""
    writing = Writing()
    for index in (0, 1):
        writing.event(x=1.0, image=writing.datum(index))
    assert only(writing.run.take(), PlaceArray)
    writing.event(x=1.0, image=writing.datum(5))
    operations = writing.stop()
    assert [type(operation) for operation in operations] == [AppendRows, DropArray, CloseRun]
    said = operations[-1].metadata
    assert "no regular order" in said["filestore"]["refused"]["primary"]["image"]
    assert said["notes"][0].startswith("'image' in stream 'primary' is not registered: its 3 events")


def test_irregular_rows_of_an_earlier_life():
    """An array that was never expressible since this process began is taken out all the same, once."""
    writing = Writing()
    for index in (0, 1, 5):
        writing.event(x=1.0, image=writing.datum(index))
    assert len(only(writing.run.take(), DropArray)) == 1
    writing.event(x=1.0, image=writing.datum(2))
    assert not only(writing.stop(), DropArray)


class Server:
    """A server that has our adapters, or has not, or does not answer."""

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def __call__(self, mimetype):
        """Whether it reads the mimetype."""
        self.asked.append(mimetype)
        if self.answer is None:
            raise CatalogUnreachableError("no catalog answers")
        return self.answer


def test_irregular_rows_where_the_server_reads_them():
    """An array that becomes irregular goes on for our adapter, with the same files; the server is asked once."""
    server = Server(True)
    writing = Writing(reads=server)
    operations = []
    for index in (0, 1, 5, 5, 2):
        writing.event(x=1.0, image=writing.datum(index))
        operations += writing.run.take()
    placed = only(operations, PlaceArray)
    assert [operation.mimetype for operation in placed] == [HDF5, HDF5, HDF5_ROWS, HDF5_ROWS, HDF5_ROWS]
    assert [operation.files for operation in placed] == [("/data/a.h5",), (), (), (), ()]
    assert placed[-1].parameters["rows"] == [[0, 0, 2, 1], [0, 5, 2, 0], [0, 2, 1, 1]]
    assert not only(operations, DropArray)
    assert server.asked == [HDF5_ROWS, FILE_SERIES, HANDLED, RAGGED, OPAQUE]


def test_server_cannot_be_asked():
    """As long as nobody knows what the server reads nothing is taken, and nothing is lost."""
    server = Server(None)
    writing = Writing(reads=server)
    for index in (0, 5, 2):
        writing.event(x=1.0, image=writing.datum(index))
    stop = writing.composed.compose_stop()
    for ask in (writing.run.take, lambda: writing.run.receive("stop", stop)):
        with pytest.raises(CatalogUnreachableError, match="no catalog answers"):
            ask()
    server.answer = True
    writing.run.receive("stop", stop)
    operations = writing.run.take()
    assert only(operations, PlaceArray)[0].shape == (3, 1, 4, 6)
    assert len(only(operations, CloseRun)) == 1


def test_server_is_not_asked_in_vain():
    """A run without files does not ask what the server reads."""
    server = Server(None)
    writing = Writing({"x": NUMBER}, reads=server)
    writing.event(x=1.0)
    assert only(writing.run.take(), AppendRows)
    assert server.asked == []


def test_channels_of_a_spectrometer():
    """A datum with frame and channel is a row of that channel's part of the dataset, and is told as it came."""
    spectrum = {"source": "s", "dtype": "array", "shape": [7], "dtype_numpy": "<f8", "external": "FILESTORE:"}
    data_keys = {f"channel{channel}": spectrum for channel in (1, 3)}
    writing = Writing(data_keys, facts=FileFacts((10, 4, 7), "<f8"))
    resource = writing.composed.compose_resource(
        spec="XSP3", root="/data", resource_path="x.h5", resource_kwargs={}, validate=False
    )
    announce("resource", resource.resource_doc, writing.assets)
    datums = []
    for frame in range(3):
        for channel in (1, 3):
            datums.append(resource.compose_datum(datum_kwargs={"frame": frame, "channel": channel}))
            announce("datum", datums[-1], writing.assets)
        writing.event(channel1=datums[-2]["datum_id"], channel3=datums[-1]["datum_id"])
    operations = writing.stop()
    slices = {operation.data_key: operation.parameters["slice"] for operation in only(operations, PlaceArray)}
    assert slices == {"channel1": "0:3,0,:", "channel3": "0:3,2,:"}
    assert {operation.shape for operation in only(operations, PlaceArray)} == {(3, 7)}
    assert writing.assets.datum_document(datums[-1]["datum_id"]) == datums[-1]


@pytest.mark.parametrize("kwargs", [{"frame": 0}, {"frame": 0, "channel": 0}, {"frame": None, "channel": 1}])
def test_channels_that_are_none(kwargs):
    """A datum that names no channel, or not one from 1 on, is refused with the reason."""
    writing = Writing()
    resource = writing.composed.compose_resource(
        spec="XSP3", root="/data", resource_path="x.h5", resource_kwargs={}, validate=False
    )
    announce("resource", resource.resource_doc, writing.assets)
    datum = resource.compose_datum(datum_kwargs=kwargs)
    announce("datum", datum, writing.assets)
    writing.event(x=1.0, image=datum["datum_id"])
    (close,) = only(writing.stop(), CloseRun)
    assert "of an XSP3 resource, a 'frame'" in close.metadata["filestore"]["refused"]["primary"]["image"]


def test_unknown_spec():
    """A resource that nobody can read refuses its key, and no other."""
    writing = Writing()
    doc = {**writing.resource.resource_doc, "uid": "odd", "spec": "ODD"}
    announce("resource", doc, writing.assets)
    announce("datum", {"datum_id": "odd/0", "resource": "odd", "datum_kwargs": {"point_number": 0}}, writing.assets)
    writing.event(x=1.0, image="odd/0")
    closed = writing.stop()[-1]
    assert "spec 'ODD' is not known" in closed.metadata["filestore"]["refused"]["primary"]["image"]


def test_key_without_frames():
    """An external key that no document speaks of is named."""
    writing = Writing({"x": NUMBER, "image": {**IMAGE, "external": "STREAM:"}})
    writing.event(x=1.0)
    closed = writing.stop()[-1]
    assert closed.metadata["filestore"]["refused"] == {"primary": {"image": "no document says where its frames are"}}


def test_short_array_keeps_its_own_axis():
    """An array that ends before the table does not pretend to have the table's axis."""
    writing = Writing(facts=FileFacts((2, 4, 6), "<u2"))
    for index in range(3):
        writing.event(x=1.0, image=writing.datum(index))
    operations = writing.stop()
    (array,) = only(operations, PlaceArray)
    assert (array.shape, array.dims) == ((2, 1, 4, 6), ("image_event", "image_dim1", "image_dim2", "image_dim3"))
    missing = operations[-1].metadata["filestore"]["missing"]["primary"]["image"]
    assert missing == {"events": [2], "reason": "file /data/a.h5 holds 2 frames; event 2 needs 3"}


def test_file_is_written_after_the_run():
    """A file that is still being written at the end is looked at again, and what was said of it is taken back."""
    writing = Writing(facts=Unseen("busy", "file /data/a.h5 is still being written"))
    writing.event(x=1.0, image=writing.datum(0))
    operations = writing.stop()
    assert not writing.run.settled
    assert operations[-1].metadata["filestore"]["unverified"]["primary"]["image"].endswith("still being written")
    assert writing.run.settle() == []
    writing.facts = FileFacts((1, 4, 6), "<u4")
    array, closed = writing.run.settle()
    assert (array.dtype, array.first_file) == ("<u4", 1)
    assert closed.metadata["filestore"] == {
        "differences": {"primary": {"image": ["dtype: the descriptor says <u2, the file <u4"]}}
    }
    assert writing.run.settled


def test_file_comes_after_the_run():
    """A file that is not there at the end is registered when it comes."""
    writing = Writing(facts=Unseen("missing", "file /data/a.h5 cannot be found"))
    writing.event(x=1.0, image=writing.datum(0))
    assert not only(writing.stop(), PlaceArray)
    writing.facts = FileFacts((1, 4, 6), "<u2")
    array, closed = writing.run.settle()
    assert isinstance(array, PlaceArray)
    assert closed.metadata["filestore"] == {}


def test_fly_scan():
    """Stream documents without events are rows of their own."""
    writing = Writing({"image": {**IMAGE, "external": "STREAM:"}})
    bundle = writing.composed.compose_stream_resource(
        mimetype="application/x-hdf5",
        uri="file://localhost/data/fly.h5",
        data_key="image",
        parameters={"dataset": "/d", "chunk_shape": (1, 4, 6)},
    )
    announce("stream_resource", bundle.stream_resource_doc, writing.assets)
    for start in (0, 10):
        doc = bundle.compose_stream_datum(
            event_model.StreamRange(start=start, stop=start + 10),
            event_model.StreamRange(start=start + 1, stop=start + 11),
            writing.stream.descriptor_doc,
        )
        writing.run.receive("stream_datum", doc)
    (array,) = only(writing.stop(), PlaceArray)
    assert (array.shape, array.parameters["slice"]) == ((20, 1, 4, 6), "0:20")


def test_documents_with_holes():
    """A document that lacks something, or refers to nothing, is named."""
    writing = Writing()
    with pytest.raises(DocumentError, match=r"event 'e' of run .* refers to an unknown"):
        writing.run.receive("event", {"uid": "e", "descriptor": "nobody"})
    doc = {**writing.resource.resource_doc, "spec": "AD_TIFF", "resource_kwargs": {"template": "%s%s_%d.tiff"}}
    with pytest.raises(DocumentError, match=r"resource '.*' came twice, with different words; the second is left out"):
        announce("resource", doc, writing.assets)
    with pytest.raises(DocumentError, match=r"datum has the uid None; expected a text"):
        announce("datum", {"resource": "a"}, writing.assets)


def test_pages_are_the_same():
    """A page of events makes the same rows as the events."""
    single, paged = Writing({"x": NUMBER}), Writing({"x": NUMBER})
    for x in (1.0, 2.0):
        single.event(x=x)
    events = [paged.stream.compose_event(data={"x": x}, timestamps={"x": 5.0}) for x in (1.0, 2.0)]
    for name, doc in unpacked("event_page", event_model.pack_event_page(*events)):
        paged.run.receive(name, doc)
    rows = [only(writing.stop(), AppendRows)[0] for writing in (single, paged)]
    assert rows[0].columns["x"] == rows[1].columns["x"]
