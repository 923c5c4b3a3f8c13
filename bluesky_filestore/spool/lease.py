"""Who may do a thing that only one may do at a time: a lock that a dead process loses at once, whatever clocks say."""

import fcntl
import os
import platform
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from weakref import WeakSet

from bluesky_filestore.errors import SpoolError
from bluesky_filestore.private import open_private_file
from bluesky_filestore.visible import storable

from .forking import no_fork

__all__ = ["Lease", "forget_source", "is_source", "register_producer"]


_held: "WeakSet[Lease]" = WeakSet()
_PROBED_SECONDS, _PAUSE_SECONDS = 0.25, 0.001


class Lease:
    """A lock on a file, held by one holder among all processes of this machine.

    The operating system frees it when its holder ends, however that comes about.

    Parameters
    ----------
    path : Path
        The file; made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether it is ours."""
        return self._descriptor is not None

    def take(self) -> bool:
        """Take it if nobody else has it; whether it is ours now. Who only looks for the holder is waited for.

        Raises
        ------
        OSError
            If the file cannot be made or locked at all.
        """
        patient_until = time.monotonic() + _PROBED_SECONDS
        while not (self.held or self._try()):
            # Who looks for the holder has the file locked, too, for a moment.
            if self.holder() is not None or time.monotonic() >= patient_until:
                return False
            time.sleep(_PAUSE_SECONDS)
        return True

    def _try(self) -> bool:
        """Take it if that goes at once; whether it is ours now."""
        with no_fork:
            descriptor = open_private_file(self._path)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_ours = self._is_of(descriptor)
                if is_ours:
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, f"{os.getpid()}\n".encode())
            except BlockingIOError:
                os.close(descriptor)
                return False
            except BaseException:
                os.close(descriptor)
                raise
            if is_ours:
                self._descriptor = descriptor
                _held.add(self)
            else:
                # Whoever had it has removed the file meanwhile: a lock on what has no name keeps nobody out.
                os.close(descriptor)
            return is_ours

    def _is_of(self, descriptor: int) -> bool:
        """Whether an open file is the one that others find under the name."""
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except FileNotFoundError:
            return False

    def give_up(self) -> None:
        """Let others have it; harmless if it is not ours."""
        with no_fork:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
                _held.discard(self)

    def remove(self) -> None:
        """Give it up, with its file; does nothing if it is not ours."""
        if self.held:
            # While it is locked: once it is free it may be somebody else's. A file that stays does no harm.
            with suppress(OSError):
                self._path.unlink()
            self.give_up()

    def holder(self) -> int | None:
        """The process that has it, or None if nobody has."""
        if self.held:
            return os.getpid()
        with no_fork:
            try:
                descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                return None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = os.read(descriptor, 32).decode().strip()
                return int(text) if text.isdigit() else 0
            else:
                return None
            finally:
                os.close(descriptor)


_TABLE = "CREATE TABLE IF NOT EXISTS sources (name TEXT PRIMARY KEY, producer INTEGER NOT NULL)"


def register_producer(connection: sqlite3.Connection, directory: Path, source: str = "") -> tuple[int, Lease]:
    """Enter this process, inside a transaction, as one that puts in documents, under a number whose lease is its own.

    Parameters
    ----------
    connection : sqlite3.Connection
        To the database of the spool.
    directory : Path
        The spool directory.
    source : str
        Where the documents come from, if this process only passes them on: it goes on under the number of the one that
        did so before it, with the runs that are still open.

    Raises
    ------
    SpoolError
        If another process passes on what comes from there.
    OSError
        If no lease can be had at all.
    """
    me, source = (storable(platform.node()), os.getpid(), time.time()), storable(source)
    if source:
        connection.execute(_TABLE)
        statement = "SELECT id FROM producers JOIN sources ON producer = id WHERE name = ?"
        for (number,) in connection.execute(statement, (source,)).fetchall():
            lease = Lease(directory / f"producer-{number}.lock")
            if not lease.take():
                raise SpoolError(
                    f"{_named(lease.holder())} puts what comes from {source} into the spool in {directory} already; "
                    f"end it first, or use another spool."
                )
            connection.execute("UPDATE producers SET host = ?, process = ?, started = ? WHERE id = ?", (*me, number))
            return int(number), lease
    while True:
        (number,) = connection.execute(
            "INSERT INTO producers (host, process, started) VALUES (?, ?, ?) RETURNING id", me
        ).fetchone()
        lease = Lease(directory / f"producer-{number}.lock")
        if lease.take():
            if source:
                connection.execute("INSERT OR REPLACE INTO sources VALUES (?, ?)", (source, number))
            return int(number), lease
        # It is somebody's who has it from a database that was put aside, and has not noticed yet.
        connection.execute("DELETE FROM producers WHERE id = ?", (number,))


def _named(process: int | None) -> str:
    # It may have ended since, or be about to say its number.
    return f"process {process}" if process else "another process"


def is_source(connection: sqlite3.Connection, producer: int) -> bool:
    """Whether documents of a producer come from a source, which outlives the processes that pass them on."""
    # Spools of earlier versions have no such table.
    has_table = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'sources'").fetchone()
    return bool(has_table and connection.execute("SELECT 1 FROM sources WHERE producer = ?", (producer,)).fetchone())


def forget_source(connection: sqlite3.Connection, producer: int) -> None:
    """Have the runs of a producer end with its process."""
    connection.execute("DELETE FROM sources WHERE producer = ?", (producer,))


def _leave_to_parent() -> None:
    """A forked child has what its parent has open, and would hold a lock for as long as it lives itself."""
    for lease in list(_held):
        lease.give_up()


os.register_at_fork(after_in_child=_leave_to_parent)
