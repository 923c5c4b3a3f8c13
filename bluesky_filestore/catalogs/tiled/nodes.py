"""Nodes of a Tiled catalog by path, each asked for once."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import httpx

from bluesky_filestore.errors import CatalogError, CatalogFaultError, RunNotFoundError
from bluesky_filestore.leanings import going_without
from bluesky_filestore.logs import get_logger
from bluesky_filestore.operations.columns import is_node_name

from .connecting import catalog_errors
from .streams import Streams
from .values import read_table

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = [
    "NodePath",
    "Nodes",
    "find_run",
    "find_runs",
    "get_runs",
    "has_ended",
    "has_run",
    "plain_container",
    "replace_entries",
    "row_count",
]

NodePath: TypeAlias = tuple[str, ...]
"""(run uid, stream, data key or table), or the first of them."""

_logger = get_logger(__name__)
_A_PAGE = 100
_AFTER_ANY_TIME = 1e300
_OWN_TAGS = ("user:", "service:")


class Nodes:
    """The nodes below a container.

    What is found or made is known from then on, until it is forgotten. They are for one thread at a time.

    Parameters
    ----------
    client : tiled.client.container.Container
        The container that the runs go into.
    streams : Streams, optional
        Who is told of what is new there.
    """

    def __init__(self, client: "Container", streams: Streams | None = None) -> None:
        self._root, self._streams = plain_container(client), streams
        self._known: dict[NodePath, Any] = {}
        self._made: set[NodePath] = set()
        self._tried: set[NodePath] = set()

    def find(self, path: NodePath) -> Any:
        """The node, or None if there is none.

        Raises
        ------
        CatalogError
            If a node cannot have such a name: another one would be found, or a name be made up.
        """
        if not path:
            return self._root
        _check_name(path[-1])
        if path not in self._known:
            if path[:-1] in self._made and path not in self._tried:
                # What we made ourselves holds nothing but what we put into it, or tried to.
                return None
            try:
                self._known[path] = self.get(path[:-1])[path[-1]]
            except KeyError:
                return None
        return self._known[path]

    def get(self, path: NodePath) -> Any:
        """The node, which has to be there.

        Raises
        ------
        CatalogError
            If it is not.
        """
        node = self.find(path)
        if node is None:
            raise CatalogFaultError(
                f"{'/'.join(path)} is not in the catalog at {self._root.uri}; expected it to be there."
            )
        return node

    def make(self, path: NodePath, family: str, **attributes: Any) -> Any:
        """Make a node, or take the one that is there: it was made by an earlier try of the same operation.

        Who may see a run may see what is in it. Raises as `find` does.
        """
        _check_name(path[-1])
        parent = self.get(path[:-1])
        if len(path) > 1:
            attributes["access_tags"] = _tags_given(parent)
        self._tried.add(path)
        try:
            node = parent.new(family, attributes.pop("data_sources", []), key=path[-1], **attributes)
        except httpx.HTTPStatusError as error:
            if error.response.status_code != httpx.codes.CONFLICT:
                raise
            try:
                node = parent[path[-1]]
            except KeyError:
                raise CatalogFaultError(
                    f"{'/'.join(path)} cannot be made in the catalog at {self._root.uri}, which says that it is there, "
                    f"and cannot be found there; expected one of the two."
                ) from error
        else:
            self._made.add(path)
        self._known[path] = node
        return self._known[path]

    def addresses(self, run: str) -> list[str]:
        """The addresses of the known nodes of a run, what is in others before them."""
        known = [path for path in self._known if path[0] == run]
        return [str(self._known[path].uri) for path in sorted(known, key=len, reverse=True)]

    def is_ours(self, path: NodePath) -> bool:
        """Whether the node was made here, not found."""
        return path in self._made

    def remove(self, path: NodePath) -> None:
        """Remove a node, if it is there, with what the catalog itself keeps for it (never files of a detector)."""
        node = self.find(path)
        if node is not None:
            if self._streams is not None:
                self._streams.end_node(str(node.uri))
            try:
                # Not delete_contents, which asks again by itself: the first request may come after all that follows.
                asked = {"external_only": False}
                node.context.http_client.delete(node.uri, params=asked).raise_for_status()
            except httpx.HTTPStatusError as error:
                # An earlier try may have removed it, and its answer not have come. Or a gateway answers.
                self.forget(path)
                if error.response.status_code != httpx.codes.NOT_FOUND or self.find(path) is not None:
                    raise
            self.forget(path)

    def forget(self, path: NodePath) -> None:
        """Ask for the node, and all below it, anew the next time."""
        for known in [known for known in self._known if known[: len(path)] == path]:
            del self._known[known]
            self._made.discard(known)
        self._tried = {tried for tried in self._tried if tried[: len(path)] != path or tried == path != path[:1]}


def plain_container(client: "Container") -> "Container":
    """The same container with Tiled's own clients for what is in it, and with the data sources of each node."""
    with going_without(_logger, "What Tiled makes clients of", "runs are written with those of the client given"):
        # Here, and not when the first event of a process waits to be written: they import dask, which takes long.
        clients = _PlainClients()
        for family in ("table", "array"):
            clients[family]
        # Not include_data_sources(), which asks the catalog: it may be away.
        return _as_container(client).new_variation(structure_clients=clients, include_data_sources=True)
    return client


