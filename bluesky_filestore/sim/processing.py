"""The plugins that change frames on their way: region of interest, transform, process (squashing) and codec."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .frame import DATA_TYPES, Frame
from .plugin import Plugin, Wiring
from .records import Records

__all__ = ["CodecPlugin", "ProcessPlugin", "RoiPlugin", "TransformPlugin"]

_CODECS = ("", "jpeg", "blosc", "lz4", "bslz4")
"""What ``Codec_RBV`` shows of frames, in the order of ``Compressor``."""

_COMPRESS = 0
"""Mode."""

_TRANSFORMS: tuple[Callable[[NDArray[Any]], NDArray[Any]], ...] = (
    lambda picture: picture,
    lambda picture: np.rot90(picture, -1),
    lambda picture: np.rot90(picture, 2),
    lambda picture: np.rot90(picture, 1),
    np.fliplr,
    lambda picture: np.fliplr(np.rot90(picture, -1)),
    lambda picture: np.fliplr(np.rot90(picture, 2)),
    lambda picture: np.fliplr(np.rot90(picture, 1)),
)
"""What each ``Type`` does to (y, x, ...): turned clockwise, then mirrored left to right."""


class CodecPlugin(Plugin):
    """NDPluginCodec: it marks frames as compressed; their elements stay as they are."""

    def work(self, frame: Frame) -> Frame:
        """The frame with the codec that was chosen, or without one."""
        p = self.parameters
        return replace(frame, codec=_CODECS[p.integer("Compressor")] if p.integer("Mode") == _COMPRESS else "")


class TransformPlugin(Plugin):
    """NDPluginTransform."""

    def work(self, frame: Frame) -> Frame:
        """The frame, turned and mirrored; a colour stays on its axis."""
        x, y = frame.axes
        picture = _TRANSFORMS[self.parameters.integer("Type")](np.moveaxis(frame.array, (y, x), (0, 1)))
        return frame.with_array(np.moveaxis(picture, (0, 1), (y, x)))


def _cast(array: NDArray[Any], data_type: int, original: np.dtype[Any]) -> NDArray[Any]:
    """Convert a plugin's result to ``DataTypeOut``; the last choice, Automatic, is the input's type."""
    wanted = np.dtype(DATA_TYPES[data_type]) if data_type < len(DATA_TYPES) else original
    if wanted.kind in "iu" and array.dtype.kind == "f":
        limits = np.iinfo(wanted)
        array = np.clip(array, float(limits.min), float(limits.max))
    return array.astype(wanted)


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
        return frame.with_array(_cast(array, p.integer("DataTypeOut"), frame.array.dtype))

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


@dataclass(frozen=True, slots=True)
class _Coefficients:
    """What makes a filter, in the words of the areaDetector manual (NDPluginProcess)."""

    output: tuple[float, float, float, float]
    """OC1 to OC4: the output is (OC1 + OC2/n) * filter + (OC3 + OC4/n) * input."""

    filter: tuple[float, float, float, float]
    """FC1 to FC4: the same for the filter's next content."""

    reset: tuple[float, float]
    """RC1, RC2: a reset makes the filter RC1 * filter + RC2 * input."""


_FILTER_TYPES = (
    _Coefficients((1, -1, 0, 1), (1, -1, 0, 1), (0, 1)),
    _Coefficients((0, 1, 0, 1), (1, 0, 1, 0), (0, 0)),
    _Coefficients((1, 0, 1, 0), (1, 0, 1, 0), (0, 0)),
    _Coefficients((-1, 0, 1, 0), (0, 0, 1, 0), (0, 1)),
    _Coefficients((-1, 0, 1, 0), (1, -1, 0, 1), (0, 1)),
    _Coefficients((1, 0, 0, 0), (0, 0, 1, 0), (0, 1)),
)
"""In the order of ``FilterType``: RecursiveAve, Average, Sum, Difference, RecursiveAveDiff, CopyToFilter."""


class ProcessPlugin(Plugin):
    """Offset, scale, clipping and the recursive filter of NDPluginProcess.

    Background and flat field are not simulated: their records are served and do nothing.
    """

    def __init__(self, records: Records, prefix: str, wiring: Wiring) -> None:
        super().__init__(records, prefix, wiring)
        self._filter: NDArray[Any] | None = None
        self._filtered = 0
        self.writers["ResetFilter"] = self._write_reset
        self.writers["FilterType"] = self._write_filter_type

    def _write_reset(self) -> None:
        if self.parameters.integer("ResetFilter"):
            self._filter = None

    def _write_filter_type(self) -> None:
        """Choosing a type fills in the twelve coefficients, as the record sequences of the IOC do."""
        p = self.parameters
        chosen = _FILTER_TYPES[p.integer("FilterType")]
        for letter, values in (("O", chosen.output), ("F", chosen.filter), ("R", chosen.reset)):
            for index, value in enumerate(values, start=1):
                p.set(f"{letter}C{index}", float(value))
                self.records.post(f"{self.prefix}{letter}C{index}", float(value))

    def work(self, frame: Frame) -> Frame | None:
        """The frame after processing; None while frames are gathered and only the N-th is wanted."""
        p = self.parameters
        data = frame.array.astype(np.float64)
        if p.integer("EnableOffsetScale"):
            data = (data + p.number("Offset")) * p.number("Scale")
        if p.integer("EnableLowClip"):
            data = np.where(data < p.number("LowClipThresh"), p.number("LowClipValue"), data)
        if p.integer("EnableHighClip"):
            data = np.where(data > p.number("HighClipThresh"), p.number("HighClipValue"), data)
        if p.integer("EnableFilter"):
            data = self._run_filter(data)
            if p.integer("FilterCallbacks") and self._filtered != p.integer("NumFilter"):
                return None
        return frame.with_array(_cast(data, p.integer("DataTypeOut"), frame.array.dtype))

    def _run_filter(self, data: NDArray[Any]) -> NDArray[Any]:
        p = self.parameters
        content = self._filter
        full = self._filtered >= p.integer("NumFilter")
        if content is None or content.shape != data.shape:
            content = self._reset(np.zeros_like(data), data)
        elif full and p.integer("AutoResetFilter"):
            content = self._reset(content, data)
        self._filtered = min(self._filtered + 1, p.integer("NumFilter"))
        result = p.number("OOffset") + p.number("OScale") * self._mix("O", content, data)
        self._filter = p.number("FOffset") + p.number("FScale") * self._mix("F", content, data)
        p.set("NumFiltered", self._filtered)
        return result

    def _reset(self, content: NDArray[Any], data: NDArray[Any]) -> NDArray[Any]:
        """Begin anew; returns the filter's content."""
        p = self.parameters
        start = p.number("ROffset") + p.number("RC1") * content + p.number("RC2") * data
        self._filtered = 0
        p.set("ResetFilter", 0)
        return np.asarray(start)

    def _mix(self, letter: str, content: NDArray[Any], data: NDArray[Any]) -> NDArray[Any]:
        """(C1 + C2/n) * filter + (C3 + C4/n) * input."""
        c1, c2, c3, c4 = (self.parameters.number(f"{letter}C{index}") for index in range(1, 5))
        n = max(self._filtered, 1)
        return (c1 + c2 / n) * content + (c3 + c4 / n) * data
