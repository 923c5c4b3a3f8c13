"""What waits in a spool, delivered to a catalog while somebody watches."""

import math
import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
from bluesky_filestore.errors import CatalogAccessError, CatalogError, CatalogUnreachableError
from bluesky_filestore.operations.placement import Viewer
from bluesky_filestore.spool.entries import DeliveryState
from bluesky_filestore.spool.ledger import Ledger

from .settings import DeliverySettings
from .uploader import Uploader
from .webhook import Webhook

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = ["Progress", "deliver_runs", "follow"]

_LOOK_SECONDS = 0.2
_PAUSES = 10
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 10.0
_CLOSE_SECONDS = 10.0
_PATIENCE_SECONDS = 600.0
# By producer: how many runs are neither delivered nor parked, and how many of these have no stop document yet.
_UNFINISHED = (
    "SELECT producer, count(*), count(*) - count(stopped) FROM runs LEFT JOIN deliveries ON run = id AND catalog = ? "
    "WHERE fault = '' AND coalesce(state, 'waiting') NOT IN ('delivered', 'parked') GROUP BY producer"
)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a delivery has come."""

    waiting: int
    """How many documents the catalog has not got yet."""
    runs: Mapping[DeliveryState, int]
    """How many runs there are of each state."""
    uploader: int | None
    """The other process that delivers; None if it is this one, or none."""
    error: str
    """Why the catalog does not take documents; empty if it does."""
    done: bool
    """Whether every run is delivered or parked, but for those that are still going on in another process."""
    going_on: int
    """How many runs are still going on."""
    failing: Mapping[str, str] = field(default_factory=dict)
    """The runs at which the catalog fails while it answers others, by uid, and at what."""


def follow(
    directory: Path,
    uri: str,
    make_client: "Callable[[], Container]",
    *,
    wait: float,
    park_after: float = 60.0,
    view: Viewer | None = None,
    webhook: Webhook | None = None,
) -> Generator[Progress, None, None]:
    """Deliver what waits for a catalog, or watch the process that does, until nothing is left.

    Closing the iterator ends the delivery after the request that is under way.

    Parameters
    ----------
    directory : Path
        The spool directory.
    uri : str
        The address of the catalog's container, as the spool knows it.
    make_client : callable
        Makes a client for it.
    wait : float
        For how many seconds the catalog may not take documents before that is an error.
    park_after : float
        For how many seconds a request is tried again at which the catalog fails while it answers others.
    view : Viewer, optional
        Makes files for what no stock adapter can address.
    webhook : Webhook, optional
        Who is to know of runs that are complete.

    Raises
    ------
    CatalogUnreachableError
        If it does not take documents for so long.
    CatalogAccessError
        If it does not take the API key; waiting would not help.
    SpoolError
        If the spool cannot be read.
    """
    # Who only delivers does not clean up: how long runs are kept is for the writer to say.
    settings = DeliverySettings(interval=_LOOK_SECONDS, keep=math.inf, park_after=park_after, view=view)
    settings = replace(settings, webhook=webhook)
    delivering = _Delivering(directory, uri, make_client, settings)
    away_since: float | None = None
    try:
        with closing(Ledger(directory)) as ledger:
            while True:
                began = time.monotonic()
                # Each time: it may be known under another number once it has connected.
                number = ledger.register_catalog(uri)
                progress = _look(ledger, number, delivering)
                took = time.monotonic() - began
                yield progress
                if progress.done:
                    return
                delivering.step_in(ledger.uploader(number))
                away_since = (away_since or time.monotonic()) if progress.error else None
                if away_since is not None and time.monotonic() - away_since >= wait:
                    raise _still_away(progress, directory)
                # Looking at much must not take the time away from delivering it.
                time.sleep(max(_LOOK_SECONDS, _PAUSES * took))
    finally:
        delivering.end()


def deliver_runs(directory: Path, catalog: TiledCatalog, uids: Sequence[str]) -> dict[str, str]:
    """Have a catalog take runs that are in a spool of their own, all of them; why those are parked that are.

    Parameters
    ----------
    directory : Path
        The spool directory.
    catalog : TiledCatalog
        Where they go.
    uids : sequence of str
        The runs.

    Raises
    ------
    CatalogError
        If the catalog does not take them.
    """
    if not uids:
        return {}
    uploader = Uploader(directory, catalog, DeliverySettings(interval=0.05, settle=0.0, keep=math.inf))
    try:
        uploader.look_around()
        for uid in uids:
            until = time.monotonic() + _PATIENCE_SECONDS
            while not uploader.wait_until_readable(uid, until - time.monotonic()):
                if uploader.error is not None or uploader.trouble or time.monotonic() > until:
                    raise uploader.error or CatalogError(
                        f"the catalog did not take run {uid}: {uploader.trouble or 'it has not answered'}"
                    )
        return {uid: why for uid in uids if (why := uploader.why_parked(uid))}
    finally:
        uploader.close(_PATIENCE_SECONDS)


def _still_away(progress: Progress, directory: Path) -> CatalogUnreachableError:
    return CatalogUnreachableError(
        f"{progress.error} Nothing is lost: {progress.waiting} documents wait in {directory}; run the command again "
        f"when the catalog is back, with --wait if that takes its time."
    )


class _Delivering:
    """An uploader of our own, as soon as nobody else delivers and the catalog answers."""

    def __init__(
        self, directory: Path, uri: str, make_client: "Callable[[], Container]", settings: DeliverySettings
    ) -> None:
        self._directory, self._settings = directory, settings
        self._catalog = TiledCatalog(make_client, uri)
        self._uploader: Uploader | None = None
        self._error: CatalogError | None = None
        self._wait, self._next_try = _FIRST_WAIT, 0.0

    @property
    def error(self) -> CatalogError | None:
        """Why the catalog does not take documents from us."""
        return self._uploader.error if self._uploader is not None else self._error

    @property
    def failing_runs(self) -> Mapping[str, str]:
        """The runs at which the catalog fails while it answers others, by uid, and at what."""
        return self._uploader.failing_runs if self._uploader is not None else {}

    def step_in(self, holder: int | None) -> None:
        """Begin to deliver if nobody does.

        Raises
        ------
        CatalogAccessError
            If the API key is not taken.
        """
        if isinstance(self.error, CatalogAccessError):
            raise self.error
        if self._uploader is not None or holder is not None or time.monotonic() < self._next_try:
            return
        try:
            self._catalog.connect()
            self._uploader = Uploader(self._directory, self._catalog, self._settings)
            self._error = None
        except CatalogUnreachableError as error:
            self._error = error
            self._next_try = time.monotonic() + self._wait
            self._wait = min(2 * self._wait, _LONGEST_WAIT)

    def end(self) -> None:
        """Let others deliver."""
        if self._uploader is not None:
            self._uploader.close(_CLOSE_SECONDS)
        self._catalog.close()


def _look(ledger: Ledger, number: int, delivering: _Delivering) -> Progress:
    # All of them, however many: a source may have any number of runs that never end before those that did.
    unfinished = ledger.rows(_UNFINISHED, number)
    going_on = sum(still for producer, _, still in unfinished if still and ledger.is_alive(producer))
    holder = ledger.uploader(number)
    is_other = holder is not None and holder != os.getpid()
    said = ledger.catalogs().get(number, ("", ""))[1] if is_other else str(delivering.error or "")
    return Progress(
        waiting=ledger.waiting_documents(number)[0],
        runs=ledger.counts(number),
        uploader=holder if is_other else None,
        error=said,
        done=going_on == sum(count for _, count, _ in unfinished),
        going_on=going_on,
        failing=delivering.failing_runs,
    )
