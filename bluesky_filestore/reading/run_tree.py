"""A run as it lies in a catalog, with few requests: what is in a node is asked for at once."""

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = ["RunTree"]


class RunTree:
    """A run's node and what is below it, each asked for once.

    Parameters
    ----------
    node : tiled.client.container.Container
        The run.
    """

    def __init__(self, node: "Container") -> None:
        self._node: Any = getattr(node, "base", node)
        self._children: dict[str, dict[str, Any]] = {}

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The run's."""
        metadata: Mapping[str, Any] = self._node.metadata
        return metadata

    @cached_property
    def streams(self) -> dict[str, Any]:
        """The containers of the streams, by name."""
        return {name: getattr(child, "base", child) for name, child in _children(self._node).items()}

    def children(self, stream: str) -> dict[str, Any]:
        """The tables and arrays of a stream, with their data sources."""
        if stream not in self._children:
            self._children[stream] = _children(self.streams[stream])
        return self._children[stream]


def _children(node: Any) -> dict[str, Any]:
    return dict(node.new_variation(include_data_sources=True).items())
