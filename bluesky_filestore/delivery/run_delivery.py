"""One run on its way to one catalog: how far it has come, and what the catalog shall still do for it.

How far it has come
-------------------
`RunDelivery.state` is the state that the ledger keeps and users see. It changes in one place, where what the catalog
took is written down (`Conveyor`), by what is found of the run then:

=========  ===========================  =========  ============  =========  ==========
state      `Finding` WAITS              GOES_ON    UNSETTLED     COMPLETE   INCOMPLETE
=========  ===========================  =========  ============  =========  ==========
waiting    stays                        uploading  settling      delivered  parked
uploading  stays                        stays      settling      delivered  parked
settling   uploading, until it is done  uploading  stays         delivered  parked
=========  ===========================  =========  ============  =========  ==========

Delivered and parked are ends: nothing is looked for any more. A run that was asked for again, or of which rows are gone
from the catalog, begins again as another `RunDelivery`; one that somebody parked or forgot is dropped.

What becomes of its operations
------------------------------
They are tried in their order, the first until it is done with:

============  =========================  ================================================================
its first     what happens               then
============  =========================  ================================================================
is due        succeeds, or is refused    the next one is
is due        fails, others are          it waits, for twice as long each time; after three tries and some
              answered                   patience it is left out, and the run `has_given_up`
is due        fails, after given up      it is tried once more, without patience, and left out
is due        is the end, and is left    it is tried once a minute for as long as the process lives, which
              out                        nobody waits for: `only_end_is_left`
============  =========================  ================================================================

A catalog that is away changes neither: nobody's patience is used up. A run that another writer made in the catalog
`is_others`: it has no operations from then on, and is parked in the end. A run whose start document is all there is of
it is made after some seconds only: a writer of another kind that gets the same documents from one RunEngine has made it
by the time the second one comes, and would fail, and end the plan, if it were there before.

Between calls these hold: `operations` is empty or its first is not done; `error` is None unless the first has failed;
`documents` is None before the start document and after all was settled. Only the thread that delivers may touch it.
"""

import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from types import MappingProxyType
from typing import Any, TypeAlias

from bluesky_filestore.errors import CatalogError
from bluesky_filestore.logs import get_logger
from bluesky_filestore.operations.document_run import DocumentRun
from bluesky_filestore.operations.operations import CheckRun, CloseRun, EndStreams, Operation
from bluesky_filestore.operations.run import Run
from bluesky_filestore.operations.run_metadata import sentences
from bluesky_filestore.spool.entries import ENDED, IN_DOUBT, DeliveryState, Entry, with_doubt

__all__ = ["CUT_SHORT", "IN_DOUBT", "STOP_UNUSABLE", "TRANSITIONS", "Finding", "RunDelivery", "RunDocuments"]

RunDocuments: TypeAlias = Run | DocumentRun
"""What makes operations of a run's documents: those of a tree of nodes, or the documents themselves."""

CUT_SHORT = "The run was cut short: its writer ended before its stop document came."
"""What is noted of a run whose stop document will never come."""

STOP_UNUSABLE = "The stop document of the run could not be used."
"""What is noted of a run whose stop document came, and is wrong."""

_logger = get_logger(__name__)
_NOT_BEGUN = "Its start document could not be used."
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 60.0
_TRIES, _TRIES_WITHOUT_PATIENCE = 3, 2
_HELD_SECONDS = 5.0
# Not that a disk is not in sight: that is so every time, or never, and stands in the run's notes.
_TOLD = ("refused", "missing", "unreadable", "uncollected")
_WITHOUT_FRAMES = ("missing", "unreadable")


class Finding(Enum):
    """What is found of a run when it is written down how far it has come."""

    WAITS = auto()
    """The catalog has not taken all that was handed on."""
    GOES_ON = auto()
    """It has; the run's last document is still to come."""
    UNSETTLED = auto()
    """It has, to the end; files are missing or still being written, or not every answer of the catalog came."""
    COMPLETE = auto()
    """It has, to the end, and nothing is to be looked for."""
    INCOMPLETE = auto()
    """So it has, but something of the run was lost, or it never began."""


_ENDS: Mapping[Finding, DeliveryState] = {
    Finding.UNSETTLED: "settling",
    Finding.COMPLETE: "delivered",
    Finding.INCOMPLETE: "parked",
}

