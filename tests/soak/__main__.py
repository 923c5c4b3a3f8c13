"""The command: for how long, from which seed."""

import argparse
import os
import pickle
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from tiled.client import from_uri

from bluesky_filestore.delivery import lane
from bluesky_filestore.delivery.resuming import follow
from bluesky_filestore.spool.places import is_private, kept_instead
from tests.disks import small_disk
from tests.document_streams import Case, cases
from tests.serving import API_KEY

from .comparing import Compared, compare
from .faults import Faults
from .journal import Journal, journal_of
from .machine import Server, Usage, Writer

_MEMORY = Path("/dev/shm")  # noqa: S108 - a directory of its own is made in it
_WRITERS, _CASES, _REST = 3, 60, 0.7
_PARK_AFTER, _LONGEST_CALL, _SETTLES = 8.0, 10.0, 600.0
_MOST_DESCRIPTORS, _MOST_BYTES = 300, 2**30


def some_cases(seed: int) -> list[Case]:
    """Legal streams of documents with their files, of which a reader can have every frame."""
    found: list[Case] = []

    @hypothesis.seed(seed)
    @settings(
        max_examples=_CASES,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases())
    def collect(case: Case) -> None:
        found.append(replace(case, frames_cut=0, stopped=True))

    collect()
    return found


class Soak:
    """One soak, in a directory of its own."""

    def __init__(self, seed: int, late: float, directory: Path, small: Path | None) -> None:
        self.directory, self.seed, self.late = directory, seed, late
        self.data = directory / "data"
        self.data.mkdir()
        (directory / "cases").write_bytes(pickle.dumps(some_cases(seed)))
        self.server = Server(directory / "catalog", self.data)
        self.spools = [directory / "spool", directory / "other spool" if small is None else small / "spool"]
        self.uri = f"{self.server.proxy.uri}/api/v1/metadata/"
        order = {
            "uri": self.server.proxy.uri,
            "api_key": API_KEY,
            "data": str(self.data),
            "cases": str(directory / "cases"),
            "end": str(directory / "end"),
            "seed": seed,
            "rest": _REST,
            "late": late,
            "park_after": _PARK_AFTER,
        }
        self.writers = []
        for number in range(_WRITERS):
            # The first share a spool; the last has the small disk.
            own = {"spool": str(self.spools[number == _WRITERS - 1]), "log": str(directory / f"log {number}")}
            self.writers.append(Writer(number, {**order, **own}, directory))
        self.faults = Faults(seed, self.server, self.writers, small)
        self.findings: list[str] = []
        self.settled, self.is_over = 0.0, False

    def run(self, seconds: float) -> None:
        """Have it all happen, and deliver what is left."""
        watching = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(watching,), daemon=True)
        watcher.start()
        for writer in self.writers:
            writer.start()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.faults.one()
        self.faults.end()
        began, self.is_over = time.monotonic(), True
        (self.directory / "end").touch()
        for writer in self.writers:
            if not writer.join(_SETTLES):
                self.findings.append(f"writer {writer.number} did not come to its end in {_SETTLES:g} s")
        lane._LATEST_SECONDS = self.late
        # What a writer has kept that met a full disk when it began.
        self.spools += [each for spool in self.spools for each in kept_instead(spool)]
        for spool in self.spools:
            self._deliver(spool)
        self.settled = time.monotonic() - began
        watching.set()
        watcher.join()

    def _deliver(self, spool: Path) -> None:
        make_client = partial(from_uri, self.server.proxy.uri, api_key=API_KEY)
        until = time.monotonic() + self.late + _SETTLES
        with closing(follow(spool, self.uri, make_client, wait=60.0, park_after=_PARK_AFTER)) as following:
            for progress in following:
                if time.monotonic() > until:
                    self.findings.append(f"{spool} does not settle: {progress}")
                    return

    def _watch(self, is_over: threading.Event) -> None:
        while not is_over.wait(1.0):
            self.server.look()
            if self.is_over:
                # One that was held just before all went well.
                self.server.proxy.release()
            for writer in self.writers:
                if writer.child and writer.usages:
                    writer.usages[-1].look(writer.child)

    def judge(self) -> tuple[Compared, list[Journal]]:
        """Compare what is there with the journals; the journals are of one life each."""
        journals = [journal_of(path) for writer in self.writers for path in writer.lives]
        client = from_uri(self.server.uri, api_key=API_KEY)
        try:
            runs = [run for journal in journals for run in journal.runs]
            compared = compare(runs, client, self.spools, self.uri, self.faults.explains, self.faults.orphaned)
        finally:
            client.context.close()
        compared.findings += self.findings
        for name, seconds in (call for journal in journals for call in journal.calls):
            if seconds > _LONGEST_CALL:
                compared.findings.append(f"a call with a {name} document took {seconds:.1f} s")
        for writer in self.writers:
            for code in writer.exits:
                if code not in (0, -9):
                    log = Path(str(writer.order["log"])).read_text()[-3000:]
                    compared.findings.append(f"writer {writer.number} ended with {code}:\n{log}")
        for usage in self.usages():
            if usage.most[0] > _MOST_BYTES or usage.most[1] > _MOST_DESCRIPTORS:
                compared.findings.append(f"a process took {usage.most[0] >> 20} MB and {usage.most[1]} descriptors")
        return compared, journals

    def usages(self) -> list[Usage]:
        """Those of all processes."""
        return [*self.server.usages, *(usage for writer in self.writers for usage in writer.usages)]

    def close(self) -> None:
        """End all processes."""
        for writer in self.writers:
            writer.close()
        self.server.close()


