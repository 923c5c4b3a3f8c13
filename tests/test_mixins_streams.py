"""StreamResource and StreamDatum documents from step scans."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from mixin_detectors import Camera, Detectors, OurHDF5, OurTIFF, frames_in, of, runs_of, staged

from bluesky_filestore import FileStoreHDF5IterativeWrite
from bluesky_filestore.errors import MissingFramesError, StageError
from bluesky_filestore.mixins import FlyableFileStore
from bluesky_filestore.model.paths import from_uri
from bluesky_filestore.sim import pattern


@pytest.fixture
def small(ioc):
    """A function that makes detectors with small frames."""
    detectors = Detectors(ioc)
    yield detectors
    detectors.close()


def frames_of(resource, indices):
    """The frames that a reader finds under some indices."""
    parameters, path = resource["parameters"], Path(from_uri(resource["uri"]))
    rows = [index * parameters["multiplier"] + n for index in indices for n in range(parameters["multiplier"])]
    if path.is_dir():
        names = [parameters["template"] % (f"{path}/", parameters["filename"], row) for row in rows]
        return np.stack([tifffile.imread(name) for name in names])
    return frames_in(path)[rows]


@pytest.mark.parametrize(("plugin", "mimetype"), [(OurHDF5, "application/x-hdf5"), (OurTIFF, "multipart/related")])
def test_step_scan(small, plugin, mimetype):
    """Each event's frames are under the index that its StreamDatum says, and the event itself does not name them."""
    detector = small(file=(plugin, {"asset_docs": "stream"}))
    detector.cam.stage_sigs["num_images"] = 2

    @bpp.stage_decorator([detector])
    @bpp.run_decorator()
    def plan():
        yield from bps.repeat(lambda: bps.trigger_and_read([detector]), 3)

    (run,) = runs_of(plan())
    (resource,) = of(run, "stream_resource")
    (descriptor,) = of(run, "descriptor")
    assert resource["mimetype"].startswith(mimetype)
    assert descriptor["data_keys"]["det_image"]["external"] == "STREAM:"
    assert descriptor["data_keys"]["det_image"]["shape"] == [2, 32, 48]
    assert [doc["data"] for doc in of(run, "event")] == [{}, {}, {}]
    ranges = [(doc["indices"], doc["seq_nums"]) for doc in of(run, "stream_datum")]
    assert ranges == [({"start": n, "stop": n + 1}, {"start": n + 1, "stop": n + 2}) for n in range(3)]
    numbers = [pattern.number(frame) for frame in frames_of(resource, range(3))]
    assert np.diff(numbers).tolist() == [1] * 5


def test_second_run_has_its_own_resource(small):
    """Staged once, run twice: the second run's indices go on where the first one's ended, in the same file."""
    detector = small(hdf5=(OurHDF5, {"asset_docs": "stream"}))

    @bpp.stage_decorator([detector])
    def plan():
        for _ in range(2):
            yield from bpp.run_wrapper(bps.repeat(lambda: bps.trigger_and_read([detector]), 2))

    first, second = runs_of(plan())
    (one,), (other,) = of(first, "stream_resource"), of(second, "stream_resource")
    assert one["uri"] == other["uri"]
    assert one["uid"] != other["uid"]
    assert [doc["indices"]["start"] for doc in of(second, "stream_datum")] == [2, 3]
    assert {doc["stream_resource"] for doc in of(second, "stream_datum")} == {other["uid"]}


def test_uncollected_ranges_are_announced(small, caplog):
    """What nobody collected is said at unstage."""
    detector = small(hdf5=(OurHDF5, {"asset_docs": "stream"}))
    with staged(detector):
        detector.trigger().wait(10)
        assert detector.read() == {}
    assert "unstaged with 1 datum documents" in caplog.text
    assert [name for name, _ in detector.collect_asset_docs()] == ["stream_resource", "stream_datum"]


def test_unknown_choice():
    """A kind of documents that does not exist is refused at once."""
    with pytest.raises(ValueError, match="asset_docs is 'page'; expected 'datum' or 'stream'"):
        FileStoreHDF5IterativeWrite(write_path_template="/data", asset_docs="page")


class Flyer(FlyableFileStore, Camera):
    """A camera that flies."""


