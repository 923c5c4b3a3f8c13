"""The frames of an array of a run: as its documents say where they are, as a catalog does, and as files hold them."""

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.errors import (
    AddressError,
    CatalogAccessError,
    CatalogUnreachableError,
    FileStoreError,
    ForbiddenFileError,
    LockedFileError,
    MissingFileError,
    PathError,
)
from bluesky_filestore.files.array_in_files import ArrayInFiles
from bluesky_filestore.files.hdf5_links import linked_files
from bluesky_filestore.files.hdf5_rows import HDF5Frames
from bluesky_filestore.files.ragged import RaggedInFiles
from bluesky_filestore.files.readable import ANYWHERE
from bluesky_filestore.files.registered import Registered
from bluesky_filestore.files.rows import FileProblem, LooksThrough, ReadableFrames
from bluesky_filestore.files.series import FrameFiles
from bluesky_filestore.model.ragged_rows import RAGGED
from bluesky_filestore.reading.from_node import RowsAhead, frames_of
from bluesky_filestore.reading.ragged_array import RaggedInCatalog

from .run_report import RunFinding, in_words, together

__all__ = ["RunArray"]

_BRING_BACK = (
    "Keep every copy of it; bring back the one that was written, or say with root_map (--root-map) where it is"
)
_CANNOT_SEE = "Look again from a machine that sees the files, or say with root_map (--root-map) where they are"
_DELIVER = "Deliver the run again: bluesky-filestore resume --run"
_BY_DOCUMENTS = "the files by the documents"
_SAMPLES = 3
_SHOWN = 64
_NOT_SEEN = (
    AddressError,
    CatalogAccessError,
    CatalogUnreachableError,
    ForbiddenFileError,
    LockedFileError,
    PathError,
)
"""What is raised where it cannot be told whether all is well."""


