"""A machine on which everything happens one after the other, by a seed: processes, their threads, a clock, a disk.

What runs on it is the package as it is. Each of its threads is a greenlet, of which one runs until it waits for
something: a lock, an event, a time, an answer, somebody else's transaction. Then the earliest of all goes on, and the
clock is set to its time. Nothing takes time but waiting, so that an hour of outages costs milliseconds, and whoever
waits longer than was promised is seen to the microsecond.

The package's modules see `time`, `threading`, `os`, `fcntl` and `sqlite3` of this machine in the place of Python's
(`World.__enter__`), where those differ; SQLite and its files are real. Before each statement, request, and rename or
removal of a file is a `World.point`: there a process may be killed, for what is between two of them leaves no trace
outside of it, or be kept waiting, so that others come in between. Who is killed does nothing any more, not even what
stands in a ``finally``; its locks are free, and its transaction is undone.
"""

import fcntl
import heapq
import itertools
import os
import random
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import greenlet

from .stand_ins import BUSY_STEP, Condition, Connection, Event, Lock, Thread

PARTS = (
    "bluesky_filestore.spool",
    "bluesky_filestore.delivery",
    "bluesky_filestore.catalogs",
    "bluesky_filestore.private",
)
EPOCH = 1.75e9
_LEAST = 1e-6


class StuckError(Exception):
    """Something goes on for ever without waiting, or nothing goes on."""


@dataclass(eq=False)
class Process:
    """A process of the machine: what it has open, and whether it lives."""

    number: int
    name: str
    is_alive: bool = True
    """Not if it was killed, or ended."""
    dies_in: float = float("inf")
    """How many points it still passes."""
    connections: list[Connection] = field(default_factory=list)
    descriptors: set[int] = field(default_factory=set)
    failure: BaseException | None = None
    """What its first thread ended with, if not well."""
    awaited_by: list["Task"] = field(default_factory=list)
    """Who goes on when it is over."""


class Task:
    """A thread: a greenlet, and when it goes on."""

    def __init__(self, world: "World", process: Process, name: str, run: Callable[[], object]) -> None:
        self.process, self.name, self.done = process, name, False
        self.stalled = 0.0
        self.wakes = itertools.count()
        self.turn = next(self.wakes)
        self.joined: list[Task] = []

        def whole() -> None:
            try:
                run()
            except Exception as error:  # noqa: BLE001 - it is a finding
                process.failure = process.failure or error
                world.say(f"{name} ended with {error!r}")
            self.done = True
            for task in self.joined:
                world.ready(task)

        self.greenlet = greenlet.greenlet(whole, world.hub)


