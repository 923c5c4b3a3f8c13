"""Where documents are safe once they were taken: a spool directory."""

import itertools
import logging
import math
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, TypeAlias

from bluesky_filestore.errors import SpoolError

from .belonging import Belonging
from .database import (
    BUSY_SECONDS,
    FILE_NAME,
    LONGEST_BUSY_SECONDS,
    connect,
    database_errors,
    identity,
    is_busy,
    is_damage,
    not_taken,
    not_writable,
    open_or_make,
    put_aside,
    transaction,
)
from .encoding import encode
from .lease import Lease, forget_source, register_producer

__all__ = ["Durability", "Store"]

_logger = logging.getLogger(__name__)

Durability: TypeAlias = Literal["normal", "full"]
"""``"normal"``: on the disk within a second, and at each stop document; ``"full"``: before a call returns.

Neither holds while another process keeps the database locked: documents are then in memory until it lets go.
"""

_SYNC_SECONDS, _PAUSE_SECONDS, _OPENING_SECONDS = 1.0, 0.02, 5.0
_CHECKPOINT_BYTES = 16_000_000
_REFERENCES = ("uid", "run_start", "descriptor", "resource")
_INSERT = "INSERT INTO documents (producer, run, name, received, body) VALUES (?, ?, ?, ?, ?)"


