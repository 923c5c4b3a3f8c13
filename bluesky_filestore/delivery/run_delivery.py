"""From the documents of one producer to a catalog: checked, made operations, applied in their order."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from bluesky_filestore.errors import (
    CatalogAccessError,
    CatalogError,
    CatalogFaultError,
    CatalogUnreachableError,
    DocumentError,
    RowsDifferError,
)
from bluesky_filestore.handlers.asking import has_handler, inspect
from bluesky_filestore.model.frame_map import Assets
from bluesky_filestore.model.normalize import unpacked
from bluesky_filestore.model.order import Sequence
from bluesky_filestore.model.validate import schema_fault
from bluesky_filestore.operations.announcing import announce
from bluesky_filestore.operations.operations import Catalog, CheckRun, CloseRun, Operation
from bluesky_filestore.operations.run import Run

from .outgoing import CatalogHealth, Outgoing
from .problems import Problems
from .stamping import stamp

__all__ = ["CUT_SHORT", "STOP_UNUSABLE", "Delivery"]

_logger = logging.getLogger(__name__)

CUT_SHORT = "The run was cut short: its writer ended before its stop document came."
"""What is noted of a run whose stop document will never come."""

STOP_UNUSABLE = "The stop document of the run could not be used."
"""What is noted of a run whose stop document came, and is wrong."""

_LATEST_SECONDS = 120.0
_INCOMPLETE = "files were still missing, cut short or being written when they were no longer waited for"
_TRIED_AGAIN = (CatalogUnreachableError, CatalogAccessError, CatalogFaultError, RowsDifferError)
_ANNOUNCEMENTS = ("resource", "stream_resource", "datum")


class Delivery:
    """Delivers the runs of one producer of documents to a catalog.

    Nothing that is wrong with a document, or that the catalog refuses, stands in the way of what follows it: it is
    put among the problems. It is not for several threads at once.

    Parameters
    ----------
    catalog : Catalog
        Where the operations are applied.
    problems : Problems
        What goes wrong is added here.
    validate : bool
        Whether documents are checked against event-model's schemas.
    settle : float
        For how many seconds after a run's end its files are waited for, if some are missing or still being written.
    tries : int
        How often an operation is tried at least at which the catalog fails, although it answers others.
    patience : float
        For how many seconds it is tried at least. Then it is left out, with the reason among the problems.
    health : CatalogHealth, optional
        What is known of the catalog, where several deliveries go to it.
    may_begin_again : callable, optional
        Whether a run, by its uid, may be gone through again from its first document; by default none may.
    """

    def __init__(
        self,
        catalog: Catalog,
        problems: Problems,
        *,
        validate: bool = True,
        settle: float = 60.0,
        tries: int = 1,
        patience: float = 0.0,
        health: CatalogHealth | None = None,
        may_begin_again: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._catalog, self._problems = catalog, problems
        self._validate, self._settle_time = validate, settle
        self._assets = Assets(has_handler)
        self._sequence = Sequence(self._assets)
        self._runs: dict[str, Run] = {}
        self._outgoing: dict[str, Outgoing] = {}
        self._unsettled: dict[str, tuple[Run, float]] = {}
        self._doubted: dict[str, float] = {}
        self._held: deque[tuple[str, Mapping[str, Any]]] = deque()
        self._closed: list[str] = []
        self._is_gathered = True
        self._tries, self._patience = tries, patience
        self._health = CatalogHealth() if health is None else health
        self._may_begin_again = may_begin_again
        self._dropped: set[str] = set()

    @property
    def open_runs(self) -> tuple[str, ...]:
        """The runs that were started and not stopped yet, by uid."""
        return tuple(self._runs)

    @property
    def unsettled_runs(self) -> tuple[str, ...]:
        """The runs that ended with files missing or still being written, or that may still change, by uid."""
        return tuple({**self._unsettled, **self._doubted})

    @property
    def doubted_runs(self) -> tuple[str, ...]:
        """The runs that ended, and may still change: not every answer of the catalog came."""
        return tuple(self._doubted)

    @property
    def holds_documents(self) -> bool:
        """Whether documents wait until the catalog can be asked how they are to be written."""
        return bool(self._held)

    @property
    def is_gathered(self) -> bool:
        """Whether all that was received has become operations."""
        return self._is_gathered

    @property
    def waiting_operations(self) -> int:
        """How many operations the catalog has not taken yet."""
        return sum(len(outgoing.operations) for outgoing in self._outgoing.values())

    @property
    def has_due_operations(self) -> bool:
        """Whether some of them may be tried now."""
        return any(outgoing.is_due for outgoing in self._outgoing.values())

    @property
    def waiting_runs(self) -> dict[str, CatalogError | None]:
        """The runs that the catalog has not taken all operations of, by uid, and at what it fails if it does.

        Not those that are parked and only lack their end, which is tried now and then.
        """
        waiting = {uid: outgoing for uid, outgoing in self._outgoing.items() if outgoing.operations}
        return {uid: outgoing.error for uid, outgoing in waiting.items() if not outgoing.is_parked}

    def receive(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document, or a page of them; what is wrong with it is put among the problems."""
        self._is_gathered = False
        if self._held:
            self._held.append((name, doc))
            return
        try:
            for single_name, single in unpacked(name, doc):
                self._receive(single_name, single)
        except (CatalogUnreachableError, CatalogAccessError):
            # How arrays are registered depends on the server, and a stop has to know it.
            self._held.append((name, doc))
        except Exception as error:
            # Whatever we overlooked, it must not end somebody's experiment.
            _logger.exception("A %s document could not be written.", name)
            self._problems.add(self._sequence.run_of(name, doc), f"{name} document cannot be written: {error!r}")

    def gather(self) -> None:
        """Make operations of everything that was received; raises as `write` does."""
        held, self._held = self._held, deque()
        while held:
            self.receive(*held.popleft())
            if self._held:
                self._held.extend(held)
                break
        for run in self._runs.values():
            try:
                self._take(run)
            except (CatalogUnreachableError, CatalogAccessError):
                raise
            except Exception as error:
                # One run must not stand in the way of the others.
                _logger.exception("What came for run %s could not be made ready.", run.uid)
                self._problems.add(run.uid, f"events cannot be written: {error!r}")
        self._is_gathered = not self._held

    def write(self, until: float = math.inf) -> bool:
        """Have the catalog take what was received, run by run.

        What it fails at, although it answers others, waits for a while and holds up only its own run.

        Parameters
        ----------
        until : float
            When to stop between two operations, on the monotonic clock.

        Returns
        -------
        bool
            Whether nothing is left that may be tried now.

        Raises
        ------
        CatalogError
            If the catalog is away, or does not let us in; what it did not take is kept for the next time.
        RowsDifferError
            If the catalog holds other rows of a run than it should, which may begin again.
        """
        self.gather()
        for uid in list(self._outgoing):
            outgoing = self._outgoing[uid]
            while outgoing.is_due:
                if time.monotonic() > until:
                    return False
                self._try(outgoing)
            if not outgoing.operations and (uid not in self._runs or not outgoing.has_given_up):
                del self._outgoing[uid]
        return True

    def try_again(self) -> None:
        """Let nothing wait that the catalog has failed at."""
        for outgoing in self._outgoing.values():
            outgoing.next_try = 0.0

    def _send(self, operations: Iterable[Operation]) -> None:
        for operation in operations:
            self._outgoing.setdefault(operation.run, Outgoing()).operations.append(operation)

    def _take(self, run: Run) -> None:
        self._send(run.take())
        self._say_losses(run)

    def _say_losses(self, run: Run) -> None:
        for sentence in run.take_losses():
            self._problems.add(run.uid, sentence)

    def _try(self, outgoing: Outgoing) -> None:
        """Have the catalog carry out the first operation of a run."""
        try:
            is_refused = not self._apply(outgoing.operations[0], is_complete=not outgoing.has_given_up)
        except CatalogAccessError:
            raise
        except CatalogError as error:
            if self._differs_or_is_away(outgoing, error):
                raise
            is_answer = isinstance(error, RowsDifferError) and not isinstance(error.__cause__, CatalogError)
            # It holds other rows, and would at another time: that is not tried again.
            if is_answer or not outgoing.failed(error, tries=self._tries, patience=self._patience):
                self._leave_out(outgoing, error)
        else:
            self._health.succeeded(outgoing.operations[0].run)
            outgoing.has_given_up = outgoing.has_given_up or is_refused
            outgoing.succeeded()

    def _differs_or_is_away(self, outgoing: Outgoing, error: CatalogError) -> bool:
        """Whether what failed is not for this run to wait for: it begins again, or nothing goes.

        Raises
        ------
        CatalogError
            If the catalog is away altogether.
        """
        run, differs = outgoing.operations[0].run, isinstance(error, RowsDifferError)
        if not differs or isinstance(error.__cause__, CatalogError):
            self._catalog.check()
        if differs and not outgoing.has_given_up and self._may_begin_again(run):
            return True
        return not differs and not outgoing.is_parked and self._health.failed(run)

    def _leave_out(self, outgoing: Outgoing, error: CatalogError) -> None:
        operation = outgoing.operations[0]
        self._health.forget(operation.run)
        self._problems.add(operation.run, f"{type(operation).__name__} of {_name(operation)}: {error}")
        if isinstance(operation, CloseRun):
            # The run is parked, and gets its end as soon as that goes.
            outgoing.keep_trying()
        else:
            outgoing.give_up()

    def settle(self) -> None:
        """Look again at files that were missing or still being written when their run ended, and at doubted runs."""
        for uid, (run, deadline) in list(self._unsettled.items()):
            try:
                self._send(run.settle())
            except Exception as error:
                # It would come again at every look.
                _logger.exception("The files of run %s could not be looked at again.", uid)
                self._problems.add(uid, f"its files could not be looked at again: {error!r}")
                deadline = 0.0
            if run.settled or time.monotonic() > deadline:
                del self._unsettled[uid]
                if not run.settled:
                    self._problems.add_loss(uid, _INCOMPLETE)
        for uid, closed in self._doubted.items():
            if time.monotonic() - closed > _LATEST_SECONDS:
                self._send([CheckRun(uid)])
                self._doubted[uid] = math.inf

    def take_closed(self) -> list[str]:
        """The runs, by uid, that the catalog has learned the end of since the last time; they can be read."""
        closed, self._closed = self._closed, []
        return closed

    def cut_short(self, uid: str, reason: str) -> None:
        """Close a run whose stop document will never come."""
        run = self._runs[uid]
        try:
            self._send(run.end_without_stop(reason))
        except (CatalogUnreachableError, CatalogAccessError):
            raise
        except Exception as error:
            # It would come again each time.
            _logger.exception("Run %s could not be closed.", uid)
            self._problems.add(uid, f"its end cannot be written: {error!r}")
        self._say_losses(run)
        del self._runs[uid]

    def drop(self, uid: str) -> None:
        """Have nothing more to do with a run, whatever comes of it."""
        self._dropped.add(uid)
        self._runs.pop(uid, None)
        self._unsettled.pop(uid, None)
        self._doubted.pop(uid, None)
        self._outgoing.pop(uid, None)
        self._health.forget(uid)

    def _receive(self, name: str, doc: Mapping[str, Any]) -> None:
        about = self._sequence.run_of(name, doc)
        fault = schema_fault(name, doc) if self._validate else ""
        try:
            if name in _ANNOUNCEMENTS:
                announce(name, doc, self._assets)
            else:
                about = self._sequence.receive(name, doc)
                self._follow(name, doc, about)
        except DocumentError as error:
            self._problems.add(about, f"{error} ({fault})" if fault else str(error))
        else:
            if fault:
                uid = doc.get("uid") or doc.get("datum_id")
                self._problems.add(about, f"{name} {uid!r} is not of its schema: {fault}", lost=False)

    def _follow(self, name: str, doc: Mapping[str, Any], uid: str) -> None:
        if uid in self._dropped:
            return
        if name == "start":
            self._runs[uid] = Run(doc, self._assets, inspect, self._catalog.reads, stamp)
            return
        if uid not in self._runs:
            raise DocumentError(f"{name} {doc['uid']!r} is left out: the start of its run could not be written.")
        if name != "stop":
            self._runs[uid].receive(name, doc)
            return
        run = self._runs[uid]
        run.receive(name, doc)
        self._take(run)
        # Not before its stop has been received: it may come again, or the run be closed without.
        del self._runs[uid]
        if not run.settled:
            self._unsettled[uid] = (run, time.monotonic() + self._settle_time)
        if not self._runs and not self._unsettled:
            self._assets.forget_old()

    def _apply(self, operation: Operation, *, is_complete: bool) -> bool:
        """Carry out an operation; False if the catalog will not have it, which is put among the problems.

        Raises
        ------
        CatalogError
            If the catalog may take it at another time.
        """
        if isinstance(operation, CloseRun):
            notes = [*operation.metadata.get("notes", ()), *self._problems.of(operation.run)]
            operation = replace(operation, metadata={**operation.metadata, "notes": notes}, is_complete=is_complete)
        try:
            self._catalog.apply(operation)
        except _TRIED_AGAIN:
            raise
        except Exception as error:
            # One node that the catalog will not have, or that cannot be made, must not keep the rest from it.
            if not isinstance(error, CatalogError):
                _logger.exception("%s of %s could not be applied.", type(operation).__name__, _name(operation))
            words = str(error) if isinstance(error, CatalogError) else repr(error)
            self._problems.add(operation.run, f"{type(operation).__name__} of {_name(operation)}: {words}")
            return False
        if isinstance(operation, CloseRun):
            self._closed.append(operation.run)
            if is_complete and self._catalog.in_doubt(operation.run):
                self._doubted[operation.run] = time.monotonic()
        elif isinstance(operation, CheckRun):
            self._doubted.pop(operation.run, None)
        return True


def _name(operation: Operation) -> str:
    parts = (getattr(operation, part, None) for part in ("run", "stream", "data_key"))
    return "/".join(part for part in parts if part)
