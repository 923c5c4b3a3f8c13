"""Documents put into a spool as they come, and delivered from there."""

import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from bluesky_filestore.errors import CatalogUnreachableError, SpoolError
from bluesky_filestore.logs import get_logger
from bluesky_filestore.operations.operations import Catalog
from bluesky_filestore.spool.belonging import text_in
from bluesky_filestore.spool.ledger import Ledger
from bluesky_filestore.spool.places import is_private
from bluesky_filestore.spool.store import Durability, Store
from bluesky_filestore.visible import storable

from .settings import AS_USUAL, DeliverySettings
from .uploader import POLL_SECONDS, Uploader

__all__ = ["RunSummary", "Spooling"]

_logger = get_logger(__name__)

_LAST_ROUND_SECONDS = 10.0
# A detector is unstaged, and its file closed, a moment after its run's last document.
_SETTLE_AT_CLOSE = 2.0
_OF_NEW_NODES = ("start", "descriptor")
_EVENTS = ("event", "event_page")
_MOST_NAMED, _LENGTH = 5, 8
# As long as another process may take for its next step, with a slow catalog.
_PATIENCE_SECONDS = 30.0


class RunSummary:
    """Remembers the starts of runs, for a line about each at its end.

    Examples
    --------
    >>> summary = RunSummary()
    >>> summary.start({"uid": "3f2a9c01-77aa", "scan_id": 12, "time": 100.0})
    >>> summary.stop({"run_start": "3f2a9c01-77aa", "time": 112.3, "num_events": {"primary": 30, "baseline": 2}})
    'Run 3f2a9c01 (scan 12, success): primary 30 events, baseline 2 events in 12.3 s'
    """

    def __init__(self) -> None:
        self._starts: dict[str, tuple[object, object]] = {}

    def start(self, doc: Mapping[str, Any]) -> None:
        """A run begins."""
        self._starts[str(doc.get("uid", ""))] = doc.get("scan_id"), doc.get("time")

    def stop(self, doc: Mapping[str, Any]) -> str:
        """A run ends: the line, without a full stop; empty if the run is not known."""
        uid = str(doc.get("run_start", ""))
        if uid not in self._starts:
            return ""
        scan, began = self._starts.pop(uid)
        named = "" if scan is None else f"scan {scan}, "
        words = f"Run {uid[:_LENGTH]} ({named}{doc.get('exit_status', 'success')})"
        counts = doc.get("num_events")
        if isinstance(counts, Mapping):
            told = ", ".join(f"{stream} {count} event{'' if count == 1 else 's'}" for stream, count in counts.items())
            words += f": {told or 'no events'}"
        ended = doc.get("time")
        if isinstance(began, int | float) and isinstance(ended, int | float):
            words += f" in {max(0.0, ended - began):.1f} s"
        return storable(words)


class _Patience:
    """How long another process, which delivers, is waited for while nothing comes of it."""

    def __init__(self) -> None:
        self.is_over = False
        self.words = ""
        self._waiting = -1
        self._since = time.monotonic()

    def ends(self, waiting: int, holder: int | None) -> bool:
        """Whether it is over, with so many documents still waiting."""
        if waiting != self._waiting or holder is None:
            self._waiting, self._since = waiting, time.monotonic()
        self.is_over = time.monotonic() - self._since > _PATIENCE_SECONDS
        self.words = f"Process {holder} delivers, and has done nothing for {_PATIENCE_SECONDS:g} s."
        return self.is_over


