"""Arrays of a Tiled catalog: those whose values came in events, and those registered where their files are.

An array is an object, which knows what the catalog has of it. Whoever begins a run again after a crash finds arrays of
a later state than that of its first operations. Rows from the first on are made right with the first operation on each
array, the end of what is found at the latest with the run's.

What is known of an array, `TiledArray.state`:

- UNKNOWN: nothing. There may be none, or what an earlier life or somebody else left, perhaps half-written.
- WRITTEN: it was made here for values out of events. Its rows from the first on are those of operations; should an
  answer be lost, they are written again, which changes nothing.
- PLACED: it is registered with the files `TiledArray.files`, in their order, and these are what was asked for.
- LONGER: it is registered with more files than were asked for until now, as an earlier life left it. If no operation
  asks for them until the run's end, it is registered again with those of `TiledArray.placed`.

An event (`_Event`) that is named in `_NEXT` leads from one state to another; no other can come about. What the catalog
has of the other kind, or in another order, is dropped before.

Else an array has

- `expected`: how many rows it should have by the last operation, for which a file that is bytes is one; 0 if there
  should be no array, and None before there was an operation;
- `checksum`: of the values that were sent, where they came in events;
- `files`: only in PLACED and LONGER;
- `placed`: only in LONGER, the operation with all files that were asked for;
- `earlier`: the rows of an array whose values became wider, from before it was dropped until all of them are in the one
  that takes its place; else None.

Arrays are for one thread at a time, the one that delivers: nothing here is locked. After a call that raised, the same
call may be made again.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import httpx

from bluesky_filestore.errors import RowsDifferError
from bluesky_filestore.logs import get_logger
from bluesky_filestore.model.addressing import FILE_SERIES
from bluesky_filestore.model.asset_paths import asset_uri
from bluesky_filestore.model.specs import OPAQUE
from bluesky_filestore.operations.operations import AppendArray, PlaceArray

from .held import ValueSum, values_of
from .nodes import NodePath, Nodes, row_count

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tiled.structures.array import ArrayStructure
    from tiled.structures.data_source import Asset, DataSource

__all__ = ["TiledArray"]

_logger = get_logger(__name__)

_MOST_SENT_AGAIN = 100
"""Files whose sizes may have become others since; those of a long series do not grow, and would cost seconds."""


class _State(Enum):
    UNKNOWN, WRITTEN, PLACED, LONGER = auto(), auto(), auto(), auto()


class _Event(Enum):
    MAKE, PLACE, PLACE_FEWER, DROP = auto(), auto(), auto(), auto()


_PLACING = {_Event.PLACE: _State.PLACED, _Event.PLACE_FEWER: _State.LONGER, _Event.DROP: _State.UNKNOWN}
_NEXT = {
    _State.UNKNOWN: {**_PLACING, _Event.MAKE: _State.WRITTEN},
    _State.WRITTEN: {_Event.DROP: _State.UNKNOWN},
    _State.PLACED: _PLACING,
    _State.LONGER: _PLACING,
}


class TiledArray:
    """An array of a catalog; its states and attributes are explained at the top of this module.

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
        self.expected: int | None = None
        self.files: list[str] = []
        self.placed: PlaceArray | None = None
        self.earlier: NDArray[np.generic] | None = None
        self.checksum = ValueSum()

    def append(self, operation: AppendArray) -> None:
        """Append the rows, or write them again; an array of another type is made anew with theirs.

        Raises
        ------
        RowsDifferError
            If rows before them are missing, or hold other values than were sent.
        """
        node = self._nodes.find(self._path)
        is_ours = self.state is _State.WRITTEN and _is_like(node, operation)
        if node is not None and operation.first_row == 0 and not is_ours:
            # Left by somebody else, perhaps half-written, or of a type that other batches led to.
            self.drop()
            self.earlier = node = None
        if self.earlier is not None or (node is not None and not _is_like(node, operation)):
            operation = self._with_earlier(node, operation)
            node = None
        if operation.first_row > row_count(node):
            raise self._gap(f"{row_count(node)} rows; row {operation.first_row}")
        if node is None:
            node = self._make(operation)
        offset = (operation.first_row, *(0 for _ in operation.values.shape[1:]))
        node.patch(operation.values, offset=offset, extend=True)
        self.earlier = None
        self.expected = operation.first_row + len(operation.values)
        self.checksum.add(operation.first_row, operation.values)

    def name_axes(self, dims: tuple[str, ...] | None) -> None:
        """Give its axes other names, if it has not got them."""
        node = self._nodes.find(self._path)
        if node is not None and node.structure().dims != dims:
            _put(node, replace(node.data_sources()[0], structure=replace(node.structure(), dims=dims)))

    def place(self, operation: PlaceArray) -> None:
        """Register it with the files before and those of the operation.

        Raises
        ------
        RowsDifferError
            If the files before are not registered.
        """
        node = self._nodes.find(self._path)
        if node is not None and node.structure_family != _family(operation):
            self.drop()
            node = None
        present = self._registered(node)
        if len(present) < operation.first_file:
            raise self._gap(f"{len(present)} files; file {operation.first_file}")
        wanted = [*present[: operation.first_file], *(asset_uri(file) for file in operation.files)]
        if node is not None and not (_is_external(node) and present[: len(wanted)] == wanted[: len(present)]):
            # A catalog adds files to an array and takes none away.
            self.drop()
            node, present = None, []
        if node is None:
            self._register(operation, wanted)
        else:
            _put(node, _external_source(operation, wanted, first=len(present)))
        surplus = present[len(wanted) :]
        rows = 1 if operation.mimetype == OPAQUE else operation.shape[0]
        self.files, self.expected = [*wanted, *surplus], rows
        self.placed = replace(operation, files=tuple(wanted), first_file=0) if surplus else None
        self._change(_Event.PLACE_FEWER if surplus else _Event.PLACE)

    def drop(self) -> None:
        """Have it no more."""
        self._nodes.remove(self._path)
        self.files, self.placed, self.expected = [], None, 0
        self.checksum = ValueSum()
        self._change(_Event.DROP)

    def cut(self) -> None:
        """Have nothing left of a later state than that of the last operation: its run is complete."""
        if self.placed is not None:
            # It stays LONGER until that is done: should it fail half-way, it is done again.
            self._nodes.remove(self._path)
            self._register(self.placed, self.placed.files)
            self.files, self.placed = list(self.placed.files), None
            self._change(_Event.PLACE)

    def _change(self, event: _Event) -> None:
        self.state = _NEXT[self.state][event]

    def _gap(self, words: str) -> RowsDifferError:
        return RowsDifferError(f"{'/'.join(self._path)} has {words} cannot follow them.", self._path[0])

    def _registered(self, node: Any) -> list[str]:
        """The files that are registered, in their order; none of an array whose values came in events."""
        if self.state in (_State.PLACED, _State.LONGER):
            return self.files
        if node is None or not _is_external(node):
            return []
        return [asset.data_uri for asset in sorted(node.data_sources()[0].assets, key=lambda asset: asset.num or 0)]

    def _register(self, operation: PlaceArray, uris: Sequence[str]) -> None:
        source = _external_source(operation, uris)
        self._nodes.make(self._path, _family(operation), data_sources=[source], metadata=dict(operation.metadata))

    def _with_earlier(self, node: Any, operation: AppendArray) -> AppendArray:
        """All rows from the first one on, to be written at once; those on the server are removed."""
        import numpy as np

        if self.earlier is None:
            earlier = values_of(self._path, node)
            if self.checksum.differs(earlier):
                raise RowsDifferError(f"{'/'.join(self._path)} holds other values than were sent.", self._path[0])
            self.earlier = earlier
        earlier = self.earlier[: operation.first_row]
        if len(earlier) < operation.first_row:
            raise self._gap(f"{len(earlier)} rows; row {operation.first_row}")
        self.drop()
        values = np.concatenate([earlier.astype(operation.values.dtype), operation.values])
        return replace(operation, first_row=0, values=values)

    def _make(self, operation: AppendArray) -> Any:
        """An array that is seen without rows until they are written, and not with zeros.

        Tiled makes room for the chunks, and shows the shape. That the shape may be smaller is said nowhere.
        """
        from tiled.client.utils import ClientError

        metadata = dict(operation.metadata)
        try:
            node = self._nodes.make(self._path, "array", data_sources=[_own_source(operation, 0)], metadata=metadata)
        except ClientError as error:
            if error.response.status_code not in (httpx.codes.BAD_REQUEST, httpx.codes.UNPROCESSABLE_ENTITY):
                raise
            _logger.warning("%s: arrays are seen as zeros until they are written.", error)
            sources = [_own_source(operation, len(operation.values))]
            node = self._nodes.make(self._path, "array", data_sources=sources, metadata=metadata)
        self._change(_Event.MAKE)
        return node