class Store:
    """The writing end of a spool: what one process puts into it.

    Parameters
    ----------
    directory : Path
        Made if it is not there; several processes may write into one.
    durability : {"normal", "full"}
        When a document is safe from a power failure. From a killed process it is as soon as it was taken, but while
        another process keeps the database locked.
    source : str
        Where documents come from, if this process only passes them on: the next one goes on with their runs.

    Raises
    ------
    SpoolError
        If the directory cannot be used, or another process passes on what comes from there.
    """

    def __init__(self, directory: Path, *, durability: Durability = "normal", source: str = "") -> None:
        self.directory, self._source, self._durability = directory, source, durability
        self.documents = 0
        """How many documents were taken."""
        self._unsaved: deque[tuple[str, Mapping[str, Any], bytes, float]] = deque()
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._taken = itertools.count(1)
        self._trouble: sqlite3.DatabaseError | SpoolError | None = None
        self._busy_since: float | None = None
        self._dirty = self._closing = self._has_refused = False
        self._process = os.getpid()
        self._wal_descriptors: list[int] = []
        self._open()
        self._belonging = Belonging.restored(self._connection, self.producer)
        self._identity = identity(self.directory)
        """Which file the database is; None while there is none, because another one could not be opened."""
        self._keeper = threading.Thread(target=self._keep, name="spool-keeper", daemon=True)
        self._keeper.start()

    @property
    def is_ours(self) -> bool:
        """Whether it belongs to this process, and not to one from which this one was forked."""
        return os.getpid() == self._process

    @property
    def unsaved(self) -> int:
        """How many documents are in memory only, because the disk does not take them."""
        return len(self._unsaved)

    @property
    def error(self) -> SpoolError | None:
        """Why documents wait in memory, if they do for longer than somebody else may have the database."""
        return None if self._trouble is None else self._why(self._trouble)

    @property
    def open_runs(self) -> tuple[str, ...]:
        """The runs that were started and not stopped yet, by uid."""
        return self._belonging.open_runs

    def append(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document.

        Raises
        ------
        SpoolError
            If the disk does not take it. It is kept in memory then, and put on the disk with later ones. So it is, and
            no error, while somebody else has the database, for up to five seconds. Nothing is taken by a writer that
            is closed, or in a process that was forked from its own.
        """
        if self._closing:
            raise self._refusal("is closed; make a new one")
        if not self.is_ours:
            why = f"belongs to process {self._process}, from which this one was forked; make a new one here"
            raise self._refusal(why)
        body, received = encode(doc), time.time()
        self.documents = next(self._taken)
        began = time.monotonic()
        if not self._lock.acquire(timeout=BUSY_SECONDS):
            # Whoever has it is at the ones before.
            self._keep_in_memory(name, doc, body, received)
            self._wake.set()
            return
        try:
            if self._unsaved:
                # The order is part of what is kept.
                self._keep_in_memory(name, doc, body, received)
                self._save_unsaved(until=began + BUSY_SECONDS)
                return
            try:
                self._insert(name, doc, body, received)
            except (sqlite3.DatabaseError, SpoolError) as error:
                self._keep_in_memory(name, doc, body, received)
                self._failed(error)
                if not is_busy(error):
                    self._save_unsaved(until=began + BUSY_SECONDS)
            if name == "stop":
                self._sync()
        finally:
            self._lock.release()
            if self._unsaved and self._trouble is None:
                self._wake.set()

    def save(self) -> None:
        """Put on the disk what is in memory, if it takes it now; raises as `append` does."""
        while self._unsaved and not self._closing:
            with self._lock:
                self._save_unsaved()
            if self._unsaved:
                time.sleep(_PAUSE_SECONDS)

    def make_safe(self) -> bool:
        """Put all that was taken on the disk; whether it is safe from a power failure. Raises as `append` does."""
        self.save()
        return self._sync()

    def end_source(self) -> None:
        """Nothing more comes from the source, ever: runs that are open are taken to be cut short when it is closed."""
        with database_errors(self.directory):
            forget_source(self._connection, self.producer)

    def close(self) -> None:
        """Put everything on the disk. A second call, or one in a forked process, does nothing.

        Raises
        ------
        SpoolError
            If the disk does not take what is in memory; what it was is said in the error.
        """
        if self._closing or not self.is_ours:
            return
        self._closing = True
        self._wake.set()
        self._keeper.join()
        with self._lock:
            try:
                while self._unsaved:
                    self._save_unsaved()
                    time.sleep(_PAUSE_SECONDS if self._unsaved else 0)
            finally:
                self._sync()
                for descriptor in self._wal_descriptors:
                    os.close(descriptor)
                self._connection.close()
                self._alive.remove()

    def _open(self, patience: float = _OPENING_SECONDS) -> None:
        self._connection = open_or_make(self.directory, patience)
        self._alive = Lease(self.directory / "producer.lock")
        if self._durability == "full":
            self._connection.execute("PRAGMA synchronous = FULL")
        try:
            with transaction(self._connection):
                # Before anybody can see that there is such a producer, and take it for dead.
                self.producer, self._alive = register_producer(self._connection, self.directory, self._source)
            self._wal = os.open(self.directory / f"{FILE_NAME}-wal", os.O_RDWR | os.O_CLOEXEC)
            self._wal_descriptors.append(self._wal)
        except (sqlite3.Error, OSError) as error:
            self._connection.close()
            self._alive.remove()
            raise not_writable(self.directory, error) from error

    def _keep_in_memory(self, name: str, doc: Mapping[str, Any], body: bytes, received: float) -> None:
        about = {entry: doc[entry] for entry in _REFERENCES if entry in doc}
        self._unsaved.append((name, about, body, received))

    def _insert(self, name: str, doc: Mapping[str, Any], body: bytes, received: float) -> None:
        if name in ("start", "stop"):
            self._insert_end(name, doc, body, received)
        else:
            run = self._belonging.run_of(name, doc)
            self._connection.execute(_INSERT, (self.producer, run, name, received, body))
        self._dirty = True

    def _insert_end(self, name: str, doc: Mapping[str, Any], body: bytes, received: float) -> None:
        """A document that begins or ends a run."""
        self._follow()
        uid = str(doc.get("uid" if name == "start" else "run_start", ""))
        with transaction(self._connection):
            if name == "start":
                (run,) = self._connection.execute(
                    "INSERT INTO runs (uid, producer, first, started) VALUES (?, ?, 0, ?) "
                    "ON CONFLICT DO UPDATE SET uid = uid RETURNING id",
                    (uid, self.producer, received),
                ).fetchone()
            else:
                run = self._belonging.run_of(name, doc)
            number = self._connection.execute(_INSERT, (self.producer, run, name, received, body)).lastrowid
            if name == "start":
                self._connection.execute("UPDATE runs SET first = ? WHERE id = ? AND first = 0", (number, run))
            else:
                self._connection.execute("UPDATE runs SET stopped = ? WHERE id = ?", (received, run))
        if name == "start":
            self._belonging.start(uid, run)
        else:
            self._belonging.stop(uid)

    def _save_unsaved(self, *, until: float = math.inf) -> None:
        """Put on the disk what is in memory, for as long as it takes it, or until a time.

        Somebody else who has the database is not waited for: nobody shall have to wait for us, who have the lock.
        """
        try:
            if self._identity is None:
                self._reopen()
            self._connection.execute("PRAGMA busy_timeout = 0")
            try:
                while self._unsaved:
                    self._insert(*self._unsaved[0])
                    self._unsaved.popleft()
                    self._busy_since = None
                    if time.monotonic() > until:
                        return
            finally:
                self._connection.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
        except (sqlite3.DatabaseError, SpoolError) as error:
            self._failed(error)
            if self._trouble is not None:
                raise self._why(self._trouble) from error
            return
        self._busy_since = None
        if self._trouble is not None:
            _logger.warning("The spool in %s takes documents again; nothing was lost.", self.directory)
            self._trouble = None

    def _failed(self, error: sqlite3.DatabaseError | SpoolError) -> None:
        """Go on in a new database if ours is damaged; else remember why nothing is taken, if that lasts."""
        if is_busy(error):
            self._busy_since = self._busy_since or time.monotonic()
            if time.monotonic() - self._busy_since < LONGEST_BUSY_SECONDS:
                return
        elif isinstance(error, sqlite3.DatabaseError) and is_damage(error):
            try:
                reason = f"The spool database in {self.directory} is damaged ({error})"
                put_aside(self.directory, self._identity, reason)
                self._reopen()
            except SpoolError as another:
                error = another
            else:
                return
        if self._trouble is None:
            # How many they are would not be true for long.
            _logger.error("%s", self._why(error, "documents"))
        self._trouble = error

    def _follow(self) -> None:
        """Go on where others read, if one of them has put our database aside."""
        if self._identity is not None and identity(self.directory) != self._identity:
            self._reopen()

    def _reopen(self) -> None:
        # Until all of this has worked, it is tried again with each document.
        self._identity = None
        self._connection.close()
        self._alive.remove()
        self._open(BUSY_SECONDS)
        # What came before of the runs that are open is in the other file: the rest alone must not be taken for all.
        with database_errors(self.directory), transaction(self._connection):
            self._belonging.begin_broken(self._connection, self.producer)
        self._identity = identity(self.directory)

    def _refusal(self, why: str) -> SpoolError:
        """Why documents are not even kept in memory; said once in the log, too."""
        refusal = SpoolError(f"the writer to the spool in {self.directory} {why}. The document is lost.")
        if not self._has_refused:
            _logger.error("%s", refusal)
            self._has_refused = True
        return refusal

    def _why(self, error: sqlite3.Error | SpoolError, what: str = "") -> SpoolError:
        return not_taken(self.directory, error, f"{what or len(self._unsaved)} wait in memory")

    def _sync(self) -> bool:
        self._dirty = False
        try:
            os.fsync(self._wal)
        except OSError as error:
            _logger.error("The spool in %s cannot be put on the disk: %s.", self.directory, error.strerror)
            return False
        return True

    def _keep(self) -> None:
        """Put on the disk what was taken, once a second, and keep the log short; nobody has to wait for it."""
        while not self._closing:
            # What waits for somebody else to be done with the database goes as soon as that is.
            self._wake.wait(_PAUSE_SECONDS if self._unsaved and self._trouble is None else _SYNC_SECONDS)
            self._wake.clear()
            try:
                with self._lock:
                    self._follow()
                    if self._unsaved and not self._closing:
                        self._save_unsaved(until=time.monotonic() + _PAUSE_SECONDS)
                if self._dirty:
                    self._sync()
                if os.fstat(self._wal).st_size > _CHECKPOINT_BYTES:
                    with closing(connect(self.directory)) as connection:
                        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            except (SpoolError, sqlite3.Error, OSError) as error:
                # It is tried again in a second; whoever puts documents in has been told what it means.
                _logger.debug("The spool in %s: %s", self.directory, error)
