"""The records, and asyn's rule of when a client hears of a change."""

import numpy as np
import pytest

from bluesky_filestore.sim.port import Parameters
from bluesky_filestore.sim.records import Records, load_records

SPECS = load_records()


@pytest.fixture
def records() -> Records:
    """All records right after boot."""
    return Records(SPECS)


@pytest.fixture
def told(records: Records) -> list[tuple[str, object]]:
    """What the records' listener has been told."""
    heard: list[tuple[str, object]] = []
    records.listener = lambda name, value: heard.append((name, value))
    return heard


@pytest.mark.parametrize(
    ("name", "value", "held"),
    [
        ("cam1:ImageMode", "Multiple", 1),
        ("cam1:ImageMode", 2.0, 2),
        ("cam1:SizeX", "64", 64),
        ("cam1:SizeX", 64.9, 64),
        ("cam1:AcquireTime", "0.25", 0.25),
        ("HDF1:NDArrayPort", "PROC1\0rest", "PROC1"),
        ("HDF1:NDArrayPort", "x" * 50, "x" * 39),
        ("HDF1:FileName", "x" * 300, "x" * 255),
        ("HDF1:JPEGQuality", 1000, 100),
    ],
)
def test_coerce(name: str, value: object, held: object) -> None:
    """A record makes of a value what a real one makes of it: words, numbers, cut text, limits."""
    assert SPECS[name].coerce(value) == held


@pytest.mark.parametrize("value", ["Sometimes", 3, -1])
def test_enum_refuses(value: object) -> None:
    """An enum refuses what it has no word for, and tells its words."""
    with pytest.raises(ValueError, match="cam1:ImageMode takes one of Single, Multiple, Continuous"):
        SPECS["cam1:ImageMode"].coerce(value)


def test_post(records: Records, told: list[tuple[str, object]]) -> None:
    """Scalars tell of changes only; long strings and arrays of everything."""
    for _ in range(2):
        records.post("cam1:SizeX", 64)
        records.post("HDF1:WriteMessage", "")
    records.post("image1:ArrayData", np.arange(3))
    names = [name for name, _ in told]
    assert names == ["cam1:SizeX", "HDF1:WriteMessage", "HDF1:WriteMessage", "image1:ArrayData"]


def test_flush(records: Records, told: list[tuple[str, object]]) -> None:
    """Changed parameters are shown at the flush, once, with their last value; a readback setpoint too."""
    parameters = Parameters(records, "HDF1:")
    parameters.set("FileNumber", 3)
    parameters.set("NumCapture", 1)  # as it is
    parameters.set("WriteMessage", "oops")
    parameters.set("WriteMessage", "")
    assert told == []
    parameters.flush()
    parameters.flush()
    assert told == [("HDF1:FileNumber_RBV", 3), ("HDF1:FileNumber", 3), ("HDF1:WriteMessage", "")]


def test_undefined_at_boot(records: Records, told: list[tuple[str, object]]) -> None:
    """A parameter without a value is shown when it gets one, even if the record looked like that before."""
    parameters = Parameters(records, "HDF1:")
    for _ in range(2):
        parameters.set("ArraySize2", 0)
        parameters.flush()
    assert told == [("HDF1:ArraySize2_RBV", 0)]


def test_unknown_parameter(records: Records) -> None:
    """A parameter without a record is a mistake in the simulation, and noticed."""
    with pytest.raises(KeyError, match="HDF1:NoSuchThing"):
        Parameters(records, "HDF1:")["NoSuchThing"]
