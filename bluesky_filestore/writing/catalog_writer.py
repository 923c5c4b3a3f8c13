"""What is subscribed to a RunEngine: documents in, a catalog of runs out."""

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from bluesky_filestore.errors import CatalogAccessError, CatalogError, CatalogUnreachableError, DocumentError
from bluesky_filestore.frames import Assets
from bluesky_filestore.normalize import unpacked
from bluesky_filestore.sequence import Sequence
from bluesky_filestore.validate import schema_fault

from .connecting import connect, connect_profile
from .inspecting import inspect
from .operations import Catalog, CloseRun, Operation
from .problems import Problems
from .run import Run, announce
from .tiled import TiledCatalog

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = ["CatalogWriter", "WriterStatus"]

_logger = logging.getLogger(__name__)
# A file may be closed, or its last frame written, only after the run's last document: a detector is unstaged later.
_FIRST_LOOK, _SLOWEST_LOOK = 0.05, 5.0
_ANNOUNCEMENTS = ("resource", "stream_resource", "datum")


@dataclass(frozen=True, slots=True)
class WriterStatus:
    """How a `CatalogWriter` is doing."""

    catalog: str
    """The address of the catalog."""
    documents: int
    """How many documents were received."""
    open_runs: tuple[str, ...]
    """The runs that were started and not stopped yet, by uid."""
    waiting: int
    """How many operations the catalog has not taken yet."""
    error: str
    """Why the catalog does not take them; empty if it does."""
    unsettled_runs: tuple[str, ...]
    """The runs that ended with files missing or still being written, which are looked at again."""
    problems: tuple[str, ...]
    """What went wrong with single documents or arrays, in words."""


