"""Where documents are safe once they were taken: a spool directory."""

import itertools
import math
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from bluesky_filestore.errors import SpoolError
from bluesky_filestore.logs import get_logger

from .current_producer import CurrentProducer
from .database import BUSY_SECONDS, LONGEST_BUSY_SECONDS, is_busy, is_damage, not_taken
from .encoding import encode
from .losses import Losses
from .measures import Measures
from .notes import NOTE
from .producer import Encoded, Producer, stretches

__all__ = ["Durability", "Store"]

_logger = get_logger(__name__)

Durability: TypeAlias = Literal["normal", "full"]
"""``"normal"``: on the disk within a second, and at each stop document; ``"full"``: before a call returns.

Neither holds while another process keeps the database locked: documents are then in memory until it lets go.
"""

_SYNC_SECONDS, _PAUSE_SECONDS = 1.0, 0.02
_REFERENCES = ("uid", "run_start", "descriptor", "resource")


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
        self.directory = directory
        self.documents = 0
        """How many documents were taken."""
        self.measures = Measures(directory)
        """What is counted here, written down by the thread that nobody waits for."""
        self.losses = Losses()
        """What is known to be lost."""
        self._unsaved: deque[Encoded] = deque()
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._taken = itertools.count(1)
        self._trouble: sqlite3.DatabaseError | SpoolError | None = None
        self._busy_since: float | None = None
        self._closing = self._has_refused = False
        self._process = os.getpid()
        self._current = CurrentProducer(directory, source, self.losses, is_full=durability == "full")
        self._keeper = threading.Thread(target=self._keep, name="spool-keeper", daemon=True)
        self._keeper.start()

    @property
    def is_ours(self) -> bool:
        """Whether it belongs to this process, and not to one from which this one was forked."""
        return os.getpid() == self._process

    @property
    def _producer(self) -> Producer:
        return self._current.producer

    @property
    def producer(self) -> int:
        """The number under which documents are put in."""
        return self._producer.number

    @property
    def unsaved(self) -> int:
        """How many documents are in memory only, because the disk does not take them."""
        return len(self._unsaved)

    @property
    def error(self) -> SpoolError | None:
        """Why documents wait in memory, if they do for longer than somebody else may have the database."""
        trouble = self._trouble
        return self._why(trouble) if trouble is not None and self._unsaved else None

    @property
    def open_runs(self) -> tuple[str, ...]:
        """The runs that were started and not stopped yet, by uid."""
        return self._producer.belonging.open_runs

    def append(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document.

        Raises
        ------
        SpoolError
            If the disk does not take it. It is kept in memory then, and put on the disk with later ones. So it is, and
            no error, while somebody else has the database, for up to five seconds. Nothing is taken by a writer that
            is closed, or in a process that was forked from its own, and no document of more than SQLite's 1e9 bytes.
            So is said, too, what is found to be lost of what came before.
        TypeError
            If it is no document at all.
        """
        if not isinstance(doc, Mapping):
            raise TypeError(f"a document is a mapping, and this is {type(doc).__name__}")
        self._take(((name, doc, self._encoded(name, doc), time.time()),))

    def append_all(self, documents: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Take documents that came together, which costs less than one by one; raises as `append`.

        A process that is killed meanwhile leaves the first of them. Nobody's plan waits for this: it may take longer.
        """
        if encoded := [(name, doc, self._encoded(name, doc), time.time()) for name, doc in documents]:
            self._take(encoded)

    def _encoded(self, name: str, doc: Mapping[str, Any]) -> bytes:
        if self._closing:
            raise self._refusal("is closed; make a new one")
        if os.getpid() != self._process:
            why = f"belongs to process {self._process}, from which this one was forked; make a new one here"
            raise self._refusal(why)
        body = encode(doc)
        if name != NOTE:
            self.documents = next(self._taken)
        return body

    def _take(self, documents: Sequence[Encoded]) -> None:
        began = time.monotonic()
        if not self._lock.acquire(timeout=BUSY_SECONDS):
            # Whoever has it is at the ones before.
            self._keep_in_memory(documents)
            self._wake.set()
            return
        lost = self.losses.count
        try:
            if self._unsaved:
                # The order is part of what is kept.
                self._keep_in_memory(documents)
                self._save_unsaved(until=began + BUSY_SECONDS)
            else:
                self._insert_all(documents, until=began + BUSY_SECONDS)
            if documents[-1][0] == "stop" or (len(documents) > 1 and any(name == "stop" for name, *_ in documents)):
                self._current.sync()
            self.losses.raise_last(lost)
        finally:
            self._lock.release()
            if self._unsaved and self._trouble is None:
                self._wake.set()

    def _insert_all(self, documents: Sequence[Encoded], *, until: float) -> None:
        done = 0
        try:
            for stretch in (documents,) if len(documents) == 1 else stretches(documents):
                self._insert(stretch)
                done += len(stretch)
        except (sqlite3.DatabaseError, SpoolError) as error:
            self._keep_in_memory(documents[done:])
            self._failed(error)
            if not is_busy(error):
                self._save_unsaved(until=until)

    def save(self) -> None:
        """Put on the disk what is in memory, if it takes it now; raises as `append` does, and once what is lost."""
        self._save()
        self.losses.raise_unsaid()

    def _save(self) -> None:
        if not self._closing:
            with self._lock:
                self._current.follow()
        while self._unsaved and not self._closing:
            with self._lock:
                self._save_unsaved()
            if self._unsaved:
                time.sleep(_PAUSE_SECONDS)

    def make_safe(self) -> bool:
        """Put all that was taken on the disk; whether it is safe from a power failure. Raises as `append` does."""
        self._save()
        return self._current.sync()

    def end_source(self) -> None:
        """Nothing more comes from the source, ever: runs that are open are taken to be cut short when it is closed."""
        self._producer.end_source()

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
                self._current.say_if_gone()
                while self._unsaved:
                    self._save_unsaved()
                    if self._unsaved:
                        time.sleep(_PAUSE_SECONDS)
            finally:
                self._current.sync()
                self.measures.save(at_once=True)
                self._current.close()

    def _keep_in_memory(self, documents: Iterable[Encoded]) -> None:
        for name, doc, body, received in documents:
            about = {entry: doc[entry] for entry in _REFERENCES if entry in doc}
            self._unsaved.append((name, about, body, received))

    def _insert(self, stretch: Sequence[Encoded]) -> None:
        try:
            lost = self._current.insert(stretch)
        except MemoryError as error:
            raise SpoolError("there is not enough memory for it") from error
        for words in lost:
            self.losses.add(f"The spool in {self.directory}: {words}")

    def _save_unsaved(self, *, until: float = math.inf) -> None:
        """Put on the disk what is in memory, for as long as it takes it, or until a time.

        Somebody else who has the database is not waited for: nobody shall have to wait for us, who have the lock.
        """
        try:
            with self._current.without_waiting():
                while self._unsaved:
                    self._insert((self._unsaved[0],))
                    self._unsaved.popleft()
                    self._busy_since = None
                    if self._unsaved and time.monotonic() > until:
                        return
        except (sqlite3.DatabaseError, SpoolError) as error:
            self._failed(error)
            # Who may wait tries again where others just have the database: what was in the way before may be over.
            is_waiting = until == math.inf and is_busy(error) and self._trouble is not error
            if self._trouble is not None and not is_waiting:
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
                self._current.leave_damaged(f"The spool database in {self.directory} is damaged ({error})")
            except SpoolError as another:
                error = another
            else:
                return
        if self._trouble is None:
            # How many they are would not be true for long.
            _logger.error("%s", self._why(error, "documents"))
        self._trouble = error

    def _refusal(self, why: str) -> SpoolError:
        """Why documents are not even kept in memory; said once in the log, too."""
        refusal = SpoolError(f"the writer to the spool in {self.directory} {why}. The document is lost.")
        if not self._has_refused:
            _logger.error("%s", refusal)
            self._has_refused = True
        return refusal

    def _why(self, error: sqlite3.Error | SpoolError, what: str = "") -> SpoolError:
        return not_taken(self.directory, error, f"{what or len(self._unsaved)} wait in memory")

    def _keep(self) -> None:
        """Put on the disk what was taken, once a second, and keep the log short; nobody has to wait for it."""
        overlooked = ""
        while not self._closing:
            # What waits for somebody else to be done with the database goes as soon as that is.
            self._wake.wait(_PAUSE_SECONDS if self._unsaved and self._trouble is None else _SYNC_SECONDS)
            self._wake.clear()
            try:
                self.measures.save()
                with self._lock:
                    self._current.follow()
                    if self._unsaved and not self._closing:
                        self._save_unsaved(until=time.monotonic() + _PAUSE_SECONDS)
                if self._current.is_dirty:
                    self._current.sync()
                self._current.keep_log_short()
            except (SpoolError, sqlite3.Error, OSError) as error:
                # It is tried again in a second; whoever puts documents in has been told what it means.
                _logger.debug("The spool in %s: %s", self.directory, error)
            except Exception as error:
                # Whatever we overlooked: what waits in memory waits for this thread.
                if repr(error) != overlooked:
                    overlooked = repr(error)
                    _logger.exception("The spool in %s is not seen to, which is tried again.", self.directory)