class Spooling:
    """Puts documents into a spool, and has an uploader for each catalog deliver them.

    Parameters
    ----------
    directory : Path
        The spool directory.
    catalogs : sequence of Catalog
        Where the documents go.
    wait_on_stop : float
        For how many seconds at most a stop document waits until its run is readable.
    durability : {"normal", "full"}
        When a document is safe from a power failure.
    settings : DeliverySettings
        How they are delivered.
    batch_size : int
        After how many events they are delivered at the latest, before `interval` is over.

    Raises
    ------
    SpoolError
        If the directory cannot be used.
    """

    def __init__(
        self,
        directory: Path,
        catalogs: Sequence[Catalog],
        *,
        wait_on_stop: float,
        durability: Durability,
        settings: DeliverySettings = AS_USUAL,
        batch_size: int = 10_000,
    ) -> None:
        self.store = Store(directory, durability=durability)
        self._wait_on_stop = wait_on_stop
        self._summary = RunSummary()
        self._closed = False
        self._is_new = False
        self._batch_size, self._events = batch_size, 0
        self.uploaders: list[Uploader] = []
        try:
            for catalog in catalogs:
                self.uploaders.append(Uploader(directory, catalog, settings))
        except BaseException:
            # Who gets an error has nothing to close.
            for uploader in self.uploaders:
                uploader.close(_LAST_ROUND_SECONDS)
            self.store.close()
            raise

    @property
    def directory(self) -> Path:
        """The spool directory."""
        return self.store.directory

    @property
    def unsettled_runs(self) -> tuple[str, ...]:
        """The runs that ended with files missing or still being written, which are looked at again."""
        return tuple(dict.fromkeys(uid for uploader in self.uploaders for uid in uploader.unsettled_runs))

    @property
    def problems(self) -> tuple[str, ...]:
        """What went wrong with single documents or arrays."""
        return tuple(dict.fromkeys(words for uploader in self.uploaders for words in uploader.problems.all()))

    def put(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document; a stop waits for its run to be readable.

        Raises
        ------
        SpoolError
            If the disk does not take it. It is kept in memory then.
        """
        self.store.append(name, doc)
        if name in _OF_NEW_NODES or self._is_new:
            self._wake_for_new_nodes(name)
        elif name in _EVENTS:
            self._events += 1
            if self._events >= self._batch_size:
                self._events = 0
                self._wake_uploaders()
        if name == "start":
            self._summary.start(doc)
            for uploader in self.uploaders:
                # Not even if it was before, and comes a second time.
                uploader.readable.discard(text_in(doc, "uid"))
        elif name == "stop" and (summary := self._summary.stop(doc)):
            self._after_stop(text_in(doc, "run_start"), summary)

    def _wake_for_new_nodes(self, name: str) -> None:
        """Have what is slow for a catalog, the making of a run and of its tables, done while documents come."""
        is_event = name in _EVENTS
        if name == "descriptor" or is_event:
            self._wake_uploaders()
        self._is_new = not is_event

    def _wake_uploaders(self) -> None:
        for uploader in self.uploaders:
            uploader.wake()

    def flush(self, timeout: float) -> None:
        """Wait until everything that was received is in the catalogs.

        Parameters
        ----------
        timeout : float
            For how many seconds to wait for files that were missing or still being written when their run ended.

        Raises
        ------
        CatalogError
            If a catalog does not take it; the others are waited for all the same.
        SpoolError
            If the spool cannot be read, or does not take what is in memory; or in a forked process.
        """
        if not self.store.is_ours:
            raise SpoolError(
                f"the writer to the spool in {self.directory} belongs to the process from which this one was forked, "
                f"which delivers what is in it; make a new one here."
            )
        errors: list[CatalogUnreachableError | SpoolError] = []
        try:
            self.store.save()
        except SpoolError as error:
            errors.append(error)
        for uploader in self.uploaders:
            uploader.try_again()
        for uploader in self.uploaders:
            try:
                self._flush(uploader, timeout)
            except (CatalogUnreachableError, SpoolError) as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def close(self) -> None:
        """Wait until everything that was received is in the catalogs, unless one is away, and end.

        Files that are still being written, or missing, are waited for two seconds. What is not there
        then waits in the spool; runs that are open are taken to be cut short. A second call does nothing.

        Raises
        ------
        CatalogUnreachableError
            If a catalog does not take it.
        SpoolError
            If the disk does not take what is in memory.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self.store.close()
            self.flush(_SETTLE_AT_CLOSE)
            if self.store.open_runs:
                # Not before all of their documents are there: who looks sooner leaves such a run for later.
                for uploader in self.uploaders:
                    uploader.look_around()
                self.flush(_SETTLE_AT_CLOSE)
        finally:
            for uploader in self.uploaders:
                uploader.close(_LAST_ROUND_SECONDS)

    def _flush(self, uploader: Uploader, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        # The round that is under way may not have seen the last documents.
        rounds = uploader.rounds + 1

        patience = _Patience()

        def is_done() -> bool:
            uploader.wake(POLL_SECONDS)
            waiting, holder = self._waiting(uploader)
            unsettled = (
                uid for uid in uploader.unsettled_runs if not self._closed or not uploader.catalog.in_doubt(uid)
            )
            settled = time.monotonic() >= deadline or not any(unsettled)
            if uploader.delivers and uploader.failing_runs:
                # All else was taken; it would last until these are parked.
                failing.update(uploader.failing_runs)
                return True
            return (settled and waiting == 0) or (not uploader.delivers and patience.ends(waiting, holder))

        failing: dict[str, str] = {}
        done = uploader.wait_for(is_done, after=rounds)
        if not done or patience.is_over or failing:
            why = "; ".join(f"run {uid}: {error}" for uid, error in list(failing.items())[:_MOST_NAMED])
            words = str(uploader.error or uploader.trouble or patience.words or why or "The writer is closed.")
            kind = SpoolError if uploader.trouble and uploader.error is None else CatalogUnreachableError
            others = "." if is_private(self.directory) else ", and so does the next writer with that spool."
            raise kind(
                f"{words} Nothing is lost: what {uploader.catalog.uri} has not got waits in {self.directory}; "
                f"`bluesky-filestore resume {shlex.quote(str(self.directory))}` delivers it{others}"
            ) from uploader.error

    def _waiting(self, uploader: Uploader) -> tuple[int, int | None]:
        """How many of our documents wait, and the process that delivers them."""
        with closing(Ledger(self.directory)) as ledger:
            number = ledger.register_catalog(uploader.catalog.uri)
            return ledger.waiting_documents(number, self.store.producer)[0], ledger.uploader(number)

    def _after_stop(self, uid: str, summary: str) -> None:
        began = time.monotonic()
        self._wake_uploaders()
        for uploader in self.uploaders:
            left = self._wait_on_stop - (time.monotonic() - began)
            if left > 0 and uploader.wait_until_readable(uid, left):
                self._say_readable(uploader, uid, summary)
            elif self._wait_on_stop > 0:
                long = f"it took longer than {self._wait_on_stop:g} s."
                why = uploader.error or uploader.trouble or uploader.silence or long
                _logger.warning(
                    "%s; not in %s yet, it waits in %s and will be delivered: %s",
                    summary,
                    uploader.catalog.uri,
                    self.directory,
                    why,
                )
            else:
                _logger.info("%s; kept in %s for %s.", summary, self.directory, uploader.catalog.uri)

    def _say_readable(self, uploader: Uploader, uid: str, summary: str) -> None:
        lost = uploader.why_parked(uid)
        if lost:
            _logger.warning("%s; parked, not all of it is in %s: %s", summary, uploader.catalog.uri, lost)
        elif uid in uploader.unsettled_runs:
            why = "the catalog did not answer to everything"
            if not uploader.catalog.in_doubt(uid):
                why = "files of it are still being written, or missing"
            _logger.info("%s; in %s. It is looked at again: %s.", summary, uploader.catalog.uri, why)
        else:
            _logger.info("%s; in %s.", summary, uploader.catalog.uri)
