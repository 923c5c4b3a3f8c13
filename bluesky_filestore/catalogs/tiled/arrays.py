"""Arrays of a Tiled catalog: those whose values came in events, and those registered where their files are."""

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from bluesky_filestore.errors import RowsDifferError
from bluesky_filestore.model.addressing import FILE_SERIES
from bluesky_filestore.model.paths import semantics_of, to_uri
from bluesky_filestore.operations.operations import AppendArray, NameAxes, PlaceArray

from .nodes import NodePath, Nodes, row_count

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tiled.structures.array import ArrayStructure
    from tiled.structures.data_source import Asset, DataSource

__all__ = ["TiledArrays"]


class TiledArrays:
    """The arrays of a catalog.

    Whoever begins a run again after a crash finds arrays of a later state than that of its first operations. Rows
    from the first on are made right with the first operation on each array, the end of what is found at the latest
    with the run's.

    Parameters
    ----------
    nodes : Nodes
        The catalog's nodes.
    """

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._appended: set[NodePath] = set()
        self._files: dict[NodePath, list[str]] = {}
        self._surplus: dict[NodePath, PlaceArray] = {}
        self._rows: dict[NodePath, int] = {}
        self._taken_out: dict[NodePath, NDArray[np.generic]] = {}

    def append(self, operation: AppendArray) -> None:
        """Append the rows, or write them again; an array of another type is made anew with theirs.

        Raises
        ------
        RowsDifferError
            If rows before them are missing.
        """
        path = _path(operation)
        node = self._nodes.find(path)
        ours = path in self._appended and _is_like(node, operation)
        if node is not None and operation.first_row == 0 and not ours:
            # Left by somebody else, perhaps half-written, or of a type that other batches led to.
            self.drop(path)
            self._taken_out.pop(path, None)
            node = None
        if path in self._taken_out or (node is not None and not _is_like(node, operation)):
            operation = self._with_earlier(path, node, operation)
            node = None
        if operation.first_row > row_count(node):
            raise _gap(path, row_count(node), operation.first_row)
        if node is None:
            self._make_and_write(path, operation)
        else:
            offset = (operation.first_row, *(0 for _ in operation.values.shape[1:]))
            node.patch(operation.values, offset=offset, extend=True)
        self._taken_out.pop(path, None)
        self._rows[path] = operation.first_row + len(operation.values)

    def name_axes(self, operation: NameAxes) -> None:
        """Give the array's axes other names, if they have not got them."""
        node = self._nodes.find(_path(operation))
        if node is not None and node.structure().dims != operation.dims:
            structure = replace(node.structure(), dims=operation.dims)
            _put(node, replace(node.data_sources()[0], structure=structure))

    def place(self, operation: PlaceArray) -> None:
        """Register the array with the files before and those of the operation.

        Raises
        ------
        RowsDifferError
            If the files before are not registered.
        """
        path = _path(operation)
        node = self._nodes.find(path)
        present = self._present(path, node)
        if len(present) < operation.first_file:
            raise RowsDifferError(
                f"{'/'.join(path)} has {len(present)} files; file {operation.first_file} cannot follow them.", path[0]
            )
        wanted = [*present[: operation.first_file], *(_asset_uri(file) for file in operation.files)]
        if node is not None and present[: len(wanted)] != wanted[: len(present)]:
            # A catalog adds files to an array and takes none away.
            self.drop(path)
            node, present = None, []
        if node is None:
            source = _external_source(operation, wanted, first=0)
            self._nodes.make(path, "array", data_sources=[source], metadata=dict(operation.metadata))
        else:
            _put(node, _external_source(operation, wanted[len(present) :], first=len(present)))
        self._files[path] = [*wanted, *present[len(wanted) :]]
        self._rows[path] = operation.shape[0]
        self._surplus.pop(path, None)
        if len(present) > len(wanted):
            self._surplus[path] = replace(operation, files=tuple(wanted), first_file=0)

    def drop(self, path: NodePath) -> None:
        """Have the array no more."""
        self._nodes.remove(path)
        self._appended.discard(path)
        self._files.pop(path, None)
        self._surplus.pop(path, None)
        self._rows.pop(path, None)

    def sent(self, run: str) -> dict[NodePath, int]:
        """How many rows each array of a run should have."""
        return {path: rows for path, rows in self._rows.items() if path[0] == run}

    def close(self, run: str) -> None:
        """A run is complete: nothing is left of a later state than that of its last operations."""
        for path, operation in list(self._surplus.items()):
            if path[0] == run:
                self._nodes.remove(path)
                source = _external_source(operation, list(operation.files), first=0)
                self._nodes.make(path, "array", data_sources=[source], metadata=dict(operation.metadata))
                del self._surplus[path]

    def forget(self, run: str) -> None:
        """Ask for the arrays of a run anew."""
        self._appended = {path for path in self._appended if path[0] != run}
        self._surplus = {path: surplus for path, surplus in self._surplus.items() if path[0] != run}
        self._files = {path: files for path, files in self._files.items() if path[0] != run}
        self._rows = {path: rows for path, rows in self._rows.items() if path[0] != run}
        self._taken_out = {path: rows for path, rows in self._taken_out.items() if path[0] != run}

    def _present(self, path: NodePath, node: Any) -> list[str]:
        """The files that are registered, in their order."""
        if node is None:
            return []
        if path not in self._files:
            assets = sorted(node.data_sources()[0].assets, key=lambda asset: asset.num or 0)
            self._files[path] = [asset.data_uri for asset in assets]
        return self._files[path]

    def _with_earlier(self, path: NodePath, node: Any, operation: AppendArray) -> AppendArray:
        """All rows from the first one on, to be written at once; those on the server are removed."""
        import numpy as np

        if path not in self._taken_out:
            self._taken_out[path] = node.read()
        earlier = self._taken_out[path][: operation.first_row]
        if len(earlier) < operation.first_row:
            raise _gap(path, len(earlier), operation.first_row)
        self.drop(path)
        values = np.concatenate([earlier.astype(operation.values.dtype), operation.values])
        return replace(operation, first_row=0, values=values)

    def _make_and_write(self, path: NodePath, operation: AppendArray) -> None:
        from tiled.structures.core import StructureFamily
        from tiled.structures.data_source import DataSource

        values = operation.values
        structure = _structure(values.shape, tuple((size,) for size in values.shape), values.dtype, operation.dims)
        source = DataSource(structure_family=StructureFamily.array, structure=structure)
        node = self._nodes.make(path, "array", data_sources=[source], metadata=dict(operation.metadata))
        node.write(values)
        self._appended.add(path)


