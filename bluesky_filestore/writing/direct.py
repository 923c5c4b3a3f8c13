"""Documents written into a catalog as they come, without a spool."""

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

from bluesky_filestore.errors import (
    CatalogAccessError,
    CatalogError,
    CatalogUnreachableError,
    RowsDifferError,
)

from .delivery import CUT_SHORT, Delivery
from .operations import Catalog
from .problems import Problems

__all__ = ["DirectWriting"]

_logger = logging.getLogger(__name__)
# A file may be closed, or its last frame written, only after the run's last document: a detector is unstaged later.
_FIRST_LOOK, _SLOWEST_LOOK = 0.05, 5.0
_SETTLE_AT_CLOSE = 2.0


class DirectWriting:
    """Writes documents into a catalog, partly in the thread that brings them and partly in one of its own.

    What a catalog does not take is kept in memory and tried again.

    Parameters
    ----------
    catalog : Catalog
        Where the documents go.
    batch_size : int
        How many events are gathered at most before they are written.
    interval : float
        After how many seconds events are written although they are few.
    settle : float
        For how many seconds after a run's end its files are waited for, if some are missing or still being written.
    validate : bool
        Whether documents are checked against event-model's schemas.
    """

    def __init__(self, catalog: Catalog, *, batch_size: int, interval: float, settle: float, validate: bool) -> None:
        self.catalog = catalog
        self.documents = 0
        """How many documents were taken."""
        self.error: CatalogError | None = None
        """Why the catalog does not take documents, if it does not."""
        self.problems = Problems()
        """What went wrong with single documents or arrays."""
        self._delivery = Delivery(catalog, self.problems, settle=settle, validate=validate)
        self._batch_size, self._interval = batch_size, interval
        self._written = time.monotonic()
        self._background: threading.Thread | None = None
        self._pause = interval
        self._wake = threading.Event()
        self._closing = False
        self._lock = threading.RLock()

    @property
    def open_runs(self) -> tuple[str, ...]:
        """The runs that were started and not stopped yet, by uid."""
        return self._delivery.open_runs

    @property
    def unsettled_runs(self) -> tuple[str, ...]:
        """The runs that ended with files missing or still being written, which are looked at again."""
        return self._delivery.unsettled_runs

    @property
    def waiting(self) -> int:
        """How many operations the catalog has not taken yet."""
        return self._delivery.waiting_operations

    def receive(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document."""
        with self._lock:
            self.documents += 1
            self._delivery.receive(name, doc)
            if name in ("start", "stop") or self._due or self._delivery.waiting_events >= self._batch_size:
                self._write()
            if self.open_runs or self.unsettled_runs:
                if name == "stop":
                    self._pause = _FIRST_LOOK
                    self._wake.set()
                self._start_background()

    def flush(self, timeout: float) -> None:
        """Write everything that was received, and wait so long for files that are missing or still being written.

        Raises
        ------
        CatalogError
            If the catalog does not take it.
        """
        deadline = time.monotonic() + timeout
        while True:
            with self._lock:
                self._delivery.settle()
                self._write()
                if self.error is not None:
                    raise self.error
                if not self.unsettled_runs or time.monotonic() >= deadline:
                    return
            time.sleep(_FIRST_LOOK)

    def close(self) -> None:
        """Write everything that was received, close the runs that are open, and look two seconds longer for files.

        Raises
        ------
        CatalogError
            If the catalog does not take it.
        """
        self._closing = True
        self._wake.set()
        background = self._background
        if background is not None:
            background.join()
        with self._lock:
            for uid in self.open_runs:
                self._delivery.cut_short(uid, CUT_SHORT)
        self.flush(_SETTLE_AT_CLOSE)

    @property
    def _due(self) -> bool:
        # A catalog that does not answer may take seconds to say so each time.
        pause = self._interval if self.error is None else max(self._interval, _SLOWEST_LOOK)
        return time.monotonic() - self._written >= pause

    def _start_background(self) -> None:
        if self._background is None and not self._closing:
            self._background = threading.Thread(target=self._keep_writing, name="catalog-writer", daemon=True)
            self._background.start()

    def _keep_writing(self) -> None:
        """Write what a slow plan leaves lying, and look again for files, as long as there is something to wait for."""
        while not self._closing:
            self._wake.wait(self._pause if self.unsettled_runs else max(self._interval, _FIRST_LOOK))
            self._wake.clear()
            with self._lock:
                self._delivery.settle()
                if (self.waiting and self.error is None) or self._due:
                    self._write()
                if not (self.open_runs or self.unsettled_runs):
                    self._background = None
                    return
                self._pause = min(2 * self._pause, _SLOWEST_LOOK)

    def _write(self) -> None:
        try:
            if self.error is not None:
                # Asking costs a moment where Tiled's client would try for a minute.
                self.catalog.check()
            self._delivery.gather()
            if not self.waiting:
                return
            if self.error is None:
                self.catalog.check()
            self._deliver()
        except (CatalogUnreachableError, CatalogAccessError) as error:
            if self.error is None:
                _logger.error("The catalog takes no documents, they are kept: %s", error)
            self.error = error
        except CatalogError as error:
            _logger.error("%s", error)
        else:
            if self.error is not None:
                _logger.warning("The catalog at %s takes documents again.", self.catalog.uri)
            self.error = None
        finally:
            self._written = time.monotonic()

    def _deliver(self) -> None:
        while True:
            try:
                self._delivery.write()
                return
            except RowsDifferError as error:
                # Nobody has the run's earlier documents any more, from which its table could be made anew.
                self.problems.add(error.run, str(error))
                self._delivery.skip_rows()
