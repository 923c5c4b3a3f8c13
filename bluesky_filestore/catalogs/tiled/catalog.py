"""Operations applied to a Tiled catalog, in the tree that bluesky-tiled-plugins' clients read.

A catalog may be away when it is made: its client is made by the first call that needs one, in whatever thread. Of
several threads one makes it, under `TiledCatalog._lock`, and the others wait, but not for long. Then it stays the same.

What is behind the client is seen as soon as there is one: a tree of nodes, which is this module's, or the documents of
databroker's (`_documents`), which take `InsertDocument` only.

A run that is made here is marked as ours, with an empty ``filestore``, which holds what is said of its arrays at the
end. One without it was made by a writer of another kind, such as bluesky's `TiledWriter` beside us, which may be in the
midst of it: it is left alone.

Three things are kept of runs, whatever else is forgotten:

- `_doubted`: the runs of which a request was not answered, so that it may be carried out at any time;
- `_held`: what such a run had to hold when it was closed; `CheckRun` compares, and ends the doubt;
- `_claimed`: the runs that are ours without a mark, which earlier versions did not make.

What changes the catalog, or what is known of it, is for one thread at a time, the one that delivers; any may ask.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bluesky_filestore.catalogs.databroker.broker import handler_targets, is_in_memory, memory_address, takes_documents
from bluesky_filestore.catalogs.databroker.store import DocumentStore
from bluesky_filestore.errors import (
    CatalogError,
    CatalogFaultError,
    CatalogUnreachableError,
    OtherWriterError,
    RowsDifferError,
)
from bluesky_filestore.extras import check_installed
from bluesky_filestore.operations.operations import (
    AppendArray,
    AppendRows,
    CheckRun,
    CloseRun,
    CreateRun,
    CreateStream,
    DropArray,
    EndStreams,
    NameAxes,
    Operation,
    PlaceArray,
    UpdateStream,
)

from .arrays import TiledArray
from .connecting import PROBE_TIMEOUT, address_of, ask, catalog_errors, is_gone, may_still_be_done
from .held import Held, ValueSum
from .mimetypes import Mimetypes
from .nodes import NodePath, Nodes, replace_entries
from .once import without_retries
from .relocating import check_not_relocated
from .streams import Streams
from .tables import TiledTable

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = ["TiledCatalog"]

_MARK = "filestore"


class TiledCatalog:
    """A catalog of runs in a Tiled container; see `bluesky_filestore.operations.operations.Catalog`.

    Parameters
    ----------
    client : tiled.client.container.Container or callable
        The container that the runs go into, or what makes its client when it is needed, and raises a `CatalogError`
        that says why it cannot.
    uri : str, optional
        The container's address, under which things are kept for it. By default as whoever made the client gave it.
    """

    def __init__(self, client: "Container | Callable[[], Container]", uri: str = "") -> None:
        # Now, and not in the thread that delivers.
        check_installed("write", "tiled", "pyarrow")
        self._lock, self._is_closed = threading.Lock(), False
        self._client: Container | None = None
        self._doubted, self._claimed = set[str](), set[str]()
        self._held = Held()
        self._makes_client = not hasattr(client, "context")
        self._make_client: Callable[[], Container] = client if self._makes_client else lambda: client
        self.is_in_memory = False
        """Whether its runs go with this process: nobody else can ever deliver to it."""
        self.uri = uri
        """The address of the container. It stays, whatever the server calls itself."""
        if not self._makes_client:
            client = self.connect()
            self.is_in_memory = is_in_memory(client)
            self.uri = uri or (memory_address(client) if self.is_in_memory else address_of(client))

    def connect(self) -> "Container":
        """The container; its client is made if there is none yet.

        Raises
        ------
        CatalogError
            If there is none now, in the words of who makes it.
        """
        if self._client is not None:
            return self._client
        # Tiled's client tries for most of a minute to reach a server that goes away while it is made.
        if not self._lock.acquire(timeout=PROBE_TIMEOUT):
            raise CatalogUnreachableError(
                f"the catalog at {self.uri} has not answered for {PROBE_TIMEOUT:g} s; try again later."
            )
        try:
            if self._client is None:
                client = self._make_client()
                if self._is_closed and self._makes_client:
                    # By a thread that had begun to ask for it before.
                    client.context.close()
                    raise CatalogUnreachableError(f"the catalog at {self.uri} is not asked any more.")
                self._documents = DocumentStore(client) if takes_documents(client) else None
                self._once = without_retries(client)
                self._mimetypes, self._streams = Mimetypes(self._once), Streams(self._once)
                self._forget_nodes()
                self._client = client
            return self._client
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the client that was made, if one was, and make none any more; one that was given stays open."""
        self._is_closed = True
        if self._client is not None and self._makes_client:
            self._client.context.close()

    def forget_answers(self) -> None:
        """Take nothing for known; see `bluesky_filestore.operations.operations.Catalog`."""
        if self._client is not None:
            self._forget_nodes()
            if self._documents is not None:
                self._documents.forget()

    def _forget_nodes(self) -> None:
        self._nodes = Nodes(self._once, self._streams)
        self._tables: dict[NodePath, TiledTable] = {}
        self._arrays: dict[NodePath, TiledArray] = {}

    @property
    def server_uri(self) -> str:
        """What the server calls it; see `bluesky_filestore.operations.operations.Catalog`."""
        return str(self._client.uri) if self._client is not None else ""

    def check(self) -> None:
        """Ask whether the catalog answers, without trying again.

        Raises
        ------
        CatalogUnreachableError, CatalogAccessError
        """
        client = self.connect()
        with catalog_errors(self.uri, client):
            ask(client)

    @property
    def handler_targets(self) -> list[Any]:
        """Who in this process reads its runs with handlers; see `bluesky_filestore.handlers.HandlerRegistry`."""
        return [] if self._client is None or self._documents is None else handler_targets(self._client)

    @property
    def takes_documents(self) -> bool:
        """Whether it is databroker's; see `bluesky_filestore.operations.operations.Catalog`."""
        self.connect()
        return self._documents is not None

    def reads(self, mimetype: str) -> bool:
        """Whether the server has an adapter for the mimetype; see `bluesky_filestore.operations.operations.Catalog`."""
        if self.takes_documents:
            return False
        try:
            with catalog_errors(self.uri, self._client):
                return self._mimetypes.has(mimetype)
        except CatalogFaultError as error:
            # Nobody else can say; it is asked again.
            raise CatalogUnreachableError(str(error)) from error.__cause__

    def apply(self, operation: Operation) -> None:
        """Make the operation's words true; see `bluesky_filestore.operations.operations.Catalog`."""
        self.connect()
        try:
            with self._noting_lost_answers(operation.run):
                if self._documents is None:
                    self._apply(operation)
                else:
                    self._apply_to_documents(operation, self._documents)
        except CatalogError as error:
            # What was there may have been taken away by a request of ours that came late.
            if not isinstance(operation, CreateRun | DropArray | CheckRun | EndStreams) and is_gone(error):
                raise RowsDifferError(f"of run {operation.run} something is gone: {error}", operation.run) from error
            raise

    def _apply(self, operation: Operation) -> None:
        match operation:
            case CreateRun():
                self._create_run(operation)
            case CreateStream():
                self._create_stream(operation)
            case UpdateStream():
                replace_entries(self._nodes.get((operation.run, operation.stream)), operation.metadata)
            case AppendRows():
                path = (operation.run, operation.stream, operation.table)
                self._tables.setdefault(path, TiledTable(path, self._nodes)).append(operation)
            case AppendArray():
                self._array(operation).append(operation)
            case NameAxes():
                self._array(operation).name_axes(operation.dims)
            case PlaceArray() | DropArray():
                array = self._array(operation)
                array.place(operation) if isinstance(operation, PlaceArray) else array.drop()
            case CloseRun():
                self._close_run(operation)
            case CheckRun():
                self._check_run(operation.run)
            case EndStreams():
                self._streams.end(operation.run)

    def _apply_to_documents(self, operation: Operation, documents: DocumentStore) -> None:
        if isinstance(operation, CheckRun):
            self._doubted.discard(operation.run)
        documents.apply(operation)

    def _array(self, operation: AppendArray | NameAxes | PlaceArray | DropArray) -> TiledArray:
        check_not_relocated(self._nodes.find((operation.run,)), self.uri)
        path = (operation.run, operation.stream, operation.data_key)
        return self._arrays.setdefault(path, TiledArray(path, self._nodes))

    def doubt(self, run: str) -> None:
        """Know that something may be on its way; see `bluesky_filestore.operations.operations.Catalog`."""
        self._doubted.add(run)

    def claim(self, run: str) -> None:
        """Know that a run is ours; see `bluesky_filestore.operations.operations.Catalog`."""
        self._claimed.add(run)

    def in_doubt(self, run: str) -> bool:
        """Whether something was not answered; see `bluesky_filestore.operations.operations.Catalog`."""
        return run in self._doubted

    @contextmanager
    def _noting_lost_answers(self, run: str) -> Iterator[None]:
        try:
            with catalog_errors(self.uri, self._client):
                yield
        except CatalogError as error:
            if may_still_be_done(error):
                self._doubted.add(run)
                if self._documents is not None:
                    self._documents.forget(run)
            raise

    def remove_rows(self, run: str) -> None:
        """Remove the rows of a run; see `bluesky_filestore.operations.operations.Catalog`."""
        self.connect()
        if self._documents is not None:
            # They are in no table, and what is there is asked for anew.
            self._documents.forget(run)
            return
        with self._noting_lost_answers(run):
            self._held.forget(run)
            self._forget_run(run)
            for stream in self._nodes.find((run,)) or ():
                for key, child in list(self._nodes.get((run, stream)).items()):
                    if child.data_sources()[0].management != "external":
                        self._nodes.remove((run, stream, key))

    def _forget_run(self, run: str) -> None:
        self._nodes.forget((run,))
        self._tables = {path: table for path, table in self._tables.items() if path[0] != run}
        self._arrays = {path: array for path, array in self._arrays.items() if path[0] != run}

    def _create_run(self, operation: CreateRun) -> None:
        from tiled.structures.core import Spec

        node = self._nodes.make(
            (operation.run,),
            "container",
            metadata={**operation.metadata, _MARK: {}},
            specs=[*(Spec(**spec) for spec in operation.specs), Spec("BlueskyRun", version="3.0")],
            access_tags=None if operation.access_tags is None else list(operation.access_tags),
        )
        check_not_relocated(node, self.uri)
        if self._nodes.is_ours((operation.run,)) or _MARK in node.metadata:
            return
        if operation.run not in self._claimed:
            self._nodes.forget((operation.run,))
            raise OtherWriterError(
                f"run {operation.run} was made in the catalog at {self.uri} by another writer, and is left as that "
                f"makes it; expected one writer for a run: of a CatalogWriter and a TiledWriter of one RunEngine and "
                f"one catalog, unsubscribe one."
            )
        replace_entries(node, {_MARK: {}})

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
        tables = {path: table for path, table in self._tables.items() if path[0] == run}
        arrays = {path: array for path, array in self._arrays.items() if path[0] == run}
        if operation.is_complete:
            for table in tables.values():
                table.verify()
        for array in arrays.values():
            array.cut()
        if run in self._doubted:
            self._held.note(run, {path: (table.expected, ValueSum()) for path, table in tables.items()})
            written = {
                path: (rows, array.checksum) for path, array in arrays.items() if (rows := array.expected) is not None
            }
            self._held.note(run, written)
        replace_entries(self._nodes.get((run,)), operation.metadata)
        self._streams.expect_end(run, self._nodes.addresses(run))
        self._forget_run(run)

    def _check_run(self, run: str) -> None:
        self._held.check(run, self._nodes)
        self._doubted.discard(run)
