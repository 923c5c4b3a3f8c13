"""ophyd-async's own detectors, in plans of a real RunEngine, come back from the catalog frame by frame."""

import asyncio
import gc
import json
from pathlib import Path

import event_model
import h5py
import numpy as np
import pytest
import tifffile
from aioca import caput, purge_channel_caches
from bluesky import RunEngine
from bluesky import plan_stubs as bps
from bluesky import plans as bp
from bluesky import preprocessors as bpp
from bluesky.utils import RunEngineInterrupted
from ophyd.sim import NullStatus
from ophyd_async import core as async_core
from PIL import Image

from bluesky_filestore import CatalogWriter, documents, fill, open_array
from bluesky_filestore.model.paths import from_uri

# aioca does so, with NumPy 2.5 and later.
pytestmark = pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning")

SIZE = (4, 6)


def providers(directory):
    """Where the files go."""
    return async_core.StaticPathProvider(async_core.UUIDFilenameProvider(), directory)


@pytest.fixture(scope="module")
def run_engine():
    """One RunEngine for all, in whose loop the detectors live, and which is left when their channels are closed."""
    engine = RunEngine()
    yield engine

    async def close():
        purge_channel_caches()
        await asyncio.sleep(0)

    asyncio.run_coroutine_threadsafe(close(), engine.loop).result(20)
    gc.collect()
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join()
    engine.loop.close()


@pytest.fixture
def taken(run_engine, catalog):
    """A function that runs a plan, resuming it whenever it pauses, and gives its documents and its run back."""

    def run(plan):
        received = []
        token = run_engine.subscribe(lambda name, doc: received.append((name, dict(doc))))
        with CatalogWriter(catalog.client) as writer:
            other = run_engine.subscribe(writer)
            try:
                run_engine(plan)
            except RunEngineInterrupted:
                while run_engine.state == "paused":
                    try:
                        run_engine.resume()
                    except RunEngineInterrupted:
                        continue
            run_engine.unsubscribe(token)
            run_engine.unsubscribe(other)
        return received, catalog.client[received[0][1]["uid"]]

    return run


def in_the_files(resource):
    """All frames of a StreamResource, as the libraries of their formats read them."""
    path, parameters = Path(from_uri(resource["uri"])), resource["parameters"]
    if "dataset" in parameters:
        with h5py.File(path) as file:
            return np.asarray(file[parameters["dataset"]])
    read = tifffile.imread if parameters["template"].endswith("tiff") else lambda name: np.asarray(Image.open(name))
    names = sorted(path.glob(parameters["template"].replace("{:06d}", "*")))
    return np.stack([read(name) for name in names])


def plain(doc):
    """A document as JSON has it, with lists for tuples."""
    return json.loads(json.dumps(doc, sort_keys=True, default=str))


def check(received, run, keys, frames=1):
    """Every way of reading has the frames that the stream_datums name, in their order; how many events each has."""
    resources = {doc["uid"]: doc for name, doc in received if name == "stream_resource"}
    counts = set()
    assert {doc["data_key"] for doc in resources.values()} == set(keys)
    for uid, resource in resources.items():
        held = in_the_files(resource)
        ranges = [doc["indices"] for name, doc in received if name == "stream_datum" and doc["stream_resource"] == uid]
        indices = [index * frames + n for one in ranges for index in range(*one.values()) for n in range(frames)]
        node = run["primary"][resource["data_key"]]
        read = node.read()
        np.testing.assert_array_equal(read.reshape(-1, *held.shape[1:]), held[indices], strict=True)
        np.testing.assert_array_equal(open_array(node)[:], read, strict=True)
        np.testing.assert_array_equal(open_array(received, data_key=resource["data_key"])[:], read, strict=True)
        filled = [doc["data"][resource["data_key"]] for name, doc in fill(received) if name == "event"]
        if filled:
            np.testing.assert_array_equal(np.reshape(filled, read.shape), read)
        counts.add(len(read))
    back = {doc.get("uid"): (name, plain(doc)) for name, doc in documents(run)}
    assert back == {doc.get("uid"): (name, plain(doc)) for name, doc in received}
    (count,) = counts
    return count


