"""What the doctor says of detectors on the simulated IOC: of healthy ones, and of each ailment."""

import os
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from mixin_detectors import (
    Camera,
    Detectors,
    OurHDF5,
    OurHDF5Single,
    OurTIFF,
    StockCamera,
    StockHDF5,
    StockTIFF,
    in_fresh_ioc,
    make,
    point,
    set_size,
    staged,
)
from ophyd import Device, EpicsSignal
from rich.console import Console

from bluesky_filestore import doctor
from bluesky_filestore.checking import Finding, directories, load_device
from bluesky_filestore.checking.doctor import CHECKS
from bluesky_filestore.errors import DeviceNotFoundError
from bluesky_filestore.mixins import PathInfo
from bluesky_filestore.sim import SimDetectorHDF5, SimDetectorTIFF, client_environment


@pytest.fixture
def small(ioc):
    """A function that makes detectors with small frames."""
    detectors = Detectors(ioc)
    yield detectors
    detectors.close()


@pytest.fixture
def primed(small):
    """The same, and the HDF5 plugin has seen such a frame."""

    def make_primed(**plugins):
        with staged(small(hdf5=OurHDF5)):
            pass
        return small(**plugins)

    return make_primed


def found(report, check: str) -> Finding:
    """The only finding, or the first, of a check."""
    return next(finding for finding in report.findings if finding.check == check)


def problem(report, check: str) -> str:
    """The words and the advice of a check that found a problem."""
    finding = found(report, check)
    assert finding.ok is False, str(report)
    assert finding.advice
    assert not report.ok
    return f"{finding.words} | {finding.advice}"


# -- a healthy detector ------------------------------------------------------------------------------------------------


def test_healthy(primed):
    """Each check says ok, on a line of its own."""
    report = doctor(primed(hdf5=OurHDF5))
    assert report.ok, str(report)
    assert [finding.check for finding in report.findings] == ["IOC", *(name for name, _ in CHECKS)]
    assert all(re.match("ok +det_hdf5: ", line) for line in str(report).splitlines())
    assert found(report, "size and type").words == "32 x 48 uint8 Mono will arrive"


@pytest.mark.parametrize("plugin", [OurHDF5, StockHDF5])
def test_nothing_is_changed(primed, monkeypatch, plugin):
    """Without a probe no record is written to."""
    detector = primed(hdf5=plugin)
    puts = []
    monkeypatch.setattr(EpicsSignal, "put", lambda self, value, *args, **kwargs: puts.append((self.name, value)))
    doctor(detector)
    assert puts == []


def test_one_plugin(primed):
    """A file plugin can be looked at by itself."""
    detector = primed(hdf5=OurHDF5)
    reports = doctor(detector.hdf5), doctor(detector)
    one, other = ([(finding.check, finding.plugin, finding.ok) for finding in report.findings] for report in reports)
    assert one == other


def test_shows_itself(small):
    """In Python, in IPython and in colours it is the same text."""
    detector = small(hdf5=OurHDF5)
    report = doctor(detector)
    pretty: list[str] = []
    report._repr_pretty_(SimpleNamespace(text=pretty.append), False)
    console = Console(file=StringIO())
    console.print(report, soft_wrap=True)
    assert [repr(report)] == [str(report)] == pretty == [console.file.getvalue().rstrip("\n")]


# -- what may ail it ---------------------------------------------------------------------------------------------------


def test_no_file_plugin(small):
    """A detector without a file store documents nothing."""
    assert "no component has a file store" in problem(doctor(small()), "file plugins")
    assert "class MyHDF5" in problem(doctor(Device(name="motor")), "file plugins")


def test_no_ioc(ioc):
    """One line, not one time-out a check."""
    report = doctor(OurHDF5("NOBODY:HDF1:", name="lost", write_path_template="/data"))
    assert "NOBODY:HDF1:FilePath_RBV" in problem(report, "IOC")
    assert len(report.findings) == 1


def test_disabled(small):
    """A plugin that will not write is not looked at any further."""
    detector = small(tiff=OurTIFF)
    detector.tiff.stage_sigs["enable"] = 0
    report = doctor(detector)
    assert found(report, "enabled").ok is None
    assert report.ok


def test_staged(small):
    """A detector in use is left alone, also by a probe."""
    detector = small(hdf5=OurHDF5)
    with staged(detector):
        report = doctor(detector, probe=True)
        point(detector)
    assert "unstage()" in problem(report, "use")
    assert found(report, "probe").ok is None