def find_run(client: "Container", uid: str) -> "tuple[str, Container]":
    """The run whose uid begins so, and its uid.

    Raises
    ------
    RunNotFoundError
        If there is none, or more than one.
    CatalogError
        If the catalog does not answer, or does not let us in.
    """
    from tiled.queries import Like

    with catalog_errors(str(client.uri)):
        client = _as_container(client)
        # Nothing, as of a variable that is not set, would be the catalog itself, and a path what is in a run.
        if uid and "/" not in uid:
            try:
                return uid, client[uid]
            except KeyError:
                pass
        pattern = uid.replace("%", "").replace("_", "")
        found = list(client.search(Like("start.uid", f"{pattern}%")).keys()[:2]) if pattern else []
        if len(found) != 1:
            raise RunNotFoundError(
                f"{'more than one run' if found else 'no run'} in {client.uri} has a uid that begins with {uid!r}; "
                f"expected just one."
            )
        return found[0], client[found[0]]


def has_run(client: "Container", uid: str) -> bool:
    """Whether a catalog has just this run; raises `CatalogError` if it does not answer."""
    if not is_node_name(uid):
        return False
    with catalog_errors(str(client.uri)):
        return uid in _as_container(client)


def has_ended(client: "Container", uid: str) -> bool:
    """Whether a catalog has a run to its end, whatever that was; raises `CatalogError` if it does not answer."""
    if not has_run(client, uid):
        return False
    with catalog_errors(str(client.uri)):
        return bool({"stop", "notes"} & set(_as_container(client)[uid].metadata))


def find_runs(client: "Container", *, since: float | None = None, most: int | None = None) -> list[str]:
    """The uids of runs, the latest first.

    Parameters
    ----------
    client : tiled.client.container.Container
        The catalog.
    since : float, optional
        In seconds since 1970: only those that were started then or later.
    most : int, optional
        How many at the most.

    With `since` or `most` a start whose time is no number, which some databases sort after all numbers, is not among
    them.

    Raises
    ------
    CatalogError
        If the catalog does not answer, or does not let us in.
    """
    from tiled.queries import Comparison

    with catalog_errors(str(client.uri)):
        client = _as_container(client)
        found = client if since is None else client.search(Comparison("ge", "start.time", since))
        found = found if since is most is None else found.search(Comparison("lt", "start.time", _AFTER_ANY_TIME))
        keys = found.sort(("start.time", -1)).keys()
        uids: dict[str, None] = {}
        begin = 0
        # Each page by where it begins: of what is sorted Tiled's own server gives no third page after the second.
        while most is None or begin < most:
            page = list(keys[begin : begin + _A_PAGE])
            uids |= dict.fromkeys(page)
            begin += _A_PAGE
            if len(page) < _A_PAGE:
                break
        return list(uids)[:most]


def get_runs(client: "Container", uids: Sequence[str]) -> "dict[str, Container]":
    """Those of some runs that the catalog has, by their uid, with one request a hundred.

    Raises
    ------
    CatalogError
        If the catalog does not answer, or does not let us in.
    """
    from tiled.queries import KeysFilter

    with catalog_errors(str(client.uri)):
        found = _as_container(client).search(KeysFilter(list(uids)))
        return {uid: node for uid, node in found.items() if "start" in node.metadata}


def _as_container(client: "Container") -> "Container":
    """The container itself, where its client is of a catalog of runs: that takes a uid for the beginning of another."""
    from tiled.client.container import Container

    if type(client) is not Container:
        with going_without(_logger, "A container of Tiled's client", "runs are looked for in the way of their catalog"):
            return Container(client.context, item=client.item, structure_clients=client.structure_clients)
    return client


def replace_entries(node: Any, entries: Mapping[str, Any]) -> None:
    """Set entries of a node's metadata."""
    # Not update_metadata, which merges deeply: what an entry no longer says would stay.
    patch = [{"op": "add", "path": f"/{name}", "value": value} for name, value in entries.items()]
    node.patch_metadata(metadata_patch=patch, drop_revision=True)


def row_count(node: Any) -> int:
    """How many rows a table or an array has on the server; none if there is no node, one of a file that is bytes."""
    if node is None:
        return 0
    if hasattr(node, "columns"):
        return len(read_table(node, node.columns[:1]))
    return int(node.shape[0]) if hasattr(node, "shape") else 1


def _check_name(name: str) -> None:
    if not is_node_name(name):
        raise CatalogError(
            f"{name!r} cannot be the name of a run, stream or key in Tiled, where it is part of an address; expected "
            f"one without / ? # %20 and control characters, and not '', '.' or '..'."
        )


def _tags_given(parent: Any) -> list[str] | None:
    """The access tags that what is in a node has to have, too: none is handed down by the catalog."""
    # A user's own tag, which the catalog gives where nobody said any, nobody else may give.
    tags = [tag for tag in parent.item["attributes"].get("access_tags") or () if not tag.startswith(_OWN_TAGS)]
    return tags or None


class _PlainClients(Mapping[str, Any]):
    """Tiled's clients by structure family, each imported when it is asked for.

    Those that packages register for runs and streams import xarray, and look through tables for their keys, which would
    cost a request each time.
    """

    _FAMILIES = ("container", "table", "array", "awkward", "ragged", "sparse", "bytes")

    def __getitem__(self, family: str) -> Any:
        from tiled.client.container import DEFAULT_STRUCTURE_CLIENT_DISPATCH

        if family not in self._FAMILIES:
            raise KeyError(family)
        return DEFAULT_STRUCTURE_CLIENT_DISPATCH["numpy"][family]

    def __iter__(self) -> Iterator[str]:
        return iter(self._FAMILIES)

    def __len__(self) -> int:
        return len(self._FAMILIES)
