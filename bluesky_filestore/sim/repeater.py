"""A Channel Access repeater: hands the beacons that reach this machine on to all clients on it.

A client library that finds no repeater tries to start one as a daemon, which outlives everybody, and
complains if it can't. caproto's repeater is not used: it does not confirm the empty datagrams with which
libca registers, so that libca complains after a minute.
"""

import asyncio
import logging
import socket
import struct
from typing import cast

__all__ = ["Repeater"]

_HEADER = struct.Struct(">HHHHII")
"""Command, payload size, data type, data count and two parameters, as in the Channel Access protocol."""

_BEACON, _CONFIRM, _REGISTER = 13, 17, 24

_log = logging.getLogger(__name__)


class Repeater(asyncio.DatagramProtocol):
    """The protocol of a repeater's UDP port."""

    def __init__(self) -> None:
        self._transport: asyncio.DatagramTransport | None = None
        self._clients: set[tuple[str, int]] = set()

    @classmethod
    async def open(cls, host: str, port: int) -> asyncio.DatagramTransport | None:
        """Begin to repeat on this port; None if somebody, who then is the repeater, has it already."""
        try:
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                cls, (host, port), family=socket.AF_INET
            )
        except OSError as error:
            _log.info("no repeater on %s:%d, somebody else is there: %s", host, port, error)
            return None
        return transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The port is open."""
        # asyncio's own datagram transports are no subclass of DatagramTransport.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        """Register a client, or hand a beacon on."""
        if self._transport is None:
            return
        if len(data) < _HEADER.size or _HEADER.unpack_from(data)[0] == _REGISTER:
            self._clients.add(address)
            confirm = _HEADER.pack(_CONFIRM, 0, 0, 0, 0, _number(address[0]))
            self._transport.sendto(confirm, address)
            return
        command, *fields, sender = _HEADER.unpack_from(data)
        if command == _BEACON and sender == 0:
            data = _HEADER.pack(command, *fields, _number(address[0])) + data[_HEADER.size :]
        for client in self._clients:
            self._transport.sendto(data, client)

    def error_received(self, error: Exception) -> None:
        """A client that has gone is no trouble to the others."""
        _log.debug("a client of the repeater has gone: %s", error)


def _number(host: str) -> int:
    """An IPv4 address as a number."""
    return int.from_bytes(socket.inet_aton(host), "big")
