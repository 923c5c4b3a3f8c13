"""A thread that delivers what is in a spool to one catalog, for as long as that takes."""

import logging
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from math import inf
from pathlib import Path

from bluesky_filestore.errors import CatalogError, SpoolDamagedError, SpoolError
from bluesky_filestore.operations.operations import Catalog
from bluesky_filestore.spool.database import open_or_make
from bluesky_filestore.spool.entries import READABLE, Entry
from bluesky_filestore.spool.lease import Lease
from bluesky_filestore.spool.ledger import Ledger

from .catalog_names import recognise
from .conveyor import Conveyor
from .problems import Problems
from .yielding import small_slices

__all__ = ["Uploader"]

_logger = logging.getLogger(__name__)

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 60.0
_FIRST_LOOK, _SLOWEST_LOOK = 0.05, 5.0
_HOUSEKEEPING_SECONDS = 5.0
_PRUNING_SECONDS = 0.5
_ASK_AFTER, _ASK_AGAIN_AFTER = 0.1, 1.0
_POLL_SECONDS = 0.05
_REMEMBERED = 10_000


class Uploader:
    """Delivers what is in a spool to one catalog, in a thread of its own.

    Of all uploaders of one spool and catalog, in whatever process, one delivers at a time; another takes its place when
    it ends or dies.

    Parameters
    ----------
    directory : Path
        The spool directory.
    catalog : Catalog
        Where its documents go.
    interval : float
        After how many seconds documents are looked for.
    settle : float
        For how many seconds after a run's end its files are waited for, if some are missing or still being written.
    validate : bool
        Whether documents are checked against event-model's schemas.
    keep : float
        For how many seconds a delivered run stays in the spool.
    park_after : float
        For how many seconds a request is tried again at which the catalog fails while it answers others.
    """

    def __init__(
        self,
        directory: Path,
        catalog: Catalog,
        *,
        interval: float = 0.5,
        settle: float = 60.0,
        validate: bool = True,
        keep: float = 7 * 86_400.0,
        park_after: float = 60.0,
    ) -> None:
        self.catalog = catalog
        self.error: CatalogError | None = None
        """Why the catalog does not take documents, if it does not."""
        self.trouble = ""
        """Why nothing is delivered if the catalog is not to blame."""
        self.problems = Problems()
        """What went wrong with single documents or arrays."""
        self.unsettled_runs: tuple[str, ...] = ()
        """The runs that ended with files missing or still being written, which are looked at again."""
        self.failing_runs: dict[str, str] = {}
        """The runs at which the catalog fails while it answers others, by uid, and at what; they are tried again."""
        self.rounds = 0
        """How often the spool was looked through, with or without success."""
        self._directory, self._interval, self._keep = directory, interval, keep
        self._settle, self._validate, self._park_after = settle, validate, park_after
        self._wake, self._closing = threading.Event(), False
        self._news = threading.Condition()
        self._readable: OrderedDict[str, None] = OrderedDict()
        self._ledger: Ledger | None = None
        self._lease: Lease | None = None
        self._conveyor: Conveyor | None = None
        self._look, self._next_look, self._next_housekeeping = _FIRST_LOOK, 0.0, 0.0
        self._next_recognition = 0.0
        self._wait = _FIRST_WAIT
        self._said = ""
        self._question: threading.Thread | None = None
        self._tries_again = False
        # One that is damaged is put aside here already.
        open_or_make(directory).close()
        with closing(Ledger(directory)) as ledger:
            self._since = ledger.last_document()
            # Before the first document: whoever resumes should we be killed has to know where they are to go. If the
            # disk is full it is said with the first round.
            with suppress(SpoolError):
                ledger.catalog(catalog.uri)
        self._thread = threading.Thread(target=self._run, name="uploader", daemon=True)
        self._thread.start()

    @property
    def delivers(self) -> bool:
        """Whether this uploader is the one that delivers."""
        return self._lease is not None and self._lease.held

    def wake(self) -> None:
        """Look now, whatever was being waited for."""
        self._look, self._next_look = _FIRST_LOOK, 0.0
        self._wake.set()

    def close(self, timeout: float | None = None) -> None:
        """End after the request that is under way, and do not wait longer than so many seconds for that."""
        self._closing = True
        self._wake.set()
        self._thread.join(timeout)

    def try_again(self) -> None:
        """Try, the next time, what the catalog has failed at, however long it was to wait."""
        self._tries_again = True
        self.wake()

    def look_around(self) -> None:
        """See, the next time, to what else is to be done: to the runs of writers that ended, and old ones."""
        self._next_housekeeping = 0.0

    def wait_until_readable(self, uid: str, timeout: float) -> bool:
        """Wait until the catalog has learned the end of a run.

        Parameters
        ----------
        uid : str
            The run.
        timeout : float
            For how many seconds at most. It is not waited for while the catalog is away.
        """
        return self.wait_for(lambda: self._is_readable(uid), timeout)

    def wait_for(self, condition: Callable[[], bool], timeout: float = inf, *, after: int = -1) -> bool:
        """Wait for something that the delivery brings about, but not while the catalog is away.

        Parameters
        ----------
        condition : callable
            Whether it is the case.
        timeout : float
            For how many seconds at most.
        after : int
            How many rounds must be over before it counts that the catalog is away, or the condition is looked at.
        """
        deadline = time.monotonic() + timeout
        next_question = time.monotonic() + _ASK_AFTER
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
                self._news.wait(min(_POLL_SECONDS, deadline - now))
            if now >= next_question:
                # A request that is under way may be tried again for most of a minute before it fails.
                next_question = now + _ASK_AGAIN_AFTER
                self._ask_whether_it_answers()

    def _ask_whether_it_answers(self) -> None:
        """Ask in a thread of its own: whoever waits, waits for as long as it wants and not for an answer."""
        if self._question is None or not self._question.is_alive():
            self._question = threading.Thread(target=self._notice_silence, name="catalog-question", daemon=True)
            self._question.start()

    def _notice_silence(self) -> None:
        rounds = self.rounds
        try:
            self.catalog.check()
        except CatalogError as error:
            if self.rounds > rounds:
                # A round was over meanwhile, and knows better.
                return
            self._notice(error)
            with self._news:
                self._news.notify_all()

    def why_parked(self, uid: str) -> str:
        """Why a run is parked, or will be; empty if it is not."""
        if self.delivers:
            return self.problems.loss(uid)
        return next((entry.reason for entry in self._entries(uid) if entry.state == "parked"), "")

    def _is_readable(self, uid: str) -> bool:
        if self.delivers:
            return uid in self._readable
        # Another process delivers, or did.
        return any(entry.state in READABLE for entry in self._entries(uid))

    def _entries(self, uid: str) -> list[Entry]:
        with closing(Ledger(self._directory)) as ledger:
            return ledger.entries(ledger.catalog(self.catalog.uri), uid=uid)

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
        except CatalogError as error:
            self._away(error)
        except SpoolDamagedError as error:
            self._put_aside(error)
        except (sqlite3.Error, OSError) as error:
            self._in_trouble(f"The spool in {self._directory} cannot be read, which is tried again: {error}")
        except Exception as error:  # noqa: BLE001 - it is logged
            # Whatever we overlooked: what is in the spool is delivered from the beginning of its runs.
            words = f"What is in {self._directory} could not be delivered, which is tried again: {error!r}"
            self._in_trouble(words, exc_info=True)
        else:
            self._wait = _FIRST_WAIT
            self.trouble = ""
            self._told()
            # A slow catalog gets more at once, hardly later, and has some peace between.
            pause = max(self._interval / 2, self._interval - (time.monotonic() - began))
            return min(pause, self._look) if self.unsettled_runs else pause
        self._told()
        wait, self._wait = self._wait, min(2 * self._wait, _LONGEST_WAIT)
        return wait

    def _round(self) -> None:
        conveyor, ledger = self._take_up()
        if conveyor is None:
            if self.error is not None:
                # Another process delivers, and says how; what we met ourselves is over as soon as it is.
                self.catalog.check()
                self.error = None
            return
        if self._tries_again:
            self._tries_again = False
            conveyor.try_again()
        if self.error is not None or conveyor.has_news:
            # Asking costs a moment where Tiled's client would try for most of a minute.
            self.catalog.check()
            self._back(ledger)
        if self._next_recognition <= time.monotonic():
            self._next_recognition = time.monotonic() + _HOUSEKEEPING_SECONDS
            if recognise(ledger, self._number, (self.catalog.uri, self.catalog.own_uri)):
                # Other runs are delivered now than were a moment ago.
                self._let_go()
                self.wake()
                return
        self._move(conveyor, ledger)
        now = time.monotonic()
        self.unsettled_runs, self.failing_runs = conveyor.unsettled_runs, conveyor.failing_runs
        if self.unsettled_runs and now >= self._next_look:
            self._tell(conveyor.look_again(), conveyor)
            self._look = min(2 * self._look, _SLOWEST_LOOK)
            self._next_look = now + self._look
        if now >= self._next_housekeeping:
            conveyor.look_around()
            ledger.prune(self._keep, seconds=_PRUNING_SECONDS)
            self._next_housekeeping = now + _HOUSEKEEPING_SECONDS
            # Of runs that were cut short the rest is written, too, before a writer that is closed may end.
            self._move(conveyor, ledger)

    def _move(self, conveyor: Conveyor, ledger: Ledger) -> None:
        more = conveyor.has_news
        while more and not self._closing:
            with small_slices():
                readable, more = conveyor.move()
            self._back(ledger)
            self._tell(readable, conveyor)

    def _take_up(self) -> tuple[Conveyor | None, Ledger]:
        """The conveyor, if it is ours to move."""
        if self._ledger is not None and not self._ledger.is_current:
            # What is damaged was put aside, and a new one begun.
            self._let_go()
        if self._ledger is None:
            self._ledger = Ledger(self._directory)
            self._since = min(self._since, self._ledger.last_document())
            self._number = self._ledger.catalog(self.catalog.uri)
            _, self._said = self._ledger.catalogs()[self._number]
            self._lease = Lease(self._ledger.lease(self._number))
        if self._lease is None or not self._lease.take():
            return None, self._ledger
        if self._ledger.known_catalog(self.catalog.uri) != self._number:
            # It was renamed or forgotten, and is known anew.
            self._let_go()
            return self._take_up()
        if self._conveyor is None:
            self._conveyor = Conveyor(
                self._ledger,
                self.catalog,
                self.problems,
                since=self._since,
                settle=self._settle,
                validate=self._validate,
                park_after=self._park_after,
            )
        return self._conveyor, self._ledger

    def _in_trouble(self, words: str, *, exc_info: bool = False) -> None:
        if words != self.trouble:
            _logger.error("%s", words, exc_info=exc_info)
        self.trouble = words
        self._let_go()

    def _put_aside(self, error: SpoolDamagedError) -> None:
        try:
            if self._ledger is not None:
                self._ledger.put_aside(str(error))
            else:
                open_or_make(self._directory).close()
        except OSError as another:
            self._in_trouble(str(another))
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
        with self._news:
            for entry in readable:
                self._readable[entry.uid] = None
                # What is missing now is looked for soon.
                self._look, self._next_look = _FIRST_LOOK, 0.0
                if len(self._readable) > _REMEMBERED:
                    self._readable.popitem(last=False)
            self._news.notify_all()

    def _told(self) -> None:
        with self._news:
            self.rounds += 1
            self._news.notify_all()

    def _notice(self, error: CatalogError) -> None:
        if self.error is None:
            _logger.warning("The catalog takes no documents, they are kept in %s: %s", self._directory, error)
        self.error = error

    def _away(self, error: CatalogError) -> None:
        self._notice(error)
        if self._ledger is not None:
            self._said = str(error)
            self._ledger.say(self._number, self._said)

    def _back(self, ledger: Ledger) -> None:
        if self.error is not None:
            _logger.warning("The catalog at %s takes documents again.", self.catalog.uri)
            self.error = None
        if self._said:
            ledger.say(self._number, "")
            self._said = ""
