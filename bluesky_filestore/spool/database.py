"""The database of a spool directory: opened, made, refused or put aside.

SQLite in WAL mode: what is committed survives a killed process, several processes may write, and who reads does not
hold up who writes (https://www.sqlite.org/wal.html).
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bluesky_filestore.errors import SpoolDamagedError, SpoolError
from bluesky_filestore.logs import get_logger
from bluesky_filestore.private import make_private_directory, make_private_file, open_private_file
from bluesky_filestore.visible import storable

from .forking import no_fork

__all__ = [
    "BACKSTOP_PAGES",
    "BUSY_SECONDS",
    "FILE_NAME",
    "LONGEST_BUSY_SECONDS",
    "as_stored",
    "ascending",
    "connect",
    "database_errors",
    "identity",
    "is_busy",
    "is_damage",
    "is_gone",
    "not_taken",
    "not_writable",
    "open_or_make",
    "put_aside",
    "transaction",
]

_logger = get_logger(__name__)

FILE_NAME = "spool.db"
_VERSION = 1
_APPLICATION = 0x62_66_73_70
BUSY_SECONDS = 0.025
"""How long a connection waits for others: longer than most of our transactions, and not to be felt by a plan."""

LONGEST_BUSY_SECONDS = 5.0
"""For how long others may have it without anybody being told."""

_OPENING_SECONDS, _RETRY_SECONDS = 5.0, 0.01
BACKSTOP_PAGES = 65_536
"""How long the log may become before whoever reads folds it in; the keeper of a store does so long before."""

_SCHEMA = """
CREATE TABLE producers (
    id INTEGER PRIMARY KEY AUTOINCREMENT, host TEXT NOT NULL, process INTEGER NOT NULL, started REAL NOT NULL
);
CREATE TABLE runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, uid TEXT NOT NULL, producer INTEGER NOT NULL, first INTEGER NOT NULL,
    started REAL NOT NULL, stopped REAL, fault TEXT NOT NULL DEFAULT '', UNIQUE (uid, producer)
);
CREATE TABLE documents (
    id INTEGER PRIMARY KEY, producer INTEGER NOT NULL, run INTEGER, name TEXT NOT NULL, received REAL NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX documents_of_run ON documents (run);
CREATE INDEX resources_of_producer ON documents (producer, id) WHERE name IN ('resource', 'stream_resource');
CREATE TABLE catalogs (
    id INTEGER PRIMARY KEY, uri TEXT NOT NULL UNIQUE, error TEXT NOT NULL DEFAULT '', changed REAL
);
CREATE TABLE deliveries (
    run INTEGER NOT NULL, catalog INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
    documents INTEGER NOT NULL DEFAULT 0, changed REAL NOT NULL, PRIMARY KEY (run, catalog)
) WITHOUT ROWID;
"""


def open_or_make(directory: Path, patience: float = _OPENING_SECONDS) -> sqlite3.Connection:
    """The database of a spool directory, made if there is none. A damaged one is put aside, and a new one begun.

    For how many seconds others are waited for meanwhile is said by `patience`.

    Raises
    ------
    SpoolError
        If the directory cannot be made or written to, or the database is of a newer version of this package.
    """
    try:
        make_private_directory(directory)
    except OSError as error:
        raise SpoolError(
            f"the spool directory {directory} cannot be made ({error.strerror}); expected one that this user may write "
            f"to."
        ) from error
    found = identity(directory)
    try:
        return connect(directory, patience)
    except SpoolDamagedError as error:
        put_aside(directory, found, str(error))
        return connect(directory, patience)


def identity(directory: Path) -> tuple[int, int] | None:
    """Which file the database of a spool directory is, whatever its name; None if there is none."""
    try:
        found = (directory / FILE_NAME).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def connect(directory: Path, patience: float = _OPENING_SECONDS) -> sqlite3.Connection:
    """A connection to the database of a spool directory, which is made if there is none.

    Raises
    ------
    SpoolDamagedError
        If it is no database, or broken.
    SpoolError
        If it cannot be used for another reason.
    """
    path = directory / FILE_NAME
    with database_errors(directory):
        make_private_file(path, shares_owner=True)
        connection = sqlite3.connect(path, timeout=patience, isolation_level=None, check_same_thread=False)
        try:
            _prepare(connection, directory)
            connection.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def database_errors(directory: Path) -> Iterator[None]:
    """Say what it means for a spool that SQLite, or the disk, raises an error; raises as `connect` does."""
    path = directory / FILE_NAME
    try:
        yield
    except SpoolError:
        raise
    except UnicodeDecodeError as error:
        raise SpoolDamagedError(f"the spool database {path} is damaged ({error})") from error
    except (sqlite3.DatabaseError, OSError) as error:
        if isinstance(error, sqlite3.DatabaseError) and is_damage(error):
            raise SpoolDamagedError(f"the spool database {path} is damaged ({error})") from error
        raise SpoolError(
            f"the spool database {path} cannot be used ({error}); expected a directory on a local disk that this user "
            f"may write to, with room on it."
        ) from error


def as_stored(values: Iterable[Any]) -> tuple[Any, ...]:
    """Values as the database has them: SQLite takes no text that is no UTF-8."""
    return tuple(storable(value) if isinstance(value, str) else value for value in values)


def ascending(rows: Iterable[tuple[Any, ...]], number: int, directory: Path) -> Iterator[tuple[Any, ...]]:
    """Rows that begin with a number which is greater than `number`, and than that of the row before.

    Whoever asks for what follows the last row of a damaged database might get the same rows again, for ever.

    Raises
    ------
    SpoolDamagedError
        If one is not.
    """
    for row in rows:
        if row[0] <= number:
            raise SpoolDamagedError(
                f"the spool database {directory / FILE_NAME} is damaged (row {row[0]} comes after {number})"
            )
        number = row[0]
        yield row


def _prepare(connection: sqlite3.Connection, directory: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > _VERSION:
        raise SpoolError(
            f"the spool in {directory} is of version {version}, written by a newer bluesky_filestore; expected "
            f"{_VERSION}. Upgrade this one, or choose another directory with spool=."
        )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    # Whoever puts in documents has no time for that.
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    if version == 0:
        _make(connection)
    connection.execute("SELECT max(id) FROM documents").fetchone()


def _make(connection: sqlite3.Connection) -> None:
    with transaction(connection):
        # Another process may have made it while we waited.
        if connection.execute("PRAGMA user_version").fetchone() == (0,):
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {_VERSION}")
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error says that the database itself is broken, not that it cannot be reached or is full."""
    return getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or (
        getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CORRUPT
    )


def is_busy(error: Exception) -> bool:
    """Whether an error, of SQLite or in our words, says that somebody else has the database just now."""
    code = getattr(error if isinstance(error, sqlite3.Error) else error.__cause__, "sqlite_errorcode", 0)
    return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def not_writable(directory: Path, error: sqlite3.Error | OSError) -> SpoolError:
    """What it means that nobody can begin to put in documents."""
    if isinstance(error, SpoolError):
        return error
    return SpoolError(
        f"the spool directory {directory} cannot be written to ({error}); expected one on a local disk with room on "
        f"it, that this user may write to."
    )


def not_taken(directory: Path, error: sqlite3.Error | SpoolError, lost: str) -> SpoolError:
    """What it means for whoever puts in documents that the database does not take them."""
    if is_busy(error):
        return SpoolError(
            f"the spool in {directory} has been in other hands for more than {LONGEST_BUSY_SECONDS:g} s ({error}); "
            f"{lost} and would be lost with this process. End the program that keeps its {FILE_NAME} locked."
        )
    return SpoolError(
        f"the spool in {directory} does not take documents ({error}); {lost} and would be lost with this process. Make "
        f"room on the disk, or give it another directory with spool=."
    )


def put_aside(directory: Path, damaged: tuple[int, int] | None, reason: str) -> None:
    """Move a damaged database out of the way, and say so; what it holds may still be had out of it by hand.

    Parameters
    ----------
    directory : Path
        The spool directory.
    damaged : tuple of int, int
        Which file is damaged, as of `identity`: of several processes that find it so, one moves it.
    reason : str
        What is wrong with it.

    Raises
    ------
    SpoolError
        If it cannot be moved.
    """
    try:
        with _alone(directory):
            if damaged is not None and identity(directory) == damaged:
                _move_aside(directory, reason)
    except OSError as error:
        raise SpoolError(
            f"{reason}, and cannot be put aside ({error.strerror}); expected a directory that this user may write to."
        ) from error


def is_gone(directory: Path, which: tuple[int, int] | None) -> bool:
    """Whether a database, as of `identity`, is neither in its place nor where damaged ones are put aside."""
    try:
        (directory / FILE_NAME).stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError:
        # It may be there: its disk does not answer, say.
        return False
    return which not in map(identity, (directory, *directory.glob("damaged-*")))


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    while True:
        with no_fork:
            descriptor = open_private_file(directory / "aside.lock")
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                yield
                return
            finally:
                os.close(descriptor)
        time.sleep(_RETRY_SECONDS)


def _move_aside(directory: Path, reason: str) -> None:
    aside = directory / f"damaged-{time.strftime('%Y%m%d-%H%M%S')}"
    number = 0
    while aside.exists():
        number += 1
        aside = aside.with_name(f"{aside.name.partition('.')[0]}.{number}")
    make_private_directory(aside)
    # The log goes first: whoever opens a new database beside an old log destroys that.
    for part in ("-wal", "-shm", ""):
        file = directory / f"{FILE_NAME}{part}"
        if file.exists():
            file.rename(aside / file.name)
    _logger.error(
        "%s. It was moved to %s and a new one was begun: runs that were not in the catalog yet have to be taken out of "
        "it by hand (sqlite3's .recover).",
        reason,
        aside,
    )


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing of what is executed inside."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
