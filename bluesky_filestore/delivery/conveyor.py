"""Hands the documents of a spool on to a catalog, and writes down how far each run has come."""

import time
from collections.abc import Iterable
from dataclasses import replace

from bluesky_filestore.errors import (
    CatalogAccessError,
    CatalogError,
    CatalogFaultError,
    CatalogUnreachableError,
    RowsDifferError,
)
from bluesky_filestore.logs import get_logger
from bluesky_filestore.operations.operations import Catalog
from bluesky_filestore.operations.placement import ASKED_FOR
from bluesky_filestore.spool.entries import ENDED, READABLE, Entry, Spooled
from bluesky_filestore.spool.ledger import Ledger

from .completed import write_down
from .document_lane import DocumentLane
from .health import CatalogHealth
from .lane import Lane
from .lanes import Lanes
from .problems import Problems
from .run_delivery import CUT_SHORT, STOP_UNUSABLE, TRANSITIONS, Finding, RunDelivery
from .settings import AS_USUAL, DeliverySettings

__all__ = ["Conveyor"]

_logger = get_logger(__name__)
_FEWEST_AT_ONCE, _MOST_AT_ONCE, _MOST_BYTES_AT_ONCE = 1000, 20_000, 2**24
_WRITE_DOWN_SECONDS, _TRIES_AT_A_TABLE, _REMEMBERED = 1.0, 3, 10_000


