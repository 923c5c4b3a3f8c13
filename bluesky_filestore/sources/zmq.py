"""Documents from bluesky's 0MQ proxy, as its `Publisher` sends them: ``prefix name body`` with a space between.

It listens by itself where bluesky's `RemoteDispatcher` would, which loads pickles whatever they call, drops what cannot
be read with a line on the terminal, and drops documents without a word when they come faster than they are taken.
"""

import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from bluesky_filestore.errors import SourceError
from bluesky_filestore.extras import from_extra
from bluesky_filestore.logs import get_logger
from bluesky_filestore.visible import shown_address

from .wire import NAMES, document_in

__all__ = ["ZMQSource"]

_logger = get_logger(__name__)
_WAIT_SECONDS = 0.2
_PROBE_SECONDS = 1.0
_MOST_SHOWN = 80


class ZMQSource:
    """What is published on a 0MQ proxy; see `bluesky_filestore.sources.Source`.

    0MQ keeps nothing for those who do not listen: what is sent meanwhile is lost, and noticed as a gap.

    Parameters
    ----------
    address : str
        ``zmq://host:port``, the address that the proxy gives out on, or ``zmq+ipc:///path``.
    prefix : str
        Only documents of publishers with this prefix; by default all.
    secret, server : Path, optional
        The files with our secret key and the server's public key, if the proxy wants them (CURVE).

    Raises
    ------
    SourceError
        If it is no such address.
    """

    def __init__(
        self, address: str, *, prefix: str = "", secret: Path | None = None, server: Path | None = None
    ) -> None:
        with from_extra("zmq"):
            import zmq
            import zmq.auth

        endpoint = _endpoint(address)
        self.name = shown_address(address)
        self._prefix = prefix.encode()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        # Nothing is dropped because it comes faster than it is taken.
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        if secret is not None and server is not None:
            self._socket.curve_publickey, self._socket.curve_secretkey = zmq.auth.load_certificate(secret)
            self._socket.curve_serverkey, _ = zmq.auth.load_certificate(server)
        self._socket.connect(endpoint)

    def documents(self) -> Iterator[tuple[str, dict[str, object]] | None]:
        """The documents as they come; None when none has come for a moment."""
        while True:
            message = self._message()
            if message is None:
                yield None
                self._socket.poll(int(_WAIT_SECONDS * 1000))
                continue
            try:
                document = self._read(message)
            except SourceError as error:
                _logger.error("A message from %s is left out: %s", self.name, error)
            else:
                if document is not None:
                    yield document

    def _message(self) -> bytes | None:
        """The next message, if it is there."""
        import zmq

        try:
            return bytes(self._socket.recv(zmq.NOBLOCK))
        except zmq.Again:
            return None

    def _read(self, message: bytes) -> tuple[str, dict[str, object]] | None:
        prefix, _, rest = message.partition(b" ")
        name, space, body = rest.partition(b" ")
        if self._prefix and prefix != self._prefix:
            return None
        known = name.decode(errors="replace")
        doc = document_in(body) if space and known in NAMES else None
        if not isinstance(doc, dict):
            raise SourceError(
                f"{message[:_MOST_SHOWN]!r} is no document of bluesky; expected the prefix, a document's name and the "
                f"document, with a space between."
            )
        return known, doc

    def acknowledge(self) -> None:
        """Nothing: 0MQ does not ask."""

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()
        self._context.term()


def _endpoint(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme == "zmq+ipc" and parts.path:
        return f"ipc://{parts.path}"
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if parts.scheme != "zmq" or not host or not port:
        raise SourceError(
            f"{shown_address(address)!r} is no address of a 0MQ proxy; expected zmq://host:port or zmq+ipc:///path."
        )
    try:
        socket.create_connection((host, port), _PROBE_SECONDS).close()
    except OSError as error:
        _logger.warning("Nobody answers at %s (%s); documents are waited for all the same.", address, error)
    return f"tcp://{host}:{port}"
