"""How a spool and the catalogs it delivers to are doing."""

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from .entries import STATES, DeliveryState
from .ledger import Ledger

__all__ = ["CatalogStatus", "SpoolStatus", "described_runs", "look_at"]

_MOST_LISTED = 100


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
        return SpoolStatus(directory, tuple(catalogs), ledger.strays(), tuple(sorted(directory.glob("damaged-*"))))


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
    return CatalogStatus(
        uri,
        error,
        ledger.counts(number),
        waiting,
        None if oldest is None else max(0.0, time.time() - oldest),
        ledger.parked(number, _MOST_LISTED),
        ledger.uploader(number),
    )
