"""A catalog by its address, which may be away when a writer is made."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from bluesky_filestore.errors import CatalogError, CatalogUnreachableError
from bluesky_filestore.operations.operations import Operation

from .catalog import TiledCatalog
from .connecting import PROBE_TIMEOUT

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = ["Connection"]


class Connection:
    """A catalog that is connected to when it is needed; see `bluesky_filestore.operations.operations.Catalog`.

    Parameters
    ----------
    uri : str
        The address of its container, as it was given: under this name things are kept for it.
    make_client : callable
        Makes a client for it, or raises why it cannot.
    may_wait : callable
        Of such an error, whether it may be left for later. Any other is raised at once.
    """

    def __init__(
        self, uri: str, make_client: "Callable[[], Container]", may_wait: Callable[[CatalogError], bool]
    ) -> None:
        self.uri = uri
        """The address of the container. It stays, whatever the server calls itself."""
        self._make_client = make_client
        self._client: Container | None = None
        self._catalog: TiledCatalog | None = None
        self._lock = threading.Lock()
        try:
            self.connect()
        except CatalogError as error:
            if not may_wait(error):
                raise

    @property
    def own_uri(self) -> str:
        """What the server calls it; see `bluesky_filestore.operations.operations.Catalog`."""
        return self._catalog.own_uri if self._catalog is not None else ""

    def connect(self) -> TiledCatalog:
        """The catalog itself.

        Raises
        ------
        CatalogError
            If there is none now, in the words of who makes the client.
        """
        if self._catalog is not None:
            return self._catalog
        # Tiled's client tries for most of a minute to reach a server that goes away while it is made.
        if not self._lock.acquire(timeout=PROBE_TIMEOUT):
            raise CatalogUnreachableError(
                f"the catalog at {self.uri} has not answered for {PROBE_TIMEOUT:g} s; try again later."
            )
        try:
            if self._catalog is None:
                self._client = self._make_client()
                self._catalog = TiledCatalog(self._client)
            return self._catalog
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the client that was made, if one was."""
        if self._client is not None:
            self._client.context.close()

    def check(self) -> None:
        """Ask whether it answers; see `bluesky_filestore.operations.operations.Catalog`."""
        self.connect().check()

    def reads(self, mimetype: str) -> bool:
        """Whether the server has an adapter; see `bluesky_filestore.operations.operations.Catalog`."""
        return self.connect().reads(mimetype)

    def apply(self, operation: Operation) -> None:
        """Make the operation's words true; see `bluesky_filestore.operations.operations.Catalog`."""
        self.connect().apply(operation)

    def doubt(self, run: str) -> None:
        """Know that something may be on its way; see `bluesky_filestore.operations.operations.Catalog`."""
        self.connect().doubt(run)

    def in_doubt(self, run: str) -> bool:
        """Whether something was not answered; see `bluesky_filestore.operations.operations.Catalog`."""
        return self._catalog is not None and self._catalog.in_doubt(run)

    def ask_anew(self) -> None:
        """Take nothing for known; see `bluesky_filestore.operations.operations.Catalog`."""
        if self._catalog is not None:
            self._catalog.ask_anew()

    def start_over(self, run: str) -> None:
        """Remove the rows of a run; see `bluesky_filestore.operations.operations.Catalog`."""
        self.connect().start_over(run)
