"""Which frames an index into an array of rows means."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.errors import UnreadableFileError

from .stamps import Stamps

__all__ = [
    "ArrayIndex",
    "AxisKey",
    "ComparesItsFiles",
    "FileProblem",
    "Frames",
    "LooksThrough",
    "NamesItsFiles",
    "ReadableFrames",
    "array_of",
    "as_axis_key",
    "expanded_index",
    "runs_of",
]

AxisKey: TypeAlias = int | slice
"""What one axis is indexed with."""
ArrayIndex: TypeAlias = "AxisKey | EllipsisType | tuple[AxisKey | EllipsisType, ...]"
"""What numpy's basic indexing takes, without None."""
Frames: TypeAlias = Sequence[int]
"""Numbers of frames, counted from 0 in the order of the array; often a range."""


class ReadableFrames(Protocol):
    """Frames of one shape and dtype, somewhere."""

    @property
    def count(self) -> int:
        """How many there are."""

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """The shape of one."""

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Of its elements."""

    def read(self, frames: Frames, part: tuple[AxisKey, ...] = ()) -> NDArray[np.generic]:
        """Frames, one after the other along the first axis, or a part of each.

        Raises
        ------
        UnreadableFileError
            If a frame cannot be read, naming file and frame.
        """


@runtime_checkable
class NamesItsFiles(Protocol):
    """Frames that tell themselves which files they are in."""

    def end_paths(self) -> Sequence[str]:
        """The files of the first and of the last frame."""


@runtime_checkable
class ComparesItsFiles(Protocol):
    """Frames that tell whether their files are those that were registered."""

    def check_files(self, frames: Frames) -> None:
        """Compare the files of some frames with what they were like when they were registered.

        Raises
        ------
        ChangedFileError
            If one is another.
        """

    def stamped(self, before: Stamps | None) -> Stamps:
        """What the files are like now.

        Parameters
        ----------
        before : Stamps or None
            What they were like at the last look.

        Raises
        ------
        UnreadableFileError
            If one cannot be read.
        """


@dataclass(frozen=True, slots=True)
class FileProblem:
    """Why frames of a file cannot be read."""

    path: str
    """The file."""
    frames: Sequence[int]
    """The frames, as the array numbers them."""
    error: UnreadableFileError
    """Why."""


@runtime_checkable
class LooksThrough(Protocol):
    """Frames that tell of each of their files whether all of them are in it."""

    def problems(self) -> Iterator[FileProblem]:
        """Which cannot be read, as far as it can be told without reading all of them."""


@dataclass(frozen=True, slots=True)
class _Split:
    """An array's shape in two: the axes that count units of frames, and those of one unit."""

    grid: tuple[int, ...]
    """The sizes of the leading axes."""
    unit: tuple[int, ...]
    """The sizes of the others."""
    frames: int
    """How many frames a unit is made of."""


def fits_in(found: np.dtype[Any], dtype: np.dtype[Any]) -> bool:
    """Whether elements that files hold may stand in an array: as the values that they are, and no truths as numbers.

    A file that does not say (any more) what its pixels are is black and white to some libraries.
    """
    return found == dtype or (np.can_cast(found, dtype, "safe") and found.kind != "b")


def array_of(source: ReadableFrames, shape: tuple[int, ...], index: ArrayIndex = ...) -> NDArray[np.generic]:
    """A part of the array that has all frames of a source in their order.

    Parameters
    ----------
    source : ReadableFrames
        The frames.
    shape : tuple of int
        Of the whole array; as many elements as all frames have.
    index : int, slice, Ellipsis, or a tuple of these
        Which part.

    Returns
    -------
    array
        As numpy would answer; only the frames that it needs are read.

    Raises
    ------
    IndexError
        If the index does not fit the shape.
    UnreadableFileError
        If a frame cannot be read.
    """
    keys = expanded_index(index, shape)
    split = _split(shape, source)
    leading, trailing = keys[: len(split.grid)], keys[len(split.grid) :]
    numbers = _flat(leading, split.grid)
    result_shape = tuple(len(key) for key in leading if isinstance(key, range))
    if split.frames == 1 and split.unit == tuple(source.frame_shape):
        part = () if _is_whole(trailing, split.unit) else tuple(map(as_axis_key, trailing))
        values = source.read(numbers, part)
        return values.reshape(result_shape + values.shape[1:])
    wanted = result_shape + split.unit
    # Before they are counted: a registration may claim any number of frames for one of its rows.
    if split.frames * math.prod(source.frame_shape) != math.prod(split.unit) and 0 not in result_shape:
        raise _other_frames(source, shape)
    if split.frames > 1:
        numbers = _spread(numbers, split.frames)
    values = source.read(numbers)
    if values.size != math.prod(wanted):
        raise _other_frames(source, shape)
    values = values.reshape(wanted)
    if _is_whole(trailing, split.unit):
        return values
    whole: tuple[AxisKey, ...] = (slice(None),) * len(result_shape)
    # Of one element, numpy gives the number itself.
    return np.asarray(values[(*whole, *map(as_axis_key, trailing))])


