"""What TiledWriter can be made with: kept, or refused with what to use instead."""

from inspect import signature

import event_model
import h5py
import numpy as np
import pytest
from bluesky_tiled_plugins import TiledWriter

from bluesky_filestore import CatalogWriter, register_handler
from bluesky_filestore.errors import OptionError, UnknownSpecError
from bluesky_filestore.handlers.registry import deregister_handler
from bluesky_filestore.model.normalize import source_of_resource
from bluesky_filestore.model.specs import HDF5, TIFF_SERIES, add_spec, spec_named
from bluesky_filestore.tiled_writer_options import OPTIONS, check_patches, patched, refuse_others

OURS = set(signature(CatalogWriter).parameters)
PAGE = {
    "descriptor": "d",
    "uid": ["a", "b"],
    "seq_num": [1, 2],
    "time": [0.0, 1.0],
    "data": {"x": [1, 2]},
    "timestamps": {"x": [0.0, 1.0]},
}


@pytest.mark.parametrize("name", sorted(set(signature(TiledWriter).parameters) - {"client"}))
def test_every_option_of_tiled_writer(name):
    """Each is one of ours too, or refused with advice if it is set, and taken as it is there by default."""
    if name not in OURS:
        refuse_others({name: None})
        with pytest.raises(OptionError, match=rf"{name} is an option of TiledWriter's .*: {OPTIONS[name][:20]}"):
            refuse_others({name: 16})


def test_no_option_of_anybody():
    """What neither has is a mistake."""
    with pytest.raises(TypeError, match="CatalogWriter has no option 'bacth_size'"):
        CatalogWriter([], bacth_size=1)
    with pytest.raises(OptionError, match="'events'; expected a function for one of start"):
        check_patches({"events": dict})


def test_patches():
    """A function gets a copy of each document of its name, out of pages too; where it fails, the document stays."""
    said = []

    def add_one(doc):
        doc["data"]["x"] += 1
        return doc

    patches = check_patches({"event": add_one, "start": lambda doc: doc.update(a=1), "stop": lambda doc: 1 / 0})
    events = list(patched(patches, "event_page", PAGE, said.append))
    assert [(name, doc["uid"], doc["data"]["x"]) for name, doc in events] == [("event", "a", 2), ("event", "b", 3)]
    assert PAGE["data"] == {"x": [1, 2]}
    start = {"uid": "u"}
    assert list(patched(patches, "start", start, said.append)) == [("start", {"uid": "u"})]
    assert list(patched(patches, "stop", start, said.append)) == [("stop", start)]
    assert list(patched(patches, "descriptor", start, said.append)) == [("descriptor", start)]
    assert [words[:36] for words in said] == [
        "the patch of start documents failed ",
        "the patch of stop documents failed (",
    ]


TEMPLATES = {
    "a stem": ("below/abc", "_{:d}.tif", "/data/below/abc_%d.tif", "/data/below"),
    "a directory": ("below/abc/", "{:06d}.tif", "/data/below/abc/%06d.tif", "/data/below/abc"),
    "a separator of its own": ("below/abc", "/{:d}.tif", "/data/below/abc/%d.tif", "/data/below/abc"),
    "a percent sign": ("below/5%", "_{:d}.tif", "/data/below/5%%_%d.tif", "/data/below"),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_in_the_format_of_python(name):
    """A template is put behind the path of its Resource as it is, as TiledWriter does."""
    resource_path, template, whole, directory = TEMPLATES[name]
    kwargs = {"template": template}
    doc = {"uid": "r", "spec": "AD_TIFF", "root": "/data", "resource_path": resource_path, "resource_kwargs": kwargs}
    source = source_of_resource(doc)
    assert (source.template, str(source.path)) == (whole, directory)


class Reader:
    """A handler whose files a stock server reads."""

    mimetype = TIFF_SERIES


def test_handlers_that_name_their_mimetype():
    """The Resources of a handler's spec are placed as files of its mimetype."""
    register_handler("READ_AS_TIFF", Reader)
    register_handler("READ_AS_HDF5", dict, mimetype=HDF5)
    with pytest.raises(OptionError, match="shall be of 'text/csv'; expected one of application/x-hdf5"):
        register_handler("READ_AS_TEXT", dict, mimetype="text/csv")
    with pytest.raises(OptionError, match=r"'AD_TIFF' is of multipart/.*, and cannot be of application/x-hdf5 as well"):
        add_spec("AD_TIFF", HDF5)
    kwargs = {"template": "_{:d}.tif", "dataset": "/d"}
    for spec, mimetype in (("READ_AS_TIFF", TIFF_SERIES), ("READ_AS_HDF5", HDF5)):
        doc = {"uid": "r", "spec": spec, "root": "/", "resource_path": "a", "resource_kwargs": kwargs}
        assert source_of_resource(doc).mimetype == mimetype
        deregister_handler(spec)


def test_read_by_a_stock_server(stock, tmp_path):
    """Documents are written as they were patched, and frames of a spec that only the writer knows are read."""
    client, data = stock
    frames = np.arange(24, dtype="<u2").reshape(2, 3, 4)
    with h5py.File(data / "own.h5", "w") as file:
        file["/d"] = frames
    run = event_model.compose_run()
    key = {"source": "s", "dtype": "array", "shape": [1, 3, 4], "dtype_numpy": "<u2", "external": "FILESTORE:"}
    bundle = run.compose_descriptor(name="primary", data_keys={"image": key})
    resource = run.compose_resource(
        spec="OWN_HDF5", root=str(data), resource_path="own.h5", resource_kwargs={"dataset": "/d"}
    )
    pairs = [("start", run.start_doc), ("descriptor", bundle.descriptor_doc), ("resource", resource.resource_doc)]
    for index in range(2):
        datum = resource.compose_datum(datum_kwargs={"index": index})
        filled = {"data": {"image": datum["datum_id"]}, "timestamps": {"image": 0.0}, "filled": {"image": False}}
        pairs += [("datum", datum), ("event", bundle.compose_event(**filled))]
    options = {"patches": {"start": lambda doc: {**doc, "sample": "gold"}}, "normalizer": None, "validate": None}
    spec_to_mimetype = {"OWN_HDF5": HDF5}
    with CatalogWriter(client, spool=tmp_path, spec_to_mimetype=spec_to_mimetype, **options) as writer:
        for name, doc in [*pairs, ("stop", run.compose_stop())]:
            writer(name, doc)
    node = client[run.start_doc["uid"]]
    assert node.metadata["start"]["sample"] == "gold"
    assert (node["primary"]["image"].read() == frames[:, None]).all()


def test_a_mimetype_goes_with_its_handler():
    """A handler that takes another's place, or is taken away, is not believed what the other said of its files."""
    for forget in (
        lambda: register_handler("ONCE_HDF5", list, overwrite=True),
        lambda: deregister_handler("ONCE_HDF5"),
    ):
        register_handler("ONCE_HDF5", dict, overwrite=True, mimetype=HDF5)
        assert spec_named("ONCE_HDF5").mimetype == HDF5
        forget()
        with pytest.raises(UnknownSpecError, match="spec 'ONCE_HDF5' is not known"):
            spec_named("ONCE_HDF5")


@pytest.mark.parametrize("option", ["patches", "spec_to_mimetype"])
def test_no_mapping(option, tmp_path):
    """What is no mapping is refused with what was expected."""
    with pytest.raises(OptionError, match=rf"{option}=\['start'\] is no mapping; expected one of"):
        CatalogWriter(object(), spool=tmp_path, **{option: ["start"]})
