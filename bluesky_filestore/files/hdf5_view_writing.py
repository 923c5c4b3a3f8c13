"""Virtual datasets of HDF5, made: how HDF5 is told where the frames of a view are.

HDF5 goes through all mappings of a virtual dataset whenever it opens one, and takes longer than that for each further
one that is made. So consecutive frames are one mapping, and where there are more than some, the dataset is made of
virtual datasets of the same file that have some each, and so on: to find one of ten thousand frames in any order HDF5
goes through a hundred mappings.

For what it does not find HDF5 gives the fill value, without a word: here that is NaN or, of integers, the largest that
there is, as detectors mark pixels that have no value. Frames that are known to have no data are left out of the
mappings.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .hdf5_views import View, ViewPart

if TYPE_CHECKING:
    import h5py

__all__ = ["fill_value", "write_view"]

_MOST_MAPPINGS = 32


def fill_value(dtype: np.dtype[Any]) -> Any:
    """What stands where there is no frame: NaN, or the largest integer; None if any value may be a true one."""
    if dtype.kind in "fc":
        return np.array(np.nan, dtype)
    return np.array(np.iinfo(dtype).max, dtype) if dtype.kind in "iu" else None


def write_view(group: "h5py.Group", name: str, view: View, nested: str, directory: str) -> "h5py.Dataset":
    """Make the virtual dataset of a view.

    Parameters
    ----------
    group : h5py.Group
        Where it shall be, of a file that is open for writing.
    name : str
        What it shall be called there.
    view : View
        What it shows.
    nested : str
        The group of the file that those are put into that it is made of, if it is made of others.
    directory : str
        Where the file will be: files are named by their way from there.
    """
    here = os.path.realpath(directory)
    directories = {_parted(part.path)[0] for part in view.parts}
    ways = {directory: os.path.relpath(os.path.realpath(directory), here) for directory in directories}
    pieces = [piece for part in view.parts for piece in _pieces(part, view, ways)]
    while len(pieces) > _MOST_MAPPINGS:
        inside = group.file.require_group(nested)
        inside.attrs["NX_class"] = "NXcollection"
        pieces = [_nest(some, view, inside) for some in _portions(pieces)]
    _create(group, name, view, view.shape, pieces)
    return group[name]


@dataclass(frozen=True, slots=True)
class _Piece:
    """What is one mapping of a virtual dataset."""

    first: int
    """Its first row."""
    stop: int
    """The one after its last."""
    file: bytes
    """The file's name."""
    dataset: bytes
    """The dataset's."""
    source: Any
    """What is selected of the dataset."""
    frames: range | None = None
    """Which frames of one row it is, where it is not the whole of its rows."""


def _parted(path: str) -> tuple[str, str]:
    """The directory of a file, and its name there; of many files, for which paths of pathlib take long."""
    directory, slash, name = path.rpartition("/")
    return (directory or slash), name


def _pieces(part: ViewPart, view: View, ways: Mapping[str, str]) -> Iterator[_Piece]:
    directory, name = _parted(part.path)
    # HDF5 takes "%b" for the number of a block.
    file = os.fsencode(f"{ways[directory]}/{name}").replace(b"%", b"%%")
    dataset = part.dataset.encode().replace(b"%", b"%%")
    each, done = view.frames_per_row, 0
    while done < part.count:
        row, within = divmod(part.first + done, each)
        is_whole = within == 0 and part.count - done >= each and (each == 1 or _is_consecutive(part.frames))
        count = (part.count - done) // each * each if is_whole else 1
        frames = None if part.frames is None else part.frames[done : done + count]
        stop = row + (count // each if is_whole else 1)
        source = _source_space(part.shape, frames, view.inner)
        yield _Piece(row, stop, file, dataset, source, None if is_whole else range(within, within + 1))
        done += count


def _is_consecutive(frames: range | None) -> bool:
    return frames is not None and frames.step == 1


def _source_space(shape: tuple[int, ...], frames: range | None, inner: tuple[int | range, ...]) -> Any:
    import h5py

    space = h5py.h5s.create_simple(shape)
    if frames is not None:
        keys = [key if isinstance(key, range) else range(key, key + 1) for key in inner]
        _select(space, [frames, *(keys or map(range, shape[1:]))])
    return space


def _select(space: Any, axes: Sequence[range]) -> None:
    start = tuple(axis.start for axis in axes)
    together = [axis.step == 1 for axis in axes]
    count = tuple(1 if one else len(axis) for one, axis in zip(together, axes, strict=True))
    stride = tuple(len(axis) if one else axis.step for one, axis in zip(together, axes, strict=True))
    block = tuple(len(axis) if one else 1 for one, axis in zip(together, axes, strict=True))
    space.select_hyperslab(start, count, stride, block)


def _portions(pieces: Sequence[_Piece]) -> Iterator[list[_Piece]]:
    """Up to so many pieces each, such that no row is in two of them."""
    portion: list[_Piece] = []
    for piece in pieces:
        if len(portion) >= _MOST_MAPPINGS and piece.first >= portion[-1].stop:
            yield portion
            portion = []
        portion.append(piece)
    yield portion


def _nest(pieces: Sequence[_Piece], view: View, nested: "h5py.Group") -> _Piece:
    """Make a virtual dataset of some pieces, which is one piece."""
    import h5py

    first, stop = pieces[0].first, pieces[-1].stop
    name, shape = f"part_{len(nested)}", (stop - first, *view.shape[1:])
    _create(nested, name, view, shape, pieces, first)
    return _Piece(first, stop, b".", f"{nested.name}/{name}".encode(), h5py.h5s.create_simple(shape))


def _create(
    group: "h5py.Group", name: str, view: View, shape: tuple[int, ...], pieces: Sequence[_Piece], first: int = 0
) -> None:
    import h5py

    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    # The same file, byte by byte, whenever it is made.
    properties.set_obj_track_times(False)
    fill = fill_value(view.dtype)
    if fill is not None:
        properties.set_fill_value(fill)
    for piece in pieces:
        space = h5py.h5s.create_simple(shape)
        rows = range(piece.first - first, piece.stop - first)
        _select(space, [rows, *_inner_axes(piece, view)])
        properties.set_virtual(space, piece.file, piece.dataset, piece.source)
    kind = h5py.h5t.py_create(view.dtype, logical=True)
    h5py.h5d.create(group.id, name.encode(), kind, h5py.h5s.create_simple(shape), properties)


def _inner_axes(piece: _Piece, view: View) -> list[range]:
    axes = list(map(range, view.shape[1:]))
    if piece.frames is not None:
        axes[0] = piece.frames
    return axes
