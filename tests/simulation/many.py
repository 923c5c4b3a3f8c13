"""Histories lived, judged and counted."""

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree

from .history import History, quiet
from .judge import judge
from .mends import MENDS


@dataclass
class Sum:
    """What came of some histories."""

    histories: int = 0
    runs: int = 0
    documents: int = 0
    requests: int = 0
    hours: float = 0.0
    """By the clock of their machines."""
    faults: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    """In how many histories something of a kind was to befall them."""
    found: dict[int, tuple[str, ...]] = field(default_factory=dict)
    """What was found, by seed."""

    def add(self, history: History, found: Sequence[str]) -> None:
        """Count one history."""
        self.histories += 1
        self.runs += len(history.runs)
        self.documents += sum(taken.given for taken in history.runs)
        self.requests += history.network.requests
        self.hours += history.world.now / 3600
        self.faults += history.world.faults
        self.kinds.update(history.kinds)
        if found:
            self.found[history.seed] = (", ".join(sorted(history.kinds)), *found)

    def __iadd__(self, other: "Sum") -> "Sum":
        for name in ("histories", "runs", "documents", "requests", "hours"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.faults += other.faults
        self.kinds += other.kinds
        self.found |= other.found
        return self

    def told(self, first: int, seconds: float) -> str:
        """A table."""
        words = (
            f"{self.histories:,} histories from seed {first}: {self.runs:,} runs, {self.documents:,} documents, "
            f"{self.requests:,} requests, {self.hours:,.0f} hours by their clocks; {seconds:.0f} s, "
            f"{self.histories * 60 / max(seconds, 0.001):,.0f} a minute"
        )
        faults = [f"{count:>10,}  {kind}" for kind, count in sorted(self.faults.items())]
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(self.kinds.items()))
        return "\n".join([words, *faults, f"    histories with {kinds}", f"{len(self.found):>10,}  with findings"])


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


def kinds_of(seed: int) -> frozenset[str]:
    """What befalls a history, which its seed alone decides."""
    return History(seed, Path(), Path()).kinds


def told(history: History, found: Sequence[str]) -> str:
    """What happened in a history, to be read."""
    return "\n".join([*history.world.happened, *(f"FOUND: {words}" for words in found)])


def some(seeds: range, base: Path, show: bool = False, without: str = "") -> Sum:
    """Some histories, one after the other; without a mend, up to the first one that finds what it mends."""
    came = Sum()
    with MENDS[without].taken_out() if without else nullcontext():
        for seed in (seed for seed in seeds if not without or MENDS[without].may_be_found(kinds_of(seed))):
            history, found = lived(seed, base / str(seed), base)
            came.add(history, found)
            if show:
                print(told(history, found))
            elif found:
                print(f"seed {seed} ({came.found[seed][0]}):", *found, sep="\n    ", flush=True)
            if without and found:
                break
    return came
