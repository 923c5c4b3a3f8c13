"""An array read straight from its files, as a catalog or the documents of a run say where its frames are."""

import math
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from bluesky_filestore.errors import UnreadableFileError
from bluesky_filestore.model.specs import HDF5

from .hdf5 import shared_files
from .readable import signature_of
from .registered import OpenFrames, Registered, checked_dtype, frames_of, joined_datasets
from .rows import ArrayIndex, ComparesItsFiles, NamesItsFiles, ReadableFrames, array_of

__all__ = ["ArrayInFiles"]


class ArrayInFiles:
    """An array that reads the frames that are asked for; for any number of threads, and for other processes.

    Parameters
    ----------
    registered : Registered
        The array.
    find : callable
        Tells of an array where its frames are; a function of a module, which other processes find.

    Raises
    ------
    AddressError
        If it does not say which frames are meant, or nothing of ours reads its files.
    """

    def __init__(self, registered: Registered, find: Callable[[Registered], OpenFrames] = frames_of) -> None:
        self.registered = registered
        self._find = find
        self._open = find(registered)
        self._frames: ReadableFrames | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.registered, self._find)

    def frames(self) -> ReadableFrames:
        """The frames as they are now, looked at as far as before one is read; raises as `read` does."""
        return self._opened()

    def check_reach(self) -> None:
        """Look whether the files of the first and of the last frame are there, and hold frames of the array's shape.

        Only of HDF5 files, and by handlers, something is read.

        Raises
        ------
        UnreadableFileError
            In the form that says why not.
        PathError
            If their paths are none of this machine.
        """
        if 0 in self.registered.shape:
            return
        frames = self._opened()
        paths = self.registered.paths
        for path in dict.fromkeys(frames.end_paths() if isinstance(frames, NamesItsFiles) else [paths[0], paths[-1]]):
            signature_of(path)

    def read(self, index: ArrayIndex = ...) -> NDArray[Any]:
        """A part of the array.

        Raises
        ------
        IndexError
            If the index does not fit the shape.
        UnreadableFileError
            If a frame cannot be read, or is of another shape or dtype than the array's.
        """
        try:
            return checked_dtype(array_of(self._opened(), self.registered.shape, index), self.registered.dtype)
        except UnreadableFileError:
            # The file may be another, or longer, when it is asked for again.
            self._frames = None
            raise

    def _opened(self) -> ReadableFrames:
        frames = self._frames
        if frames is None:
            frames = self._as_far_as_there()
            if isinstance(frames, ComparesItsFiles) and frames.count:
                frames.check_files([0, frames.count - 1])
            _check_axes(frames, self.registered)
            self._frames = frames
        return frames

    def _as_far_as_there(self) -> ReadableFrames:
        try:
            return self._open()
        except UnreadableFileError:
            if self.registered.mimetype != HDF5:
                raise
            frames = joined_datasets(self.registered, shared_files(), self.registered.roots).frames_so_far()
            if frames is None:
                raise
            return frames


def _check_axes(frames: ReadableFrames, registered: Registered) -> None:
    """Raise where the array's axes cut frames otherwise than the files' do, though the elements are as many."""
    if 0 in registered.shape:
        return
    held = _sizes_from_the_end(tuple(frames.frame_shape))
    whole = math.prod(frames.frame_shape)
    cuts = {size for size in _sizes_from_the_end(registered.shape) if size < whole}
    if not cuts <= held:
        raise UnreadableFileError(
            f"the files, {registered.paths[0]} and those after it, hold frames of shape {list(frames.frame_shape)}; "
            f"expected frames for an array of shape {list(registered.shape)}: they are not the files that were "
            f"registered."
        )


def _sizes_from_the_end(shape: tuple[int, ...]) -> set[int]:
    """How many elements the last axes have: the last, the last two, and so on."""
    return {math.prod(shape[axis:]) for axis in range(len(shape) + 1)}
