"""What the documents of a run say beyond its event tables, kept in one more column of theirs.

Its name begins as those of timestamps do, so that the stock clients do not take it for data. It says of each event
what no other column says: its uid, its descriptor, values that columns do not hold as they were, and the documents
that came before it. With it a run's documents can be had back as they went in.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

__all__ = [
    "AS_USUAL",
    "RECORD_COLUMN",
    "EventRecord",
    "NamedDocument",
    "decode_record",
    "descriptors_of",
    "differences",
    "encode_record",
    "exact_json",
]

RECORD_COLUMN = "ts__event"

AS_USUAL = "as usual"
"""What is said of ``filled`` where it is False for each external key of the event, and nothing else."""

NamedDocument: TypeAlias = tuple[str, Mapping[str, Any]]
"""A document and its name. Of a descriptor only its stream, its uid and what the stream's metadata say otherwise."""

# What is in the metadata of a stream and not in its first descriptor.
_NOT_IN_DESCRIPTOR = ("_config_updates",)


@dataclass(frozen=True, slots=True)
class EventRecord:
    """What is said of one event beside the table's columns, under the names that keys have in the catalog."""

    number: int
    """How many events of the run, of any stream, came before it."""
    uid: str
    """The event's uid."""
    descriptor: int
    """Which of the stream's descriptors it has; 0 is the first."""
    before: tuple[NamedDocument, ...] = ()
    """The documents that came before it and after the event before it."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Values that no column holds as they were; they go before those of the columns."""
    timestamps: Mapping[str, Any] = field(default_factory=dict)
    """The same of timestamps."""
    absent: tuple[str, ...] = ()
    """Keys that have a column and that the event does not have."""
    odd: tuple[str, ...] = ()
    """Keys whose value is a text although their data key does not say so, or the other way round."""
    moved: Mapping[str, str] = field(default_factory=dict)
    """Columns with the values of another key: an array's that has changed its shape."""
    filled: Any = AS_USUAL
    """What ``filled`` says, if it is not simply False for all external keys of ``data``; None if it is not there."""


_OPTIONAL = ("before", "data", "timestamps", "absent", "odd", "moved")


def encode_record(record: EventRecord) -> str:
    """The record as text, a JSON list.

    Examples
    --------
    >>> encode_record(EventRecord(3, "a1b2", 0, odd=("x",)))
    '[3, "a1b2", 0, {"odd": ["x"]}]'
    """
    first = [record.number, record.uid, record.descriptor]
    more = {name: getattr(record, name) for name in _OPTIONAL if getattr(record, name)}
    if record.filled != AS_USUAL:
        more["filled"] = record.filled
    return exact_json([*first, more] if more else first)


def decode_record(text: str) -> EventRecord:
    """The record of a text that `encode_record` made."""
    number, uid, descriptor, *more = json.loads(text)
    entries = dict(more[0]) if more else {}
    if "before" in entries:
        entries["before"] = tuple((name, doc) for name, doc in entries["before"])
    return EventRecord(number, uid, descriptor, **entries)


def exact_json(value: Any) -> str:
    """JSON that also has what Python's has: integers of any size, ``NaN`` and ``Infinity``. Arrays become lists.

    Examples
    --------
    >>> exact_json({"a": float("nan"), "b": (2**70,)})
    '{"a": NaN, "b": [1180591620717411303424]}'
    """
    return json.dumps(value, default=_as_json)


def differences(doc: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a document that are not the same in what is stored of it."""
    return {name: value for name, value in doc.items() if name not in stored or _differ(value, stored[name])}


def descriptors_of(run: str, stream: str, metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The descriptors of a stream as far as its metadata tell them.

    Parameters
    ----------
    run, stream : str
        The run's uid and the stream's name.
    metadata : Mapping
        The metadata of the stream's container.
    """
    first = {name: value for name, value in metadata.items() if name not in _NOT_IN_DESCRIPTOR}
    first |= {"run_start": run, "name": stream}
    return [first, *({**first, **update} for update in metadata.get("_config_updates", ()))]


def _differ(value: Any, other: Any) -> bool:
    return exact_json(value) != exact_json(other)


def _as_json(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): entry for key, entry in value.items()}
    if isinstance(value, set | frozenset):
        return list(value)
    return str(value)
