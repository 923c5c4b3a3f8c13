"""A frame on its way from the camera through the plugins: what areaDetector calls an NDArray."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["COLOR_MODES", "DATA_TYPES", "Frame", "FrameMismatchError"]

DATA_TYPES = (
    "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64",
)  # fmt: skip
"""The dtypes in the order of areaDetector's ``DataType`` records."""

COLOR_MODES = ("Mono", "Bayer", "RGB1", "RGB2", "RGB3")
"""The colour modes in the order of the plugins' ``ColorMode_RBV``; the camera's record leaves out Bayer."""

_AXES = {"RGB2": (2, 0), "RGB3": (2, 1)}
"""Where x and y are, in the colour modes whose last axis is not the colour."""

_EPICS_EPOCH = 631152000.0
"""1990-01-01 in seconds since 1970: where EPICS counts from."""


class FrameMismatchError(ValueError):
    """A frame of a shape or type that does not fit into the file."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture with what travels along with it."""

    array: NDArray[Any]
    """(y, x); (y, x, 3), (y, 3, x) or (3, y, x) for RGB1, RGB2 and RGB3."""

    number: int
    """The camera's array counter when it was taken, counting from 1: areaDetector's uniqueId."""

    time: float
    """When it was taken, in seconds since 1970."""

    color_mode: int = 0
    """Index into `COLOR_MODES`."""

    codec: str = ""
    """How it is compressed, in areaDetector's words; the array here is never compressed."""

    attributes: Mapping[str, tuple[Any, Mapping[str, str]]] = field(default_factory=lambda: MappingProxyType({}))
    """What else travels along: by name the value, a numpy scalar, and what is written beside it."""

    @property
    def data_type(self) -> int:
        """Index into `DATA_TYPES`."""
        return DATA_TYPES.index(self.array.dtype.name)

    @property
    def dimensions(self) -> tuple[int, ...]:
        """The sizes, the fastest first: x, y, or in RGB1 colour, x, y."""
        return tuple(reversed(self.array.shape))

    @property
    def axes(self) -> tuple[int, int]:
        """Which axes of the array are x and y."""
        return _AXES.get(COLOR_MODES[self.color_mode], (1, 0))

    @property
    def size_xyz(self) -> tuple[int, int, int]:
        """Width, height and number of colours; the last is 0 for a frame without colour."""
        x, y = self.axes
        shape = self.array.shape
        return shape[x], shape[y], 0 if len(shape) == 2 else shape[3 - x - y]

    @property
    def epics_time(self) -> float:
        """When it was taken, in seconds since 1990."""
        return self.time - _EPICS_EPOCH

    @property
    def epics_seconds(self) -> int:
        """The whole seconds of `epics_time`."""
        return int(self.epics_time)

    @property
    def epics_nanoseconds(self) -> int:
        """The rest of `epics_time`, in nanoseconds."""
        return int((self.epics_time - self.epics_seconds) * 1e9)

    def with_array(self, array: NDArray[Any]) -> "Frame":
        """The same frame after a plugin has worked on it."""
        return Frame(np.ascontiguousarray(array), self.number, self.time, self.color_mode, self.codec, self.attributes)