@pytest.fixture(scope="module")
def detectors(ioc, data_directory):
    """A function that makes areaDetector's simulated detector, of small frames, with writers of some formats."""
    made = {}

    def make(engine, *formats):
        from ophyd_async.epics.adcore import ADWriterFactory
        from ophyd_async.epics.adsimdetector import SimDetector

        writers = [
            getattr(ADWriterFactory, kind)(providers(data_directory), datakey_suffix=f"-{kind}" if place else "")
            for place, kind in enumerate(formats)
        ]
        detector = made[formats] = SimDetector(ioc.prefix, *writers, name="det")

        async def prepare():
            await detector.connect()
            settings = {"cam1:SizeY": SIZE[0], "cam1:SizeX": SIZE[1], "cam1:DataType": "UInt8"}
            # By hand, since ophyd-async's writers of TIFF and JPEG leave it to others: switched on, and one frame seen.
            settings |= {"HDF1:EnableCallbacks": 1, "TIFF1:EnableCallbacks": 1, "JPEG1:EnableCallbacks": 1}
            settings |= {"cam1:ImageMode": "Single", "cam1:WaitForPlugins": 1, "cam1:Acquire": 1}
            for name, value in settings.items():
                await caput(ioc.prefix + name, value, wait=True)

        asyncio.run_coroutine_threadsafe(prepare(), engine.loop).result(60)
        return detector

    return make


def flight(detector, scans, events, frames=1, pauses=()):
    """Fly scans in one run, with several collects each, of which some find nothing; paused at the end of some."""
    left = list(pauses)
    info = async_core.TriggerInfo(number_of_events=events, collections_per_event=frames)

    @bpp.stage_decorator([detector])
    @bpp.run_decorator()
    def plan():
        yield from bps.prepare(detector, info, wait=True)
        yield from bps.declare_stream(detector, name="primary", collect=True)
        for scan in range(scans):
            yield from bps.checkpoint()
            yield from bps.prepare(detector, info, wait=True)
            yield from bps.collect(detector, name="primary")
            yield from bps.kickoff(detector, wait=True)
            yield from bps.collect(detector, name="primary")
            yield from bps.complete(detector, wait=True)
            if scan in left:
                left.remove(scan)
                yield from bps.pause()
            yield from bps.collect(detector, name="primary")
            yield from bps.collect(detector, name="primary")

    return plan()


def test_three_formats(run_engine, detectors, taken):
    """HDF5, TIFF and JPEG beside each other, in a count and in a fly scan of several frames an event."""
    detector = detectors(run_engine, "hdf", "tiff", "jpeg")
    keys = ["det", "det-tiff", "det-jpeg"]
    received, run = taken(bp.count([detector], 3))
    assert check(received, run, keys) == 3
    assert run.metadata["notes"] == []
    received, run = taken(flight(detector, 2, 3, frames=2))
    assert check(received, run, keys, frames=2) == 6
    assert run.metadata["notes"] == []


def test_resumed(run_engine, detectors, taken):
    """Three fly scans, each paused once and resumed: all frames are there, and those that came again are said."""
    detector = detectors(run_engine, "hdf")
    received, run = taken(flight(detector, 3, 5, pauses=[0, 1, 2]))
    assert check(received, run, ["det"]) == 30
    (note,) = run.metadata["notes"]
    assert "a point that was taken again each time: rows 0 to " in note


def test_not_collected(run_engine, detectors, taken):
    """What a detector wrote and nobody collected is said; what was collected is right."""
    detector = detectors(run_engine, "hdf")

    @bpp.stage_decorator([detector])
    @bpp.run_decorator()
    def plan():
        for number in (2, 3):
            yield from bps.prepare(detector, async_core.TriggerInfo(number_of_events=number), wait=True)
            if number == 2:
                yield from bps.declare_stream(detector, name="primary", collect=True)
            yield from bps.kickoff(detector, wait=True)
            yield from bps.complete(detector, wait=True)
            if number == 2:
                yield from bps.collect(detector, name="primary")

    received, run = taken(plan())
    assert check(received, run, ["det"]) == 2
    words = run.metadata["filestore"]["uncollected"]["primary"]["det"]
    assert "holds 5 frames, and the run's documents speak of none from 2 on" in words


def test_pattern_detector(run_engine, taken, data_directory, monkeypatch):
    """Frames and their sums, a thousand events, three fly scans with pause and resume: all equal."""
    from ophyd_async.sim import PatternGenerator, SimBlobDetector, _blob_data_logic

    monkeypatch.setattr(_blob_data_logic, "HEIGHT", SIZE[0])
    monkeypatch.setattr(_blob_data_logic, "WIDTH", SIZE[1])
    # As fast as it can.
    generator = PatternGenerator(sleep=lambda seconds: asyncio.sleep(0))
    detector = SimBlobDetector(providers(data_directory), generator, name="blob")
    asyncio.run_coroutine_threadsafe(detector.connect(), run_engine.loop).result(20)
    received, run = taken(flight(detector, 3, 250, pauses=[1]))
    assert check(received, run, ["blob", "blob-sum"]) == 1000
    assert run["primary"]["blob-sum"].shape == (1000,)


