"""What of databroker's is before us: a Broker, a client of its catalog, or the tree of one in this process."""

import os
import socket
import weakref
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from bluesky_filestore.catalog_address import IN_MEMORY
from bluesky_filestore.leanings import going_without
from bluesky_filestore.logs import get_logger

from .collections import Collections

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = [
    "client_of",
    "collections_of",
    "handler_targets",
    "is_in_memory",
    "memory_address",
    "raw_of",
    "takes_documents",
    "tree_of",
]

_logger = get_logger(__name__)
_SPEC, _OF_TREES = "CatalogOfBlueskyRuns", "3."


def client_of(given: Any) -> Any:
    """The client behind databroker's v1 Broker; anything else is given back."""
    if hasattr(given, "context"):
        return given
    inner = getattr(given, "v2", None)
    return inner if hasattr(inner, "context") else given


def raw_of(client: "Container") -> "Container":
    """Where in a catalog the raw runs are: in ``raw`` where there is such a container, as for ``Broker.named``."""
    from tiled.client.utils import ClientError

    try:
        found: Container = client["raw"]
    except (ClientError, ValueError, KeyError):
        return client
    return found


def takes_documents(client: "Container") -> bool:
    """Whether what is behind a client is databroker's Mongo tree, which holds documents, and no tree of nodes."""
    return any(
        spec.name == _SPEC and not str(spec.version or "").startswith(_OF_TREES)
        for spec in getattr(client, "specs", ())
    )


def tree_of(node: Any) -> Any | None:
    """The tree of databroker itself, if its server is in this process: that of a catalog, or that a run is in."""
    found = getattr(getattr(getattr(node.context.http_client, "app", None), "state", None), "root_tree", None)
    for part in filter(None, node.path_parts):
        if found is None or hasattr(found, "get_serializer"):
            break
        found = found[part]
    return found if hasattr(found, "get_serializer") else None


def collections_of(node: Any) -> Collections | None:
    """The collections of a catalog, or of the one that a run is in, where its tree is in this process."""
    tree = tree_of(node)
    return None if tree is None else Collections(tree._metadatastore_db, tree._asset_registry_db)


def is_in_memory(client: "Container") -> bool:
    """Whether its runs are in the memory of this process, and go with it."""
    tree = tree_of(client)
    return tree is not None and type(tree._metadatastore_db.client).__module__.startswith("mongomock")


def handler_targets(client: "Container") -> list[Any]:
    """Who in this process reads a catalog's runs with handlers: its tree, if that is here."""
    tree = tree_of(client)
    if tree is None:
        return []
    # One for each tree: it is told of again by every writer.
    if not hasattr(tree, "_bluesky_filestore_target"):
        tree._bluesky_filestore_target = _Target(tree)
    return [tree._bluesky_filestore_target]


class _Target:
    """Has a tree read a spec as we do, runs that it has open as well."""

    def __init__(self, tree: Any) -> None:
        self._tree = weakref.proxy(tree)

    def register_handler(self, spec: str, handler_class: Any) -> None:
        self._tree.register_handler(spec, handler_class, overwrite=True)
        self._forget_runs()

    def deregister_handler(self, spec: str) -> None:
        self._tree.deregister_handler(spec)
        self._forget_runs()

    def _forget_runs(self) -> None:
        with going_without(_logger, "what databroker keeps of runs", "runs that were read have their handlers"):
            self._tree._cache_of_partial_bluesky_runs.clear()
            self._tree._cache_of_complete_bluesky_runs.clear()


def memory_address(client: "Container") -> str:
    """The name of a catalog that goes with this process; another one has never the same."""
    state = client.context.http_client.app.state
    if not hasattr(state, "bluesky_filestore_name"):
        state.bluesky_filestore_name = f"{IN_MEMORY}://{socket.gethostname()}/{os.getpid()}-{uuid4().hex[:8]}"
    return str(state.bluesky_filestore_name)
