"""Every trap of a real areaDetector IOC: what stock ophyd's classes make of it, and what ours do."""

import re
import time
from collections import OrderedDict

import pytest
from mixin_detectors import (
    Detectors,
    OurHDF5,
    OurTIFF,
    StockCamera,
    StockHDF5,
    StockTIFF,
    UnversionedOurHDF5,
    UnversionedStockHDF5,
    documented_file,
    frames_in,
    in_fresh_ioc,
    make,
    outcome,
    point,
    set_size,
    staged,
)
from ophyd import Signal

from bluesky_filestore.errors import DirectoryMissingError, MissingFramesError, StageError, UnprimedPluginError
from bluesky_filestore.sim import pattern


@pytest.fixture
def small(ioc):
    """A function that makes detectors with small frames."""
    detectors = Detectors(ioc)
    yield detectors
    detectors.close()


# -- trap 1: a plugin that has seen no frame ---------------------------------------------------------------------------


class OwnStage(OurHDF5):
    """A beamline's class with a stage of its own."""

    def stage(self):
        """Nothing but ours."""
        return super().stage()


def scenario_unprimed(ioc):
    """Stock, then ours with each answer that leaves the plugin as it is."""
    stock = make(ioc, hdf5=StockHDF5)
    set_size(stock, 48, 32)
    answers = {"stock": outcome(stock.stage, 30)}
    stock.unstage()
    for prime in ("require", "never"):
        ours = make(ioc, hdf5=(OurHDF5, {"prime": prime, "stage_timeout": 3}))
        answers[prime] = outcome(ours.stage, 30)
    answers["path is as before"] = ours.hdf5.file_path.get() == ""
    answers["enable is as before"] = ours.hdf5.enable.get()
    own = make(ioc, hdf5=(OwnStage, {"prime": "never"}))
    for detector in (ours, own):
        detector.hdf5.stage_sigs["lazy_open"] = "Yes"
    answers["never, lazy, a stage of its own"] = outcome(own.stage, 30)
    own.unstage()
    with staged(ours):
        point(ours)
        documents = list(ours.collect_asset_docs())
    answers["never, lazy"] = frames_in(documented_file(documents)).shape
    return answers


def test_unprimed_plugin(tmp_path):
    """Stock refuses whatever is wanted; ours says why, or trusts the user who opens lazily."""
    answers = in_fresh_ioc(scenario_unprimed, tmp_path)
    assert answers["stock"].startswith("UnprimedPlugin")
    assert re.search("UnprimedFilePluginError: .*it has seen no frame.*prime='auto'", answers["require"])
    assert re.search("StageError: 13SIM1:HDF1:Capture_RBV is 0 .* went back to 0 by itself", answers["never"])
    assert answers["path is as before"]
    assert answers["enable is as before"] == "Disable"
    assert answers["never, lazy, a stage of its own"] == "done"
    assert answers["never, lazy"] == (1, 32, 48)


def scenario_auto(ioc):
    """Ours on a plugin that has seen no frame, with all settings compared before and after."""
    detector = make(ioc, hdf5=OurHDF5)
    set_size(detector, 48, 32)
    detector.cam.acquire_time.set(2.5).wait(5)
    detector.cam.trigger_mode.set("External").wait(5)
    names = ["acquire", "acquire_time", "acquire_period", "image_mode", "num_images", "trigger_mode", "array_callbacks"]
    signals = [getattr(detector.cam, name) for name in names]
    signals += [getattr(detector.hdf5, name) for name in ("enable", "auto_save", "capture", "create_directory")]
    before = [signal.get() for signal in signals]
    with staged(detector):
        pass
    after = [signal.get() for signal in signals]
    detector.cam.trigger_mode.set("Internal").wait(5)
    with staged(detector):
        point(detector)
        documents = list(detector.collect_asset_docs())
    return before, after, frames_in(documented_file(documents))


