"""Rows appended to event tables in a Tiled catalog."""

from typing import TYPE_CHECKING, Any

from bluesky_filestore.errors import RowsDifferError
from bluesky_filestore.operations.operations import AppendRows

from .nodes import NodePath, Nodes, row_count

if TYPE_CHECKING:
    import pyarrow
    from tiled.structures.data_source import DataSource

__all__ = ["TiledTables"]


class TiledTables:
    """The tables of a catalog, and how many rows each has.

    Parameters
    ----------
    nodes : Nodes
        The catalog's nodes.
    """

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._row_counts: dict[NodePath, int] = {}
        self._taken_out: dict[NodePath, pyarrow.Table] = {}
        self._sent: dict[NodePath, int] = {}
        self._doubtful: set[NodePath] = set()
        self._found: dict[NodePath, pyarrow.Table] = {}
        self._trying: dict[NodePath, AppendRows] = {}

    def append(self, operation: AppendRows) -> None:
        """Append the rows that are not there yet.

        Raises
        ------
        RowsDifferError
            If other rows are in their place, or rows before them are missing.
        """
        path = (operation.run, operation.stream, operation.table)
        schema = _schema(operation)
        rows, first_row = _rows(operation, schema), operation.first_row
        self._sent[path] = max(first_row + rows.num_rows, self._sent.get(path, 0))
        if self._is_there(path, operation, rows):
            return
        node = self._node(path, schema, operation)
        if path in self._taken_out:
            rows, first_row = self._with_earlier(path, rows, first_row)
        present = self._row_count(path, node)
        if present < first_row:
            raise _gap(path, present, first_row)
        if present < first_row + rows.num_rows:
            # Should it fail half-way, the catalog has to be asked how far it came; it may still be at it then.
            del self._row_counts[path]
            in_doubt = path in self._doubtful
            self._doubtful.add(path)
            self._trying[path] = operation
            node.append_partition(0, rows.slice(present - first_row))
            if not in_doubt:
                self._doubtful.discard(path)
            self._row_counts[path] = first_row + rows.num_rows
        self._taken_out.pop(path, None)
        self._trying.pop(path, None)

    def verify(self, run: str) -> None:
        """Look at the tables of a run of which not every answer came.

        Raises
        ------
        RowsDifferError
            If one holds another number of rows than was sent.
        """
        for path in [path for path in self._doubtful if path[0] == run]:
            self._nodes.forget(path)
            present = row_count(self._nodes.find(path))
            self._doubtful.discard(path)
            if present != self._sent[path]:
                raise RowsDifferError(f"{'/'.join(path)} has {present} rows; expected {self._sent[path]}.", run)

    def sent(self, run: str) -> dict[NodePath, int]:
        """How many rows were sent for each table of a run."""
        return {path: rows for path, rows in self._sent.items() if path[0] == run}

    def forget(self, run: str) -> None:
        """A run is complete, or its tables were removed."""
        for known in (self._row_counts, self._sent, self._taken_out, self._found, self._trying):
            for path in [path for path in known if path[0] == run]:
                del known[path]
        self._doubtful = {path for path in self._doubtful if path[0] != run}

    def _node(self, path: NodePath, schema: "pyarrow.Schema", operation: AppendRows) -> Any:
        node = self._nodes.find(path)
        if node is not None:
            if node.structure().arrow_schema_decoded.equals(schema):
                return node
            # Columns have become wider; what is there already is kept for the table that takes its place.
            self._taken_out.setdefault(path, _all_rows(node))
            self._nodes.remove(path)
            self._row_counts.pop(path, None)
        node = self._nodes.make(path, "table", data_sources=[_data_source(schema)], metadata=dict(operation.metadata))
        if self._nodes.made(path):
            self._row_counts[path] = 0
        return node

    def _is_there(self, path: NodePath, operation: AppendRows, rows: "pyarrow.Table") -> bool:
        """Whether the table has these rows, whatever the types of its columns became since.

        Which columns there are depends on the events that were written together: a run that is gone through again
        may ask for others than are there.
        """
        is_again = self._trying.get(path) is operation
        if not is_again and operation.first_row == 0:
            self._taken_out.pop(path, None)
        node = None if path in self._taken_out else self._nodes.find(path)
        present = 0 if node is None else self._row_count(path, node)
        common = min(present - operation.first_row, rows.num_rows)
        if common > 0 and not is_again:
            if path not in self._found or self._found[path].num_rows < present:
                self._found[path] = _all_rows(node)
            found = self._found[path].slice(operation.first_row, common)
            if not _agree(found, rows.slice(0, common)):
                raise RowsDifferError(
                    f"{'/'.join(path)} has other rows than events {operation.first_row} and on.", operation.run
                )
        if present <= self._sent[path]:
            self._found.pop(path, None)
        return bool(common == rows.num_rows)

    def _row_count(self, path: NodePath, node: Any) -> int:
        if path not in self._row_counts:
            if not self._nodes.made(path):
                # Somebody, or we ourselves, may be writing to it still.
                self._doubtful.add(path)
            self._row_counts[path] = row_count(node)
        return self._row_counts[path]

    def _with_earlier(self, path: NodePath, rows: "pyarrow.Table", first_row: int) -> "tuple[pyarrow.Table, int]":
        import pyarrow

        earlier = self._taken_out[path]
        if earlier.num_rows < first_row:
            raise _gap(path, earlier.num_rows, first_row)
        for field in rows.schema:
            if field.name not in earlier.column_names:
                earlier = earlier.append_column(field, pyarrow.nulls(earlier.num_rows, field.type))
        earlier = earlier.select(rows.column_names).slice(0, first_row).cast(rows.schema)
        return pyarrow.concat_tables([earlier, rows]), 0


