"""What a beamline's camera sees: powder rings and the spots of a coarse grain, which change as the sample is moved.

A frame is known by its number and by where the sample was: `frame` makes the same one again. The number chooses the
counting noise, and stands in the first four pixels, as in frames of `pattern`, whose `number` reads it. Moving the
sample strains it, so that the rings grow, and turns the grains, each of which reflects at a place of its own.

Counts are ``(sqrt(mean) + z / 2) ** 2`` rounded down, with z normally distributed: their mean and variance are those of
counted photons, and a megapixel of them costs a millisecond or two, where drawing them would cost fifty.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from . import pattern

__all__ = ["frame", "mean"]

_NOISES = 65_536
"""So many frames in a row have noise of their own."""

_RINGS = (
    *((0.20, 0.5), (0.33, 1.0), (0.385, 0.38), (0.47, 0.8), (0.575, 0.33), (0.63, 0.5), (0.75, 0.3), (0.86, 0.34)),
    *((0.97, 0.16), (1.04, 0.24), (1.18, 0.18), (1.31, 0.1)),
)
"""Radius, in halves of the frame's height, and strength of each ring."""

_WIDTH, _STRAIN, _ROCKING = 0.009, 0.06, 0.22
"""Of a ring, of its radius per unit of the sample's way, and how far that may be from where a grain reflects."""

_GRAINS = 140
_CENTRE = (0.46, 0.53)
_BRIGHTEST = 3000


@lru_cache(maxsize=2)
def _noise(size: int) -> NDArray[np.float32]:
    """Half a standard deviation for each pixel, and more: each frame begins at another place."""
    noise: NDArray[np.float32] = np.random.default_rng(20_260).standard_normal(size + _NOISES, dtype=np.float32)
    noise *= 0.5
    return noise


@lru_cache(maxsize=8)
def _roots(height: int, width: int, position: float, brightest: float) -> NDArray[np.float32]:
    """The square root of the mean counts of each pixel."""
    y = (np.arange(height, dtype=np.float32)[:, None] / height - _CENTRE[0]) * 2
    x = (np.arange(width, dtype=np.float32)[None, :] / height - _CENTRE[1] * width / height) * 2
    radius = np.hypot(x, y)
    # Of the radius alone: looked up.
    table = np.linspace(0, 4, 4096, dtype=np.float32)
    rings = 0.018 + 0.15 * np.exp(-table / 0.3)
    grown = 1 + _STRAIN * position
    wide = max(_WIDTH, 1.5 / height)
    for at, strength in _RINGS:
        rings += 0.42 * strength * np.exp(-0.5 * ((table - at * grown) / wide) ** 2)
    rings *= 1 / (1 + np.exp(-(table - 0.1) / (0.25 * wide)))  # The beam stop.
    total = np.interp(radius, table, rings)
    _add_spots(total, position, grown, wide)
    roots: NDArray[np.float32] = np.sqrt(total * brightest).astype(np.float32)
    return roots


def _add_spots(total: NDArray[Any], position: float, grown: float, wide: float) -> None:
    """Add what the grains reflect at a position of the sample."""
    height, width = total.shape
    rng = np.random.default_rng(7)
    for at, strength in ((_RINGS[n][0], _RINGS[n][1]) for n in rng.integers(0, len(_RINGS), _GRAINS)):
        angle, reflects, size = rng.uniform(0, 2 * np.pi), rng.uniform(-1.2, 1.2), rng.uniform(0.8, 1.5)
        power = (0.35 + strength) * np.exp(-0.5 * ((position - reflects) / _ROCKING) ** 2)
        if power < 0.005:
            continue
        angle += 0.05 * (position - reflects)
        row = (_CENTRE[0] + np.sin(angle) * at * grown / 2) * height
        column = _CENTRE[1] * width + np.cos(angle) * at * grown / 2 * height
        sigma = size * wide * height / 2
        top, left = int(row - 4 * sigma), int(column - 4 * sigma)
        part = total[max(top, 0) : int(row + 4 * sigma) + 1, max(left, 0) : int(column + 4 * sigma) + 1]
        if part.size:
            down = np.arange(max(top, 0), max(top, 0) + part.shape[0])[:, None] - row
            right = np.arange(max(left, 0), max(left, 0) + part.shape[1])[None, :] - column
            part += power * np.exp(-0.5 * (down**2 + right**2) / sigma**2)


def _cut_gaps(counts: NDArray[Any]) -> None:
    """Between the modules of a detector nothing is counted."""
    height, width = counts.shape
    gap = max(1, round(height / 90))
    for edge in (height // 3, 2 * height // 3):
        counts[edge : edge + gap] = 0
    counts[:, width // 2 : width // 2 + gap] = 0


def mean(shape: tuple[int, int], dtype: DTypeLike, position: float = 0.0) -> NDArray[np.float64]:
    """The counts that are expected in each pixel of a frame; parameters as of `frame`."""
    counts = _roots(*shape, float(position), _brightest(np.dtype(dtype))).astype(np.float64) ** 2
    _cut_gaps(counts)
    return np.asarray(counts)


def frame(number: int, shape: tuple[int, ...], dtype: DTypeLike, position: float = 0.0) -> NDArray[Any]:
    """The frame with a number, taken with the sample at a position.

    Parameters
    ----------
    number : int
        0 or more; the four lowest bytes of it are stamped into the frame.
    shape : tuple of int
        (y, x), or with an axis of three colours, which are equal but for the number.
    dtype : dtype
        Any integer or floating-point type that an areaDetector camera knows.
    position : float
        Where the sample is; something happens between -1 and 1.

    Raises
    ------
    ValueError
        As `pattern.frame` does.

    Examples
    --------
    >>> pattern.number(frame(70000, (48, 64), "uint16", 0.5))
    70000
    """
    kind = np.dtype(dtype)
    pattern.check(number, shape, kind)
    grey = shape if len(shape) == 2 else tuple(np.delete(shape, _colour_axis(shape)))
    roots = _roots(grey[0], grey[1], float(position), _brightest(kind))
    begin = number * 40_503 % _NOISES
    counts = _noise(roots.size)[begin : begin + roots.size].reshape(roots.shape) + roots
    counts *= counts
    if kind.itemsize == 1:
        np.minimum(counts, np.iinfo(kind).max, out=counts)
    elif kind.kind == "f":
        np.floor(counts, out=counts)
    _cut_gaps(counts)
    picture: NDArray[Any] = counts.astype(kind)
    if len(shape) == 3:
        picture = np.ascontiguousarray(np.broadcast_to(np.expand_dims(picture, _colour_axis(shape)), shape))
    return pattern.stamped(picture, number)


def _colour_axis(shape: tuple[int, ...]) -> int:
    return next((axis for axis in (2, 0, 1) if shape[axis] == 3), 2)


def _brightest(kind: np.dtype[Any]) -> float:
    """The mean counts where most is seen: what the type holds, with room for noise."""
    return float(min(_BRIGHTEST, 0.75 * np.iinfo(kind).max)) if kind.kind in "iu" else float(_BRIGHTEST)