class Conveyor:
    """Delivers from a spool to one catalog.

    What a run's documents ask for is the same each time they are gone through, and asking for it twice is harmless: a
    run that was interrupted, by whatever, is gone through again from its first document. It is not for several threads
    at once.

    `_runs` is the one place that knows which runs are on their way, by their number in the spool: from the first of
    their documents until they are delivered, parked or dropped. Each goes through one of `_lanes`. `_cursor` is the
    number of the last document that was looked at; lanes that are ahead of it pass by what they had.

    Parameters
    ----------
    ledger : Ledger
        The spool.
    catalog : Catalog
        Where its documents go.
    problems : Problems
        What goes wrong with single documents or arrays is added here.
    health : CatalogHealth, optional
        What is known of the catalog.
    settings : DeliverySettings
        How its user wants it.
    since : int, optional
        After which document those are looked at that belong to no run, too; by default the last one there is.
    """

    def __init__(
        self,
        ledger: Ledger,
        catalog: Catalog,
        problems: Problems,
        health: CatalogHealth | None = None,
        settings: DeliverySettings = AS_USUAL,
        *,
        since: int | None = None,
    ) -> None:
        self._ledger, self._catalog, self._problems, self._settings = ledger, catalog, problems, settings
        self._number = ledger.register_catalog(catalog.uri)
        self._since = ledger.last_document() if since is None else since
        self._lanes = Lanes(ledger, self._new_lane)
        self._runs: dict[int, RunDelivery] = {}
        self._ended: set[int] = set()
        self._made_anew: dict[str, int] = {}
        self._health = CatalogHealth(catalog) if health is None else health
        self._cursor, self._at_once = 0, _FEWEST_AT_ONCE
        self._began, self._is_written_down, self._takes_documents = False, True, False
        self._readable: list[Entry] = []

    @property
    def unsettled_runs(self) -> tuple[str, ...]:
        """The runs that ended with files missing or still being written, or that may still change, by uid."""
        return tuple(run.uid for run in self._runs.values() if run.state == "settling")

    @property
    def failing_runs(self) -> dict[str, str]:
        """The runs at which the catalog fails while it answers others, by uid, and at what; they are tried again."""
        return {run.uid: str(run.error) for run in self._runs.values() if run.waits and run.error is not None}

    @property
    def has_news(self) -> bool:
        """Whether there is something to hand on, or left from the last time."""
        is_known = self._began and self._is_written_down and not any(lane.is_due for lane in self._lanes.all())
        return not is_known or self._ledger.last_document() > self._cursor

    def move(self) -> tuple[list[Entry], bool]:
        """Hand on some of the documents that wait.

        Returns
        -------
        list of Entry
            The runs that can be read to their end now, or of which no more can be, with what is lost of them.
        bool
            Whether more documents wait.

        Raises
        ------
        CatalogUnreachableError, CatalogAccessError, CatalogFaultError
            If the catalog does not take them; try again later.
        """
        if not self._began:
            self._begin()
        self._write()  # What the catalog did not take the last time comes first.
        is_all = self._fetch()
        self._write()
        if self._close_unusable():
            self._write()
        # One request for many events costs little more than one for few.
        self._at_once = _FEWEST_AT_ONCE if is_all else _MOST_AT_ONCE
        return self._take_readable(), not is_all

    def try_again(self) -> None:
        """Let nothing wait that the catalog has failed at."""
        for lane in self._lanes.all():
            lane.try_again()

    def begin_again(self) -> None:
        """Go through all runs that are on their way again: a catalog that was away may lack what it took last."""
        self._catalog.forget_answers()
        self._go_back([run.entry for run in self._runs.values()])

    def look_again(self) -> list[Entry]:
        """Look again at runs that ended, and their files, if they were not settled; returns and raises as `move`."""
        for lane in self._lanes.all():
            lane.settle()
        self._write()
        return self._take_readable()

    def look_around(self) -> None:
        """See to what others asked for, and to the runs of processes that died."""
        asked = self._ledger.asked_for(self._number)
        parked = {number for number in self._runs if asked.get(number) == "parked"}
        if doubted := [number for number in parked if self._catalog.in_doubt(self._runs[number].uid)]:
            # From now on nothing more is asked for them.
            self._ledger.note_doubt(self._number, doubted)
        for number in parked | {each for each in self._runs if self._ledger.entry(self._number, each) is None}:
            entry = self._runs.pop(number).entry
            self._lanes.drop(entry)
            self._problems.end(entry.uid)
            self._end(number)
        again = [number for number, state in asked.items() if state == "waiting" and number not in self._runs]
        self._ended.difference_update(again)
        entries = [self._ledger.entry(self._number, number) for number in again]
        self._go_back([entry for entry in entries if entry is not None and entry.first <= self._cursor])
        for run in [run for run in self._runs.values() if not run.is_handed_on]:
            dead = not self._ledger.is_alive(run.entry.producer)
            if dead and self._ledger.last_document(run.entry.number) <= self._cursor:
                run.is_handed_on, self._is_written_down = True, False
                self._lanes.of(run.entry).cut_short(run.uid, CUT_SHORT)
        self._lanes.forget_idle()

    def _begin(self) -> None:
        self._catalog.forget_answers()
        self._problems.end_all()
        # Asked for here, and remembered by the catalog: later it could be away when a run's end has to know.
        with self._health.asking():
            self._takes_documents = self._catalog.takes_documents
            for mimetype in ASKED_FOR:
                self._catalog.reads(mimetype)
        waiting = [entry for entry in self._ledger.entries(self._number) if entry.state not in ENDED]
        for entry in waiting:
            if entry.state == "uploading":
                self._catalog.claim(entry.uid)
        self._ledger.count_anew(self._number)
        self._cursor = min([self._since, *(entry.first - 1 for entry in waiting)])
        self._began = True

    def _fetch(self) -> bool:
        """Hand on the documents that come next; whether they were all."""
        size, fetched = 0, self._ledger.documents_after(self._cursor, self._at_once, _MOST_BYTES_AT_ONCE)
        for document in fetched:
            if not self._hand_on(document):
                return False
            self._cursor = document.number
            size += document.size
        return len(fetched) < self._at_once and size < _MOST_BYTES_AT_ONCE

    def _close_unusable(self) -> bool:
        """Close the runs whose stop document could not be used: there will be no other; whether there are any."""
        ended = (run for run in self._runs.values() if run.is_handed_on and run.is_open)
        unusable = [run for run in ended if not self._lanes.of(run.entry).is_behind]
        for run in unusable:
            self._lanes.of(run.entry).cut_short(run.uid, STOP_UNUSABLE)
        return bool(unusable)

    def _hand_on(self, document: Spooled) -> bool:
        """Give a document to its lanes; False if its run is gone through again instead, and the cursor went back."""
        cursor, run = self._cursor, self._run_of(document)
        if self._cursor < cursor:
            return False
        lanes: Iterable[Lane] = () if run is None else (self._lanes.of(run.entry),)
        if document.is_announcement or document.run is None:
            lanes = self._lanes.of_announcement(document)
        if run is not None and document.number > self._lanes.of(run.entry).cursor:
            run.follow(document.name)
        for lane in lanes:
            if document.number > lane.cursor:
                lane.cursor = document.number
                if run is None or not run.comes_again:
                    lane.read(document, "" if run is None else run.uid)
        return True

    def _run_of(self, document: Spooled) -> RunDelivery | None:
        is_start = document.name == "start"
        if document.run is None or (document.run in self._ended and not is_start):
            return None
        run = self._runs.get(document.run)
        if run is not None and not (is_start and run.state == "settling"):
            return run
        entry = self._ledger.entry(self._number, document.run)
        if entry is not None and entry.state == "waiting" and entry.first < document.number:
            # It was asked for again, or its documents come once more.
            self._ended.discard(entry.number)
            self._go_back([entry])
        elif run is None and (entry is None or entry.state in ENDED):
            self._end(document.run)
        elif run is None and entry is not None:
            run = self._runs[document.run] = self._lanes.of_producer(entry.producer, document.number).expect(entry)
        return run

    def _end(self, run: int) -> None:
        # Only to spare the ledger the question.
        if len(self._ended) >= _REMEMBERED:
            self._ended.clear()
        self._ended.add(run)

    def _new_lane(self) -> Lane:
        delivery = (self._catalog, self._problems, self._health, self._settings)
        kind = DocumentLane if self._takes_documents else Lane
        return kind(*delivery, lambda uid: self._made_anew.get(uid, 0) < _TRIES_AT_A_TABLE, self._ledger.notes)

    def _write(self) -> None:
        """Have the catalog take what was handed on, and write down once a second, and at the end, how far it came."""
        try:
            for lane in self._lanes.all():
                # To the end: a run is written down as delivered when nothing of it waits any more.
                while any(lane is each for each in self._lanes.all()) and not self._write_for_a_second(lane):
                    self._write_down()
        finally:
            self._write_down()

    def _write_for_a_second(self, lane: Lane) -> bool:
        """Whether a lane has nothing left that the catalog could take now."""
        try:
            return lane.write(time.monotonic() + _WRITE_DOWN_SECONDS)
        except RowsDifferError as error:
            self._write_anew(error)
            return False

    def _take_readable(self) -> list[Entry]:
        """The runs that can be read since the last time."""
        readable, self._readable = self._readable, []
        return readable

    def _write_anew(self, error: RowsDifferError) -> None:
        """A table holds rows that it should not: it is made anew, from the run's first document on."""
        _logger.warning("%s The table is written again.", error)
        # First, for should the catalog remove only some of the tables, nothing may go on from there.
        self._go_back([run.entry for run in self._runs.values() if run.uid == error.run])
        is_try = True
        try:
            with self._health.asking():
                self._catalog.remove_rows(error.run)
        except (CatalogUnreachableError, CatalogAccessError, CatalogFaultError) as failure:
            is_try = isinstance(failure, CatalogFaultError)
            raise
        except CatalogError as refusal:
            _logger.warning("%s", refusal)
        finally:
            self._made_anew[error.run] = self._made_anew.get(error.run, 0) + is_try

    def _go_back(self, entries: Iterable[Entry]) -> None:
        """Go through runs again from their first documents on; nothing else is."""
        for entry in entries:
            self._problems.forget(entry.uid)
            self._ledger.begin_again(self._number, [entry.number])
            self._lanes.drop(entry)
            self._runs[entry.number] = self._lanes.begin_own(entry).expect(entry)
            self._cursor = min(self._cursor, entry.first - 1)

    def _write_down(self) -> None:
        states, ended = {}, []
        for number, run in list(self._runs.items()):
            before, is_behind, doubt = run.state, self._lanes.of(run.entry).is_behind, self._catalog.in_doubt(run.uid)
            finding, reason = run.find(self._problems.loss(run.uid), is_behind=is_behind, in_doubt=doubt)
            run.state = TRANSITIONS[before][finding]
            if before not in READABLE and run.becomes_readable():
                self._readable.append(replace(run.entry, reason=self._problems.loss(run.uid)))
            # What waits is not delivered: whoever flushes goes by these numbers.
            more = 0 if finding is Finding.WAITS else run.more
            if more or (run.state, reason) != (before, run.reason):
                states[number], run.reason = (run.state, reason, more), reason
                run.more -= more
            if run.state in ENDED:
                self._ledger.measures.add(f"missing/{self._number}", run.lacking)
                ended.append(run)
                self._lanes.of(run.entry).let_go(run)
                del self._runs[number]
                self._end(number)
        if states:
            write_down(self._ledger, (self._number, self._catalog.uri), states, ended, self._settings.on_complete)
        for run in ended:
            self._problems.end(run.uid)
        self._is_written_down = True