def _is_like(node: Any, operation: AppendArray) -> bool:
    return node is not None and (node.dtype, node.shape[1:]) == (operation.values.dtype, operation.values.shape[1:])


def _is_external(node: Any) -> bool:
    return bool(node.data_sources()[0].management == "external")


def _put(node: Any, source: "DataSource[Any]") -> None:
    source.id = node.data_sources()[0].id
    node.context.http_client.put(
        node.uri.replace("/metadata/", "/data_source/", 1),
        # Numbers of numpy, in what was asked to be registered.
        content=json.dumps({"data_source": asdict(source)}, default=lambda value: value.tolist()),
        headers={"Content-Type": "application/json"},
    ).raise_for_status()


def _own_source(operation: AppendArray, rows: int) -> "DataSource[Any]":
    from tiled.structures.core import StructureFamily
    from tiled.structures.data_source import DataSource

    values = operation.values
    chunks = tuple((size,) for size in values.shape)
    structure = _structure((rows, *values.shape[1:]), chunks, values.dtype, operation.dims)
    return DataSource(structure_family=StructureFamily.array, structure=structure)


def _external_source(operation: PlaceArray, uris: Sequence[str], *, first: int = 0) -> "DataSource[Any]":
    """With the files from a number on, and those before of which the size is known by now."""
    import numpy as np
    from tiled.structures.core import StructureFamily
    from tiled.structures.data_source import DataSource, Management

    return DataSource(
        structure_family=StructureFamily(_family(operation)),
        structure=_structure_of(operation, np.dtype(operation.dtype)),
        mimetype=operation.mimetype,
        parameters=dict(operation.parameters),
        properties=dict(operation.properties),
        assets=[
            _asset(operation, uri, number)
            for number, uri in enumerate(uris)
            if number >= first or (first <= _MOST_SENT_AGAIN and number in operation.file_sizes)
        ],
        management=Management.external,
    )


