"""Older documents, read as today's."""

import copy
from urllib.parse import quote

import event_model
import pytest

from bluesky_filestore.errors import DocumentError, PathError, UnknownSpecError
from bluesky_filestore.model.frame_map import StreamRange
from bluesky_filestore.model.normalize import (
    indices_of,
    range_of,
    renamed_keys,
    source_of_resource,
    source_of_stream_resource,
    unpacked,
)

TIFF_KWARGS = {"template": "%s%s_%6.6d.tiff", "filename": "img", "frame_per_point": 3}


def resource(spec, path="2026/a.h5", root="/data", semantics="posix", **kwargs):
    """A Resource document."""
    return event_model.compose_resource(
        spec=spec, root=root, resource_path=path, resource_kwargs=kwargs, path_semantics=semantics
    ).resource_doc


def stream_resource(mimetype, uri, **parameters):
    """A StreamResource document."""
    return event_model.compose_stream_resource(
        mimetype=mimetype, uri=uri, data_key="image", parameters=parameters
    ).stream_resource_doc


def files(source, *numbers):
    """The files of a series."""
    return [source.template % number for number in numbers]


def test_hdf5_resource():
    """AD_HDF5 is one file, with areaDetector's dataset."""
    source = source_of_resource(resource("AD_HDF5", frame_per_point=5))
    assert (str(source.path), source.template, source.dataset) == ("/data/2026/a.h5", None, "/entry/data/data")
    assert (source.mimetype, source.frames_per_index, source.data_key) == ("application/x-hdf5", 5, "")


def test_tiff_resource():
    """AD_TIFF is a directory, whose separator is put where a document lacks it."""
    for path in ("2026/11", "2026/11/"):
        source = source_of_resource(resource("AD_TIFF", path, **TIFF_KWARGS))
        assert files(source, 0, 41) == ["/data/2026/11/img_000000.tiff", "/data/2026/11/img_000041.tiff"]
        assert source.frames_per_index == 3


def test_percent_in_names():
    """A '%' in directory or name is itself, not a field of the template."""
    source = source_of_resource(resource("AD_TIFF", "50%d", **{**TIFF_KWARGS, "filename": "1%"}))
    assert files(source, 7) == ["/data/50%d/1%_000007.tiff"]


@pytest.mark.parametrize("text", ["50%d", "a%sb", "%s", "%%s", "100%", "%%", "{}", "{:d}"])
@pytest.mark.parametrize("place", ["directory", "name"])
def test_texts_that_look_like_fields(text, place):
    """Whatever directory and name are, they are texts, of a Resource and of a StreamResource."""
    directory, name = (text, "img") if place == "directory" else ("a", text)
    old = source_of_resource(resource("AD_TIFF", directory, **{**TIFF_KWARGS, "filename": name}))
    assert files(old, 7) == [f"/data/{directory}/{name}_000007.tiff"]
    uri = f"file://localhost/data/{quote(directory)}/"
    parameters = {"template": "%s%s_%6.6d.tiff", "filename": name}
    new = source_of_stream_resource(stream_resource("multipart/related;type=image/tiff", uri, **parameters))
    assert files(new, 7) == [f"/data/{directory}/{name}_000007.tiff"]


def test_hdf5_single_resource():
    """AD_HDF5_SINGLE is a series of HDF5 files."""
    source = source_of_resource(resource("AD_HDF5_SINGLE", "x", template="%s%s_%d.h5", filename="f"))
    assert files(source, 3) == ["/data/x/f_3.h5"]
    assert (source.dataset, source.frames_per_index) == ("/entry/data/data", 1)


def test_npy_resource():
    """ophyd.sim's NPY_SEQ names the stem of its files."""
    source = source_of_resource(resource("NPY_SEQ", "ab12", root="/scratch/x"))
    assert files(source, 2) == ["/scratch/x/ab12_2.npy"]


def test_windows_resource():
    """A path keeps the flavour of the machine that wrote it."""
    source = source_of_resource(resource("AD_TIFF", "2026\\11", "C:\\data", "windows", **TIFF_KWARGS))
    assert files(source, 1) == ["C:\\data\\2026\\11\\img_000001.tiff"]


@pytest.mark.parametrize(
    ("spec", "kwargs", "error", "words"),
    [
        ("MAGIC", {}, UnknownSpecError, "spec 'MAGIC' is not known; expected one of AD_HDF5"),
        ("AD_TIFF", {"filename": "x"}, DocumentError, "have no template of the files' names"),
        ("AD_TIFF", {"template": "%s%s.tiff", "filename": "x"}, DocumentError, "expected two '%s' .* and one number"),
        ("AD_TIFF", {"template": "%s%s%s_%d", "filename": "x"}, DocumentError, "expected two '%s'"),
        ("AD_HDF5", {"frame_per_point": 0}, DocumentError, "frame_per_point is 0; expected a whole number from 1 on"),
    ],
)
def test_bad_resources(spec, kwargs, error, words):
    """What a document leaves open is said, not guessed."""
    with pytest.raises(error, match=words):
        source_of_resource(resource(spec, **kwargs))


def test_stream_resource():
    """Today's document, with a quoted URI."""
    doc = stream_resource("application/x-hdf5", "file://localhost/data/run%20%231/a.h5", dataset="/d", multiplier=4)
    source = source_of_stream_resource(doc)
    assert (str(source.path), source.dataset, source.frames_per_index) == ("/data/run #1/a.h5", "/d", 4)
    assert source.data_key == "image"


