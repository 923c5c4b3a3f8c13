"""The simulated IOC against the recorded traces of a real one.

Compared are, for each trace:

- every record's own sequence of values, for all records that the recorder monitored but those in
  `IGNORED`;
- which puts completed;
- the order between the pairs of records in `ORDERS`;
- the files, frame by frame.

Not compared is the order between other records: the real IOC's records are processed by several threads,
and its own traces show both orders. ``ArrayCounter_RBV`` is compared relative to the first value in a
trace, because it goes on from what happened before.

The traces were recorded one after the other on one IOC, each starting from what the one before left, and so
they are played. The player (`trace_player`) puts as soon as it has seen what the trace shows before the put.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import trace_player
from trace_player import IGNORED, ORDER, Put, Step, Update, load_played, read_trace

from bluesky_filestore.sim import pattern

COUNTERS = ("cam1:ArrayCounter_RBV", "HDF1:ArrayCounter_RBV", "TIFF1:ArrayCounter_RBV")

ORDERS = [
    ("HDF1:FullFileName_RBV", "HDF1:Capture_RBV"),
    ("HDF1:FileNumber_RBV", "HDF1:Capture_RBV"),
    ("HDF1:FullFileName_RBV", "HDF1:WriteFile_RBV"),
    ("HDF1:NumCaptured_RBV", "HDF1:Capture_RBV"),
    ("HDF1:ArrayCounter_RBV", "HDF1:NumCaptured_RBV"),
    ("HDF1:WriteStatus", "HDF1:WriteFile_RBV"),
    ("HDF1:Capture_RBV", "cam1:ArrayCounter_RBV"),
    ("TIFF1:FullFileName_RBV", "TIFF1:WriteFile_RBV"),
    ("cam1:ArrayCounter_RBV", "HDF1:NumCaptured_RBV"),
    ("cam1:ArrayCounter_RBV", "HDF1:ArraySize0_RBV"),
    ("cam1:ArrayCounter_RBV", "TIFF1:FullFileName_RBV"),
    ("cam1:NumImagesCounter_RBV", "cam1:Acquire_RBV"),
    ("cam1:StatusMessage_RBV", "cam1:NumImagesCounter_RBV"),
]
"""Of each pair: as many updates of the first are seen before each update of the second."""

FILES = {
    "hdf5_stream": ("abc_000000.h5", (6, 48, 64), 2),
    "hdf5_numcapture": ("four_000000.h5", (4, 48, 64), 8),
    "hdf5_lazy_open": ("lazy_000000.h5", (2, 48, 64), 14),
    "abort": ("abort_000000.h5", (6, 48, 80), 34),
    "hdf5_swmr": ("swmr_000000.h5", (4, 48, 80), 40),
}
"""The streamed file of a trace, its shape, and the number of its first frame."""

TRACES = {name: read_trace(name) for name in ORDER}


@dataclass(frozen=True)
class Session:
    """What playing all traces in order has given."""

    directory: Path
    played: dict[str, list[Step]]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """All traces, played one after the other on one IOC."""
    directory, target = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("played") / "played.json"
    subprocess.run([sys.executable, trace_player.__file__, directory, target], check=True, timeout=100)
    return Session(directory, load_played(target))


def values(steps: list[Step], name: str) -> list[float | str]:
    """The sequence of values that a record shows in a trace."""
    found = [step.value for step in steps if isinstance(step, Update) and step.name == name]
    if name in COUNTERS and found:
        return [value - found[0] for value in found]
    return found


def ranks(steps: list[Step], first: str, second: str) -> list[int]:
    """How many updates of the first record come before each update of the second."""
    names = [step.name for step in steps if isinstance(step, Update)]
    return [names[:index].count(first) for index, name in enumerate(names) if name == second]


@pytest.mark.parametrize("trace", ORDER)
def test_values(session: Session, trace: str) -> None:
    """Every record shows the values that the real IOC's record showed, no more and no fewer."""
    steps, played = TRACES[trace], session.played[trace]
    names = {step.name for step in [*steps, *played] if isinstance(step, Update)} - IGNORED
    assert {name: values(played, name) for name in names} == {name: values(steps, name) for name in names}


@pytest.mark.parametrize("trace", ORDER)
def test_completions(session: Session, trace: str) -> None:
    """The puts that completed on the real IOC complete, and the others do not."""
    puts = [step for step in TRACES[trace] if isinstance(step, Put)]
    assert [step for step in session.played[trace] if isinstance(step, Put)] == puts


@pytest.mark.parametrize("trace", ORDER)
def test_orders(session: Session, trace: str) -> None:
    """What must come before what, does."""
    steps, played = TRACES[trace], session.played[trace]
    for first, second in ORDERS:
        assert ranks(played, first, second) == ranks(steps, first, second), (first, second)


@pytest.mark.parametrize("trace", FILES)
def test_streamed_file(session: Session, trace: str) -> None:
    """The file holds the frames that were taken while it was open, bit for bit."""
    name, shape, first = FILES[trace]
    with h5py.File(session.directory / name) as file:
        data = file["entry/data/data"][:]
    assert data.shape == shape
    for number, frame in enumerate(data, start=first):
        np.testing.assert_array_equal(frame, pattern.frame(number, shape[1:], "uint8"))


def test_stale_file(session: Session) -> None:
    """After a stale priming the file holds one frame of zeros, of the shape that the plugin knew."""
    with h5py.File(session.directory / "stale_000000.h5") as file:
        np.testing.assert_array_equal(file["entry/data/data"][:], np.zeros((1, 48, 64), np.uint8))


def test_single_files(session: Session) -> None:
    """In Single mode each file holds one frame, without a frame axis."""
    for index in range(4):
        with h5py.File(session.directory / f"single_{index:06d}.h5") as file:
            frame = file["entry/data/data"][:]
        np.testing.assert_array_equal(frame, pattern.frame(16 + index, (48, 64), "uint8"))
        frame = tifffile.imread(session.directory / f"t_{index:06d}.tiff")
        np.testing.assert_array_equal(frame, pattern.frame(20 + index, (48, 64), "uint8"))


def test_no_other_files(session: Session) -> None:
    """No other file is there, and of the directories only the one that two levels could make."""
    single = [f"single_{index:06d}.h5" for index in range(4)] + [f"t_{index:06d}.tiff" for index in range(4)]
    opened = ["stale_000000.h5", "twice_000000.h5", "twice_000001.h5"]
    expected = {*(name for name, _, _ in FILES.values()), *single, *opened, "no", "no/such"}
    assert {str(path.relative_to(session.directory)) for path in session.directory.rglob("*")} == expected
