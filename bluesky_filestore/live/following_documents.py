"""The events of a run out of its documents as they come, from the spool they are kept in."""

import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.errors import DocumentError, RunNotFoundError, SpoolDamagedError
from bluesky_filestore.handlers import handler_registry
from bluesky_filestore.handlers.announced import Announced, ExternalEvent
from bluesky_filestore.handlers.filling import read_key
from bluesky_filestore.handlers.opened import OpenHandlers
from bluesky_filestore.logs import get_logger
from bluesky_filestore.model.frame_map import Assets
from bluesky_filestore.model.normalize import unpacked
from bluesky_filestore.model.order import Sequence as LegalOrder
from bluesky_filestore.model.root_map import RootMap
from bluesky_filestore.model.schema_errors import schema_errors
from bluesky_filestore.spool import Ledger
from bluesky_filestore.spool.entries import Spooled
from bluesky_filestore.spool.spooled_run import SpooledRun

from .following_event import FollowedEvent, Frames

__all__ = ["EventsOfDocuments", "SpooledEvents", "latest_run"]

_logger = get_logger(__name__)
_ANNOUNCEMENTS = ("resource", "stream_resource", "datum", "stream_datum")
# As many as make it worth a look into the database, and never so many that they are ahead of who reads them.
_AT_ONCE, _BYTES_AT_ONCE = 200, 4_000_000
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.01
_LOOK_AFTER_WRITER = 0.5


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An event whose frames may not be announced yet."""

    event: FollowedEvent
    external: ExternalEvent
    until: float


class EventsOfDocuments:
    """Makes events of the documents of one run, in the order and with the numbers that they have in a catalog.

    An event comes when it is known where its frames are, and those behind it wait with it, but no longer than for
    `patience`: then its frames are an error for as long as that is not known.

    Parameters
    ----------
    root_map : Mapping of str to str, optional
        Where directories are now that documents name.
    patience : float
        How long, in seconds, what is not there yet is waited for.
    """

    def __init__(self, root_map: Mapping[str, str] | None, patience: float) -> None:
        self.start: Mapping[str, Any] = {}
        """The start document."""
        self.stop: Mapping[str, Any] | None = None
        """The stop document, if it has come."""
        self._patience = patience
        self._order = LegalOrder(Assets())
        self._announced = Announced()
        self._opened = OpenHandlers(handler_registry, RootMap(root_map), patience=patience)
        # What was announced, and what is open: reading may take as long as `patience`, and what comes does not wait.
        self._lock, self._reading = threading.Lock(), threading.Lock()
        self._streams: dict[str, str] = {}
        self._rows: dict[str, int] = {}
        self._highest: dict[str, int] = {}
        self._position = 0
        self._waiting: deque[_Waiting] = deque()

    def receive(self, spooled: Spooled) -> None:
        """Take one document, or a page. What is wrong with one costs that one, as it does in a catalog."""
        try:
            for single, one in unpacked(spooled.name, spooled.doc()):
                with self._lock, schema_errors(single, one):
                    self._receive(single, one)
        except DocumentError as error:
            _logger.warning("Run %s is followed without a document: %s", self.start.get("uid", "?"), error)

    def _receive(self, name: str, doc: Mapping[str, Any]) -> None:
        if name in _ANNOUNCEMENTS:
            self._announced.receive(name, doc)
            return
        # Whatever came twice is left out here, just as where runs are delivered.
        self._order.advance(name, doc)
        if name == "event":
            self._add(doc)
            return
        self._announced.receive(name, doc)
        if name == "start":
            self.start = doc
        elif name == "stop":
            self.stop = doc
        else:
            self._streams[doc["uid"]] = doc["name"]

    def _add(self, doc: Mapping[str, Any]) -> None:
        data, timestamps, seq_num = doc["data"], doc["timestamps"], doc["seq_num"]
        if not (isinstance(data, Mapping) and isinstance(timestamps, Mapping) and isinstance(seq_num, Integral)):
            raise TypeError("expected a mapping of data, one of timestamps, and a whole seq_num")
        external, why = ExternalEvent(doc, (), frozenset(), self.start["uid"], "", 0), ""
        try:
            (external,) = self._announced.receive("event", doc)
        except DocumentError as error:
            why = str(error)
        wanted = external.wanted
        stream = self._streams[doc["descriptor"]]
        row, highest = self._rows.get(stream, 0), self._highest.get(stream, 0)
        self._position += 1
        self._rows[stream], self._highest[stream] = row + 1, max(highest, int(seq_num))
        event = FollowedEvent(
            run=self.start["uid"],
            position=self._position,
            stream=stream,
            row=row,
            seq_num=int(seq_num),
            is_repeated=int(seq_num) <= highest,
            uid=doc["uid"],
            time=doc["time"],
            data={key: value for key, value in data.items() if key not in wanted},
            timestamps=timestamps,
            frames=Frames(wanted, partial(self._read, external)),
        )
        if why:
            _logger.warning("Run %s, event %s: its frames cannot be read: %s", event.run, event.position, why)
        self._waiting.append(_Waiting(event, external, time.monotonic() + self._patience))

    @property
    def missing(self) -> bool:
        """Whether the next event waits for documents that say where its frames are."""
        with self._lock:
            return bool(self._waiting) and self._is_missing(self._waiting[0].external)

    def take(self, *, is_over: bool) -> list[FollowedEvent]:
        """The events that are ready; all of them if no more documents come."""
        taken = []
        with self._lock:
            if is_over and self.stop is None:
                self._announced.end()
            while self._waiting:
                first = self._waiting[0]
                if not is_over and self._is_missing(first.external) and time.monotonic() < first.until:
                    break
                taken.append(self._waiting.popleft().event)
        return taken

    def _is_missing(self, external: ExternalEvent) -> bool:
        return bool(external.wanted) and bool(self._announced.missing(external))

    def _read(self, external: ExternalEvent, key: str) -> NDArray[Any]:
        with self._lock:
            missing = self._announced.missing(replace(external, wanted=(key,)))
        if missing:
            raise DocumentError(
                f"{key!r} of the event with seq_num {external.doc['seq_num']} of run {external.run} cannot be read "
                f"yet: {missing}; expected it by now."
            )
        with self._reading:
            found, _ = read_key(external, key, self._announced, self._opened, self._lock)
        return np.asarray(found)

    def close(self) -> None:
        """Close files; they are opened again by who reads."""
        with self._reading:
            self._opened.close()


class SpooledEvents:
    """The events of a run in a spool, as they are put there; see `EventSource`.

    The database says for some microseconds whether anything has changed, and is asked in pauses of up to 10 ms.

    Parameters
    ----------
    found : SpooledRun
        The run. If several writers put it into the spool, what the one with the most documents puts there counts.
    root_map, patience
        As for `EventsOfDocuments`.
    """

    def __init__(self, found: SpooledRun, root_map: Mapping[str, str] | None, patience: float) -> None:
        self.uid = found.uid
        self.is_over = False
        self._documents = EventsOfDocuments(root_map, patience)
        self._ledger = Ledger(found.directory)
        # Few who follow a run to its end close what they followed it with: Python 3.13 warns of a database left open.
        weakref.finalize(self, self._ledger.close)
        entries = {entry.number: entry for _, entry in found.deliveries}
        self._run = max(entries, key=self._ledger.count)
        self._producer, self._first = entries[self._run].producer, entries[self._run].first
        self._last, self._looked_until, self._version = 0, 0, -1
        self._is_ended, self._look_again = False, 0.0

    @property
    def start(self) -> Mapping[str, Any]:
        """The run's start document."""
        return self._documents.start

    @property
    def stop(self) -> Mapping[str, Any] | None:
        """Its stop document, if it has come."""
        return self._documents.stop

    def wait(self, seconds: float) -> float:
        """For how long to wait; see `EventSource`."""
        if self._ledger.version() != self._version or time.monotonic() > self._look_again:
            return 0.0
        return min(max(seconds / 4, _FIRST_PAUSE), _LONGEST_PAUSE)

    def take(self) -> Sequence[FollowedEvent]:
        """Some of the events that have come since; see `EventSource`.

        Raises
        ------
        RunNotFoundError
            If the run was removed from the spool.
        SpoolDamagedError
            If the spool was damaged in the middle of the run.
        """
        version = self._ledger.version()
        found = self._ledger.documents_of_run_after(
            self._run, self._producer, max(self._last, self._first - 1), _AT_ONCE, _BYTES_AT_ONCE
        )
        # Now, when what was found is known to be all.
        self._check_is_there()
        for spooled in found:
            self._documents.receive(spooled)
            self._last = spooled.number
        if self._documents.stop is not None:
            self._is_ended = True
        elif not found:
            # Asked for before: what comes meanwhile changes it.
            self._version = version
            self._look_after_the_writer()
        if self._documents.missing and (self._is_ended or not found):
            self._look_at_others()
        taken = self._documents.take(is_over=self._is_ended)
        self.is_over = self._is_ended
        if self.is_over:
            self._ledger.close()
        return taken

    def _look_after_the_writer(self) -> None:
        """Know that no more will come, although the stop has not, when whoever wrote the run is gone."""
        if time.monotonic() > self._look_again:
            is_alive = self._ledger.is_alive(self._producer)
            # What it put there before it ended has been seen only if nothing has come since.
            self._is_ended = not is_alive and self._ledger.version() == self._version
            self._look_again = time.monotonic() + _LOOK_AFTER_WRITER

    def _check_is_there(self) -> None:
        """Nobody has taken documents of the run away, of which the first goes first."""
        if not self._ledger.is_current:
            raise SpoolDamagedError(
                f"the spool in {self._ledger.directory} was put aside, damaged, while run {self.uid} was followed; "
                f"expected it to stay. Go on in the catalog, after the position of the last event."
            )
        if not self._ledger.has_document(self._first):
            raise RunNotFoundError(
                f"run {self.uid} was removed from the spool in {self._ledger.directory} while it was followed; "
                f"expected it to stay until then. Go on in the catalog, after the position of the last event."
            )

    def _look_at_others(self) -> None:
        """What was announced before the run, or with another run, as of a staging that outlives one."""
        last = self._ledger.last_document()
        if last > self._looked_until:
            for spooled in self._ledger.announced_before(last + 1, self._producer):
                if spooled.number > self._looked_until and spooled.run != self._run:
                    self._documents.receive(spooled)
            self._looked_until = last

    def close(self) -> None:
        """Let go of the database and of files."""
        self._documents.close()
        self._ledger.close()


def latest_run(directories: Sequence[Path]) -> SpooledRun | None:
    """The run that began last in any of some spools, if there is one."""
    latest = None
    for directory in directories:
        with closing(Ledger(directory)) as ledger:
            entry = ledger.latest()
        if entry is not None and (latest is None or entry.started > latest.deliveries[0][1].started):
            latest = SpooledRun(directory, entry.uid, (("", entry),))
    return latest
