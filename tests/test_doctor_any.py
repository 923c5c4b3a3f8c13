"""The doctor and detectors of any kind: whatever one check stumbles over, the others have their say."""

import pytest
from mixin_detectors import Camera, Detectors, OurHDF5, OurTIFF
from ophyd import Component, Signal
from ophyd.areadetector.plugins import CodecPlugin_V34

from bluesky_filestore import doctor
from bluesky_filestore.checking.doctor import CHECKS


@pytest.fixture
def small(ioc):
    """A function that makes detectors with small frames."""
    detectors = Detectors(ioc)
    yield detectors
    detectors.close()


def found(report, check):
    """The first finding of a check."""
    return next((finding for finding in report.findings if finding.check == check), None)


class Unhashable(Signal):
    """A signal that compares by its value, as some do, and so has no hash."""

    def __eq__(self, other):
        raise ValueError("the truth value of an array is ambiguous")

    __hash__ = None


class Odd(Camera):
    """A camera with such a signal among what is staged."""

    extra = Component(Unhashable, value=1)


class MuteError(Exception):
    """An error that cannot say what it is."""

    def __str__(self):
        raise RuntimeError("no words")


class Strange:
    """No device at all."""

    name = "strange"
    reg_root = "/"
    parent = None
    stage_sigs = None

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        raise MuteError


def test_signals_without_a_hash(small):
    """They are as good as others, and all checks are made."""
    detector = small(base=Odd, hdf5=(OurHDF5, {}))
    detector.stage_sigs["extra"] = 2
    plain = doctor(small(hdf5=OurHDF5))
    report = doctor(detector)
    assert found(report, "stage_sigs") is None, str(report)
    assert [finding.check for finding in report.findings] == [finding.check for finding in plain.findings]
    assert not any("could not be looked at" in finding.words for finding in report.findings), str(report)


@pytest.mark.parametrize("stage_sigs", [{"hdf5.enable": object()}, None, {7: 1}, [("a", 1)]])
def test_stage_sigs_of_any_kind(small, stage_sigs):
    """Whatever is in place of stage_sigs, the plugin is looked at as it is set now."""
    detector = small(hdf5=(OurHDF5, {}))
    detector.stage_sigs = stage_sigs
    report = doctor(detector)
    assert found(report, "data key").ok, str(report)


@pytest.mark.parametrize("name", [name for name, _ in CHECKS])
def test_one_check_that_fails(small, monkeypatch, name):
    """Of each check it is said that it could not be made, and the others are."""

    def fail(subject):
        raise MuteError

    checks = tuple((check, fail if check == name else look) for check, look in CHECKS)
    monkeypatch.setitem(doctor.__globals__, "CHECKS", checks)
    report = doctor(small(hdf5=OurHDF5))
    assert found(report, name).words == "this could not be looked at: MuteError: it cannot say what is wrong"
    assert sum("could not be looked at" in finding.words for finding in report.findings) == 1
    assert found(report, CHECKS[0][0])
    assert found(report, "data key")


@pytest.mark.parametrize("detector", [Strange(), object(), None, 7, "det", Strange])
def test_no_detector_at_all(detector):
    """Anything gets a report with a problem in it."""
    report = doctor(detector)
    assert not report.ok
    assert str(report)


class Packed(Camera):
    """A camera with a codec plugin."""

    codec1 = Component(CodecPlugin_V34, "Codec1:")


@pytest.mark.parametrize(
    ("plugin", "compressor", "ok", "words"),
    [
        (OurTIFF, "JPEG", False, "frames come compressed with 'jpeg' (det_codec1), and this plugin writes none"),
        (OurTIFF, "LZ4", False, "frames come compressed with 'lz4' (det_codec1), and this plugin writes none"),
        (OurHDF5, "JPEG", False, "h5py has no filter 32019 here"),
        (OurHDF5, "BSLZ4", True, "h5py reads them here"),
    ],
)
def test_codec(small, plugin, compressor, ok, words):
    """A codec plugin before a file plugin that can't write what it makes of frames is named, and only then."""
    detector = small(base=Packed, hdf5=(plugin, {}))
    assert found(doctor(detector), "codec").words == "frames come uncompressed"
    detector.codec1.stage_sigs.update(enable=1, compressor=compressor, mode="Compress")
    detector.hdf5.stage_sigs["nd_array_port"] = "CODEC1"
    finding = found(doctor(detector), "codec")
    assert finding.ok is ok
    assert words in finding.words
    detector.codec1.stage_sigs["mode"] = "Decompress"
    assert found(doctor(detector), "codec").words == "frames come uncompressed"


def test_layout(small):
    """An HDF5 layout may put frames elsewhere, and is named."""
    detector = small(hdf5=(OurHDF5, {}))
    detector.hdf5.stage_sigs["xml_file_name"] = "layout.xml"
    finding = found(doctor(detector), "left behind")
    assert finding.ok is not True
    assert "layout.xml" in finding.words


def test_hash_in_a_path(ioc, small):
    """A directory that no catalog can open files in is a problem."""
    detector = small(tiff=(OurTIFF, {"write_path_template": f"{ioc.directory}/run#1/%Y"}))
    finding = found(doctor(detector), "path")
    assert finding.ok is False
    assert "no catalog can open a file with one of '#' in its path" in finding.words