def test_priming_restores_every_setting(tmp_path):
    """The one frame leaves no trace in the settings, nor in the files."""
    before, after, frames = in_fresh_ioc(scenario_auto, tmp_path)
    assert after == before
    assert frames.shape == (1, 32, 48)
    assert pattern.number(frames[0]) == 2


# -- trap 2: stale priming ---------------------------------------------------------------------------------------------


def take(detector, points=3):
    """The frames in the file after some points."""
    with staged(detector):
        for _ in range(points):
            point(detector)
        documents = list(detector.collect_asset_docs())
    return frames_in(documented_file(documents))


def test_stale_priming_loses_frames_with_stock(small):
    """After a change of size stock writes one empty frame of the old size, and no error."""
    take(small(hdf5=OurHDF5, size=(64, 40)))
    frames = take(small(hdf5=StockHDF5, size=(48, 32)))
    assert frames.shape == (1, 40, 64)
    assert not frames.any()


@pytest.mark.parametrize(("data_type", "dtype"), [("UInt8", "uint8"), ("Float64", "float64")])
def test_stale_priming_is_cured(small, data_type, dtype):
    """After a change of size and type ours takes a frame of the new kind first, and describes that."""
    take(small(hdf5=OurHDF5, size=(64, 40)))
    detector = small(hdf5=OurHDF5, size=(48, 32))
    set_size(detector, 48, 32, data_type)
    with staged(detector):
        described = detector.describe()["det_image"]
        point(detector)
        frames = frames_in_staged(detector)
    assert described["shape"] == [1, 32, 48]
    assert described["dtype_numpy"] == frames.dtype.str
    assert frames.dtype == dtype
    assert frames.shape == (1, 32, 48)


def frames_in_staged(detector):
    """The frames of a file that has to be closed first."""
    documents = list(detector.collect_asset_docs())
    detector.unstage()
    return frames_in(documented_file(documents))


def test_stale_priming_is_refused(small):
    """With prime='require' the error says what was seen and what will come."""
    take(small(hdf5=OurHDF5, size=(64, 40)))
    detector = small(hdf5=(OurHDF5, {"prime": "require"}), size=(48, 32))
    with pytest.raises(UnprimedPluginError, match=r"last seen 40 x 64 uint8 Mono, but 32 x 48 uint8 Mono will arrive"):
        detector.stage()


def test_size_changed_after_stage(small):
    """What no check at stage can know is found out at the point."""
    detector = small(hdf5=(OurHDF5, {"stage_timeout": 2}))
    with staged(detector):
        point(detector)
        detector.cam.size.size_x.set(24).wait(5)
        detector.trigger().wait(10)
        with pytest.raises(MissingFramesError, match=r"has written 1 frames to .*\.h5, expected 2"):
            detector.read()


# -- trap 3: a missing directory ---------------------------------------------------------------------------------------


def scenario_missing_directory(ioc):
    """Stock stages a detector whose directory has to be made."""
    ours = make(ioc, hdf5=OurHDF5)
    set_size(ours, 48, 32)
    with staged(ours):
        pass
    stock = make(ioc, hdf5=(StockHDF5, {"write_path_template": f"{ioc.directory}/stock/%Y"}))
    return outcome(stock.stage, 6)


def test_missing_directory_hangs_stock(tmp_path):
    """Stock asks for the directory after the path, so that it is missing, and waits for the capture for ever."""
    assert in_fresh_ioc(scenario_missing_directory, tmp_path) == "hangs"


def test_missing_directory_is_made(small, ioc):
    """Ours asks first, and everything works."""
    detector = small(hdf5=(OurHDF5, {"write_path_template": f"{ioc.directory}/ours/%Y"}))
    assert len(take(detector)) == 3


