"""Events on their way into a table, and what the table's columns will not say of them."""

import datetime
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bluesky_filestore.model.event_record import EventRecord
from bluesky_filestore.visible import storable

from .columns import is_masked

__all__ = ["GatheredEvent", "Numbering", "completed"]

_EXACT_IN_FLOAT = range(-(2**53), 2**53 + 1)
_MOST_SKIPPED = 10_000


@dataclass(frozen=True, slots=True)
class GatheredEvent:
    """An event, its data and timestamps under the names they have in the catalog.

    Of external keys only values that came with the event are among its data.
    """

    seq_num: int
    """Its number in the stream."""
    time: float
    """When it was."""
    data: Mapping[str, Any]
    """Its values."""
    timestamps: Mapping[str, Any]
    """Their times."""
    record: EventRecord
    """What else is known of it."""


@dataclass(slots=True)
class Numbering:
    """The sequence numbers of a stream's events, in the order in which they came."""

    highest: int = 0
    """The highest so far."""
    retaken: int = 0
    """How many had come before."""
    late: int = 0
    """How many came after higher ones, and had not come before."""
    skipped: set[int] = field(default_factory=set)
    """Those below the highest that did not come; some of them, of very many."""

    def add(self, seq_num: int) -> None:
        """An event has come."""
        if seq_num > self.highest:
            self.skipped.update(range(max(self.highest + 1, seq_num - _MOST_SKIPPED), seq_num))
            self.highest = seq_num
        elif seq_num in self.skipped:
            self.skipped.remove(seq_num)
            self.late += 1
        else:
            self.retaken += 1

    def notes(self, stream: str) -> list[str]:
        """What is to be said of a stream whose numbers do not simply go up."""
        notes = []
        if self.retaken:
            notes.append(
                f"{self.retaken} points of stream '{stream}' were taken again, after the plan went back to a "
                f"checkpoint; each time is a row, and rows of one point have the same seq_num."
            )
        if self.late:
            notes.append(
                f"{self.late} events of stream '{stream}' came after later ones; rows are in the order in which they "
                f"came, and seq_num says which is which."
            )
        return notes


def completed(
    event: GatheredEvent,
    data_keys: Mapping[str, Mapping[str, Any]],
    stored: Collection[str],
    timed: Collection[str],
    moved: Mapping[str, str],
) -> EventRecord:
    """The record of an event, with what the columns of its table do not hold as it was.

    Parameters
    ----------
    event : GatheredEvent
        The event.
    data_keys : Mapping
        The descriptor's data keys.
    stored, timed : Collection of str
        The keys whose values, and whose timestamps, the table has.
    moved : Mapping
        Columns with the values of another key.
    """
    record = event.record
    more: dict[str, Any] = {}
    odd, absent = [], []
    for key, value in event.data.items():
        if value is None or key not in stored or not _is_kept(value):
            more[key] = value
        elif isinstance(value, str) != (data_keys[key].get("dtype") == "string"):
            odd.append(key)
    for key in stored:
        if key not in event.data and key not in record.data:
            absent.append(key)
    times = {
        key: value
        for key, value in event.timestamps.items()
        # Only NaN is not itself; of a table it comes back as nothing.
        if key not in timed or type(value) is not float or value != value
    }
    moved_here = {column: key for column, key in moved.items() if key in event.data} if moved else {}
    if not (more or odd or absent or times or moved_here):
        return record
    return replace(
        record, data={**record.data, **more}, timestamps=times, odd=tuple(odd), absent=tuple(absent), moved=moved_here
    )


def _is_kept(value: Any) -> bool:
    """Whether a value goes through a table unchanged: one with empty cells holds integers as floats."""
    if isinstance(value, str):
        return storable(value) == value
    if isinstance(value, bytes | complex | datetime.date) or is_masked(value):
        return False
    return not isinstance(value, int | np.integer) or int(value) in _EXACT_IN_FLOAT
