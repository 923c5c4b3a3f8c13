"""The processes of a soak: a server, a proxy before it, and writers; and how much of the machine they take."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.proxy import Proxy
from tests.serving import KillableServer

ROOT = Path(__file__).parents[2]


@dataclass
class Usage:
    """What one process took, as far as somebody looked."""

    first: tuple[int, int] = (0, 0)
    """Bytes and descriptors, when it was looked at for the first time."""
    most: tuple[int, int] = (0, 0)

    def look(self, pid: int) -> None:
        """Look at a process, if it is there."""
        with suppress(OSError, StopIteration, ValueError):
            status = Path(f"/proc/{pid}/status").read_text()
            kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
            now = int(kilobytes) * 1024, len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - of many that go
            self.first = self.first if any(self.first) else now
            self.most = max(self.most[0], now[0]), max(self.most[1], now[1])


@dataclass
class Writer:
    """A writer that is killed and begun again, with the journals of its lives."""

    number: int
    order: Mapping[str, Any]
    directory: Path
    lives: list[Path] = field(default_factory=list)
    usages: list[Usage] = field(default_factory=list)
    exits: Counter[int] = field(default_factory=Counter)
    child: int = 0
    """The process, while there is one."""

    def __post_init__(self) -> None:
        self._ended, self._lock = threading.Event(), threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.writing"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "MPLBACKEND": "agg"},
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline().strip() == "ready"
        self._thread = threading.Thread(target=self._live, daemon=True)

    def start(self) -> None:
        """Have it live, again and again."""
        self._thread.start()

    def kill(self) -> bool:
        """End its life; another one begins at once. Whether there was one."""
        with self._lock, suppress(ProcessLookupError):
            if self.child:
                os.kill(self.child, signal.SIGKILL)
                return True
        return False

    def allow(self, size: int) -> None:
        """Let the files that it writes be so long and no longer, as a quota does; -1 for as they like."""
        with self._lock, suppress(ProcessLookupError):
            if self.child:
                resource.prlimit(self.child, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def join(self, timeout: float) -> bool:
        """Wait until its last life has come to its own end; whether it has."""
        self._ended.set()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def close(self) -> None:
        """End it for good."""
        self._ended.set()
        self.kill()
        self._process.communicate()

    def _live(self) -> None:
        code = -signal.SIGKILL
        while code and not (self._ended.is_set() and code != -signal.SIGKILL):
            code = self._one_life()
            self.exits[code] += 1
            if code not in (0, -signal.SIGKILL):
                time.sleep(0.5)

    def _one_life(self) -> int:
        """Live once; how it ended."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        life = len(self.lives)
        fifo, kept = self.directory / f"fifo {self.number} {life}", self.directory / f"journal {self.number} {life}"
        os.mkfifo(fifo)
        self.lives.append(kept)
        self.usages.append(Usage())
        own = {"journal": str(fifo), "first": 1_000_000 * self.number + 1000 * life}
        own["seed"] = f"{self.order['seed']} {self.number} {life}"
        stdin.write(json.dumps({**self.order, **own}) + "\n")
        stdin.flush()
        keeping = threading.Thread(target=_keep, args=(fifo, kept), daemon=True)
        keeping.start()
        with self._lock:
            self.child = int(stdout.readline())
        code = int(stdout.readline())
        with self._lock:
            self.child = 0
        # A child that was killed before it opened its end leaves a reader that waits for one.
        with suppress(OSError):
            os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        keeping.join(30)
        fifo.unlink()
        return code


def _keep(fifo: Path, kept: Path) -> None:
    """Put what a life says into a file."""
    with fifo.open("rb") as said, kept.open("wb", buffering=0) as file:
        while part := said.read1(2**20):
            file.write(part)


class Server:
    """A server that can be away, behind a proxy."""

    def __init__(self, directory: Path, readable: Path) -> None:
        self._server = KillableServer(directory, readable)
        self.proxy = Proxy(self._server.uri)
        self.uri = self._server.uri
        """Its own address, which is the straight way."""
        self.usages: list[Usage] = [Usage()]
        self.is_there = True

    def kill(self) -> None:
        """Kill it."""
        self._server.kill()
        self.is_there = False

    def start(self) -> None:
        """Start it again."""
        if not self.is_there:
            self._server.start()
            self.usages.append(Usage())
            self.is_there = True

    def look(self) -> None:
        """Look at what it takes."""
        self.usages[-1].look(self._server._child)

    def close(self) -> None:
        """Have no server any more."""
        self.proxy.close()
        self._server.close()
