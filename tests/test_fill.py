"""Documents in, filled documents out."""

import copy
import pickle
import re
import tempfile
import threading
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import dask
import dask.array
import event_model
import h5py
import numpy as np
import pytest
import tifffile
from document_streams import KINDS, SHAPE, Camera, Case, Step, build, cases, paged, write_hdf5
from hypothesis import HealthCheck, given, settings
from PIL import Image

from bluesky_filestore import fill, fill_event
from bluesky_filestore.errors import (
    DocumentError,
    HandlerNotFoundError,
    MissingFileError,
    PathError,
    TruncatedFileError,
    UnknownSpecError,
)

SLOW = settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))


def filled_arrays(documents):
    """The arrays of each stream and key, from filled documents."""
    names, found = {}, defaultdict(list)
    for name, doc in documents:
        if name == "descriptor":
            names[doc["uid"]] = doc
        elif name in ("event", "event_page"):
            events = [doc] if name == "event" else event_model.unpack_event_page(doc)
            for event in events:
                descriptor = names[event["descriptor"]]
                for key, data_key in descriptor["data_keys"].items():
                    if data_key.get("external"):
                        assert event["filled"][key] not in (True, False)
                        assert key in event["timestamps"]
                        found[descriptor["name"], key].append(event["data"][key])
    return found


@given(case=cases())
@SLOW
def test_any_run(case):
    """Every event of any legal run gets its own frames; the documents that were given stay as they were."""
    with tempfile.TemporaryDirectory() as directory:
        built = build(replace(case, frames_cut=0), Path(directory) / "files")
        before = copy.deepcopy(built.documents)
        filled = list(fill(built.documents, patience=0))
    assert [name for name, _ in filled] == [name for name, _ in before]
    found = filled_arrays(filled)
    assert {name: len(arrays) for name, arrays in found.items()} == {
        name: len(arrays) for name, arrays in built.frames.items() if arrays
    }
    for name, arrays in found.items():
        np.testing.assert_array_equal(arrays, built.frames[name], strict=True)
    assert built.documents == before


@pytest.mark.parametrize("kind", KINDS)
def test_lazily(tmp_path, kind):
    """Dask arrays of the right shape and dtype, read when they are computed, in other processes as well."""
    case = Case((Camera("cam_image", kind, 2, "<u2"),), {"primary": (0,)}, ((Step("primary"),) * 3,))
    built = build(case, tmp_path / "files")
    found = filled_arrays(fill(built.documents, lazy=True))["primary", "cam_image"]
    expected = built.frames["primary", "cam_image"]
    assert all(isinstance(values, dask.array.Array) for values in found)
    assert [(values.shape, values.dtype) for values in found] == [((2, *SHAPE), np.dtype("<u2"))] * 3
    np.testing.assert_array_equal(dask.array.stack(found).compute(), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(found[1])).compute(), expected[1])  # noqa: S301


def test_lazily_in_processes(tmp_path):
    """The workers of dask may be other processes."""
    case = Case((Camera("cam_image", "AD_HDF5", 2, "<u2"),), {"primary": (0,)}, ((Step("primary"),) * 3,))
    built = build(case, tmp_path / "files")
    found = filled_arrays(fill(built.documents, lazy=True))["primary", "cam_image"]
    with dask.config.set(scheduler="processes", num_workers=1):
        np.testing.assert_array_equal(dask.array.stack(found).compute(), built.frames["primary", "cam_image"])


def test_lazily_after_the_file_has_changed(tmp_path):
    """What is read later is checked against what the file said when the event was filled."""
    run = Run(tmp_path)
    write_hdf5(tmp_path / "a.h5", np.zeros((1, *SHAPE), "u2"))
    *_, (_, event) = fill(run.documents(1), lazy=True)
    write_hdf5(tmp_path / "a.h5", np.zeros((1, *SHAPE), "f4"))
    with pytest.raises(OSError, match=r"read \[1, 4, 6\] float32 .*; expected \[1, 4, 6\] uint16"):
        event["data"]["image"].compute()


