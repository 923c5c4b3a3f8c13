"""What a writer was given and has taken: records that it sends before and after each call, and which outlive it."""

import io
import os
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np


@dataclass(frozen=True, slots=True)
class Begins:
    """A run begins of which the files are known."""

    uid: str
    kind: str
    frames: Mapping[tuple[str, str], np.ndarray]
    """By stream and key: what its rows have to be."""


@dataclass(frozen=True, slots=True)
class Given:
    """A document is about to be handed over."""

    uid: str
    name: str
    doc: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Taken:
    """The call has returned."""

    seconds: float
    unsaved: int
    """How many documents were in memory only then."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The writer came to its end by itself."""

    error: str
    """What it said of a catalog that was away."""


class Sending:
    """The end of a journal that a writer has."""

    def __init__(self, fifo: str) -> None:
        self._file = os.open(fifo, os.O_WRONLY)

    def __call__(self, record: Any) -> None:
        """Say something: it is out of this process when this returns."""
        left = memoryview(pickle.dumps(record))
        while left:
            left = left[os.write(self._file, left) :]


def records(file: BinaryIO) -> Iterator[Any]:
    """What was said, up to where its writer was killed."""
    while True:
        try:
            yield pickle.load(file)  # noqa: S301 - our own
        except (EOFError, pickle.UnpicklingError):
            return


@dataclass
class JournalledRun:
    """A run of a journal."""

    uid: str
    kind: str
    frames: Mapping[tuple[str, str], np.ndarray]
    documents: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    """What was handed over."""
    safe: int = 0
    """How many of them, at least, a killed process does not take along."""

    @property
    def is_whole(self) -> bool:
        """Whether all of it was taken, to its stop."""
        return self.safe == len(self.documents) and self.documents[-1][0] == "stop"


@dataclass
class Journal:
    """All that a life of a writer says of itself."""

    runs: list[JournalledRun] = field(default_factory=list)
    calls: list[tuple[str, float]] = field(default_factory=list)
    """The name of each document, and how many seconds its call took."""
    most_unsaved: int = 0
    closed: Closed | None = None


def journal_of(path: Path) -> Journal:
    """What the records of one life of a writer say."""
    journal, runs, given, safe = Journal(), {}, [], 0
    for record in records(io.BytesIO(path.read_bytes())):
        match record:
            case Begins(uid, kind, frames):
                runs[uid] = JournalledRun(uid, kind, frames)
            case Given(uid, name, doc):
                runs[uid].documents.append((name, doc))
                given.append((uid, name))
            case Taken(seconds, unsaved):
                journal.calls.append((given[-1][1], seconds))
                journal.most_unsaved = max(journal.most_unsaved, unsaved)
                safe = max(safe, len(given) - unsaved)
            case Closed():
                journal.closed, safe = record, len(given)
    for uid, _ in given[:safe]:
        runs[uid].safe += 1
    journal.runs = [run for run in runs.values() if run.documents]
    return journal
