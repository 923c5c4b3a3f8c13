"""Processes that open HDF5 files before a server does, and unpack what is packed by filters of others.

Each process does one thing at a time, for the thread that has taken it. It is started when it is first needed, kept,
and killed when it takes longer than it may; one that ended is replaced by the next. What was found of a file holds for
as long as the file is as it was, but for one that grows in HDF5's SWMR mode, which is looked at once.
"""

import json
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore import errors
from bluesky_filestore.errors import UnreadableFileError
from bluesky_filestore.files.hdf5_superblock import is_written_with_swmr
from bluesky_filestore.files.hdf5_written import LostFramesError
from bluesky_filestore.files.readable import Roots, Signature, signature_of
from bluesky_filestore.files.rows import AxisKey, Frames
from bluesky_filestore.leanings import log_once
from bluesky_filestore.logs import get_logger

from .reader_process import EndedError, ReaderProcess

__all__ = ["ReaderProcesses"]

_logger = get_logger(__name__)

_MOST_PROCESSES = 4
_MEMORY = 4 * 2**30
"""What a process may take for one file: chunks of HDF5 have less than this."""
# A disk that was slow is asked again.
_SLOW_SECONDS = 60
_MOST_FILES = 10_000
_MOST_UNREADABLE = 1000
_MOST_FRAMES = 10_000
_BATCH_BYTES = 16 * 2**20


