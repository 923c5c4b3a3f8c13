"""Those who are told by a Tiled server what is new in a run, and when nothing more will be.

A server that has a store for it (Tiled's ``streaming_cache``) tells subscribers by websockets, and one with webhooks
calls addresses. Both wait for a request for each node that says that nothing more comes, as bluesky's TiledWriter makes
it since 2.0.12; to a server with neither it would say nothing to anybody.
"""

import base64
import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import httpx

from bluesky_filestore.leanings import log_once
from bluesky_filestore.logs import get_logger

from .connecting import PROBE_TIMEOUT
from .once import TRY_LATER, FailedOnceError

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = ["Streams", "stream_address", "streams"]

_logger = get_logger(__name__)
_METADATA, _STREAM, _CLOSE, _WEBHOOKS = "/metadata/", "/stream/single/", "/stream/close/", "/webhooks/target/"
_NO_ROUTE = (404, 405)


class Streams:
    """Who is told of what is new in a container, by its server.

    Parameters
    ----------
    root : tiled.client.container.Container
        The container that the runs go into.
    """

    def __init__(self, root: "Container") -> None:
        self._root = root
        self._are_told: bool | None = None
        self._told_too_little = f"Who follows runs in the catalog at {root.uri} may not be told of their end"
        self._expected: dict[str, dict[str, None]] = {}

    def expect_end(self, run: str, addresses: Iterable[str]) -> None:
        """Know the addresses of what is in a run, what is in others before them, for when it ends."""
        self._expected[run] = {**dict.fromkeys(addresses), **self._expected.get(run, {})}

    def end_node(self, address: str) -> None:
        """Say that nothing more comes of a node that is about to be removed; raises as `end` does."""
        self.expect_end("", [address])
        self.end("")

    def end(self, run: str) -> None:
        """Say of the nodes of a run that nothing more comes; of each once, whatever the server makes of it.

        Raises
        ------
        httpx.ConnectError, FailedOnceError
            If there is no server now. What else goes wrong is said in the log, once: a run is not delivered any less.
        """
        left, http_client = self._expected.get(run, {}), self._root.context.http_client
        # That of an application in this process has no timeouts.
        options = {} if hasattr(http_client, "app") else {"timeout": PROBE_TIMEOUT}
        try:
            if self._are_told is None:
                self._are_told = self._ask()
            for address in list(left) if self._are_told else ():
                closing = address.replace(_METADATA, _CLOSE, 1)
                answer = http_client.delete(closing, **options)
                del left[address]
                if not answer.is_success:
                    log_once(_logger, f"{self._told_too_little} (status {answer.status_code})")
        except (httpx.HTTPError, FailedOnceError) as error:
            if isinstance(error.error if isinstance(error, FailedOnceError) else error, httpx.ConnectError):
                raise
            log_once(_logger, self._told_too_little, error)
        self._expected.pop(run, None)

    def _ask(self) -> bool:
        """Whether anybody may be told. It takes two requests, and is asked once.

        No part of Tiled's API says so. A websocket is accepted if there is a store for streams, and webhooks have a
        route if there are any.
        """
        http_client: Any = self._root.context.http_client
        if hasattr(http_client, "app"):
            # An application in this process, whose client has no websockets of this kind.
            return True
        uri = str(self._root.uri)
        if streams(self._root):
            return True
        hooks = http_client.get(uri.replace(_METADATA, _WEBHOOKS, 1), timeout=PROBE_TIMEOUT)
        return bool(hooks.status_code not in _NO_ROUTE)


def stream_address(address: str) -> str:
    """Where a websocket tells what is new in the node with this address, in Tiled's words packed by msgpack."""
    of_node = httpx.URL(address.replace(_METADATA, _STREAM, 1))
    scheme = "wss" if of_node.scheme == "https" else "ws"
    return str(of_node.copy_with(scheme=scheme, params={"envelope_format": "msgpack"}))


def streams(node: "Container") -> bool:
    """Whether the server of a node has a store for streams; raises what httpx does if there is none now."""
    http_client: Any = node.context.http_client
    if hasattr(http_client, "app"):
        return False
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": key}
    address = str(node.uri).replace(_METADATA, _STREAM, 1)
    with http_client.stream("GET", address, headers=headers, timeout=PROBE_TIMEOUT) as answer:
        if answer.status_code in (*TRY_LATER, 502, 503, 504):
            answer.raise_for_status()
        return bool(answer.status_code == httpx.codes.SWITCHING_PROTOCOLS)