def test_left_capturing(primed):
    """A capture that a killed client has left behind."""
    detector = primed(hdf5=OurHDF5)
    detector.hdf5.file_write_mode.set("Stream").wait(5)
    detector.hdf5.file_template.set("%s%s_%6.6d.h5").wait(5)
    detector.hdf5.capture.set(1).wait(10)
    try:
        assert re.search("HDF1:Capture_RBV is 1.*set 13SIM1:HDF1:Capture to 0", problem(doctor(detector), "use"))
    finally:
        detector.hdf5.capture.set(0).wait(10)
        detector.hdf5.file_write_mode.set("Single").wait(5)


def scenario_unprimed(ioc):
    """What is said of plugins that have seen nothing."""
    answers = {}
    options = {"stock": StockHDF5, "auto": OurHDF5, "require": (OurHDF5, {"prime": "require"})}
    for name, plugin in {**options, "never": (OurHDF5, {"prime": "never"}), "stock tiff": StockTIFF}.items():
        detector = make(ioc, hdf5=plugin)
        answers[name] = found(doctor(detector), "priming")
        if name == "never":
            detector.hdf5.stage_sigs["lazy_open"] = "Yes"
            answers["never, lazy"] = found(doctor(detector), "priming")
    return answers


def test_unprimed(tmp_path):
    """A problem where nothing would be written; none where stage sees to it, or where it does not matter."""
    answers = in_fresh_ioc(scenario_unprimed, tmp_path)
    assert {name: finding.ok for name, finding in answers.items()} == {
        "stock": False,
        "auto": True,
        "require": False,
        "never": False,
        "never, lazy": True,
        "stock tiff": True,
    }
    assert all(finding.words.startswith("it has seen no frame") for finding in answers.values())
    assert "Import the mixin from bluesky_filestore" in answers["stock"].advice


def test_stale(primed):
    """Size or type of the frames has changed since the plugin saw one."""
    stock = primed(hdf5=StockHDF5)
    set_size(stock, 64, 40, "UInt16")
    words = problem(doctor(stock), "size and type")
    assert "last seen 32 x 48 uint8 Mono, but 40 x 64 uint16 Mono will arrive" in words
    ours = primed(hdf5=(OurHDF5, {"prime": "auto"}))
    set_size(ours, 64, 40)
    assert "stage() will look again" in found(doctor(ours), "size and type").words


def test_staging_changes_the_frames(primed):
    """What stage_sigs will do to the frames is taken into account."""
    detector = primed(hdf5=StockHDF5)
    detector.cam.stage_sigs["data_type"] = "UInt16"
    finding = found(doctor(detector), "size and type")
    assert finding.ok is None
    assert "staging sets det_cam_data_type to UInt16" in finding.words
    detector.cam.stage_sigs["data_type"] = "UInt8"
    assert found(doctor(detector), "size and type").ok


def test_staging_order(small):
    """Stock ophyd sets in the order of stage_sigs, and the directory's creation too late."""
    detector = small(hdf5=StockHDF5)
    detector.hdf5.create_directory.set(0).wait(5)
    assert "CreateDirectory_RBV is 0 and will be set to -3 only after FilePath" in problem(
        doctor(detector), "staging order"
    )
    detector.hdf5.stage_sigs["num_frames_chunks"] = 1
    words = problem(doctor(detector), "staging order")
    assert "capture begins before num_frames_chunks is set" in words
    assert "hdf5.stage_sigs.move_to_end('capture')" in words
    ours = small(hdf5=OurHDF5)
    ours.hdf5.stage_sigs["num_frames_chunks"] = 1
    assert found(doctor(ours), "staging order").ok


@pytest.mark.parametrize("plugin", [OurTIFF, StockTIFF])
def test_path_not_under_root(small, plugin):
    """Templates that do not fit together are said once."""
    report = doctor(small(tiff=(plugin, {"root": "/other"})))
    assert "/other" in problem(report, "path")
    assert "directory" not in {finding.check for finding in report.findings}


def test_path_flavour(ioc, small):
    """A windows path for an IOC that shows posix ones; a posix path that is called windows."""
    read = f"{ioc.directory}/%Y"
    options = {"write_path_template": "C:\\data\\%Y", "path_semantics": "windows", "read_path_template": read}
    detector = small(tiff=(OurTIFF, options))
    detector.tiff.file_path.set(f"{ioc.directory}/").wait(5)
    assert "path_semantics says 'windows'" in problem(doctor(detector), "path")
    detector.tiff.write_path_template = "/data/%Y"
    assert "not absolute as a windows path" in problem(doctor(detector), "path")


def test_path_provider(ioc, small):
    """It is not asked, since it may count; the probe asks it."""
    asked = []

    def provider(name):
        asked.append(name)
        return PathInfo(f"{ioc.directory}/visit")

    detector = small(hdf5=(OurHDF5, {"path_provider": provider}))
    finding = found(doctor(detector), "path")
    assert finding.ok is None
    assert "the path provider says" in finding.words
    assert asked == []
    assert "visit" in found(doctor(detector, probe=True), "probe").words


