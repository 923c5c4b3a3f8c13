"""What a part of a virtual dataset takes of one dataset, and where it puts it."""

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["ENDLESS", "Axis", "Selection", "UnclearError", "covered", "selection_of"]

Axis: TypeAlias = range | NDArray[np.int64]
"""Elements along an axis, upwards."""

ENDLESS = 2**62
"""Where an axis ends that goes on for as long as there is something."""
_MOST_ROWS, _MOST_ELEMENTS = 2**23, 2**28


class UnclearError(ValueError):
    """A virtual dataset of which it cannot be told what its frames are made of."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Some rows along the first axis, and the same elements of each."""

    rows: Axis
    """Which rows."""
    inner: tuple[Axis, ...]
    """What is taken along each other axis."""

    @property
    def is_endless(self) -> bool:
        """Whether it goes on for as long as there are rows."""
        return isinstance(self.rows, range) and self.rows.stop == ENDLESS

    @property
    def row_size(self) -> int:
        """How many elements a row gives."""
        return math.prod(map(len, self.inner))

    @property
    def key(self) -> tuple[Any, ...]:
        """What it has in common with others that take the same elements of a row."""
        return tuple(axis if isinstance(axis, range) else axis.tobytes() for axis in self.inner)

    def runs(self) -> NDArray[np.int64]:
        """The first row of each run of rows, and the one after the last."""
        rows = self.rows
        if isinstance(rows, range) and rows.step == 1:
            return np.array([[rows.start, rows.stop]], np.int64)
        if len(rows) > _MOST_ROWS:
            raise UnclearError(f"a part of it has more than {_MOST_ROWS} rows apart")
        numbers = np.asarray(rows, np.int64)
        return np.stack([numbers, numbers + 1], axis=1)

    def at(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows at places in their order."""
        rows = self.rows
        return rows.start + rows.step * places if isinstance(rows, range) else rows[places]


def selection_of(space: Any, shape: tuple[int, ...] = ()) -> Selection | None:
    """What is selected of a dataspace, of which all has this shape; None for nothing.

    Raises
    ------
    UnclearError
        If it is not the same elements of each of some rows.
    """
    import h5py

    kind = space.get_select_type()
    if kind == h5py.h5s.SEL_NONE:
        return None
    if kind == h5py.h5s.SEL_ALL:
        return Selection(range(shape[0]), tuple(map(range, shape[1:])))
    if kind != h5py.h5s.SEL_HYPERSLABS:
        raise UnclearError("a part of it is made of single points")
    if not space.is_regular_hyperslab():
        rows, *inner = _axes_of_blocks(np.asarray(space.get_select_hyper_blocklist(), np.int64))
        return Selection(rows, tuple(inner))
    first, *others = zip(*space.get_regular_hyperslab(), strict=True)
    if any(h5py.h5s.UNLIMITED in axis for axis in others):
        raise UnclearError("a part of it goes on along another axis than that of frames")
    return Selection(_axis(*map(int, first)), tuple(_axis(*map(int, axis)) for axis in others))


def _axis(start: int, stride: int, count: int, block: int) -> Axis:
    import h5py

    if block == h5py.h5s.UNLIMITED:
        return range(start, ENDLESS)
    if count == 1 or stride == block:
        return range(start, ENDLESS if count == h5py.h5s.UNLIMITED else start + count * block)
    if block == 1:
        return range(start, ENDLESS if count == h5py.h5s.UNLIMITED else start + count * stride, stride)
    if count * block > _MOST_ROWS:
        raise UnclearError(f"a part of it has more than {_MOST_ROWS} rows in blocks")
    numbers = np.arange(count * block)
    axis: NDArray[np.int64] = start + stride * (numbers // block) + numbers % block
    return axis


def _axes_of_blocks(blocks: NDArray[np.int64]) -> list[Axis]:
    """The elements along each axis of what is given as blocks, by the corners of each."""
    axes: list[Axis] = []
    for axis in range(blocks.shape[2]):
        corners = np.unique(blocks[:, :, axis], axis=0)
        if (corners[:, 1] - corners[:, 0]).sum() > _MOST_ROWS:
            raise UnclearError(f"a part of it has more than {_MOST_ROWS} rows in blocks")
        axes.append(np.unique(np.concatenate([np.arange(first, last + 1) for first, last in corners])))
    if np.prod(blocks[:, 1] - blocks[:, 0] + 1, axis=1).sum() != math.prod(map(len, axes)):
        raise UnclearError("a part of it does not take the same elements of each of its frames")
    return axes


def covered(inners: list[tuple[Axis, ...]], frame_shape: tuple[int, ...]) -> int:
    """How many elements of a frame several selections have together.

    Raises
    ------
    UnclearError
        If frames are too large to look.
    """
    if len(inners) < 2:
        return sum(math.prod(map(len, inner)) for inner in inners)
    if math.prod(frame_shape) > _MOST_ELEMENTS:
        raise UnclearError(f"frames of {frame_shape} have several parts, and more than {_MOST_ELEMENTS} elements")
    mask = np.zeros(frame_shape, dtype=bool)
    for inner in inners:
        mask[np.ix_(*inner)] = True
    return int(mask.sum())
