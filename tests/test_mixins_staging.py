"""Staging, describing and counting on the simulated IOC: what must hold whatever a beamline adds."""

import json
import os
import subprocess
import sys
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from mixin_detectors import (
    Bare,
    BareDetector,
    Camera,
    Chain,
    Detectors,
    OurHDF5,
    OurHDF5Single,
    OurTIFF,
    documented_file,
    frames_in,
    of,
    point,
    runs_of,
    set_size,
    staged,
)
from ophyd import Component, Device, Signal, SimDetector
from ophyd.areadetector.plugins import TIFFPlugin_V34
from ophyd.areadetector.trigger_mixins import MultiTrigger
from ophyd.device import Staged

from bluesky_filestore import FileStoreHDF5IterativeWrite, FileStoreIterativeWrite, FileStoreTIFFSquashing
from bluesky_filestore.errors import (
    ExtraFramesError,
    IOCUnreachableError,
    MissingFramesError,
    StageTimeoutError,
)
from bluesky_filestore.mixins import PathInfo
from bluesky_filestore.mixins.staging import PutBackReport
from bluesky_filestore.sim import SimDetectorHDF5, client_environment, pattern


class Squashing(TIFFPlugin_V34, FileStoreTIFFSquashing, FileStoreIterativeWrite):
    """The TIFF plugin behind the process plugin."""


@pytest.fixture
def small(ioc):
    """A function that makes detectors with small frames."""
    detectors = Detectors(ioc)
    yield detectors
    detectors.close()


class Stubborn(Signal):
    """A signal that never takes a value, as a record that an alarm or another client holds."""

    def put(self, value, **kwargs):
        """Nothing happens."""


def test_capture_is_last(small):
    """Whatever is added to stage_sigs, in whatever way, is set before the capture."""
    detector = small(hdf5=OurHDF5)
    detector.hdf5.stage_sigs["num_frames_chunks"] = 1
    detector.hdf5.stage_sigs[detector.hdf5.store_attr] = "Yes"
    with staged(detector):
        assert list(detector.hdf5._original_vals)[-1] == detector.hdf5.capture
        assert detector.hdf5._original_vals[detector.hdf5.capture] == 0
    assert list(detector.hdf5.stage_sigs)[-1] is detector.hdf5.store_attr


def test_timeout_puts_everything_back(small):
    """A record that does not obey is named, and the detector is as it was."""
    detector = small(hdf5=(OurHDF5, {"stage_timeout": 0.5}))
    with staged(detector):
        pass
    stubborn = Stubborn(name="shutter", value="closed")
    detector.hdf5.stage_sigs[stubborn] = "open"
    hdf5, cam = detector.hdf5, detector.cam
    signals = [hdf5.file_path, hdf5.file_name, hdf5.file_number, hdf5.create_directory, hdf5.enable, hdf5.file_template]
    signals += [hdf5.file_write_mode, hdf5.capture, cam.image_mode, cam.num_images, cam.acquire_time]
    before = [signal.get() for signal in signals]
    words = r"shutter is 'closed' 0\.5 s after 'open' was put to it.*WriteMessage says ''"
    with pytest.raises(StageTimeoutError, match=words) as caught:
        detector.stage()
    assert isinstance(caught.value, TimeoutError)
    assert [signal.get() for signal in signals] == before
    del hdf5.stage_sigs[stubborn]
    with staged(detector):
        point(detector)


class Hanging(Signal):
    """A signal of an IOC that hangs: what is put is heard of never, and what is asked is not answered."""

    def __init__(self, *args, host="", **kwargs):
        super().__init__(*args, **kwargs)
        self._read_pv, self.puts = SimpleNamespace(host=host), 0

    def put(self, value, **kwargs):
        """Nothing happens."""
        self.puts += 1

    def get(self, **kwargs):
        """No answer."""
        raise TimeoutError("no answer")


class Gone(Hanging):
    """A signal of an IOC that is gone."""

    connected = False


class AtThreeIOCs(Device):
    """A device with settings of an IOC that is there, of one that hangs and of one that is gone."""

    mode = Component(Signal, value=1)
    hangs = Component(Hanging, value=1, host="a:5064")
    hangs_too = Component(Hanging, value=1, host="a:5064")
    gone = Component(Gone, value=1, host="b:5064")
    capture = Component(Signal, value=1)


