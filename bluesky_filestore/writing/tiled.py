"""Operations applied to a Tiled catalog, in the tree that bluesky-tiled-plugins' clients read."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

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
from .tiled_arrays import TiledArrays
from .tiled_mimetypes import Mimetypes
from .tiled_nodes import Nodes
from .tiled_tables import TiledTables

if TYPE_CHECKING:
    from tiled.client.container import Container

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
        self._mimetypes = Mimetypes(client)
        self.ask_anew()

    def ask_anew(self) -> None:
        """Take nothing for known; see `bluesky_filestore.writing.operations.Catalog`."""
        self._nodes = Nodes(self._root)
        self._tables = TiledTables(self._nodes)
        self._arrays = TiledArrays(self._nodes)

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

    def reads(self, mimetype: str) -> bool:
        """Whether the server has an adapter for the mimetype; see `bluesky_filestore.writing.operations.Catalog`."""
        with in_our_words(self.uri):
            return self._mimetypes.has(mimetype)

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
                    self._arrays.append(operation)
                case PlaceArray():
                    self._arrays.place(operation)
                case DropArray():
                    self._arrays.drop((operation.run, operation.stream, operation.data_key))
                case CloseRun():
                    self._close_run(operation)

    def start_over(self, run: str) -> None:
        """Remove the rows of a run; see `bluesky_filestore.writing.operations.Catalog`."""
        with in_our_words(self.uri):
            self._tables.forget(run)
            self._arrays.forget(run)
            for stream in self._nodes.find((run,)) or ():
                for key, child in list(self._nodes.get((run, stream)).items()):
                    if child.data_sources()[0].management != "external":
                        self._nodes.remove((run, stream, key))

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

    def _close_run(self, operation: CloseRun) -> None:
        self._tables.verify(operation.run)
        self._arrays.close(operation.run)
        _replace_entries(self._nodes.get((operation.run,)), operation.metadata)
        self._nodes.forget((operation.run,))
        self._tables.forget(operation.run)


def _replace_entries(node: Any, entries: Mapping[str, Any]) -> None:
    # Not update_metadata, which merges deeply: what an entry no longer says would stay.
    patch = [{"op": "add", "path": f"/{name}", "value": value} for name, value in entries.items()]
    node.patch_metadata(metadata_patch=patch, drop_revision=True)
