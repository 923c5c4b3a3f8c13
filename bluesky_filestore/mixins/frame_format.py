"""What frames look like on their way through areaDetector's plugins, computed without asking anybody."""

from dataclasses import dataclass, replace

import numpy as np

__all__ = ["FrameFormat", "after_roi", "binned_size", "from_sizes", "of_camera", "turned", "with_data_type"]

_AXES = {"RGB1": (1, 0), "RGB2": (2, 0), "RGB3": (2, 1)}
"""Where x and y are in a colour frame's shape; the third axis is the colour."""


@dataclass(frozen=True, slots=True)
class FrameFormat:
    """Shape, dtype and colour mode of a frame."""

    shape: tuple[int, ...]
    """(y, x); for colour (y, x, 3), (y, 3, x) or (3, y, x), as RGB1, RGB2 and RGB3 are stored."""
    dtype: str
    """areaDetector's ``DataType`` in lower case, which is numpy's name."""
    color_mode: str = "Mono"
    """areaDetector's ``ColorMode``."""

    @property
    def dtype_str(self) -> str:
        """The dtype as ``dtype_numpy`` spells it, e.g. ``'<u2'``."""
        return np.dtype(self.dtype).str

    def __str__(self) -> str:
        sizes = " x ".join(map(str, self.shape)) or "nothing"
        return f"{sizes} {self.dtype} {self.color_mode}"


def from_sizes(sizes: tuple[int, ...], dtype: str, color_mode: str) -> FrameFormat | None:
    """The format that a plugin reports with its ``ArraySize0``, ``1`` and ``2``; None if it has seen no frame.

    Examples
    --------
    >>> print(from_sizes((3, 640, 480), "UInt8", "RGB1"), from_sizes((0, 0, 0), "UInt8", "Mono"))
    480 x 640 x 3 uint8 RGB1 None
    """
    shape = tuple(int(size) for size in reversed(sizes) if size > 0)
    return FrameFormat(shape, dtype.lower(), color_mode) if shape else None


def binned_size(size: int, binning: int) -> int:
    """Pixels that remain of `size` when so many become one."""
    return max(size // max(binning, 1), 1)


def of_camera(size: tuple[int, int], binning: tuple[int, int], dtype: str, color_mode: str) -> FrameFormat | None:
    """The next frame of a camera with these settings, each (x, y); None if it has no size.

    Examples
    --------
    >>> print(of_camera((640, 480), (2, 1), "UInt16", "Mono"))
    480 x 320 uint16 Mono
    """
    if min(size) <= 0:
        return None
    x, y = (binned_size(*pair) for pair in zip(size, binning, strict=True))
    shape = {"RGB1": (y, x, 3), "RGB2": (y, 3, x), "RGB3": (3, y, x)}.get(color_mode, (y, x))
    return FrameFormat(shape, dtype.lower(), color_mode)


def with_data_type(frames: FrameFormat, data_type: str) -> FrameFormat:
    """The format after a plugin whose ``DataTypeOut`` is this; ``Automatic`` leaves the type as it is."""
    return frames if data_type.lower() in ("automatic", "") else replace(frames, dtype=data_type.lower())


def turned(frames: FrameFormat) -> FrameFormat:
    """The format after a quarter turn.

    Examples
    --------
    >>> print(turned(FrameFormat((480, 640, 3), "uint8", "RGB1")))
    640 x 480 x 3 uint8 RGB1
    """
    x, y = _AXES.get(frames.color_mode, (1, 0))
    shape = list(frames.shape)
    shape[x], shape[y] = shape[y], shape[x]
    return replace(frames, shape=tuple(shape))


def after_roi(frames: FrameFormat, axis_name: str, *, start: int, size: int, binning: int) -> FrameFormat:
    """The format after a region of interest has cut and binned along ``"x"`` or ``"y"``.

    Settings that do not fit the frame are put right as NDPluginROI does.

    Examples
    --------
    >>> print(after_roi(FrameFormat((480, 640), "uint8"), "x", start=600, size=100, binning=3))
    480 x 13 uint8 Mono
    """
    axis = _AXES.get(frames.color_mode, (1, 0))["xy".index(axis_name)]
    full = frames.shape[axis]
    cut = min(max(size, 1), full - min(max(start, 0), full - 1))
    cut //= min(max(binning, 1), cut)
    return replace(frames, shape=(*frames.shape[:axis], cut, *frames.shape[axis + 1 :]))
