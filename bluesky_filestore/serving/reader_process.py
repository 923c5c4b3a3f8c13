"""One process that opens HDF5 files: started, asked, and killed when it takes longer than it may."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.files.readable import bytes_of

__all__ = ["SECONDS", "EndedError", "ReaderProcess"]

SECONDS = 15
"""How long one may take over what it is asked."""
_START_SECONDS = 60
_GRACE = 5
_PIPE_BYTES = 2**20
_LONGEST_LINE = 2**20
_ENVIRONMENT = ("HDF5_PLUGIN_PATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "TZ")
_TIMES_UP = (signal.SIGALRM, signal.SIGXCPU)
# What a program does to itself; other signals are somebody else's, for want of memory or to end everything.
_CRASHES = (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGSYS, signal.SIGTRAP)


class EndedError(Exception):
    """A process ended over what it was asked."""

    def __init__(self, words: str, *, may_pass: bool = False) -> None:
        super().__init__(words)
        self.may_pass = may_pass
        """Whether it may be otherwise the next time."""


class ReaderProcess:
    """One of them; for one thread at a time.

    Parameters
    ----------
    settings : mapping
        What it may do.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bluesky_filestore.serving.reader"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            # What interrupts a program in the terminal is not meant for it.
            start_new_session=True,
            bufsize=0,
            pipesize=_PIPE_BYTES,
        )
        try:
            self.asked(settings, seconds=_START_SECONDS)
        except BaseException:
            self.end()
            raise

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def end(self) -> None:
        """Kill it, if it is not dead."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        # One that waits for a disk cannot be killed, and is left alone.
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)

    def asked(
        self, order: Mapping[str, Any], into: "NDArray[np.generic] | None" = None, seconds: float | None = None
    ) -> dict[str, Any]:
        """Its answer.

        Raises
        ------
        EndedError
            If it has none: it ended, or was killed for taking too long.
        """
        deadline = time.monotonic() + (SECONDS + _GRACE if seconds is None else seconds)
        if self._process.stdin is None:
            raise ValueError("there is no pipe to the process; expected one.")
        try:
            self._process.stdin.write(json.dumps({**order, "seconds": SECONDS}).encode() + b"\n")
            length = int.from_bytes(self._received(bytearray(4), deadline), "little")
            if length > _LONGEST_LINE:
                raise EndedError(f"answered with a line of {length} bytes")
            answer = json.loads(bytes(self._received(bytearray(length), deadline)))
        except (OSError, ValueError) as error:
            raise EndedError(f"gave no answer ({error})") from error
        if into is not None and "bytes" in answer:
            if (answer["bytes"], answer["dtype"]) != (into.nbytes, into.dtype.str):
                raise EndedError(f"answered with {answer['bytes']} bytes of {answer['dtype']}")
            self._received(bytes_of(into), deadline)
        return dict(answer)

    def _received(self, buffer: "bytearray | memoryview", deadline: float) -> "bytearray | memoryview":
        """Fill a buffer with what comes."""
        view, pipe = memoryview(buffer), self._process.stdout
        if pipe is None:
            raise ValueError("there is no pipe from the process; expected one.")
        ready = select.poll()
        ready.register(pipe, select.POLLIN)
        while view.nbytes:
            if not ready.poll(max(0, deadline - time.monotonic()) * 1000):
                raise EndedError(f"took longer than {SECONDS} s", may_pass=True)
            count = os.readv(pipe.fileno(), [view])
            if not count:
                raise self._end_in_words()
            view = view[count:]
        return buffer

    def _end_in_words(self) -> EndedError:
        code = self._process.wait(_GRACE)
        if -code in _TIMES_UP:
            return EndedError(f"took longer than {SECONDS} s", may_pass=True)
        if code < 0:
            return EndedError(f"was ended (signal {signal.Signals(-code).name})", may_pass=-code not in _CRASHES)
        return EndedError(f"ended (exit code {code})")