def _gap(path: NodePath, present: int, first_row: int) -> RowsDifferError:
    return RowsDifferError(f"{'/'.join(path)} has {present} rows; row {first_row} cannot follow them.", path[0])


def _schema(operation: AppendRows) -> "pyarrow.Schema":
    import pyarrow

    types = {
        "bool": pyarrow.bool_(),
        "int64": pyarrow.int64(),
        "float64": pyarrow.float64(),
        "string": pyarrow.string(),
    }
    return pyarrow.schema([(name, types[kind]) for name, kind in operation.types.items()])


def _rows(operation: AppendRows, schema: "pyarrow.Schema") -> "pyarrow.Table":
    import pyarrow

    return pyarrow.Table.from_pydict(dict(operation.columns), schema=schema)


def _all_rows(node: Any) -> "pyarrow.Table":
    import pyarrow

    # By way of pandas, an integer column with empty cells comes as floats.
    frame = node.read()
    return pyarrow.Table.from_pandas(frame, preserve_index=False).cast(node.structure().arrow_schema_decoded)


def _agree(found: "pyarrow.Table", rows: "pyarrow.Table") -> bool:
    """Whether both hold the same; what only one has a column for has to be empty."""
    names = dict.fromkeys([*found.column_names, *rows.column_names])
    return all(
        _are_equal(*(table[name] if name in table.column_names else None for table in (found, rows))) for name in names
    )


def _are_equal(found: "pyarrow.ChunkedArray | None", sent: "pyarrow.ChunkedArray | None") -> bool:
    import pyarrow

    if found is None or sent is None:
        known = sent if found is None else found
        return known is None or known.null_count == len(known)
    try:
        return bool(_without_nan(found).equals(_without_nan(sent.cast(found.type))))
    except pyarrow.ArrowException:
        return False


def _without_nan(values: "pyarrow.ChunkedArray") -> "pyarrow.ChunkedArray":
    import pyarrow
    import pyarrow.compute

    # What is no number comes back from a catalog as an empty cell.
    if not pyarrow.types.is_floating(values.type):
        return values
    return pyarrow.compute.if_else(pyarrow.compute.is_nan(values), None, values)


def _data_source(schema: "pyarrow.Schema") -> "DataSource[Any]":
    from tiled.structures.core import StructureFamily
    from tiled.structures.data_source import DataSource
    from tiled.structures.table import TableStructure

    return DataSource(
        structure_family=StructureFamily.table,
        structure=TableStructure.from_schema(schema, 1),
        mimetype="application/x-tiled-sql-table",
    )
