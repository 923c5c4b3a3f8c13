"""Which mimetypes a Tiled server can register."""

import re
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx

from bluesky_filestore.leanings import log_once
from bluesky_filestore.logs import get_logger

from .connecting import PROBE_TIMEOUT
from .once import FailedOnceError

if TYPE_CHECKING:
    from tiled.client.container import Container
    from tiled.structures.data_source import DataSource

__all__ = ["Mimetypes"]

_logger = get_logger(__name__)
_NO_ANSWER = (401, 403, 408, 429, 502, 503, 504)
# Gateways answer so while what is behind them starts, and servers while they fail; or always, at this question.
_NO_ANSWER_FOR_A_WHILE, _WHILE_SECONDS = (404, 500), 60.0
_NOBODYS = "application/x-bluesky-filestore-nobody-has-this"
# Versions of Tiled before 0.2.20.
_LEAVES_NODES = re.compile(r"0\.(?:[01]\.|2\.1?\d(?!\d))")


class Mimetypes:
    """The mimetypes that the server of a container has adapters for, each asked for once.

    Parameters
    ----------
    root : tiled.client.container.Container
        The container that the runs go into.
    """

    def __init__(self, root: "Container") -> None:
        self._root = root
        self._known: dict[str, bool] = {}
        self._failing_since: float | None = None

    def has(self, mimetype: str) -> bool:
        """Whether arrays of the mimetype can be registered; False for now if the server's answer does not tell."""
        if mimetype not in self._known:
            answer = self._ask(mimetype)
            if answer is None:
                return False
            self._known[mimetype] = answer
        return self._known[mimetype]

    def _ask(self, mimetype: str) -> bool | None:
        """Ask for nodes that the server cannot make: no part of Tiled's API lists its adapters.

        A server looks at the data sources of a new node one after the other, and says which mimetype it does not know
        (tiled/catalog/adapter.py). One of two is none that any server knows, so that nothing is ever made. They are
        asked for in both orders: whichever the server looks at first, it names the other one if it does not know it.
        """
        # Tiled's client would try for a minute to reach a server that is away.
        self._root.context.http_client.get(self._root.uri, timeout=PROBE_TIMEOUT).raise_for_status()
        named = {self._refused(pair) for pair in ((mimetype, _NOBODYS), (_NOBODYS, mimetype))}
        if mimetype in named:
            return False
        return True if named == {_NOBODYS} else None

    def _refused(self, pair: tuple[str, str]) -> str | None:
        """Which of two mimetypes the server says it does not know; None if that cannot be told."""
        key = f"filestore-asks-{uuid4()}"
        try:
            node = self._root.new("container", [_source(mimetype) for mimetype in pair], key=key)
        except (httpx.HTTPStatusError, FailedOnceError) as failure:
            error = failure.error if isinstance(failure, FailedOnceError) else failure
            answer = getattr(error, "response", None)
            if answer is None or answer.status_code in _NO_ANSWER or self._fails_for_now(answer.status_code):
                raise
            self._tidy_up(key)
            named = [mimetype for mimetype in pair if mimetype in answer.text]
            if answer.status_code == httpx.codes.UNSUPPORTED_MEDIA_TYPE and len(named) == 1:
                self._failing_since = None
                return named[0]
            log_once(_logger, f"The catalog at {self._root.uri} does not tell what it reads; stock is assumed", error)
            return None
        log_once(_logger, f"The catalog at {self._root.uri} registers what it cannot read; stock is assumed")
        self._root.delete_contents([node.path_parts[-1]])
        return None

    def _tidy_up(self, key: str) -> None:
        """Remove a node that was refused: servers before 0.2.20 have made it when they look at its data sources."""
        from tiled.queries import KeysFilter

        if _LEAVES_NODES.match(self._root.context.server_info.library_version):
            self._root.delete_contents(list(self._root.search(KeysFilter([key]))))

    def _fails_for_now(self, status: int) -> bool:
        """Whether a server that answers so may yet tell: a run's images are registered as was said once, or not."""
        if status not in _NO_ANSWER_FOR_A_WHILE:
            return False
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        return now - self._failing_since < _WHILE_SECONDS


def _source(mimetype: str) -> "DataSource[Any]":
    from tiled.structures.container import ContainerStructure
    from tiled.structures.core import StructureFamily
    from tiled.structures.data_source import DataSource, Management

    return DataSource(
        structure_family=StructureFamily.container,
        structure=ContainerStructure(keys=[]),
        mimetype=mimetype,
        management=Management.external,
    )
