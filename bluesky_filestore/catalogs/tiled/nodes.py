"""Nodes of a Tiled catalog by path, each asked for once."""

from typing import TYPE_CHECKING, Any, TypeAlias

import httpx

from bluesky_filestore.errors import CatalogError, CatalogFaultError
from bluesky_filestore.operations.columns import is_node_name

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = ["NodePath", "Nodes", "row_count"]

NodePath: TypeAlias = tuple[str, ...]
"""(run uid, stream, data key or table), or the first of them."""

_OWN_TAGS = ("user:", "service:")


class Nodes:
    """The nodes below a container.

    Parameters
    ----------
    root : tiled.client.container.Container
        The container that the runs go into.
    """

    def __init__(self, root: "Container") -> None:
        self._root = root
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

    def made(self, path: NodePath) -> bool:
        """Whether the node was made here, not found."""
        return path in self._made

    def remove(self, path: NodePath) -> None:
        """Remove a node, if it is there, with what the catalog itself keeps for it (never files of a detector)."""
        node = self.find(path)
        if node is not None:
            try:
                # Not delete_contents, which asks again by itself: the first request may come after all that follows.
                asked = {"external_only": False}
                node.context.http_client.delete(node.uri, params=asked).raise_for_status()
            except httpx.HTTPStatusError as error:
                # An earlier try may have removed it, and its answer not have come.
                if error.response.status_code != httpx.codes.NOT_FOUND:
                    raise
            self.forget(path)

    def forget(self, path: NodePath) -> None:
        """Ask for the node, and all below it, anew the next time."""
        for known in [known for known in self._known if known[: len(path)] == path]:
            del self._known[known]
            self._made.discard(known)
        self._tried = {tried for tried in self._tried if tried[: len(path)] != path or tried == path != path[:1]}


def row_count(node: Any) -> int:
    """How many rows a table or an array has on the server; none if there is no node."""
    if node is None:
        return 0
    return len(node.read([node.columns[0]])) if hasattr(node, "columns") else int(node.shape[0])


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
