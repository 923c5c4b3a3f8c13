"""How a spool, the catalogs it delivers to, and a writer are doing, as values."""

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from bluesky_filestore.visible import visible, without_secrets

from .entries import STATES, DeliveryState
from .handoffs import HandoffStatus, handoff_status
from .ledger import Ledger

__all__ = ["CatalogStatus", "SpoolStatus", "WriterStatus", "described_runs", "look_at"]

_MOST_LISTED = 100
_LENGTH = 8
_MOST_SHOWN = 5


@dataclass(frozen=True, slots=True)
class CatalogStatus:
    """How far the delivery to one catalog has come."""

    catalog: str
    """Its address."""
    error: str = ""
    """Why it does not take documents; empty if it did the last time."""
    runs: Mapping[DeliveryState, int] = field(default_factory=dict)
    """How many runs are waiting, uploading, settling, delivered and parked."""
    waiting: int = 0
    """How many documents it has not got yet."""
    oldest: float | None = None
    """For how many seconds the oldest run that has not been delivered to its end has waited, since its start."""
    lag: float | None = None
    """For how many seconds the oldest document has waited that it has not got; None if it has all."""
    parked: Mapping[str, str] = field(default_factory=dict)
    """Why runs are parked, by uid; some hundred at the most."""
    uploader: int | None = None
    """The process that delivers; None if none does."""


@dataclass(frozen=True, slots=True)
class SpoolStatus:
    """What is in a spool directory."""

    directory: Path
    """The spool directory."""
    catalogs: tuple[CatalogStatus, ...]
    """The catalogs it delivers to; one without an address if there are runs, and none is known yet."""
    strays: int
    """How many documents belong to no run that was begun in this spool."""
    damaged: tuple[Path, ...] = ()
    """Where damaged databases were put aside."""
    webhooks: tuple[HandoffStatus, ...] = ()
    """How those are doing who are to know of runs that are complete."""


@dataclass(frozen=True, slots=True, repr=False)
class WriterStatus:
    """How a `CatalogWriter` is doing."""

    documents: int
    """How many documents were received."""
    open_runs: tuple[str, ...]
    """The runs that were started and not stopped yet, by uid."""
    unsettled_runs: tuple[str, ...]
    """The runs that ended with files missing or still being written, which are looked at again."""
    problems: tuple[str, ...]
    """What went wrong with single documents or arrays, in words."""
    catalogs: tuple[CatalogStatus, ...]
    """How far the delivery to each catalog has come."""
    spool: Path | None = None
    """Where documents are kept until they are delivered; None if they are kept in memory."""
    unsaved: int = 0
    """How many documents are in memory only because the spool does not take them."""
    spool_error: str = ""
    """Why the spool does not take documents; empty if it does."""
    webhooks: tuple[HandoffStatus, ...] = ()
    """How those are doing who are to know of runs that are complete."""

    @property
    def catalog(self) -> str:
        """The address of the (first) catalog; empty if none is known yet."""
        return self.catalogs[0].catalog if self.catalogs else ""

    @property
    def error(self) -> str:
        """Why documents are not taken where they should go; empty if they are."""
        return " ".join(words for words in (self.spool_error, *(each.error for each in self.catalogs)) if words)

    @property
    def waiting(self) -> int:
        """How many documents (without a spool: operations) a catalog has not got yet."""
        return self.unsaved + max((each.waiting for each in self.catalogs), default=0)

    def __repr__(self) -> str:
        return visible(without_secrets("\n".join(self._lines())))

    def _lines(self) -> Iterator[str]:
        kept = f"kept in {self.spool}" if self.spool else "kept in memory"
        yield f"{self.documents:,} documents received, {self.waiting:,} not delivered yet ({kept})"
        if self.spool_error:
            yield f"  spool: {self.spool_error}"
        for each in self.catalogs:
            yield f"  {each.catalog}: {described_runs(each.runs) or 'no runs'}"
            if each.error:
                yield f"    takes no documents: {each.error}"
            for uid, reason in list(each.parked.items())[:_MOST_SHOWN]:
                yield f"    parked {uid[:_LENGTH]}: {reason}"
        for hook in self.webhooks:
            yield f"  webhook {hook.receiver}: {hook.words}"
        for words, uids in (("going on", self.open_runs), ("that are looked at again", self.unsettled_runs)):
            if uids:
                more = f" and {len(uids) - _MOST_SHOWN} more" if len(uids) > _MOST_SHOWN else ""
                yield f"  runs {words}: {', '.join(uid[:_LENGTH] for uid in uids[:_MOST_SHOWN])}{more}"
        if self.problems:
            count = len(self.problems)
            yield f"  {count} problem{'' if count == 1 else 's'}, the last: {self.problems[-1]}"


def look_at(directory: Path) -> SpoolStatus:
    """How a spool is doing, whoever uses it.

    Raises
    ------
    SpoolError
        If it cannot be read.
    """
    with closing(Ledger(directory)) as ledger:
        catalogs = [_status(ledger, number, *said) for number, said in ledger.catalogs().items()]
        if not catalogs and (unknown := _status(ledger, 0, "", "")).runs:
            catalogs = [unknown]
        damaged, webhooks = tuple(sorted(directory.glob("damaged-*"))), tuple(handoff_status(ledger))
        return SpoolStatus(directory, tuple(catalogs), ledger.strays(), damaged, webhooks)


def described_runs(runs: Mapping[DeliveryState, int]) -> str:
    """How many runs there are of each state, in words; empty if there are none.

    Examples
    --------
    >>> described_runs({"delivered": 14, "waiting": 2})
    '2 runs waiting, 14 delivered'
    """
    known = [(state, runs[state]) for state in STATES if runs.get(state)]
    words = [f"{count:,} {state}" for state, count in known]
    if known:
        words[0] = f"{known[0][1]:,} run{'' if known[0][1] == 1 else 's'} {known[0][0]}"
    return ", ".join(words)


def _status(ledger: Ledger, number: int, uri: str, error: str) -> CatalogStatus:
    waiting, oldest = ledger.waiting_documents(number)
    since, now = ledger.first_waiting(number) if waiting else None, time.time()
    return CatalogStatus(
        uri,
        error,
        ledger.counts(number),
        waiting,
        None if oldest is None else max(0.0, now - oldest),
        None if since is None else max(0.0, now - since),
        ledger.parked(number, _MOST_LISTED),
        ledger.uploader(number),
    )
