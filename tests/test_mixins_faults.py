"""An IOC that dies, disks that are full, settings that can't be put back: what the mixins make of them."""

import os
import signal
import threading
import time
from contextlib import suppress

import epics
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from bluesky.utils import FailedStatus, RunEngineInterrupted
from mixin_detectors import (
    Camera,
    Chain,
    Detectors,
    OurHDF5,
    OurHDF5Single,
    OurTIFF,
    documented_file,
    frames_in,
    in_fresh_ioc,
    make,
    outcome,
    point,
    set_size,
    staged,
)
from ophyd import Component, Signal
from ophyd.areadetector.plugins import CodecPlugin_V34, ColorConvPlugin_V34, TransformPlugin_V34
from ophyd.device import Staged
from ophyd.signal import EpicsSignalBase

from bluesky_filestore import open_array
from bluesky_filestore.errors import MissingFramesError
from bluesky_filestore.sim import pattern

FRAME = 32 * 48
"""Bytes of a frame."""


@pytest.fixture
def small(ioc):
    """A function that makes detectors with small frames."""
    detectors = Detectors(ioc)
    yield detectors
    detectors.close()


# -- counted, but not written ------------------------------------------------------------------------------------------


def series_until_full(ioc, plugin):
    """Points on a disk that becomes full, until one fails; what is said then."""
    detector = make(ioc, file=plugin)
    set_size(detector, 48, 32)
    detector.stage()
    number, said = 0, "done"
    while said == "done" and number < 6:
        said = outcome(lambda: point(detector), 30)
        number += 1
    return number - 1, said, outcome(detector.unstage, 30), outcome(lambda: take(detector), 30)


def take(detector, points=1):
    """Stage, take points, unstage."""
    with staged(detector):
        for _ in range(points):
            point(detector)
        return list(detector.collect_asset_docs())


def full_tiff(ioc):
    """TIFF, each file in sight."""
    return series_until_full(ioc, OurTIFF)


def full_single(ioc):
    """HDF5, one file a frame."""
    return series_until_full(ioc, OurHDF5Single)


def full_tiff_far_away(ioc):
    """TIFF on a disk that this machine does not see: the records alone tell."""
    return series_until_full(ioc, (OurTIFF, {"read_path_template": f"{ioc.directory}/seen/elsewhere"}))


@pytest.mark.parametrize(("scenario", "room"), [(full_tiff, 5000), (full_single, 80_000), (full_tiff_far_away, 5000)])
def test_full_disk_in_a_series(tmp_path, scenario, room):
    """Each point until the disk is full is good, the next one is an error that says why."""
    number, said, unstaged, again = in_fresh_ioc(scenario, tmp_path, disk_space=room)
    assert 0 < number < 5
    assert said.startswith("MissingFramesError")
    assert "No space left" in said
    assert unstaged == "done"
    assert again.startswith("MissingFramesError")


def stream_until_full(ioc, swmr):
    """56 frames in chunks of 16, with room for 48."""
    detector = make(ioc, hdf5=OurHDF5)
    set_size(detector, 48, 32)
    take(detector)
    detector.hdf5.stage_sigs.update(num_frames_chunks=16, swmr_mode=swmr)
    detector.cam.stage_sigs.update(num_images=56, acquire_time=0.002, acquire_period=0.002)
    detector.stage()
    said = outcome(lambda: point(detector), 60)
    return said, outcome(detector.unstage, 60), detector._staged.value, detector.hdf5._staged.value


def full_swmr(ioc):
    """With SWMR."""
    return stream_until_full(ioc, "On")


def full_stream(ioc):
    """Without."""
    return stream_until_full(ioc, "Off")


@pytest.mark.parametrize(
    ("scenario", "words", "reason"),
    [
        (full_swmr, "8 of them are not in the file", "the disk is full"),
        (full_stream, "can't be opened", "as after a full disk"),
    ],
)
def test_full_disk_in_a_stream(tmp_path, scenario, words, reason):
    """No record tells, so that the file itself is looked into when it is closed."""
    said, unstaged, *states = in_fresh_ioc(scenario, tmp_path, disk_space=50 * FRAME)
    assert said == "done"
    assert unstaged.startswith("MissingFramesError")
    assert words in unstaged
    assert reason in unstaged
    assert states == ["no", "no"]


