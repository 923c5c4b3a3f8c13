"""What our handlers have in common: how they close, how they fail, how they count."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from bluesky_filestore.errors import DocumentError, FileStoreError, UnreadableFileError
from bluesky_filestore.files.readable import told

__all__ = ["ArrayFormat", "BaseHandler", "frames_of_point", "positive", "read_errors"]


@dataclass(frozen=True, slots=True)
class ArrayFormat:
    """What a handler will return, known before it is read."""

    shape: tuple[int, ...]
    """The shape of the array."""
    dtype: np.dtype[Any]
    """Its dtype."""


class BaseHandler:
    """What our handlers have in common.

    They can be shared by threads, and pickled, when they leave open files behind. They open what they need when it is
    needed, `close` gives it up, and a call after that opens it anew: so that what is read lazily can be read whenever.
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


@contextmanager
def read_errors(path: str, *others: type[Exception]) -> Iterator[None]:
    """Whatever goes wrong with a file, as an error that names it and is an `OSError`.

    Parameters
    ----------
    path : str
        The file.
    *others : type of Exception
        What the library that reads it raises for a bad file, beside `OSError`.

    Raises
    ------
    MissingFileError, LockedFileError, TruncatedFileError, UnreadableFileError
        As the error of the library says.
    """
    with told(path):
        try:
            yield
        except (FileStoreError, OSError):
            raise
        except others as error:
            raise UnreadableFileError(f"file {path} cannot be read: {error}") from error


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
