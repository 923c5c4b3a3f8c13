"""The command: how many mutants, from which seed, and of what."""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from .mutating import Mutant, made, mutants_of
from .subjects import SUBJECTS, arguments_of, by_hand, equivalent

ROOT = Path(__file__).parents[2]
_COPIED = ("bluesky_filestore", "tests", "conftest.py", "setup.cfg", "setup.py", "pyproject.toml", "docs", "README.md")
_PYTEST = ("-xq", "--no-header", "--tb=line", "--show-capture=no", "-pno:cacheprovider", "-ptests.mutants.profile")
# hypothesis is imported before pytest could have a look at it.
_PYTEST += ("-Wignore::pytest.PytestAssertRewriteWarning",)


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of a mutant."""

    module: str
    """Whose."""
    mutant: Mutant
    """Which."""
    by: str
    """What noticed it: a test, or that it takes for ever; empty if nothing did."""
    seconds: float
    """How long that took."""


class Copy:
    """A copy of the tree, in which one module at a time is changed."""

    def __init__(self, base: Path) -> None:
        self.directory = Path(tempfile.mkdtemp(dir=base))
        for name in _COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, self.directory / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, self.directory)

        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        self._nursery = subprocess.Popen(
            [sys.executable, "-m", "tests.mutants.nursery"],
            cwd=self.directory,
            env=kept | {"PYTHONPATH": str(self.directory), "TMPDIR": str(self.directory)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._nursery.stdout is not None
        assert self._nursery.stdout.readline().strip() == "ready"

    def close(self) -> None:
        """Have no processes any more."""
        self._nursery.communicate()

    def tests(self, module: str, timeout: float) -> tuple[int | None, str]:
        """How the tests of a module end, and their last words; None if they do not."""
        stdin, stdout = self._nursery.stdin, self._nursery.stdout
        assert stdin is not None
        assert stdout is not None
        words = self.directory / "words"
        order = {"arguments": [*_PYTEST, *arguments_of(module)], "timeout": timeout, "words": str(words)}
        stdin.write(json.dumps(order) + "\n")
        stdin.flush()
        code: int | None = json.loads(stdout.readline())
        return code, words.read_text(encoding="utf-8", errors="replace")

    def try_one(self, module: str, mutant: Mutant, timeout: float) -> Tried:
        """Have the tests of a module run while it is changed."""
        path = self.directory / "bluesky_filestore" / f"{module}.py"
        source, began = path.read_text(encoding="utf-8"), time.monotonic()
        self._write(path, made(source, mutant))
        try:
            code, said = self.tests(module, timeout)
        finally:
            self._write(path, source)
        return Tried(module, mutant, _noticed(code, said), time.monotonic() - began)

    def _write(self, path: Path, source: str) -> None:
        path.write_text(source, encoding="utf-8")
        # It may be as long as it was, and of the same second.
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
            compiled.unlink()


def _noticed(code: int | None, said: str) -> str:
    if code is None:
        return "it takes for ever"
    failed = [line for line in said.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return "" if code == 0 else (failed or [f"pytest ended with {code}"])[0].partition(" - ")[0]


def chosen(modules: list[str], number: int, seed: int) -> dict[str, list[Mutant]]:
    """The mutants that are tried: those thought of, and as many of a seed, equally many of each module."""
    found = {}
    for place, module in enumerate(modules):
        source = (ROOT / "bluesky_filestore" / f"{module}.py").read_text(encoding="utf-8")
        share = (number * (place + 1)) // len(modules) - (number * place) // len(modules)
        mutants, chance = mutants_of(source), random.Random(f"{seed} {module}")
        found[module] = [*by_hand(module, source), *chance.sample(mutants, min(share, len(mutants)))]
    return found


def timeout_of(copy: Copy, module: str) -> float:
    """How long the tests of a module may take: three times what they do without a mutant, and more."""
    began = time.monotonic()
    code, said = copy.tests(module, 900.0)
    if code != 0:
        raise SystemExit(f"The tests of {module} fail without a mutant:\n{said}")
    print(f"{module}: its tests take {time.monotonic() - began:.0f} s", flush=True)
    return 30.0 + 3 * (time.monotonic() - began)


def main() -> int:
    """Try mutants; how many survive that are not known to be equivalent."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=sys.modules["tests.mutants"].__doc__)
    parser.add_argument("--mutants", type=int, default=120, help="how many, beside those that were thought of")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=list(SUBJECTS), choices=list(SUBJECTS), help="of which modules")
    parser.add_argument("--jobs", type=int, default=1, help="how many at once")
    options = parser.parse_args()
    base, known = Path(tempfile.mkdtemp(prefix="mutants-")), equivalent()
    copies: SimpleQueue[Copy] = SimpleQueue()
    counts: Counter[tuple[str, str]] = Counter()
    try:
        for _ in range(options.jobs):
            copies.put(Copy(base))
        for module, mutants in chosen(options.only, options.mutants, options.seed).items():
            copies.put(copy := copies.get())
            limit = timeout_of(copy, module)

            def try_one(mutant: Mutant, module: str = module, limit: float = limit) -> Tried:
                copy = copies.get()
                try:
                    return copy.try_one(module, mutant, limit)
                finally:
                    copies.put(copy)

            with ThreadPoolExecutor(options.jobs) as pool:
                for tried in pool.map(try_one, mutants):
                    counts[module, show(tried, known)] += 1
    finally:
        while not copies.empty():
            copies.get().close()
        shutil.rmtree(base)
    for module in options.only:
        print(
            f"{module:20} "
            + ", ".join(f"{counts[module, what]} {what}" for what in ("killed", "SURVIVED", "equivalent"))
        )
    print(f"{counts.total()} mutants from seed {options.seed}")
    return sum(count for (_, what), count in counts.items() if what == "SURVIVED")


def show(tried: Tried, known: dict[tuple[str, str], str]) -> str:
    """Say what became of a mutant, in a line; in a word."""
    what = "killed" if tried.by else "equivalent" if (tried.module, tried.mutant.name) in known else "SURVIVED"
    by = f"\n    {tried.by}" if tried.by else ""
    name = " ".join(tried.mutant.name.split())
    print(f"{what:10} {tried.seconds:4.0f} s {tried.module}:{tried.mutant.line} {name}{by}", flush=True)
    return what


if __name__ == "__main__":
    sys.exit(min(1, main()))