def test_an_ioc_that_hangs_beside_another(caplog):
    """The others' settings are put back all the same, in any order; of the one that hangs the first is waited for."""
    for names in permutations(["mode", "hangs", "hangs_too", "gone", "capture"]):
        caplog.clear()
        device = AtThreeIOCs("", name="det")
        for name in names:
            device._original_vals[getattr(device, name)] = 0
        device._staged = Staged.yes
        report = PutBackReport(0.01)
        report.attach(device)
        device.unstage()
        report.log("det")
        assert (device.mode.get(), device.capture.get()) == (0, 0)
        assert device.hangs.puts + device.hangs_too.puts == 1
        assert device.gone.puts == 0
        (said,) = (record.getMessage() for record in caplog.records if record.name.startswith("bluesky_filestore"))
        assert said.startswith("Not all settings of det could be put back, since its IOC does not answer: ")
        for name in ("hangs", "hangs_too", "gone"):
            assert f"det_{name} could not be put back to 0" in said


def test_failure_of_one_plugin_unstages_the_others(small):
    """When the second plugin can't be staged, the first one does not go on capturing."""
    detector = small(hdf5=OurHDF5, tiff=(OurTIFF, {"path_provider": lambda name: "x" * 400, "stage_timeout": 1}))
    with pytest.raises(StageTimeoutError, match="path may be too long"):
        detector.stage()
    assert detector.hdf5.capture.get() == 0
    assert detector.hdf5._staged.value == detector._staged.value == "no"


@pytest.mark.parametrize("color_mode", ["Mono", "RGB1"])
@pytest.mark.parametrize("data_type", ["UInt16", "Float64"])
def test_described_before_the_first_trigger(small, data_type, color_mode):
    """From stage on, shape and dtype are those of the arrays in the file."""
    detector = small(hdf5=OurHDF5)
    detector.cam.data_type.set(data_type).wait(5)
    detector.cam.color_mode.set(color_mode).wait(5)
    detector.cam.bin_x.set(2).wait(5)
    detector.cam.stage_sigs["num_images"] = 2
    with staged(detector):
        described = detector.describe()["det_image"]
        point(detector)
        documents = list(detector.collect_asset_docs())
    frames = frames_in(documented_file(documents))
    assert described["shape"] == list(frames.shape) == [2, 32, 24, 3][: frames.ndim]
    assert described["dtype_numpy"] == frames.dtype.str
    assert described["external"] == "FILESTORE:"


def test_region_of_interest(small):
    """A plugin behind a region of interest is primed by the region, and described by it."""
    detector = small(base=Chain, hdf5=OurHDF5)
    roi = detector.roi1
    settings = {"enable": "Enable", "data_type_out": "UInt16", "array_callbacks": "Enable"}
    for name, value in settings.items():
        getattr(roi, name).set(value).wait(5)
    for axis, size in (("x", 20), ("y", 10)):
        getattr(roi.size, axis).set(size).wait(5)
    detector.hdf5.stage_sigs["nd_array_port"] = roi.port_name.get()
    with staged(detector):
        described = detector.describe()["det_image"]
        point(detector)
        documents = list(detector.collect_asset_docs())
    roi.enable.set("Disable").wait(5)
    assert described["shape"] == list(frames_in(documented_file(documents)).shape) == [1, 10, 20]
    assert described["dtype_numpy"] == "<u2"
    assert detector.hdf5.nd_array_port.get() == detector.cam.port_name.get()


class SquashingDetector(Chain):
    """Two averages a trigger, of three frames each."""

    images_per_set = Component(Signal, value=3)
    number_of_sets = Component(Signal, value=2)
    tiff = Component(Squashing, "TIFF1:", write_path_template="/")


def test_squashing(ioc):
    """The files hold averages, as many as there are sets, and that is what is described."""
    detector = SquashingDetector(ioc.prefix, name="det")
    detector.wait_for_connection(timeout=20)
    detector.read_attrs = ["tiff"]
    detector.proc1.stage_sigs["enable"] = 1
    detector.cam.stage_sigs.update(acquire_time=0.02, acquire_period=0.02)
    detector.tiff.write_path_template = f"{ioc.directory}/squashed"
    set_size(detector, 48, 32)
    with staged(detector):
        described = detector.describe()["det_image"]
        first = detector.cam.array_counter.get()
        point(detector)
        point(detector)
        documents = list(detector.collect_asset_docs())
    detector.destroy()
    (resource,) = (doc for name, doc in documents if name == "resource")
    files = sorted(documented_file(documents).glob(f"{resource['resource_kwargs']['filename']}*"))
    averages = np.stack([tifffile.imread(path) for path in files])
    assert resource["resource_kwargs"]["frame_per_point"] == 2
    assert averages.shape == (4, 32, 48)
    assert described["shape"] == [2, 32, 48]
    assert described["dtype_numpy"] == averages.dtype.str
    taken = [pattern.frame(first + n, (32, 48), "uint8").astype(float) for n in range(1, 4)]
    assert np.abs(averages[0] - np.mean(taken, axis=0)).max() < 1.01


