"""An array of frames as Tiled asks for it, and what a client is told where frames cannot be read."""

import builtins
import math
import operator
from collections.abc import Iterator, Set
from contextlib import contextmanager
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import HTTPException
from numpy.typing import NDArray
from tiled.adapters.core import Adapter
from tiled.structures.array import ArrayStructure
from tiled.structures.core import Spec, StructureFamily

from bluesky_filestore.errors import (
    ChangedFileError,
    FileStoreError,
    ForbiddenFileError,
    LockedFileError,
    MissingFileError,
)
from bluesky_filestore.files.kept import kept
from bluesky_filestore.files.registered import OpenFrames, checked_dtype
from bluesky_filestore.files.rows import array_of, as_axis_key, expanded_index
from bluesky_filestore.logs import get_logger
from bluesky_filestore.model.limits import DEFAULT_LIMITS, Limits, how_to_set

if TYPE_CHECKING:
    from tiled.storage import Storage
    from tiled.type_aliases import JSON

_logger = get_logger(__name__)

__all__ = ["FramesAdapter", "answered", "status_of"]

# The first that fits. 404 and not 410, of which Tiled's client tells its user nothing but "Gone".
_STATUS = (
    (MissingFileError, 404),
    (ForbiddenFileError, 403),
    (LockedFileError, 423),
    (ChangedFileError, 409),
    # All else is the registration's fault.
    (FileStoreError, 422),
)


class FramesAdapter(Adapter[ArrayStructure]):  # type: ignore[misc] # Tiled is untyped
    """Frames of files as one array.

    Parameters
    ----------
    open_frames : callable
        Gives the frames, for one reading.
    structure : ArrayStructure
        As registered; shape and dtype of the array that is served.
    metadata, specs
        Of the node.
    limits : Limits
        How large an answer may be.
    """

    structure_family = StructureFamily.array

    def __init__(
        self,
        open_frames: OpenFrames,
        structure: ArrayStructure,
        *,
        metadata: "JSON | None" = None,
        specs: list[Spec] | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        super().__init__(structure, metadata=metadata, specs=specs)
        self._open_frames, self._limits = open_frames, limits
        self._shape, self._chunks = tuple(structure.shape), structure.chunks
        self._dtype: np.dtype[Any] = structure.data_type.to_numpy_dtype()

    @classmethod
    def supported_storage(cls) -> "Set[type[Storage]]":
        """No storage: nothing is written."""
        return frozenset()

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the array that is served."""
        return self._dtype

    @kept
    def axes_of_frame(self) -> int:
        """How many of the last axes lie within a frame, which is read as a whole.

        Raises
        ------
        HTTPException
            If the files cannot be read.
        """
        with answered():
            frame = math.prod(self._open_frames().frame_shape)
        sizes = accumulate(reversed(self._shape), operator.mul)
        return sum(1 for size in sizes if size <= frame)

    def read(self, slice: Any = ...) -> NDArray[Any]:  # noqa: A002 - Tiled's name
        """The array, or a part of it.

        Raises
        ------
        HTTPException
            If frames cannot be read, with a status between 400 and 499 that says in what way.
        """
        index = tuple(slice) if isinstance(slice, tuple) else slice
        # What does not fit is the client's mistake, whatever the state of the files.
        self.check_size(_checked(index, self._shape))
        with answered():
            return checked_dtype(array_of(self._open_frames(), self._shape, index), self._dtype)

    def check_size(self, wanted: tuple[int | range, ...]) -> None:
        """Refuse an answer with these elements along each axis, if it is too large.

        Raises
        ------
        HTTPException
            With the status that Tiled has for it, after it has read it all.
        """
        # Python's own length of a range is one of what it can hold.
        lengths = (max(0, -(-(key.stop - key.start) // key.step)) for key in wanted if isinstance(key, range))
        size = math.prod(lengths) * self._dtype.itemsize
        most = self._limits.response_bytes
        if size > most:
            raise HTTPException(
                400,
                f"{size:,} bytes are asked for; expected {most:,} at most: ask for a slice, or a smaller one "
                f"({how_to_set('response_bytes')}).",
            )

    def read_block(self, block: tuple[int, ...], slice: Any = ...) -> NDArray[Any]:  # noqa: A002 - Tiled's name
        """One chunk of the array, or a part of it."""
        return self.read(self.index_of_block(block, slice))

    def index_of_block(self, block: tuple[int, ...], slice: Any = ...) -> tuple[int | builtins.slice, ...]:  # noqa: A002
        """What a chunk, or a part of it, is of the whole array."""
        inside = [_range_of(sizes, place) for sizes, place in zip(self._chunks, block, strict=True)]
        index = (tuple(slice) if isinstance(slice, tuple) else slice) if slice else ...
        keys = _checked(index, tuple(map(len, inside)))
        return tuple(
            key + whole.start if isinstance(key, int) else as_axis_key(whole[as_axis_key(key)])
            for key, whole in zip(keys, inside, strict=True)
        )

    def __getitem__(self, index: Any) -> NDArray[Any]:
        return self.read(index)


def status_of(error: FileStoreError) -> int:
    """The status of an answer that is one of our errors."""
    return next(status for kind, status in _STATUS if isinstance(error, kind))


@contextmanager
def answered() -> Iterator[None]:
    """Answer a client in our words, with a status that tells whose fault it is."""
    try:
        yield
    except HTTPException:
        raise
    except FileStoreError as error:
        raise HTTPException(status_code=status_of(error), detail=str(error)) from error
    except Exception as error:
        # Parsers of files that others made raise whatever they like; the log has where.
        _logger.warning("An array cannot be served", exc_info=True)
        words = f"it cannot be read as it is registered ({type(error).__name__}: {error})"
        raise HTTPException(status_code=422, detail=words) from error


def _checked(index: Any, shape: tuple[int, ...]) -> tuple[int | range, ...]:
    try:
        return expanded_index(index, shape)
    except ValueError as error:
        # A step of zero.
        raise HTTPException(422, f"index {index!r} cannot be understood: {error}.") from error


def _range_of(sizes: tuple[int, ...], place: int) -> range:
    if not 0 <= place < len(sizes):
        raise IndexError(f"there is no chunk {place}; expected one of {len(sizes)}.")
    begin = sum(sizes[:place])
    return range(begin, begin + sizes[place])