def _family(operation: PlaceArray) -> str:
    if operation.mimetype == OPAQUE:
        return "bytes"
    return "array" if operation.ragged is None else "ragged"


def _parts_of(operation: PlaceArray) -> Any:
    return operation.parameters["parts"] if operation.ragged is not None else ()


def _structure_of(operation: PlaceArray, dtype: "np.dtype[Any]") -> Any:
    if operation.mimetype == OPAQUE:
        from tiled.structures.bytes import BytesStructure

        return BytesStructure()
    if operation.ragged is None:
        return _structure(operation.shape, operation.chunks, dtype, operation.dims)
    from tiled.structures.array import BuiltinDtype
    from tiled.structures.ragged import RaggedStructure

    shape = (operation.shape[0], *operation.ragged)
    chunks = tuple(None if size is None else (size,) for size in shape)
    return RaggedStructure(
        data_type=BuiltinDtype.from_numpy_dtype(dtype), shape=shape, size=operation.size, chunks=chunks
    )


def _asset(operation: PlaceArray, uri: str, number: int) -> "Asset":
    from tiled.structures.data_source import Asset

    of_parts = [part for part in _parts_of(operation) if number in part["assets"]]
    is_directory = number in operation.parameters.get("directories", ()) or FILE_SERIES in [
        operation.mimetype,
        *(part["mimetype"] for part in of_parts),
    ]
    size = None if is_directory else operation.file_sizes.get(number)
    return Asset(data_uri=uri, is_directory=is_directory, parameter="data_uris", num=number, size=size)


def _structure(
    shape: tuple[int, ...],
    chunks: tuple[tuple[int, ...], ...],
    dtype: "np.dtype[Any]",
    dims: tuple[str, ...] | None = None,
) -> "ArrayStructure":
    from tiled.structures.array import ArrayStructure, BuiltinDtype

    return ArrayStructure(shape=shape, chunks=chunks, dims=dims, data_type=BuiltinDtype.from_numpy_dtype(dtype))
