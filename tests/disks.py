"""What goes wrong with disks and the databases on them, brought about on purpose."""

import os
import random
import sqlite3
import subprocess
from contextlib import closing, contextmanager
from pathlib import Path

from bluesky_filestore.spool.database import FILE_NAME

_PAGE = 4096


@contextmanager
def small_disk(directory: Path, size="1m"):
    """Mount a small disk in memory at a directory; whether that could be done."""
    directory.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(directory)], check=True)


def remount(directory: Path, how):
    """Mount a disk again, e.g. such that it can only be read."""
    subprocess.run(["mount", "-o", f"remount,{how}", str(directory)], check=True, capture_output=True)


def fill(directory: Path):
    """Take all the room that is left on a disk; the file that does."""
    file = directory / "filler"
    with file.open("wb", buffering=0) as stream:
        for size in (4096, 1):
            try:
                while stream.write(b"\0" * size) == size:
                    pass
            except OSError:
                continue
    return file


def garble(directory: Path, *, first=1):
    """Overwrite the pages of a spool's database from one on, as a failing disk would, whoever has it open."""
    path = directory / FILE_NAME
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    pages = path.stat().st_size // _PAGE
    with path.open("r+b") as file:
        file.seek(first * _PAGE)
        file.write(random.Random(5).randbytes((pages - first) * _PAGE))
