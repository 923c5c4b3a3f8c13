"""Many histories, one seed after the other: ``python -m tests.simulation --histories 100000 --seed 1 --jobs 2``."""

import argparse
import gc
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from .documents import make_files
from .many import Sum, some
from .mends import MENDS

_MEMORY = Path("/dev/shm")  # noqa: S108 - a directory of its own is made in it
_SAY_SECONDS = 60.0
_AT_ONCE = 50


def all_of_them(seeds: range, live: Callable[[range], Sum], executor: Executor | None, until_found: bool) -> Sum:
    """All histories, here or by other processes; every now and then it is said how far they are."""
    came, said = Sum(), time.monotonic()
    chunks = [seeds[begin : begin + _AT_ONCE] for begin in range(0, len(seeds), _AT_ONCE)]
    for each in executor.map(live, chunks) if executor else map(live, chunks):
        came += each
        if until_found and came.found:
            if executor:
                executor.shutdown(cancel_futures=True)
            break
        if time.monotonic() > said + _SAY_SECONDS:
            said = time.monotonic()
            print(f"... {came.histories:,} histories, {len(came.found)} with findings", flush=True)
    return came


def main(arguments: Sequence[str]) -> int:
    """Run histories; the number of those in which something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--histories", type=int, default=1000, help="how many")
    parser.add_argument("--seed", type=int, default=1, help="the first one's; the others count on from it")
    parser.add_argument("--jobs", type=int, default=1, help="how many at once")
    parser.add_argument("--show", action="store_true", help="what happened in each, and not only what was found")
    parser.add_argument("--without", default="", choices=MENDS, help="take out a mend, and stop when it is missed")
    options = parser.parse_args(arguments)
    base = Path(mkdtemp(prefix="simulation-", dir=_MEMORY if _MEMORY.is_dir() else None))
    seeds, began = range(options.seed, options.seed + options.histories), time.monotonic()
    try:
        make_files(base)
        live = partial(some, base=base, show=options.show, without=options.without)
        # What was imported is not gone through again and again in search of garbage.
        gc.freeze()
        if options.jobs > 1:
            with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as executor:
                came = all_of_them(seeds, live, executor, bool(options.without))
        else:
            came = all_of_them(seeds, live, None, bool(options.without))
    finally:
        rmtree(base)
    print(f"\n{came.told(options.seed, time.monotonic() - began)}")
    return len(came.found)


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1:])))
