"""What our handlers have in common: how they close, how they count, and how a point is read."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Self

from numpy.typing import NDArray

from bluesky_filestore.errors import DocumentError, FileStoreError, UnreadableFileError
from bluesky_filestore.files.formats import ArrayFormat
from bluesky_filestore.files.numbered import NumberedFrames
from bluesky_filestore.model.normalize import positive

__all__ = ["ArrayFormat", "BaseHandler", "PointHandler", "frames_of_point", "told_of_handler"]


class BaseHandler:
    """What our handlers have in common.

    They can be shared by threads, and pickled. What they need is opened when it is needed, by the pool of this process;
    `close` has it closed, and a call after that opens it anew: so that what is read lazily can be read whenever.
    """

    specs: ClassVar[frozenset[str]] = frozenset()
    """The specs of the Resources it is for."""

    def close(self) -> None:
        """Close what is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@contextmanager
def told_of_handler(spec: str, what: str) -> Iterator[None]:
    """Say of which file it is what a handler, which is anybody's code, raises in its own words."""
    try:
        yield
    except (FileStoreError, OSError):
        raise
    except Exception as error:
        raise UnreadableFileError(
            f"the handler of spec {spec!r} cannot read {what}: {type(error).__name__}: {error}."
        ) from error


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
        self._frames, self._frame_per_point = frames, positive(frame_per_point, "frame_per_point")

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

    def expect(self, declared: tuple[int, ...] | None) -> None:
        """Know the shape that the descriptor gives an event.

        Raises
        ------
        UnreadableFileError
            If the first axis of a dataset is not that of frames then.
        """
        self._frames = self._frames.for_event(declared, self._frame_per_point)

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
