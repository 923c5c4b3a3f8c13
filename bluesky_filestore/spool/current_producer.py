"""Who puts documents into the database that others read now: one that was put aside, or is gone, is left for a new one.

=================================  ===================================================================================
the database under its name is     then
=================================  ===================================================================================
ours                               documents go into it
another, and ours was put aside    it is gone on with; the open runs begin anew there, broken
another or none, and ours nowhere  the same, and it is said which runs are lost with it: somebody removed or moved it
one that cannot be had or made     `identity` is None, and it is tried again with each document
=================================  ===================================================================================
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from bluesky_filestore.logs import get_logger

from .belonging import Belonging
from .database import BUSY_SECONDS, connect, identity, is_gone, put_aside
from .losses import Losses
from .producer import Encoded, Producer

__all__ = ["CurrentProducer"]

_logger = get_logger(__name__)
_OPENING_SECONDS, _CHECKPOINT_BYTES = 5.0, 16_000_000
_MOST_NAMED, _LENGTH = 5, 8
_UNDELIVERED = (
    "SELECT uid FROM runs WHERE producer = ? AND stopped IS NOT NULL AND (SELECT count(*) FROM deliveries WHERE "
    "run = runs.id AND state = 'delivered') < (SELECT max(1, count(*)) FROM catalogs) ORDER BY id"
)


class CurrentProducer:
    """The producer of one process, in whatever database is the current one; its user sees to it that calls do not meet.

    Parameters
    ----------
    directory : Path
        The spool directory.
    source : str
        Where documents come from, if this process only passes them on.
    is_full : bool
        Whether a document is safe from a power failure when `insert` returns.
    losses : Losses
        Where it is said what is lost.

    Raises
    ------
    SpoolError
        If the directory cannot be used, or another process passes on what comes from there.
    """

    def __init__(self, directory: Path, source: str, losses: Losses, *, is_full: bool) -> None:
        self._directory, self._source, self._is_full, self._losses = directory, source, is_full, losses
        self.producer = self._new(_OPENING_SECONDS)
        self.is_dirty = False
        """Whether documents came since `sync`."""
        self.identity = identity(directory)
        """Which file the database is; None while there is none, because another one could not be opened."""
        self._wals = [self.producer.wal]
        self._said: tuple[int, int] | None = None

    def insert(self, stretch: Sequence[Encoded]) -> list[str]:
        """Put in documents, as `Producer.insert`; it raises that, or a `SpoolError` of why there is no database."""
        if stretch[0][0] in ("start", "stop"):
            self.follow()
        self.recover()
        lost = self.producer.insert(stretch)
        self.is_dirty = True
        return lost

    def follow(self) -> None:
        """Go on where others read, if our database is not there any more."""
        if self.identity is not None and identity(self._directory) != self.identity:
            self._reopen()

    def recover(self) -> None:
        """Have a database, if there was none."""
        if self.identity is None:
            self._reopen()

    def leave_damaged(self, reason: str) -> None:
        """Put the database aside, which is damaged, and go on in a new one."""
        put_aside(self._directory, self.identity, reason)
        self._reopen()

    @contextmanager
    def without_waiting(self) -> Iterator[None]:
        """Somebody else who has the database is not waited for inside."""
        self.recover()
        self.producer.connection.execute("PRAGMA busy_timeout = 0")
        try:
            yield
        finally:
            # The reason for which there is none now must not be hidden by another one.
            if self.identity is not None:
                self.producer.connection.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")

    def sync(self) -> bool:
        """Put on the disk what is in the database; whether that could be done. Another thread may do so at any time."""
        self.is_dirty = False
        try:
            os.fsync(self.producer.wal)
        except OSError as error:
            _logger.error("The spool in %s cannot be put on the disk: %s.", self._directory, error.strerror)
            return False
        return True

    def keep_log_short(self) -> None:
        """Fold the log into the database, if it is long; another thread may do so at any time."""
        if os.fstat(self.producer.wal).st_size > _CHECKPOINT_BYTES:
            with closing(connect(self._directory)) as connection:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Put nothing in any more."""
        for descriptor in self._wals:
            os.close(descriptor)
        self.producer.close()

    def say_if_gone(self) -> None:
        """Say, once, which runs are lost if somebody has removed the database: it is open here, and can be asked."""
        ours = self.identity
        if ours in (None, self._said) or not is_gone(self._directory, ours):
            return
        self._said = ours
        found: list[tuple[str]] | None = None
        try:
            found = self.producer.connection.execute(_UNDELIVERED, (self.producer.number,)).fetchall()
        except sqlite3.Error as error:
            how_many = f"nobody knows how many that had ended ({error})"
        else:
            how_many = f"{len(found)} that had ended"
        going_on = self.producer.belonging.open_runs
        words = f"The spool database in {self._directory} is gone: somebody has removed or moved it."
        if found == [] and not going_on:
            _logger.warning("%s All runs that this writer had put there were delivered.", words)
            return
        uids = [*(uid for (uid,) in found or ()), *going_on]
        named = ", ".join(uid[:_LENGTH] for uid in uids[:_MOST_NAMED])
        begun = f", and the beginning of {len(going_on)} that go on" if going_on else ""
        more = f" and {len(uids) - _MOST_NAMED} more" if len(uids) > _MOST_NAMED else ""
        self._losses.add(
            f"{words} With it went runs of this writer that are not known to be delivered: {how_many}{begun} "
            f"({named}{more}). If it was only moved, `bluesky-filestore resume` delivers them from where it is now."
        )

    def _new(self, patience: float, belonging: Belonging | None = None) -> Producer:
        return Producer(self._directory, self._source, is_full=self._is_full, patience=patience, belonging=belonging)

    def _reopen(self) -> None:
        self.say_if_gone()
        # Until all of this has worked, it is tried again with each document.
        self.identity = None
        self.producer.close()
        self.producer = self._new(BUSY_SECONDS, self.producer.belonging)
        self._wals.append(self.producer.wal)
        # What came before of the runs that are open is in the other file: the rest alone must not be taken for all.
        self.producer.begin_broken()
        self.identity = identity(self._directory)
