"""NDAttributes as data keys beside the frames: descriptor, documents, file, catalog and every way of reading agree."""

import h5py
import numpy as np
import pytest
from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from mixin_detectors import Camera, Detectors, OurHDF5, of, runs_of, staged

from bluesky_filestore import CatalogWriter, FlyableFileStore, documents, fill, open_array
from bluesky_filestore.errors import MissingFramesError, StageError

XML = """<Attributes>
<Attribute name="temperature" type="EPICS_PV" source="{}cam1:Temperature_RBV" dbrtype="DBR_DOUBLE"/>
</Attributes>"""
PLUGIN_XML = '<Attributes><Attribute name="mode" type="PARAM" source="FileWriteMode" datatype="STRING"/></Attributes>'
ATTRIBUTES = ["temperature", "NDArrayUniqueId", "mode", "ColorMode"]
KEYS = {
    "det_temperature": ("number", "<f8"),
    "det_NDArrayUniqueId": ("integer", "<i4"),
    "det_mode": ("string", "|S256"),
    "det_ColorMode": ("integer", "<i4"),
}


@pytest.fixture
def small(ioc):
    """A function that makes detectors with small frames, whose camera and plugin send attributes."""
    detectors, told = Detectors(ioc), []

    def make_detector(**options):
        detector = detectors((6, 4), options.pop("base", Camera), hdf5=(OurHDF5, options))
        for signal, text in (
            (detector.cam.nd_attributes_file, XML.format(ioc.prefix)),
            (detector.hdf5.nd_attributes_file, PLUGIN_XML),
        ):
            signal.put(text, wait=True)
            told.append(signal)
        return detector

    yield make_detector
    for signal in told:
        signal.put("", wait=True)
    detectors.close()


def truth(run):
    """The file's own values by data key."""
    (resource, *_) = [*of(run, "resource"), *of(run, "stream_resource")]
    path = resource.get("uri", "").removeprefix("file://localhost")
    with h5py.File(path or f"{resource['root']}/{resource['resource_path']}") as file:
        group = file["entry/instrument/NDAttributes"]
        values = {f"det_{name}": group[name][:] for name in ("temperature", "NDArrayUniqueId", "mode")}
        values["det_ColorMode"] = file["entry/instrument/detector/NDAttributes/ColorMode"][:]
        return values | {"det_image": file["entry/data/data"][:]}


