"""A loopback proxy that does to requests what networks, gateways and overloaded servers do to them."""

import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit

Fault = Literal["drop answer", "cut answer", "garble answer", "cut", "hold", "twice", "lie", "page"] | float | None
"""What befalls a request.

The server does what it asks for, but the answer never comes, or half of it, or is said to be compressed, and is not.
The connection is cut before the server gets it. It is held until `Proxy.release`, and forwarded then; it is forwarded
so many seconds later (a float), or twice, and answered once. It is not forwarded, and answered as if it was
done, or with a page for people, as by a gateway whose users have to log in, or with a status (an int).
"""
_INSTEAD = {
    "lie": (200, "application/json", b"null"),
    "page": (
        200,
        "text/html; charset=utf-8",
        b"<!doctype html><title>Maintenance</title><p>Please log in, or come again.",
    ),
}
_OF_THE_CONNECTION = ("connection", "keep-alive", "transfer-encoding", "content-length", "te", "upgrade")


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks for."""

    method: str
    """The verb."""
    path: str
    """The path of the address, without a query."""
    number: int
    """How many requests came before it."""

    @property
    def is_append(self) -> bool:
        """Whether rows are appended to a table."""
        return self.method == "PATCH" and "/table/partition/" in self.path


def no_fault(_: Request) -> Fault:
    """Everything goes well."""
    return None


class Proxy:
    """Forwards requests to a server, but for those that something befalls.

    Parameters
    ----------
    upstream : str
        The address of the server.
    renames_host : bool
        Whether the server is told its own address, and not the one that the client asked for.
    """

    def __init__(self, upstream: str, *, renames_host: bool = False) -> None:
        self.upstream, self.renames_host = urlsplit(upstream), renames_host
        self.fault: Callable[[Request], Fault] = no_fault
        """What befalls a request; it may be asked by several threads at once."""
        self.befell: Counter[Fault] = Counter()
        """How often which fault came about."""
        self.requests = 0
        """How many requests came."""
        self._lock, self._released = threading.Lock(), threading.Event()
        self._holding = 0
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.uri = f"http://127.0.0.1:{self._server.server_address[1]}"
        """Its own address."""
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="proxy", daemon=True
        )
        self._thread.start()

    @property
    def holding(self) -> int:
        """How many requests are held."""
        return self._holding

    def release(self) -> None:
        """Forward what is held."""
        self._released.set()

    def close(self) -> None:
        """Forward what is held, and end."""
        self.release()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def judge(self, method: str, path: str) -> Fault:
        """What befalls the request that comes next."""
        with self._lock:
            fault = self.fault(Request(method, urlsplit(path).path, self.requests))
            self.requests += 1
            self.befell[fault] += 1
        return fault

    def hold(self) -> None:
        """Wait until what is held is released."""
        with self._lock:
            self._released.clear()
            self._holding += 1
        self._released.wait()
        with self._lock:
            self._holding -= 1


class _Server(ThreadingHTTPServer):
    """One thread a connection; none of them keeps a test from ending."""

    proxy: Proxy
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is none of our business."""


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    server: _Server
    # Without it, each answer waits 40 ms for the client's acknowledgement of its head.
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        proxy = self.server.proxy
        fault = proxy.judge(self.command, self.path)
        if fault == "cut":
            self.close_connection = True
        elif fault in _INSTEAD or isinstance(fault, int):
            said = (fault, "application/json", b'{"detail": "the proxy says so"}')
            status, content_type, content = _INSTEAD.get(fault, said)
            place = [("Location", "/login")] if status in (302, 303) else []
            self._answer(status, [("Content-Type", content_type), *place], content)
        else:
            if fault == "hold":
                proxy.hold()
            elif isinstance(fault, float):
                time.sleep(fault)
            if fault == "twice":
                self._forward(body, "unanswered")
            self._forward(body, fault)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on  # noqa: N815 - the names it asks for

    def _forward(self, body: bytes, fault: Fault | Literal["unanswered"]) -> None:
        upstream = self.server.proxy.upstream
        connection = http.client.HTTPConnection(upstream.hostname or "", upstream.port, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() == "host" and self.server.proxy.renames_host:
                    connection.putheader(name, upstream.netloc)
                elif name.lower() not in _OF_THE_CONNECTION:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            headers, content = answer.getheaders(), answer.read()
        except (OSError, http.client.HTTPException):
            # The server is away, or ended while it was at it: so does the connection.
            self.close_connection = True
            return
        finally:
            connection.close()
        if fault in ("drop answer", "hold"):
            self.close_connection = True
            return
        if fault == "unanswered":
            return
        if fault == "garble answer":
            content = b"\x1f\x8b" + content
            headers = [*headers, ("Content-Encoding", "gzip")]
        self._answer(answer.status, headers, content, half=fault == "cut answer")

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, *, half: bool = False) -> None:
        with suppress(OSError):
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in _OF_THE_CONNECTION:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if half else content)
        if half:
            self.close_connection = True