@pytest.mark.parametrize(
    ("uri", "template", "file"),
    [
        ("file://localhost/data/x/", "img_{:06d}.tiff", "/data/x/img_000007.tiff"),
        ("file://localhost/data/x/", "/img_{:d}.tiff", "/data/x/img_7.tiff"),
        ("file://localhost/data/x", "/img_{}.tiff", "/data/x/img_7.tiff"),
        ("file://localhost/data/x/uid", "_{:03d}.tiff", "/data/x/uid_007.tiff"),
        ("file://localhost/data/x/", "%s_%6.6d.tiff", "/data/x/name_000007.tiff"),
    ],
)
def test_templates_of_stream_resources(uri, template, file):
    """A file's name is appended to the URI as it is, in Python's notation or C's."""
    doc = stream_resource("multipart/related;type=image/tiff", uri, template=template, filename="name")
    assert files(source_of_stream_resource(doc), 7) == [file]


def test_old_stream_resource():
    """Before event-model 1.20 a StreamResource looked like a Resource."""
    doc = {**resource("AD_HDF5", frame_per_point=2), "data_key": "image"}
    source = source_of_stream_resource(doc)
    assert (str(source.path), source.frames_per_index, source.data_key) == ("/data/2026/a.h5", 2, "image")


@pytest.mark.parametrize(
    ("mimetype", "uri", "parameters", "error", "words"),
    [
        ("application/x-hdf5", "file://localhost/a.h5", {}, DocumentError, "names no dataset"),
        ("application/x-hdf5", "http://localhost/a.h5", {"dataset": "d"}, PathError, "is not a file's"),
        ("multipart/related;type=image/tiff", "file://localhost/a/", {}, DocumentError, "has no template"),
        ("multipart/related;type=image/tiff", "file://localhost/a/", {"template": "x"}, DocumentError, "no field for"),
        ("multipart/related;type=image/tiff", "file://localhost/a/", {"template": "{}{}"}, DocumentError, "several"),
    ],
)
def test_bad_stream_resources(mimetype, uri, parameters, error, words):
    """What a document leaves open is said, not guessed."""
    with pytest.raises(error, match=words):
        source_of_stream_resource(stream_resource(mimetype, uri, **parameters))


@pytest.mark.parametrize(
    ("kwargs", "indices"),
    [({"point_number": 4}, (4, 1)), ({"index": 2}, (2, 1)), ({"indices": {"start": 3, "stop": 5}}, (3, 2))],
)
def test_indices_of_datums(kwargs, indices):
    """The arguments of the handlers that we know."""
    assert indices_of({"datum_id": "r/1", "resource": "r", "datum_kwargs": kwargs}) == indices


@pytest.mark.parametrize("kwargs", [{}, {"point_number": -1}, {"point_number": 1, "channel": 2}, {"point_number": "1"}])
def test_other_datums(kwargs):
    """Arguments with an unknown meaning are not passed over."""
    with pytest.raises(DocumentError, match="expected a 'point_number' from 0 on alone"):
        indices_of({"datum_id": "r/1", "resource": "r", "datum_kwargs": kwargs})


def test_stream_datum():
    """Indices and sequence numbers are half-open ranges of one length."""
    doc = {
        "uid": "s/0",
        "stream_resource": "s",
        "descriptor": "d",
        "indices": {"start": 2, "stop": 5},
        "seq_nums": {"start": 3, "stop": 6},
    }
    assert range_of(doc) == StreamRange("s", 2, 3, 3)
    with pytest.raises(DocumentError, match="expected as many of the one as of the other"):
        range_of({**doc, "seq_nums": {"start": 3, "stop": 5}})
    assert range_of({**doc, "seq_nums": {"start": 3, "stop": 4}}) == StreamRange("s", 2, 3, 1, 3)


def test_pages_are_unpacked():
    """Pages and bulk forms give the single documents in order, and stay as they are."""
    run = event_model.compose_run()
    descriptor = run.compose_descriptor(
        name="primary", data_keys={"x": {"source": "s", "dtype": "number", "shape": []}}
    )
    events = [descriptor.compose_event(data={"x": x}, timestamps={"x": 1.0}) for x in (1.0, 2.0)]
    bundle = run.compose_resource(spec="AD_HDF5", root="/", resource_path="a", resource_kwargs={})
    datums = [bundle.compose_datum(datum_kwargs={"point_number": n}) for n in (0, 1)]
    bulk_datum = {
        "resource": bundle.resource_doc["uid"],
        "datum_ids": [datum["datum_id"] for datum in datums],
        "datum_kwarg_list": [datum["datum_kwargs"] for datum in datums],
    }
    for name, page, singles in (
        ("event_page", event_model.pack_event_page(*events), events),
        ("bulk_events", {"primary": events}, events),
        ("datum_page", event_model.pack_datum_page(*datums), datums),
        ("bulk_datum", bulk_datum, datums),
    ):
        before = copy.deepcopy(page)
        assert [dict(doc) for _, doc in unpacked(name, page)] == [dict(single) for single in singles]
        assert page == before
    assert list(unpacked("event", events[0])) == [("event", events[0])]


def test_names_that_the_table_needs():
    """Keys that would hide the table's own columns, or a timestamp's, get another name."""
    assert renamed_keys({"x": {}}) == {}
    assert renamed_keys({"time": {}, "time_": {}, "seq_num": {}}) == {"time": "time__", "seq_num": "seq_num_"}
    assert renamed_keys({"x": {}, "ts_x": {}, "internal": {}}) == {"ts_x": "ts_x_", "internal": "internal_"}
