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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import event_model
import numpy as np

_EVENTS = ("open", "os.rename", "os.remove", "os.truncate", "os.utime", "os.mkdir", "os.rmdir", "tempfile.mkdtemp")
KILLED, DONE = "killed", "done"


def series(directory: Path, count: int) -> Iterator[tuple[str, Any]]:
    """The documents of a run of numpy files, a tiny one for each event."""
    run = event_model.compose_run()
    image = {"source": "s", "dtype": "array", "shape": [1, 2], "dtype_numpy": "<u2", "external": "FILESTORE:"}
    bundle = run.compose_descriptor(name="primary", data_keys={"image": image})
    resource = run.compose_resource(
        spec="NPY_SEQ", root=str(directory.parent), resource_path=f"{directory.name}/run", resource_kwargs={}
    )
    yield "start", run.start_doc
    yield "descriptor", bundle.descriptor_doc
    yield "resource", resource.resource_doc
    of = resource.resource_doc["uid"]
    directory.mkdir(parents=True)
    for number in range(count):
        np.save(directory / f"run_{number}.npy", np.array([[number, 1]], "<u2"))
        # Composed by hand: event-model would look at each for as long as all that is tested takes.
        datum = {"datum_id": f"{of}/{number}", "datum_kwargs": {"index": number}, "resource": of}
        yield "datum", datum
        event = {"uid": f"{of[:8]}-{number}", "descriptor": bundle.descriptor_doc["uid"], "seq_num": number + 1}
        event |= {"time": 1.0, "data": {"image": datum["datum_id"]}, "timestamps": {"image": 1.0}}
        yield "event", event | {"filled": {"image": False}}
    stop = run.compose_stop()
    yield "stop", {**stop, "num_events": {"primary": count}}


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
