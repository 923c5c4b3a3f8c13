"""Frames of one open HDF5 dataset, or of the file it lies in."""

import itertools
import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.errors import UnreadableFileError

from .hdf5_filters import DEFLATE, FLETCHER, SHUFFLE, Filter, filters_of, unpacked_size
from .hdf5_layout import Layout, has_plain_elements
from .hdf5_written import LostFramesError, lost_frames
from .readable import bytes_of, read_at
from .rows import AxisKey, Frames, runs_of

if TYPE_CHECKING:
    import h5py

__all__ = ["PackedChunks", "frames_at_places", "frames_through_hdf5", "stored_chunk"]

_BATCH_BYTES = 16 * 2**20


def frames_at_places(
    descriptor: int, layout: Layout, path: str, frames: Frames, part: tuple[AxisKey, ...]
) -> NDArray[np.generic]:
    """Frames read by their place in the file, which `layout` has to know."""
    places = _places(layout, frames, path)
    if not part:
        values = np.empty((len(frames), *layout.frame_shape), layout.dtype)
        _fill(values, places, descriptor, layout.frame_bytes, path)
        return values
    batch = max(1, min(len(frames), _BATCH_BYTES // max(1, layout.frame_bytes)))
    whole = np.empty((batch, *layout.frame_shape), layout.dtype)
    values = np.empty((len(frames), *whole[0][part].shape), layout.dtype)
    for first in range(0, len(frames), batch):
        some = places[first : first + batch]
        _fill(whole[: len(some)], some, descriptor, layout.frame_bytes, path)
        values[first : first + batch] = whole[(slice(len(some)), *part)]
    return values


def frames_through_hdf5(dataset: "h5py.Dataset", frames: Frames, part: tuple[AxisKey, ...]) -> NDArray[np.generic]:
    """Frames read by HDF5, with whatever filters or files it needs."""
    if not part and isinstance(frames, range) and frames.step > 0:
        # The way of h5py that is quick, for small frames several times.
        whole: NDArray[np.generic] = dataset[frames.start : frames.stop : frames.step]
        return whole
    part = (*part, *(slice(None),) * (dataset.ndim - 1 - len(part)))
    # HDF5 counts upwards only.
    upwards, order = _upwards(part, dataset.shape[1:])
    sizes = zip(upwards, dataset.shape[1:], strict=True)
    shape = tuple(len(range(size)[key]) for key, size in sizes if isinstance(key, slice))
    values = np.empty((len(frames), *shape), dataset.dtype)
    for place, run in runs_of(frames):
        taken = (slice(run.start, run.stop, run.step), *upwards)
        into = values[place : place + len(run)]
        if into.size:
            dataset.read_direct(into, taken)
    return values[(slice(None), *order)]


def stored_chunk(dataset: "h5py.Dataset", corner: tuple[int, ...]) -> tuple[int, bytes]:
    """Which filters were left out of a chunk, and its bytes as they are in the file.

    Before 3.16 h5py has HDF5 read them without the lock that it takes for all else (its pull request 2764), and HDF5,
    which knows no threads, ends the process if another one reads.
    """
    from h5py._objects import phil

    with phil:
        mask, payload = dataset.id.read_direct_chunk(corner)
    return mask, payload


@dataclass(slots=True)
class PackedChunks:
    """The chunks of an open dataset, of which HDF5 does not see whether they unpack to as many bytes as they should."""

    dataset: "h5py.Dataset"
    """With frames along its first axis."""
    path: str
    """Its file."""
    filters: list[Filter] = field(init=False)
    """How they are packed; empty if they are not."""
    size: int = 0
    """The bytes that one unpacks to."""
    is_foreign: bool = False
    """Whether they are packed by a filter that is not of HDF5's own three, which have seen what damage there is."""
    is_gzip: bool = False
    """Whether each is of whole frames, and packed as `_unpacked` can unpack it."""
    has_whole_frames: bool = False
    """Whether none is of parts of frames."""
    per_chunk: int = 1
    """How many frames are in one."""
    known: set[int] = field(default_factory=set)
    """The numbers, along the first axis, of those that were found right."""

    def __post_init__(self) -> None:
        self.filters = [] if self.dataset.chunks is None else filters_of(self.dataset)
        if self.filters:
            self.size = _chunk_bytes(self.dataset)
            self.per_chunk = self.dataset.chunks[0]
            self.is_foreign = any(code not in (DEFLATE, SHUFFLE, FLETCHER) for code, _ in self.filters)
            codes = [code for code, _ in self.filters]
            # How wide elements are says the filter, of which a damaged file may say anything: HDF5 knows what to do.
            is_shuffled = codes == [SHUFFLE, DEFLATE] and self.filters[0][1][:1] == (self.dataset.dtype.itemsize,)
            is_known = codes == [DEFLATE] or is_shuffled
            self.has_whole_frames = self.dataset.chunks[1:] == self.dataset.shape[1:]
            self.is_gzip = is_known and self.has_whole_frames and has_plain_elements(self.dataset)

    def read(self, frames: Frames, part: tuple[AxisKey, ...]) -> NDArray[np.generic] | None:
        """See that the chunks of frames are right; the frames, where they had to be unpacked for that.

        Raises
        ------
        UnreadableFileError
            If a chunk is damaged.
        LostFramesError
            If it unpacks to more or fewer bytes than it should.
        """
        if not self.filters or not len(frames):
            return None
        new = self.unknown(frames)
        if not new:
            return None
        values = self._unpacked_frames(np.asarray(frames, np.int64), part) if self.is_gzip else None
        if values is None:
            self._check(new)
        self.known.update(new)
        return values

    def unknown(self, frames: Frames) -> list[int]:
        """The numbers of the chunks of frames that were not found right yet."""
        rows = np.unique(np.asarray(frames, np.int64) // self.per_chunk).tolist()
        return [row for row in rows if row not in self.known]

    def _check(self, rows: Iterable[int]) -> None:
        steps = zip(self.dataset.shape[1:], self.dataset.chunks[1:], strict=True)
        others = [range(0, length, step) for length, step in steps]
        for row in rows:
            for other in itertools.product(*others):
                corner = (row * self.dataset.chunks[0], *other)
                mask, payload = stored_chunk(self.dataset, corner)
                unpacked = unpacked_size(self.filters, mask, payload)
                if unpacked not in (None, self.size) and not _may_be_as_it_is(self.dataset, len(payload), corner):
                    raise self._of_another_size(row, str(unpacked))

    def _unpacked_frames(self, numbers: NDArray[np.int64], part: tuple[AxisKey, ...]) -> NDArray[np.generic] | None:
        per_chunk = self.per_chunk
        rows = numbers // per_chunk
        values: NDArray[np.generic] | None = None
        for row in np.unique(rows).tolist():
            corner = (row * per_chunk, *(0,) * (self.dataset.ndim - 1))
            mask, payload = stored_chunk(self.dataset, corner)
            if _may_be_as_it_is(self.dataset, len(payload), corner[:1]):
                return None
            at = np.flatnonzero(rows == row)
            block = self._unpacked(payload, mask, row)
            taken: NDArray[np.generic] = block[numbers[at] - row * per_chunk][(slice(None), *part)]
            if len(at) == len(numbers):
                return taken
            if values is None:
                values = np.empty((len(numbers), *taken.shape[1:]), taken.dtype)
            values[at] = taken
        return values

    def _unpacked(self, payload: bytes, mask: int, row: int) -> NDArray[np.generic]:
        """The frames of a chunk."""
        if not mask >> len(self.filters) - 1 & 1:
            try:
                unpacking = zlib.decompressobj()
                payload = unpacking.decompress(payload, self.size)
                # The checksum comes last, and something more if the chunk is another's.
                payload += unpacking.decompress(unpacking.unconsumed_tail, 1)
                if len(payload) == self.size and not unpacking.eof:
                    raise zlib.error("its checksum is missing")
            except zlib.error as error:
                raise UnreadableFileError(
                    f"file {self.path} cannot be read: chunk {row} of dataset {self.dataset.name} is damaged ({error})."
                ) from error
        if len(payload) != self.size:
            raise self._of_another_size(row, f"{len(payload)}{' or more' if len(payload) > self.size else ''}")
        elements: NDArray[np.generic] = np.frombuffer(payload, np.uint8, self.size)
        if len(self.filters) == 2 and not mask & 1:
            elements = _unshuffled(elements, self.filters[0][1][0])
        block: NDArray[np.generic] = elements.view(self.dataset.dtype).reshape(self.dataset.chunks)
        return block

    def _of_another_size(self, row: int, found: str) -> LostFramesError:
        per_chunk = self.dataset.chunks[0]
        frames = range(row * per_chunk, min((row + 1) * per_chunk, self.dataset.shape[0]))
        words = f"their chunk unpacks to {found} bytes; expected {self.size}, those of its shape."
        return lost_frames(frames, self.path, self.dataset.name, words)


def _unshuffled(elements: NDArray[np.generic], width: int) -> NDArray[np.generic]:
    count = len(elements) // width
    together = np.empty(len(elements), np.uint8)
    together[count * width :] = elements[count * width :]
    for place in range(width):
        together[place : count * width : width] = elements[place * count : (place + 1) * count]
    return together


def _may_be_as_it_is(dataset: "h5py.Dataset", size: int, corner: tuple[int, ...]) -> bool:
    """Whether a chunk may be one that was not packed, although it does not say so: at the edge a writer may choose."""
    is_at_edge = any(at + step > end for at, step, end in zip(corner, dataset.chunks, dataset.shape, strict=False))
    return is_at_edge and size == _chunk_bytes(dataset)


def _chunk_bytes(dataset: "h5py.Dataset") -> int:
    return int(math.prod(dataset.chunks) * dataset.id.get_type().get_size())


def _places(layout: Layout, frames: Frames, path: str) -> NDArray[np.int64]:
    """Where each frame begins in the file."""
    if layout.offsets is None:
        raise ValueError("the places of the frames are not known; expected a layout with offsets.")
    numbers = np.asarray(frames, dtype=np.int64)
    chunks, inside = np.divmod(numbers, layout.frames_per_chunk)
    at = np.minimum(np.searchsorted(layout.chunks, chunks), len(layout.chunks) - 1)
    if (layout.chunks[at] != chunks).any():
        raise lost_frames(numbers[layout.chunks[at] != chunks].tolist(), path, "of frames")
    places: NDArray[np.int64] = layout.offsets[at] + inside * layout.frame_bytes
    return places


def _fill(values: NDArray[np.generic], places: NDArray[np.int64], descriptor: int, size: int, path: str) -> None:
    if not values.size:
        return
    buffer = bytes_of(values)
    # Frames that lie one behind the other in the file are read at once.
    breaks = np.flatnonzero(np.diff(places) != size) + 1
    for first, last in zip([0, *breaks.tolist()], [*breaks.tolist(), len(places)], strict=True):
        read_at(descriptor, buffer[first * size : last * size], int(places[first]), path)


def _upwards(part: tuple[AxisKey, ...], shape: tuple[int, ...]) -> tuple[tuple[AxisKey, ...], tuple[slice, ...]]:
    """The same elements in upward order, and what puts them into the order that was asked for."""
    keys: list[AxisKey] = []
    order: list[slice] = []
    for key, size in zip(part, shape, strict=True):
        if isinstance(key, int):
            keys.append(key)
            continue
        taken = range(size)[key]
        downwards = taken.step < 0
        upwards = taken[::-1] if downwards else taken
        keys.append(slice(upwards.start, max(upwards.stop, upwards.start), upwards.step))
        order.append(slice(None, None, -1 if downwards else 1))
    return tuple(keys), tuple(order)
