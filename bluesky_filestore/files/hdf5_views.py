"""Where the frames of an array lie in HDF5 files, for a virtual dataset in which frame i is event i."""

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from bluesky_filestore.errors import AddressError, UnreadableFileError

from .array_in_files import ArrayInFiles
from .hdf5 import HDF5Files
from .hdf5_rows import HDF5Frames
from .rows import Frames, LooksThrough, ReadableFrames, runs_of
from .series import FrameFiles

__all__ = ["View", "ViewPart", "lost_rows", "view_of"]

_OWN_FILTERS = 256
"""HDF5 has the filters below this number itself; for others it looks for a plugin."""


@dataclass(frozen=True, slots=True)
class ViewPart:
    """Frames of one dataset, one behind the other in a view."""

    first: int
    """The number of the first in the view."""
    path: str
    """The file."""
    dataset: str
    """The dataset."""
    shape: tuple[int, ...]
    """Of the dataset."""
    frames: range | None
    """Which rows of it they are; None if all of it is one frame."""

    @property
    def count(self) -> int:
        """How many frames they are."""
        return 1 if self.frames is None else len(self.frames)


@dataclass(frozen=True, slots=True)
class View:
    """An array, as a virtual dataset shows it."""

    shape: tuple[int, ...]
    """(rows, *shape of one)."""
    dtype: np.dtype[Any]
    """Of its elements."""
    parts: tuple[ViewPart, ...]
    """Its frames in their order, those left out that have no data."""
    frames_per_row: int = 1
    """How many frames make up a row."""
    inner: tuple[int | range, ...] = ()
    """What is taken of each frame; empty for all of it."""
    missing: Mapping[int, str] = field(default_factory=dict)
    """The rows that have no data, or not all, and why."""
    filters: tuple[int, ...] = ()
    """The filters that reading it needs and HDF5 has not itself, by their registered numbers."""

    @property
    def files(self) -> int:
        """In how many files it is: HDF5 keeps each open of which it has read something."""
        return len({part.path for part in self.parts})

    @property
    def is_of_single_frames(self) -> bool:
        """Whether each frame has a file of its own."""
        return self.parts[0].frames is None


def view_of(array: ArrayInFiles, files: HDF5Files) -> View:
    """Where the frames of an array are, for a virtual dataset.

    Raises
    ------
    AddressError
        If they are in no HDF5 files, or a virtual dataset cannot take what the array takes of them.
    UnreadableFileError
        If none of them can be read.
    """
    frames, registered = array.frames(), array.registered
    if not frames.count or frames.count % max(1, registered.shape[0]):
        raise AddressError(f"its {registered.shape[0]} rows are not made of {frames.count} frames")
    missing = lost_rows(frames, registered.shape[0])
    each = frames.count // max(1, registered.shape[0])
    inner: tuple[int | range, ...] = ()
    if isinstance(frames, HDF5Frames):
        inner = frames.inner_keys
        if any(isinstance(key, range) and (not key or key.step < 1) for key in inner):
            raise AddressError(f"of each frame {list(inner)} are taken, which a virtual dataset of HDF5 cannot say")
        found = _in_datasets(frames, missing, each, files)
    elif isinstance(frames, FrameFiles) and frames.dataset:
        found = _in_files(frames, missing, each, files)
    else:
        raise AddressError("its frames are in no HDF5 files, and a virtual dataset takes them from no others")
    parts = tuple(found)
    if not parts:
        raise UnreadableFileError(next(iter(missing.values()), "it has no frames"))
    is_cut = each > 1 and any(part.first % each or part.count % each for part in parts)
    if is_cut and registered.shape[1:2] != (each,):
        raise AddressError(
            f"its rows of shape {list(registered.shape[1:])} are made of {each} frames, of which some are apart; a "
            f"virtual dataset cannot say so where the frames have no axis of their own"
        )
    dtype = registered.dtype
    if frames.dtype != dtype and not np.can_cast(frames.dtype, dtype, "safe"):
        raise UnreadableFileError(f"the files hold {frames.dtype}; expected {dtype}, as it is registered")
    packed = files.filters(parts[0].path, parts[0].dataset)
    filters = tuple(number for number in packed if number >= _OWN_FILTERS)
    return View(registered.shape, dtype, parts, each, inner, missing, filters)


