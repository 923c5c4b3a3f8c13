"""Operations applied to a Tiled catalog, in the tree that bluesky-tiled-plugins' clients read."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from bluesky_filestore.paths import semantics_of, to_uri

from .connecting import PROBE_TIMEOUT, in_our_words
from .operations import (
    AppendArray,
    AppendRows,
    CloseRun,
    CreateRun,
    CreateStream,
    DropArray,
    Operation,
    PlaceArray,
    UpdateStream,
)
from .tiled_nodes import Nodes
from .tiled_tables import TiledTables

if TYPE_CHECKING:
    from tiled.client.container import Container
    from tiled.structures.data_source import DataSource

__all__ = ["TiledCatalog"]


class TiledCatalog:
    """A catalog of runs in a Tiled container; see `bluesky_filestore.writing.operations.Catalog`.

    Parameters
    ----------
    client : tiled.client.container.Container
        The container that the runs go into.
    """

    def __init__(self, client: "Container") -> None:
        self._root = client.include_data_sources()
        self._nodes = Nodes(self._root)
        self._tables = TiledTables(self._nodes)

    @property
    def uri(self) -> str:
        """The address of the container."""
        return str(self._root.uri)

    def check(self) -> None:
        """Ask whether the catalog answers, without trying again.

        Raises
        ------
        CatalogUnreachableError, CatalogAccessError
        """
        with in_our_words(self.uri):
            self._root.context.http_client.get(self._root.uri, timeout=PROBE_TIMEOUT).raise_for_status()

    def apply(self, operation: Operation) -> None:
        """Make the operation's words true; see `bluesky_filestore.writing.operations.Catalog`."""
        with in_our_words(self.uri):
            match operation:
                case CreateRun():
                    self._create_run(operation)
                case CreateStream():
                    self._create_stream(operation)
                case UpdateStream():
                    _replace_entries(self._nodes.get((operation.run, operation.stream)), operation.metadata)
                case AppendRows():
                    self._tables.append(operation)
                case AppendArray():
                    self._append_array(operation)
                case PlaceArray():
                    self._place_array(operation)
                case DropArray():
                    self._nodes.remove((operation.run, operation.stream, operation.data_key))
                case CloseRun():
                    self._close_run(operation)

    def _create_run(self, operation: CreateRun) -> None:
        from tiled.structures.core import Spec

        self._nodes.make(
            (operation.run,),
            "container",
            metadata=dict(operation.metadata),
            specs=[*(Spec(**spec) for spec in operation.specs), Spec("BlueskyRun", version="3.0")],
            access_tags=None if operation.access_tags is None else list(operation.access_tags),
        )

    def _create_stream(self, operation: CreateStream) -> None:
        from tiled.structures.core import Spec

        self._nodes.make(
            (operation.run, operation.stream),
            "container",
            metadata=dict(operation.metadata),
            specs=[Spec("BlueskyEventStream", version="3.0"), Spec("composite")],
        )

    def _append_array(self, operation: AppendArray) -> None:
        from tiled.structures.array import ArrayStructure, BuiltinDtype
        from tiled.structures.core import StructureFamily
        from tiled.structures.data_source import DataSource

        path = (operation.run, operation.stream, operation.data_key)
        node = self._nodes.find(path)
        if node is not None:
            offset = (operation.first_row, *(0 for _ in operation.values.shape[1:]))
            node.patch(operation.values, offset=offset, extend=True)
            return
        structure = ArrayStructure(
            shape=operation.values.shape,
            chunks=tuple((size,) for size in operation.values.shape),
            data_type=BuiltinDtype.from_numpy_dtype(operation.values.dtype),
        )
        source = DataSource(structure_family=StructureFamily.array, structure=structure)
        node = self._nodes.make(path, "array", data_sources=[source], metadata=dict(operation.metadata))
        node.write(operation.values)

    def _place_array(self, operation: PlaceArray) -> None:
        from tiled.client.utils import handle_error
        from tiled.utils import safe_json_dump

        path = (operation.run, operation.stream, operation.data_key)
        source = _data_source(operation)
        node = self._nodes.find(path)
        if node is None:
            self._nodes.make(path, "array", data_sources=[source], metadata=dict(operation.metadata))
            return
        source.id = node.data_sources()[0].id
        handle_error(
            node.context.http_client.put(
                node.uri.replace("/metadata/", "/data_source/", 1),
                content=safe_json_dump({"data_source": asdict(source)}),
            )
        )

    def _close_run(self, operation: CloseRun) -> None:
        _replace_entries(self._nodes.get((operation.run,)), operation.metadata)
        self._nodes.forget((operation.run,))
        self._tables.forget(operation.run)


def _data_source(operation: PlaceArray) -> "DataSource[Any]":
    import numpy as np
    from tiled.structures.array import ArrayStructure, BuiltinDtype
    from tiled.structures.core import StructureFamily
    from tiled.structures.data_source import Asset, DataSource, Management

    return DataSource(
        structure_family=StructureFamily.array,
        structure=ArrayStructure(
            shape=operation.shape,
            chunks=operation.chunks,
            dims=operation.dims,
            data_type=BuiltinDtype.from_numpy_dtype(np.dtype(operation.dtype)),
        ),
        mimetype=operation.mimetype,
        parameters=dict(operation.parameters),
        properties=dict(operation.properties),
        assets=[
            Asset(data_uri=_asset_uri(file), is_directory=False, parameter="data_uris", num=number)
            for number, file in enumerate(operation.files, start=operation.first_file)
        ],
        management=Management.external,
    )


def _asset_uri(file: str) -> str:
    # Tiled does not unquote a URI's path (tiled.utils.path_from_uri), and to_uri would take "/./" out.
    if semantics_of(file) == "posix":
        return f"file://localhost{file}"
    return unquote(to_uri(file))


def _replace_entries(node: Any, entries: Mapping[str, Any]) -> None:
    # Not update_metadata, which merges deeply: what an entry no longer says would stay.
    patch = [{"op": "add", "path": f"/{name}", "value": value} for name, value in entries.items()]
    node.patch_metadata(metadata_patch=patch, drop_revision=True)