def test_hdf5_single(small):
    """One HDF5 file a frame: a series, counted by the file number."""
    detector = small(hdf5=OurHDF5Single)
    detector.cam.stage_sigs["num_images"] = 2
    with staged(detector):
        assert detector.describe()["det_image"]["shape"] == [2, 32, 48]
        point(detector)
        point(detector)
        documents = list(detector.collect_asset_docs())
    (resource,) = (doc for name, doc in documents if name == "resource")
    assert resource["spec"] == "AD_HDF5_SINGLE"
    kwargs = resource["resource_kwargs"]
    directory = str(documented_file(documents)) + "/"
    files = [Path(kwargs["template"] % (directory, kwargs["filename"], number)) for number in range(4)]
    numbers = [pattern.number(frames_in(path)) for path in files]
    assert np.diff(numbers).tolist() == [1, 1, 1]


def test_disabled_plugin_documents_nothing(small):
    """A plugin that is switched off has no key, no documents and no capture, and the next one has the plain key."""
    detector = small(hdf5=OurHDF5, tiff=OurTIFF)
    with staged(detector):
        point(detector)
        list(detector.collect_asset_docs())
    detector.hdf5.disable_on_stage()
    with staged(detector):
        assert list(detector.describe()) == ["det_image"]
        assert detector.hdf5.capture.get() == 0
        assert list(point(detector)) == ["det_image"]
        documents = list(detector.collect_asset_docs())
    assert [doc["spec"] for name, doc in documents if name == "resource"] == ["AD_TIFF"]


def test_data_key_of_choice(small):
    """A name given by the user stands over all others."""
    detector = small(hdf5=(OurHDF5, {"data_key": "diffraction"}))
    with staged(detector):
        assert list(detector.describe()) == ["diffraction"]
        assert list(point(detector)) == ["diffraction"]


def test_path_provider_is_asked_at_each_stage(small, ioc):
    """A new scan number, a new directory, without a restart."""
    scans = iter([PathInfo("visit 1", "scan_1"), PathInfo("visit 2", "scan_2")])
    detector = small(hdf5=(OurHDF5, {"path_provider": lambda name: next(scans)}))
    files = []
    for _ in range(2):
        with staged(detector):
            point(detector)
            files.append(documented_file(list(detector.collect_asset_docs())))
    assert [str(path.relative_to(ioc.directory)) for path in files] == [
        "visit 1/scan_1_000000.h5",
        "visit 2/scan_2_000000.h5",
    ]
    assert all(path.exists() for path in files)


def test_extra_frames_are_an_error(small):
    """Frames that somebody else triggers move all later ones; that is noticed at the point."""
    detector = small(hdf5=OurHDF5)
    with staged(detector):
        point(detector)
        detector.cam.acquire.put(1)
        detector.hdf5.num_captured.wait_for_connection()
        assert wait_until(lambda: detector.hdf5.num_captured.get() == 2 and not detector.cam.acquire.get())
        detector.trigger().wait(10)
        with pytest.raises(ExtraFramesError, match=r"has written 3 frames .* expected 2 .*something else triggers"):
            detector.read()


def wait_until(condition):
    """Whether a condition comes true within ten seconds."""
    from bluesky_filestore.mixins.waiting import poll_until

    return poll_until(condition, 10)


@pytest.mark.parametrize("when", ["unstage", "never"])
def test_counting_when_asked(small, when):
    """Counted at unstage, after everything is put back; or not at all."""
    detector = small(hdf5=(OurHDF5, {"confirm_frames": when, "stage_timeout": 1}))
    detector.stage()
    point(detector)
    detector.hdf5.generate_datum("det_image", 0, {})
    detector.read()
    if when == "never":
        detector.unstage()
    else:
        with pytest.raises(MissingFramesError, match=r"has written 1 frames .* expected 2"):
            detector.unstage()
    assert detector.hdf5.capture.get() == 0


@pytest.mark.parametrize(
    ("option", "words"),
    [("prime", "expected 'auto', 'require' or 'never'"), ("confirm_frames", "expected 'point', 'unstage' or 'never'")],
)
def test_unknown_choice(option, words):
    """A choice that does not exist is refused at once."""
    with pytest.raises(ValueError, match=f"{option} is 'maybe'; {words}"):
        FileStoreHDF5IterativeWrite(write_path_template="/data", **{option: "maybe"})