def test_missing_directory_is_an_error(small, ioc):
    """If the IOC may not make it, the error says so within seconds, and nothing stays changed."""
    detector = small(hdf5=(OurHDF5, {"write_path_template": f"{ioc.directory}/never/made"}))
    detector.hdf5.stage_sigs["create_directory"] = 0
    before = detector.hdf5.file_path.get(), detector.hdf5.enable.get(), detector.cam.image_mode.get()
    with pytest.raises(DirectoryMissingError, match=r"never/made does not exist on IOC.*CreateDirectory is 0"):
        detector.stage()
    assert before == (detector.hdf5.file_path.get(), detector.hdf5.enable.get(), detector.cam.image_mode.get())
    assert not (ioc.directory / "never").exists()
    with pytest.raises(OSError, match="does not exist on IOC"):
        detector.stage()


# -- trap 4: capture twice ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("plugin", "written"), [(StockHDF5, 1), (OurHDF5, 2)])
def test_stage_twice(small, plugin, written):
    """A second stage is refused by both; stock ends the first one's capture on the way, and drops what follows."""
    take(small(hdf5=OurHDF5))
    detector = small(hdf5=plugin)
    with staged(detector):
        point(detector)
        documents = list(detector.collect_asset_docs())
        with pytest.raises(Exception, match="already staged"):
            detector.hdf5.stage()
        point(detector)
    assert len(frames_in(documented_file(documents))) == written


def test_left_over_capture_is_ended(small, caplog):
    """What a killed client left behind is closed before a new file is opened."""
    detector = small(hdf5=OurHDF5)
    with staged(detector):
        pass
    detector.hdf5.file_write_mode.set("Stream").wait(5)
    detector.hdf5.file_template.set("%s%s_%d.h5").wait(5)
    detector.hdf5.capture.set(1).wait(5)
    left_over = detector.hdf5.full_file_name.get()
    frames = take(detector, points=2)
    assert f"still capturing to {left_over}" in caplog.text
    assert len(frames) == 2
    assert detector.hdf5.capture.get() == 0


# -- trap 5: lazy open -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("plugin", "exists"), [(StockHDF5, False), (OurHDF5, True)])
def test_lazy_open(small, plugin, exists):
    """Stock documents a file number -1 that is never written; ours the file that will be opened."""
    take(small(hdf5=OurHDF5))
    detector = small(hdf5=plugin)
    detector.hdf5.stage_sigs["lazy_open"] = "Yes"
    detector.hdf5.stage_sigs.move_to_end("capture")
    with staged(detector):
        point(detector)
        documents = list(detector.collect_asset_docs())
    assert documented_file(documents).exists() == exists


# -- trap 6: the path's slash, the number of the next file -------------------------------------------------------------


def test_documents_name_the_open_file(small):
    """The Resource names the file that FullFileName_RBV shows."""
    detector = small(hdf5=OurHDF5)
    with staged(detector):
        documents = list(detector.collect_asset_docs())
        assert str(documented_file(documents)) == detector.hdf5.full_file_name.get()


def test_other_client_changes_the_template(small, monkeypatch):
    """A template that something sets after ours is noticed, since the plugin opens another file."""
    detector = small(hdf5=OurHDF5)
    put = detector.hdf5.capture.put
    monkeypatch.setattr(detector.hdf5.capture, "put", lambda value: (detector.hdf5.file_name.put("theirs"), put(value)))
    with pytest.raises(StageError, match=r"theirs_000000\.h5', but the documents would say"):
        detector.stage()
    assert detector.hdf5.capture.get() == 0


# -- trap 7: done before the last frame is written ---------------------------------------------------------------------


def scenario_slow_disk(ioc):
    """How many of three frames are written when the reading is there, on a disk that takes 0.2 s a frame."""
    counts = {}
    with staged(make(ioc, hdf5=OurHDF5)):
        pass
    for name, plugin in (("stock", StockHDF5), ("ours", OurHDF5)):
        detector = make(ioc, hdf5=plugin)
        set_size(detector, 48, 32)
        with staged(make(ioc, hdf5=OurHDF5)):
            pass
        detector.hdf5.ensure_nonblocking()
        detector.cam.stage_sigs["num_images"] = 3
        with staged(detector):
            point(detector)
            counts[name] = detector.hdf5.num_captured.get()
    return counts


