"""Hands the documents of a spool on to a catalog, and writes down how far each run has come."""

import logging
import time
from collections.abc import Iterable

from bluesky_filestore.errors import (
    CatalogAccessError,
    CatalogError,
    CatalogFaultError,
    CatalogUnreachableError,
    RowsDifferError,
)
from bluesky_filestore.model.addressing import FILE_SERIES, HANDLED, HDF5_ROWS
from bluesky_filestore.operations.operations import Catalog
from bluesky_filestore.spool.entries import ENDED, DeliveryState, Entry, Spooled
from bluesky_filestore.spool.ledger import Ledger

from .lanes import Lane, Lanes, OnItsWay
from .outgoing import CatalogHealth
from .problems import Problems
from .run_delivery import CUT_SHORT, STOP_UNUSABLE, Delivery

__all__ = ["Conveyor"]

_logger = logging.getLogger(__name__)

_FEWEST_AT_ONCE, _MOST_AT_ONCE = 1000, 20_000
_MOST_BYTES_AT_ONCE = 2**24
_TRIES = 3
_WRITE_DOWN_SECONDS = 1.0
_TRIES_AT_A_TABLE = 3
_REMEMBERED = 10_000
_IN_DOUBT = "The catalog did not answer to everything; it is looked at again."
_NOT_BEGUN = "Its start document could not be used."


