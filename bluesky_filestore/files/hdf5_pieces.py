"""Datasets in numbered pieces, ``data_000001`` and on, as Eigers write them: a file each, to which a master has links.

Where no virtual dataset joins them, or none that is right, they are joined here, one behind the other along the first
axis. What their lengths are only they tell, and they grow, so that it is looked for whenever frames are read. Of an
acquisition that was aborted the last pieces were never written: the frames end before them. One that is missing between
others has frames that are lost; all pieces but the last are of one length.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import numpy as np

from .hdf5_selection import Selection, UnclearError
from .hdf5_virtual import Part, Virtual
from .hdf5_written import LostFramesError

__all__ = ["Pieces", "joined_pieces", "pieces_among"]

_PIECE = re.compile(r"data_(\d{6,})")


@dataclass(frozen=True, slots=True)
class Pieces:
    """A dataset that is there in numbered pieces only."""

    name: str
    """The path of the dataset, or of the group that the pieces are in."""
    pieces: tuple[str, ...]
    """The paths of the pieces, in their order."""
    is_virtual: ClassVar[bool] = True

    def virtual(self) -> Virtual:
        """What they are parts of, before it is known how long each is."""
        nothing = Selection(range(0), ())
        return Virtual(tuple(Part(".", piece, nothing, None) for piece in self.pieces), 0, in_pieces=True)


class PieceLayout(Protocol):
    """How a piece is laid out."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the piece; its frames lie along the first axis."""

    @property
    def dtype(self) -> "np.dtype[np.generic]":
        """Of its elements."""


def pieces_among(names: Iterable[str], directory: str, name: str) -> Pieces | None:
    """The pieces of a dataset among the names of a group; None if there are none.

    Raises
    ------
    UnclearError
        If one of them is missing.

    Examples
    --------
    >>> pieces_among(["data_000002", "data_000001", "data", "data_1"], "/entry/data", "/entry/data").pieces
    ('/entry/data/data_000001', '/entry/data/data_000002')
    """
    numbered = {int(found[1]): each for each in names if (found := _PIECE.fullmatch(str(each)))}
    if not numbered:
        return None
    first, last = min(numbered), max(numbered)
    missing = next((number for number in range(min(first, 1), last + 1) if number not in numbered), None)
    if missing is not None:
        raise UnclearError(f"{directory} has {numbered[last]} and no piece {missing}")
    return Pieces(name, tuple(f"{directory.rstrip('/')}/{numbered[number]}" for number in range(first, last + 1)))


def joined_pieces(
    virtual: Virtual, layout_of: Callable[[Part], PieceLayout]
) -> tuple[tuple[int, ...], "np.dtype[np.generic]", Virtual]:
    """Shape and type of the pieces joined, as long as they are now, and what that is made of.

    Raises
    ------
    LostFramesError
        If none of them is there.
    UnclearError
        If they do not fit together, or it cannot be told how many frames one has that is missing.
    """
    layouts: list[PieceLayout | None] = []
    reasons: list[LostFramesError] = []
    for part in virtual.parts:
        try:
            layouts.append(layout_of(part))
        except LostFramesError as error:
            layouts.append(None)
            reasons.append(error)
    there = [number for number, layout in enumerate(layouts) if layout is not None]
    if not there:
        raise reasons[0]
    first, last = layouts[there[0]], there[-1]
    if first is None:
        raise reasons[0]
    length = first.shape[0]
    parts, begin = list[Part](), 0
    for number, (part, layout) in enumerate(zip(virtual.parts[: last + 1], layouts, strict=False)):
        if layout is None and there[0] == last:
            raise UnclearError(f"how many frames {part.dataset} has cannot be told: {reasons[0]}")
        if layout is not None and (layout.shape[1:], layout.dtype) != (first.shape[1:], first.dtype):
            raise UnclearError(
                f"{part.dataset} holds frames of {list(layout.shape[1:])} {layout.dtype}, and "
                f"{virtual.parts[there[0]].dataset} frames of {list(first.shape[1:])} {first.dtype}"
            )
        size = length if layout is None else layout.shape[0]
        if number < last and size != length and None in layouts[: last + 1]:
            raise UnclearError(f"its pieces are of several lengths, and one is missing: {reasons[0]}")
        if size:
            target = Selection(range(begin, begin + size), tuple(map(range, first.shape[1:])))
            parts.append(replace(part, target=target))
        begin += size
    ends = str(reasons[-1]) if layouts[-1] is None else ""
    return (begin, *first.shape[1:]), first.dtype, Virtual(tuple(parts), 0, ends=ends)