class Several(MultiTrigger, SimDetector):
    """Light and dark at each trigger."""

    hdf5 = Component(OurHDF5, "HDF1:", write_path_template="/")


def test_several_keys_a_trigger(ioc):
    """MultiTrigger's keys each get the datum of their own acquisition."""
    detector = Several(ioc.prefix, name="det", trigger_cycle=[[("light", {}), ("dark", {})]])
    detector.wait_for_connection(timeout=20)
    detector.read_attrs = ["hdf5"]
    detector.cam.stage_sigs.update(num_images=1, acquire_time=0.02, acquire_period=0.02)
    detector.hdf5.write_path_template = f"{ioc.directory}/several"
    set_size(detector, 48, 32)
    with staged(detector):
        point(detector)
        reading = point(detector)
        assert list(detector.describe()) == ["light", "dark"]
        documents = list(detector.collect_asset_docs())
    detector.destroy()
    points = {doc["datum_id"]: doc["datum_kwargs"]["point_number"] for name, doc in documents if name == "datum"}
    assert {key: points[value] for key, value in reading.items()} == {"light": 2, "dark": 3}


class OwnStage(OurHDF5):
    """A subclass as beamlines have them, with hooks of its own."""

    def stage(self):
        self.order = ["before"]
        staged = super().stage()
        self.order.append(self._fn)
        self._generate_resource({"frame_per_point": 1, "swmr": True})
        return staged

    def make_filename(self):
        filename, read_path, write_path = super().make_filename()
        return f"own_{filename}", read_path, write_path

    def get_frames_per_point(self):
        return 1

    def unstage(self):
        self.order.append("after")
        return super().unstage()


def test_subclass_with_its_own_hooks(small):
    """Each hook runs once, and what it decides is documented."""
    detector = small(hdf5=OwnStage)
    with staged(detector):
        point(detector)
        documents = list(detector.collect_asset_docs())
    assert len(detector.hdf5.order) == 3
    assert "/own_" in detector.hdf5.order[1]
    resources = [doc["resource_kwargs"] for name, doc in documents if name == "resource"]
    assert resources == [{"frame_per_point": 1}, {"frame_per_point": 1, "swmr": True}]


def test_plugin_without_most_components():
    """Checks that need a component which is not there are left out."""
    detector = BareDetector("", name="double")
    detector.stage()
    assert detector.file.capture.get() == 1
    assert list(detector.file.describe()) == [
        "double_image",
        *(f"double_file_{name}" for name in Bare._default_read_attrs or detector.file.read_attrs),
    ]
    detector.file.generate_datum("double_image", 0.0, {})
    assert detector.file.read()["double_image"]["value"].endswith("/0")
    detector.unstage()
    assert (detector.file.capture.get(), detector.file.array_counter.get()) == (0, 5)


def test_staged_once_run_twice(small):
    """Two runs in one stage are each complete: the second has a Resource, and its datums belong to it."""
    detector = small(hdf5=OurHDF5)

    @bpp.stage_decorator([detector])
    def plan():
        for _ in range(2):
            yield from bpp.run_wrapper(bps.repeat(lambda: bps.trigger_and_read([detector]), 2))

    runs = runs_of(plan())
    for number, run in enumerate(runs):
        (resource,) = of(run, "resource")
        datums = {doc["datum_id"]: doc for doc in of(run, "datum")}
        events = [doc["data"]["det_image"] for doc in of(run, "event")]
        assert resource["run_start"] == run[0][1]["uid"]
        assert {doc["resource"] for doc in datums.values()} == {resource["uid"]}
        assert [datums[datum_id]["datum_kwargs"]["point_number"] for datum_id in events] == [
            2 * number,
            2 * number + 1,
        ]


CONTROL_LAYER = """
import json, sys
import ophyd
sys.path.insert(0, sys.argv[1])
from mixin_detectors import OurHDF5, OurTIFF, documented_file, frames_in, make, point, set_size, staged
from bluesky_filestore.sim import SimulatedIOC, pattern
with SimulatedIOC(sys.argv[2], port=int(sys.argv[3])) as ioc:
    detector = make(ioc, hdf5=OurHDF5, tiff=OurTIFF)
    set_size(detector, 48, 32)
    with staged(detector):
        described = detector.describe()["det_image"]["shape"]
        point(detector), point(detector)
        path = documented_file([pair for pair in detector.hdf5.collect_asset_docs()])
    numbers = [pattern.number(frame) for frame in frames_in(path)]
    print(json.dumps([ophyd.cl.name, described, numbers]), flush=True)
    import os
    os._exit(0)
"""


