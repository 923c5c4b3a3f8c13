"""The columns of an event table: their names, and types that hold whatever comes."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .operations import ColumnType

__all__ = ["Column", "is_column_name", "plain"]

# What Tiled takes for the name of a column (tiled.adapters.sql.is_safe_identifier).
_SAFE_NAME = re.compile(r"[a-zA-Z_](?:(?!--|/\*|\*/)[^'\"`;\\%()=+])*")
_MAX_NAME_BYTES = 63
_TYPE_OF_JSON: dict[str, ColumnType] = {
    "boolean": "bool",
    "integer": "int64",
    "number": "float64",
    "string": "string",
}
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
        for value in values:
            if value is not None:
                self._kinds.add(_kind(value))
                if isinstance(value, int | np.integer) and int(value) not in _EXACT_IN_FLOAT:
                    self._all_exact_in_float = False
        if self._kinds:
            self.type = self._widest()
        return [None if value is None else _as(value, self.type) for value in values]

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


def plain(value: Any) -> Any:
    """The value in the types that JSON has: numpy's become Python's, what JSON cannot hold becomes text.

    Examples
    --------
    >>> plain({"a": np.int64(3), "b": (1.5, float("inf"))})
    {'a': 3, 'b': [1.5, 'inf']}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return value if value in _64_BITS else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return str(value)


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
            return str(value)
        is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
        return str(value) if is_integer else json.dumps(plain(value))
    if kind == "float64":
        return float(value)
    return int(value) if kind == "int64" else bool(value)