def test_read_waits_for_the_last_frame(tmp_path):
    """Stock's reading comes before the frames are written; ours waits for them."""
    counts = in_fresh_ioc(scenario_slow_disk, tmp_path, plugin_delay=0.2)
    assert counts["stock"] < 3
    assert counts["ours"] == 3


class Slow(Signal):
    """A setting of a beamline's own that takes its time."""

    def put(self, value, **options):
        """Put it, after a while."""
        time.sleep(0.6)
        super().put(value, **options)


def scenario_late_frames(ioc):
    """What comes of a stage while frames that somebody took are still on their way to the plugin, which saves each."""
    aside = ioc.directory / "aside"
    aside.mkdir()
    detector = make(ioc, hdf5=OurHDF5)
    set_size(detector, 48, 32)
    with staged(detector):
        pass
    cam, plugin = detector.cam, detector.hdf5
    settings = list(plugin.stage_sigs.items())
    settings.insert([name for name, _ in settings].index("auto_save") + 1, (Slow(name="slow", value=0), 1))
    plugin.stage_sigs = OrderedDict(settings)
    plugin.enable.set("Enable").wait(20)
    plugin.auto_save.set("Yes").wait(20)
    plugin.file_path.put(f"{aside}/")
    plugin.file_name.put("of_somebody")
    plugin.file_template.put("%s%s_%6.6d.h5")
    cam.image_mode.set("Multiple").wait(20)
    cam.num_images.set(15).wait(20)
    cam.acquire.put(1, wait=False)
    while not list(aside.iterdir()):
        time.sleep(0.01)
    return outcome(detector.stage, 30), plugin.full_file_name.get(), plugin._fn


def test_frames_that_come_late(tmp_path):
    """They move no number on while a plugin is staged that was at Single, and saved each."""
    said, opened, documented = in_fresh_ioc(scenario_late_frames, tmp_path, plugin_delay=0.2)
    assert said == "done"
    assert opened == documented


# -- trap 8: how frames are counted ------------------------------------------------------------------------------------


def test_num_capture_ends_the_capture(small):
    """Frames beyond NumCapture are in no file: stock tells nobody, ours does at the first such point."""
    detector = small(hdf5=(OurHDF5, {"stage_timeout": 2}))
    detector.hdf5.stage_sigs["num_capture"] = 2
    detector.cam.stage_sigs["num_images"] = 2
    with staged(detector):
        point(detector)
        detector.trigger().wait(10)
        with pytest.raises(MissingFramesError, match="num_capture ended the capture"):
            detector.read()
    stock = small(hdf5=StockHDF5)
    stock.hdf5.stage_sigs["num_capture"] = 2
    stock.hdf5.stage_sigs.move_to_end("capture")
    stock.cam.stage_sigs["num_images"] = 2
    with staged(stock):
        readings = [point(stock) for _ in range(2)]
        assert stock.hdf5.num_captured.get() == 2
    assert len(readings) == 2


def test_single_mode_counts_files(small):
    """Where each frame is a file, NumCaptured stays at 1, and the file number counts."""
    detector = small(tiff=(OurTIFF, {"stage_timeout": 2}))
    detector.cam.stage_sigs["num_images"] = 3
    with staged(detector):
        point(detector)
        point(detector)
        assert detector.tiff.num_captured.get() == 1
        assert detector.tiff._frame_count.written() == 6


# -- trap 9: boot defaults ---------------------------------------------------------------------------------------------


def scenario_boot_defaults(ioc):
    """The ready-made detector on an IOC as it boots: 100 images, continuous, disabled plugins."""
    from bluesky_filestore.sim import SimDetectorHDF5

    detector = SimDetectorHDF5(
        ioc.prefix, name="det", write_path_template=f"{ioc.directory}/%Y", root=str(ioc.directory)
    )
    detector.wait_for_connection(timeout=20)
    return take(detector, points=2)