def test_skipped_by_min_callback_time(small):
    """Frames that the plugin skips are missed, and the record that is to blame is named."""
    detector = small(hdf5=(OurHDF5, {"stage_timeout": 2}))
    detector.cam.stage_sigs.update(num_images=3, acquire_time=0.02, acquire_period=0.02)
    detector.hdf5.stage_sigs["min_callback_time"] = 10
    with staged(detector):
        detector.trigger().wait(10)
        with pytest.raises(MissingFramesError, match=r"MinCallbackTime_RBV is 10\.0: the plugin skips frames"):
            detector.read()


class Packed(Camera):
    """A camera with a codec plugin."""

    codec1 = Component(CodecPlugin_V34, "Codec1:")


@pytest.mark.parametrize("plugin", [OurHDF5, OurTIFF])
def test_codec(small, plugin):
    """Frames that arrive compressed are in no file, and the error says so."""
    detector = small(base=Packed, hdf5=(plugin, {"stage_timeout": 2}))
    detector.codec1.stage_sigs.update(enable=1, compressor="JPEG", array_callbacks=1)
    detector.hdf5.stage_sigs["nd_array_port"] = "CODEC1"
    with staged(detector):
        detector.trigger().wait(10)
        with pytest.raises(MissingFramesError, match=r"Codec_RBV is 'jpeg'"):
            detector.read()


def test_position_mode(small):
    """A capture that fails since PositionMode was left on says so, and all is as it was."""
    detector = small(hdf5=OurHDF5)
    take(detector)
    detector.hdf5.position_mode.set("On").wait(5)
    try:
        with pytest.raises(RuntimeError, match=r"PositionMode_RBV is 'On', but the frames carry no positions"):
            detector.stage()
    finally:
        detector.hdf5.position_mode.set("Off").wait(5)
    take(detector)


def test_layout_elsewhere(small):
    """Frames where no reader looks for them are an error when the file is closed."""
    detector = small(hdf5=OurHDF5)
    detector.hdf5.xml_file_name.put(
        '<hdf5_layout><group name="a"><dataset name="b" source="detector"/></group></hdf5_layout>'
    )
    try:
        with pytest.raises(MissingFramesError, match=r"has no /entry/data/data.*XMLFileName"):
            take(detector)
    finally:
        detector.hdf5.xml_file_name.put("")
    take(detector)


# -- what comes next ---------------------------------------------------------------------------------------------------


class Longer(Chain):
    """A camera with more that changes frames."""

    trans1 = Component(TransformPlugin_V34, "Trans1:")
    cc1 = Component(ColorConvPlugin_V34, "CC1:")


CHANGES = {
    "roi1": [("size.x", 20), ("size.x", 24), ("size.x", 20), ("bin_.x", 2), ("bin_.x", 1)],
    "proc1": [("data_type_out", "UInt16"), ("data_type_out", "Automatic"), ("data_type_out", "UInt16")],
    "trans1": [("type_", "Rot90"), ("type_", "None"), ("type_", "Rot270Mirror"), ("type_", "Rot180")],
}


@pytest.mark.parametrize("name", CHANGES)
def test_change_upstream_between_runs(small, name):
    """After each change of what is before the plugin a run has all its frames, and describes them as they are."""
    detector = small(base=Longer, hdf5=OurHDF5)
    device = getattr(detector, name)
    if name == "roi1":
        device.roi_enable.x.set("Enable").wait(5)
    before = {setting: signal_of(device, setting).get() for setting, _ in CHANGES[name]}
    device.enable.set("Enable").wait(5)
    device.array_callbacks.set("Enable").wait(5)
    detector.hdf5.stage_sigs["nd_array_port"] = device.port_name.get()
    try:
        for setting, value in [(None, None), *CHANGES[name]]:
            if setting is not None:
                signal_of(device, setting).set(value).wait(5)
            with staged(detector):
                described = detector.describe()["det_image"]
                point(detector)
                point(detector)
                documents = list(detector.collect_asset_docs())
            frames = frames_in(documented_file(documents))
            assert frames.shape[0] == 2
            assert all(frame.any() for frame in frames)
            assert described["shape"] == [1, *frames.shape[1:]]
            assert described["dtype_numpy"] == frames.dtype.str
    finally:
        for setting, value in before.items():
            signal_of(device, setting).set(value).wait(5)
        device.enable.set("Disable").wait(5)


