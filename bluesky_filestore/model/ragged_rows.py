"""Arrays whose rows differ in shape: their data sources, and their values as Tiled's ragged arrays.

Such an array is made of parts. A part is an array of rows that are alike, in the words of any other data source, so
that each row is read as rows are; which row is which part's is said beside them. Row i is event i, as everywhere.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.errors import AddressError
from bluesky_filestore.extras import from_extra

__all__ = ["RAGGED", "RAGGED_SQL", "RaggedPart", "RaggedRows", "RaggedShape", "as_ragged", "common_shape"]

RAGGED = "application/x-bluesky-filestore-ragged"
"""Rows of several shapes, in files; parameters: `RaggedRows`."""
RAGGED_SQL = "application/x-ragged+sql"
"""Tiled's own, for values that it keeps."""

RaggedShape: TypeAlias = tuple[int | None, ...]
"""Of an array: None where rows differ."""


@dataclass(frozen=True, slots=True)
class RaggedPart:
    """Rows that are alike."""

    mimetype: str
    """What the files are, as for an array of such rows alone; empty where the rows have no frames at all."""
    shape: tuple[int, ...]
    """(rows, *shape of one)."""
    dtype: str = "|u1"
    """Of the values, as stored."""
    assets: tuple[int, ...] = ()
    """The numbers of its files among those of the whole, in the part's order."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """As for an array of such rows alone."""
    properties: Mapping[str, Any] = field(default_factory=dict)
    """The same."""


@dataclass(frozen=True, slots=True)
class RaggedRows:
    """The parameters of a data source of the mimetype `RAGGED`."""

    parts: tuple[RaggedPart, ...]
    """Whose rows they are."""
    order: tuple[tuple[int, int], ...]
    """From the first row on: so many rows are the next ones of that part."""
    missing: str = ""
    """Why the rows behind them are not there, if the array has more."""

    @property
    def count(self) -> int:
        """How many rows there are."""
        return sum(count for _, count in self.order)

    def locate(self, row: int) -> tuple[int, int]:
        """The part of a row, and which of the part's rows it is.

        Raises
        ------
        AddressError
            If there is no such row.
        """
        ends = list(accumulate(count for _, count in self.order))
        place = bisect_right(ends, row)
        if place >= len(ends):
            raise AddressError(f"row {row} is none of the {self.count} rows that are known.")
        part = self.order[place][0]
        before = sum(count for other, count in self.order[:place] if other == part)
        return part, before + row - (ends[place] - self.order[place][1])

    def to_parameters(self) -> dict[str, Any]:
        """As the data source's parameters, fit for JSON."""
        parts = [
            {
                "mimetype": part.mimetype,
                "shape": list(part.shape),
                "dtype": part.dtype,
                "assets": list(part.assets),
                "parameters": dict(part.parameters),
                "properties": dict(part.properties),
            }
            for part in self.parts
        ]
        said: dict[str, Any] = {"parts": parts, "order": [list(each) for each in self.order]}
        return {**said, "missing": self.missing} if self.missing else said

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> "RaggedRows":
        """From the data source's parameters.

        Raises
        ------
        AddressError
            If they do not say what the rows are.
        """
        try:
            parts = tuple(
                RaggedPart(
                    str(part["mimetype"]),
                    tuple(map(int, part["shape"])),
                    str(part["dtype"]),
                    tuple(map(int, part["assets"])),
                    dict(part["parameters"]),
                    dict(part["properties"]),
                )
                for part in parameters["parts"]
            )
            order = tuple((int(part), int(count)) for part, count in parameters["order"])
        except (KeyError, TypeError, ValueError) as error:
            raise AddressError(
                f"parameters {sorted(parameters)} do not say what the rows are ({error!r}); expected parts and order."
            ) from error
        taken = [sum(count for part, count in order if part == number) for number in range(len(parts))]
        if any(not 0 <= part < len(parts) or count < 1 for part, count in order) or any(
            part.shape[:1] != (rows,) for part, rows in zip(parts, taken, strict=True)
        ):
            raise AddressError(f"the order {order} is not that of all rows of {len(parts)} parts, each once.")
        return cls(parts, order, str(parameters.get("missing") or ""))


def common_shape(shapes: Sequence[tuple[int, ...]]) -> RaggedShape | None:
    """The shape of rows that are not all alike, None where they differ; None if their axes are not as many.

    Examples
    --------
    >>> common_shape([(2, 4, 6), (3, 4, 6)])
    (None, 4, 6)
    """
    if len({len(shape) for shape in shapes}) != 1:
        return None
    return tuple(sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*shapes, strict=True))


def as_ragged(rows: Sequence[NDArray[Any]], shape: RaggedShape, dtype: np.dtype[Any]) -> Any:
    """Rows as one ragged array of the shape ``(rows, *shape)``; see the package ``ragged``.

    Parameters
    ----------
    rows : sequence of array
        Of as many axes as `shape`, and as long along them where that says how long.
    shape : tuple of int or None
        Of a row.
    dtype : numpy.dtype
        Of the values.
    """
    with from_extra("write"):
        import awkward
        import ragged

    contents = awkward.contents
    axes = [axis for axis, size in enumerate(shape) if size is None]
    inner = tuple(size for size in (shape[axes[-1] + 1 :] if axes else shape) if size is not None)
    flat = [np.empty((0, *inner), dtype), *(row.reshape(-1, *inner) if axes else row[np.newaxis] for row in rows)]
    content: Any = contents.NumpyArray(np.concatenate(flat).astype(dtype.newbyteorder("="), copy=False))
    for axis in range(axes[-1] if axes else -1, -1, -1):
        size = shape[axis]
        if size is not None:
            content = contents.RegularArray(content, size)
            continue
        lengths = [np.full(math.prod(row.shape[:axis]), row.shape[axis], np.int64) for row in rows]
        offsets = np.concatenate([np.zeros(1, np.int64), *lengths]).cumsum()
        content = contents.ListOffsetArray(awkward.index.Index64(offsets), content)
    return ragged.array(awkward.Array(content))