def test_boot_defaults_do_not_matter(tmp_path):
    """A frame a point, whatever the IOC comes up with."""
    frames = in_fresh_ioc(scenario_boot_defaults, tmp_path)
    assert [pattern.number(frame) for frame in frames] == [2, 3]


# -- trap 10: two file plugins -----------------------------------------------------------------------------------------


def test_two_plugins_share_a_key_with_stock(small):
    """Stock's event names the datum of one of them only."""
    take(small(hdf5=OurHDF5))
    detector = small(hdf5=StockHDF5, tiff=StockTIFF)
    with staged(detector):
        reading = point(detector)
        documents = list(detector.collect_asset_docs())
    assert list(reading) == ["det_image"]
    assert sum(name == "datum" for name, _ in documents) == 2


def test_two_plugins_have_keys_of_their_own(small):
    """Ours name a key each, and each key's datum is of that plugin's resource."""
    detector = small(hdf5=OurHDF5, tiff=OurTIFF)
    with staged(detector):
        described = detector.describe()
        reading = point(detector)
        documents = list(detector.collect_asset_docs())
    assert list(described) == list(reading) == ["det_image", "det_image_tiff"]
    spec = {doc["uid"]: doc["spec"] for name, doc in documents if name == "resource"}
    datum = {doc["datum_id"]: spec[doc["resource"]] for name, doc in documents if name == "datum"}
    assert [datum[value] for value in reading.values()] == ["AD_HDF5", "AD_TIFF"]


# -- trap 11: un-versioned plugin classes ------------------------------------------------------------------------------


def test_unversioned_plugin(small, ioc):
    """Without CreateDirectory the directory must be there; ours writes then, and says so otherwise."""
    (ioc.directory / "there").mkdir(exist_ok=True)
    detector = small(hdf5=(UnversionedOurHDF5, {"write_path_template": f"{ioc.directory}/there"}))
    assert len(take(detector, points=2)) == 2
    detector.hdf5.write_path_template = f"{ioc.directory}/not there"
    with pytest.raises(DirectoryMissingError, match="CreateDirectory is missing"):
        detector.stage()


def scenario_unversioned(ioc):
    """Stock with a directory that is not there, and no record to make it."""
    with staged(make(ioc, hdf5=OurHDF5)):
        pass
    return outcome(make(ioc, hdf5=(UnversionedStockHDF5, {"write_path_template": f"{ioc.directory}/no"})).stage, 6)


def test_unversioned_plugin_hangs_stock(tmp_path):
    """Stock waits for the capture for ever."""
    assert in_fresh_ioc(scenario_unversioned, tmp_path) == "hangs"


# -- a camera that is done before the datums are made ------------------------------------------------------------------


class SlowDatums(OurHDF5):
    """A plugin whose datums take longer than the camera, if that runs meanwhile."""

    def generate_datum(self, *args):
        """Make them late."""
        status, deadline = self.parent._status, time.monotonic() + 1
        while not status.done and time.monotonic() < deadline:
            time.sleep(0.01)
        super().generate_datum(*args)


def test_stock_trigger_loses_its_status(ioc):
    """Ophyd's trigger returns None if the camera is done first."""
    detector = make(ioc, StockCamera, hdf5=SlowDatums)
    set_size(detector, 48, 32)
    with staged(detector):
        assert detector.trigger() is None
    detector.destroy()


def test_trigger_gives_a_status(ioc):
    """Ours makes the datums first, and gives a status each time; a detector that is not staged is told so."""
    detector = make(ioc, hdf5=SlowDatums)
    set_size(detector, 48, 32)
    with pytest.raises(StageError, match=r"det is not staged; call stage\(\) before trigger"):
        detector.trigger()
    with staged(detector):
        detector.trigger().wait(10)
        documents = list(detector.collect_asset_docs())
    assert frames_in(documented_file(documents)).shape == (1, 32, 48)
    detector.destroy()