def test_missing_directory(ioc, small):
    """More levels than the IOC may make, and a disk that this machine does not see."""
    detector = small(tiff=(OurTIFF, {"write_path_template": f"{ioc.directory}/a/b/c/d"}))
    words = problem(doctor(detector), "directory")
    assert "the last 4 levels are missing" in words
    assert "stage_sigs['create_directory'] to -4" in words
    detector.tiff.stage_sigs["create_directory"] = -4
    assert "the IOC may make them" in found(doctor(detector), "directory").words
    detector = small(tiff=(OurTIFF, {"root": "/not/here", "write_path_template": "/not/here/data"}))
    assert "does not see the root /not/here" in found(doctor(detector), "directory").words


def test_name_length(ioc, small):
    """A path that the record would cut off."""
    detector = small(tiff=(OurTIFF, {"write_path_template": f"{ioc.directory}/{'x' * 250}"}))
    assert re.search("holds 255 characters, and [23].. are needed", problem(doctor(detector), "name length"))
    detector.tiff.stage_sigs["file_template"] = "%d%d"
    assert "can't be filled in" in problem(doctor(detector), "name length")


def test_disk_space(primed, monkeypatch):
    """Room for too few points."""
    detector = primed(hdf5=OurHDF5)
    assert "points like the last one" in found(doctor(detector), "disk space").words
    monkeypatch.setattr(directories, "_ENOUGH_POINTS", 10**15)
    assert "GB free" in problem(doctor(detector), "disk space")


def test_same_data_key(small):
    """Two plugins under one key: stock always, ours if the user says so."""
    stock = small(hdf5=StockHDF5, tiff=StockTIFF)
    assert "'det_image' is the key of tiff, too" in problem(doctor(stock), "data key")
    ours = small(hdf5=OurHDF5, tiff=OurTIFF)
    keys = [finding.words for finding in doctor(ours).findings if finding.check == "data key"]
    assert keys == ["'det_image'", "'det_image_tiff'"]
    same = small(hdf5=(OurHDF5, {"data_key": "picture"}), tiff=(OurTIFF, {"data_key": "picture"}))
    assert "another data_key=" in problem(doctor(same), "data key")


def test_not_read(small):
    """A plugin that is not among read_attrs is in no event."""
    detector = small(base=type("Unread", (Camera,), {}), hdf5=OurHDF5)
    detector.read_attrs = []
    assert "no event will name its frames" in problem(doctor(detector), "data key")


def test_unknown_spec(small):
    """A spec that nobody reads, and one that only a handler knows."""
    detector = small(tiff=(OurTIFF, {}))
    detector.tiff.filestore_spec = "MY_OWN"
    assert "'MY_OWN' is not known" in problem(doctor(detector), "handler")
    detector.tiff.filestore_spec = "AD_CBF"
    finding = found(doctor(detector), "handler")
    assert finding.ok is None
    assert "no adapter of a stock catalog" in finding.words
    assert "area_detector_handlers" in finding.words


def test_compression(small):
    """A filter that h5py does not have here, and one that it has."""
    detector = small(hdf5=(OurHDF5, {}))
    detector.hdf5.stage_sigs["compression"] = "JPEG"
    assert "h5py has no filter 32019" in problem(doctor(detector), "compression")
    detector.hdf5.stage_sigs["compression"] = "BSLZ4"
    assert "BSLZ4, which h5py reads" in found(doctor(detector), "compression").words


# -- the probe ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asset_docs", ["datum", "stream"])
@pytest.mark.parametrize("detector_class", [SimDetectorHDF5, SimDetectorTIFF])
def test_probe_finds_the_frame(ioc, detector_class, asset_docs):
    """The file and the frame are named: the last of the point."""
    template = f"{ioc.directory}/%Y/%m/%d"
    detector = detector_class(
        ioc.prefix, name="det", write_path_template=template, root=ioc.directory, num_images=3, asset_docs=asset_docs
    )
    detector.wait_for_connection(timeout=20)
    detector.cam.stage_sigs.update({"size.size_x": 48, "size.size_y": 32})
    report = doctor(detector, probe=True)
    detector.destroy()
    assert report.ok, str(report)
    found_words = found(report, "probe").words
    match = re.fullmatch(r"det_image: frame 2 is in (.+), 32 x 48 \|u1", found_words)
    assert match, found_words
    assert Path(match[1]).is_file()


def test_probe_of_colour_and_of_one_plugin(small):
    """One colour frame a file; a plugin's probe is its detector's."""
    detector = small(hdf5=OurHDF5Single)
    detector.cam.color_mode.set("RGB1").wait(5)
    words = found(doctor(detector.hdf5, probe=True), "probe").words
    detector.cam.color_mode.set("Mono").wait(5)
    assert "frame 0 is in" in words
    assert words.endswith(", 32 x 48 x 3 |u1")


