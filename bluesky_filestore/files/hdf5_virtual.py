"""Virtual datasets of HDF5: which rows of which datasets make up their frames.

HDF5 gives its fill value for whatever it cannot get, without a word: a part whose file is gone, or open in another way
in this process. It looks for files in places that nobody named, and makes values fit that do not. So the parts are read
here, one by one, as any dataset is, and put together.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.model.limits import DEFAULT_LIMITS, Limits

from .hdf5_selection import Selection, UnclearError, covered, selection_of
from .hdf5_written import LostFramesError, Written
from .rows import Frames

if TYPE_CHECKING:
    import h5py

__all__ = ["Part", "Virtual", "named_block", "virtual_of"]

_MOST_WAYS, _MOST_CHANGES = 256, 2**24


@dataclass(frozen=True, slots=True)
class Part:
    """What a virtual dataset takes from one dataset."""

    file: str
    """The file as it is named there."""
    dataset: str
    """Its dataset."""
    target: Selection
    """Which frames it is for, and which elements of each."""
    source: Selection | None
    """What is taken; None for all there is."""
    stride: int = 0
    """From one numbered part to the next, where there are as many as there are files or datasets; else 0."""

    def numbered(self, number: int) -> "Part":
        """One of the numbered parts."""
        first = self.target.rows[0] + number * self.stride
        target = Selection(range(first, first + len(self.target.rows)), self.target.inner)
        return Part(named_block(self.file, number), named_block(self.dataset, number), target, self.source)

    def find(self, frames: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which of some frames the part has elements of, and the places of these among its own."""
        rows = self.target.rows
        if isinstance(rows, range):
            places, rest = np.divmod(frames - rows.start, rows.step)
            wanted = (rest == 0) & (places >= 0) & (places < len(rows))
        else:
            places = np.minimum(np.searchsorted(rows, frames), len(rows) - 1)
            wanted = rows[places] == frames
        return np.flatnonzero(wanted), places[wanted]


@dataclass(frozen=True)
class Virtual:
    """What a virtual dataset is made of."""

    parts: tuple[Part, ...]
    """In their order: where two have the same element, the later one counts."""
    fill_value: Any
    """What stands between parts."""
    in_pieces: bool = False
    """Whether the parts are one behind the other, each as long as it is."""
    ends: str = ""
    """Why there are no more frames, if further parts were named."""

    @property
    def is_endless(self) -> bool:
        """Whether only what it is made of tells how many frames it has."""
        return self.in_pieces or any(part.stride or part.target.is_endless for part in self.parts)

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """The first and the last frame of each part."""
        ends = [(part.target.rows[0], part.target.rows[-1]) for part in self.parts]
        return np.array(ends, np.int64).reshape(-1, 2)

    def grown(self, shape_of: Callable[[Part], tuple[int, ...]], limits: Limits) -> "tuple[int, Virtual]":
        """How many frames there are now, and what they are made of, by the shapes of what parts are from."""
        frames, parts = 0, list[Part]()
        for part in self.parts:
            for one in map(part.numbered, count()) if part.stride else (part,):
                end = int(one.target.rows[-1]) + 1
                try:
                    if part.stride:
                        shape_of(one)
                    elif part.target.is_endless:
                        end = _end_of(one, shape_of(one)[0])
                except LostFramesError:
                    if part.stride:
                        break
                    end = 0
                frames = max(frames, end)
                parts.append(one)
                limits.check("virtual_sources", len(parts), "a part of it stands for", "files or more")
        return frames, Virtual(tuple(parts), self.fill_value)

    def pieces(self, frames: Frames) -> Iterator[tuple[Part, NDArray[np.int64], NDArray[np.int64]]]:
        """The parts that some frames have elements from, with what `Part.find` tells."""
        numbers = np.asarray(frames, dtype=np.int64)
        if not len(numbers):
            return
        near = (self._ends[:, 0] <= numbers.max()) & (self._ends[:, 1] >= numbers.min())
        for number in np.flatnonzero(near):
            wanted, places = self.parts[number].find(numbers)
            if len(wanted):
                yield self.parts[number], wanted, places

    def written(self, shape: tuple[int, ...]) -> Written | None:
        """Which frames have parts for all that any frame has: the rest is a gap between modules of a detector.

        Raises
        ------
        UnclearError
            If there are too many ways in which frames are put together.
        """
        if not self.parts:
            return Written(np.zeros(1, np.int64), np.zeros(1, bool))
        kinds: dict[Any, int] = {}
        kind_of = [kinds.setdefault(part.target.key, len(kinds)) for part in self.parts]
        runs = [part.target.runs() for part in self.parts]
        starts = np.unique(np.concatenate([np.zeros((1, 2), np.int64), *runs]))
        if len(kinds) * len(starts) > _MOST_CHANGES:
            raise UnclearError(f"its frames are made of {len(kinds)} different parts in {len(starts)} places")
        change = np.zeros((len(kinds), len(starts)), np.int64)
        for kind, bounds in zip(kind_of, runs, strict=True):
            np.add.at(change[kind], np.searchsorted(starts, bounds[:, 0]), 1)
            np.add.at(change[kind], np.searchsorted(starts, bounds[:, 1]), -1)
        ways, way_of = np.unique(change.cumsum(axis=1) > 0, axis=1, return_inverse=True)
        if ways.shape[1] > _MOST_WAYS:
            raise UnclearError(f"its frames are put together in {ways.shape[1]} ways, of at most {_MOST_WAYS}")
        inners = [self.parts[kind_of.index(kind)].target.inner for kind in range(len(kinds))]
        sizes = [covered([inners[kind] for kind in np.flatnonzero(way)], shape[1:]) for way in ways.T]
        most = covered(inners, shape[1:])
        whole = np.array([most > 0 and size == most for size in sizes])[way_of.reshape(-1)]
        return None if whole[starts < shape[0]].all() else Written(starts, whole)


