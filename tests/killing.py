"""A process that does as it is told in children of its own, each of which is killed where it is told.

Where is said by how many of the events that Python audits have come that change or open a file: that is between any two
steps of what is done. What is imported is imported once.
"""

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

_EVENTS = ("open", "os.rename", "os.remove", "os.truncate", "os.utime", "os.mkdir", "os.rmdir", "tempfile.mkdtemp")
KILLED, DONE = "killed", "done"


class Killing:
    """Has `pack` and `unpack` of this package done, and killed."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, what: str, kill_at: int, **arguments: Any) -> str:
        """What became of it: it was killed, or was done before."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        order = {"what": what, "kill_at": kill_at, **{name: str(value) for name, value in arguments.items()}}
        stdin.write(json.dumps(order) + "\n")
        stdin.flush()
        code = int(stdout.readline())
        assert code in (0, -signal.SIGKILL), code
        return KILLED if code else DONE

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()


def _pack(order: dict[str, str]) -> None:
    from bluesky_filestore import pack

    pack(map(tuple, map(json.loads, Path(order["documents"]).read_text().splitlines())), to=order["to"])


def _unpack(order: dict[str, str]) -> None:
    from tiled.client import from_uri

    from bluesky_filestore import unpack

    client = from_uri(order["uri"], api_key=order["api_key"])
    unpack(order["packed"], client, into=order["into"])
    client.context.close()


_DOES: dict[str, Callable[[dict[str, str]], None]] = {"pack": _pack, "unpack": _unpack}


def main() -> None:
    """Take orders."""
    import h5py  # noqa: F401
    import tiled.client  # noqa: F401

    import bluesky_filestore.bundles.packing
    import bluesky_filestore.bundles.unpacking  # noqa: F401

    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if not child:
            left = order["kill_at"]

            def count(event: str, arguments: object) -> None:
                nonlocal left
                left -= event in _EVENTS
                if not left and event in _EVENTS:
                    os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(count)
            code = 1
            try:
                _DOES[order["what"]](order)
                code = 0
            except Exception:  # noqa: BLE001 - it is shown
                traceback.print_exc()
            finally:
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
