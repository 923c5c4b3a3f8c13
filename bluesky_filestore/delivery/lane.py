"""The documents of one producer on their way to a catalog: checked, made operations, applied in their order."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bluesky_filestore.errors import CatalogAccessError, CatalogError, CatalogUnreachableError, DocumentError
from bluesky_filestore.handlers.asking import has_handler, inspect
from bluesky_filestore.logs import get_logger
from bluesky_filestore.model.frame_map import Assets
from bluesky_filestore.model.normalize import unpacked
from bluesky_filestore.model.order import Sequence
from bluesky_filestore.model.validate import schema_fault
from bluesky_filestore.operations.announcing import announce
from bluesky_filestore.operations.operations import Catalog, CheckRun, EndStreams
from bluesky_filestore.operations.run import Run
from bluesky_filestore.spool.entries import ENDED, LATEST_SECONDS, Entry, Spooled

from .applying import Applying
from .health import CatalogHealth
from .problems import Problems
from .reconciling import Reconciler
from .run_delivery import RunDelivery, RunDocuments
from .settings import AS_USUAL, DeliverySettings
from .stamping import sizes_of

__all__ = ["Lane"]

_logger = get_logger(__name__)
_LATEST_SECONDS = LATEST_SECONDS
_INCOMPLETE = "files were still missing, cut short or being written when they were no longer waited for"
_ANNOUNCEMENTS = ("resource", "stream_resource", "datum")


class Lane:
    """Delivers the runs of one producer of documents to a catalog, or one of them that was begun again.

    Nothing that is wrong with a document, or that the catalog refuses, stands in the way of what follows it: it is
    put among the problems. It is not for several threads at once.

    Parameters
    ----------
    catalog : Catalog
        Where the operations are applied.
    problems : Problems
        What goes wrong is added here.
    health : CatalogHealth
        What is known of the catalog.
    settings : DeliverySettings
        How its user wants it.
    may_begin_again : callable, optional
        Whether a run, by its uid, may be gone through again from its first document; by default none may.
    notes_of : callable, optional
        What is noted of a run in the spool, by its number there; by default nothing.
    """

    def __init__(
        self,
        catalog: Catalog,
        problems: Problems,
        health: CatalogHealth,
        settings: DeliverySettings = AS_USUAL,
        may_begin_again: Callable[[str], bool] = lambda _: False,
        notes_of: Callable[[int], Iterable[str]] = lambda _: (),
    ) -> None:
        self._catalog, self._problems, self._health, self._settings = catalog, problems, health, settings
        self._applying = Applying(catalog, problems, health, settings, may_begin_again, notes_of)
        self.runs: dict[str, RunDelivery] = {}
        """The runs that are delivered here, by uid: until the catalog has all of them, or they are dropped."""
        self.producer = 0
        """Who put the documents into the spool."""
        self.cursor = 0
        """The number of the last document in the spool that was handed on."""
        self._assets = Assets(has_handler)
        self._sequence = Sequence(self._assets)
        self._held: deque[tuple[str, Mapping[str, Any]]] = deque()
        self._why_held: CatalogError = CatalogUnreachableError()
        self._is_gathered, self._stamp = True, Reconciler(looks=settings.reconcile)

    @property
    def is_behind(self) -> bool:
        """Whether not all documents have become operations."""
        return bool(self._held) or not self._is_gathered

    @property
    def is_due(self) -> bool:
        """Whether there is something that the catalog may be tried with, or asked, now."""
        return bool(self._held) or any(run.is_due for run in self.runs.values())

    def expect(self, entry: Entry) -> RunDelivery:
        """The documents of a run will come here; those of others are no concern of this lane."""
        if entry.is_in_doubt:
            self._catalog.doubt(entry.uid)
        self._problems.begin(entry.uid)
        run = self.runs[entry.uid] = RunDelivery(entry)
        return run

    def drop(self, uid: str) -> None:
        """Have nothing more to do with a run, whatever comes of it."""
        self.runs.pop(uid, None)
        self._health.forget(uid)

    def read(self, document: Spooled, uid: str) -> None:
        """Take one document out of the spool, of a run by its uid; empty if it is of none."""
        try:
            doc, changes = document.read()
        except Exception as error:  # noqa: BLE001 - whatever it is
            # What cannot be read today can never be, and must not stand in the way of what follows.
            self._problems.add(uid, f"{document.name} document cannot be read out of the spool: {error!r}")
        else:
            for change in changes:
                self._problems.add(uid, f"{document.name} document: {change}.", lost=False)
            self.hand_on(document.name, doc)

    def hand_on(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document, or a page of them; what is wrong with it is put among the problems."""
        self._is_gathered = False
        if self._held:
            self._held.append((name, doc))
            return
        try:
            for single_name, single in unpacked(name, doc):
                self._check_and_follow(single_name, single)
        except (CatalogUnreachableError, CatalogAccessError) as error:
            # How arrays are registered depends on the server, and a stop has to know it.
            self._held.append((name, doc))
            self._why_held = error
        except Exception as error:
            # Whatever we overlooked, it must not end somebody's experiment.
            _logger.exception("A %s document could not be written.", name)
            self._problems.add(self._sequence.run_of(name, doc), f"{name} document cannot be written: {error!r}")

    def _check_and_follow(self, name: str, doc: Mapping[str, Any]) -> None:
        about = self._sequence.run_of(name, doc)
        fault = schema_fault(name, doc) if self._settings.validate else ""
        try:
            if name in _ANNOUNCEMENTS:
                announce(name, doc, self._assets)
            else:
                run = self.runs.get(about)
                if name == "stop" and run is not None and run.documents is not None:
                    # While it can still be given again: nothing has been made of it.
                    run.documents.ask_what_is_read()
                about = self._sequence.advance(name, doc)
                self._follow(name, doc, about)
        except DocumentError as error:
            self._problems.add(about, f"{error} ({fault})" if fault else str(error))
        else:
            if fault:
                uid = doc.get("uid") or doc.get("datum_id")
                self._problems.add(about, f"{name} {uid!r} is not of its schema: {fault}", lost=False)

    def _follow(self, name: str, doc: Mapping[str, Any], uid: str) -> None:
        run = self.runs.get(uid)
        if run is None:
            return
        if name == "start":
            run.begin(self._documents_of(doc), doc)
            return
        run.held_until = 0.0
        if run.documents is None or not run.is_open:
            why = "its run was closed before it came, or has no start that could be written"
            raise DocumentError(f"{name} {doc['uid']!r} is left out: {why}.")
        run.documents.receive(name, doc)
        if name == "stop":
            self._take_operations(run, run.documents)
            # Not before its stop has been received: it may come again, or the run be closed without.
            run.end(doc)
            run.begin_settling(self._settings.settle)
            if not any(other.is_open or other.settle_until is not None for other in self.runs.values()):
                self._assets.forget_old()

    def _documents_of(self, start: Mapping[str, Any]) -> RunDocuments:
        return Run(start, self._assets, inspect, self._catalog.reads, self._stamp, sizes_of, self._settings.view)

    def gather(self) -> None:
        """Make operations of everything that was handed on; raises as `write` does."""
        held, self._held = self._held, deque()
        while held and not self._held:
            self.hand_on(*held.popleft())
        self._held.extend(held)
        for run in self.runs.values():
            try:
                if run.is_open and run.documents is not None:
                    self._take_operations(run, run.documents)
            except (CatalogUnreachableError, CatalogAccessError):
                raise
            except Exception as error:
                # One run must not stand in the way of the others.
                _logger.exception("What came for run %s could not be made ready.", run.uid)
                self._problems.add(run.uid, f"events cannot be written: {error!r}")
        self._is_gathered = not self._held
        if self._held:
            raise self._why_held

    def write(self, until: float = math.inf) -> bool:
        """Have the catalog take what was handed on, run by run.

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
        for run in list(self.runs.values()):
            while run.is_due:
                if time.monotonic() > until:
                    return False
                self._applying.try_first(run)
            self.let_go(run)
        return True

    def let_go(self, run: RunDelivery) -> None:
        """Know nothing of a run any more that is delivered or parked, unless its end is still to be tried."""
        if run.state in ENDED and not run.operations:
            self.runs.pop(run.uid, None)

    def try_again(self) -> None:
        """Let nothing wait that the catalog has failed at."""
        for run in self.runs.values():
            run.go_on()

    def settle(self) -> None:
        """Look again at files that were missing or still being written when their run ended, and at doubted runs."""
        for run in self.runs.values():
            if run.settle_until is not None and run.documents is not None:
                self._settle(run, run.documents, run.settle_until)
            is_late = run.doubted_since is not None and time.monotonic() - run.doubted_since > _LATEST_SECONDS
            if is_late and not run.operations:
                # What is asked before it may come late in its turn: whatever closes the run anew begins the time anew.
                run.add([CheckRun(run.uid)])
                run.doubted_since = math.inf

    def _settle(self, run: RunDelivery, documents: RunDocuments, until: float) -> None:
        try:
            run.add(documents.settle())
        except Exception as error:
            # It would come again at every look.
            _logger.exception("The files of run %s could not be looked at again.", run.uid)
            self._problems.add(run.uid, f"its files could not be looked at again: {error!r}")
            until = 0.0
        if (documents.settled and not documents.is_looking) or time.monotonic() > until:
            run.end_settling(is_settled=documents.settled)
            if not documents.settled:
                self._problems.add_loss(run.uid, _INCOMPLETE)

    def cut_short(self, uid: str, reason: str) -> None:
        """Close a run whose stop document will never come, if it is open."""
        run = self.runs[uid]
        if run.documents is None or not run.is_open:
            return
        try:
            run.add([*run.documents.end_without_stop(reason), EndStreams(run.uid)])
        except (CatalogUnreachableError, CatalogAccessError):
            raise
        except Exception as error:
            # It would come again each time.
            _logger.exception("Run %s could not be closed.", uid)
            self._problems.add(uid, f"its end cannot be written: {error!r}")
        self._note_losses(run, run.documents)
        run.is_open, run.held_until = False, 0.0

    def _take_operations(self, run: RunDelivery, documents: RunDocuments) -> None:
        run.add(documents.take())
        self._note_losses(run, documents)

    def _note_losses(self, run: RunDelivery, documents: RunDocuments) -> None:
        for sentence in documents.take_losses():
            self._problems.add(run.uid, sentence)