class Run:
    """Documents made by hand."""

    def __init__(self, directory, spec="AD_HDF5", path="a.h5", kwargs=None, root=None):
        self.run = event_model.compose_run()
        key = {"source": "s", "dtype": "array", "shape": [1, *SHAPE], "external": "FILESTORE:"}
        number = {"source": "s", "dtype": "number", "shape": []}
        self.stream = self.run.compose_descriptor(name="primary", data_keys={"image": key, "x": number})
        self.resource = self.run.compose_resource(
            spec=spec, root=root or str(directory), resource_path=path, resource_kwargs=kwargs or {}
        )

    def event(self, datum_id, **changes):
        """An event that names a datum."""
        doc = self.stream.compose_event(
            data={"image": datum_id, "x": 5.0}, timestamps={"image": 1.0, "x": 1.0}, filled={"image": False}
        )
        return {**doc, **changes}

    def documents(self, count, kwargs="point_number"):
        """Those of a run that is not over."""
        yield "start", self.run.start_doc
        yield "descriptor", self.stream.descriptor_doc
        yield "resource", self.resource.resource_doc
        for number in range(count):
            datum = self.resource.compose_datum({kwargs: number})
            yield "datum", datum
            yield "event", self.event(datum["datum_id"])


def test_same_as_the_public_filler(tmp_path):
    """Data and marks are those that event-model's Filler makes; other documents come out as they went in."""
    write_hdf5(tmp_path / "a.h5", np.arange(72, dtype="u2").reshape(3, *SHAPE))
    documents = [*Run(tmp_path).documents(3)]
    from bluesky_filestore import handler_registry

    with event_model.Filler(handler_registry, inplace=False) as filler:
        for (name, doc), (our_name, ours), (_, theirs) in zip(
            documents, fill(documents), [filler(*pair) for pair in documents], strict=True
        ):
            assert our_name == name
            if name != "event":
                assert ours is doc
                continue
            np.testing.assert_array_equal(ours["data"].pop("image"), theirs["data"].pop("image"), strict=True)
            assert ours == theirs


def test_late_datum(tmp_path):
    """An event waits for its datum, and what comes after it waits with it: the order is kept."""
    write_hdf5(tmp_path / "a.h5", np.zeros((3, *SHAPE)))
    run = Run(tmp_path)
    documents = list(run.documents(2))
    late, event = documents[3], documents[4]
    given = [*documents[:3], event, *documents[5:], late, ("stop", run.run.compose_stop())]
    came = []

    def source():
        for pair in given:
            came.append(pair[0])
            yield pair

    seen = [(name, list(came)) for name, _ in fill(source())]
    assert [name for name, _ in seen] == [name for name, _ in given]
    assert dict(seen)["descriptor"] == ["start", "descriptor"]
    assert next(before for name, before in seen if name == "event")[-2:] == ["event", "datum"]


@pytest.mark.parametrize("stop", [True, False])
def test_datum_that_never_comes(tmp_path, stop):
    """At the end of the run it is an error that names the datum."""
    run = Run(tmp_path)
    given = [pair for pair in run.documents(1) if pair[0] != "datum"]
    given += [("stop", run.run.compose_stop())] if stop else []
    with pytest.raises(DocumentError, match=r"event cannot be filled: its 'image' names datum '.*/0', which was not"):
        list(fill(given))


def test_resource_that_never_comes(tmp_path):
    """So it is with the resource of a datum."""
    given = [pair for pair in Run(tmp_path).documents(1) if pair[0] != "resource"]
    with pytest.raises(DocumentError, match=r"datum '.*/0' is of resource '.*', which was not announced"):
        list(fill(given))


def stream_documents(directory, ranges, count, shape=(1, *SHAPE), **parameters):
    """A run with a stream_resource: pairs of indices and seq_nums, then events."""
    run = event_model.compose_run()
    key = {"source": "s", "dtype": "array", "shape": list(shape), "external": "STREAM:", "dtype_numpy": "<f8"}
    stream = run.compose_descriptor(name="primary", data_keys={"image": key})
    resource = run.compose_stream_resource(
        mimetype=parameters.pop("mimetype", "application/x-hdf5"),
        uri=f"file://localhost{directory}/" + parameters.pop("file", "a.h5"),
        data_key="image",
        parameters={"dataset": "/entry/data/data", **parameters},
    )
    yield "start", run.start_doc
    yield "descriptor", stream.descriptor_doc
    yield "stream_resource", resource.stream_resource_doc
    for start, seq_num, length in ranges:
        indices = event_model.StreamRange(start=start, stop=start + length)
        seq_nums = event_model.StreamRange(start=seq_num, stop=seq_num + length)
        yield "stream_datum", resource.compose_stream_datum(indices, seq_nums, stream.descriptor_doc)
    for _ in range(count):
        yield "event", stream.compose_event(data={}, timestamps={}, filled={})


