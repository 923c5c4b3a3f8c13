"""The columns of an event table: their names, and types that hold whatever comes."""

import datetime
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.model.event_record import DEEPEST, MOST_BITS_IN_DECIMAL, exact_json, shallow
from bluesky_filestore.visible import storable

from .operations import ColumnType

__all__ = [
    "Column",
    "exact_array",
    "is_column_name",
    "is_kept_array_name",
    "is_masked",
    "is_node_name",
    "plain",
]

# What Tiled takes for the name of a column (tiled.adapters.sql.is_safe_identifier); it keeps a first "_" for itself.
_SAFE_NAME = re.compile(r"[a-zA-Z](?:(?!--|/\*|\*/)[^'\"`;\\%()=+\x00-\x1f\x7f\ud800-\udfff])*")
_MAX_NAME_BYTES = 63
# What does not come back as it was through Tiled's client, which puts it into a URL as it is.
_NO_NODE = re.compile(r"\.{0,2}|.*([/?#\x00-\x1f\x7f\ud800-\udfff]|%[0-9A-Fa-f]{2}).*", re.DOTALL)
# A Tiled server has a directory by the name of an array: what follows in it, and its disk, want the rest.
_MAX_NODE_BYTES = 200
_TYPE_OF_JSON: dict[str, ColumnType] = {
    "boolean": "bool",
    "integer": "int64",
    "number": "float64",
    "string": "string",
}
# What comes as JSON text by its nature, or is noted where that is chosen.
_DECLARED_TEXT = ("array", "string")
# Integers have to be looked at one by one.
_SIMPLE_TYPES: dict[type, ColumnType] = {bool: "bool", float: "float64", str: "string"}
_INT64 = range(-(2**63), 2**63)
_64_BITS = range(-(2**63), 2**64)
_MOST_BYTES = {"b": 1, "i": 8, "u": 8, "f": 8, "c": 16}
_EXACT_IN_FLOAT = range(-(2**53), 2**53 + 1)


class Column:
    """One column of a table, of a type that becomes a wider one where a value asks for it.

    Integers become floats as long as all of them can be told apart as such; what else does not fit together becomes
    text, JSON's where it was none.

    Parameters
    ----------
    declared : str
        The data key's ``dtype``.
    """

    def __init__(self, declared: str = "") -> None:
        self.type: ColumnType = _TYPE_OF_JSON.get(declared, "string")
        self._declared = declared
        self._kinds: set[ColumnType] = set()
        self._all_exact_in_float = True
        self._has_gaps = False
        self._turned_to_text: set[str] = set()

    @property
    def note(self) -> str:
        """What a reader of the column has to know; empty if its values are as they came."""
        if self._turned_to_text and self._declared not in _DECLARED_TEXT:
            return (
                f"is text, that of JSON: no column holds values of its types, {', '.join(sorted(self._turned_to_text))}"
            )
        if self._has_gaps and self.type == "bool":
            return "has empty cells, beside which clients read True and False as text or objects"
        if self._has_gaps and self.type == "int64" and not self._all_exact_in_float:
            return "has empty cells, beside which clients read integers as floats: those beyond 2**53 are rounded"
        return ""

    def fit(self, values: Sequence[Any]) -> list[Any]:
        """The values in the column's type, which may be a wider one than before; None stays None."""
        types = set(map(type, values))
        self._has_gaps = self._has_gaps or type(None) in types
        types.discard(type(None))
        if types <= _SIMPLE_TYPES.keys():
            self._kinds |= {_SIMPLE_TYPES[kind] for kind in types}
        else:
            self._look_at(values)
        if self._kinds:
            self.type = self._widest()
        if self.type != "string" and {_SIMPLE_TYPES.get(kind) for kind in types} == {self.type}:
            return list(values)
        if self.type == "string":
            self._turned_to_text |= {kind.__name__ for kind in types if not issubclass(kind, str)}
        return [None if value is None else _as(value, self.type) for value in values]

    def _look_at(self, values: Sequence[Any]) -> None:
        for value in values:
            if value is not None:
                self._kinds.add(_kind(value))
                if isinstance(value, int | np.integer) and int(value) not in _EXACT_IN_FLOAT:
                    self._all_exact_in_float = False

    def _widest(self) -> ColumnType:
        if len(self._kinds) == 1:
            (only,) = self._kinds
            # A motor at a whole number is no less a number.
            is_number = only == "int64" and self._declared == "number" and self._all_exact_in_float
            return "float64" if is_number else only
        if self._kinds == {"int64", "float64"} and self._all_exact_in_float:
            return "float64"
        return "string"


def is_column_name(name: str) -> bool:
    """Whether Tiled takes the name for a column."""
    return _SAFE_NAME.fullmatch(name) is not None and len(name.encode()) <= _MAX_NAME_BYTES


