"""Servers in processes of their own: Tiled's from a configuration, and ours, which can be killed and started again.

Run as a program it waits for orders on its standard input, one JSON line each, and forks a server for each: so that
importing is paid for once.
"""

import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

API_KEY = "secret"


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def configured_server(config: Mapping[str, Any], directory: Path, **environment: str) -> Iterator[str]:
    """Tiled's own server, started from a configuration file; its address."""
    import httpx
    import yaml

    (directory / "config.yml").write_text(yaml.safe_dump(dict(config)))
    port = free_port()
    command = [sys.executable, "-m", "tiled", "serve", "config", str(directory / "config.yml")]
    with (directory / "log").open("w+") as log:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            stdout=log,
            stderr=log,
            env=os.environ | environment,
        )
        try:
            deadline = time.monotonic() + 90
            while True:
                with suppress(httpx.TransportError):
                    httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=5).raise_for_status()
                    break
                assert server.poll() is None, (directory / "log").read_text()
                assert time.monotonic() < deadline, "the server did not start in time"
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(timeout=30)


class KillableServer:
    """A catalog server that is killed and comes back on the same directory and port.

    Parameters
    ----------
    directory : Path
        Where it keeps its catalog.
    readable : Path
        What data files are served from.
    """

    def __init__(self, directory: Path, readable: Path) -> None:
        self._order = {"directory": str(directory), "readable": [str(readable)], "port": 0, "api_key": API_KEY}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._child = 0
        self.uri = ""
        """Its address."""
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(self._order) + "\n")
        stdin.flush()
        self._child = int(stdout.readline())
        self.uri = stdout.readline().strip()
        assert self.uri, "the server did not start"
        self._order["port"] = int(self.uri.rpartition(":")[2])

    def kill(self) -> None:
        """Kill it, and wait until it is dead."""
        stdout = self._process.stdout
        assert stdout is not None
        os.kill(self._child, signal.SIGKILL)
        assert stdout.readline().strip() == "over"
        self._child = 0

    def close(self) -> None:
        """Kill it for good."""
        if self._child:
            self.kill()
        self._process.communicate()

    def __enter__(self) -> "KillableServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def serve(order: dict[str, Any]) -> None:
    """Serve until killed, or until nobody is left to give orders."""
    from bluesky_filestore import serve_catalog

    with serve_catalog(**order) as catalog:
        print(catalog.uri, flush=True)
        hang_up = select.poll()
        hang_up.register(sys.stdin, 0)
        hang_up.poll()


def main() -> None:
    """Take orders."""
    gc.set_threshold(20_000, 20, 20)
    import tiled.client
    import tiled.server.app  # noqa: F401

    import bluesky_filestore.serving.catalog  # noqa: F401 - a child finds it imported

    for line in sys.stdin:
        child = os.fork()
        if not child:
            with suppress(KeyboardInterrupt):
                serve(json.loads(line))
            os._exit(0)
        print(child, flush=True)
        os.waitpid(child, 0)
        print("over", flush=True)


if __name__ == "__main__":
    main()
