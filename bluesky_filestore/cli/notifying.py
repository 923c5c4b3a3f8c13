"""What a service manager is told, by systemd's protocol: lines to a socket whose name is in the environment."""

import os
import socket
import time
from contextlib import suppress

from bluesky_filestore.visible import visible_line

__all__ = ["Notifier"]

_STATUS_SECONDS = 1.0
_MOST_SHOWN = 400


class Notifier:
    """Tells the service manager how a service is doing; does nothing where there is none.

    https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
    """

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        is_meant = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = os.environ.get("WATCHDOG_USEC", "") if is_meant else ""
        self._ping_every = int(microseconds) / 2e6 if microseconds.isdigit() else 0.0
        self._status = ""
        self._next_ping = self._next_status = 0.0

    def ready(self) -> None:
        """The service has begun."""
        self._send("READY=1")

    def look(self, status: str, *, is_alive: bool) -> None:
        """How it is doing now; the watchdog is kept quiet while its threads are alive."""
        now = time.monotonic()
        if status != self._status and now >= self._next_status:
            self._status, self._next_status = status, now + _STATUS_SECONDS
            self._send(f"STATUS={visible_line(' '.join(status.split()))[:_MOST_SHOWN]}")
        if self._ping_every and is_alive and now >= self._next_ping:
            self._next_ping = now + self._ping_every
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The service ends."""
        self._send("STOPPING=1")

    def _send(self, line: str) -> None:
        if not self._address:
            return
        # A name that begins with @ is in the abstract namespace.
        name = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            # A manager that does not listen must not hold up what is delivered.
            sender.setblocking(False)
            sender.sendto(line.encode(), name)