@pytest.mark.parametrize("layer", ["pyepics", "caproto"])
def test_control_layers(tmp_path, layer):
    """The same under both of ophyd's control layers."""
    from bluesky_filestore.sim.ioc import free_port

    port = free_port()
    script = [sys.executable, "-c", CONTROL_LAYER, str(Path(__file__).parent), str(tmp_path), str(port)]
    environment = {**os.environ, **client_environment(port), "OPHYD_CONTROL_LAYER": layer}
    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    name, described, numbers = json.loads(done.stdout)
    assert (name, described) == (layer, [1, 32, 48])
    assert np.diff(numbers).tolist() == [1]


def test_stock_stage_does_nothing_else():
    """We leave out HDF5Plugin.stage, which is right as long as all it does is its check; see decision record 3."""
    import inspect

    from ophyd.areadetector.plugins import HDF5Plugin

    body = inspect.getsource(HDF5Plugin.stage).split("\n", 1)[1]
    assert body.count("raise UnprimedPlugin") == 1
    assert body.rstrip().endswith("return super().stage()")
    assert len(body.strip().splitlines()) == 7


def test_unknown_upstream_is_primed_once(small):
    """Where it can't be computed what will arrive, one frame tells, and counts until something changes."""
    detector = small(base=Chain, hdf5=OurHDF5)
    roi = detector.roi1
    for signal, value in ((roi.enable, "Enable"), (roi.array_callbacks, "Enable"), (roi.data_type_out, "Automatic")):
        signal.set(value).wait(5)
    roi.auto_size.x.set("Yes").wait(5)
    roi.min_xyz.min_x.set(8).wait(5)
    detector.hdf5.stage_sigs["nd_array_port"] = roi.port_name.get()
    taken = []
    for x in (48, 48, 24):
        set_size(detector, x, 32)
        roi.min_xyz.min_x.set(8).wait(5)
        before = detector.cam.array_counter.get()
        with staged(detector):
            taken.append(detector.cam.array_counter.get() - before)
    roi.auto_size.x.set("No").wait(5)
    roi.min_xyz.min_x.set(0).wait(5)
    roi.enable.set("Disable").wait(5)
    assert taken == [1, 0, 1]


def test_fake_device_stages():
    """A beamline's own tests with ophyd's fake devices do not wait for frames that can't come."""
    from ophyd.sim import make_fake_device

    class Detector(Camera):
        tiff = Component(OurTIFF, "TIFF1:", write_path_template="/data", root="/data")

    detector = make_fake_device(Detector)("X:", name="det")
    tiff, cam = detector.tiff, detector.cam
    for signal, value in (
        (tiff.nd_array_port, "CAM"), (tiff.port_name, "TIFF"), (cam.port_name, "CAM"), (tiff.plugin_type, "NDFileTIFF"),
        (cam.size.size_x, 0), (cam.size.size_y, 0), (cam.data_type, "UInt8"), (cam.color_mode, "Mono"),
        (cam.num_images, 1), (tiff.array_size.width, 0), (tiff.array_size.height, 0), (tiff.array_size.depth, 0),
        (tiff.file_path_exists, 1), (tiff.enable, 1), (tiff.blocking_callbacks, 1), (tiff.capture, 0),
        (tiff.data_type, "UInt8"), (tiff.color_mode, "Mono"), (tiff.dropped_arrays, 0), (cam.data_type_disabled, 0),
        *((getattr(cam.array_size, f"array_size_{axis}"), 4) for axis in "xy"),
    ):  # fmt: skip
        signal.sim_put(value)
    tiff.enable.sim_set_enum_strs(("Disable", "Enable"))
    tiff.blocking_callbacks.sim_set_enum_strs(("No", "Yes"))
    with staged(detector):
        assert tiff.describe()["det_image"]["shape"] == (1, 4, 4)
        assert cam.acquire.get() == 0


def test_no_ioc_answers(ioc):
    """A detector whose IOC is not there says how to start one; who catches ophyd's TimeoutError catches it too."""
    with pytest.raises(IOCUnreachableError, match=r"no IOC answers for 'NOBODY:'") as caught:
        SimDetectorHDF5("NOBODY:", name="det", write_path_template="/data")
    assert "'bluesky-filestore sim'" in str(caught.value)
    assert isinstance(caught.value, TimeoutError)