def fly(detectors, frames):
    """The usual fly scan."""

    @bpp.stage_decorator(detectors)
    @bpp.run_decorator()
    def plan():
        for detector in detectors:
            yield from bps.prepare(detector, frames, wait=True)
        yield from bps.declare_stream(*detectors, name="primary", collect=True)
        yield from bps.kickoff_all(*detectors, wait=True)
        yield from bps.collect_while_completing(detectors, detectors, flush_period=0.1, stream_name="primary")

    (run,) = runs_of(plan())
    return run


def test_fly(small):
    """Each frame is an event of its own, told of while the acquisition goes on, in both files."""
    detector = small(base=Flyer, hdf5=(OurHDF5, {"asset_docs": "stream"}), tiff=(OurTIFF, {"asset_docs": "stream"}))
    run = fly([detector], 7)
    (descriptor,) = of(run, "descriptor")
    assert {key: value["shape"] for key, value in descriptor["data_keys"].items()} == {
        "det_image": [1, 32, 48],
        "det_image_tiff": [1, 32, 48],
    }
    seen = {}
    for resource in of(run, "stream_resource"):
        ranges = [doc for doc in of(run, "stream_datum") if doc["stream_resource"] == resource["uid"]]
        indices = [n for doc in ranges for n in range(doc["indices"]["start"], doc["indices"]["stop"])]
        seq_nums = [n for doc in ranges for n in range(doc["seq_nums"]["start"], doc["seq_nums"]["stop"])]
        assert indices == list(range(7))
        assert seq_nums == list(range(1, 8))
        assert len(ranges) > 1
        seen[resource["data_key"]] = frames_of(resource, indices)
    np.testing.assert_array_equal(seen["det_image"], seen["det_image_tiff"])
    numbers = [pattern.number(frame) for frame in seen["det_image"]]
    assert np.diff(numbers).tolist() == [1] * 6
    assert of(run, "stop")[0]["exit_status"] == "success"


def test_flyer_takes_part_in_step_scans(small):
    """Without prepare, a detector that can fly is an ordinary one."""
    detector = small(base=Flyer, hdf5=(OurHDF5, {"asset_docs": "stream"}))
    detector.cam.stage_sigs["num_images"] = 2

    @bpp.stage_decorator([detector])
    @bpp.run_decorator()
    def plan():
        yield from bps.repeat(lambda: bps.trigger_and_read([detector]), 2)

    (run,) = runs_of(plan())
    assert of(run, "descriptor")[0]["data_keys"]["det_image"]["shape"] == [2, 32, 48]
    assert [doc["indices"]["start"] for doc in of(run, "stream_datum")] == [0, 1]


def test_back_pressure(small):
    """A detector tells of no later events than it is asked for."""
    detector = small(base=Flyer, hdf5=(OurHDF5, {"asset_docs": "stream"}))
    with staged(detector):
        detector.prepare(5).wait(5)
        detector.kickoff().wait(5)
        detector.complete().wait(20)
        assert detector.get_index() == 5
        told = [doc["indices"] for name, doc in detector.collect_asset_docs(3) if name == "stream_datum"]
        told += [doc["indices"] for name, doc in detector.collect_asset_docs() if name == "stream_datum"]
    assert told == [{"start": 0, "stop": 3}, {"start": 3, "stop": 5}]


def test_flight_cut_short(small):
    """A camera that stops early is an error of the flight."""
    detector = small(base=Flyer, hdf5=(OurHDF5, {"asset_docs": "stream", "stage_timeout": 1}))
    with staged(detector):
        detector.prepare(500).wait(5)
        detector.kickoff().wait(5)
        detector.cam.acquire.put(0)
        with pytest.raises(MissingFramesError, match="of 500 frames, and no further one within"):
            detector.complete().wait(20)


@pytest.mark.parametrize(("plugin", "words"), [("stream", "call stage"), ("datum", "asset_docs='stream'")])
def test_not_ready_to_fly(small, plugin, words):
    """A flight without stage, or without a file that can tell of it, is refused."""
    detector = small(base=Flyer, hdf5=(OurHDF5, {"asset_docs": plugin}))
    if plugin == "datum":
        detector.stage()
    with pytest.raises(StageError, match=words):
        detector.prepare(3)
    with pytest.raises(StageError, match=r"call prepare\(frames\) before kickoff"):
        detector.kickoff()
    detector.unstage()