def show(soak: Soak, compared: Compared, journals: list[Journal]) -> None:
    """The table."""
    print(f"{soak.server.proxy.requests:>10,}  requests, from seed {soak.seed}")
    calls = [call for journal in journals for call in journal.calls]
    print(f"{len(calls):>10,}  documents taken, in {len(journals)} lives of {_WRITERS} writers")
    print(f"{compared.runs:>10,}  runs, of which {compared.cut_short} were cut short and {compared.parked} parked")
    print(f"{compared.orphaned:>10,}  runs left out: a late request of theirs was on its way when a writer was killed")
    print(f"{compared.documents:>10,}  documents and {compared.frames:,} frames compared")
    kinds = Counter(run.kind for journal in journals for run in journal.runs)
    print(f"{'':12}" + ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())))
    for kind, count in sorted(soak.faults.counts.items()):
        print(f"{count:>10,}  {kind}")
    for name in ("event", "stop"):
        took = sorted((seconds for of, seconds in calls if (of == "stop") == (name == "stop")), reverse=True) or [0.0]
        some = took[len(took) // 100]
        print(f"{1000 * took[0]:>10.0f}  ms, the longest call with {name} documents (1 of 100: {1000 * some:.0f} ms)")
    print(f"{max((journal.most_unsaved for journal in journals), default=0):>10}  documents at most in memory only")
    for name, usages in (
        ("writers", [each for writer in soak.writers for each in writer.usages]),
        ("server", soak.server.usages),
    ):
        most, first = (max(usages, key=lambda each: getattr(each, of)[0]) for of in ("most", "first"))
        print(f"{most.most[0] >> 20:>10}  MB at most in {name}; {first.first[0] >> 20} at first")
        print(f"{max(each.most[1] for each in usages):>10}  descriptors at most in {name}")
    print(f"{soak.settled:>10.0f}  s until all had settled")
    print(f"{len(compared.findings):>10,}  findings")
    for each in compared.findings:
        print(f"FOUND: {each}", flush=True)


@contextmanager
def place(*, small: bool) -> Iterator[tuple[Path, Path | None]]:
    """A directory, which stays if something is found, and a small disk in it, if there may be one."""
    # What a disk takes for each of the server's requests is no part of it.
    directory = Path(tempfile.mkdtemp(prefix="soak-", dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None))
    with ExitStack() as stack:
        disk = directory / "small"
        mounted = small and os.name == "posix" and stack.enter_context(small_disk(disk, "64m"))
        yield directory, disk if mounted else None


def main() -> int:
    """Soak; whether something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=sys.modules["tests.soak"].__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long; what is left is delivered afterwards")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--late", type=float, default=lane._LATEST_SECONDS, help="when late requests are looked for, in s"
    )
    parser.add_argument("--no-mount", action="store_true", help="as if one was not root")
    options = parser.parse_args()
    with place(small=not options.no_mount) as (directory, small):
        soak = Soak(options.seed, options.late, directory, small)
        try:
            soak.run(60 * options.minutes)
            compared, journals = soak.judge()
            show(soak, compared, journals)
        finally:
            soak.close()
    if compared.findings:
        print(f"What is left is in {directory}")
    else:
        for each in (directory, *filter(is_private, soak.spools)):
            shutil.rmtree(each)
    return bool(compared.findings)


if __name__ == "__main__":
    sys.exit(main())
