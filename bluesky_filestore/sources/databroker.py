"""Runs of a databroker, one after the other: out of its MongoDB, or by way of the server that it is behind."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from bluesky_filestore.catalogs.databroker.broker import client_of, collections_of, takes_documents
from bluesky_filestore.catalogs.databroker.collections import Collections
from bluesky_filestore.catalogs.databroker.runs import documents_of_run
from bluesky_filestore.errors import CatalogError, OptionError
from bluesky_filestore.extras import from_extra
from bluesky_filestore.visible import shown_address

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = ["ClientRuns", "MongoRuns", "Runs", "runs_of"]


class Runs(Protocol):
    """Runs that are somewhere else."""

    @property
    def faults(self) -> Sequence[str]:
        """What is there of which no run can be had, in words."""

    def count(self) -> int:
        """How many there are, or were a moment ago."""

    def uids(self) -> Iterator[str]:
        """Their uids, oldest first."""

    def documents_of(self, run: str) -> Iterator[tuple[str, Any]]:
        """The documents of one, singly.

        Raises
        ------
        DocumentError
            If they cannot be had.
        """

    def close(self) -> None:
        """Ask for no more: connections are closed."""


class MongoRuns(Collections):
    """The runs in a MongoDB, as `Runs`; see `Collections`."""

    @classmethod
    def from_uri(cls, uri: str) -> "MongoRuns":
        """Those of a database by its address, such as ``mongodb://localhost/metadatastore``.

        Raises
        ------
        OptionError
            If the address names no database.
        CatalogError
            If no MongoDB answers there.
        """
        with from_extra("mongo"):
            from pymongo import MongoClient
            from pymongo.errors import ConfigurationError, PyMongoError

        try:
            # What the address says goes before what we say, and not, as it would by itself, behind it.
            ours: Any = {} if "serverselectiontimeoutms" in uri.lower() else {"serverSelectionTimeoutMS": 10_000}
            client: Any = MongoClient(uri, **ours)
            try:
                database = client.get_default_database()
            except ConfigurationError:
                client.close()
                raise
        except ConfigurationError as error:
            raise OptionError(
                f"the address of the MongoDB cannot be used ({error}); expected one with the name of a database, such "
                f"as mongodb://localhost:27017/metadatastore."
            ) from error
        try:
            database.command("ping")
        except PyMongoError as error:
            client.close()
            raise CatalogError(
                f"no MongoDB answers at {shown_address(uri)} ({str(error).partition(' (')[0]}); check the address, the "
                f"user, and that it runs."
            ) from error
        return cls(database)


class ClientRuns:
    """The runs behind a client of databroker's, as `Runs`."""

    faults: Sequence[str] = ()

    def __init__(self, client: "Container") -> None:
        self._client = client

    def count(self) -> int:
        """How many there are."""
        return len(self._client)

    def uids(self) -> Iterator[str]:
        """Their uids, oldest first."""
        yield from self._client.keys()

    def documents_of(self, run: str) -> Iterator[tuple[str, Any]]:
        """The documents of one, singly."""
        yield from documents_of_run(self._client[run])

    def close(self) -> None:
        """Close the client."""
        self._client.context.close()


def runs_of(given: Any) -> Runs:
    """The runs of a broker, or of a client of one.

    Raises
    ------
    OptionError
        If it is none that holds documents.
    """
    client = client_of(given)
    if not hasattr(client, "context") or not takes_documents(client):
        raise OptionError(f"{given!r} is no databroker that holds documents; expected a Broker, or its catalog.")
    return collections_of(client) or ClientRuns(client)
