"""Who puts documents into a spool: each under a number, with a lease on it for as long as it lives."""

import os
import platform
import sqlite3
import time
from pathlib import Path

from .lease import Lease

__all__ = ["register"]


def register(connection: sqlite3.Connection, directory: Path) -> tuple[int, Lease]:
    """Enter this process, inside a transaction, under a number whose lease nobody else has.

    Raises
    ------
    OSError
        If no lease can be had at all.
    """
    while True:
        (number,) = connection.execute(
            "INSERT INTO producers (host, process, started) VALUES (?, ?, ?) RETURNING id",
            (platform.node(), os.getpid(), time.time()),
        ).fetchone()
        lease = Lease(directory / f"producer-{number}.lock")
        if lease.take():
            return int(number), lease
        # It is somebody's who has it from a database that was put aside, and has not noticed yet.
        connection.execute("DELETE FROM producers WHERE id = ?", (number,))