def test_panda(run_engine, taken, data_directory):
    """PandA's writer: several datasets of one file, a number a frame each."""
    from ophyd_async.fastcs.panda import DatasetTable, PandaCaptureMode, PandaHdf5DatasetType
    from ophyd_async.fastcs.panda._data_logic import PandaHDFDataLogic

    soft, names = async_core.soft_signal_rw, ["x", "y"]

    class Block(async_core.Device):
        """What of PandA's records the writer asks for; those of a real one need a server of PV Access."""

        def __init__(self):
            self.create_directory, self.flush_period, self.num_captured = soft(int), soft(float), soft(int)
            self.hdf_directory, self.hdf_file_name = soft(str), soft(str)
            self.capture_mode = soft(PandaCaptureMode)
            self.capture, self.directory_exists = soft(bool), soft(bool, True)
            kinds = [PandaHdf5DatasetType.FLOAT_64] * len(names)
            self.datasets = soft(DatasetTable, DatasetTable(name=names, dtype=kinds))
            super().__init__()

    class Writer(async_core.StandardDetector):
        """The writer alone: pulses come by themselves."""

        def __init__(self):
            self.data = Block()
            self.add_detector_logics(PandaHDFDataLogic(providers(data_directory), self.data))
            super().__init__(name="panda")

    panda = Writer()
    asyncio.run_coroutine_threadsafe(panda.connect(), run_engine.loop).result(20)

    async def write(count):
        name = Path(await panda.data.hdf_directory.get_value()) / await panda.data.hdf_file_name.get_value()
        with h5py.File(name, "w") as file:
            for place, key in enumerate(names):
                file[key] = np.arange(count) * 1.5 + place
        await panda.data.num_captured.set(count)

    @bpp.stage_decorator([panda])
    @bpp.run_decorator()
    def plan():
        yield from bps.prepare(panda, async_core.TriggerInfo(number_of_events=8), wait=True)
        yield from bps.declare_stream(panda, name="primary", collect=True)
        yield from bps.kickoff(panda, wait=True)
        for count in (3, 8):
            yield from bps.wait_for([lambda count=count: write(count)])
            yield from bps.collect(panda, name="primary")
        yield from bps.complete(panda, wait=True)

    received, run = taken(plan())
    assert check(received, run, names) == 8
    assert run["primary"]["y"].read().tolist() == [1.5 * n + 1 for n in range(8)]


class OldFlyer:
    """A flyer of ophyd's first kind: events that name datums, and the documents of these."""

    name, parent = "old", None

    def __init__(self, path):
        self._path, self._assets, self._events = path, [], []
        with h5py.File(path, "w") as file:
            file["/entry/data/data"] = np.arange(5 * 24, dtype="<u2").reshape(5, *SIZE)

    def kickoff(self):
        made = event_model.compose_resource(
            spec="AD_HDF5",
            root=str(self._path.parent),
            resource_path=self._path.name,
            resource_kwargs={"frame_per_point": 1},
        )
        self._assets = [("resource", dict(made.resource_doc))]
        for frame in (0, 2, 1, 4, 3):
            datum = dict(made.compose_datum({"point_number": frame}))
            self._assets.append(("datum", datum))
            data = {"image": datum["datum_id"], "frame": frame}
            times = dict.fromkeys(data, 1.0)
            self._events.append({"data": data, "timestamps": times, "time": 1.0, "filled": {"image": False}})
        return NullStatus()

    def complete(self):
        return NullStatus()

    def describe_collect(self):
        image = {"source": "s", "dtype": "array", "shape": [1, *SIZE], "external": "FILESTORE:"}
        return {"flight": {"image": image, "frame": {"source": "s", "dtype": "integer", "shape": []}}}

    def collect_asset_docs(self):
        documented, self._assets = self._assets, []
        yield from documented

    def collect(self):
        events, self._events = self._events, []
        yield from events


def test_flyer_of_ophyd(run_engine, taken, data_directory):
    """Events of a flyer come as pages, with Resource and Datum, and the second collect finds nothing."""
    flyer = OldFlyer(data_directory / "old flyer.h5")

    @bpp.run_decorator()
    def plan():
        yield from bps.kickoff(flyer, wait=True)
        yield from bps.complete(flyer, wait=True)
        yield from bps.collect(flyer)
        yield from bps.collect(flyer)

    received, run = taken(plan())
    assert "event_page" in [name for name, _ in received]
    assert run.metadata["notes"] == []
    read = run["flight"]["image"].read()
    assert (read[:, 0, 0, 0] // 24).tolist() == run["flight"]["frame"].read().tolist() == [0, 2, 1, 4, 3]
    np.testing.assert_array_equal(open_array(run["flight"]["image"])[:], read)
    (page,) = (doc for name, doc in fill(received) if name == "event_page")
    np.testing.assert_array_equal(np.stack(page["data"]["image"]), read)
