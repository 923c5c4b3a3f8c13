"""The camera's picture: each frame carries its number, and every pixel of it depends on that number.

The first four pixels, in row-major order, hold the four bytes of the frame's number, the lowest
first. All other pixels are diagonal stripes that move on with the number, so that a region cut out
of a frame, too, tells neighbouring frames apart. A frame smaller than four pixels carries as many
bytes as it has pixels.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["STAMP_LENGTH", "frame", "number"]

STAMP_LENGTH = 4
"""Pixels that carry the number, one byte each."""

_WEIGHTS = (3, 1, 85)
"""How much a step along each axis adds; odd, so that no two neighbours are equal in any type."""

_STEP = 7
"""How far the stripes move from one frame to the next; odd, so that 256 frames differ in each pixel."""

_FLOAT_RANGE = 2**20
"""Where the stripes of a floating-point frame wrap; exact in Float32, the half added to it included."""


@lru_cache(maxsize=8)
def _ramp(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The stripes of frame 0: int64 for floating-point frames, else unsigned of the frame's width."""
    total = np.zeros(shape, dtype=np.int64)
    for axis, length in enumerate(shape):
        steps = np.arange(length, dtype=np.int64) * _WEIGHTS[axis]
        total += steps.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    if dtype.kind == "f":
        return total
    ramp: NDArray[Any] = total.astype(f"u{dtype.itemsize}")
    ramp *= ramp.dtype.type(_spread(dtype))
    return ramp


def _spread(dtype: np.dtype[Any]) -> int:
    """An odd factor that fills all bytes of an integer: 1, 0x0101, 0x01010101 ..."""
    return int.from_bytes(b"\x01" * dtype.itemsize, "little")


def frame(number: int, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """The whole frame with this number.

    Parameters
    ----------
    number : int
        0 or more; the four lowest bytes of it are stamped into the frame.
    shape : tuple of int
        (y, x), or (y, x, 3) for colour.
    dtype : dtype
        Any integer or floating-point type that an areaDetector camera knows.

    Raises
    ------
    ValueError
        For a negative number, a shape of other than two or three axes, or a type that is no number.

    Examples
    --------
    >>> frame(258, (2, 4), "uint8")
    array([[ 2,  1,  0,  0],
           [17, 18, 19, 20]], dtype=uint8)
    """
    kind = np.dtype(dtype)
    check(number, shape, kind)
    ramp = _ramp(tuple(shape), kind)
    if kind.kind == "f":
        picture: NDArray[Any] = ((ramp + number * _STEP) % _FLOAT_RANGE).astype(kind)
        picture += 0.5
    else:
        bits = 8 * kind.itemsize
        picture = (ramp + ramp.dtype.type(number * _STEP * _spread(kind) % 2**bits)).view(kind)
    return stamped(picture, number)


def check(number: int, shape: tuple[int, ...], kind: np.dtype[Any]) -> None:
    """Raise ValueError where there can be no such frame."""
    if number < 0:
        raise ValueError(f"a frame's number is 0 or more, got {number}")
    if len(shape) not in (2, 3):
        raise ValueError(f"a frame is (y, x) or (y, x, 3), got the shape {shape}")
    if kind.kind not in "iuf":
        raise ValueError(f"a frame holds integers or floating-point numbers, got {kind}")


def stamped(picture: NDArray[Any], number: int) -> NDArray[Any]:
    """The frame, a contiguous one, with its number in its first pixels."""
    stamp = np.frombuffer((number % 2 ** (8 * STAMP_LENGTH)).to_bytes(STAMP_LENGTH, "little"), np.uint8)
    flat = picture.reshape(-1)
    flat[:STAMP_LENGTH] = (stamp.view(picture.dtype) if picture.itemsize == 1 else stamp)[: flat.size]
    return picture


def number(frame: NDArray[Any]) -> int:
    """The number that a frame carries.

    Parameters
    ----------
    frame : ndarray
        A frame as :func:`frame` makes it: whole, not averaged, not cut.

    Returns
    -------
    int
        The number, modulo 256 to the power of the pixels that carry it: four, or all of a tiny frame.

    Raises
    ------
    ValueError
        If the first pixels are not bytes, so that this can't be such a frame.

    Examples
    --------
    >>> number(frame(70000, (48, 64), "float32"))
    70000
    """
    stamp = frame.reshape(-1)[:STAMP_LENGTH]
    if stamp.dtype == np.int8:
        stamp = stamp.view(np.uint8)
    values = [float(value) for value in stamp]
    if not all(value.is_integer() and 0 <= value < 256 for value in values):
        raise ValueError(f"the first pixels {values} are not the bytes of a frame number: no pattern frame")
    return int.from_bytes(bytes(int(value) for value in values), "little")
