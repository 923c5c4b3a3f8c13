"""How fast files are read for their checksums, against ``sha256sum``, in one run.

Run as ``python benchmarks/checksums.py [DIRECTORY]``: with a directory of a real disk it is the disk that is measured;
by default files are in memory where the machine has a place for such.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

from bluesky_filestore.files.checksums import sha256_of

LARGE = 1 << 30
SMALL, FILES = 1 << 16, 4000
ROUNDS = 5
LEAST_RATIO = 0.8
MOST_MEMORY = 100_000_000
_MEMORY = Path("/dev/shm")  # noqa: S108 - a directory of its own is made there


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def compare(what: str, paths: list[str]) -> float:
    """Print both speeds for some files; how many times that of sha256sum ours is."""
    ours, theirs = [], []
    program = shutil.which("sha256sum") or sys.exit("sha256sum is not installed; expected it, to compare with.")
    # In turn, so that both meet the same machine.
    for _ in range(ROUNDS):
        theirs.append(seconds(lambda: subprocess.run([program, *paths], check=True, stdout=subprocess.DEVNULL)))
        ours.append(seconds(lambda: [sha256_of(path) for path in paths]))
    size = sum(Path(path).stat().st_size for path in paths)
    speeds = [size / statistics.median(each) / 1e6 for each in (ours, theirs)]
    ratio = speeds[0] / speeds[1]
    print(f"{what:<24}{speeds[0]:>10,.0f} MB/s{speeds[1]:>10,.0f} MB/s (sha256sum){ratio:>8.2f}")
    return ratio


def main(directory: Path) -> int:
    """Measure; 1 if a promise is not kept."""
    with tempfile.TemporaryDirectory(dir=directory) as name:
        large = Path(name, "large")
        with large.open("wb") as file:
            for _ in range(LARGE >> 24):
                file.write(os.urandom(1 << 24))
        small = [Path(name, f"{number:04d}") for number in range(FILES)]
        for path in small:
            path.write_bytes(os.urandom(SMALL))
        ratio = compare("1 file of 1 GiB", [str(large)])
        compare(f"{FILES:,} files of 64 KiB", [str(path) for path in small])
        tracemalloc.start()
        sha256_of(str(large))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    print(f"memory{peak / 1e6:>24,.1f} MB")
    return int(ratio < LEAST_RATIO or peak > MOST_MEMORY)


if __name__ == "__main__":
    given = Path(sys.argv[1]) if len(sys.argv) > 1 else _MEMORY
    sys.exit(main(given if given.is_dir() else Path(tempfile.gettempdir())))