def test_trigger_of_stock(ioc, primed):
    """Ophyd's trigger may lose its status."""
    primed()
    detector = make(ioc, StockCamera, hdf5=OurHDF5)
    finding = found(doctor(detector), "trigger")
    assert finding.ok is None
    assert re.search("ends the plan .* Import SingleTrigger from bluesky_filestore", str(finding))
    detector.destroy()


def test_probe_of_stock(primed):
    """What stock ophyd writes is found, if nothing was wrong with it before."""
    detector = primed(hdf5=StockHDF5)
    detector.hdf5.create_directory.set(-3).wait(5)
    report = doctor(detector, probe=True)
    detector.hdf5.create_directory.set(0).wait(5)
    assert report.ok, str(report)
    assert "det_image: frame 0 is in" in found(report, "probe").words


def test_probe_waits_for_stock_to_be_mended(primed):
    """Where stock ophyd would wait for ever, nothing is staged."""
    detector = primed(hdf5=(StockHDF5, {"root": "/other"}))
    finding = found(doctor(detector, probe=True), "probe")
    assert finding.ok is None
    assert "Mend the problems" in finding.advice


def test_probe_that_can_not_be_staged(ioc, small):
    """The error of stage is the finding."""
    detector = small(tiff=(OurTIFF, {"write_path_template": f"{ioc.directory}/a/b/c/d"}))
    assert "does not exist on IOC" in problem(doctor(detector, probe=True), "probe")
    assert detector._staged.value == "no"


def test_probe_that_finds_no_file(ioc, small, tmp_path):
    """The documents lead the readers to another directory than the IOC writes to."""
    options = {"read_path_template": str(tmp_path), "root": str(tmp_path), "write_path_template": str(ioc.directory)}
    words = problem(doctor(small(hdf5=(OurHDF5, options)), probe=True), "probe")
    assert "the frame was not found" in words
    assert str(tmp_path) in words


# -- the command -------------------------------------------------------------------------------------------------------


def run_doctor(ioc, directory, *arguments):
    """Run the command in a directory with a beamline's module."""
    (directory / "my_beamline.py").write_text(
        "from bluesky_filestore.sim import SimDetectorTIFF\n"
        f"det = SimDetectorTIFF({ioc.prefix!r}, name='det', write_path_template='.', root={str(ioc.directory)!r})\n"
        "bad = SimDetectorTIFF({!r}, name='bad', write_path_template='a/b/c/d/e', root={!r})\n".format(
            ioc.prefix, str(ioc.directory)
        )
    )
    return subprocess.run(
        [sys.executable, "-m", "bluesky_filestore.cli", "doctor", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=directory,
        env={**os.environ, **client_environment(ioc.port)},
    )


def test_command(ioc, tmp_path):
    """Exit code 0 if all is well, 1 if not; each line says what."""
    shown = run_doctor(ioc, tmp_path, "my_beamline:det", "--probe")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert re.search("^ok +det: probe: det_image: frame 0 is in", shown.stdout, re.MULTILINE)
    shown = run_doctor(ioc, tmp_path, "my_beamline:bad")
    assert shown.returncode == 1
    assert re.search("^PROBLEM bad_tiff: directory: .*5 levels are missing", shown.stdout, re.MULTILINE)
    shown = run_doctor(ioc, tmp_path, "my_beamline:nobody")
    assert shown.returncode == 1
    assert "expected one of its devices: bad, det" in shown.stderr
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("det", "expected MODULE:DETECTOR"),
        ("no_such_module:det", "module 'no_such_module' can't be imported: ModuleNotFoundError"),
        ("broken_beamline:det", "ZeroDivisionError"),
    ],
)
def test_load_device(tmp_path, monkeypatch, where, words):
    """What can't be found or imported is said in a sentence."""
    (tmp_path / "broken_beamline.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    with pytest.raises(DeviceNotFoundError, match=words):
        load_device(where)


def test_left_behind(primed):
    """Settings with which frames are skipped, or a capture fails, are named."""
    hdf5 = primed(hdf5=OurHDF5).hdf5
    for name, value, words in (("min_callback_time", 0.1, "MinCallbackTime"), ("position_mode", "On", "PositionMode")):
        hdf5.stage_sigs[name] = value
        assert words in str(next(finding for finding in doctor(hdf5).findings if finding.check == "left behind"))
        del hdf5.stage_sigs[name]


def test_odd_stage_sigs(small):
    """A key of stage_sigs that is no signal gives a line, not a traceback."""
    detector = small(hdf5=OurHDF5)
    detector.hdf5.stage_sigs["no.such.signal"] = 1
    assert doctor(detector).findings
    del detector.hdf5.stage_sigs["no.such.signal"]