def lost_rows(frames: ReadableFrames, rows: int) -> dict[int, str]:
    """The rows of an array that have no data, or not all, and why."""
    each = max(1, frames.count // max(1, rows))
    problems = frames.problems() if isinstance(frames, LooksThrough) else ()
    lost = {number // each: str(problem.error) for problem in problems for number in problem.frames}
    return dict(sorted(lost.items()))


def _in_files(frames: FrameFiles, missing: Mapping[int, str], each: int, files: HDF5Files) -> Iterator[ViewPart]:
    shape: tuple[int, ...] = ()
    for number in range(frames.count):
        if number // each not in missing:
            path = frames.path_of(number)
            # They are of one kind, and opening each takes long.
            shape = shape or files.layout(path, frames.dataset).shape
            yield ViewPart(number, path, frames.dataset, shape, None)


def _in_datasets(frames: HDF5Frames, missing: Mapping[int, str], each: int, files: HDF5Files) -> Iterator[ViewPart]:
    places: dict[int, _Joined] = {}
    first = 0
    for file, numbers in frames.index.pieces(range(frames.count)):
        for at, run in _kept(numbers, first, missing, each):
            if file not in places:
                places[file] = _Joined.of(frames, file, files)
            yield from places[file].parts(at, run)
        first += len(numbers)


def _kept(numbers: Frames, first: int, missing: Mapping[int, str], each: int) -> Iterator[tuple[int, range]]:
    """Frames in runs of a constant distance, with the number of the first in the view, but those that are missing."""
    ends = [first, *(bound * each for row in missing for bound in (row, row + 1)), first + len(numbers)]
    for begin, end in pairwise(ends[:1] + [min(max(bound, first), ends[-1]) for bound in ends[1:]]):
        if begin < end and begin // each not in missing:
            for at, run in runs_of(numbers[begin - first : end - first]):
                yield begin + at, run


@dataclass(frozen=True, slots=True)
class _Joined:
    """The datasets, one behind the other, that hold what a file has under one name."""

    starts: Sequence[int]
    """The first frame of each, and the one after the last."""
    datasets: Sequence[tuple[str, str, tuple[int, ...]] | None]
    """File, dataset and shape of each; None for a piece that is not there, whose frames are missing."""

    @classmethod
    def of(cls, frames: HDF5Frames, file: int, files: HDF5Files) -> "_Joined":
        """Most are one; numbered pieces are several."""
        swmr = frames.dataset.swmr
        path, name = files.place_of(frames.dataset.paths[file], frames.dataset.name, swmr=swmr)
        layout = files.layout(path, name, swmr=swmr)
        if layout.virtual is None or not files.is_in_pieces(path, name, swmr=swmr):
            return cls([0, layout.count], [(path, name, layout.shape)])
        starts, datasets = [0], list[tuple[str, str, tuple[int, ...]] | None]()
        for part in layout.virtual.parts:
            starts.append(starts[-1] + len(part.target.rows))
            try:
                piece, piece_name = files.place_of(path, part.dataset, swmr=swmr)
                datasets.append((piece, piece_name, files.layout(piece, piece_name, swmr=swmr).shape))
            except UnreadableFileError:
                datasets.append(None)
        return cls(starts, datasets)

    def parts(self, at: int, run: range) -> Iterator[ViewPart]:
        """Some of the frames, as parts of a view."""
        place = bisect_right(self.starts, run.start) - 1
        while run:
            begin, end = self.starts[place], self.starts[place + 1]
            here = max(0, min(len(run), math.ceil((end - run.start) / run.step)))
            dataset = self.datasets[place]
            if here and dataset is not None:
                own = run[:here]
                yield ViewPart(at, *dataset, range(own.start - begin, own[-1] + 1 - begin, own.step))
            at, run, place = at + here, run[here:], place + 1
