"""HDF5 files as NDFileHDF5 makes them, on a disk that may become full."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np

from .disk import Disk
from .frame import Frame, FrameMismatchError
from .hdf5_layout import Layout

__all__ = ["Hdf5File", "Hdf5Options"]

_TIME_ATTRIBUTES = {
    "NDArrayEpicsTSSec": ("uint32", "epics_seconds"),
    "NDArrayEpicsTSnSec": ("uint32", "epics_nanoseconds"),
    "NDArrayTimeStamp": ("float64", "epics_time"),
    "NDArrayUniqueId": ("int32", "number"),
}
"""What is stored of every frame, its type, and which attribute of `Frame` holds it."""

_CLASSES = {
    "entry": "NXentry",
    "entry/data": "NXdata",
    "entry/instrument": "NXinstrument",
    "entry/instrument/detector": "NXdetector",
}
"""The groups of the default layout, and their ``NX_class``."""

_COLORS = "entry/instrument/detector/NDAttributes"
"""Where the default layout keeps the colour mode."""

_ATTRIBUTE_CHUNK = 16
"""Frames in a chunk of the small data sets."""

_PERFORMANCE_COLUMNS = 5
"""Seconds to write, since the start, since the frame before, and the speed of this and of all frames."""


@dataclass(frozen=True, slots=True)
class Hdf5Options:
    """How a file is written, from the plugin's records."""

    frames_per_chunk: int = 1
    """Frames in a chunk; a chunk always holds whole frames."""

    swmr: bool = False
    """Whether readers may read while the file is written."""

    compression: str = "None"
    """The plugin's ``Compression``."""

    zlevel: int = 6
    """The level of zlib."""

    flush_every: int = 0
    """Flush after so many frames; 0 leaves it to HDF5."""

    layout: Layout = field(default_factory=Layout)
    """Where the frames go."""

    def filters(self) -> dict[str, Any]:
        """The keywords for h5py that compress.

        Raises
        ------
        ValueError
            For a compression that the simulation does not have.
        """
        if self.compression == "None":
            return {}
        if self.compression == "zlib":
            return {"compression": "gzip", "compression_opts": self.zlevel}
        classes = {"Blosc": hdf5plugin.Blosc, "BSLZ4": hdf5plugin.Bitshuffle, "LZ4": hdf5plugin.LZ4}
        if self.compression not in classes:
            known = ", ".join(["None", "zlib", *classes])
            raise ValueError(f"Compression {self.compression!r} is not simulated; choose one of {known}")
        return {"compression": classes[self.compression]()}