def test_stream_datums(tmp_path):
    """An event gets the frames of its sequence number, with their place as the mark and its time as the time stamp."""
    write_hdf5(tmp_path / "a.h5", np.arange(5.0)[:, None, None] + np.zeros(SHAPE))
    documents = list(stream_documents(tmp_path, [(1, 3, 2), (0, 1, 1), (4, 2, 1)], 4))
    events = [doc for name, doc in fill(documents) if name == "event"]
    assert [event["data"]["image"][0, 0, 0] for event in events] == [0, 4, 1, 2]
    assert [event["data"]["image"].shape for event in events] == [(1, *SHAPE)] * 4
    assert events[1]["filled"]["image"] == f"{documents[2][1]['uid']}/4"
    assert events[1]["timestamps"]["image"] == events[1]["time"]


def test_stream_datum_that_comes_late_or_never(tmp_path):
    """An event waits for its stream_datum; at the end it is an error that names key and sequence number."""
    write_hdf5(tmp_path / "a.h5", np.zeros((5, *SHAPE)))
    documents = list(stream_documents(tmp_path, [(0, 1, 2)], 2))
    late = [*documents[:3], *documents[4:], documents[3]]
    assert [name for name, _ in fill(late)] == [name for name, _ in late]
    with pytest.raises(DocumentError, match="no stream_datum says which frames of 'image' belong to seq_num 3"):
        list(fill(stream_documents(tmp_path, [(0, 1, 2)], 3)))


@pytest.mark.parametrize(
    ("shape", "frames", "parameters"),
    [
        ((2, *SHAPE), 2, {}),
        ((2, *SHAPE), 2, {"multiplier": 2}),
        (SHAPE, 1, {}),
        ((), 1, {}),
        ((3, 2), 1, {"slice": ":,0:3,4:6"}),
        ((9, 9), 1, {}),
    ],
)
def test_frames_of_an_index(tmp_path, shape, frames, parameters):
    """How many frames an index has, and the shape of the array, are what descriptor and file agree on."""
    stored = np.arange(6.0) if shape == () else np.arange(6.0 * 24).reshape(6, *SHAPE)
    write = {(): lambda: h5py.File(tmp_path / "a.h5", "w").create_dataset("/entry/data/data", data=stored)}
    dataset = write.get(shape, lambda: write_hdf5(tmp_path / "a.h5", stored))()
    if dataset is not None:
        dataset.file.close()
    index = (..., slice(0, 3), slice(4, 6)) if "slice" in parameters else ...
    *_, (_, event) = fill(stream_documents(tmp_path, [(1, 1, 1)], 1, shape, **parameters))
    expected = stored[frames : 2 * frames][index]
    # A descriptor that says otherwise than the file does not change what is there.
    expected = expected if shape == (9, 9) else expected.reshape(shape)
    np.testing.assert_array_equal(event["data"]["image"], expected, strict=True)


def test_series_of_npy_files(tmp_path):
    """StreamResources of numpy's files, in a directory with a percent sign."""
    directory = tmp_path / "50%"
    directory.mkdir()
    for number in range(4):
        np.save(directory / f"x%{number:03d}.npy", np.full(SHAPE, float(number)))
    documents = stream_documents(
        tmp_path, [(0, 1, 2)], 2, (2, *SHAPE), file="50%25/", template="x%%%03d.npy",
        mimetype="multipart/related;type=application/x-npy",
    )  # fmt: skip
    events = [doc["data"]["image"] for name, doc in fill(documents) if name == "event"]
    np.testing.assert_array_equal([event[:, 0, 0] for event in events], [[0, 1], [2, 3]])


def test_series_of_jpeg_files(tmp_path):
    """StreamResources of JPEG files are what Pillow makes of them."""
    smooth = np.add.outer(np.arange(16), np.arange(24)).astype("u1")
    for number in range(2):
        Image.fromarray(smooth + 50 * number).save(tmp_path / f"a_{number}.jpg")
    documents = stream_documents(
        tmp_path,
        [(0, 1, 2)],
        2,
        (1, 16, 24),
        file="",
        template="a_%d.jpg",
        mimetype="multipart/related;type=image/jpeg",
    )
    events = [doc["data"]["image"] for name, doc in fill(documents) if name == "event"]
    assert [event.shape for event in events] == [(1, 16, 24)] * 2
    assert [abs(event[0].astype(int) - smooth - 50 * n).max() < 5 for n, event in enumerate(events)] == [True, True]
    (tmp_path / "a_1.jpg").write_bytes(b"no picture")
    with pytest.raises(OSError, match=r"a_1.jpg cannot be read"):
        list(fill(documents_again(tmp_path), patience=0))


