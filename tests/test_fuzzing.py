"""What fuzzing found stays mended, and some more is tried each time; see ``python -m tests.fuzzing --help``."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.fuzzing.mutations import checksummed, lookup3
from tests.fuzzing.running import outcomes

SECONDS = 4
# Those that need no process beside, which takes a second to start.
TARGETS = (
    "corpus",
    "hdf5 chunked",
    "tiff strips",
    "npy",
    "jpeg",
    "registrations",
    "documents",
    "spool",
    "pack tar",
    "manifests",
)


@pytest.mark.timeout(300)
def test_a_short_run():
    """What was found before, and some targets for a moment."""
    command = [sys.executable, "-m", "tests.fuzzing", "--minutes", str(SECONDS / 60), "--seed", "1", "--only", *TARGETS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, f"{done.stdout[-6000:]}{done.stderr[-3000:]}"


class Faults:
    """Cases of which it is known what becomes of them."""

    name, bears = "faults", frozenset()
    kinds = ("fine", "exception", "memory", "crash", "wrong")

    def prepare(self, directory):
        """Nothing."""

    def case(self, rng, number):
        """The one of the number."""
        return self.kinds[number]

    def attempt(self, case, directory):
        """Have it come to that."""
        match case:
            case "exception":
                raise KeyError(case)
            case "memory":
                bytearray(2**31)
            case "crash":
                import ctypes

                ctypes.string_at(0)
            case "wrong":
                return "frames: all"
        return None


def test_what_is_told():
    """An exception that is none of ours, too much memory and the interpreter's end are findings, each its own."""
    found = list(outcomes(Faults(), 0, iter(range(4)), float("inf")))
    assert [(outcome.kind, outcome.is_finding) for outcome in found] == [
        ("fine", False),
        ("exception", True),
        ("memory", True),
        ("crash", True),
    ]


def test_checksums_are_found(tmp_path):
    """The blocks of a file that have checksums are known by them, so that what is changed in them is believed."""
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        file.create_dataset("d", (3, 4), chunks=(1, 4), maxshape=(None, 4), data=np.ones((3, 4)))
    data = (tmp_path / "a.h5").read_bytes()
    blocks = checksummed(data)
    assert {data[begin : begin + 4] for begin, _ in blocks} >= {b"\x89HDF", b"OHDR", b"EAHD", b"EAIB"}
    assert all(lookup3(data[begin:end]) == int.from_bytes(data[end : end + 4], "little") for begin, end in blocks)
