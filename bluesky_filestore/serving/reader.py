"""The process that opens HDF5 files before a server does: ``python -m bluesky_filestore.serving.reader``.

It reads orders from its standard input, a line of JSON each, and answers each with the length of a line of JSON in four
bytes, that line, and as many bytes of frames as it says. It ends with the input, and with the process that started it.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bluesky_filestore.errors import FileStoreError
from bluesky_filestore.files.hdf5 import HDF5Files
from bluesky_filestore.files.hdf5_filters import filters_of
from bluesky_filestore.files.hdf5_opening import open_hdf5
from bluesky_filestore.files.readable import Roots, bytes_of

from .landlock import confine, landlock_version

if TYPE_CHECKING:
    import h5py

_PARENT_DEATH_SIGNAL = 1
_NO_MEMORY = "memory allocation failed"


def main() -> None:
    """Do what is ordered."""
    answers = os.dup(1)
    # What a library prints is no answer.
    os.dup2(2, 1)
    settings = json.loads(sys.stdin.buffer.readline())
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    _limit(settings["memory"])
    if landlock_version():
        confine(settings["readable"], settings["listed"])
    _answer(answers, {})
    reader = _Reader(Roots(tuple(settings["roots"])))
    for line in sys.stdin.buffer:
        order = json.loads(line)
        # A library that hangs never comes back here, whatever becomes of the server.
        _allow(order["seconds"])
        said, values = reader.done(order)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _answer(answers, said, values)


class _Reader:
    """Does what is ordered.

    Parameters
    ----------
    roots : Roots
        Where files may lie.
    """

    def __init__(self, roots: Roots) -> None:
        self._roots = roots
        self._files = HDF5Files(locking=False)

    def done(self, order: Mapping[str, Any]) -> tuple[dict[str, Any], memoryview]:
        """What there is to say, and the frames."""
        try:
            if "frames" in order:
                return self._read(**order["frames"])
            self._check(**order["check"])
        except Exception as error:  # noqa: BLE001 - whatever a library raises, it came back
            return _described(error), memoryview(b"")
        return {}, memoryview(b"")

    def _check(self, path: str, dataset: str | None) -> None:
        if dataset not in (None, "/"):
            layout = self._files.layout(path, str(dataset), swmr=True, roots=self._roots)
            if layout.offsets is None and layout.count:
                # A chunk is unpacked for one element of it.
                corner = (0,) * len(layout.frame_shape)
                for frame in {0, layout.count - 1}:
                    self._files.read(path, str(dataset), [frame], corner, swmr=True, roots=self._roots)
            return
        with open_hdf5(path, locking=False, roots=self._roots) as file:
            if dataset is None:
                list(file)
            else:
                file.visititems(_look_at)

    def _read(self, path: str, dataset: str, frames: Any, part: list[Any]) -> tuple[dict[str, Any], memoryview]:
        wanted = range(*frames["range"]) if isinstance(frames, dict) else frames
        keys = tuple(key if isinstance(key, int) else slice(*key) for key in part)
        values = np.ascontiguousarray(self._files.read(path, dataset, wanted, keys, swmr=True, roots=self._roots))
        return {"dtype": values.dtype.str, "bytes": values.nbytes}, bytes_of(values)


def _look_at(_: str, found: "h5py.Group | h5py.Dataset") -> None:
    """Have HDF5 read what it keeps of a group or dataset."""
    for name in found.attrs:
        # One that h5py has no type for is nobody's fault.
        with suppress(KeyError, OSError, RuntimeError, TypeError, ValueError):
            found.attrs[name]
    if hasattr(found, "shape"):
        filters_of(found)
        if found.chunks and found.size:
            found.id.chunk_iter(lambda chunk: None)
        if found.is_virtual:
            found.virtual_sources()


def _described(error: Exception) -> dict[str, Any]:
    cause: BaseException | None = error
    while cause is not None:
        # Whatever it was made of on its way, it was this.
        if isinstance(cause, MemoryError) or _NO_MEMORY in str(cause):
            return {"memory": str(cause)}
        cause = cause.__cause__ or cause.__context__
    kind = next(each.__name__ for each in type(error).__mro__ if each.__module__.endswith(("errors", "builtins")))
    words = str(error) if isinstance(error, FileStoreError) else f"{kind}: {error}"
    return {"error": words, "kind": kind, "frames": list(getattr(error, "frames", ()))}


def _limit(memory: int) -> None:
    """Take no more memory than that beside what is taken already, and leave no dump."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory,) * 2)
    with suppress(OSError):
        # Where memory runs out, it is not the server's that is taken.
        Path("/proc/self/oom_score_adj").write_text("1000")


def _allow(seconds: int) -> None:
    """End by a signal after so many seconds, and no sooner."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(usage.ru_utime + usage.ru_stime) + seconds + 1, most))
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _answer(descriptor: int, said: Mapping[str, Any], values: memoryview = memoryview(b"")) -> None:  # noqa: B008
    line = json.dumps(said).encode()
    rest = memoryview(len(line).to_bytes(4, "little") + line)
    for data in (rest, values):
        while data.nbytes:
            data = data[os.write(descriptor, data) :]


if __name__ == "__main__":
    main()
