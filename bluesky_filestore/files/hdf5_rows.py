"""Rows that are spans of frames in HDF5 files, or whole datasets joined one behind the other."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.errors import UnreadableFileError
from bluesky_filestore.model.addressing import AxisIndex, RowSpan

from .hdf5 import HDF5Files
from .hdf5_layout import Layout
from .hdf5_written import LostFramesError
from .kept import kept
from .readable import ANYWHERE, Roots
from .rows import AxisKey, FileProblem, Frames, as_axis_key, expanded_index
from .stamps import Stamp, Stamps, check_stamp, explain, frame_sample, stamp_file

__all__ = ["FrameIndex", "HDF5Dataset", "HDF5Frames", "JoinedIndex", "SpanIndex"]


class FrameIndex(Protocol):
    """Which frame of an array is which frame of which file."""

    @property
    def count(self) -> int:
        """How many frames the array has."""

    def pieces(self, frames: Frames) -> list[tuple[int, Frames]]:
        """Frames of the array as runs in one file each: the file's place in its list, and the frames there."""


class SpanIndex:
    """The frames of events that spans say the places of.

    Parameters
    ----------
    spans : sequence of RowSpan
        The events in their order.
    frames_per_event : int
        How many consecutive frames make up an event.
    """

    def __init__(self, spans: Sequence[RowSpan], frames_per_event: int) -> None:
        self._spans = spans
        self._frames = frames_per_event
        self._starts = [0, *accumulate(span.count for span in spans)]

    @property
    def count(self) -> int:
        """How many frames the array has."""
        return self._starts[-1] * self._frames

    def locate(self, frame: int) -> tuple[int, int]:
        """The asset of a frame of the array, and its number there."""
        event, part = divmod(frame, self._frames)
        place = bisect_right(self._starts, event) - 1
        span = self._spans[place]
        return span.asset, span.first + (event - self._starts[place]) * span.step + part

    def pieces(self, frames: Frames) -> list[tuple[int, Frames]]:
        """Frames of the array as runs in one asset each."""
        runs: list[tuple[int, list[int]]] = []
        for frame in frames:
            asset, number = self.locate(frame)
            if not runs or runs[-1][0] != asset:
                runs.append((asset, []))
            runs[-1][1].append(number)
        return list(runs)


class JoinedIndex:
    """Frames of files joined one behind the other.

    Parameters
    ----------
    lengths : sequence of int
        How many frames each file has.
    taken : range
        Which of all the frames the array has.
    """

    def __init__(self, lengths: Sequence[int], taken: range) -> None:
        self.lengths = tuple(lengths)
        self._starts = [0, *accumulate(lengths)]
        self._taken = taken

    @property
    def count(self) -> int:
        """How many frames the array has."""
        return len(self._taken)

    def pieces(self, frames: Frames) -> list[tuple[int, Frames]]:
        """Frames of the array as runs in one file each."""
        runs: list[tuple[int, Frames]] = []
        if isinstance(frames, range):
            # What is one range here may still be one in each file.
            along = as_axis_key(frames)
            numbers: Frames = self._taken[along] if len(frames) and isinstance(along, slice) else range(0)
        else:
            numbers = [self._taken[frame] for frame in frames]
        at = 0
        while at < len(numbers):
            file = bisect_right(self._starts, numbers[at]) - 1
            begin, end = self._starts[file], self._starts[file + 1]
            last = self._end_of_run(numbers, at, begin, end)
            runs.append((file, _moved(numbers[at:last], -begin)))
            at = last
        return runs

    def _end_of_run(self, numbers: Frames, at: int, begin: int, end: int) -> int:
        if begin <= numbers[-1] < end and isinstance(numbers, range):
            return len(numbers)
        last = at + 1
        while last < len(numbers) and begin <= numbers[last] < end:
            last += 1
        return last


@dataclass(frozen=True, slots=True)
class HDF5Dataset:
    """A dataset of one name in several files."""

    files: HDF5Files
    """Through which it is read."""
    paths: tuple[str, ...]
    """The files."""
    name: str
    """The path of the dataset."""
    swmr: bool = False
    """Whether the files may be being written in HDF5's SWMR mode."""
    roots: Roots = ANYWHERE
    """Where the files may lie."""
    stamps: Stamps | None = None
    """What the files were like when they were registered, if that is known."""

    def layout(self, file: int) -> Layout:
        """How it is laid out in one of the files."""
        try:
            return self.files.layout(self.paths[file], self.name, swmr=self.swmr, roots=self.roots)
        except UnreadableFileError as error:
            self.explain(error, [file])
            raise

    def read(self, file: int, frames: Frames, part: tuple[AxisKey, ...]) -> NDArray[np.generic]:
        """Frames, or a part of each, from one of the files.

        Raises
        ------
        ChangedFileError
            If the file is not the one that was registered.
        """
        try:
            values = self._read(file, frames, part)
        except UnreadableFileError as error:
            self.explain(error, [file])
            raise
        # Behind the reading, so that no file can take another's place between the two.
        self.check(file)
        return values

    def check(self, file: int) -> None:
        """Compare a file with what it was like when it was registered; raises as `read` does."""
        if self.stamps is not None:
            number, stamp = self.stamps.nearest(file)
            try:
                path = self._file(number)
            except UnreadableFileError:
                # Nobody can say where it leads; that it is another file shows in itself.
                path = self.paths[number]
            check_stamp(path, stamp, partial(self._samples, number))

    def explain(self, error: UnreadableFileError, files: Sequence[int]) -> None:
        """Raise the true reason for what could not be read, if it is that one of some files was changed."""
        explain(error, [partial(self.check, file) for file in files])

    def stamp(self, file: int, before: Stamp | None, frames: tuple[int, ...]) -> Stamp:
        """What a file is like now, by some of its frames."""
        return stamp_file(self._file(file), before, frames, partial(self._samples, file))

    def _samples(self, file: int, stamp: Stamp) -> Iterator[str]:
        return (frame_sample(self._read(file, range(frame, frame + 1), ())) for frame in stamp.frames)

    def _file(self, file: int) -> str:
        return self.files.file_of(self.paths[file], self.name, swmr=self.swmr, roots=self.roots)

    def _read(self, file: int, frames: Frames, part: tuple[AxisKey, ...]) -> NDArray[np.generic]:
        return self.files.read(self.paths[file], self.name, frames, part, swmr=self.swmr, roots=self.roots)