class Conveyor:
    """Delivers from a spool to one catalog.

    What a run's documents ask for is the same each time they are gone through, and asking for it twice is harmless: a
    run that was interrupted, by whatever, is gone through again from its first document. It is not for several threads
    at once.

    Parameters
    ----------
    ledger : Ledger
        The spool.
    catalog : Catalog
        Where its documents go.
    problems : Problems
        What goes wrong with single documents or arrays is added here.
    since : int, optional
        After which document those are looked at that belong to no run, too; by default the last one there is.
    settle : float
        For how many seconds after a run's end its files are waited for, if some are missing or still being written.
    validate : bool
        Whether documents are checked against event-model's schemas.
    park_after : float
        For how many seconds a request is tried again at which the catalog fails while it answers others.
    """

    def __init__(
        self,
        ledger: Ledger,
        catalog: Catalog,
        problems: Problems,
        *,
        since: int | None = None,
        settle: float = 60.0,
        validate: bool = True,
        park_after: float = 60.0,
    ) -> None:
        self._park_after = park_after
        self._ledger, self._catalog, self._problems = ledger, catalog, problems
        self._settle, self._validate = settle, validate
        self._number = ledger.catalog(catalog.uri)
        self._since = ledger.last_document() if since is None else since
        self._lanes = Lanes(self._new_lane)
        self._runs: dict[int, OnItsWay] = {}
        self._ended: set[int] = set()
        self._made_anew: dict[str, int] = {}
        self._health = CatalogHealth()
        self._cursor = 0
        self._at_once = _FEWEST_AT_ONCE
        self._began = False
        self._is_written_down = True
        self._readable: list[Entry] = []

    @property
    def unsettled_runs(self) -> tuple[str, ...]:
        """The runs that ended with files missing or still being written, or that may still change, by uid."""
        return tuple(run.entry.uid for run in self._runs.values() if run.state == "settling")

    @property
    def failing_runs(self) -> dict[str, str]:
        """The runs at which the catalog fails while it answers others, by uid, and at what; they are tried again."""
        failing = (lane.delivery.waiting_runs for lane in self._lanes)
        return {uid: str(error) for runs in failing for uid, error in runs.items() if error is not None}

    @property
    def has_news(self) -> bool:
        """Whether there is something to hand on, or left from the last time."""
        left = any(lane.delivery.has_due_operations for lane in self._lanes)
        is_known = self._began and self._is_written_down
        return left or not is_known or self._ledger.last_document() > self._cursor

    def move(self) -> tuple[list[Entry], bool]:
        """Hand on some of the documents that wait.

        Returns
        -------
        list of Entry
            The runs that can be read to their end now, or of which no more can be.
        bool
            Whether more documents wait.

        Raises
        ------
        CatalogUnreachableError, CatalogAccessError, CatalogFaultError
            If the catalog does not take them; try again later.
        """
        if not self._began:
            self._begin()
        # What the catalog did not take the last time comes first.
        self._write()
        is_all = self._fetch()
        self._write()
        if self._close_unusable():
            self._write()
        # One request for many events costs little more than one for few.
        self._at_once = _FEWEST_AT_ONCE if is_all else _MOST_AT_ONCE
        return self._take_readable(), not is_all

    def try_again(self) -> None:
        """Let nothing wait that the catalog has failed at."""
        for lane in self._lanes:
            lane.delivery.try_again()

    def look_again(self) -> list[Entry]:
        """Look again at runs that ended, and their files, if they were not settled; returns and raises as `move`."""
        for lane in self._lanes:
            lane.delivery.settle()
        self._write()
        return self._take_readable()

    def look_around(self) -> None:
        """See to what others asked for, and to the runs of processes that died."""
        asked = self._ledger.asked_for(self._number)
        for run in [run for run in self._runs if asked.get(run) == "parked" or not self._is_kept(run)]:
            self._lanes.drop(self._runs.pop(run).entry)
            self._end(run)
        again = [run for run, state in asked.items() if state == "waiting" and run not in self._runs]
        self._ended.difference_update(again)
        entries = [self._ledger.entry(self._number, run) for run in again]
        self._go_back([entry for entry in entries if entry is not None and entry.first <= self._cursor])
        for open_run in [run for run in self._runs.values() if not run.stopped]:
            entry = open_run.entry
            dead = not self._ledger.is_alive(entry.producer)
            if dead and self._ledger.last_document(entry.number) <= self._cursor:
                open_run.stopped, self._is_written_down = True, False
                delivery = open_run.lane.delivery
                if entry.uid in delivery.open_runs:
                    delivery.cut_short(entry.uid, CUT_SHORT)
        self._forget_lanes()

    def _forget_lanes(self) -> None:
        """Keep nothing of processes that ended, and all of whose runs did."""
        busy = {id(run.lane) for run in self._runs.values()}
        for lane in self._lanes:
            is_over = lane.run is not None or not self._ledger.is_alive(lane.producer)
            if is_over and id(lane) not in busy and not lane.delivery.waiting_operations:
                self._lanes.remove(lane)

    def _is_kept(self, run: int) -> bool:
        return self._ledger.entry(self._number, run) is not None

    def _begin(self) -> None:
        self._catalog.ask_anew()
        # Asked for here, and remembered by the catalog: later it could be away when a run's end has to know.
        for mimetype in (HDF5_ROWS, FILE_SERIES, HANDLED):
            self._catalog.reads(mimetype)
        waiting = [entry for entry in self._ledger.entries(self._number) if entry.state not in ENDED]
        for entry in waiting:
            if entry.state == "settling" and entry.reason == _IN_DOUBT:
                self._catalog.doubt(entry.uid)
        # They are gone through from their first document, and counted anew.
        self._ledger.begin_again(self._number, [entry.number for entry in waiting if entry.state == "uploading"])
        self._cursor = min([self._since, *(entry.first - 1 for entry in waiting)])
        self._began = True

    def _fetch(self) -> bool:
        """Hand on the documents that come next; whether they were all."""
        size = 0
        fetched = self._ledger.documents_after(self._cursor, self._at_once, _MOST_BYTES_AT_ONCE)
        for document in fetched:
            self._hand_on(document)
            self._cursor = document.number
            size += len(document.body)
        return len(fetched) < self._at_once and size < _MOST_BYTES_AT_ONCE

    def _close_unusable(self) -> bool:
        """Close the runs whose stop document could not be used: there will be no other; whether there are any."""
        closed = False
        for run in self._runs.values():
            delivery = run.lane.delivery
            if run.stopped and run.entry.uid in delivery.open_runs and not delivery.holds_documents:
                delivery.cut_short(run.entry.uid, STOP_UNUSABLE)
                closed = True
        return closed

    def _hand_on(self, document: Spooled) -> None:
        run = self._run_of(document)
        if document.is_announcement or document.run is None:
            # Later runs may refer to it, whatever lane they are in.
            lanes = self._lanes.all_of(document)
        else:
            lanes = [run.lane] if run is not None else []
        if run is not None and document.number > run.lane.cursor:
            run.more += 1
            run.stopped = run.stopped or document.name == "stop"
        for lane in lanes:
            if document.number > lane.cursor:
                lane.cursor = document.number
                self._receive(lane.delivery, document, run.entry.uid if run is not None else "")

    def _receive(self, delivery: Delivery, document: Spooled, uid: str) -> None:
        try:
            doc, changes = document.read()
        except Exception as error:  # noqa: BLE001 - whatever it is
            # What cannot be read today can never be, and must not stand in the way of what follows.
            self._problems.add(uid, f"{document.name} document cannot be read out of the spool: {error!r}")
        else:
            for change in changes:
                self._problems.add(uid, f"{document.name} document: {change}.", lost=False)
            delivery.receive(document.name, doc)

    def _run_of(self, document: Spooled) -> OnItsWay | None:
        if document.run is None or document.run in self._ended:
            return None
        if document.run not in self._runs:
            entry = self._ledger.entry(self._number, document.run)
            if entry is None or entry.state in ENDED:
                self._end(document.run)
                return None
            self._runs[document.run] = OnItsWay(entry, self._lanes.shared(document))
        return self._runs[document.run]

    def _end(self, run: int) -> None:
        # Only to spare the ledger the question.
        if len(self._ended) >= _REMEMBERED:
            self._ended.clear()
        self._ended.add(run)

    def _new_lane(self, producer: int, before: int) -> Lane:
        """A lane of a producer that knows what was announced before a document."""
        delivery = Delivery(
            self._catalog,
            self._problems,
            validate=self._validate,
            settle=self._settle,
            tries=_TRIES,
            patience=self._park_after,
            health=self._health,
            may_begin_again=lambda uid: self._made_anew.get(uid, 0) < _TRIES_AT_A_TABLE,
        )
        for announced in self._ledger.announced_before(before, producer):
            self._receive(delivery, announced, "")
        return Lane(producer, delivery)

    def _write(self) -> None:
        """Have the catalog take what was handed on, and write down once a second, and at the end, how far it came."""
        try:
            for lane in self._lanes:
                # To the end: a run is written down as delivered when nothing of it waits any more.
                while lane in self._lanes and not self._write_for_a_second(lane):
                    self._write_down()
        finally:
            self._write_down()

    def _write_for_a_second(self, lane: Lane) -> bool:
        """Whether a lane has nothing left that the catalog could take now."""
        try:
            return lane.delivery.write(time.monotonic() + _WRITE_DOWN_SECONDS)
        except RowsDifferError as error:
            self._write_anew(error)
            return False

    def _take_readable(self) -> list[Entry]:
        """The runs that became readable since the last time."""
        readable, self._readable = self._readable, []
        return readable

    def _write_anew(self, error: RowsDifferError) -> None:
        """A table holds rows that it should not: it is made anew, from the run's first document on."""
        _logger.warning("%s The table is written again.", error)
        # First, for should the catalog remove only some of the tables, nothing may go on from there.
        self._go_back([each.entry for each in self._runs.values() if each.entry.uid == error.run])
        is_try = True
        try:
            self._catalog.start_over(error.run)
        except (CatalogUnreachableError, CatalogAccessError):
            is_try = False
            raise
        except CatalogFaultError:
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
            self._runs[entry.number] = OnItsWay(entry, self._lanes.begin_again(entry))
            self._cursor = min(self._cursor, entry.first - 1)

    def _write_down(self) -> None:
        closed = {(id(lane), uid) for lane in self._lanes for uid in lane.delivery.take_closed()}
        states = {}
        for run in list(self._runs.values()):
            entry, before = run.entry, run.state
            delivery = run.lane.delivery
            run.closed = run.closed or (id(run.lane), entry.uid) in closed
            run.state, reason = self._state(run, delivery)
            if before == "uploading" and (run.closed or run.state in ENDED):
                self._readable.append(entry)
            # What waits is not delivered: whoever flushes goes by these numbers.
            more = 0 if self._waits(run, delivery) else run.more
            if more or run.state != before:
                states[entry.number] = (run.state, reason, more)
                run.more -= more
            if run.state in ENDED:
                del self._runs[entry.number]
                self._end(entry.number)
        if states:
            self._ledger.set_states(self._number, states)
        self._is_written_down = True

    def _waits(self, run: OnItsWay, delivery: Delivery) -> bool:
        """Whether the catalog has not taken all that was handed on of a run."""
        return delivery.holds_documents or run.entry.uid in delivery.waiting_runs or not delivery.is_gathered

    def _state(self, run: OnItsWay, delivery: Delivery) -> tuple[DeliveryState, str]:
        if not run.stopped or run.entry.uid in delivery.open_runs or self._waits(run, delivery):
            return "uploading", ""
        if run.entry.uid in delivery.unsettled_runs:
            return "settling", _IN_DOUBT if run.entry.uid in delivery.doubted_runs else ""
        loss = self._problems.loss(run.entry.uid) or ("" if run.closed else _NOT_BEGUN)
        return ("parked", loss) if loss else ("delivered", "")