def _gap(path: NodePath, present: int, first_row: int) -> RowsDifferError:
    return RowsDifferError(f"{'/'.join(path)} has {present} rows; row {first_row} cannot follow them.", path[0])


def _path(operation: AppendArray | NameAxes | PlaceArray) -> NodePath:
    return (operation.run, operation.stream, operation.data_key)


def _is_like(node: Any, operation: AppendArray) -> bool:
    return node is not None and (node.dtype, node.shape[1:]) == (operation.values.dtype, operation.values.shape[1:])


def _put(node: Any, source: "DataSource[Any]") -> None:
    source.id = node.data_sources()[0].id
    node.context.http_client.put(
        node.uri.replace("/metadata/", "/data_source/", 1),
        # Numbers of numpy, in what was asked to be registered.
        content=json.dumps({"data_source": asdict(source)}, default=lambda value: value.tolist()),
        headers={"Content-Type": "application/json"},
    ).raise_for_status()


def _external_source(operation: PlaceArray, uris: list[str], *, first: int) -> "DataSource[Any]":
    import numpy as np
    from tiled.structures.core import StructureFamily
    from tiled.structures.data_source import DataSource, Management

    return DataSource(
        structure_family=StructureFamily.array,
        structure=_structure(operation.shape, operation.chunks, np.dtype(operation.dtype), operation.dims),
        mimetype=operation.mimetype,
        parameters=dict(operation.parameters),
        properties=dict(operation.properties),
        assets=[_asset(operation, uri, number) for number, uri in enumerate(uris, start=first)],
        management=Management.external,
    )


def _asset(operation: PlaceArray, uri: str, number: int) -> "Asset":
    from tiled.structures.data_source import Asset

    is_directory = operation.mimetype == FILE_SERIES
    return Asset(data_uri=uri, is_directory=is_directory, parameter="data_uris", num=number)


def _structure(
    shape: tuple[int, ...],
    chunks: tuple[tuple[int, ...], ...],
    dtype: "np.dtype[Any]",
    dims: tuple[str, ...] | None = None,
) -> "ArrayStructure":
    from tiled.structures.array import ArrayStructure, BuiltinDtype

    return ArrayStructure(shape=shape, chunks=chunks, dims=dims, data_type=BuiltinDtype.from_numpy_dtype(dtype))


def _asset_uri(file: str) -> str:
    # Tiled does not unquote a URI's path (tiled.utils.path_from_uri), and to_uri would take "/./" out.
    if semantics_of(file) == "posix":
        return f"file://localhost{file}"
    return unquote(to_uri(file))