@dataclass(frozen=True)
class HDF5Frames:
    """Frames of a dataset in several files, as they are while the array is read once."""

    dataset: HDF5Dataset
    """Where they are."""
    index: FrameIndex
    """Which frame is where."""
    inner: tuple[AxisIndex, ...] = ()
    """What is taken of each frame."""

    @property
    def count(self) -> int:
        """How many frames there are."""
        return self.index.count

    @kept
    def _sample(self) -> Layout:
        pieces = self.index.pieces(range(min(1, self.count)))
        return self.dataset.layout(pieces[0][0] if pieces else 0)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Of the elements, as the first file has it."""
        return self._sample.dtype

    @kept
    def inner_keys(self) -> tuple[int | range, ...]:
        """What is taken of each frame, an entry an axis."""
        return expanded_index(self.inner, self._sample.frame_shape)

    @kept
    def frame_shape(self) -> tuple[int, ...]:
        """The shape of one, as the first file has it."""
        return tuple(len(key) for key in self.inner_keys if isinstance(key, range))

    def read(self, frames: Frames, part: tuple[AxisKey, ...] = ()) -> NDArray[np.generic]:
        """Frames, one after the other along the first axis, or a part of each."""
        inner = tuple(map(as_axis_key, self.inner_keys)) if self.inner else ()
        read = []
        for file, numbers in self.index.pieces(frames):
            # Only one of the two can be handed on.
            values = self.dataset.read(file, numbers, inner or part)
            self._check(values, file, bool(inner or not part))
            read.append(values[(slice(None), *part)] if inner and part else values)
        if not read:
            return np.empty((0, *self.frame_shape), self.dtype)[(slice(None), *part)]
        return read[0] if len(read) == 1 else np.concatenate(read)

    def check_files(self, frames: Frames) -> None:
        """Compare the files of some frames with what they were like when they were registered."""
        for file, _ in self.index.pieces(frames):
            self.dataset.check(file)

    def stamped(self, before: Stamps | None) -> Stamps:
        """What the files are like now."""
        ends: dict[int, tuple[int, int]] = {}
        for file, numbers in self.index.pieces(range(self.count)):
            ends[file] = (ends[file][0] if file in ends else numbers[0], numbers[-1])
        frames = {file: tuple(dict.fromkeys(both)) for file, both in ends.items()}
        sample_bytes = 2 * int(np.prod(self._sample.frame_shape, dtype=np.int64)) * self._sample.dtype.itemsize
        lengths = self.index.lengths if isinstance(self.index, JoinedIndex) else ()
        return Stamps.made(
            sorted(frames),
            lambda file, known: self.dataset.stamp(file, known, frames[file]),
            before=before,
            sample_bytes=sample_bytes,
            lengths=lengths,
        )

    def problems(self) -> Iterator[FileProblem]:
        """Which cannot be read."""
        for file, frames in self._by_file().items():
            path, numbers = self.dataset.paths[file], list(frames.values())
            try:
                self.dataset.check(file)
                self.dataset.layout(file).check(numbers, path, self.dataset.name)
            except LostFramesError as error:
                lost = set(error.frames)
                yield FileProblem(path, [frame for frame, number in frames.items() if number in lost], error)
            except UnreadableFileError as error:
                yield FileProblem(path, list(frames), error)

    def taken(self) -> Iterator[tuple[str, str, int, Set[int]]]:
        """Each file and dataset, how many frames it holds, and the numbers of those that are in the array."""
        for file, frames in self._by_file().items():
            layout = self.dataset.layout(file)
            yield self.dataset.paths[file], self.dataset.name, layout.count, set(frames.values())

    def _by_file(self) -> dict[int, dict[int, int]]:
        """The frames that are in each file, and how they are numbered there."""
        found: dict[int, dict[int, int]] = {}
        at = 0
        for file, numbers in self.index.pieces(range(self.count)):
            found.setdefault(file, {}).update(enumerate(numbers, start=at))
            at += len(numbers)
        return found

    def _check(self, values: NDArray[np.generic], file: int, whole: bool) -> None:
        if values.dtype != self.dtype or (whole and values.shape[1:] != self.frame_shape):
            raise UnreadableFileError(
                f"file {self.dataset.paths[file]} holds frames of shape {list(values.shape[1:])} and {values.dtype} in "
                f"{self.dataset.name}; expected {list(self.frame_shape)} and {self.dtype}, as in the first file."
            )


def _moved(numbers: Frames, by: int) -> Frames:
    if isinstance(numbers, range):
        return range(numbers.start + by, numbers.stop + by, numbers.step)
    return [number + by for number in numbers]
