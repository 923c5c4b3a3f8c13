"""Whether the first axis of a dataset counts frames, judged by what a descriptor says of an event.

The one rule for the catalog, for `open_array` and for `fill`: what one of them refuses, all refuse.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = [
    "declared_shape",
    "frames_that_fit",
    "one_frame",
    "same_but_for_ones",
    "shape_of_event",
    "why_no_frames",
    "why_not_served",
]

# Of two axes at least, a frame cannot be taken for a row of an image.
_AXES_OF_IMAGE = 2
_COLOURS = 3
_SERVED_KINDS = "biufcSU"

Shape = tuple[int, ...]


def declared_shape(data_key: Mapping[str, Any]) -> Shape | None:
    """The shape of an event by its data key; None if that says none that an array can have.

    Examples
    --------
    >>> declared_shape({"dtype": "array", "shape": [1, 4, 6]})
    (1, 4, 6)
    """
    shape = data_key.get("shape")
    if shape is None or any(size is None for size in shape):
        return None
    return tuple(int(size) for size in shape)


def same_but_for_ones(one: Shape, other: Shape) -> bool:
    """Whether two shapes differ in axes of length one only."""
    return _without_ones(one) == _without_ones(other)


def one_frame(stored: Shape, declared: Shape | None = None) -> Shape | None:
    """The shape of the frame of a file that holds one, maybe with an axis that counts it; None if it holds several.

    Parameters
    ----------
    stored : tuple of int
        What the file holds.
    declared : tuple of int, optional
        The shape of an event; of images in colours it tells that they are.

    Examples
    --------
    >>> one_frame((4, 6)), one_frame((1, 4, 6)), one_frame((4, 6, 3)), one_frame((3, 4, 6))
    ((4, 6), (4, 6), (4, 6, 3), None)
    >>> one_frame((3, 4, 6), declared=(1, 3, 4, 6)), one_frame((5, 6, 3), declared=(1, 6, 3))
    ((3, 4, 6), None)
    """
    if len(stored) < 1 + _AXES_OF_IMAGE:
        return stored
    if stored[0] == 1:
        return stored[1:]
    coloured = len(stored) == 1 + _AXES_OF_IMAGE and stored[-1] == _COLOURS
    return stored if (coloured if declared is None else declared[1:] == stored) else None


def frames_that_fit(declared: Shape | None, frame_shape: Shape) -> int | None:
    """How many frames make up the shape of an event; None if no number of them does.

    Examples
    --------
    >>> frames_that_fit((3, 4, 6), (4, 6))
    3
    """
    size = math.prod(frame_shape)
    if declared is None or not size:
        return None
    whole, rest = divmod(math.prod(declared), size)
    return whole if whole and not rest and same_but_for_ones(declared, (whole, *frame_shape)) else None


def shape_of_event(declared: Shape | None, stored: Shape, *, is_joined: bool = False) -> Shape:
    """The shape of an event's array: as declared where it is that of its frames as they are stored, else theirs.

    A scalar an event has none, whatever its axis of length one was for.

    Parameters
    ----------
    declared : tuple of int or None
        As the descriptor has it.
    stored : tuple of int
        Of its frames, or of the files that are stacked.
    is_joined : bool
        Whether files of several frames each may be one behind the other in what is declared.

    Examples
    --------
    >>> shape_of_event((4, 6), (1, 4, 6)), shape_of_event((9, 9), (1, 4, 6)), shape_of_event((1,), (1,))
    ((4, 6), (1, 4, 6), ())
    >>> shape_of_event((6, 4, 8), (3, 2, 4, 8)), shape_of_event((6, 4, 8), (3, 2, 4, 8), is_joined=True)
    ((3, 2, 4, 8), (6, 4, 8))
    """
    if is_joined and len(stored) > 1 + _AXES_OF_IMAGE and declared == (stored[0] * stored[1], *stored[2:]):
        return declared
    if declared is None or not same_but_for_ones(declared, stored):
        return stored
    return () if declared == (1,) else declared


def why_no_frames(declared: Shape | None, frames: int, frame_shape: Shape, count: int) -> str:
    """Why the first axis of a dataset can not be that of frames; empty if it is.

    Where sizes agree it is. Where they differ, the number of axes has to tell that a frame of the one is a frame of
    the other (the region of interest was changed, say): then the file is right. But where the sizes agree with frames
    along another axis, or with one image in colours, it could be either, and is refused.

    Parameters
    ----------
    declared : tuple of int or None
        The shape of an event as the descriptor has it.
    frames : int
        How many frames an event has.
    frame_shape : tuple of int
        The shape of the dataset without its first axis.
    count : int
        The size of the first axis.

    Examples
    --------
    >>> why_no_frames((1, 4, 6), 1, (4, 6), 10)
    ''
    >>> why_no_frames((1, 4, 6), 1, (6,), 4)
    'its first axis is not that of frames: the descriptor says [1, 4, 6] an event, the dataset would give [1, 6]'
    """
    if declared is None:
        return ""
    begins_with_frames = declared[:1] == (frames,)
    fits = (
        same_but_for_ones(declared, (frames, *frame_shape))
        or (same_but_for_ones(declared, frame_shape) and (frames == 1 or not begins_with_frames))
        or (len(frame_shape) >= _AXES_OF_IMAGE and declared[1:] == frame_shape)
    )
    frame = declared[1:] if begins_with_frames else declared
    coloured = frame_shape == (*frame, _COLOURS) and len(frame) == _AXES_OF_IMAGE
    along_another = _other_axis_of_frames(frame, (count, *frame_shape))
    if fits or coloured or (len(frame) == len(frame_shape) and along_another is None):
        return ""
    words = (
        f"its first axis is not that of frames: the descriptor says {list(declared)} an event, "
        f"the dataset would give {[frames, *frame_shape]}"
    )
    return words if along_another is None else f"{words}, or such along axis {along_another} (counted from 0)"


def _other_axis_of_frames(frame: Shape, stored: Shape) -> int | None:
    """The axis after the first without which a dataset has the shape of a frame; None if there is none."""
    axes = range(len(stored) - 1, 0, -1)
    return next((axis for axis in axes if same_but_for_ones(frame, stored[:axis] + stored[axis + 1 :])), None)


def why_not_served(shape: Shape | None, dtype: Any) -> str:
    """Why a dataset of this shape and dtype is no array of frames, whatever a descriptor says; empty if it may be.

    Examples
    --------
    >>> why_not_served((), "<f8")
    'it has the shape [], without an axis that counts frames'
    """
    if shape is None:
        return "it is empty, without a shape"
    if not shape:
        return "it has the shape [], without an axis that counts frames"
    found = np.dtype(dtype)
    if found.names:
        return f"it holds no numbers (it is of compound type, with the fields {', '.join(found.names)})"
    if found.hasobject or found.kind not in _SERVED_KINDS:
        return f"it holds no numbers (its elements are of type {found})"
    return ""


def _without_ones(shape: Shape) -> Shape:
    return tuple(size for size in shape if size != 1)
