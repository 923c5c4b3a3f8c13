"""The columns of an event table: their names, and types that hold whatever comes."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.event_record import exact_json

from .operations import ColumnType

__all__ = ["Column", "exact_array", "is_column_name", "plain", "storable"]

# What Tiled takes for the name of a column (tiled.adapters.sql.is_safe_identifier); it keeps a first "_" for itself.
_SAFE_NAME = re.compile(r"[a-zA-Z](?:(?!--|/\*|\*/)[^'\"`;\\%()=+])*")
_MAX_NAME_BYTES = 63
_TYPE_OF_JSON: dict[str, ColumnType] = {
    "boolean": "bool",
    "integer": "int64",
    "number": "float64",
    "string": "string",
}
# Integers have to be looked at one by one.
_SIMPLE_TYPES: dict[type, ColumnType] = {bool: "bool", float: "float64", str: "string"}
_INT64 = range(-(2**63), 2**63)
_64_BITS = range(-(2**63), 2**64)
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

    def fit(self, values: Sequence[Any]) -> list[Any]:
        """The values in the column's type, which may be a wider one than before; None stays None."""
        types = set(map(type, values)) - {type(None)}
        if types <= _SIMPLE_TYPES.keys():
            self._kinds |= {_SIMPLE_TYPES[kind] for kind in types}
        else:
            self._look_at(values)
        if self._kinds:
            self.type = self._widest()
        if self.type != "string" and {_SIMPLE_TYPES.get(kind) for kind in types} == {self.type}:
            return list(values)
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
        array = np.array(values)
    except (ValueError, OverflowError):
        return None
    if array.dtype.kind not in "biufc" or 0 in array.shape:
        return None
    is_of_arrays = all(isinstance(value, np.ndarray) for value in values)
    # Of a list with an integer in it numpy makes floats.
    if array.dtype.kind == "f" and not is_of_arrays and not all(_is_exact_float(leaf) for leaf in _leaves(values)):
        return None
    return array


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


def plain(value: Any) -> Any:
    """The value in the types that JSON has: numpy's become Python's, what JSON cannot hold becomes text.

    Examples
    --------
    >>> plain({"a": np.int64(3), "b": (1.5, float("inf"))})
    {'a': 3, 'b': [1.5, 'inf']}
    """
    if isinstance(value, Mapping):
        return {storable(str(key)): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, str):
        return storable(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if value in _64_BITS else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return storable(str(value))


def storable(text: str) -> str:
    r"""The text as UTF-8 has it: what is no character, as in names of files in another encoding, is written out.

    Examples
    --------
    >>> storable("M\udcfcller")
    'M\\udcfcller'
    """
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


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
        is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
        return str(value) if is_integer else exact_json(value)
    if kind == "float64":
        return float(value)
    return int(value) if kind == "int64" else bool(value)
