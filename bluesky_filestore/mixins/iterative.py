"""Datums that know which point they belong to, and the ready-made combinations."""

from collections.abc import Iterator
from itertools import count
from typing import Any

from bluesky_filestore.errors import StageError

from .base import FileStoreBase
from .hdf5 import FileStoreHDF5, FileStoreHDF5Single
from .tiff import FileStoreTIFF

__all__ = [
    "FileStoreHDF5IterativeWrite",
    "FileStoreHDF5SingleIterativeWrite",
    "FileStoreIterativeWrite",
    "FileStoreTIFFIterativeWrite",
]


class FileStoreIterativeWrite(FileStoreBase):
    """Adds ``point_number``, counting from 0 at each stage, to the ``datum_kwargs``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._point_counter: Iterator[int] | None = None

    def stage(self) -> list[object]:
        """Stage, and begin to count."""
        staged = super().stage()
        self._point_counter = count()
        return staged

    def unstage(self) -> list[object]:
        """Unstage, and count no more."""
        self._point_counter = None
        return super().unstage()

    def generate_datum(self, key: str, timestamp: float, datum_kwargs: dict[str, Any] | None) -> str | None:
        """Make a Datum with the next point's number; see `FileStoreBase.generate_datum`."""
        if self._point_counter is None:
            raise StageError(f"{self} is not staged, so there is no point to count; stage it before it is triggered.")
        numbered = {**(datum_kwargs or {}), "point_number": next(self._point_counter)}
        return super().generate_datum(key, timestamp, numbered)


class FileStoreHDF5IterativeWrite(FileStoreHDF5, FileStoreIterativeWrite):
    """All frames of a stage in one HDF5 file, numbered by point."""


class FileStoreHDF5SingleIterativeWrite(FileStoreHDF5Single, FileStoreIterativeWrite):
    """Each frame in its own HDF5 file, numbered by point."""


class FileStoreTIFFIterativeWrite(FileStoreTIFF, FileStoreIterativeWrite):
    """Each frame in its own TIFF file, numbered by point."""
