"""Cases in processes of their own, which may hang, crash, and take what they like: many cases a process."""

import faulthandler
import itertools
import json
import logging
import os
import random
import resource
import select
import shutil
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from bluesky_filestore.errors import FileStoreError

PACKAGE = "bluesky_filestore"
MOST_SECONDS = 2.0
MOST_BYTES = 2**30
_BATCH = 200
_STATUS = Path("/proc/self/status")
# On a machine with much to do a case may take long, and no time.
_LONG_SECONDS = 15 * MOST_SECONDS


class Target(Protocol):
    """What is tried, and how."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def bears(self) -> frozenset[str]:
        """The kinds of outcomes that are known, and no findings."""

    def prepare(self, directory: Path) -> None:
        """Make what is the same for all cases."""

    def case(self, rng: random.Random, number: int) -> Any:
        """What is tried, by nothing but what `rng` gives, and the number."""

    def attempt(self, case: Any, directory: Path) -> str | None:
        """Try it in an empty directory; which values were wrong without a word, if any."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a case."""

    number: int
    kind: str
    """``fine``, ``refused`` with our words, ``wrong`` values, ``library`` where HDF5 hung or crashed; or a finding."""
    where: str = ""
    """What it has in common with others of its kind."""
    words: str = ""
    seconds: float = 0.0
    bytes: int = 0

    @property
    def is_finding(self) -> bool:
        """Whether it is none of what is promised."""
        return self.kind in ("exception", "hang", "memory", "crash")


def random_of(target: Target, seed: int, number: int) -> random.Random:
    """What all of a case is made of."""
    return random.Random(f"{target.name}/{seed}/{number}")


def outcomes(target: Target, seed: int, numbers: Iterator[int], until: float) -> Iterator[Outcome]:
    """Try cases until there are no more, or it is time."""
    with tempfile.TemporaryDirectory(prefix="fuzzing-") as made:
        target.prepare(Path(made))
        again: list[int] = []
        while time.monotonic() < until:
            batch = again or list(itertools.islice(numbers, _BATCH))
            if not batch:
                return
            done = 0
            for outcome in _of_process(target, seed, batch, Path(made), until):
                done += 1
                if outcome.kind == "hang" and outcome.kind not in target.bears:
                    yield from _of_process(target, seed, [outcome.number], Path(made), until + 60, _LONG_SECONDS)
                elif outcome.kind in target.bears:
                    yield replace(outcome, kind="library")
                else:
                    yield outcome
            again = batch[done:]


def _of_process(
    target: Target, seed: int, batch: list[int], made: Path, until: float, patience: float = MOST_SECONDS
) -> Iterator[Outcome]:
    read, write = os.pipe()
    errors = made / "stderr"
    child = os.fork()
    if not child:
        os.close(read)
        _try_all(target, seed, batch, made, write, errors, until)
    os.close(write)
    try:
        with os.fdopen(read, "rb", buffering=0) as pipe:
            yield from _heard(pipe, child, errors, patience)
    finally:
        _end(child)
        shutil.rmtree(made / "case", ignore_errors=True)


def _heard(pipe: Any, child: int, errors: Path, patience: float) -> Iterator[Outcome]:
    number, heard, begun = -1, b"", time.monotonic()
    while True:
        left = begun + patience - time.monotonic() if number >= 0 else 60.0
        if not select.select([pipe], [], [], max(0.0, left))[0]:
            # It says where it is before it ends, by which the pipe does.
            os.kill(child, signal.SIGABRT)
            select.select([pipe], [], [], MOST_SECONDS)
            yield Outcome(number, "hang", *_said(errors), time.monotonic() - begun)
            return
        some = pipe.read(65536)
        if not some:
            break
        *lines, heard = (heard + some).split(b"\n")
        for line in lines:
            said = json.loads(line)
            if isinstance(said, int):
                number, begun = said, time.monotonic()
            else:
                yield Outcome(**said)
                number = -1
    if number >= 0:
        yield Outcome(number, "crash", *_said(errors))


def _said(errors: Path) -> tuple[str, str]:
    """Where a process was that ended, and all that it said."""
    words = errors.read_text(errors="replace").partition("Extension modules:")[0] if errors.exists() else ""
    return _last_of_ours(words), words[-3000:]


def _end(child: int) -> None:
    try:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    except (ProcessLookupError, ChildProcessError):
        return


def _try_all(target: Target, seed: int, batch: list[int], made: Path, write: int, errors: Path, until: float) -> None:
    try:
        descriptor = os.open(errors, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 2)
        os.dup2(descriptor, 1)
        faulthandler.enable(2)
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        _limit_memory()
        before = _peak()
        for number in batch:
            if time.monotonic() > until:
                break
            os.write(write, f"{number}\n".encode())
            outcome = tried(target, seed, number, made / "case", before)
            said = {name: getattr(outcome, name) for name in Outcome.__slots__}
            os.write(write, json.dumps(said).encode() + b"\n")
        os._exit(0)
    except BaseException:  # noqa: BLE001 - whatever it is, the process is a copy that must not go on
        traceback.print_exc()
        os._exit(1)


def tried(target: Target, seed: int, number: int, directory: Path, before: int = 0) -> Outcome:
    """Try one case in this process."""
    case = target.case(random_of(target, seed, number), number)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    begun, taken = time.monotonic(), time.process_time()
    kind, where, words = judged(target, case, directory)
    seconds, used = time.monotonic() - begun, max(0, _peak() - before)
    if time.process_time() - taken > MOST_SECONDS:
        kind, where = "hang", f"{kind} after {seconds:.1f} s"
    if used > MOST_BYTES and kind in ("fine", "refused", "wrong"):
        kind, where = "memory", f"{used >> 20} MB"
    return Outcome(number, kind, where, words, seconds, used)


def judged(target: Target, case: Any, directory: Path) -> tuple[str, str, str]:
    """What becomes of a case, what it has in common with others, and its words."""
    try:
        wrong = target.attempt(case, directory)
    except FileStoreError as error:
        return "refused", type(error).__name__, str(error)
    except MemoryError:
        return "memory", _last_of_ours(traceback.format_exc()), traceback.format_exc()[-3000:]
    except BaseException as error:  # noqa: BLE001 - it is what is looked for
        words = traceback.format_exc()
        return "exception", f"{type(error).__name__} {_last_of_ours(words)}", words[-3000:]
    return ("wrong", wrong.partition(":")[0], wrong) if wrong else ("fine", "", "")


def _last_of_ours(words: str) -> str:
    """The last line of a traceback that is of the package; in faulthandler's the first."""
    lines = [line.strip() for line in words.splitlines() if f"/{PACKAGE}/" in line]
    if not lines:
        return words.strip().splitlines()[-1][:100] if words.strip() else ""
    line = lines[0 if "most recent call first" in words else -1]
    return line.rpartition(f"/{PACKAGE}/")[2].replace('"', "").replace("in ", "")[:100]


def _limit_memory() -> None:
    """Let this process take no more than it has and the limit, by which a larger array fails at once."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not _STATUS.exists():
        return
    has = next(int(line.split()[1]) for line in _STATUS.read_text().splitlines() if "VmSize" in line)
    resource.setrlimit(resource.RLIMIT_AS, (has * 1024 + MOST_BYTES, resource.RLIM_INFINITY))


def _peak() -> int:
    """The most memory that this process had since it was asked last; 0 where the system does not say."""
    if not _STATUS.exists():
        return 0
    status = _STATUS.read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line) * 1024
    Path("/proc/self/clear_refs").write_text("5")
    return peak
