"""The command: how long, from which seed, and what."""

import argparse
import itertools
import math
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from .corpus import Found
from .running import Outcome, Target, outcomes, random_of, tried
from .targets import all_targets

HEAD = f"{'target':28} {'cases':>7} {'refused':>8} {'wrong':>6} {'HDF5':>5} {'findings':>8} {'slowest':>8} {'most':>7}"


def main() -> int:
    """Try what is asked for; how many findings there were."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzzing", description=sys.modules["tests.fuzzing"].__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long, all targets together")
    parser.add_argument("--cases", type=int, help="how many of each target, however long that takes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=[""], help="targets whose names begin so")
    parser.add_argument("--case", type=int, help="one case of one target, in this process")
    options = parser.parse_args()
    chosen = [each for each in all_targets() if any(each.name.startswith(name) for name in options.only)]
    found_before = [each for each in chosen if isinstance(each, Found)]
    if options.case is not None:
        return again(chosen[0], options.seed, options.case)
    print(HEAD)
    findings = sum(show(each, list(outcomes(each, 0, iter(range(len(each))), math.inf)), 0) for each in found_before)
    chosen, end = [each for each in chosen if each not in found_before], time.monotonic() + 60 * options.minutes
    for place, target in enumerate(chosen):
        share = (end - time.monotonic()) / (len(chosen) - place)
        until, numbers = time.monotonic() + share, itertools.count()
        if options.cases:
            until, numbers = math.inf, iter(range(options.cases))
        findings += show(target, list(outcomes(target, options.seed, numbers, until)), options.seed)
    return findings


def again(target: Target, seed: int, number: int) -> int:
    """Try one case here; its files stay."""
    directory = Path(tempfile.mkdtemp(prefix="fuzzing-"))
    target.prepare(directory)
    print(target.case(random_of(target, seed, number), number))
    outcome = tried(target, seed, number, directory / "case")
    print(
        f"{outcome.kind} {outcome.where} {outcome.seconds:.2f} s {outcome.bytes >> 20} MB\n{outcome.words}\n{directory}"
    )
    return outcome.is_finding


def show(target: Target, found: list[Outcome], seed: int) -> int:
    """A line of the table, and its findings below it, those alike once."""
    kinds = Counter(each.kind for each in found)
    findings = [each for each in found if each.is_finding]
    slowest, most = (max((getattr(each, of) for each in found), default=0) for of in ("seconds", "bytes"))
    print(
        f"{target.name:28} {len(found):7} {kinds['refused']:8} {kinds['wrong']:6} {kinds['library']:5} "
        f"{len(findings):8} {slowest:6.2f} s "
        f"{most >> 20:4} MB",
        flush=True,
    )
    alike: dict[tuple[str, str], list[Outcome]] = {}
    for each in found:
        if each.is_finding or each.kind in ("wrong", "library"):
            alike.setdefault((each.kind, each.where), []).append(each)
    for (kind, where), some in alike.items():
        print(f"    {len(some)} x {kind}: {where} (e.g. --only {target.name!r} --seed {seed} --case {some[0].number})")
        if some[0].is_finding:
            print("        " + some[0].words.strip().replace("\n", "\n        ")[-1500:])
    return len(findings)


if __name__ == "__main__":
    sys.exit(min(1, main()))
