"""Many histories, one seed after the other: ``python -m tests.simulation --histories 100000 --seed 1``."""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from .documents import make_files
from .history import History, quiet
from .judge import judge

_MEMORY = Path("/dev/shm")  # noqa: S108 - a directory of its own is made in it
_SAY_SECONDS = 60.0


def lived(seed: int, directory: Path, files: Path) -> tuple[History, list[str]]:
    """A history, and what is found of it."""
    directory.mkdir()
    history = History(seed, directory, files)
    try:
        with quiet():
            with history.world:
                history.run()
            return history, judge(history)
    finally:
        rmtree(directory)


def told(history: History, found: Sequence[str]) -> str:
    """What happened in a history, to be read."""
    return "\n".join([*history.world.happened, *(f"FOUND: {words}" for words in found)])


def main(arguments: Sequence[str]) -> int:
    """Run histories; the number of those in which something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--histories", type=int, default=1000, help="how many")
    parser.add_argument("--seed", type=int, default=1, help="the first one's; the others count on from it")
    parser.add_argument("--show", action="store_true", help="what happened in each, and not only what was found")
    options = parser.parse_args(arguments)
    base = Path(mkdtemp(prefix="simulation-", dir=_MEMORY if _MEMORY.is_dir() else None))
    make_files(base)
    faults: Counter[str] = Counter()
    runs, bad, began, said = 0, 0, time.monotonic(), time.monotonic()
    try:
        for seed in range(options.seed, options.seed + options.histories):
            history, found = lived(seed, base / str(seed), base)
            faults += history.world.faults
            runs += len(history.runs)
            bad += bool(found)
            if options.show:
                print(told(history, found))
            elif found:
                print(f"seed {seed} ({', '.join(sorted(history.kinds))}):", *found, sep="\n    ", flush=True)
            if time.monotonic() > said + _SAY_SECONDS:
                said = time.monotonic()
                print(f"... up to seed {seed}, {bad} with findings", flush=True)
    finally:
        rmtree(base)
    print(f"\n{options.histories} histories from seed {options.seed}, {runs} runs, {time.monotonic() - began:.0f} s")
    for kind, count in sorted(faults.items()):
        print(f"{count:>10,}  {kind}")
    print(f"{bad:>10,}  histories with findings")
    return bad


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1:])))