def signal_of(device, name):
    """A component by its dotted name."""
    for part in name.split("."):
        device = getattr(device, part)
    return device


# -- settings that can't be put back -----------------------------------------------------------------------------------


class Stuck(Signal):
    """A signal that takes a value once."""

    def put(self, value, **kwargs):
        """Nothing happens after the first time."""
        if self._readback == "before":
            super().put(value, **kwargs)


class Limited(Signal):
    """A signal that refuses its old value."""

    def check_value(self, value):
        """Only the new value is within the limits."""
        if value != "during":
            raise ValueError("beyond the limits")


@pytest.mark.parametrize("kind", [Stuck, Limited])
@pytest.mark.parametrize("place", ["hdf5", "cam"])
def test_setting_that_cannot_be_put_back(small, kind, place, caplog):
    """It is named, all others are put back, and the detector can be staged again."""
    detector = small(hdf5=(OurHDF5, {"stage_timeout": 0.5}))
    if kind is Stuck and place == "cam":
        detector.cam.stage_sigs.pop("acquire_time", None)
    signals = [detector.hdf5.enable, detector.hdf5.create_directory, detector.cam.image_mode, detector.cam.num_images]
    before = [signal.get() for signal in signals]
    signal = kind(name="stuck", value="before")
    getattr(detector, place).stage_sigs[signal] = "during"
    detector.stage()
    point(detector)
    detector.unstage()
    assert "stuck could not be put back to 'before'" in caplog.text
    assert [signal.get() for signal in signals] == before
    assert detector._staged.value == detector.hdf5._staged.value == detector.cam._staged.value == "no"
    take(detector)


def test_flush_cannot_be_put_back(small, caplog):
    """NumFramesFlush, whose boot value is refused: said at the first unstage, and nothing else is left undone."""
    detector = small(hdf5=(OurHDF5, {"stage_timeout": 1}))
    detector.hdf5.stage_sigs.update(num_frames_chunks=1, num_frames_flush=1)
    take(detector)
    enable = detector.hdf5.enable.get()
    for _ in range(2):
        assert len(frames_in(documented_file(take(detector, 2)))) == 2
        assert detector.hdf5.enable.get() == enable
    assert caplog.text.count("NumFramesFlush_RBV could not be put back to 0") <= 1


# -- a pause in an exposure --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pause", [0.12, 0.0])
def test_triggers_while_acquiring(small, pause):
    """Further triggers wait for the running acquisition, and then take frames of their own, one after the other."""
    detector = small(hdf5=OurHDF5)
    detector.cam.stage_sigs["num_images"] = 3
    began = []
    with staged(detector):
        detector.cam.acquire.subscribe(lambda value, **_: began.append(value), run=False)
        statuses = [detector.trigger()]
        time.sleep(pause)
        statuses += [detector.trigger() for _ in range(3)]
        for number, status in enumerate(statuses):
            status.wait(20)
            assert not any(later.done for later in statuses[number + 1 :])
        detector.read()
        documents = list(detector.collect_asset_docs())
    frames = frames_in(documented_file(documents))
    numbers = [pattern.number(frame) for frame in frames]
    assert numbers == list(range(numbers[0], numbers[0] + 12))
    assert began.count(1) == 4
    assert [name for name, _ in documents].count("datum") == 4


def test_a_trigger_that_waits_and_fails(small):
    """One that gave up is passed by: the next has the camera when its turn comes, and its frames are missed."""
    detector = small(hdf5=OurHDF5)
    detector.cam.stage_sigs["num_images"] = 3
    detector.stage()
    first, second, third = (detector.trigger() for _ in range(3))
    second.set_exception(TimeoutError("nobody waits for it"))
    for status in (first, third):
        status.wait(20)
    assert detector.cam.acquire.get() == 0
    with pytest.raises(MissingFramesError, match=r"has written 6 frames .* expected 9"):
        detector.read()
    detector.unstage()