TRANSITIONS: Mapping[DeliveryState, Mapping[Finding, DeliveryState]] = MappingProxyType(
    {
        "waiting": {Finding.WAITS: "waiting", Finding.GOES_ON: "uploading", **_ENDS},
        "uploading": {Finding.WAITS: "uploading", Finding.GOES_ON: "uploading", **_ENDS},
        "settling": {Finding.WAITS: "uploading", Finding.GOES_ON: "uploading", **_ENDS},
        "delivered": {},
        "parked": {},
    }
)
"""The state after each finding in a state."""


@dataclass(slots=True, eq=False)
class RunDelivery:
    """A run that is being delivered."""

    entry: Entry
    """What the ledger said of it when its delivery began."""
    state: DeliveryState = "waiting"
    """How far it has come."""
    reason: str = ""
    """What the ledger has been told of it beside."""
    documents: RunDocuments | None = None
    """Makes operations of its documents."""
    start: Mapping[str, Any] = field(default_factory=dict)
    """Its start document, when that was used."""
    stop: Mapping[str, Any] = field(default_factory=dict)
    """Its stop document, when that was used."""
    said: Mapping[str, Any] = field(default_factory=dict)
    """What the catalog has learned of it at its end."""
    is_open: bool = False
    """Whether its start document was used, and neither its stop document nor the lack of one."""
    is_handed_on: bool = False
    """Whether its last document was handed on, whatever became of that."""
    comes_again: bool = False
    """Whether its documents come once more, after the last one: what came first counts."""
    more: int = 0
    """How many of its documents were handed on that the ledger does not know of."""
    is_closed: bool = False
    """Whether the catalog has learned of its end: it can be read."""
    is_readable: bool = False
    """Whether it was said that it can be read."""
    settle_until: float | None = None
    """Until when its files are looked for, on the monotonic clock; None if there is nothing to be looked for."""
    doubted_since: float | None = None
    """Since when, on the monotonic clock, it is to be looked at again, for an answer of the catalog is missing; None if
    none is, or if something was left out anyway."""
    operations: deque[Operation] = field(default_factory=deque)
    """What is to be done; the first is the one that is tried."""
    error: CatalogError | None = None
    """Why the first one fails; None while nothing does."""
    failed_first: float = 0.0
    """When it failed for the first time, on the monotonic clock."""
    failures: int = 0
    """How often it has failed."""
    next_try: float = 0.0
    """When it may be tried again, on the monotonic clock."""
    held_until: float = 0.0
    """Until when it is left to others to make it, on the monotonic clock."""
    is_others: bool = False
    """Whether another writer made it in the catalog: nothing is done to it."""
    has_given_up: bool = False
    """Whether something of the run was left out already."""
    lacking: int = 0
    """How many of its events lack a frame in the files, as the catalog has learned: of an array a thousand at most."""
    _lacks: list[str] = field(default_factory=list)
    """What its arrays lack by what the catalog has learned, in words."""
    _told: set[str] = field(default_factory=set)
    """What of that was said in the log."""
    only_end_is_left: bool = False
    """Whether nothing but its end is left to be done, which has been tried for long enough."""

    @property
    def uid(self) -> str:
        """The run's uid."""
        return self.entry.uid

    @property
    def is_unsettled(self) -> bool:
        """Whether it ended, and may still change."""
        return not self.is_others and (self.settle_until is not None or self.doubted_since is not None)

    @property
    def waits(self) -> bool:
        """Whether the catalog has not taken all operations; not if only its end is left, that is tried now and then."""
        return bool(self.operations) and not self.only_end_is_left

    @property
    def is_due(self) -> bool:
        """Whether there is something to be tried now."""
        return bool(self.operations) and time.monotonic() >= max(self.next_try, self.held_until)

    def find(self, loss: str, *, is_behind: bool, in_doubt: bool = False) -> tuple[Finding, str]:
        """What is found of it, and why if that is to be said.

        Parameters
        ----------
        loss : str
            What of it was lost; empty if nothing was.
        is_behind : bool
            Whether not all documents that were handed on have become operations.
        in_doubt : bool
            Whether not every answer of the catalog came.
        """
        if is_behind or self.waits:
            return Finding.WAITS, IN_DOUBT if in_doubt else ""
        if self.is_open or not self.is_handed_on:
            return Finding.GOES_ON, IN_DOUBT if in_doubt else ""
        if self.is_unsettled:
            return Finding.UNSETTLED, IN_DOUBT if in_doubt else ""
        reason = loss or ("" if self.is_closed else _NOT_BEGUN)
        if not reason:
            return Finding.COMPLETE, ""
        return Finding.INCOMPLETE, with_doubt(reason) if in_doubt else reason

    def closed(self, closing: CloseRun) -> None:
        """The catalog has learned of its end, and of what was then known of its arrays."""
        self.is_closed, self.said = True, closing.metadata
        said = {kind: of for kind, of in closing.metadata.get("filestore", {}).items() if kind in _TOLD}
        self._lacks = sentences(said)
        arrays = [words for kind in _WITHOUT_FRAMES for keys in said.get(kind, {}).values() for words in keys.values()]
        self.lacking = sum(len(words.get("events", ())) for words in arrays)
        if self.settle_until is None:
            self.tell()

    def begin_settling(self, seconds: float) -> None:
        """Its last document was handed on: its files are looked for, for so long, if any is missing."""
        if self.documents is not None and (self.documents.is_looking or not self.documents.settled):
            self.settle_until = time.monotonic() + seconds
        else:
            self.add([EndStreams(self.uid)])

    def becomes_readable(self) -> bool:
        """Whether it can be read by now, and that was not said yet: what is left is for those who follow it."""
        is_new = not self.is_readable and (self.is_closed or self.state in ENDED)
        self.is_readable = self.is_readable or is_new
        return is_new

    def end_settling(self, *, is_settled: bool) -> None:
        """Its files are looked at no more; what the catalog is still to learn of them is said when it has."""
        self.settle_until = None
        if not (is_settled and self.operations):
            self.tell()
        self.add([EndStreams(self.uid)])

    def tell(self) -> None:
        """Nothing more is waited for: say in the log what its arrays lack, a line each and once."""
        for sentence in self._lacks:
            if sentence not in self._told:
                self._told.add(sentence)
                _logger.warning("Run %s: %s", self.uid, sentence)

    def add(self, operations: Iterable[Operation]) -> None:
        """These are to be done, too; nothing is to a run of another writer."""
        if not self.is_others:
            self.operations.extend(operations)

    def leave_to_others(self) -> None:
        """Another writer made it: of its operations only the first, which was tried, is left to be done with."""
        self.is_others = True
        first = self.operations[0]
        self.operations.clear()
        self.operations.append(first)

    def follow(self, name: str) -> None:
        """One more of its documents is handed on."""
        self.more += 1
        if name == "start" and self.is_handed_on:
            if not self.comes_again:
                _logger.warning("Run %s comes once more; its documents of before count.", self.uid)
            self.comes_again, self.is_handed_on = True, False
        self.is_handed_on = self.is_handed_on or name == "stop"

    def begin(self, documents: RunDocuments, start: Mapping[str, Any]) -> None:
        """Its start document came: whoever else makes runs of such goes first."""
        self.documents, self.start, self.is_open = documents, start, True
        self.held_until = time.monotonic() + _HELD_SECONDS

    def end(self, stop: Mapping[str, Any]) -> None:
        """Its stop document was used."""
        self.stop, self.is_open = stop, False

    def go_on(self) -> None:
        """Wait for nobody, whatever its start document or a failure asked for."""
        self.held_until = self.next_try = 0.0

    def succeeded(self) -> None:
        """The first operation is done with, whatever came of it."""
        if isinstance(self.operations.popleft(), CheckRun):
            self.doubted_since = None
        self.error, self.failures, self.next_try = None, 0, 0.0
        self.only_end_is_left = False

    def failed(self, error: CatalogError, *, patience: float) -> bool:
        """The catalog failed at the first operation, and answers others; whether it is to be tried again."""
        now = time.monotonic()
        if not self.failures:
            self.failed_first = now
        self.error, self.failures = error, self.failures + 1
        tries = _TRIES
        if self.has_given_up:
            tries, patience = _TRIES_WITHOUT_PATIENCE, 0.0
        if self.failures >= tries and now - self.failed_first >= patience:
            return False
        self.next_try = now + min(_FIRST_WAIT * 2 ** min(self.failures, 10), _LONGEST_WAIT)
        return True

    def give_up(self, *, is_end: bool) -> None:
        """Leave the first operation out; the run's end, which comes last, is tried now and then all the same."""
        self.has_given_up, self.doubted_since = True, None
        if is_end:
            self.only_end_is_left, self.failures = True, 0
            self.next_try = time.monotonic() + _LONGEST_WAIT
        else:
            self.succeeded()
