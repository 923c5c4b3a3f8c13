"""What the documents of a run say beyond its event tables, kept in one more column of theirs.

Its name begins as those of timestamps do, so that the stock clients do not take it for data. It says of each event
what no other column says: its uid, its descriptor, values that columns do not hold as they were, and the documents
that came before it. With it a run's documents can be had back as they went in.
"""

import datetime
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

__all__ = [
    "AS_USUAL",
    "DEEPEST",
    "MOST_BITS_IN_DECIMAL",
    "RECORD_COLUMN",
    "EventRecord",
    "NamedDocument",
    "decode_record",
    "descriptors_of",
    "differences",
    "encode_record",
    "exact_json",
    "from_exact_json",
    "shallow",
]

RECORD_COLUMN = "ts__event"

DEEPEST = 150
"""How deeply values may be nested: Python goes some hundred deep, with those who call, and JSON's readers less."""

MOST_BITS_IN_DECIMAL = 10_000
"""How long integers may be that are written in decimal: Python refuses to write or read more than 4,300 digits."""

_TOO_DEEP = "<nested too deeply>"

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
    return exact_json([*first, more]) if more else json.dumps(first)


def decode_record(text: str) -> EventRecord:
    """The record of a text that `encode_record` made."""
    number, uid, descriptor, *more = from_exact_json(text)
    entries = dict(more[0]) if more else {}
    if "before" in entries:
        entries["before"] = tuple((name, doc) for name, doc in entries["before"])
    return EventRecord(number, uid, descriptor, **entries)


def exact_json(value: Any) -> str:
    """JSON that also has what Python's has: integers of any size, ``NaN`` and ``Infinity``.

    Arrays become lists, with None where they are masked. Bytes, dates, complex numbers, integers of thousands of digits
    and mappings with keys that are no text are objects with one entry, from which `from_exact_json` makes them again;
    what else there may be is text.

    Examples
    --------
    >>> exact_json({"a": float("nan"), "b": (2**70,)})
    '{"a": NaN, "b": [1180591620717411303424]}'
    >>> exact_json({1: b"a"})
    '{"!mapping": [[1, {"!bytes": "61"}]]}'
    """
    try:
        text = json.dumps(value, default=_as_json)
        # A key that is a number would come back as a text, and an object of this form as something else.
        has_texts_only = _has_text_keys_only(value)
    except (TypeError, ValueError, RecursionError):
        has_texts_only = False
    if has_texts_only:
        return text
    try:
        return json.dumps(_with_any_keys(value), default=_as_json)
    except RecursionError:
        return json.dumps(_with_any_keys(shallow(value)), default=_as_json)


def from_exact_json(text: str) -> Any:
    """The value of a text that `exact_json` made.

    Examples
    --------
    >>> from_exact_json('{"!mapping": [[1, {"!bytes": "61"}]]}')
    {1: b'a'}
    """
    return json.loads(text, object_hook=_from_object)


def shallow(value: Any, depth: int = DEEPEST) -> Any:
    """The value, with a text in the place of what is nested in it more deeply than that."""
    if isinstance(value, Mapping):
        return {key: shallow(entry, depth - 1) for key, entry in value.items()} if depth else _TOO_DEEP
    if isinstance(value, list | tuple):
        return [shallow(entry, depth - 1) for entry in value] if depth else _TOO_DEEP
    return value


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


def _has_text_keys_only(value: Any) -> bool:
    if isinstance(value, Mapping):
        has_texts = all(isinstance(key, str) and key not in _FROM_OBJECTS for key in value)
        return has_texts and all(map(_has_text_keys_only, value.values()))
    return all(map(_has_text_keys_only, value)) if isinstance(value, list | tuple) else True


def _with_any_keys(value: Any) -> Any:
    """The value in the types of JSON, where mappings may have any keys."""
    if isinstance(value, Mapping):
        pairs = [(key, _with_any_keys(entry)) for key, entry in value.items()]
        if all(isinstance(key, str) and key not in _FROM_OBJECTS for key, _ in pairs):
            return dict(pairs)
        return {"!mapping": [[_with_any_keys(key), entry] for key, entry in pairs]}
    if isinstance(value, list | tuple):
        return [_with_any_keys(entry) for entry in value]
    if isinstance(value, int) and value.bit_length() > MOST_BITS_IN_DECIMAL:
        return {"!integer": hex(value)}
    if value is None or isinstance(value, str | bool | int | float):
        return value
    as_json = _as_json(value)
    return _with_any_keys(as_json) if isinstance(as_json, list) else as_json


def _as_json(value: Any) -> Any:
    """What JSON has no type for, in types that it has."""
    if isinstance(value, np.ndarray | np.generic):
        item = value.tolist()
        return str(item) if isinstance(item, np.generic) else item
    if isinstance(value, Mapping):
        return _with_any_keys(value)
    if isinstance(value, set | frozenset):
        return list(value)
    for name, (kind, to_json, _) in _OBJECTS.items():
        if isinstance(value, kind):
            return {name: to_json(value)}
    return str(value)


def _from_object(entries: dict[str, Any]) -> Any:
    if len(entries) == 1:
        ((name, value),) = entries.items()
        if name in _FROM_OBJECTS:
            return _FROM_OBJECTS[name](value)
    return entries


def _hashable(key: Any) -> Any:
    return tuple(map(_hashable, key)) if isinstance(key, list) else key


_OBJECTS: dict[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "!bytes": (bytes, bytes.hex, bytes.fromhex),
    "!time": (datetime.datetime, datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    "!date": (datetime.date, datetime.date.isoformat, datetime.date.fromisoformat),
    "!complex": (complex, lambda value: [value.real, value.imag], lambda parts: complex(*parts)),
}
_FROM_OBJECTS: dict[str, Callable[[Any], Any]] = {name: make for name, (_, _, make) in _OBJECTS.items()}
_FROM_OBJECTS["!integer"] = lambda text: int(text, 0)
_FROM_OBJECTS["!mapping"] = lambda pairs: {_hashable(key): entry for key, entry in pairs}
