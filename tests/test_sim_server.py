"""The repeater confirms clients, and hands beacons on to them."""

import asyncio
import socket
import struct

from bluesky_filestore.sim.server import Repeater

HEADER = struct.Struct(">HHHHII")
LOCALHOST = 0x7F000001


def connected(address: tuple[str, int]) -> socket.socket:
    """A client's socket."""
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.setblocking(False)
    client.connect(address)
    return client


async def play() -> list[bytes]:
    """Register two clients, send a beacon, and return what the clients get."""
    repeater = await Repeater.open("127.0.0.1", 0)
    assert repeater is not None
    address = repeater.get_extra_info("sockname")
    assert await Repeater.open(*address) is None
    loop = asyncio.get_running_loop()
    with connected(address) as first, connected(address) as second, connected(address) as server:
        first.send(b"")
        got = [await loop.sock_recv(first, 100)]
        second.send(HEADER.pack(24, 0, 0, 0, 0, LOCALHOST))
        got.append(await loop.sock_recv(second, 100))
        server.send(HEADER.pack(13, 0, 13, 5064, 1, 0))
        got += [await loop.sock_recv(client, 100) for client in (first, second)]
    repeater.close()
    return got


def test_repeater() -> None:
    """Both ways to register are confirmed; a beacon reaches all clients with the address it came from."""
    confirm, beacon = HEADER.pack(17, 0, 0, 0, 0, LOCALHOST), HEADER.pack(13, 0, 13, 5064, 1, LOCALHOST)
    assert asyncio.run(asyncio.wait_for(play(), timeout=10)) == [confirm, confirm, beacon, beacon]
