"""A port on loopback, for who serves there."""

import errno
import socket

from bluesky_filestore.errors import CatalogError

__all__ = ["LOOPBACK", "bound_socket"]

LOOPBACK = "127.0.0.1"
"""Where is served, and nowhere else."""


def bound_socket(port: int) -> socket.socket:
    """A socket at a port, 0 for a free one; raises `CatalogError` if it cannot be used."""
    # Bound here and not by uvicorn, which would end the process where the port is taken.
    # With the protocol said, asyncio turns Nagle's algorithm off; without, every answer is 40 ms late.
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((LOOPBACK, port))
    except (OSError, OverflowError) as error:
        bound.close()
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        reason = "is taken by another program" if taken else f"cannot be used ({error})"
        raise CatalogError(
            f"port {port} on {LOOPBACK} {reason}; expected a free port, or 0 to be given one."
        ) from error
    return bound
