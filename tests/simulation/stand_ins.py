"""What the package sees on a machine of `world` in the place of Python's: connections, events, locks, threads."""

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .world import Task, World

BUSY_STEP = 0.002
"""After how many seconds somebody tries again who waits for what another process has."""
_FULL, _CORRUPT = 13, 11


class Connection(sqlite3.Connection):
    """A connection to a real database, whose waiting for others is the machine's."""

    world: "World"

    def begin(self, world: "World", path: Path, patience: float) -> None:
        """It belongs to a machine."""
        self.world, self._patience, self._is_closed = world, patience, False
        found = path.stat()
        self._identity = (found.st_dev, found.st_ino)
        if world.is_full:
            self.limit()

    def limit(self) -> None:
        """Know whether there is room on the disk."""
        if self._is_closed:
            return
        with suppress(sqlite3.Error):
            ((pages,),) = super().execute("PRAGMA page_count").fetchall()
            super().execute(f"PRAGMA max_page_count = {max(1, pages) if self.world.is_full else 2**30}").fetchall()

    def let_go(self) -> None:
        """Its process is dead: nothing is held, and nothing tidied up."""
        if not self._is_closed:
            # Nor is it asked for anything: for an empty database that was put aside SQLite removes the next one's log.
            self._is_closed = True
            with suppress(sqlite3.Error):
                super().rollback()

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        """As SQLite does."""
        return self._patiently(super().execute, statement, *values)

    def executemany(self, statement: str, *values: Any) -> sqlite3.Cursor:
        """As SQLite does; which runs are gone through again is on record."""
        if "'waiting'" in statement:
            self.world.begun_again.update(run for run, *_ in values[0])
        return self._patiently(super().executemany, statement, *values)

    def close(self) -> None:
        """As SQLite does."""
        self.world.point("close the database")
        self._is_closed = True
        super().close()

    def _patiently(self, ask: Callable[..., sqlite3.Cursor], statement: str, *values: Any) -> sqlite3.Cursor:
        world = self.world
        if statement.startswith("PRAGMA busy_timeout = "):
            self._patience = int(statement.rpartition(" ")[2]) / 1000
            return self.cursor()
        world.point(statement[:60])
        if self._identity in world.damaged:
            raise _error(sqlite3.DatabaseError, "database disk image is malformed", _CORRUPT)
        if world.is_full and statement.startswith(("INSERT", "CREATE")) and world.chance.random() < 0.5:
            raise _error(sqlite3.OperationalError, "database or disk is full", _FULL)
        until = world.now + self._patience
        while True:
            try:
                return ask(statement, *values)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or world.now >= until or world.task is None:
                    raise
            world.wait(BUSY_STEP)


def _error(kind: type[sqlite3.Error], words: str, code: int) -> sqlite3.Error:
    error = kind(words)
    error.sqlite_errorcode = code
    return error


class Event:
    """As `threading.Event`."""

    def __init__(self, world: "World") -> None:
        self._world, self._is_set = world, False
        self._waiting: list[Task] = []

    def set(self) -> None:
        """Let all go on that wait."""
        self._is_set = True
        waiting, self._waiting = self._waiting, []
        for task in waiting:
            self._world.ready(task)

    def clear(self) -> None:
        """Let those wait that come."""
        self._is_set = False

    def is_set(self) -> bool:
        """Whether it is."""
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is."""
        self._world.point("wait")
        if not self._is_set:
            task = self._world._running()
            self._waiting.append(task)
            self._world.wait(timeout)
            if task in self._waiting:
                self._waiting.remove(task)
        return self._is_set


class Condition:
    """As `threading.Condition`; what is done with it is not interrupted here."""

    def __init__(self, world: "World") -> None:
        self._event = Event(world)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for `notify_all`."""
        self._event.clear()
        return self._event.wait(timeout)

    def notify_all(self) -> None:
        """Let all go on that wait."""
        self._event.set()


class Lock:
    """As `threading.Lock`."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._holder: Task | None = None
        self._waiting: list[Task] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Have it alone, if that can be had in time."""
        world = self._world
        until = float("inf") if timeout < 0 else world.now + timeout
        while self._holder is not None:
            if not blocking or world.now >= until:
                return False
            task = world._running()
            self._waiting.append(task)
            world.wait(None if timeout < 0 else until - world.now)
            if task in self._waiting:
                self._waiting.remove(task)
        self._holder = world.task
        return True

    def release(self) -> None:
        """Let others have it: who of them is the first is chance."""
        self._holder = None
        waiting, self._waiting = self._waiting, []
        for task in waiting:
            self._world.ready(task)

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Thread:
    """As `threading.Thread`."""

    def __init__(
        self, world: "World", *, target: Callable[..., object], name: str = "", args: Any = (), **_: Any
    ) -> None:
        self._world, self._run, self.name = world, lambda: target(*args), name
        self._task: Task | None = None

    def start(self) -> None:
        """Begin."""
        process = self._world._running().process
        self._task = self._world.spawn(process, f"{process.name}/{self.name}", self._run)

    def is_alive(self) -> bool:
        """Whether it goes on."""
        return self._task is not None and not self._task.done

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end."""
        assert self._task is not None
        until = float("inf") if timeout is None else self._world.now + timeout
        while not self._task.done and self._world.now < until:
            self._task.joined.append(self._world._running())
            self._world.wait(None if timeout is None else until - self._world.now)
