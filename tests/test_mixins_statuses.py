"""Statuses that fail: who waits is told at once, and what the failure has nothing to do with is left alone."""

import threading

import pytest
from mixin_detectors import Camera, Detectors, OurHDF5, staged
from ophyd.areadetector.trigger_mixins import ADTriggerStatus as StockTriggerStatus
from ophyd.status import DeviceStatus

from bluesky_filestore import ADTriggerStatus, FlyableFileStore
from bluesky_filestore.mixins.single_trigger import SingleTrigger
from bluesky_filestore.mixins.statuses import FlightStatus


class Stopped(FlyableFileStore, Camera):
    """Counts how often it is stopped."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.stops = 0

    def stop(self, *, success=False):
        """As ophyd asks."""
        self.stops += 1
        super().stop(success=success)


@pytest.fixture
def detector(ioc):
    """A detector of which few signals were asked for."""
    detectors = Detectors(ioc)
    yield detectors(base=Stopped, hdf5=(OurHDF5, {"asset_docs": "stream"}))
    detectors.close()


def made(detector):
    """The signals that were asked for so far."""
    return {name for name, _ in detector.get_instantiated_signals()}


def told(status, error):
    """Have a status fail; when its callbacks are called all is over."""
    heard = threading.Event()
    status.add_callback(lambda _: heard.set())
    status.set_exception(error)
    with pytest.raises(type(error)):
        status.wait(20)
    assert heard.wait(20)


@pytest.mark.parametrize("kind", [ADTriggerStatus, FlightStatus])
def test_failing_connects_to_nothing(detector, kind):
    """The device is stopped; no signal is made of a record that nobody asked for, unless that is said."""
    status = kind(detector)
    before = made(detector)
    told(status, ZeroDivisionError("of somebody"))
    assert made(detector) == before
    assert detector.stops == 1
    told(kind(detector, call_stop_on_failure=False), ZeroDivisionError("of somebody"))
    assert detector.stops == 1


@pytest.mark.parametrize("kind", [StockTriggerStatus, DeviceStatus])
def test_with_stock(detector, kind):
    """Those of ophyd's do: if this fails, ours need not differ any more."""
    status = kind(detector)
    before = made(detector)
    told(status, ZeroDivisionError("of somebody"))
    assert made(detector) > before


def test_which_statuses_they_are(detector):
    """Those of triggers and flights are ours, and ophyd's too."""
    assert issubclass(SingleTrigger._status_type, StockTriggerStatus)
    with staged(detector):
        assert type(detector.trigger()) is ADTriggerStatus
    with staged(detector):
        flights = [detector.prepare(2), detector.kickoff(), detector.complete()]
        assert {type(flight) for flight in flights} == {FlightStatus}
        flights[-1].wait(20)


def test_made_by_who_stages(detector):
    """The threads that watch an acquisition, and a flight, ask for nothing that was not asked for before."""
    with staged(detector):
        camera = made(detector.cam)
        detector.trigger().wait(20)
        assert made(detector.cam) == camera
    with staged(detector):
        detector.prepare(3).wait(20)
        detector.kickoff().wait(20)
        before = made(detector)
        detector.complete().wait(20)
        assert made(detector) == before
