"""Names, columns and metadata as NeXus has them."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bluesky_filestore.files.nexus import Field, Group, Node

__all__ = ["collection", "field_of", "free_name", "listed", "put"]

_MOST_DEEP = 16
_EXACT_IN_FLOAT = 2**53
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.]+")


def listed(numbers: Iterable[int]) -> str:
    """Numbers as ranges, as many as fit into a line."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    words = [str(first) if first == last else f"{first}-{last}" for first, last in runs[:10]]
    return f"event{'s' * (runs != [] and (len(runs) > 1 or runs[0][0] != runs[0][1]))} " + ", ".join(
        [*words, *(["..."] if len(runs) > 10 else [])]
    )


def free_name(children: Mapping[str, Any], name: str) -> str:
    """The name that something is given in a group: of NeXus's letters, and no other's."""
    safe = _NOT_IN_NAMES.sub("_", name).strip(".")[:200] or "_"
    number, free = 1, safe
    while free in children:
        number += 1
        free = f"{safe}_{number}"
    return free


def put(children: dict[str, Node], name: str, node: Node) -> str:
    """Put something into a group, and say under which name; its own is an attribute if that is another."""
    free = free_name(children, name)
    if free != name and isinstance(node, Field | Group):
        node.attributes["name"] = name
    children[free] = node
    return free


def field_of(values: Sequence[Any], attributes: dict[str, Any]) -> Field:
    """A column: of numbers where all are, NaN standing for what there is not; else of texts."""
    there = [value for value in values if value is not None]
    gaps = [row for row, value in enumerate(values) if value is None]
    if gaps:
        attributes = {**attributes, "missing_events": listed(gaps)}
    array = np.asarray(there)
    exact = array.dtype.kind in "fb" or (array.dtype.kind in "iu" and _fits_float(array))
    if array.dtype.kind in "biuf" and not gaps:
        return Field(array, attributes)
    if array.dtype.kind in "biuf" and exact and there:
        numbers = np.full(len(values), np.nan)
        numbers[[row for row, value in enumerate(values) if value is not None]] = array
        return Field(numbers, attributes)
    return Field([_text(value) for value in values], attributes)


def _fits_float(array: Any) -> bool:
    return not array.size or (int(array.min()) >= -_EXACT_IN_FLOAT and int(array.max()) <= _EXACT_IN_FLOAT)


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)


def collection(entries: Mapping[str, Any], deep: int = 0) -> Group:
    """Metadata: a group for a mapping, a value where HDF5 has one of its kind, else JSON text."""
    children: dict[str, Node] = {}
    for name, value in entries.items():
        if isinstance(value, Mapping) and deep < _MOST_DEEP:
            put(children, str(name), collection(value, deep + 1))
        else:
            put(children, str(name), _value(value))
    return Group("NXcollection", children)


def _value(value: Any) -> Field:
    if isinstance(value, str):
        return Field(value, {})
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return Field(value, {})
    if value is not None and not isinstance(value, Mapping):
        try:
            array = np.asarray(value)
        except (ValueError, TypeError, OverflowError):
            array = np.empty(0, object)
        if array.dtype.kind in "biuf" and array.size and array.dtype.itemsize <= 8 and _is_alike(value):
            return Field(array, {})
    return Field(_json(value), {"format": "json"})


def _is_alike(value: Any) -> bool:
    """Whether what is in lists is of one type, so that none of it becomes another in an array."""
    kinds: set[type] = set()
    rest = [value]
    while rest:
        each = rest.pop()
        if isinstance(each, list | tuple):
            rest.extend(each)
        else:
            kinds.add(type(each))
    return len(kinds) == 1
