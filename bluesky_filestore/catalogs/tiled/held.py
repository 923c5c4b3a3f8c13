"""What runs had to hold when they were closed, in a few bytes, so that it can be told whether they hold it still.

Rows are counted. Of arrays that does not tell: a request that comes late may write values of another type over those of
one that was made anew meanwhile, and a server that takes bytes cannot know. So their values are compared.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING
from zlib import crc32

from bluesky_filestore.errors import RowsDifferError

from .nodes import NodePath, Nodes, row_count

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tiled.client.array import ArrayClient

__all__ = ["Held", "ValueSum", "values_of"]


def values_of(path: NodePath, node: "ArrayClient") -> "NDArray[np.generic]":
    """What an array holds.

    Raises
    ------
    RowsDifferError
        If it holds less than it says, as one may of which a server lost the last writes.
    """
    try:
        values: NDArray[np.generic] = node.read()
    except ValueError as error:
        raise RowsDifferError(f"{'/'.join(path)} has not the rows that it says ({error}).", path[0]) from error
    return values


class ValueSum:
    """A checksum of the rows that an array was sent, which are all of one type: for another it is made anew."""

    def __init__(self) -> None:
        self._rows = self._sum = 0
        self._dtype: np.dtype[np.generic] | None = None

    def add(self, first_row: int, values: "NDArray[np.generic]") -> None:
        """Rows were written: after those before them, or anew from the first one on. Of others nothing is known."""
        if first_row == 0:
            self._rows, self._sum, self._dtype = 0, 0, values.dtype
        if first_row != self._rows or values.dtype != self._dtype:
            self._dtype = None
        self._rows, self._sum = first_row + len(values), crc32(values.tobytes(), self._sum)

    @property
    def is_known(self) -> bool:
        """Whether it can be told what the array should hold."""
        return self._dtype is not None

    def differs(self, values: "NDArray[np.generic]") -> bool:
        """Whether the array holds other values than it was sent, as far as that is known."""
        is_same = values.dtype == self._dtype and crc32(values[: self._rows].tobytes()) == self._sum
        return self.is_known and not is_same


class Held:
    """How many rows the tables and arrays of runs had to have when the runs were closed, and of which values."""

    def __init__(self) -> None:
        self._runs: dict[str, dict[NodePath, tuple[int, ValueSum]]] = {}

    def note(self, run: str, rows: Mapping[NodePath, tuple[int, ValueSum]]) -> None:
        """A run is closed, with these; what is known of others that it has stays."""
        self._runs.setdefault(run, {}).update(rows)

    def forget(self, run: str) -> None:
        """A run is written again."""
        self._runs.pop(run, None)

    def check(self, run: str, nodes: Nodes) -> None:
        """Compare with what is in the catalog, and know no more of the run if it holds what it should.

        Raises
        ------
        RowsDifferError
            If it does not.
        """
        nodes.forget((run,))
        for path, (expected, checksum) in self._runs.get(run, {}).items():
            node = nodes.find(path)
            present = row_count(node)
            if present != expected:
                raise RowsDifferError(f"{'/'.join(path)} has {present} rows; expected {expected}.", run)
            if checksum.is_known and checksum.differs(values_of(path, node)):
                raise RowsDifferError(f"{'/'.join(path)} holds other values than were sent.", run)
        self.forget(run)