def is_node_name(name: str) -> bool:
    """Whether a run, a stream or an array can have the name in Tiled, where it is part of an address."""
    return _NO_NODE.fullmatch(name) is None


def is_kept_array_name(name: str) -> bool:
    """Whether Tiled takes the name for an array that it keeps itself."""
    return is_node_name(name) and len(name.encode()) <= _MAX_NODE_BYTES


def exact_array(values: Sequence[Any]) -> NDArray[np.generic] | None:
    """One array of all the values, if they are of one shape and numbers or booleans that it holds exactly.

    Text is not: zarr, in which a Tiled server keeps arrays, has no settled form for it, and a length for all.

    Examples
    --------
    >>> exact_array([[1, 2.5], [3, 4]])
    array([[1. , 2.5],
           [3. , 4. ]])
    >>> exact_array([["a", 1]])
    """
    if any(value is None for value in values):
        return None
    try:
        array = np.array([_unmasked(value) if is_masked(value) else value for value in values])
    except (ValueError, TypeError, OverflowError):
        return None
    # Of what a Tiled server and zarr know, beside others, as they are: no numbers of 128 bits.
    if array.dtype.kind not in "biufc" or array.dtype.itemsize > _MOST_BYTES[array.dtype.kind] or 0 in array.shape:
        return None
    is_of_arrays = all(isinstance(value, np.ndarray) for value in values)
    # Of a list with an integer in it numpy makes floats.
    if array.dtype.kind == "f" and not is_of_arrays and not all(_is_exact_float(leaf) for leaf in _leaves(values)):
        return None
    return array


def is_masked(value: Any) -> bool:
    """Whether it is an array with masked elements."""
    return isinstance(value, np.ma.MaskedArray) and bool(np.any(value.mask))


def _unmasked(value: "np.ma.MaskedArray[Any, Any]") -> NDArray[Any]:
    if value.dtype.kind not in "fc":
        raise TypeError(f"a masked element of type {value.dtype} has no value that says so")
    filled: NDArray[Any] = value.filled(np.nan)
    return filled


def _leaves(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _leaves(value)
        elif isinstance(value, np.ndarray):
            yield from value.ravel().tolist()
        else:
            yield value


def _is_exact_float(leaf: Any) -> bool:
    if isinstance(leaf, float | np.floating):
        return True
    return isinstance(leaf, int | np.integer) and int(leaf) in _EXACT_IN_FLOAT


def plain(value: Any, changed: dict[str, str] | None = None) -> Any:
    """The value in the types that JSON has in a catalog: numpy's become Python's.

    What is no number for JSON, NaN or infinite, becomes None, and what else it cannot hold text.

    Parameters
    ----------
    value : Any
        The value.
    changed : dict of str to str, optional
        Where in the value something was that became None or text, with its text, is added here.

    Examples
    --------
    >>> changed = {}
    >>> plain({"a": np.int64(3), "b": (1.5, float("inf"))}, changed)
    {'a': 3, 'b': [1.5, None]}
    >>> changed
    {'b.1': 'inf'}
    """
    return _plain(value, {} if changed is None else changed, ())


def _plain(value: Any, changed: dict[str, str], path: tuple[str, ...]) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        item = value.tolist()
        value = str(item) if isinstance(item, np.generic) else item
    if isinstance(value, Mapping | list | tuple | set | frozenset) and len(path) >= DEEPEST:
        return changed.setdefault(".".join(path), shallow([], 0))
    if isinstance(value, Mapping):
        return {storable(str(key)): _plain(entry, changed, (*path, str(key))) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(entry, changed, (*path, str(place))) for place, entry in enumerate(value)]
    if isinstance(value, str):
        return storable(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and value in _64_BITS:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    text = hex(value) if isinstance(value, int) and value.bit_length() > MOST_BITS_IN_DECIMAL else storable(str(value))
    changed[".".join(path)] = text
    return None if isinstance(value, float) else text


def _kind(value: Any) -> ColumnType:
    if isinstance(value, bool | np.bool_):
        return "bool"
    if isinstance(value, int | np.integer):
        return "int64" if int(value) in _INT64 else "string"
    if isinstance(value, float | np.floating):
        return "float64"
    return "string"


def _as(value: Any, kind: ColumnType) -> Any:
    if kind == "string":
        if isinstance(value, str):
            return storable(str(value))
        if isinstance(value, bytes | complex | datetime.date):
            return storable(json.dumps(str(value)))
        is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
        return (
            plain(value)
            if is_integer and int(value) not in _64_BITS
            else str(value)
            if is_integer
            else exact_json(value)
        )
    if kind == "float64":
        return float(value)
    return int(value) if kind == "int64" else bool(value)