class CatalogWriter:
    """Writes the documents of runs into a Tiled catalog, in the tree that bluesky-tiled-plugins' clients read.

    A catalog that fails does not fail the plan: what it did not take is kept and tried again with the next documents;
    `status` tells, and `flush` and `close` raise.

    Parameters
    ----------
    client : tiled.client.container.Container
        The container that the runs go into.
    batch_size : int
        How many events are gathered at most before they are written.
    interval : float
        After how many seconds events are written although they are few.
    settle : float
        For how many seconds after a run's end its files are waited for, if some are missing or still being written.
    validate : bool
        Whether documents are checked against event-model's schemas. It costs a microsecond for an event that is of
        its schema, and is noted where a document is not; what can be understood of it is written all the same. What
        documents refer to is always checked.

    Examples
    --------
    >>> writer = CatalogWriter.from_uri("http://localhost:8000", api_key="secret")  # doctest: +SKIP
    >>> RE.subscribe(writer)  # doctest: +SKIP
    """

    def __init__(
        self,
        client: "Container",
        *,
        batch_size: int = 10_000,
        interval: float = 0.5,
        settle: float = 60.0,
        validate: bool = True,
    ) -> None:
        self._catalog: Catalog = TiledCatalog(client)
        self._own_client: Container | None = None
        self._batch_size, self._interval = batch_size, interval
        self._validate = validate
        self._assets = Assets()
        self._sequence = Sequence(self._assets)
        self._runs: dict[str, Run] = {}
        self._waiting: deque[Operation] = deque()
        self._problems = Problems()
        self._error: CatalogError | None = None
        self._documents = 0
        self._written = time.monotonic()
        self._settle_time = settle
        self._unsettled: dict[str, tuple[Run, float]] = {}
        self._background: threading.Thread | None = None
        self._pause = interval
        self._wake = threading.Event()
        self._closing = False
        self._lock = threading.RLock()

    @classmethod
    def from_uri(cls, uri: str, **client_kwargs: Any) -> "CatalogWriter":
        """A writer for the catalog at an address; the arguments are those of ``tiled.client.from_uri``.

        Raises
        ------
        CatalogUnreachableError
            If nobody answers at the address.
        CatalogAccessError
            If the API key is not taken.
        """
        return cls._owning(connect(uri, **client_kwargs))

    @classmethod
    def from_profile(cls, name: str, **client_kwargs: Any) -> "CatalogWriter":
        """A writer for the catalog that a Tiled profile names; raises as `from_uri` does."""
        return cls._owning(connect_profile(name, **client_kwargs))

    @classmethod
    def _owning(cls, client: "Container") -> "CatalogWriter":
        writer = cls(client)
        writer._own_client = client
        return writer

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document. Nothing that goes wrong is raised: the plan goes on, and `status` tells."""
        with self._lock:
            self._documents += 1
            try:
                self._take(name, doc)
            except Exception as error:
                # Whatever we overlooked, it must not end somebody's experiment.
                _logger.exception("A %s document could not be written.", name)
                self._problems.add(self._sequence.run_of(name, doc), f"{name} document cannot be written: {error!r}")

    def flush(self, timeout: float | None = None) -> None:
        """Write everything that was received.

        Parameters
        ----------
        timeout : float, optional
            How many seconds to wait for files that were missing or still being written when their run ended. By
            default they are looked at once more.

        Raises
        ------
        CatalogError
            If the catalog does not take it.
        """
        deadline = time.monotonic() + (timeout or 0.0)
        while True:
            with self._lock:
                self._settle()
                self._write()
                if self._error is not None:
                    raise self._error
                if not self._unsettled or time.monotonic() >= deadline:
                    return
            time.sleep(_FIRST_LOOK)

    def status(self) -> WriterStatus:
        """How the writer is doing."""
        with self._lock:
            return WriterStatus(
                catalog=self._catalog.uri,
                documents=self._documents,
                open_runs=tuple(self._runs),
                unsettled_runs=tuple(self._unsettled),
                waiting=len(self._waiting),
                error=str(self._error or ""),
                problems=self._problems.all(),
            )

    def close(self) -> None:
        """Write everything that was received, and look no longer for files; raises as `flush` does.

        A client that was given stays open, one that the writer made is closed.
        """
        self._closing = True
        self._wake.set()
        background = self._background
        if background is not None:
            background.join()
        self.flush()
        if self._own_client is not None:
            self._own_client.context.close()

    def __enter__(self) -> "CatalogWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, name: str, doc: Mapping[str, Any]) -> None:
        for single_name, single in unpacked(name, doc):
            self._receive(single_name, single)
        waiting_events = sum(run.waiting for run in self._runs.values())
        if name in ("start", "stop") or waiting_events >= self._batch_size or self._due:
            self._write()
        if self._runs or self._unsettled:
            self._start_background()

    @property
    def _due(self) -> bool:
        # A catalog that does not answer may take seconds to say so each time.
        pause = self._interval if self._error is None else max(self._interval, _SLOWEST_LOOK)
        return time.monotonic() - self._written >= pause

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
                self._problems.add(about, f"{name} {uid!r} is not of its schema: {fault}")

    def _follow(self, name: str, doc: Mapping[str, Any], uid: str) -> None:
        if name == "start":
            self._runs[uid] = Run(doc, self._assets, inspect)
            return
        if uid not in self._runs:
            raise DocumentError(f"{name} {doc['uid']!r} is left out: the start of its run could not be written.")
        if name != "stop":
            self._runs[uid].receive(name, doc)
            return
        run = self._runs.pop(uid)
        run.receive(name, doc)
        self._waiting.extend(run.take())
        if not run.settled:
            self._unsettled[uid] = (run, time.monotonic() + self._settle_time)
            self._pause = _FIRST_LOOK
            self._wake.set()
        if not self._runs and not self._unsettled:
            self._assets.forget_old()

    def _start_background(self) -> None:
        if self._background is None and not self._closing:
            self._background = threading.Thread(target=self._keep_writing, name="catalog-writer", daemon=True)
            self._background.start()

    def _keep_writing(self) -> None:
        """Write what a slow plan leaves lying, and look again for files, as long as there is something to wait for."""
        while not self._closing:
            self._wake.wait(self._pause if self._unsettled else max(self._interval, _FIRST_LOOK))
            self._wake.clear()
            with self._lock:
                self._settle()
                if (self._waiting and self._error is None) or self._due:
                    self._write()
                if not (self._runs or self._unsettled):
                    self._background = None
                    return
                self._pause = min(2 * self._pause, _SLOWEST_LOOK)

    def _settle(self) -> None:
        for uid, (run, deadline) in list(self._unsettled.items()):
            try:
                self._waiting.extend(run.settle())
            except Exception as error:
                # It would come again at every look.
                _logger.exception("The files of run %s could not be looked at again.", uid)
                self._problems.add(uid, f"its files could not be looked at again: {error!r}")
                deadline = 0.0
            if run.settled or time.monotonic() > deadline:
                del self._unsettled[uid]

    def _write(self) -> None:
        for run in self._runs.values():
            try:
                self._waiting.extend(run.take())
            except Exception as error:
                # One run must not stand in the way of the others.
                _logger.exception("What came for run %s could not be made ready.", run.uid)
                self._problems.add(run.uid, f"events cannot be written: {error!r}")
        self._written = time.monotonic()
        if not self._waiting:
            return
        try:
            # Asking costs a moment where Tiled's client would try for a minute.
            self._catalog.check()
            while self._waiting:
                self._apply(self._waiting[0])
                self._waiting.popleft()
        except (CatalogUnreachableError, CatalogAccessError) as error:
            if self._error is None:
                _logger.error("The catalog takes no documents, they are kept: %s", error)
            self._error = error
        else:
            if self._error is not None:
                _logger.warning("The catalog at %s takes documents again.", self._catalog.uri)
            self._error = None
        self._written = time.monotonic()

    def _apply(self, operation: Operation) -> None:
        problems = self._problems.of(operation.run) if isinstance(operation, CloseRun) else ()
        if isinstance(operation, CloseRun) and problems:
            notes = [*operation.metadata.get("notes", ()), *problems]
            operation = replace(operation, metadata={**operation.metadata, "notes": notes})
        try:
            self._catalog.apply(operation)
        except (CatalogUnreachableError, CatalogAccessError):
            raise
        except CatalogError as error:
            # One node that the catalog will not have must not keep the rest of the run from it.
            self._problems.add(operation.run, f"{type(operation).__name__} of {_name(operation)}: {error}")
        except Exception as error:
            # An operation that cannot be applied at all must not stand in the way of all that follow it.
            _logger.exception("%s of %s could not be applied.", type(operation).__name__, _name(operation))
            self._problems.add(operation.run, f"{type(operation).__name__} of {_name(operation)}: {error!r}")


def _name(operation: Operation) -> str:
    parts = (getattr(operation, part, None) for part in ("run", "stream", "data_key"))
    return "/".join(part for part in parts if part)
