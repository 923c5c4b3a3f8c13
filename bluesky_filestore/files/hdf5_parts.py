"""Frames of a virtual dataset, read from its parts one by one and put together."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.errors import MissingFileError

from .hdf5_layout import Layout, NoDatasetError, beside
from .hdf5_selection import Selection, UnclearError
from .hdf5_virtual import Part, Virtual
from .hdf5_written import LostFramesError
from .readable import Roots
from .rows import AxisKey, Frames, as_axis_key

__all__ = ["PartSources", "Way", "read_virtual"]

_BATCH_BYTES = 16 * 2**20


@dataclass(slots=True)
class Way:
    """How one reading goes on, where virtual datasets lead to others."""

    swmr: bool
    """Whether files may be being written in HDF5's SWMR mode."""
    roots: Roots
    """Where they may lie."""
    deep: int = 0
    """How many virtual datasets led here."""
    looked_at: "count[int]" = field(default_factory=lambda: count(1))
    """Counts the parts of virtual datasets that others are made of, in all of the reading."""

    def deeper(self, path: str, dataset: str) -> "Way":
        """The same, one virtual dataset deeper."""
        self.roots.limits.check(
            "virtual_depth",
            self.deep + 1,
            f"virtual dataset {dataset} of file {path} is number",
            "of those that lead to one another, or to itself",
        )
        return Way(self.swmr, self.roots, self.deep + 1, self.looked_at)


class DatasetReader(Protocol):
    """Who reads datasets, virtual ones among them."""

    def layout_on(self, path: str, dataset: str, way: Way, /) -> Layout:
        """How a dataset is laid out."""

    def read_on(
        self, path: str, dataset: str, frames: Frames, part: tuple[AxisKey, ...], way: Way, /
    ) -> NDArray[np.generic]:
        """Frames of a dataset, or a part of each."""


@dataclass(frozen=True, slots=True)
class PartSources:
    """What the parts of a virtual dataset are from, as any dataset is read."""

    files: DatasetReader
    """Through which."""
    path: str
    """The file with the virtual dataset."""
    way: Way
    """How."""

    def layout_of(self, part: Part) -> Layout:
        """How the dataset is laid out that a part is from."""
        with self._looking(part, ()) as path:
            return self.files.layout_on(path, part.dataset, self.way)

    def shape_of(self, part: Part) -> tuple[int, ...]:
        """The shape of the dataset that a part is from."""
        return self.layout_of(part).shape

    def read(self, part: Part, rows: Frames, bounds: tuple[AxisKey, ...]) -> NDArray[np.generic]:
        """Rows of it, and of each the elements within some bounds."""
        with self._looking(part, rows) as path:
            return self.files.read_on(path, part.dataset, rows, bounds, self.way)

    @contextmanager
    def _looking(self, part: Part, rows: Frames) -> Iterator[str]:
        """The file of a part; that it is not there is a loss of frames, as what was not written is."""
        if self.way.deep > 1:
            # Virtual datasets may be made of one another: any number of parts, in a file of a few bytes.
            self.way.roots.limits.check(
                "virtual_parts",
                next(self.way.looked_at),
                f"frames of the virtual dataset that leads to file {self.path} are made of",
                "parts of parts or more (read fewer frames at a time, or the files that they are in)",
            )
        try:
            yield beside(self.path, part.file)
        except (MissingFileError, NoDatasetError) as error:
            raise LostFramesError(str(error), rows) from error