def documents_again(directory):
    """A run with the second of two JPEG files."""
    return stream_documents(
        directory,
        [(1, 1, 1)],
        1,
        (1, 16, 24),
        file="",
        template="a_%d.jpg",
        mimetype="multipart/related;type=image/jpeg",
    )


def test_many_lazy_files(tmp_path):
    """Computing thousands of lazy arrays of as many resources does not keep as many files open."""
    arrays = []
    for number in range(100):
        with h5py.File(tmp_path / f"a{number}.h5", "w") as file:
            # Packed frames are read by HDF5, which keeps the file open.
            file.create_dataset("/entry/data/data", data=np.zeros((1, *SHAPE)), compression="gzip")
        *_, (_, event) = fill(Run(tmp_path, path=f"a{number}.h5").documents(1), lazy=True)
        arrays.append(event["data"]["image"])
    assert np.concatenate([array.compute(scheduler="sync") for array in arrays]).shape == (100, *SHAPE)
    opened = [
        link for link in Path("/proc/self/fd").iterdir() if link.is_symlink() and link.resolve().parent == tmp_path
    ]
    assert 1 <= len(opened) <= 32


def test_mimetype_that_nobody_reads(tmp_path):
    """The error names the mimetype and those that are read."""
    documents = stream_documents(tmp_path, [(0, 1, 1)], 1, mimetype="application/x-odd")
    with pytest.raises(UnknownSpecError, match=r"mimetype 'application/x-odd', .* expected one of application/x-hdf5"):
        list(fill(documents, patience=0))


def test_root_map(tmp_path):
    """Files that were moved are found by the longest directory, in old and new documents."""
    (tmp_path / "here").mkdir()
    write_hdf5(tmp_path / "here" / "a.h5", np.zeros((1, *SHAPE)))
    moved = {"/gone": "/nowhere", "/gone/beamline": str(tmp_path / "here")}
    *_, (_, old) = fill(Run(None, root="/gone", path="beamline/a.h5").documents(1), root_map=moved)
    *_, (_, new) = fill(stream_documents("/gone/beamline", [(0, 1, 1)], 1), root_map=moved)
    assert old["data"]["image"].shape == new["data"]["image"].shape == (1, *SHAPE)


def test_root_map_of_windows(tmp_path):
    """So are files that a Windows IOC wrote; without a map the error says what is needed."""
    tifffile.imwrite(tmp_path / "a_000000.tiff", np.zeros(SHAPE, "u1"))
    run = Run(None, "AD_TIFF", "2026\\11\\", {"template": "%s%s_%6.6d.tiff", "filename": "a"}, root="Z:\\data")
    run.resource.resource_doc["path_semantics"] = "windows"
    *_, (_, event) = fill(run.documents(1), root_map={"z:\\DATA\\2026\\11": str(tmp_path)})
    assert event["data"]["image"].shape == (1, *SHAPE)
    with pytest.raises(PathError, match=r"windows path, which this machine has not; .*root_map"):
        list(fill(run.documents(1)))


class Words:
    """A handler whose resources are no files, and which has nothing but what the ecosystem asks for."""

    def __init__(self, path, times=1):
        self.path, self.times = path, times

    def __call__(self, point_number):
        return f"{self.path} {point_number}" * self.times


def test_own_handlers():
    """A handler of one's own gets its path as it stands, and its answer is taken as it is."""
    run = Run(None, "WORDS", "any words", {"times": 2})
    run.resource.resource_doc["root"] = ""
    for lazy in (False, True):
        *_, (_, event) = fill(run.documents(1), {"WORDS": Words}, lazy=lazy)
        assert event["data"]["image"] == "any words 0any words 0"


def test_own_handler_of_a_directory():
    """The separator at the end of a directory stays: some handlers put a file's name right behind it."""
    run = Run(None, "WORDS", "run/", root="/data")
    *_, (_, event) = fill(run.documents(1), {"WORDS": Words})
    assert event["data"]["image"] == "/data/run/ 0"