class World:
    """The machine.

    Parameters
    ----------
    seed : int
        What happens follows from it.
    directory : Path
        Its disk.
    """

    def __init__(self, seed: int, directory: Path) -> None:
        self.chance, self.directory = random.Random(seed), directory
        self.now = 0.0
        self.hub = greenlet.getcurrent()
        self.task: Task | None = None
        self.happened: list[str] = []
        self.faults: Counter[str] = Counter()
        self.is_over = False
        self.is_full = False
        self.damaged: set[tuple[int, int]] = set()
        self.begun_again: set[int] = set()
        """The runs that somebody wanted to be gone through again from their beginning, by their number in the spool."""
        self.slow = 0.0
        """How probable it is that a thread is kept waiting at a point."""
        self._order = itertools.count()
        self._queue: list[tuple[float, float, int, Task, int]] = []
        self._processes: list[Process] = []
        self._tasks: list[Task] = []
        self._stack = ExitStack()

    # What happens

    def say(self, words: str) -> None:
        """Put something on record."""
        who = self.task.name if self.task else "-"
        self.happened.append(f"{self.now:10.3f} {who:>14}  {words}")

    def fault(self, kind: str, words: str = "") -> None:
        """Put a fault on record."""
        self.faults[kind] += 1
        self.say(f"! {kind} {words}")

    # Processes and threads

    def start(self, name: str, run: Callable[[], object]) -> Process:
        """A process that does something; it is over when its first thread is."""
        process = Process(1000 + len(self._processes), name)
        self._processes.append(process)

        def main() -> None:
            try:
                run()
            finally:
                if not self.is_over and process.is_alive:
                    self._end(process)

        self.spawn(process, name, main)
        return process

    def spawn(self, process: Process, name: str, run: Callable[[], object]) -> Task:
        """Another thread of a process."""
        task = Task(self, process, name, run)
        self._tasks.append(task)
        self.ready(task)
        return task

    def kill(self, process: Process) -> None:
        """Kill a process where it is."""
        self.fault("killed", process.name)
        self.stop(process)

    def stop(self, process: Process) -> None:
        """Have a process go on no more."""
        if process.is_alive:
            self._end(process)

    def _end(self, process: Process) -> None:
        process.is_alive = False
        for connection in process.connections:
            connection.let_go()
        for descriptor in process.descriptors:
            with suppress(OSError):
                os.close(descriptor)
        process.descriptors.clear()
        for task in process.awaited_by:
            self.ready(task)
        process.awaited_by.clear()

    def wait_for_end(self, process: Process) -> None:
        """Have the thread that runs go on when a process is over."""
        if process.is_alive:
            process.awaited_by.append(self._running())
            self.wait(None)

    def ready(self, task: Task, at: float | None = None) -> None:
        """A thread goes on, now or then, whatever it waited for."""
        task.turn = next(task.wakes)
        when = self.now if at is None else at
        heapq.heappush(self._queue, (when, self.chance.random(), next(self._order), task, task.turn))

    def wait(self, seconds: float | None) -> None:
        """Have the thread that runs go on after a time, or if somebody says so."""
        task = self._running()
        task.turn = next(task.wakes)
        if seconds is not None:
            self.ready(task, self.now + max(_LEAST, seconds))
        self.hub.switch()
        if self.is_over:
            raise greenlet.GreenletExit

    def _running(self) -> Task:
        assert self.task is not None, "only threads of the machine wait"
        return self.task

    def run(self, until: Callable[[], bool], latest: float) -> bool:
        """Have things happen until something is the case; False if it is not in time."""
        steps, moment = 0, -1.0
        while not until():
            if not self._queue or self._queue[0][0] > latest:
                self.now = max(self.now, latest)
                return until()
            at, _, _, task, turn = heapq.heappop(self._queue)
            if turn != task.turn or task.done or not task.process.is_alive:
                continue
            steps, moment = (steps + 1, moment) if at == moment else (0, at)
            if steps > 20_000:
                raise StuckError(f"{task.name} goes on and on at {at:.3f}")
            self.now, self.task = max(at, self.now), task
            try:
                task.greenlet.switch()
            finally:
                self.task = None
        return True

    def point(self, what: str) -> None:
        """What follows has an effect outside of the process: it may be killed before."""
        if self.is_over:
            raise greenlet.GreenletExit
        if self.task is None:
            return
        process = self.task.process
        process.dies_in -= 1
        if process.dies_in <= 0:
            self.say(f"is about to: {what}")
            self.kill(process)
            self.hub.switch()
            raise greenlet.GreenletExit
        if self.slow and self.chance.random() < self.slow:
            stalled = self.chance.choice((0.0, 0.001, 0.004))
            self.task.stalled += stalled
            self.wait(stalled)

    @property
    def process(self) -> Process:
        """The process that runs."""
        return self._running().process

    def stalled(self) -> float:
        """For how many seconds the thread that runs was kept waiting for nothing."""
        return self._running().stalled

    # What the package sees

    def __enter__(self) -> "World":
        stand_ins = self._stand_ins()
        for module, known in _seen(frozenset(stand_ins), len(sys.modules)):
            self._stack.enter_context(patch.object(module, known, stand_ins[known]))
        for verb in ("rename", "unlink"):
            self._stack.enter_context(patch.object(Path, verb, self._marked(verb, getattr(Path, verb))))
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over = True
        for task in self._tasks:
            for _ in range(100):
                if task.greenlet.dead or not task.greenlet:
                    break
                self.task = task
                task.greenlet.throw()
        self.task = None
        for process in self._processes:
            process.is_alive = False
            for connection in process.connections:
                with suppress(sqlite3.Error):
                    sqlite3.Connection.close(connection)
            self._end(process)
        self._stack.close()

    def _marked(self, verb: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def marked(path: Path, *arguments: Any, **options: Any) -> Any:
            self.point(f"{verb} {path.name}")
            return real(path, *arguments, **options)

        return marked

    def _stand_ins(self) -> dict[str, Any]:
        return {
            "time": _like(time, monotonic=lambda: self.now, time=lambda: EPOCH + self.now, sleep=self.sleep),
            "threading": _like(
                threading,
                Lock=lambda: Lock(self),
                Event=lambda: Event(self),
                Condition=lambda: Condition(self),
                Thread=lambda **options: Thread(self, **options),
            ),
            "os": _like(os, getpid=self._getpid, open=self._open, close=self._close),
            "fcntl": _like(fcntl, flock=self._flock),
            "sqlite3": _like(sqlite3, connect=self.connect),
        }

    def sleep(self, seconds: float) -> None:
        """As `time.sleep`."""
        if self.task is not None or self.is_over:
            self.point("sleep")
            self.wait(seconds)

    def _getpid(self) -> int:
        return self.task.process.number if self.task is not None else os.getpid()

    def _open(self, *arguments: Any, **options: Any) -> int:
        self.point("open a file")
        descriptor = os.open(*arguments, **options)
        if self.task is not None:
            self.task.process.descriptors.add(descriptor)
        return descriptor

    def _close(self, descriptor: int) -> None:
        if self.task is not None:
            if descriptor not in self.task.process.descriptors and (self.is_over or not self.task.process.is_alive):
                return
            self.task.process.descriptors.discard(descriptor)
        os.close(descriptor)

    def _flock(self, descriptor: int, how: int) -> None:
        while True:
            try:
                fcntl.flock(descriptor, how | fcntl.LOCK_NB)
            except BlockingIOError:
                if how & fcntl.LOCK_NB or self.task is None:
                    raise
                self.wait(BUSY_STEP)
            else:
                return

    def connect(self, path: Path, *, timeout: float = 5.0, **options: Any) -> Connection:
        """As `sqlite3.connect`."""
        self.point("open the database")
        connection = sqlite3.connect(path, timeout=0.0, factory=Connection, **options)
        connection.begin(self, Path(path), timeout)
        if self.task is not None:
            self.task.process.connections.append(connection)
        return connection

    def fill_disk(self, *, is_full: bool) -> None:
        """Have no room on the disk, or have some again."""
        self.is_full = is_full
        for connection in (each for process in self._processes for each in process.connections):
            connection.limit()

    def damage(self, database: Path) -> None:
        """Have whoever reads a database find it damaged, whatever its name."""
        with suppress(FileNotFoundError):
            found = database.stat()
            self.damaged.add((found.st_dev, found.st_ino))


@lru_cache(maxsize=1)
def _seen(names: frozenset[str], _: int) -> list[tuple[Any, str]]:
    """The package's modules, and what they see by one of the names; it is looked for again when more are imported."""
    modules = [module for name, module in sys.modules.items() if name.startswith(PARTS)]
    return [(module, known) for module in modules for known in sorted(names & vars(module).keys())]


def _like(module: Any, **others: Any) -> SimpleNamespace:
    return SimpleNamespace(**{**vars(module), **others})
