"""Several runs of a catalog with all that is in them, asked for at once of a server that knows how."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
from tiled.query_registration import register

from bluesky_filestore.leanings import going_without
from bluesky_filestore.logs import get_logger

from .connecting import catalog_errors
from .nodes import plain_container

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = ["LEVELS", "Below", "can_search_below", "runs_with_contents"]

_logger = get_logger(__name__)
_NAME, _SEARCH = "filestore_below", "search_deep"
LEVELS = 2
"""Streams are below a run, and tables and arrays below them."""


@register(name=_NAME)
@dataclass
class Below:
    """In a search of all that is in a catalog: what has one of these keys there, and what is below it.

    It is none of Tiled's queries, of which a stock tree would know one, and find the runs with nothing in them.
    """

    keys: list[str]

    def encode(self) -> dict[str, str]:
        """As it stands in an address."""
        return {"keys": json.dumps(self.keys)}

    @classmethod
    def decode(cls, *, keys: str) -> "Below":
        """What was encoded."""
        return cls(keys=[str(key) for key in json.loads(keys)])


def can_search_below(container: Any) -> bool:
    """Whether all that is below a container can be searched: Tiled before 0.2.19 cannot, neither client nor server."""
    return hasattr(container, _SEARCH) and _SEARCH in container.item["links"]


def runs_with_contents(client: "Container", uids: Sequence[str]) -> dict[str, Mapping[tuple[str, ...], Any]]:
    """Those of some runs that the catalog has: their nodes, and what is in them with its data sources, by path.

    None of a server that is not ours, or where Tiled cannot search so: then each run is to be asked for.

    Raises
    ------
    CatalogError
        If the catalog does not answer, or does not let us in.
    """
    from tiled.client.utils import ClientError

    found: dict[str, dict[tuple[str, ...], Any]] = {}
    with catalog_errors(str(client.uri)), going_without(_logger, "A search below runs", "each is asked for by itself"):
        if not can_search_below(client) or _NAME not in client.context.server_info.queries:
            return {}
        below = plain_container(client).search_deep(Below(list(uids)), max_depth=1 + LEVELS)
        try:
            for path, node in below.items():
                found.setdefault(path[0], {})[path[1:]] = node
        except ClientError as error:
            # Of a tree of another kind the server does not know what is asked.
            if error.response.status_code != httpx.codes.BAD_REQUEST:
                raise
            return {}
    return {uid: nodes for uid, nodes in found.items() if () in nodes and "start" in nodes[()].metadata}