def test_public_handlers(tmp_path):
    """Handlers that answer with dask arrays are computed, or left as they are if lazy ones are asked for."""
    from area_detector_handlers.handlers import AreaDetectorHDF5Handler, AreaDetectorTiffHandler

    write_hdf5(tmp_path / "a.h5", np.zeros((1, *SHAPE)))
    *_, (_, read) = fill(Run(tmp_path).documents(1), {"AD_HDF5": AreaDetectorHDF5Handler})
    *_, (_, lazy) = fill(Run(tmp_path).documents(1), {"AD_HDF5": AreaDetectorHDF5Handler}, lazy=True)
    assert isinstance(read["data"]["image"], np.ndarray)
    assert isinstance(lazy["data"]["image"], dask.array.Array)
    tifffile.imwrite(tmp_path / "a_0.tif", np.zeros(SHAPE))
    run = Run(tmp_path, "AD_TIFF", "", {"template": "%s%s_%d.tif", "filename": "a"})
    *_, (_, lazy) = fill(run.documents(1), {"AD_TIFF": AreaDetectorTiffHandler}, lazy=True)
    assert lazy["data"]["image"].compute().shape == (1, *SHAPE)


def test_unknown_spec(tmp_path):
    """The error names the spec, and the event it was needed for."""
    with pytest.raises(HandlerNotFoundError, match="no handler for spec 'AD_GIF'") as caught:
        list(fill(Run(tmp_path, "AD_GIF").documents(1)))
    assert re.match("It was to be read for 'image' of the event with seq_num 1, ", caught.value.__notes__[0])


def test_patience(tmp_path):
    """A file that comes a little later is waited for; one that does not is an error that names it."""
    run = Run(tmp_path)
    with pytest.raises(MissingFileError, match=re.escape(str(tmp_path / "a.h5"))):
        list(fill(run.documents(1), patience=0.05))
    threading.Timer(0.2, lambda: _appear(tmp_path / "a.h5")).start()
    *_, (_, event) = fill(run.documents(1), patience=60)
    assert event["data"]["image"].shape == (1, *SHAPE)
    with pytest.raises(TruncatedFileError, match="holds 1 frames"):
        list(fill(run.documents(2), patience=0.05))


def _appear(path):
    write_hdf5(path.with_suffix(".new"), np.zeros((1, *SHAPE)))
    path.with_suffix(".new").rename(path)


@pytest.mark.parametrize(
    ("filled", "expected"),
    [({}, "array"), ({"image": False}, "array"), ({"image": "somebody"}, "datum"), ({"image": True}, "datum")],
)
def test_what_is_filled(tmp_path, filled, expected):
    """What an event says is not filled, or says nothing of; what is filled stays as it is."""
    write_hdf5(tmp_path / "a.h5", np.zeros((1, *SHAPE)))
    *others, (_, event) = Run(tmp_path).documents(1)
    *_, (_, done) = fill([*others, ("event", {**event, "filled": filled})])
    assert isinstance(done["data"]["image"], np.ndarray) == (expected == "array")
    assert "x" not in done["filled"]


def test_filled_documents_again(tmp_path):
    """Filling what is filled changes nothing."""
    write_hdf5(tmp_path / "a.h5", np.zeros((1, *SHAPE)))
    once = list(fill(Run(tmp_path).documents(1)))
    assert [doc for _, doc in fill(once)] == [doc for _, doc in once]
    assert list(fill(once))[-1][1] is once[-1][1]


def test_pages_and_bulk_documents(tmp_path):
    """They come out as they are called, with columns of arrays."""
    write_hdf5(tmp_path / "a.h5", np.arange(72.0).reshape(3, *SHAPE))
    documents = list(Run(tmp_path).documents(3))
    datums = [pair for pair in documents if pair[0] == "datum"]
    events = [doc for name, doc in documents if name == "event"]
    *_, (name, page) = fill([*paged([*documents[:3], *datums]), ("event_page", event_model.pack_event_page(*events))])
    assert name == "event_page"
    np.testing.assert_array_equal([values[0, 0, 0] for values in page["data"]["image"]], [0, 24, 48])
    assert page["filled"]["image"] == [event["data"]["image"] for event in events]
    *_, (name, bulk) = fill([*documents[:3], *datums, ("bulk_events", {events[0]["descriptor"]: events})])
    assert name == "bulk_events"
    assert [event["data"]["image"][0, 0, 0] for event in bulk[events[0]["descriptor"]]] == [0, 24, 48]