def _other_frames(source: ReadableFrames, shape: tuple[int, ...]) -> UnreadableFileError:
    return UnreadableFileError(
        f"the files hold frames of shape {list(source.frame_shape)}; expected frames for an array of shape "
        f"{list(shape)}: they are not the files that were registered."
    )


def expanded_index(index: ArrayIndex, shape: tuple[int, ...]) -> tuple[int | range, ...]:
    """An index with one entry an axis: a whole number from 0 on, or the range of those that a slice takes.

    Raises
    ------
    IndexError
        If it has too many entries, or a number is out of range.

    Examples
    --------
    >>> expanded_index((-1, ..., slice(1, None)), (10, 20, 30))
    (9, range(0, 20), range(1, 30))
    """
    keys = index if isinstance(index, tuple) else (index,)
    if ... in keys:
        at = keys.index(...)
        missing = len(shape) - len(keys) + 1
        keys = (*keys[:at], *(slice(None),) * missing, *keys[at + 1 :])
    if len(keys) > len(shape):
        raise IndexError(f"index {index!r} has {len(keys)} entries for an array of {len(shape)} axes.")
    keys = (*keys, *(slice(None),) * (len(shape) - len(keys)))
    return tuple(_on_axis(key, size) for key, size in zip(keys, shape, strict=True))


def _on_axis(key: AxisKey | EllipsisType, size: int) -> int | range:
    if isinstance(key, slice):
        return range(size)[key]
    if isinstance(key, EllipsisType):
        raise IndexError("an index can have one Ellipsis; expected one entry an axis for the rest.")
    try:
        return range(size)[key]
    except IndexError:
        raise IndexError(f"index {key} is out of range; expected {-size} to {size - 1}.") from None


def _split(shape: tuple[int, ...], source: ReadableFrames) -> _Split:
    """The longest leading axes that go up in whole frames."""
    count, product = source.count, 1
    best = 0
    frames = count
    for axis, size in enumerate(shape, start=1):
        product *= size
        if product == 0 or product > count:
            break
        if count % product == 0:
            best, frames = axis, count // product
        if product == count and shape[axis:] == tuple(source.frame_shape):
            break
    return _Split(shape[:best], shape[best:], frames)


def _flat(keys: Sequence[int | range], sizes: tuple[int, ...]) -> Frames:
    first, many = 0, []
    for axis, key in enumerate(keys):
        distance = math.prod(sizes[axis + 1 :])
        if isinstance(key, int) or len(key) == 1:
            first += (key if isinstance(key, int) else key[0]) * distance
        else:
            many.append((key, distance))
    if not many:
        return range(first, first + 1)
    if len(many) == 1:
        # Mostly so; numbers one by one take longer than it takes to read a small frame.
        ((key, distance),) = many
        return range(first + key.start * distance, first + key.stop * distance, key.step * distance)
    numbers = np.full((1,), first, dtype=np.int64)
    for key, distance in many:
        numbers = (numbers[:, np.newaxis] + np.asarray(key, dtype=np.int64) * distance).reshape(-1)
    return numbers.tolist()


def _spread(units: Frames, frames: int) -> Frames:
    if isinstance(units, range) and units.step == 1:
        return range(units.start * frames, units.stop * frames)
    return [unit * frames + part for unit in units for part in range(frames)]


def _is_whole(keys: Sequence[int | range], sizes: tuple[int, ...]) -> bool:
    return all(key == range(size) for key, size in zip(keys, sizes, strict=True))


def as_axis_key(key: int | range) -> AxisKey:
    """A number as it is, and a range as the slice that takes it."""
    if isinstance(key, int):
        return key
    if not key:
        return slice(0, 0)
    # A range that counts down to 0 stops at -1, which a slice takes for the last.
    return slice(key.start, key.stop if key.stop >= 0 else None, key.step)


def runs_of(numbers: Frames) -> Iterator[tuple[int, range]]:
    """Numbers in runs of a constant positive distance: the place of each run's first, and the run.

    Examples
    --------
    >>> list(runs_of([4, 5, 6, 2]))
    [(0, range(4, 7)), (3, range(2, 3))]
    """
    if isinstance(numbers, range) and numbers.step > 0:
        if numbers:
            yield 0, numbers
        return
    first = 0
    while first < len(numbers):
        last = first
        step = numbers[first + 1] - numbers[first] if first + 1 < len(numbers) else 1
        while step > 0 and last + 1 < len(numbers) and numbers[last + 1] - numbers[last] == step:
            last += 1
        yield first, range(numbers[first], numbers[last] + 1, max(step, 1))
        first = last + 1