def read_virtual(
    virtual: Virtual,
    frame_shape: tuple[int, ...],
    dtype: np.dtype[np.generic],
    frames: Frames,
    part: tuple[AxisKey, ...],
    sources: PartSources,
) -> NDArray[np.generic]:
    """Frames of a virtual dataset, put together, or a part of each.

    Raises
    ------
    LostFramesError
        If there are no data for some of them: it names these.
    UnclearError
        If what they are made of does not fit.
    UnreadableFileError
        If it cannot be read.
    """
    frame_bytes = math.prod(frame_shape) * dtype.itemsize
    batch = max(1, min(len(frames), _BATCH_BYTES // max(1, frame_bytes))) if part else max(1, len(frames))
    cut: list[NDArray[np.generic]] = []
    for first in range(0, max(1, len(frames)), batch):
        some = frames[first : first + batch]
        values = np.full((len(some), *frame_shape), virtual.fill_value, dtype)
        _fill(values, virtual, some, sources)
        cut.append(values[(slice(None), *part)])
    return cut[0] if len(cut) == 1 else np.concatenate(cut)


def _fill(values: NDArray[np.generic], virtual: Virtual, frames: Frames, sources: PartSources) -> None:
    lost: set[int] = set()
    reason = ""
    for part, wanted, places in virtual.pieces(frames):
        rows = np.empty((0, 1), np.int64)
        try:
            source = part.source or _all_of(part, sources.shape_of(part))
            rows = _rows_of(part, source, places)
            found = _elements(part, source, places, rows, values.dtype, sources)
        except LostFramesError as error:
            gone: Any = np.isin(rows, error.frames).any(axis=1) if rows.size and error.frames else slice(None)
            lost.update(frames[place] for place in wanted[gone].tolist())
            reason = reason or str(error)
            continue
        inner = part.target.inner
        if all(isinstance(axis, range) for axis in inner):
            into: Any = (wanted, *(as_axis_key(axis) for axis in inner if isinstance(axis, range)))
        else:
            into = np.ix_(wanted, *map(np.asarray, inner))
        values[into] = found.reshape(len(wanted), *map(len, inner))
    if lost:
        raise LostFramesError(reason, sorted(lost))


def _all_of(part: Part, shape: tuple[int, ...]) -> Selection:
    """The selection of all there is of a dataset."""
    inner = tuple(map(range, shape[1:]))
    if math.prod(shape[1:]) == part.target.row_size:
        # Of rows that are not there, the dataset says so.
        return Selection(range(max(shape[0], len(part.target.rows))), inner)
    if math.prod(shape) != part.target.row_size * len(part.target.rows):
        raise _unfitting(
            part,
            f"has the shape {list(shape)}, which is not that of {len(part.target.rows)} frames of "
            f"{part.target.row_size} elements",
        )
    return Selection(range(shape[0]), inner)


def _rows_of(part: Part, source: Selection, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows that frames of a part are made of: of each the same number, or one for several."""
    size, held = part.target.row_size, source.row_size
    if held == 0 or (size % held and held % size):
        raise _unfitting(part, f"has rows of {held} elements, for {size} of each frame")
    each = max(1, size // held)
    numbers = (
        places[:, np.newaxis] * each + np.arange(each) if size >= held else places[:, np.newaxis] // (held // size)
    )
    if numbers.max(initial=0) >= len(source.rows):
        raise _unfitting(
            part, f"has {len(source.rows)} rows of {held} elements, for {len(part.target.rows)} frames of {size}"
        )
    return source.at(numbers)


def _elements(
    part: Part,
    source: Selection,
    places: NDArray[np.int64],
    rows: NDArray[np.int64],
    dtype: np.dtype[np.generic],
    sources: PartSources,
) -> NDArray[np.generic]:
    """What frames have of a part, one behind the other."""
    size, held = part.target.row_size, source.row_size
    if size >= held:
        return _read(part, source, rows.reshape(-1), dtype, sources)
    each = held // size
    some, which = np.unique(rows[:, 0], return_inverse=True)
    whole = _read(part, source, some, dtype, sources).reshape(-1, size)
    found: NDArray[np.generic] = whole[which * each + places % each]
    return found


def _read(
    part: Part, source: Selection, rows: NDArray[np.int64], dtype: np.dtype[np.generic], sources: PartSources
) -> NDArray[np.generic]:
    """What a part takes from rows of a dataset."""
    bounds = tuple(slice(int(axis[0]), int(axis[-1]) + 1) for axis in source.inner)
    found = _fitting(part, sources.read(part, rows.tolist(), bounds), dtype)
    expected = [bound.stop - bound.start for bound in bounds]
    if list(found.shape[1:]) != expected:
        raise _unfitting(part, f"has {list(found.shape[1:])} of what is to be {expected} of each of its rows")
    if all(isinstance(axis, range) and axis.step == 1 for axis in source.inner):
        return found
    taken: NDArray[np.generic] = found[
        np.ix_(np.arange(len(found)), *(np.asarray(axis) - axis[0] for axis in source.inner))
    ]
    return taken


def _fitting(part: Part, found: NDArray[np.generic], dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    # HDF5 would clip what does not fit.
    if not np.can_cast(found.dtype, dtype, "safe"):
        raise _unfitting(part, f"holds {found.dtype}, of which {dtype} cannot hold all values")
    return found


def _unfitting(part: Part, words: str) -> UnclearError:
    return UnclearError(f"dataset {part.dataset} of file {part.file} {words}")
