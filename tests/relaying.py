"""A relay on loopback that hands on whatever comes, websockets too, until what it has open is cut."""

import socket
import threading
import time
from contextlib import suppress
from urllib.parse import urlsplit


class Relay:
    """Hands on what comes to a server, and back.

    Parameters
    ----------
    upstream : str
        The address of the server.
    late : bytes
        What has whatever it is part of come late.
    delay : float
        By how much, in seconds.
    """

    def __init__(self, upstream: str, late: bytes = b"", delay: float = 0.0) -> None:
        there = urlsplit(upstream)
        self._there = (there.hostname or "", there.port or 80)
        self._late = (late, delay)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        """Its own address."""
        self.connections = 0
        """How many connections were made."""
        self._open: list[socket.socket] = []
        self._made: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def cut(self) -> None:
        """End all connections."""
        while self._open:
            each = self._open.pop()
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End all connections, and take no more."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._threads[0].join()
        self.cut()
        for thread in self._threads:
            thread.join()
        for each in self._made:
            each.close()

    def __enter__(self) -> "Relay":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                self.connections += 1
                try:
                    far = socket.create_connection(self._there)
                except OSError:
                    near.close()
                    continue
                self._open += (near, far)
                self._made += (near, far)
                self._threads += (
                    threading.Thread(target=_hand_on, args=(*pair, *self._late), daemon=True)
                    for pair in ((near, far), (far, near))
                )
                for thread in self._threads[-2:]:
                    thread.start()


def _hand_on(taken: socket.socket, given: socket.socket, late: bytes, delay: float) -> None:
    with suppress(OSError):
        while data := taken.recv(65536):
            if late and late in data:
                time.sleep(delay)
            given.sendall(data)
    with suppress(OSError):
        given.shutdown(socket.SHUT_RDWR)