def test_unstaged_while_a_trigger_waits(small):
    """A trigger that waits for a running acquisition begins nothing once the detector is unstaged."""
    detector = small(hdf5=OurHDF5)
    detector.cam.stage_sigs.update(num_images=5)
    with staged(detector):
        detector.trigger()
        time.sleep(0.15)
        second = detector.trigger()
    taken = detector.cam.array_counter.get()
    time.sleep(0.5)
    assert detector.cam.array_counter.get() == taken
    assert detector.cam.acquire.get() == 0
    assert not second.done


def test_pause_in_an_exposure(small):
    """After a pause in an exposure and a resume each row has the frames of its own acquisition."""
    detector = small(hdf5=OurHDF5)
    detector.cam.stage_sigs.update(num_images=2, acquire_time=0.3, acquire_period=0.3)
    documents = []
    engine = RunEngine()

    @bpp.stage_decorator([detector])
    @bpp.run_decorator()
    def plan():
        for number in range(3):
            yield from bps.checkpoint()
            yield from bps.create()
            yield from bps.trigger(detector, group="g")
            if number == 1 and documents[-1][0] != "paused":
                threading.Timer(0.1, engine.request_pause).start()
                documents.append(("paused", {}))
            yield from bps.wait("g")
            yield from bps.read(detector)
            yield from bps.save()

    try:
        with pytest.raises(RunEngineInterrupted):
            engine(plan(), lambda *pair: documents.append(pair))
        engine.resume()
    finally:
        engine.loop.call_soon_threadsafe(engine.loop.stop)
        engine._th.join()
        engine.loop.close()
    datums = {doc["datum_id"]: doc["datum_kwargs"]["point_number"] for name, doc in documents if name == "datum"}
    events = [doc["data"]["det_image"] for name, doc in documents if name == "event"]
    frames = frames_in(documented_file(documents))
    assert len(events) == 3
    assert len(frames) == 2 * 4
    assert [datums[datum] for datum in events] == [0, 2, 3]
    assert detector._staged.value == "no"


@pytest.mark.parametrize("asset_docs", ["datum", "stream"])
@pytest.mark.parametrize("interruption", [bps.pause, bps.drop])
def test_interrupted_between_read_and_save(small, run_engine, asset_docs, interruption):
    """What bluesky has collected it forgets then; the Resource comes again, and each event has its own frame."""
    detector = small(hdf5=(OurHDF5, {"asset_docs": asset_docs}))
    documents = []

    @bpp.stage_decorator([detector])
    @bpp.run_decorator()
    def plan():
        for _ in range(3):
            yield from bps.checkpoint()
            yield from bps.trigger(detector, wait=True)
            yield from bps.create()
            yield from bps.read(detector)
            yield from interruption()
            if interruption is bps.drop:
                yield from bps.trigger_and_read([detector])
            else:
                # The RunEngine has played it all again.
                yield from bps.save()

    with suppress(RunEngineInterrupted):
        run_engine(plan(), lambda name, doc: documents.append((name, dict(doc))))
    while run_engine.state == "paused":
        with suppress(RunEngineInterrupted):
            run_engine.resume()
    taken = open_array(documents, "det_image")[:][:, 0]
    kinds = [name for name, _ in documents]
    assert kinds.count("resource") + kinds.count("stream_resource") == 1
    (resource,) = (doc for name, doc in documents if name in ("resource", "stream_resource"))
    path = resource["uri"].removeprefix("file://localhost") if asset_docs == "stream" else documented_file(documents)
    np.testing.assert_array_equal(taken, frames_in(path)[[1, 3, 5]])


# -- an IOC that dies --------------------------------------------------------------------------------------------------