@dataclass(frozen=True)
class RunArray:
    """One external array of a run."""

    name: str
    """Its stream and data key."""
    uid: str
    """The run's."""
    events: int
    """How many events its stream has."""
    points: int
    """How many points its stream has by its stream_datums, or its stop, where it has no events."""
    documented: Registered | None
    """Where its frames are by the run's documents, if there are such."""
    registered: Registered | None
    """Where they are by the catalog, if it is in one."""
    node: Any
    """The array of a catalog; None for documents alone."""
    why_missing: str
    """Why it is not in the catalog, or ends before the events do, if that is known."""
    in_catalog: bool
    """Whether its run is in a catalog, so that it should be, too."""
    every_frame: bool
    """Whether each frame is read, and not some of them."""
    rows_an_event: int
    """How many rows an event has; more than one where another writer lays its frames one behind the other."""
    counted: tuple[float, ...]
    """How many frames the plugin had counted at each event, if the run says so."""

    def findings(self) -> Iterator[RunFinding]:
        """All there is to say of it."""
        if self.in_catalog and self.node is None and self.events:
            why = f": {self.why_missing.rstrip('.')}" if self.why_missing else ""
            yield self._line(
                "catalog", False, f"it is not in the catalog{why}", "Read it with open_array(documents(run))"
            )
        yield self._counted()
        where = self.registered or self.documented
        if where is None and not self.events:
            return
        if where is None:
            yield self._line("files", None, "nobody says in which files its frames are")
            return
        if where.mimetype == RAGGED:
            yield from self._ragged(where)
            return
        try:
            frames = frames_of(where)()
            problems = list(frames.problems()) if isinstance(frames, LooksThrough) else []
        except (FileStoreError, OSError) as error:
            file = next((path for path in where.paths if path in str(error)), "")
            yield self._cannot("files", error, file=file, events=tuple(range(self._rows_with_frames)))
            return
        if problems:
            told = list(together((self._problem(problem, frames), type(problem.error)) for problem in problems))
            yield from told
            if all(finding.ok is None for finding in told):
                return
        else:
            yield self._line("files", True, f"{frames.count:,} frames are in the files")
            try:
                yield from self._placed(frames)
            except (FileStoreError, OSError) as error:
                # What a view shows is in files of its own.
                yield self._cannot("frames", error)
        lost = {event for problem in problems for event in self._events_of(problem, frames)}
        yield from self._compared(where, sorted(set(range(self._rows_with_frames)) - lost))

    def taken(self) -> Iterator[tuple[str, str, int, Any]]:
        """Each HDF5 file and dataset, how many frames it holds, and which of them are in the array."""
        where = self.registered or self.documented
        if where is not None:
            try:
                frames = frames_of(where)()
                if isinstance(frames, HDF5Frames):
                    yield from frames.taken()
            except (FileStoreError, OSError):
                # It is among the findings.
                return

    @property
    def _rows(self) -> int:
        """How many events or points the array has rows of."""
        where = self.registered or self.documented
        shape = self.node.shape if self.node is not None else where.shape if where is not None else ()
        return int(shape[0]) // self.rows_an_event if shape else 0

    @property
    def _rows_with_frames(self) -> int:
        """How many of its rows belong to events, or to points of a stream without events."""
        return min(self._rows, self.events or self._rows)

    @property
    def _rows_told(self) -> int:
        """How many of its events have frames by the documents."""
        shape = self.documented.shape if self.documented is not None else ()
        return int(shape[0]) // self.rows_an_event if shape else 0

    def _counted(self) -> RunFinding:
        rows, why = self._rows, f": {self.why_missing.rstrip('.')}" if self.why_missing else ""
        expected, of = self.events or self.points, "events" if self.events else "points"
        # Of a flight each time that a point was taken is a row, where documents tell.
        if (rows == expected or (self.documented is not None and rows > self.points > 0)) and expected:
            return self._line("rows", True, f"{rows:,} rows, as many as {of}")
        if not expected and not self.why_missing:
            return self._line("rows", True, f"{rows:,} rows; its stream has no events")
        words = (
            f"{rows:,} rows for {expected:,} {'events' if self.events else 'points'}" if expected else f"{rows:,} rows"
        )
        advice = "Do not read this array by the rows of the event table; its frames may be those of other events"
        if self.why_missing and (rows < self.events or not self.events):
            advice = "See whether the frames are in other files; the events that lack theirs are the last ones"
        lacking = tuple(range(rows, self.events))
        return self._line("rows", False, words + why, advice, events=lacking)

    def _placed(self, frames: ReadableFrames) -> Iterator[RunFinding]:
        """Whether each row is registered as the frame that the documents tell, and plugins counted what is there."""
        places = _places(frames)
        each = max(1, len(places) // max(1, self._rows_with_frames))
        if self.documented is not None and self.registered is not None and places:
            documented = frames_of(self.documented)()
            told = _places(documented)
            wrong = [row for row, (one, other) in enumerate(zip(places, told, strict=False)) if one != other]
            if wrong and _is_view({path for path, _, _ in places}, {path for path, _, _ in told}):
                some = range(0, frames.count, -(-frames.count // _SHOWN))
                wrong = [row for row in some if not _same(frames.read([row]), documented.read([row]))]
            events = tuple(dict.fromkeys(row // each for row in wrong))
            if events:
                words = f"the catalog has other frames for {in_words(events)} than the documents tell"
                yield self._line("frames", False, words, _DELIVER, events=events)
        if not any(self.counted) or not isinstance(frames, HDF5Frames):
            return
        held = {_real(path): count for path, _, count, _ in frames.taken()}
        for event, counted in enumerate(self.counted[: self._rows_with_frames]):
            path = places[event * each][0]
            if counted > held[path]:
                words = (
                    f"the plugin had counted {int(counted):,} frames by {in_words([event])}, of {held[path]:,} there"
                )
                yield self._line("frames", False, words, _BRING_BACK, events=(event,), file=path)
                return
        yield self._line("frames", True, f"the plugin counted up to {int(max(self.counted)):,}, which are there")

    def _ragged(self, where: Registered) -> Iterator[RunFinding]:
        """What there is to say of rows that differ in shape: of those that are alike as of any array."""
        count, lost, told = 0, set[int](), list[tuple[RunFinding, type[Exception]]]()
        try:
            rows = _ragged_in_files(where)
            for events, part in rows.parts():
                frames = frames_of(part)()
                count += frames.count
                for problem in frames.problems() if isinstance(frames, LooksThrough) else ():
                    each = max(1, frames.count // len(events))
                    concerned = tuple(dict.fromkeys(events[frame // each] for frame in problem.frames))
                    lost.update(concerned)
                    finding = self._cannot("files", problem.error, events=concerned, file=problem.path)
                    told.append((finding, type(problem.error)))
        except (FileStoreError, OSError) as error:
            yield from together(told)
            yield self._cannot("files", error, events=tuple(range(self._rows_with_frames)))
            return
        yield from together(told)
        if not lost:
            yield self._line("files", True, f"{count:,} frames are in the files")
        yield from self._compared(where, sorted(set(range(min(rows.rows.count, self._rows_with_frames))) - lost))

    def _compared(self, where: Registered, events: list[int]) -> Iterator[RunFinding]:
        """Frames of some events, read in each way that there is."""
        if not events:
            return
        chosen = events if self.every_frame else _sample(events, self.uid)
        is_ragged = where.mimetype == RAGGED
        ways: dict[str, Any] = {"the files": (_ragged_in_files if is_ragged else _array_in_files)(where)}
        if self.node is not None and self.documented is not None and self.registered is not None:
            of_documents = _ragged_in_files if self.documented.mimetype == RAGGED else _array_in_files
            ways[_BY_DOCUMENTS] = of_documents(self.documented)
        if self.node is not None:
            ways["the catalog"] = RaggedInCatalog(self.node) if is_ragged else RowsAhead(self.node, self.every_frame)
        unlike: dict[str, list[int]] = {}
        for event in chosen:
            read: dict[str, NDArray[Any]] = {}
            for way, array in ways.items():
                if way == _BY_DOCUMENTS and event >= self._rows_told:
                    # By documents an array ends before the first file that is not there, which is a finding.
                    continue
                try:
                    read[way] = array.read((event * self.rows_an_event,))
                except (FileStoreError, OSError, LookupError, ValueError, RuntimeError) as error:
                    yield self._unread(way, event, error)
                    return
            first, *others = read.items()
            for way, values in others:
                if not _same(first[1], values):
                    unlike.setdefault(way, []).append(event)
        for way, wrong in unlike.items():
            words = f"{way} gives other values for {in_words(wrong)} than the files that are registered"
            yield self._line("frames", False, words, _DELIVER, events=tuple(wrong))
        if not unlike:
            shown = "each frame" if len(chosen) == self._rows_with_frames else in_words(chosen)
            yield self._line("frames", True, f"{shown} read and equal from {' and '.join(ways)}")

    def _unread(self, way: str, event: int, error: Exception) -> RunFinding:
        if isinstance(error, _NOT_SEEN):
            return self._cannot("frames", error)
        words = f"{in_words([event])} cannot be read from {way}: {_words(error)}"
        return self._line("frames", False, words, "Look at the file, and at the server's log", events=(event,))

    def _problem(self, problem: FileProblem, frames: ReadableFrames) -> RunFinding:
        concerned = {"events": tuple(self._events_of(problem, frames)), "file": problem.path}
        return self._cannot("files", problem.error, **concerned)

    def _events_of(self, problem: FileProblem, frames: ReadableFrames) -> list[int]:
        each = max(1, frames.count // max(1, self._rows_with_frames))
        return list(dict.fromkeys(frame // each for frame in problem.frames))

    def _cannot(self, check: str, error: Exception, **concerned: Any) -> RunFinding:
        # Of a directory that is not there nobody knows whether it is gone, or not mounted.
        gone = isinstance(error, MissingFileError) and not Path(concerned.get("file") or "/").parent.is_dir()
        unseen = gone or isinstance(error, _NOT_SEEN)
        advice = _CANNOT_SEE if unseen else _BRING_BACK
        return self._line(check, None if unseen else False, _words(error), advice, **concerned)

    def _line(self, check: str, ok: bool | None, words: str, advice: str = "", **concerned: Any) -> RunFinding:
        return RunFinding(check, self.name, ok, words, advice, **concerned)


def _places(frames: ReadableFrames) -> list[tuple[str, str, int]]:
    """File, dataset and number of each frame; none if they are not told one by one."""
    if isinstance(frames, HDF5Frames):
        dataset = frames.dataset
        name = dataset.name.strip("/")
        pieces = frames.index.pieces(range(frames.count))
        paths = {file: _real(dataset.paths[file]) for file, _ in pieces}
        return [(paths[file], name, number) for file, numbers in pieces for number in numbers]
    if isinstance(frames, FrameFiles):
        return [(_real(frames.path_of(frame)), "", 0) for frame in range(frames.count)]
    return []


def _is_view(files: set[str], told: set[str]) -> bool:
    """Whether files only show what is in others, for a stock server: then the frames themselves are compared."""
    if files & told:
        return False
    try:
        behind = {_real(here) for file in files for _, here in linked_files(file, ANYWHERE)}
    except FileStoreError:
        return False
    return told <= behind


@lru_cache(1024)
def _real(path: str) -> str:
    return os.path.realpath(path)


def _array_in_files(where: Registered) -> ArrayInFiles:
    return ArrayInFiles(where, frames_of)


def _ragged_in_files(where: Registered) -> RaggedInFiles:
    count = int(where.shape[0])
    return RaggedInFiles(where.parameters, where.properties, where.paths, count, where.dtype, frames_of, where.roots)


def _sample(events: list[int], seed: str) -> list[int]:
    """The first and the last of them, and some between, the same ones each time."""
    between = random.Random(seed).sample(events[1:-1], min(_SAMPLES - 2, len(events[1:-1])))
    return sorted({events[0], *between, events[-1]})


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.size == other.size and np.array_equal(one.ravel(), other.ravel(), equal_nan=one.dtype.kind in "fc")


def _words(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return (text if isinstance(error, FileStoreError) else f"{type(error).__name__}: {text}").rstrip(".")