def test_several_runs(tmp_path):
    """Runs may follow one another, or go on at once, and share a staging."""
    write_hdf5(tmp_path / "a.h5", np.arange(72.0).reshape(3, *SHAPE))
    first, second = Run(tmp_path), Run(tmp_path)
    one, two = list(first.documents(2)), list(second.documents(1))
    shared = first.resource.compose_datum({"point_number": 2})
    documents = [*one[:4], *two[:3], one[4], ("stop", second.run.compose_stop()), *one[5:]]
    documents += [("stop", first.run.compose_stop()), *Run(tmp_path).documents(0)]
    third = Run(tmp_path)
    documents += [*list(third.documents(0))[:2], ("datum", shared), ("event", third.event(shared["datum_id"]))]
    found = [doc["data"]["image"][0, 0, 0] for name, doc in fill(documents) if name == "event"]
    assert found == [0, 24, 48]


def test_many_resources(tmp_path):
    """More files than a process should keep open are no difficulty."""
    write_hdf5(tmp_path / "a.h5", np.zeros((1, *SHAPE)))
    run = Run(tmp_path)
    documents = list(run.documents(0))
    for _ in range(200):
        resource = run.run.compose_resource(
            spec="AD_HDF5", root=str(tmp_path), resource_path="a.h5", resource_kwargs={}
        )
        datum = resource.compose_datum({"point_number": 0})
        documents += [("resource", resource.resource_doc), ("datum", datum), ("event", run.event(datum["datum_id"]))]
    assert sum(name == "event" for name, _ in fill(documents)) == 200


def test_single_event(tmp_path):
    """An event is filled with the documents that say where its arrays are, or with its whole run."""
    write_hdf5(tmp_path / "a.h5", np.arange(72.0).reshape(3, *SHAPE))
    documents = list(Run(tmp_path).documents(3))
    event = documents[6][1]
    needed = [pair for pair in documents if pair[0] in ("descriptor", "resource", "datum")]
    for others in (needed, documents):
        assert fill_event(event, others)["data"]["image"][0, 0, 0] == 24
    assert isinstance(fill_event(event, needed, lazy=True)["data"]["image"], dask.array.Array)
    assert isinstance(event["data"]["image"], str)
    with pytest.raises(DocumentError, match=r"descriptor '.*', which was not announced"):
        fill_event(event, [])


def test_single_event_of_a_stream(tmp_path):
    """Its frames are those of its sequence number."""
    write_hdf5(tmp_path / "a.h5", np.arange(72.0).reshape(3, *SHAPE))
    documents = list(stream_documents(tmp_path, [(0, 1, 3)], 3))
    assert fill_event(documents[-1][1], documents)["data"]["image"][0, 0, 0] == 48


def test_single_event_after_a_rewind(tmp_path):
    """Of events with one sequence number each gets its own frames, if the whole run is given."""
    write_hdf5(tmp_path / "a.h5", np.arange(72.0).reshape(3, *SHAPE))
    documents = list(stream_documents(tmp_path, [(0, 1, 2), (2, 2, 1)], 3))
    documents[-1][1]["seq_num"] = 2
    # Told of between the two events, as the RunEngine does.
    documents.insert(-1, documents.pop(4))
    events = [doc for name, doc in documents if name == "event"]
    assert [fill_event(event, documents)["data"]["image"][0, 0, 0] for event in events] == [0, 24, 48]


def test_events_that_contradict_themselves(tmp_path):
    """An event that says of a key it does not have that it is to be filled is refused."""
    *others, (_, event) = Run(tmp_path).documents(1)
    with pytest.raises(DocumentError, match=r"says that \['y'\] are to be filled; expected them in its data"):
        list(fill([*others, ("event", {**event, "filled": {"y": False}})]))


def test_stream_datum_of_nothing(tmp_path):
    """A stream_datum whose resource was not announced is refused by name."""
    documents = [pair for pair in stream_documents(tmp_path, [(0, 1, 1)], 1) if pair[0] != "stream_resource"]
    with pytest.raises(DocumentError, match=r"is of the stream_resource '.*', which was not announced"):
        list(fill(documents))