def death_in_an_exposure(ioc):
    """A plan whose IOC dies in an exposure; then a stage against a rebooted IOC."""
    detector = make(ioc, hdf5=OurHDF5, tiff=OurTIFF)
    set_size(detector, 48, 32)
    detector.cam.stage_sigs.update(acquire_time=30, acquire_period=30)
    detector.stage()
    status = detector.trigger()
    time.sleep(0.5)
    made = [name for name, _ in detector.get_instantiated_signals()]
    ioc.kill()
    said = [outcome(lambda: status.wait(20), 30), outcome(detector.unstage, 30)]
    # With ophyd's own the failure is told after a second, and a traceback, of a record that nobody had asked for.
    assert [name for name, _ in detector.get_instantiated_signals()] == made
    states = [device._staged.value for device in (detector, detector.cam, detector.hdf5, detector.tiff)]
    no_ioc = outcome(detector.stage, 40)
    ioc.reboot()
    detector.cam.stage_sigs.update(acquire_time=0.05, acquire_period=0.05)
    epics.ca.poll()
    # Every channel comes back on its own, and on a loaded machine seconds after the first.
    detector.wait_for_connection(timeout=30)
    set_size(detector, 48, 32)
    documents = take(detector, 2)
    file = documented_file([pair for pair in documents if pair[0] != "resource" or pair[1]["spec"] == "AD_HDF5"])
    return said, states, no_ioc, len(frames_in(file)), detector._staged.value


def test_ioc_dies_in_an_exposure(tmp_path):
    """The status fails, unstage ends, nothing is left half staged, and the next stage on a rebooted IOC is as ever."""
    said, states, no_ioc, frames, state = in_fresh_ioc(death_in_an_exposure, tmp_path)
    assert said[0].startswith("IOCUnreachableError")
    assert "was acquiring when 13SIM1:cam1:Acquire" in said[0]
    assert said[1] == "done"
    assert states == ["no"] * 4
    assert no_ioc.startswith("IOCUnreachableError")
    assert (frames, state) == (2, "no")


def hung_ioc(ioc):
    """An IOC that is there but does not answer any more, in an exposure."""
    detector = make(ioc, hdf5=(OurHDF5, {"stage_timeout": 2}))
    set_size(detector, 48, 32)
    detector.trigger_timeout = 1
    detector.cam.stage_sigs.update(acquire_time=30, acquire_period=30)
    detector.stage()
    status = detector.trigger()
    time.sleep(0.5)
    os.kill(ioc._child.pid, signal.SIGSTOP)
    try:
        return outcome(lambda: status.wait(60), 70), outcome(detector.unstage, 60)
    finally:
        os.kill(ioc._child.pid, signal.SIGCONT)


def test_hung_ioc(tmp_path):
    """The same where nothing tells that the connection is lost."""
    said, unstaged = in_fresh_ioc(hung_ioc, tmp_path)
    assert said.startswith("IOCUnreachableError")
    assert unstaged == "done"


def test_nothing_moves(small):
    """A camera that waits for a trigger that never comes ends the plan after a time that can be set."""
    detector = small(hdf5=OurHDF5)
    detector.cam.stage_sigs.update(acquire_time=20, acquire_period=0.01)
    detector.trigger_timeout = 1
    try:
        with staged(detector):
            detector.cam.acquire_period.set(0.01).wait(5)
            status = detector.trigger()
            detector.cam.acquire_time.set(0.01).wait(5)
            with pytest.raises(MissingFramesError, match=r"no frame has come for .* trigger_timeout=1"):
                status.wait(20)
    finally:
        detector.trigger_timeout = 60
    assert detector.cam.acquire.get() == 0
    detector.cam.stage_sigs.update(acquire_time=0.1, acquire_period=0.1)
    take(detector)


def death_with_frames(ioc):
    """An IOC that dies when a point has been taken; what unstage says of the file that it left open."""
    detector = make(ioc, hdf5=OurHDF5)
    set_size(detector, 48, 32)
    detector.stage()
    point(detector)
    ioc.kill()
    time.sleep(0.5)
    said = outcome(detector.unstage, 30)
    again = outcome(detector.unstage, 30)
    return said, again, detector._staged.value


def test_ioc_dies_with_frames_in_an_open_file(tmp_path):
    """Frames that were counted and are not in the file are an error, once."""
    said, again, state = in_fresh_ioc(death_with_frames, tmp_path)
    assert said.startswith("MissingFramesError")
    assert "Its IOC does not answer any more" in said
    assert (again, state) == ("done", "no")


