"""A thread that delivers what is in a spool to one catalog, for as long as that takes.

=============  ============================================  ==========================================================
state          it is so while                                a round, every `interval` or when it is woken
=============  ============================================  ==========================================================
watches        another uploader has the lease                tries to get it, and looks for the runs that are `_awaited`
delivers       it has the lease: `delivers`                  hands on what came, and sees to files, and to old runs
away           the catalog does not take it: `error`         asks whether it is back, after growing pauses
in trouble     the spool, or we ourselves, fail: `trouble`   takes lease, ledger and conveyor anew, after growing pauses
=============  ============================================  ==========================================================

Of all uploaders of one spool and catalog one delivers; another takes its place when it ends. The thread alone has
`_ledger`, `_lease` and `_conveyor`, which come and go together, and what is about its rounds (`_wait`, `_look`,
`_next_...`, `_said`). What others read it replaces as a whole; `rounds` changes under `_news`. `error` is set by a
question, too (`CatalogHealth`).
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from math import inf
from pathlib import Path

from bluesky_filestore.errors import CatalogDownError, CatalogError, SpoolDamagedError, SpoolError
from bluesky_filestore.logs import get_logger
from bluesky_filestore.operations.operations import Catalog
from bluesky_filestore.spool.database import open_or_make
from bluesky_filestore.spool.entries import READABLE, Entry
from bluesky_filestore.spool.lease import Lease
from bluesky_filestore.spool.ledger import Ledger
from bluesky_filestore.spool.pruning import prune

from .catalog_names import recognise
from .conveyor import Conveyor
from .health import CatalogHealth, Listener
from .problems import Problems
from .readable_runs import ReadableRuns
from .settings import AS_USUAL, DeliverySettings
from .webhook import Sender
from .yielding import small_slices

__all__ = ["POLL_SECONDS", "Uploader"]

_logger = get_logger(__name__)
_FIRST_WAIT, _LONGEST_WAIT, _FIRST_LOOK, _SLOWEST_LOOK = 0.5, 60.0, 0.05, 5.0
_HOUSEKEEPING_SECONDS, _PRUNING_SECONDS, POLL_SECONDS = 5.0, 0.5, 0.05


class Uploader:
    """Delivers what is in a spool to one catalog, in a thread of its own.

    Parameters
    ----------
    directory : Path
        The spool directory.
    catalog : Catalog
        Where its documents go.
    settings : DeliverySettings
        How its user wants it.
    """

    def __init__(self, directory: Path, catalog: Catalog, settings: DeliverySettings = AS_USUAL) -> None:
        self.catalog = catalog
        self.error: CatalogError | None = None
        """Why the catalog does not take documents, if it does not."""
        self.trouble = ""
        """Why nothing is delivered if the catalog is not to blame."""
        self.problems = Problems()
        """What went wrong with single documents or arrays."""
        self.readable = ReadableRuns()
        """The runs whose end the catalog has learned."""
        self.unsettled_runs: tuple[str, ...] = ()
        """The runs that ended with files missing or still being written, which are looked at again."""
        self.failing_runs: dict[str, str] = {}
        """The runs at which the catalog fails while it answers others, by uid, and at what; they are tried again."""
        self.silence = ""
        """Why a run was no longer waited for, if that is because nothing was heard of the catalog."""
        self.rounds = 0
        """How often the spool was looked through, with or without success."""
        self._directory = directory
        self._wake, self._news = threading.Event(), threading.Condition()
        self._closing = self._tries_again = self._was_down = False
        self._awaited = set[str]()
        self._ledger: Ledger | None = None
        self._lease: Lease | None = None
        self._conveyor: Conveyor | None = None
        self._look, self._wait, self._said = _FIRST_LOOK, _FIRST_WAIT, ""
        self._next_look = self._next_housekeeping = self._next_recognition = self._woken = 0.0
        self._health = CatalogHealth(catalog, self._notice)
        open_or_make(directory).close()  # One that is damaged is put aside here already.
        with closing(Ledger(directory)) as ledger:
            self._since = ledger.last_document()
            # Whoever resumes should we be killed has to know where documents go; a full disk is said with a round.
            with suppress(SpoolError):
                ledger.register_catalog(catalog.uri)
        self._sender = Sender(directory, settings)
        self._settings = self._sender.settings
        self._thread = threading.Thread(target=self._run, name="uploader", daemon=True)
        self.is_alive = self._thread.is_alive
        """Whether its thread runs, which ends when it is closed, and at no error."""
        self._thread.start()

    @property
    def delivers(self) -> bool:
        """Whether this uploader is the one that delivers."""
        return self._lease is not None and self._lease.held

    def wake(self, pause: float = 0.0) -> None:
        """Look now, but not if that was asked for less than a pause ago: who waits for rounds is woken by each."""
        if time.monotonic() >= self._woken + pause:
            self._woken, self._look, self._next_look = time.monotonic(), _FIRST_LOOK, 0.0
            self._wake.set()

    def close(self, timeout: float | None = None) -> None:
        """End after the request that is under way, and do not wait longer than so many seconds for that."""
        self._closing = True
        self._wake.set()
        self._thread.join(timeout)
        self._sender.close(timeout)

    def try_again(self) -> None:
        """Try, the next time, what the catalog has failed at, however long it was to wait."""
        self._tries_again = True
        self.wake()

    def look_around(self) -> None:
        """See, the next time, to what else is to be done: to the runs of writers that ended, and old ones."""
        self._next_housekeeping = 0.0

    def wait_until_readable(self, uid: str, timeout: float) -> bool:
        """Wait until a catalog that answers has learned the end of a run, for so many seconds at most."""
        self._awaited.add(uid)
        try:
            return self.wait_for(lambda: self._is_readable(uid), timeout, while_it_answers=True)
        finally:
            self._awaited.discard(uid)

    def wait_for(
        self, condition: Callable[[], bool], timeout: float = inf, *, after: int = -1, while_it_answers: bool = False
    ) -> bool:
        """Wait for something that the delivery brings about, but not while the catalog is away.

        Parameters
        ----------
        condition : callable
            Whether it is the case.
        timeout : float
            For how many seconds at most.
        after : int
            How many rounds must be over before it counts that the catalog is away, or the condition is looked at.
        while_it_answers : bool
            Whether to wait only while something is heard of the catalog: one that hangs may do so for a minute.
        """
        deadline, listener, self.silence = time.monotonic() + timeout, Listener(self._health), ""
        while True:
            is_over = not self._thread.is_alive()
            over = is_over or self.rounds > after
            if over and condition():
                return True
            now = time.monotonic()
            if now >= deadline or is_over or (over and (self.error is not None or self.trouble)):
                return False
            if not over:
                self._wake.set()
            with self._news:
                self._news.wait(min(POLL_SECONDS, deadline - now))
            if listener.hears_nothing(delivers=self.delivers) and while_it_answers:
                self.silence = listener.words
                return False

    def why_parked(self, uid: str) -> str:
        """Why a run is parked, or will be; empty if it is not."""
        return (self.delivers and self.problems.loss(uid)) or self.readable.why_parked(uid)

    def _is_readable(self, uid: str) -> bool:
        if uid not in self.readable and not self.delivers:
            # Another process delivers, or did: our thread, which may be kept waiting by the database, looks.
            self.wake(POLL_SECONDS)
            if not self._thread.is_alive():
                with closing(Ledger(self._directory)) as ledger:
                    self._look_for_awaited(ledger)
        return uid in self.readable

    def _look_for_awaited(self, ledger: Ledger) -> None:
        for uid in tuple(self._awaited):
            entries = ledger.entries(ledger.register_catalog(self.catalog.uri), uid=uid)
            self._remember({entry.uid: entry.why_parked for entry in entries if entry.state in READABLE})

    def _remember(self, readable: Mapping[str, str]) -> None:
        self.readable.add(readable)
        with self._news:
            self._news.notify_all()

    def _run(self) -> None:
        try:
            while not self._closing:
                self._wake.clear()
                self._wake.wait(self._round_and_pause())
        finally:
            self._let_go()

    def _round_and_pause(self) -> float:
        """Look through the spool once; how long to pause then."""
        began = time.monotonic()
        try:
            self._round()
        except (CatalogError, SpoolDamagedError) as error:
            try:
                if isinstance(error, CatalogError):
                    self._write_down_why(error)
                else:
                    self._put_aside(error)
            except OSError as another:
                self._in_trouble(str(another))
        except (sqlite3.Error, OSError) as error:
            self._in_trouble(f"The spool in {self._directory} cannot be read, which is tried again: {error}")
        except Exception as error:  # noqa: BLE001 - it is logged
            # Whatever we overlooked: what is in the spool is delivered from the beginning of its runs.
            words = f"What is in {self._directory} could not be delivered, which is tried again: {error!r}"
            self._in_trouble(words, exc_info=True)
        else:
            self._wait, self.trouble = _FIRST_WAIT, ""
            # A slow catalog gets more at once, hardly later, and has some peace between.
            pause = max(self._settings.interval / 2, self._settings.interval - (time.monotonic() - began))
            return min(pause, self._look) if self.unsettled_runs else pause
        finally:
            with self._news:
                self.rounds += 1
                self._news.notify_all()
        wait, self._wait = self._wait, min(2 * self._wait, _LONGEST_WAIT)
        return wait

    def _round(self) -> None:
        conveyor, ledger = self._take_up()
        if conveyor is None:
            if self.error is not None:
                # Another process delivers, and says how; what we met ourselves is over as soon as it is.
                self._health.check()
                self.error = None
            self._look_for_awaited(ledger)
            return
        if self._tries_again:
            conveyor.try_again()
            self._tries_again = False
        if self.error is not None or conveyor.has_news:
            # Asking costs a moment where Tiled's client would try for most of a minute.
            self._health.check()
            self._back(conveyor, ledger)
        if self._next_recognition <= time.monotonic():
            self._next_recognition = time.monotonic() + _HOUSEKEEPING_SECONDS
            if recognise(ledger, self._number, (self.catalog.uri, self.catalog.server_uri)):
                # Other runs are delivered now than were a moment ago.
                self._let_go()
                self.wake()
                return
        self._move(conveyor, ledger)
        self.unsettled_runs, self.failing_runs = conveyor.unsettled_runs, conveyor.failing_runs
        if self.unsettled_runs and time.monotonic() >= self._next_look:
            self._tell(conveyor.look_again(), conveyor)
            self._look = min(2 * self._look, _SLOWEST_LOOK)
            self._next_look = time.monotonic() + self._look
        if time.monotonic() >= self._next_housekeeping:
            conveyor.look_around()
            prune(ledger, self._settings.keep, seconds=_PRUNING_SECONDS)
            self._next_housekeeping = time.monotonic() + _HOUSEKEEPING_SECONDS
            # Of runs that were cut short the rest is written, too, before a writer that is closed may end.
            self._move(conveyor, ledger)

    def _move(self, conveyor: Conveyor, ledger: Ledger) -> None:
        more = conveyor.has_news
        while more and not self._closing:
            with small_slices():
                readable, more = conveyor.move()
            self._back(conveyor, ledger)
            self._tell(readable, conveyor)

    def _take_up(self) -> tuple[Conveyor | None, Ledger]:
        """The conveyor, if it is ours to move."""
        if self._ledger is not None and not self._ledger.is_current:
            self._let_go()  # What is damaged was put aside, and a new one begun.
        if self._ledger is None:
            self._ledger = Ledger(self._directory)
            self._since = min(self._since, self._ledger.last_document())
            self._number = self._ledger.register_catalog(self.catalog.uri)
            self._lease = Lease(self._ledger.lease(self._number))
        if self._lease is None or not self._lease.take():
            return None, self._ledger
        if self._ledger.known_catalog(self.catalog.uri) != self._number:
            self._let_go()  # It was renamed or forgotten, and is known anew.
            return self._take_up()
        if self._conveyor is None:
            _, self._said = self._ledger.catalogs()[self._number]
            delivery = (self.catalog, self.problems, self._health, self._settings)
            self._conveyor = Conveyor(self._ledger, *delivery, since=self._since)
        return self._conveyor, self._ledger

    def _in_trouble(self, words: str, *, exc_info: bool = False) -> None:
        if words != self.trouble:
            _logger.error("%s", words, exc_info=exc_info)
        self.trouble = words
        self._let_go()

    def _put_aside(self, error: SpoolDamagedError) -> None:
        if self._ledger is not None:
            self._ledger.put_aside(str(error))
        else:
            open_or_make(self._directory).close()
        self._let_go()

    def _let_go(self) -> None:
        self._conveyor = None
        if self._lease is not None:
            self._lease.give_up()
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None

    def _tell(self, readable: Iterable[Entry], conveyor: Conveyor) -> None:
        self.unsettled_runs = conveyor.unsettled_runs
        if known := {entry.uid: entry.reason for entry in readable}:
            # What is missing now is looked for soon.
            self._look, self._next_look = _FIRST_LOOK, 0.0
        self._remember(known)
        self._settings.on_readable(self.catalog, tuple(known))

    def _notice(self, error: CatalogError) -> None:
        if self.error is None:
            _logger.warning("The catalog takes no documents, they are kept in %s: %s", self._directory, error)
        with self._news:
            self.error, self._was_down = error, self._was_down or isinstance(error, CatalogDownError)
            self._news.notify_all()

    def _write_down_why(self, error: CatalogError) -> None:
        self._notice(error)
        if self._ledger is not None and self.delivers:
            self._said = str(error)
            self._ledger.say(self._number, self._said)

    def _back(self, conveyor: Conveyor, ledger: Ledger) -> None:
        if self.error is not None:
            if self._was_down:
                conveyor.begin_again()
            _logger.warning("The catalog at %s takes documents again.", self.catalog.uri)
            self.error, self._was_down = None, False
        if self._said:
            ledger.say(self._number, "")
            self._said = ""
