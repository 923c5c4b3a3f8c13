"""Whole datasets of several files, joined along the first axis and sliced: what Tiled's own HDF5 adapter serves."""

import math
from dataclasses import dataclass

from bluesky_filestore.errors import MissingFileError, TruncatedFileError, UnreadableFileError
from bluesky_filestore.model.addressing import AxisIndex

from .hdf5_rows import HDF5Dataset, HDF5Frames, JoinedIndex
from .rows import expanded_index

__all__ = ["ENDLESS", "JoinedDatasets"]

ENDLESS = 2**40
"""More frames than any file has."""


@dataclass(frozen=True, slots=True)
class JoinedDatasets:
    """A dataset of several files, joined, sliced, and given a shape."""

    dataset: HDF5Dataset
    """The dataset and its files."""
    slice: tuple[AxisIndex, ...]
    """What is taken of the datasets joined; empty for all."""
    squeeze: bool
    """Whether axes of length one are left out before the shape is given."""
    shape: tuple[int, ...]
    """The shape that the result is to have."""

    def frames(self) -> HDF5Frames:
        """The frames as the files have them now.

        The shape may be another with as many elements, or the beginning of more frames than it has.

        Raises
        ------
        UnreadableFileError
            If the files hold less than, or other than, the shape says.
        """
        layouts = [self.dataset.layout(file) for file in range(len(self.dataset.paths))]
        lengths = [layout.count for layout in layouts]
        known = self.dataset.stamps.lengths if self.dataset.stamps is not None else ()
        if len(known) == len(lengths):
            # A file that grew since moves none of the frames behind it.
            lengths[:-1] = known[:-1]
        keys = expanded_index(self.slice, (sum(lengths), *layouts[0].frame_shape))
        first, inner = keys[0], keys[1:]
        taken = range(first, first + 1) if isinstance(first, int) else first
        frame_shape = tuple(len(key) for key in inner if isinstance(key, range))
        stored = frame_shape if isinstance(first, int) else (len(taken), *frame_shape)
        if self.squeeze:
            stored = tuple(size for size in stored if size != 1)
        if math.prod(stored) != math.prod(self.shape):
            try:
                taken = self._beginning(taken, stored, isinstance(first, range))
            except UnreadableFileError as error:
                self.dataset.explain(error, range(len(lengths)))
                raise
        return HDF5Frames(self.dataset, JoinedIndex(lengths, taken), self.slice[1:])

    def frames_so_far(self) -> HDF5Frames | None:
        """The same where frames at the end are not there (yet): only reading one of them raises.

        None if it cannot be told which frames those are that are there.

        Raises
        ------
        UnreadableFileError
            If already the first file cannot be read.
        """
        lengths, first = [self.dataset.layout(0).count], self.slice[0] if self.slice else slice(None)
        inner = expanded_index(self.slice[1:], self.dataset.layout(0).frame_shape)
        frame_shape = tuple(len(key) for key in inner if isinstance(key, range))
        for file in range(1, len(self.dataset.paths)):
            try:
                lengths.append(self.dataset.layout(file).count)
            except MissingFileError:
                lengths.append(ENDLESS)
                break
        # Who reads beyond the last frame of the last file is told so by the file.
        lengths[-1] = ENDLESS
        if not isinstance(first, slice) or _counts_from_the_end(first) or 0 in frame_shape:
            return None
        taken = range(sum(lengths))[first]
        count, rest = divmod(math.prod(self.shape), math.prod(frame_shape))
        if rest or len(taken) < count or self.shape[len(self.shape) - len(frame_shape) :] != frame_shape:
            return None
        return HDF5Frames(self.dataset, JoinedIndex(lengths, taken[:count]), self.slice[1:])

    def _beginning(self, taken: range, stored: tuple[int, ...], has_frames: bool) -> range:
        named = self.dataset.paths[0] if len(self.dataset.paths) == 1 else f"{len(self.dataset.paths)} files"
        if has_frames and stored[1:] == self.shape[1:] and stored[0] == len(taken):
            if stored[0] > self.shape[0]:
                return taken[: self.shape[0]]
            raise TruncatedFileError(
                f"dataset {self.dataset.name} of {named} has {stored[0]} frames to give; frame {stored[0]} (counted "
                f"from 0) of {self.shape[0]} is not there: the file was cut short, or is not all written yet."
            )
        raise UnreadableFileError(
            f"dataset {self.dataset.name} of {named} has shape {list(stored)} to give; expected {list(self.shape)} of "
            f"the catalog, or as many elements."
        )


def _counts_from_the_end(key: slice) -> bool:
    begins_there = key.start is None and (key.step or 1) < 0
    return begins_there or any(bound is not None and bound < 0 for bound in (key.start, key.stop))