class Hdf5File:
    """One HDF5 file, open for writing.

    The first frame's place is there from the beginning, filled with zeros: a file that no frame reached
    holds one frame of zeros, which is what a real IOC leaves behind after a stale priming.

    When the disk is full, a file of Single mode is cut off with an error; one of Stream mode goes on as if nothing
    were. What of its chunks had no room is never allocated, and reads as zeros; without SWMR the whole file is cut
    off when it is closed, so that nobody can open it.

    Parameters
    ----------
    path : Path
        The file; an existing one is overwritten.
    like : Frame
        A frame of the shape and type that will be written.
    options : Hdf5Options
        Chunks, compression, SWMR.
    stream : bool
        True for (frames, y, x) with a growing first axis, False for the one frame of Single mode.
    disk : Disk, optional
        Where it lies.

    Raises
    ------
    OSError
        If the file can't be made.
    """

    def __init__(
        self, path: Path, like: Frame, options: Hdf5Options, *, stream: bool, disk: Disk | None = None
    ) -> None:
        self._path = path
        self._disk = disk or Disk()
        self._is_full = False
        self._allocated: set[int] = set()
        self._options = options
        self._stream = stream
        self._count = 0
        self._bytes = 0
        self._opened = self._previous = time.monotonic()
        filters = options.filters()
        self._file = h5py.File(path, "w", libver="latest" if options.swmr else "earliest")
        self._data = self._make_data(like, filters)
        self._attributes = self._make_attributes()
        self._own_attributes = self._make_own_attributes(like)
        self._performance = self._make_performance()
        if options.swmr:
            self._file.swmr_mode = True

    def _make_data(self, like: Frame, filters: dict[str, Any]) -> h5py.Dataset:
        shape, dtype = like.array.shape, like.array.dtype
        layout = self._options.layout
        if self._stream:
            data = self._file.create_dataset(
                layout.data, (1, *shape), dtype, chunks=(self._options.frames_per_chunk, *shape),
                maxshape=(None, *shape), fillvalue=0, **filters,
            )  # fmt: skip
        else:
            data = self._file.create_dataset(layout.data, shape, dtype, chunks=shape, fillvalue=0, **filters)
        zeros = np.zeros(len(shape), np.int32)
        data.attrs["signal"] = np.int32(1)
        data.attrs["NDArrayNumDims"] = np.int32(len(shape))
        data.attrs["NDArrayDimOffset"] = zeros
        data.attrs["NDArrayDimBinning"] = zeros + np.int32(1)
        data.attrs["NDArrayDimReverse"] = zeros
        for link, target in layout.links:
            if target in self._file:
                self._file[link] = self._file[target]
        if layout.is_default:
            for name, kind in _CLASSES.items():
                self._file[name].attrs["NX_class"] = kind
        return data

    def _make_attributes(self) -> dict[str, h5py.Dataset]:
        """The data sets of what is stored of each frame, by the attribute of `Frame` that goes in."""
        layout = self._options.layout
        if layout.attributes is None:
            return {}
        times = self._file.require_group(layout.attributes)
        colors = self._file.require_group(_COLORS) if layout.is_default else times
        made = {}
        for group in (times, colors):
            group.attrs["NX_class"] = "NXcollection"
        for name, (dtype, attribute) in _TIME_ATTRIBUTES.items():
            made[attribute] = self._make_growing(times, name, (), dtype)
            made[attribute].attrs["NDAttrName"] = name
            made[attribute].attrs["NDAttrSourceType"] = "NDAttrSourceDriver"
        made["color_mode"] = self._make_growing(colors, "ColorMode", (), "int32")
        made["color_mode"].attrs["NDAttrName"] = "ColorMode"
        made["color_mode"].attrs["NDAttrDescription"] = "Color mode"
        return made

    def _make_own_attributes(self, like: Frame) -> dict[str, h5py.Dataset]:
        """The data sets of the attributes that a frame brings along: those of the first frame are all there will be."""
        if self._options.layout.attributes is None:
            return {}
        group = self._file[self._options.layout.attributes]
        made = {}
        for name, (value, notes) in like.attributes.items():
            if name in group:
                continue
            dtype = "S256" if value.dtype.kind == "S" else value.dtype.str
            made[name] = self._make_growing(group, name, (), dtype)
            made[name].attrs.update({note: text for note, text in notes.items() if text})
        return made

    def _make_performance(self) -> h5py.Dataset | None:
        if not self._options.layout.is_default:
            return None
        group = self._file["entry/instrument"].create_group("performance")
        return self._make_growing(group, "timestamp", (_PERFORMANCE_COLUMNS,), "float64")

    @staticmethod
    def _make_growing(group: h5py.Group, name: str, shape: tuple[int, ...], dtype: str) -> h5py.Dataset:
        chunks, limit = (_ATTRIBUTE_CHUNK, *shape), (None, *shape)
        return group.create_dataset(name, (0, *shape), dtype, chunks=chunks, maxshape=limit)

    def write(self, frame: Frame) -> None:
        """Add a frame.

        Raises
        ------
        FrameMismatchError
            If the frame has another shape or type than the file was made for; the file stays as it is.
        OSError
            If it can't be written, in Single mode.
        """
        shape = self._data.shape[1:] if self._stream else self._data.shape
        if (frame.array.shape, frame.array.dtype) != (shape, self._data.dtype):
            raise FrameMismatchError(
                f"the frame is {frame.array.shape} {frame.array.dtype}, the file was made for"
                f" {shape} {self._data.dtype}"
            )
        index, self._count = self._count, self._count + 1
        if not self._stream:
            self._write_rows(frame, index)
            return
        try:
            self._write_rows(frame, index)
        except OSError:
            # A full disk: the real plugin goes on and tells nobody.
            self._is_full = True

    def _write_rows(self, frame: Frame, index: int) -> None:
        began = time.monotonic()
        if not self._stream:
            self._data[...] = frame.array
        else:
            if self._count > self._data.shape[0]:
                self._data.resize(self._count, axis=0)
            if self._has_room(index, frame.array.nbytes):
                self._data[index] = frame.array
        for attribute, dataset in self._attributes.items():
            dataset.resize(self._count, axis=0)
            dataset[index] = getattr(frame, attribute)
        for name, dataset in self._own_attributes.items():
            dataset.resize(self._count, axis=0)
            if name in frame.attributes:
                dataset[index] = frame.attributes[name][0]
        self._note_performance(index, began, frame.array.nbytes)
        every = 1 if self._options.swmr else self._options.flush_every
        # HDF5 would try again, and fail, what it could not write the last time.
        if self._is_full and self._disk.size is None:
            return
        if every and self._count % every == 0:
            self._file.flush()

    def _has_room(self, index: int, size: int) -> bool:
        """Whether the chunk of a frame is allocated, or there is room for it."""
        chunk = index // self._options.frames_per_chunk
        if chunk in self._allocated:
            return True
        wanted = (len(self._allocated) + 1) * self._options.frames_per_chunk * size
        if self._is_full or self._disk.grant(self._path, wanted) < wanted:
            self._is_full = True
            return False
        self._allocated.add(chunk)
        return True

    def _note_performance(self, index: int, began: float, size: int) -> None:
        if self._performance is None:
            return
        now = time.monotonic()
        self._bytes += size
        period, total = max(now - self._previous, 1e-9), max(now - self._opened, 1e-9)
        self._previous = now
        self._performance.resize(self._count, axis=0)
        row = (now - began, total, period, size / period / 2**20, self._bytes / total / 2**20)
        self._performance[index] = row

    def close(self) -> None:
        """Finish the file.

        Raises
        ------
        OSError
            If a file of Single mode can't be finished: a cut-off one is left.
        """
        try:
            self._file.close()
        except (OSError, RuntimeError) as error:
            if not self._stream:
                raise OSError(f"the file could not be finished: {error}") from error
            self._is_full = True
        if not self._stream:
            self._disk.cut(self._path)
        elif self._is_full and self._disk.size is not None and not self._options.swmr:
            # Without SWMR the index is written last, when there is no room any more.
            os.truncate(self._path, self._path.stat().st_size // 2)
