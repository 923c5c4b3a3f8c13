"""What our handlers have in common: how they close, how they count, and how a point is read."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

from numpy.typing import NDArray

from bluesky_filestore.errors import DocumentError
from bluesky_filestore.files.formats import ArrayFormat
from bluesky_filestore.files.numbered import NumberedFrames

__all__ = ["ArrayFormat", "BaseHandler", "PointHandler", "frames_of_point", "positive"]


class BaseHandler:
    """What our handlers have in common.

    They can be shared by threads, and pickled. What they need is opened when it is needed, by the pool of this process;
    `close` has it closed, and a call after that opens it anew: so that what is read lazily can be read whenever.
    """

    specs: ClassVar[frozenset[str]] = frozenset()
    """The specs of the Resources it is for."""

    def format(self, *args: Any, **datum_kwargs: Any) -> ArrayFormat:
        """Shape and dtype of what a call returns, from the file's own headers."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it returns.")

    def get_file_list(self, datum_kwargs_gen: Iterable[Mapping[str, Any]]) -> list[str]:
        """The files that hold what the Datums with these arguments stand for."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it reads.")

    def close(self) -> None:
        """Close what is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class PointHandler(BaseHandler):
    """Reads points, of so many consecutive frames each.

    Parameters
    ----------
    frames : NumberedFrames
        Where the frames are.
    frame_per_point : int
        How many a Datum stands for.

    Raises
    ------
    DocumentError
        If a point has no frames.
    """

    def __init__(self, frames: NumberedFrames, frame_per_point: int) -> None:
        self._frames = frames
        self._frame_per_point = positive(frame_per_point, "frame_per_point")

    def __call__(self, point_number: int) -> NDArray[Any]:
        """The frames of a point, of shape (frame_per_point, y, x).

        Raises
        ------
        UnreadableFileError
            Of which `TruncatedFileError` counts the frames that are there.
        """
        return self._frames.read(self._numbers(point_number))

    def format(self, *, point_number: int) -> ArrayFormat:
        """Shape and dtype of a point, of which the first frame at least has to be there."""
        return self._frames.format(self._numbers(point_number))

    def get_file_list(self, datum_kwargs_gen: Iterable[Mapping[str, Any]]) -> list[str]:
        """The files of all frames of these points."""
        return [path for kwargs in datum_kwargs_gen for path in self._frames.paths(self._numbers(**kwargs))]

    def close(self) -> None:
        """Close what is open."""
        self._frames.close()

    def _numbers(self, point_number: int) -> range:
        return frames_of_point(point_number, self._frame_per_point)


def frames_of_point(point_number: int, frame_per_point: int) -> range:
    """The numbers of the frames of a point.

    Raises
    ------
    DocumentError
        If there is no such point.
    """
    if isinstance(point_number, bool) or int(point_number) != point_number or point_number < 0:
        raise DocumentError(f"point_number is {point_number!r}; expected a whole number from 0 on.")
    return range(int(point_number) * frame_per_point, (int(point_number) + 1) * frame_per_point)


def positive(number: Any, name: str) -> int:
    """A count that is at least one.

    Raises
    ------
    DocumentError
        If it is not.
    """
    if isinstance(number, bool) or int(number) != number or number < 1:
        raise DocumentError(f"{name} is {number!r}; expected a whole number from 1 on.")
    return int(number)