def death_in_stage(ioc):
    """An IOC that dies while a detector is staged; then a stage against a rebooted IOC."""
    detector = make(ioc, hdf5=OurHDF5, tiff=OurTIFF)
    set_size(detector, 48, 32)
    told = []
    for seconds in (0.05, 0.3):
        threading.Timer(seconds, ioc.kill).start()
        told.append(outcome(detector.stage, 60))
        states = [device._staged.value for device in (detector, detector.cam, detector.hdf5, detector.tiff)]
        ioc.reboot()
        epics.ca.poll()
        # Some of its records may have been asked for the first time while it died.
        detector.wait_for_connection(timeout=30)
        for device in (detector.cam, detector.hdf5, detector.tiff):
            for component in list(device._signals.values()):
                with suppress(TimeoutError):
                    component.wait_for_connection(timeout=5)
            # These it serves in any case, however long a loaded machine may take to find them again.
            for each in device.stage_sigs:
                component = getattr(device, each) if isinstance(each, str) else each
                if isinstance(component, EpicsSignalBase):
                    component.wait_for_connection(timeout=30)
        set_size(detector, 48, 32)
    return told, states, len(frames_in(documented_file([pair for pair in take(detector, 2) if is_hdf5(pair)])))


def is_hdf5(pair):
    """Whether it is not the Resource of the TIFF files."""
    return pair[0] != "resource" or pair[1]["spec"] == "AD_HDF5"


def test_ioc_dies_in_stage(tmp_path):
    """The error says so, whatever was being asked for, nothing is left half staged, and the next stage is as ever."""
    told, states, frames = in_fresh_ioc(death_in_stage, tmp_path)
    assert [words.partition(":")[0] for words in told] == ["IOCUnreachableError"] * 2, told
    assert states == ["no"] * 4
    assert frames == 2


def request_fails_first(ioc):
    """A stage in which a request fails by the loss of the connection before that itself is heard."""
    detector = make(ioc, hdf5=OurHDF5)
    set_size(detector, 48, 32)

    def get(**_):
        os.kill(ioc._child.pid, signal.SIGSTOP)
        raise epics.ca.ChannelAccessGetFailure("Get failed; status code: 192", chid=1, status=192)

    detector.cam.image_mode.get = get
    try:
        return outcome(detector.stage, 60)
    finally:
        os.kill(ioc._child.pid, signal.SIGCONT)


def test_a_request_fails_before_the_loss_is_heard(tmp_path):
    """It is not the failed request that the error is about."""
    said = in_fresh_ioc(request_fails_first, tmp_path)
    assert said.startswith("IOCUnreachableError: det could not be staged")
    assert "does not answer any more" in said
    assert "(ChannelAccessGetFailure: Get failed; status code: 192)" in said


def test_a_setting_that_cannot_be_read(ioc, monkeypatch):
    """A detector of which not even the present settings could be had is not half staged: it can be staged again."""
    detector = make(ioc, hdf5=OurHDF5)
    with monkeypatch.context() as patch:
        patch.setattr(detector.cam.image_mode, "get", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            detector.stage()
    assert detector._staged is Staged.no
    detector.stage()
    detector.unstage()


def death_in_a_plan(ioc):
    """The whole plan with a RunEngine."""
    detector = make(ioc, hdf5=OurHDF5)
    set_size(detector, 48, 32)
    detector.cam.stage_sigs.update(acquire_time=30, acquire_period=30)
    engine = RunEngine()
    names = []

    def kill_in_the_exposure():
        while detector._status is None:
            time.sleep(0.05)
        time.sleep(0.5)
        ioc.kill()

    threading.Thread(target=kill_in_the_exposure, daemon=True).start()
    try:
        engine(
            bpp.stage_wrapper(bpp.run_wrapper(bps.trigger_and_read([detector])), [detector]),
            lambda n, d: names.append(n),
        )
    except FailedStatus as error:
        return type(error.__cause__).__name__, names, detector._staged.value
    return "no error"


def test_ioc_dies_in_a_plan(tmp_path):
    """The plan ends with the reason, its run has a stop document, and the detector is unstaged."""
    reason, names, state = in_fresh_ioc(death_in_a_plan, tmp_path)
    assert names[-1] == "stop"
    assert state == "no"
    assert reason == "IOCUnreachableError"
