"""A lazy array whose rows differ in shape, each read when it is asked for."""

from collections.abc import Iterator
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.catalogs.tiled.connecting import catalog_errors
from bluesky_filestore.errors import DocumentError, UnreadableFileError
from bluesky_filestore.files.ragged import RaggedInFiles
from bluesky_filestore.files.rows import AxisKey
from bluesky_filestore.logs import get_logger
from bluesky_filestore.model.event_record import RECORD_COLUMN, decode_record, from_exact_json
from bluesky_filestore.model.ragged_rows import common_shape
from bluesky_filestore.visible import visible_line

if TYPE_CHECKING:
    from tiled.client.container import Container
    from tiled.client.ragged import RaggedClient

__all__ = ["RaggedArray", "RaggedInCatalog", "rows_of_events"]

_logger = get_logger(__name__)


class RaggedInCatalog:
    """Rows that are read through the server.

    Parameters
    ----------
    node : tiled.client.ragged.RaggedClient
        The array.
    """

    def __init__(self, node: "RaggedClient") -> None:
        self._node = node

    def read(self, index: tuple[int, ...]) -> NDArray[Any]:
        """A row, as `ArrayInCatalog` reads it."""
        return self.read_row(index[0])

    def read_row(self, row: int, inner: tuple[AxisKey, ...] = ()) -> NDArray[Any]:
        """A row, or a part of it; raises `CatalogError` if the catalog does not give it."""
        with catalog_errors(str(self._node.uri), self._node):
            found = self._node.read((row,))
        # Else an array of the package ragged becomes one of objects.
        whole = np.asarray(found.tolist(), self._node.dtype.newbyteorder("=")).reshape(found.shape)
        part: NDArray[Any] = whole[inner]
        return part


class RowsOfEvents:
    """Values that came in events and are not all alike.

    A catalog keeps them as an array as far as they are, and as JSON text from there on; here they are together again.

    Parameters
    ----------
    stream : tiled.client.container.Container
        The stream, by Tiled's own client.
    data_key : str
        Which values.

    Raises
    ------
    DocumentError
        If the stream has none, or they are no numbers.
    """

    def __init__(self, stream: "Container", data_key: str) -> None:
        columns: dict[str, list[Any]] = {}
        tables = [stream[key] for key in stream if stream[key].structure_family == "table"]
        records = [decode_record(text) for text in _column(tables, RECORD_COLUMN) or ()]
        rows: list[Any] = []
        array = stream[data_key].read() if data_key in stream and stream[data_key].structure_family == "array" else ()
        for number, record in enumerate(records):
            name = next((name for name, key in record.moved.items() if key == data_key), data_key)
            if name == data_key and number < len(array):
                rows.append(array[number])
                continue
            if name not in columns:
                columns[name] = _column(tables, name) or []
            cell = columns[name][number] if columns[name] else None
            rows.append(from_exact_json(cell) if isinstance(cell, str) else cell)
        try:
            self.rows = [np.asarray(row) for row in rows]
            self.dtype = np.result_type(*(row for row in self.rows if row.size), *([] if rows else [float]))
        except (ValueError, TypeError) as error:
            raise DocumentError(f"the values of {data_key!r} are no numbers: {error}.") from error
        if not rows or self.dtype.kind not in "biufc" or any(row.dtype.kind not in "biufc" for row in self.rows):
            raise DocumentError(f"stream has no arrays of numbers under {data_key!r}; expected some in its events.")

    def read_row(self, row: int, inner: tuple[AxisKey, ...] = ()) -> NDArray[Any]:
        """A row, or a part of it."""
        part: NDArray[Any] = self.rows[row].astype(self.dtype, copy=False)[inner]
        return part


def rows_of_events(stream: "Container", data_key: str) -> "RaggedArray":
    """Values that came in events and are not all alike, as an array; raises as `RowsOfEvents` does."""
    found = RowsOfEvents(stream, data_key)
    shape = common_shape([row.shape for row in found.rows]) or (None,)
    name = "/".join((*stream.path_parts[-1:], data_key))
    reason = "its values are in the catalog itself"
    return RaggedArray(found, shape=(len(found.rows), *shape), dtype=found.dtype, name=name, reason=reason)


def _column(tables: list[Any], name: str) -> list[Any] | None:
    table = next((table for table in tables if name in table.columns), None)
    return None if table is None else list(table.read([name])[name])


class RaggedArray:
    """An array whose rows differ in shape; made by `bluesky_filestore.open_array`.

    It is indexed by its rows: a row is an array, several are a list of such.

    Parameters
    ----------
    array : RaggedInFiles, RaggedInCatalog or RowsOfEvents
        Reads them.
    shape : tuple of int or None
        Rows, and then that of one row, with None along axes where rows differ.
    dtype : numpy.dtype
        Of the values.
    name : str
        What it is, for messages.
    reason : str
        Why it is not read straight from the files, if it is not.
    """

    def __init__(
        self,
        array: RaggedInFiles | RaggedInCatalog | RowsOfEvents,
        *,
        shape: tuple[int | None, ...],
        dtype: np.dtype[Any],
        name: str,
        reason: str = "",
    ) -> None:
        self._array, self.shape, self.dtype, self.name, self.reason = array, shape, dtype, name, reason
        _logger.info("open_array: %r", self)

    @property
    def source(self) -> Literal["files", "catalog"]:
        """Where it is read: straight from the files, or through the catalog; then `reason` says why."""
        return "files" if isinstance(self._array, RaggedInFiles) else "catalog"

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0] or 0

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        """Read rows.

        Parameters
        ----------
        index : int, slice, Ellipsis, or a tuple that begins so
            Which rows, and what of each.

        Returns
        -------
        array, or list of array
            A row; of a slice or Ellipsis its rows.

        Raises
        ------
        IndexError
            If there is no such row.
        UnreadableFileError
            If a row cannot be read straight from its file.
        CatalogError
            If the catalog does not give it.
        """
        first, *inner = index if isinstance(index, tuple) and index else (index,)
        if isinstance(first, slice | EllipsisType):
            rows = range(len(self))[slice(None) if first is ... else first]
            return [self[(row, *inner)] for row in rows]
        row = range(len(self))[first]
        try:
            return self._array.read_row(row, tuple(inner))
        except UnreadableFileError as error:
            error.add_note(f"It was to be read for {self.name}.")
            raise

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        raise ValueError(
            f"{self!r} is no one array of numpy's: its rows differ in shape. Expected it to be read row by row, e.g. "
            f"[5], or as a list of rows, [...]."
        )

    def __repr__(self) -> str:
        where = "straight from files" if self.source == "files" else f"through the catalog: {self.reason}"
        return visible_line(f"<RaggedArray {self.name}, shape={self.shape}, dtype={self.dtype}, {where}>")
