"""Documents as event-model's composers make them."""

import event_model
import pytest
from jsonschema import ValidationError

from bluesky_filestore.errors import PathError, UnknownSpecError
from bluesky_filestore.model.compose import compose_resource, compose_stream_resource


def test_resource_and_datum_of_a_file():
    """Root and semantic part are parted; datums count up and name the resource."""
    bundle = compose_resource(
        spec="AD_HDF5", path="/data/2026/a_000000.h5", root="/data", resource_kwargs={"frame_per_point": 5}
    )
    resource = bundle.resource_doc
    assert (resource["root"], resource["resource_path"]) == ("/data", "2026/a_000000.h5")
    assert resource["path_semantics"] == "posix"
    assert resource["resource_kwargs"] == {"frame_per_point": 5}
    datums = [bundle.compose_datum({"point_number": n}) for n in range(2)]
    assert [datum["datum_id"] for datum in datums] == [f"{resource['uid']}/0", f"{resource['uid']}/1"]


@pytest.mark.parametrize("spec", ["AD_TIFF", "AD_HDF5_SINGLE"])
def test_series_is_a_directory(spec):
    """The separator at the end keeps readers from running directory and file name together."""
    bundle = compose_resource(
        spec=spec, path="/data/2026/11", root="/data", resource_kwargs={"template": "%s%s_%d.tiff"}
    )
    assert bundle.resource_doc["resource_path"] == "2026/11/"
    at_root = compose_resource(spec=spec, path="/data", root="/data", resource_kwargs={})
    assert at_root.resource_doc["resource_path"] == "./"


def test_windows_resource():
    """A windows root makes a windows document, whatever this machine is."""
    doc = compose_resource(
        spec="AD_HDF5", path="C:\\data\\2026\\a.h5", root="C:\\data", resource_kwargs={}
    ).resource_doc
    assert (doc["root"], doc["resource_path"], doc["path_semantics"]) == ("C:\\data", "2026\\a.h5", "windows")


def test_beamline_spec_is_composed():
    """A spec that only its beamline's handler knows is no reason to refuse the document."""
    doc = compose_resource(spec="MY_CAMERA", path="/data/x.raw", root="/data", resource_kwargs={}).resource_doc
    assert doc["resource_path"] == "x.raw"


def test_path_outside_of_root():
    """The composer asks the path rules."""
    with pytest.raises(PathError, match="not under root"):
        compose_resource(spec="AD_HDF5", path="/tmp/a.h5", root="/data", resource_kwargs={})  # noqa: S108


def test_validation_is_on():
    """A document that event-model's schema refuses is never returned."""
    with pytest.raises(ValidationError):
        compose_resource(spec=5, path="/data/a.h5", root="/data", resource_kwargs={})  # type: ignore[arg-type]


def test_given_kwargs_are_not_kept():
    """Changing the caller's dictionary later does not change the document."""
    kwargs = {"frame_per_point": 1}
    doc = compose_resource(spec="AD_HDF5", path="/data/a.h5", root="/data", resource_kwargs=kwargs).resource_doc
    kwargs["frame_per_point"] = 2
    assert doc["resource_kwargs"] == {"frame_per_point": 1}


def test_stream_resource_and_stream_datum():
    """The spec gives media type and dataset; indices are half-open."""
    bundle = compose_stream_resource(
        spec="AD_HDF5", path="/data/run #1/a.h5", data_key="det_image", parameters={"chunk_shape": (1, 4, 6)}
    )
    doc = bundle.stream_resource_doc
    assert doc["mimetype"] == "application/x-hdf5"
    assert doc["uri"] == "file://localhost/data/run%20%231/a.h5"
    assert doc["parameters"] == {"dataset": "/entry/data/data", "chunk_shape": (1, 4, 6)}
    datum = bundle.compose_stream_datum(event_model.StreamRange(start=0, stop=3))
    assert (datum["indices"], datum["stream_resource"]) == ({"start": 0, "stop": 3}, doc["uid"])


def test_stream_resource_of_a_series_is_a_directory():
    """As for Resource: the URI ends in a slash."""
    doc = compose_stream_resource(spec="AD_TIFF", path="/data/t", data_key="k", parameters={}).stream_resource_doc
    assert doc["uri"] == "file://localhost/data/t/"


def test_stream_resource_needs_a_media_type():
    """Without one no reader would know what to do with the file."""
    with pytest.raises(UnknownSpecError, match="MY_CAMERA"):
        compose_stream_resource(spec="MY_CAMERA", path="/data/x.raw", data_key="k", parameters={})
