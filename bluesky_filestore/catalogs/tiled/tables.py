"""Event tables of a Tiled catalog: an object for each, which knows what the catalog has of it.

A table grows by rows that are appended. If no answer comes, nobody knows whether they are there, and the same
operation is applied again; and whoever goes through a run again begins with its first rows, in other batches. So the
first question is always what the catalog has, and only what it lacks is sent.

There are three machines to a table:

1. What is known of its rows, `TiledTable.state`:

   - UNKNOWN: nothing. The catalog has to be asked, and may have no such table.
   - COUNTED: it has as many as `TiledTable.rows` says.
   - SENT: some were sent, and their answer has not come: some, all or none are there.

   An event (`_Event`) that is named in `_NEXT` leads from one state to another; no other can come about.

2. Whether rows may come that nobody waits for, `TiledTable.in_doubt`, False at first. A table that had to be counted is
   one that others, or we ourselves in an earlier life, may be writing to still; and a request of ours that was not
   answered may be carried out later. `_CAUSES_DOUBT` says where that begins. It ends when `verify` has looked for the
   table anew, and compared the rows that are there with those that were sent, as it does for any.

3. Where its rows are: in the catalog, or here, in `TiledTable.earlier`, which is None else. A table whose columns
   become wider is read, removed and made anew; what was in it is kept until the new one has it.

Else a table has

- `expected`: how many rows it should have by all that was sent;
- `found`: what an earlier life left in it, to be compared with what is sent. It is read once, and kept while it has
  more rows than were sent; else None.

Tables are for one thread at a time, the one that delivers: nothing here is locked. Between two calls, a table in
COUNTED has just the rows that it says, if nobody else writes to it. After a call that raised, it may be in any state,
and the same call may be made again. What is forgotten is UNKNOWN again.
"""

from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from bluesky_filestore.errors import RowsDifferError
from bluesky_filestore.operations.operations import AppendRows

from .nodes import NodePath, Nodes, row_count

if TYPE_CHECKING:
    import pyarrow
    from tiled.structures.data_source import DataSource

__all__ = ["TiledTable"]


class _State(Enum):
    UNKNOWN, COUNTED, SENT = auto(), auto(), auto()


class _Event(Enum):
    MAKE, COUNT, SEND, ANSWER, REMOVE = auto(), auto(), auto(), auto(), auto()


_NEXT = {
    _State.UNKNOWN: {
        _Event.MAKE: _State.COUNTED,
        _Event.COUNT: _State.COUNTED,
        _Event.REMOVE: _State.UNKNOWN,
    },
    _State.COUNTED: {
        _Event.SEND: _State.SENT,
        _Event.REMOVE: _State.UNKNOWN,
        # Somebody took it away.
        _Event.MAKE: _State.COUNTED,
    },
    _State.SENT: {
        _Event.ANSWER: _State.COUNTED,
        _Event.COUNT: _State.COUNTED,
        _Event.REMOVE: _State.UNKNOWN,
        _Event.MAKE: _State.COUNTED,
    },
}
_CAUSES_DOUBT = {
    (_State.UNKNOWN, _Event.COUNT),
    (_State.COUNTED, _Event.MAKE),
    *((_State.SENT, event) for event in (_Event.COUNT, _Event.REMOVE, _Event.MAKE)),
}