def check_everywhere(run, catalog, first, rows):
    """Catalog, open_array, fill and documents() have for each row what the file holds, from the row `first` on."""
    with CatalogWriter(catalog.client) as writer:
        for name, doc in run:
            writer(name, doc)
    node = catalog.client[run[0][1]["uid"]]
    # The file goes on with the second run, which stream documents of the first cannot know.
    assert set(node.metadata["filestore"]) <= ({"uncollected"} if first == 0 else set())
    (descriptor,) = of(run, "descriptor")
    for key, values in truth(run).items():
        entry, array = descriptor["data_keys"][key], node["primary"][key]
        shape = (rows, *entry["shape"])
        size = int(np.prod(shape)) // int(np.prod(values.shape[1:]))
        expected = values[first * size // rows :][:size].reshape(shape)
        assert array.dtype == values.dtype == np.dtype(entry["dtype_numpy"])
        for read in (array.read(), open_array(array)[:], open_array(run, data_key=key)[:]):
            np.testing.assert_array_equal(read, expected, strict=True)
        filled = [doc["data"][key] for name, doc in fill(run) if name == "event"]
        if filled:
            np.testing.assert_array_equal(np.stack(filled).reshape(shape), expected)
    back = list(documents(node))
    assert [name for name, _ in back] == [name for name, _ in run]
    assert [doc for name, doc in back if name == "event"] == of(run, "event")


@pytest.mark.parametrize(("asset_docs", "frames"), [("datum", 1), ("stream", 2)])
def test_step_scans(small, catalog, asset_docs, frames):
    """Staged once and run twice, each run has its own documents of every attribute."""
    detector = small(asset_docs=asset_docs, attributes=ATTRIBUTES, swmr=frames == 2)
    detector.cam.stage_sigs["num_images"] = frames

    def points(first):
        for degrees in range(first, first + 2):
            yield from bps.mv(detector.cam.temperature, degrees)
            yield from bps.trigger_and_read([detector])

    @bpp.stage_decorator([detector])
    def plan():
        yield from bpp.run_wrapper(points(10))
        yield from bpp.run_wrapper(points(20))

    runs = runs_of(plan())
    for run in runs:
        (descriptor,) = of(run, "descriptor")
        for key, (kind, dtype) in KEYS.items():
            entry = descriptor["data_keys"][key]
            assert (entry["dtype"], entry["dtype_numpy"]) == (kind if frames == 1 else "array", dtype)
            assert entry["shape"] == ([] if frames == 1 else [frames])
            assert entry["external"] == ("FILESTORE:" if asset_docs == "datum" else "STREAM:")
    degrees = [degrees for degrees in (10, 11, 20, 21) for _ in range(frames)]
    assert truth(runs[0])["det_temperature"].tolist() == degrees
    check_everywhere(runs[0], catalog, 0, 2)
    check_everywhere(runs[1], catalog, 2, 2)


class FlyingCamera(FlyableFileStore, Camera):
    """One that flies."""


def test_fly_scan(small, catalog):
    """Each frame of a flight has a value of its own, after the frames of a step before it."""
    detector = small(base=FlyingCamera, asset_docs="stream", attributes=ATTRIBUTES)

    @bpp.stage_decorator([detector])
    @bpp.run_decorator()
    def plan():
        yield from bps.trigger_and_read([detector], name="before")
        yield from bps.prepare(detector, 3, wait=True)
        yield from bps.declare_stream(detector, name="primary", collect=True)
        yield from bps.kickoff(detector, wait=True)
        yield from bps.complete(detector, wait=True)
        yield from bps.collect(detector, name="primary")

    (run,) = runs_of(plan())
    with CatalogWriter(catalog.client) as writer:
        for name, doc in run:
            writer(name, doc)
    node, held = catalog.client[run[0][1]["uid"]], truth(run)
    assert node.metadata["notes"] == []
    for key in KEYS:
        np.testing.assert_array_equal(node["before"][key].read(), held[key][:1], strict=True)
        np.testing.assert_array_equal(node["primary"][key].read(), held[key][1:], strict=True)
    assert node["primary"]["det_NDArrayUniqueId"].read().tolist() == [
        held["det_NDArrayUniqueId"][0] + after for after in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        (["pressure"], "asked for the attribute 'pressure', which is not sent along with the frames; known are "),
        (["native"], "asked for the attribute 'native', which is of unknown type; .*attributes={'native': 'f8'}"),
    ],
)
def test_refused_at_stage(small, attributes, words):
    """What nobody sends, or whose type nobody knows, is refused before anything is set."""
    detector = small(attributes=attributes)
    detector.cam.nd_attributes_file.put(
        '<Attributes><Attribute name="native" source="cam1:Gain"/></Attributes>', wait=True
    )
    with pytest.raises(StageError, match=words):
        detector.stage()
    assert detector.hdf5.capture.get() == 0


def test_type_that_is_given(small, tmp_path):
    """With its type an attribute may be native, or in XML that only the IOC can read; not if nobody writes it."""
    detector = small(attributes={"native": "f8"})
    detector.cam.nd_attributes_file.put(
        '<Attributes><Attribute name="native" source="cam1:Gain"/></Attributes>', wait=True
    )
    with staged(detector):
        assert detector.describe()["det_native"]["dtype_numpy"] == "<f8"
    detector.cam.nd_attributes_file.put(str(tmp_path / "not there.xml"), wait=True)
    detector.stage()
    detector.trigger().wait(20)
    detector.read()
    with pytest.raises(MissingFramesError, match=r"of /entry/instrument/NDAttributes/native 1 values are not in"):
        detector.unstage()


@pytest.mark.parametrize("attributes", ["temperature", {"temperature": "O"}])
def test_bad_option(attributes):
    """A single text, or a type that no file has, is refused when the class is made."""
    with pytest.raises(ValueError, match="expected"):
        OurHDF5("X:", name="h", write_path_template="/data", root="/data", attributes=attributes)
