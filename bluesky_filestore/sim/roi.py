"""The region-of-interest plugin: cuts, bins, mirrors and scales frames along x and y."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .frame import Frame
from .plugin import Plugin
from .process import cast

__all__ = ["RoiPlugin"]


class RoiPlugin(Plugin):
    """NDPluginROI; along z, the colours, nothing is cut."""

    def work(self, frame: Frame) -> Frame:
        """The region of the frame, after the settings have been fitted to the frame's size."""
        p = self.parameters
        array = frame.array
        width, height, _ = frame.size_xyz
        x, y = frame.axes
        for name, axis, size in (("X", x, width), ("Y", y, height)):
            p.set(f"MaxSize{name}", size)
            array = self._cut(array, name, axis, size)
        if p.integer("EnableScale"):
            array = array / p.number("Scale")
        return frame.with_array(cast(array, p.integer("DataTypeOut"), frame.array.dtype))

    def _cut(self, array: NDArray[Any], name: str, axis: int, full: int) -> NDArray[Any]:
        """Cut, bin (by summing) and mirror along one axis, if that axis is enabled."""
        p = self.parameters
        if not p.integer(f"Enable{name}"):
            return array
        start = min(max(p.integer(f"Min{name}"), 0), full - 1)
        if p.integer(f"AutoSize{name}"):
            start, size = 0, full
        else:
            size = min(max(p.integer(f"Size{name}"), 1), full - start)
        binning = min(max(p.integer(f"Bin{name}"), 1), size)
        size -= size % binning
        for setting, value in (("Min", start), ("Size", size), ("Bin", binning)):
            p.set(f"{setting}{name}", value)
        array = array.take(np.arange(start, start + size), axis=axis)
        if p.integer(f"Reverse{name}"):
            array = np.flip(array, axis)
        if binning > 1:
            shape = (*array.shape[:axis], size // binning, binning, *array.shape[axis + 1 :])
            array = array.reshape(shape).sum(axis=axis + 1, dtype=np.float64)
        return array
