"""Operations applied to a Tiled catalog, in the tree that bluesky-tiled-plugins' clients read."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx

from bluesky_filestore.errors import CatalogError, CatalogUnreachableError, RowsDifferError
from bluesky_filestore.leanings import going_without
from bluesky_filestore.operations.operations import (
    AppendArray,
    AppendRows,
    CheckRun,
    CloseRun,
    CreateRun,
    CreateStream,
    DropArray,
    NameAxes,
    Operation,
    PlaceArray,
    UpdateStream,
)

from .arrays import TiledArrays
from .clients import PlainClients
from .connecting import PROBE_TIMEOUT, address_of, in_our_words, is_gone, may_still_be_done
from .mimetypes import Mimetypes
from .nodes import NodePath, Nodes, row_count
from .tables import TiledTables

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = ["TiledCatalog"]

_logger = logging.getLogger(__name__)


class TiledCatalog:
    """A catalog of runs in a Tiled container; see `bluesky_filestore.operations.operations.Catalog`.

    `_root`, and what is known below it, is there once it is connected, with the first thing that it is asked for; any
    thread may be the one to connect. Nodes, tables and arrays are for the one that delivers.

    Parameters
    ----------
    client : tiled.client.container.Container, optional
        The container that the runs go into.
    uri : str, optional
        Without a client, the address of the container, as it was given: under this name things are kept for it.
    make_client : callable, optional
        Without a client, makes one that is closed with the catalog, or raises why it cannot.
    """

    def __init__(
        self,
        client: "Container | None" = None,
        *,
        uri: str = "",
        make_client: "Callable[[], Container] | None" = None,
    ) -> None:
        self.uri = uri if client is None else address_of(client)
        """The address of the container, as its user gave it. It stays, whatever the server calls itself."""
        self._make_client = make_client
        self._root: Any = None
        self._lock = threading.Lock()
        self._doubted: set[str] = set()
        self._held: dict[str, dict[NodePath, int]] = {}
        if client is not None:
            self._set_client(client)

    def connect(self) -> None:
        """Have a client made, if there is none.

        Raises
        ------
        CatalogError
            If there is none now, in the words of who makes it.
        """
        if self._root is not None or self._make_client is None:
            return
        # Tiled's client tries for most of a minute to reach a server that goes away while it is made.
        if not self._lock.acquire(timeout=PROBE_TIMEOUT):
            raise CatalogUnreachableError(
                f"the catalog at {self.uri} has not answered for {PROBE_TIMEOUT:g} s; try again later."
            )
        try:
            if self._root is None:
                self._set_client(self._make_client())
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the client that was made, if one was."""
        if self._make_client is not None and self._root is not None:
            self._root.context.close()

    def _set_client(self, client: "Container") -> None:
        self._mimetypes = Mimetypes(client)
        root = client
        with going_without(_logger, "What Tiled makes clients of", "runs are written with those of the client given"):
            # Here, and not when the first event of a process waits to be written.
            clients = PlainClients()
            clients.load()
            # Not include_data_sources(), which asks the catalog: it may be away.
            root = client.new_variation(structure_clients=clients, include_data_sources=True)
        self._ask_below(root)
        self._root = root

    def _ask_below(self, root: "Container") -> None:
        self._nodes = Nodes(root)
        self._tables = TiledTables(self._nodes)
        self._arrays = TiledArrays(self._nodes)

    def ask_anew(self) -> None:
        """Take nothing for known; see `bluesky_filestore.operations.operations.Catalog`."""
        if self._root is not None:
            self._ask_below(self._root)

    @property
    def own_uri(self) -> str:
        """What the server calls it; see `bluesky_filestore.operations.operations.Catalog`."""
        return "" if self._root is None else str(self._root.uri)

    def check(self) -> None:
        """Ask whether the catalog answers, without trying again.

        Raises
        ------
        CatalogUnreachableError, CatalogAccessError
        """
        self.connect()
        with in_our_words(self.uri, self._root):
            try:
                self._ask()
            except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
                if isinstance(error, httpx.ConnectError):
                    raise
                # Servers end connections that are not used for some seconds, at times just as one is used again.
                self._ask()

    def _ask(self) -> None:
        self._root.context.http_client.get(self._root.uri, timeout=PROBE_TIMEOUT).raise_for_status()

    def reads(self, mimetype: str) -> bool:
        """Whether the server has an adapter for the mimetype; see `bluesky_filestore.operations.operations.Catalog`."""
        self.connect()
        with in_our_words(self.uri, self._root):
            return self._mimetypes.has(mimetype)

    def apply(self, operation: Operation) -> None:
        """Make the operation's words true; see `bluesky_filestore.operations.operations.Catalog`."""
        self.connect()
        try:
            self._apply(operation)
        except CatalogError as error:
            # What was there may have been taken away by a request of ours that came late.
            if isinstance(operation, AppendRows | AppendArray | PlaceArray) and is_gone(error):
                raise RowsDifferError(f"of run {operation.run} something is gone: {error}", operation.run) from error
            raise

    def _apply(self, operation: Operation) -> None:
        with self._in_doubt_of_silence(operation.run):
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
                case NameAxes():
                    self._arrays.name_axes(operation)
                case PlaceArray():
                    self._arrays.place(operation)
                case DropArray():
                    self._arrays.drop((operation.run, operation.stream, operation.data_key))
                case CloseRun():
                    self._close_run(operation)
                case CheckRun():
                    self._check_run(operation.run)

    def doubt(self, run: str) -> None:
        """Know that something may be on its way; see `bluesky_filestore.operations.operations.Catalog`."""
        self._doubted.add(run)

    def in_doubt(self, run: str) -> bool:
        """Whether something was not answered; see `bluesky_filestore.operations.operations.Catalog`."""
        return run in self._doubted

    @contextmanager
    def _in_doubt_of_silence(self, run: str) -> Iterator[None]:
        try:
            with in_our_words(self.uri, self._root):
                yield
        except CatalogError as error:
            if may_still_be_done(error):
                self._doubted.add(run)
            raise

    def start_over(self, run: str) -> None:
        """Remove the rows of a run; see `bluesky_filestore.operations.operations.Catalog`."""
        self.connect()
        with self._in_doubt_of_silence(run):
            self._held.pop(run, None)
            self._nodes.forget((run,))
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
        run = operation.run
        if operation.is_complete:
            self._tables.verify(run)
        self._arrays.close(run)
        if run in self._doubted:
            self._held[run] = {**self._held.get(run, {}), **self._tables.sent(run), **self._arrays.sent(run)}
        _replace_entries(self._nodes.get((run,)), operation.metadata)
        self._nodes.forget((run,))
        self._tables.forget(run)
        self._arrays.forget(run)

    def _check_run(self, run: str) -> None:
        self._nodes.forget((run,))
        for path, expected in self._held.get(run, {}).items():
            present = row_count(self._nodes.find(path))
            if present != expected:
                raise RowsDifferError(f"{'/'.join(path)} has {present} rows; expected {expected}.", run)
        self._held.pop(run, None)
        self._doubted.discard(run)


def _replace_entries(node: Any, entries: Mapping[str, Any]) -> None:
    # Not update_metadata, which merges deeply: what an entry no longer says would stay.
    patch = [{"op": "add", "path": f"/{name}", "value": value} for name, value in entries.items()]
    node.patch_metadata(metadata_patch=patch, drop_revision=True)