class TiledTable:
    """A table of a catalog; its states and attributes are explained at the top of this module.

    Parameters
    ----------
    path : tuple of str
        Where it is, or shall be.
    nodes : Nodes
        The catalog's nodes.
    """

    def __init__(self, path: NodePath, nodes: Nodes) -> None:
        self._path, self._nodes = path, nodes
        self.state = _State.UNKNOWN
        self.in_doubt = False
        self.rows = self.expected = 0
        self.earlier: pyarrow.Table | None = None
        self.found: pyarrow.Table | None = None

    def append(self, operation: AppendRows) -> None:
        """Append the rows that are not there yet.

        Raises
        ------
        RowsDifferError
            If other rows are in their place, or rows before them are missing.
        """
        schema = _schema(operation)
        rows, first_row = _rows(operation, schema), operation.first_row
        self.expected = max(first_row + rows.num_rows, self.expected)
        if first_row == 0:
            # Nothing comes before it.
            self.earlier = None
        if self._has(operation, rows):
            return
        node = self._find_or_make(schema, operation)
        if self.earlier is not None:
            rows, first_row = _joined(self.earlier, rows, first_row, self._path), 0
        present = self._count(node)
        if present < first_row:
            raise _gap(self._path, present, first_row)
        if present < first_row + rows.num_rows:
            self._change(_Event.SEND)
            node.append_partition(0, rows.slice(present - first_row))
            self.rows = first_row + rows.num_rows
            self._change(_Event.ANSWER)
        self.earlier = None

    def verify(self) -> None:
        """Compare the number of rows with what was sent: a gateway may have sent a request twice, and answered once.

        Raises
        ------
        RowsDifferError
            If it holds another number of rows.
        """
        if self.in_doubt or self.state is _State.SENT:
            self._nodes.forget(self._path)
        present = row_count(self._nodes.find(self._path))
        self.in_doubt = False
        if present != self.expected:
            name, run = "/".join(self._path), self._path[0]
            raise RowsDifferError(f"{name} has {present} rows; expected {self.expected}.", run)

    def _change(self, event: _Event) -> None:
        self.in_doubt = self.in_doubt or (self.state, event) in _CAUSES_DOUBT
        self.state = _NEXT[self.state][event]

    def _count(self, node: Any) -> int:
        if self.state is not _State.COUNTED:
            self.rows = row_count(node)
            self._change(_Event.COUNT)
        return self.rows

    def _has(self, operation: AppendRows, rows: "pyarrow.Table") -> bool:
        """Whether the table has these rows, whatever the types of its columns became since."""
        node = None if self.earlier is not None else self._nodes.find(self._path)
        present = 0 if node is None else self._count(node)
        common = min(present - operation.first_row, rows.num_rows)
        # What is tried again, too: a gateway may have sent what was before it twice.
        if common > 0:
            if self.found is None or self.found.num_rows < present:
                self.found = _all_rows(node)
            # Which columns there are depends on the events that were written together: a run that is gone through
            # again may ask for others than are there.
            if not _agree(self.found.slice(operation.first_row, common), rows.slice(0, common)):
                raise RowsDifferError(
                    f"{'/'.join(self._path)} has other rows than events {operation.first_row} and on.", operation.run
                )
        if present <= self.expected:
            self.found = None
        return bool(common == rows.num_rows)

    def _find_or_make(self, schema: "pyarrow.Schema", operation: AppendRows) -> Any:
        """The table, with these columns."""
        node = self._nodes.find(self._path)
        if node is not None:
            if node.structure().arrow_schema_decoded.equals(schema):
                return node
            if self.earlier is None:
                earlier = _all_rows(node)
                if earlier.num_rows != self.rows:
                    # A gateway may have sent a request twice. What was not there is not taken for what was.
                    name = "/".join(self._path)
                    raise RowsDifferError(f"{name} has {earlier.num_rows} rows; expected {self.rows}.", operation.run)
                self.earlier = earlier
            self._nodes.remove(self._path)
            self._change(_Event.REMOVE)
        sources, metadata = [_data_source(schema)], dict(operation.metadata)
        node = self._nodes.make(self._path, "table", data_sources=sources, metadata=metadata)
        if self._nodes.is_ours(self._path):
            self.rows = 0
            self._change(_Event.MAKE)
        return node


def _joined(earlier: "pyarrow.Table", rows: "pyarrow.Table", first_row: int, path: NodePath) -> "pyarrow.Table":
    """The rows of a table from its first one on, with the columns of those that follow."""
    import pyarrow

    if earlier.num_rows < first_row:
        raise _gap(path, earlier.num_rows, first_row)
    for field in rows.schema:
        if field.name not in earlier.column_names:
            earlier = earlier.append_column(field, pyarrow.nulls(earlier.num_rows, field.type))
    earlier = earlier.select(rows.column_names).slice(0, first_row).cast(rows.schema)
    return pyarrow.concat_tables([earlier, rows])


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