def virtual_of(dataset: "h5py.Dataset", limits: Limits = DEFAULT_LIMITS) -> tuple[tuple[int, ...], Virtual]:
    """The shape of a virtual dataset, but for rows that only what it is made of tells, and what that is.

    Raises
    ------
    LimitError
        If it has too many parts.
    UnclearError
        If it cannot be told which rows of which datasets that are.
    """
    count = dataset.id.get_create_plist().get_virtual_count()
    limits.check("virtual_sources", count, f"virtual dataset {dataset.name} has", "parts")
    mappings = dataset.virtual_sources()
    # Where a part goes on for ever, HDF5 opens files to tell the shape: whatever there is by their names.
    shape = tuple(mappings[0].vspace.shape) if any(map(_is_endless, mappings)) else tuple(dataset.shape)
    parts = tuple(part for mapping in mappings if (part := _part_of(mapping, shape)) is not None)
    return shape, Virtual(parts, dataset.fillvalue)


def _is_endless(mapping: Any) -> bool:
    import h5py

    space = mapping.vspace
    if space.get_select_type() != h5py.h5s.SEL_HYPERSLABS or not space.is_regular_hyperslab():
        return False
    return any(h5py.h5s.UNLIMITED in axis for axis in space.get_regular_hyperslab())


def _is_numbered(name: str) -> bool:
    return "%b" in name.replace("%%", "")


def named_block(name: str, block: int) -> str:
    """The name of a file or dataset for a block: "%b" stands for its number."""
    return re.sub("%([%b])", lambda found: "%" if found[1] == "%" else str(block), name)


def _part_of(mapping: Any, shape: tuple[int, ...]) -> Part | None:
    import h5py

    target = selection_of(mapping.vspace, shape)
    if target is None or not target.rows or not target.row_size:
        return None
    names = (mapping.file_name, mapping.dset_name)
    if not any(map(_is_numbered, names)):
        names, stride = (named_block(names[0], 0), named_block(names[1], 0)), 0
    else:
        (start, *_), (stride, *_), _, (block, *_) = mapping.vspace.get_regular_hyperslab()
        target = Selection(range(int(start), int(start + block)), target.inner)
    if mapping.src_space.get_select_type() == h5py.h5s.SEL_ALL:
        return Part(*names, target, None, int(stride))
    source = selection_of(mapping.src_space)
    if source is None:
        return None
    if source.is_endless != target.is_endless or (source.is_endless and source.row_size != target.row_size):
        raise UnclearError("a part of it goes on for ever, and not as what it is from does")
    return Part(*names, target, source, int(stride))


def _end_of(part: Part, rows: int) -> int:
    """The frame after the last of a part that goes on for as long as there are rows."""
    taken = part.source.rows if part.source is not None else range(rows)
    there = len(range(taken.start, min(taken.stop, rows), taken.step)) if isinstance(taken, range) else 0
    return int(part.target.rows[there - 1]) + 1 if there else 0
