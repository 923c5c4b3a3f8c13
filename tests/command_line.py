"""The command as a user starts it: in processes of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

COMMAND = [sys.executable, "-m", "bluesky_filestore.cli"]


def run(*arguments, timeout=60):
    """Run the command to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=timeout, check=False
    )


@contextmanager
def running(*arguments, until: str, interrupt=True) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Run the command in the foreground, as a user would, until a line has come."""
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
    )
    try:
        lines: list[str] = []
        assert process.stdout is not None
        while not any(until in line for line in lines):
            line = process.stdout.readline()
            assert line, f"ended without {until!r}: {lines}"
            lines.append(line)
        yield process, lines
        if interrupt:
            process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) in (0, 130)
    finally:
        process.kill()
        process.communicate()
