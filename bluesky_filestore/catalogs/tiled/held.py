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

__all__ = ["Held", "ValueSums", "values_of"]


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


class ValueSums:
    """Checksums of the rows of an array, one for as many in a row as were sent in one type."""

    def __init__(self) -> None:
        self._pieces: list[tuple[np.dtype[np.generic], int, int]] = []

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def add(self, first_row: int, values: "NDArray[np.generic]") -> None:
        """Rows were written: after those before them, or anew from the first one on.

        Others are forgotten from there on, which `differ` does not look at then.
        """
        if first_row == 0:
            self._pieces.clear()
        before = self._pieces[-1] if self._pieces else (values.dtype, 0, 0)
        if first_row != before[1]:
            self._pieces.clear()
            return
        if self._pieces and before[0] == values.dtype:
            self._pieces.pop()
        begin = before[2] if before[0] == values.dtype else 0
        self._pieces.append((values.dtype, first_row + len(values), crc32(values.tobytes(), begin)))

    def differ(self, values: "NDArray[np.generic]") -> bool:
        """Whether rows hold other values than were sent; what is not known to be other is the same."""
        import numpy as np

        first = 0
        for dtype, stop, expected in self._pieces:
            # What was sent as whole numbers may be among fractions by now.
            if len(values) >= stop and np.can_cast(dtype, values.dtype, "safe"):
                with np.errstate(invalid="ignore"):
                    present = values[first:stop].astype(dtype)
                if crc32(present.tobytes()) != expected:
                    return True
            first = stop
        return False


class Held:
    """How many rows the tables and arrays of runs had to have when the runs were closed, and of which values."""

    def __init__(self) -> None:
        self._runs: dict[str, dict[NodePath, tuple[int, ValueSums]]] = {}

    def note(self, run: str, rows: Mapping[NodePath, tuple[int, ValueSums]]) -> None:
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
        for path, (expected, sums) in self._runs.get(run, {}).items():
            node = nodes.find(path)
            present = row_count(node)
            if present != expected:
                raise RowsDifferError(f"{'/'.join(path)} has {present} rows; expected {expected}.", run)
            if sums and sums.differ(values_of(path, node)):
                raise RowsDifferError(f"{'/'.join(path)} holds other values than were sent.", run)
        self.forget(run)