class _CannotStartError(Exception):
    """There are no such processes."""


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What was found of a dataset."""

    words: str = ""
    """Why its file is not opened; empty if it may be."""
    until: float = float("inf")
    """On the monotonic clock."""


@dataclass(slots=True)
class _Known:
    """What was found of a file."""

    signature: Signature
    """What it looked like."""
    verdicts: "dict[str | None, Future[_Verdict]]" = field(default_factory=dict)
    """By dataset; None is the file alone. Those of which it is being found out are not done."""


class ReaderProcesses:
    """A few processes that read files below some roots, and can do nothing else; for any number of threads.

    Parameters
    ----------
    roots : Roots
        Where files may lie.
    readable : sequence of str
        All that they may read.
    """

    def __init__(self, roots: Roots, readable: "list[str]") -> None:
        self._settings = {"roots": roots.directories, "readable": readable, "memory": _MEMORY}
        self._settings["listed"] = [path or os.curdir for path in sys.path]
        self._lock = threading.Lock()
        self._free = threading.Semaphore(_MOST_PROCESSES)
        self._idle: list[ReaderProcess] = []
        self._known: OrderedDict[tuple[int, int], _Known] = OrderedDict()
        self._unreadable: dict[str, str] = {}
        self._is_closed = self._cannot_start = False
        # Confined threads start no program. A process ends with the thread that has started it.
        self._starter = ThreadPoolExecutor(1, "readers")
        self._starter.submit(int)

    def close(self) -> None:
        """End those that are idle now, and the others when they are done."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for process in idle:
            process.end()
        self._starter.shutdown(wait=False)

    def check(self, path: str, dataset: str | None) -> None:
        """As `bluesky_filestore.files.hdf5_apart.Apart` has it."""
        found, is_mine = self._verdict_of(path, dataset)
        if is_mine:
            try:
                found.set_result(self._find(path, dataset))
            except BaseException as error:
                self._forget(path)
                found.set_exception(error)
                raise
        verdict = found.result()
        if verdict.words:
            raise UnreadableFileError(
                f"file {path} is not opened: a process that did so first {verdict.words}; expected a file that HDF5 "
                f"reads. It is damaged, or was made to do that: copy it again from where it was written."
            )

    def _verdict_of(self, path: str, dataset: str | None) -> "tuple[Future[_Verdict], bool]":
        """What is known, or will be, and whether the caller is to find out."""
        signature = signature_of(path)
        key = (signature.device, signature.inode)
        known = self._known.get(key)
        found = None if known is None else _of(known, dataset)
        is_same = known is not None and known.signature == signature
        if found is not None and (is_same or is_written_with_swmr(path)) and not _is_over(found):
            return found, False
        with self._lock:
            known = self._known.get(key)
            if known is None or (known.signature != signature and not is_same):
                known = self._known[key] = _Known(signature)
            found = _of(known, dataset)
            if found is not None and not _is_over(found):
                return found, False
            found = known.verdicts[dataset] = Future()
            while len(self._known) > _MOST_FILES:
                self._known.popitem(last=False)
            return found, True

    def _forget(self, path: str) -> None:
        with suppress(UnreadableFileError), self._lock:
            signature = signature_of(path)
            self._known.pop((signature.device, signature.inode), None)

    def _find(self, path: str, dataset: str | None) -> _Verdict:
        try:
            answer = self._asked({"check": {"path": path, "dataset": dataset}})
        except _CannotStartError:
            return _Verdict()
        except EndedError as error:
            return _Verdict(str(error), time.monotonic() + _SLOW_SECONDS if error.may_pass else float("inf"))
        return _Verdict(_words_of_memory(answer))

    @property
    def can_read(self) -> bool:
        """Whether there are processes, as far as is known."""
        return not self._cannot_start

    def read(
        self,
        path: str,
        dataset: str,
        frames: Frames,
        part: tuple[AxisKey, ...],
        *,
        into: NDArray[np.generic],
        per_chunk: int,
    ) -> None:
        """As `bluesky_filestore.files.hdf5_apart.Apart` has it."""
        keys = [key if isinstance(key, int) else [key.start, key.stop, key.step] for key in part]
        step = max(1, min(_MOST_FRAMES, _BATCH_BYTES // max(1, into[:1].nbytes)))
        # No chunk is unpacked twice.
        step = max(per_chunk, step - step % per_chunk)
        for first in range(0, len(frames), step):
            some = frames[first : first + step]
            listed = {"range": [some.start, some.stop, some.step]} if isinstance(some, range) else list(map(int, some))
            self._read_some(path, dataset, {"frames": listed, "part": keys}, into[first : first + step])

    def _read_some(self, path: str, dataset: str, wanted: dict[str, Any], into: NDArray[np.generic]) -> None:
        asked = json.dumps([path, dataset, wanted, str(signature_of(path))])
        words = self._unreadable.get(asked)
        if words is None:
            try:
                answer = self._asked({"frames": {"path": path, "dataset": dataset, **wanted}}, into)
            except _CannotStartError as error:
                raise UnreadableFileError(
                    f"file {path} cannot be read just now: no process can be started that unpacks it; try again later."
                ) from error
            except EndedError as error:
                words = str(error)
                if not error.may_pass:
                    self._remember(asked, words)
            else:
                _raise_for(answer, path)
                return
        raise UnreadableFileError(
            f"file {path} cannot be read: the process that unpacked these frames of dataset {dataset} {words}; "
            f"expected frames that {dataset}'s filters unpack. They are damaged: copy the file again."
        )

    def _remember(self, asked: str, words: str) -> None:
        with self._lock:
            self._unreadable[asked] = words
            while len(self._unreadable) > _MOST_UNREADABLE:
                del self._unreadable[next(iter(self._unreadable))]

    def _asked(self, order: Mapping[str, Any], into: "NDArray[np.generic] | None" = None) -> dict[str, Any]:
        with self._process() as process:
            return process.asked(order, into)

    @contextmanager
    def _process(self) -> "Iterator[ReaderProcess]":
        """A process that nobody else has meanwhile."""
        with self._free:
            with self._lock:
                if self._cannot_start:
                    raise _CannotStartError
                process = self._idle.pop() if self._idle else None
            if process is not None and not process.is_alive:
                # Whatever has ended one that was idle, no file did.
                process.end()
                process = None
            if process is None:
                process = self._started()
            try:
                yield process
            except BaseException:
                process.end()
                raise
            with self._lock:
                if not self._is_closed:
                    self._idle.append(process)
                    return
            process.end()

    def _started(self) -> ReaderProcess:
        try:
            return self._starter.submit(ReaderProcess, self._settings).result()
        except (OSError, RuntimeError, EndedError) as error:
            self._cannot_start = True
            if not self._is_closed:
                log_once(_logger, "No process can be started that opens HDF5 files first: they are opened here", error)
            raise _CannotStartError from error


def _of(known: _Known, dataset: str | None) -> "Future[_Verdict] | None":
    """What was found of a dataset; of the file alone whatever was found of it, as it was opened for that."""
    return next(iter(known.verdicts.values()), None) if dataset is None else known.verdicts.get(dataset)


def _is_over(found: "Future[_Verdict]") -> bool:
    return found.done() and (found.exception() is not None or found.result().until < time.monotonic())


def _words_of_memory(answer: Mapping[str, Any]) -> str:
    return f"needed more memory than {_MEMORY // 2**30} GB ({answer['memory']})" if "memory" in answer else ""


def _raise_for(answer: Mapping[str, Any], path: str) -> None:
    """Raise what reading has raised there."""
    if "memory" in answer:
        raise UnreadableFileError(f"file {path} cannot be read: the process that did so {_words_of_memory(answer)}.")
    if "error" not in answer:
        return
    words, frames = str(answer["error"]), answer.get("frames")
    if frames:
        raise LostFramesError(words, frames)
    kind = getattr(errors, str(answer.get("kind")), None)
    if not (isinstance(kind, type) and issubclass(kind, errors.FileStoreError)):
        kind, words = UnreadableFileError, f"file {path} cannot be read: {words}"
    raise kind(words)
