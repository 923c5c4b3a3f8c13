"""Frames of HDF5 datasets: by their place in the file where that is enough, else through a pool of open files."""

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.errors import FileStoreError, UnreadableFileError

from .hdf5_apart import Apart, apart
from .hdf5_filters import filters_of, missing_filter_error, missing_filters
from .hdf5_frames import PackedChunks, frames_at_places, frames_through_hdf5
from .hdf5_layout import Elsewhere, Layout, clear, layout_of, linked_dataset
from .hdf5_parts import PartSources, Way, read_virtual
from .hdf5_pieces import Pieces, joined_pieces
from .hdf5_pool import HDF5Pool, OpenFile
from .hdf5_written import LostFramesError, lost_frames
from .readable import ANYWHERE, Roots, Signature, parser_error, signature_of
from .rows import AxisKey, Frames

if TYPE_CHECKING:
    import h5py

__all__ = ["HDF5Files", "shared_files"]

_MOST_FILES = 32
_MOST_LAYOUT_BYTES = 32 * 2**20
_LAYOUT_BYTES = 1024
# A file that is being written changes between two reads; finding where all its frames lie is not worth it.
_SETTLED_AFTER = 2.0


class HDF5Files:
    """Datasets of any number of HDF5 files, of which few are kept open; for any number of threads.

    Parameters
    ----------
    most_files : int
        How many files may be open when nobody is reading.
    locking : bool or str, optional
        As h5py's: False for disks that have no locks.
    """

    def __init__(self, most_files: int = _MOST_FILES, locking: bool | str | None = None) -> None:
        self._pool = HDF5Pool(most_files, locking)
        self._lock = threading.Lock()
        self._layouts: OrderedDict[tuple[str, str], tuple[Signature, Layout]] = OrderedDict()
        self._layout_bytes = 0

    def file_of(self, path: str, dataset: str, *, swmr: bool = False, roots: Roots = ANYWHERE) -> str:
        """The file that a dataset is in, where external links lead; raises as `layout` does."""
        return self._followed(roots.admit(path), dataset, swmr, roots)[0]

    def place_of(self, path: str, dataset: str, *, swmr: bool = False) -> tuple[str, str]:
        """The file that a dataset is in, where external links lead, and its path there; raises as `layout` does."""
        return self._followed(ANYWHERE.admit(path), dataset, swmr, ANYWHERE)

    def is_in_pieces(self, path: str, dataset: str, *, swmr: bool = False) -> bool:
        """Whether a dataset is there in numbered pieces only; at its place, as `place_of` tells it."""
        with self._opened(path, dataset, swmr, ANYWHERE) as entry:
            return isinstance(entry.dataset(path, dataset), Pieces)

    def filters(self, path: str, dataset: str, *, swmr: bool = False) -> list[int]:
        """The filters that the frames of a dataset are packed with, by their registered numbers; raises as `layout`."""
        with self._dataset(*self.place_of(path, dataset, swmr=swmr), swmr, ANYWHERE) as (found, layout, _):
            return [] if layout.virtual is not None else [number for number, _ in filters_of(found)]

    def layout(self, path: str, dataset: str, *, swmr: bool = False, roots: Roots = ANYWHERE) -> Layout:
        """How a dataset is laid out now.

        Raises
        ------
        UnreadableFileError
            If file or dataset cannot be read, in the form that says why.
        """
        return self.layout_on(path, dataset, Way(swmr, roots))

    def layout_on(self, path: str, dataset: str, way: Way) -> Layout:
        """As `layout`, on the way from a virtual dataset."""
        try:
            return self._layout_on(path, dataset, way)
        except (FileStoreError, OSError):
            raise
        except Exception as error:
            raise parser_error(path, error) from error

    def _layout_on(self, path: str, dataset: str, way: Way) -> Layout:
        path, dataset = self._followed(way.roots.admit(path), dataset, way.swmr, way.roots)
        layout = self._known_layout(path, dataset, signature_of(path))
        if layout is None:
            with self._dataset(path, dataset, way.swmr, way.roots) as (_, layout, _):
                pass
        return self._grown(layout, path, dataset, way)

    def _grown(self, layout: Layout, path: str, dataset: str, way: Way) -> Layout:
        """The same, with as many frames as there are where other files tell how many that are."""
        if layout.virtual is None:
            return layout
        # Others may have looked at it under other limits.
        way.roots.limits.check(
            "virtual_sources", len(layout.virtual.parts), f"virtual dataset {dataset} of file {path} has", "parts"
        )
        if not layout.virtual.is_endless:
            return layout
        sources = PartSources(self, path, way.deeper(path, dataset))
        with clear(path, dataset):
            if layout.virtual.in_pieces:
                shape, dtype, virtual = joined_pieces(layout.virtual, sources.layout_of)
                return replace(layout, shape=shape, dtype=dtype, virtual=virtual, written=virtual.written(shape))
            frames, virtual = layout.virtual.grown(sources.shape_of, way.roots.limits)
            shape = (frames, *layout.frame_shape)
            return replace(layout, shape=shape, virtual=virtual, written=virtual.written(shape))

    def read(
        self,
        path: str,
        dataset: str,
        frames: Frames,
        part: tuple[AxisKey, ...] = (),
        *,
        swmr: bool = False,
        roots: Roots = ANYWHERE,
    ) -> NDArray[np.generic]:
        """Frames of a dataset, one after the other along the first axis.

        Parameters
        ----------
        path : str
            The file.
        dataset : str
            The path of the dataset in it; frames lie along its first axis.
        frames : sequence of int
            Which, from 0 on.
        part : tuple of int and slice
            What is taken of each; empty for all of it.
        swmr : bool
            Whether the file may be being written in HDF5's SWMR mode.
        roots : Roots
            Where the file, and the files it leads to, may lie.

        Raises
        ------
        UnreadableFileError
            If file, dataset or frame cannot be read, in the form that says why.
        """
        return self.read_on(path, dataset, frames, part, Way(swmr, roots))

    def read_on(
        self, path: str, dataset: str, frames: Frames, part: tuple[AxisKey, ...], way: Way
    ) -> NDArray[np.generic]:
        """As `read`, on the way from a virtual dataset."""
        try:
            return self._read_on(path, dataset, frames, part, way)
        except (FileStoreError, OSError):
            raise
        except Exception as error:
            # With what a damaged file says numpy cannot reckon, either.
            raise parser_error(path, error) from error

    def _read_on(
        self, path: str, dataset: str, frames: Frames, part: tuple[AxisKey, ...], way: Way
    ) -> NDArray[np.generic]:
        real, name = self._followed(way.roots.admit(path), dataset, way.swmr, way.roots)
        values = self._by_place(real, name, frames, part, way.roots)
        if values is not None:
            return values
        layout = self._known_layout(real, name, signature_of(real))
        other, unknown = apart(), None
        if layout is None or layout.virtual is None:
            with self._dataset(real, name, way.swmr, way.roots) as (found, layout, entry):
                # Of a file that grows meanwhile the places would be out of date before they are used.
                if layout.virtual is None and (layout.offsets is None or entry.grows):
                    layout.check(frames, real, name)
                    chunks = entry.packed.get(name)
                    if chunks is None or chunks.dataset is not found:
                        chunks = entry.packed[name] = PackedChunks(found, path)
                    way.roots.limits.check("unpacked_bytes", chunks.size, f"a chunk of {name} in {path} has", "bytes")
                    if other is None or not (chunks.is_foreign and other.can_read and chunks.unknown(frames)):
                        return _through_hdf5(chunks, path, name, frames, part)
                    unknown = chunks
        if other is not None and unknown is not None:
            return _through_another(other, unknown, layout, real, name, frames, part)
        if layout.virtual is not None:
            # Nothing is held open meanwhile: the files that it leads to may lead back to this one.
            return self._put_together(self._grown(layout, real, name, way), real, name, frames, part, way)
        values = self._by_place(real, name, frames, part, way.roots)
        if values is None:
            raise UnreadableFileError(f"file {path} is being rewritten while it is read; try again later.")
        return values

    def _put_together(
        self, layout: Layout, path: str, dataset: str, frames: Frames, part: tuple[AxisKey, ...], way: Way
    ) -> NDArray[np.generic]:
        """Frames of a virtual dataset."""
        if layout.virtual is None:
            raise ValueError("there is nothing to put together; expected the layout of a virtual dataset.")
        layout.check(frames, path, dataset)
        sources = PartSources(self, path, way.deeper(path, dataset))
        try:
            with clear(path, dataset):
                return read_virtual(layout.virtual, layout.frame_shape, layout.dtype, frames, part, sources)
        except LostFramesError as error:
            raise lost_frames(error.frames, path, dataset, str(error)) from error

    def __len__(self) -> int:
        """How many files are open."""
        return len(self._pool)

    def __enter__(self) -> "HDF5Files":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all files that nobody is reading."""
        self._pool.close()

    def close_file(self, path: str) -> None:
        """Close a file, when nobody is reading it."""
        self._pool.close_file(path)

    def _by_place(
        self, path: str, dataset: str, frames: Frames, part: tuple[AxisKey, ...], roots: Roots
    ) -> NDArray[np.generic] | None:
        """Frames by their place in the file; None if that is not known, or not any more."""
        known = self._layouts.get((path, dataset))
        if known is None or known[1].offsets is None:
            return None
        directory = path.rpartition("/")[0]
        with roots.opened(path, {directory: directory}) as descriptor:
            found = os.fstat(descriptor)
            layout = self._known_layout(
                path, dataset, Signature(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
            )
            if layout is None or layout.offsets is None:
                return None
            layout.check(frames, path, dataset)
            return frames_at_places(descriptor, layout, path, frames, part)

    def _known_layout(self, path: str, dataset: str, signature: Signature) -> Layout | None:
        with self._lock:
            known = self._layouts.get((path, dataset))
            if known is None:
                return None
            if known[0] != signature:
                self._forget_layout((path, dataset))
                return None
            self._layouts.move_to_end((path, dataset))
            return known[1]

    def _remember_layout(self, key: tuple[str, str], signature: Signature, layout: Layout) -> None:
        with self._lock:
            if key in self._layouts:
                self._forget_layout(key)
            self._layouts[key] = (signature, layout)
            self._layout_bytes += _bytes_of(layout)
            while self._layout_bytes > _MOST_LAYOUT_BYTES and len(self._layouts) > 1:
                self._forget_layout(next(iter(self._layouts)))

    def _forget_layout(self, key: tuple[str, str]) -> None:
        self._layout_bytes -= _bytes_of(self._layouts.pop(key)[1])

    def _followed(self, path: str, dataset: str, swmr: bool, roots: Roots) -> tuple[str, str]:
        """The file that a dataset is in, where external links lead, and its path there."""

        def look(path: str, dataset: str) -> "h5py.Dataset | Elsewhere | Pieces | None":
            if (path, dataset) in self._layouts:
                return None
            with self._opened(path, dataset, swmr, roots) as entry:
                return entry.dataset(path, dataset)

        return linked_dataset(path, dataset, look, roots)

    def _opened(self, path: str, dataset: str, swmr: bool, roots: Roots) -> AbstractContextManager[OpenFile]:
        """A file of the pool, after another process has looked at the dataset, if this thread has one for that."""
        first = apart()
        if first is not None:
            first.check(path, dataset)
        return self._pool.open(path, swmr, roots)

    @contextmanager
    def _dataset(
        self, path: str, dataset: str, swmr: bool, roots: Roots
    ) -> "Iterator[tuple[h5py.Dataset, Layout, OpenFile]]":
        with self._opened(path, dataset, swmr, roots) as entry:
            found: Any = entry.dataset(path, dataset)
            if isinstance(found, Elsewhere) or entry.signature is None:
                raise UnreadableFileError(f"file {path} is being rewritten while it is read; try again later.")
            signature = entry.signature
            changing = entry.grows and time.time() - signature.modified / 1e9 < _SETTLED_AFTER
            if entry.grows and not found.is_virtual:
                found.refresh()
            layout = self._known_layout(path, dataset, signature)
            if layout is None:
                layout = layout_of(found, path, roots, with_offsets=not changing)
                if layout.keeps and not changing:
                    self._remember_layout((path, dataset), signature, layout)
            yield found, layout, entry
            keep = layout.offsets is None and layout.keeps
        if not keep:
            self._pool.close_file(path)


_shared: dict[bool | str | None, HDF5Files] = {None: HDF5Files()}


def shared_files(locking: bool | str | None = None) -> HDF5Files:
    """The one pool of this process for files that are opened with this locking."""
    return _shared[locking] if locking in _shared else _shared.setdefault(locking, HDF5Files(locking=locking))


def _through_hdf5(
    chunks: PackedChunks, path: str, name: str, frames: Frames, part: tuple[AxisKey, ...]
) -> NDArray[np.generic]:
    dataset = chunks.dataset
    try:
        values = chunks.read(frames, part)
        return frames_through_hdf5(dataset, frames, part) if values is None else values
    except OSError as error:
        missing = missing_filters(dataset)
        if missing:
            raise missing_filter_error(missing, path, name) from error
        raise


def _through_another(
    other: Apart, chunks: PackedChunks, layout: Layout, path: str, name: str, frames: Frames, part: tuple[AxisKey, ...]
) -> NDArray[np.generic]:
    """Frames that another process has unpacked; their chunks can be unpacked here the next time."""
    new = chunks.unknown(frames)
    values = np.empty((len(frames), *np.broadcast_to(np.zeros(()), layout.frame_shape)[part].shape), layout.dtype)
    other.read(path, name, frames, part, into=values, per_chunk=chunks.per_chunk)
    if values.size and (chunks.has_whole_frames or not part):
        # Whoever has changed the file since has had it closed, and nobody knows these chunks any more.
        chunks.known.update(new)
    return values


def _bytes_of(layout: Layout) -> int:
    kept = layout.chunks.nbytes + (0 if layout.offsets is None else layout.offsets.nbytes)
    return _LAYOUT_BYTES + kept + (0 if layout.virtual is None else _LAYOUT_BYTES * len(layout.virtual.parts))
