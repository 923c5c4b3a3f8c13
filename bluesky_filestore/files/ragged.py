"""Rows of files that differ in shape, each read as a row of the part that it is in."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.errors import TruncatedFileError, UnreadableFileError
from bluesky_filestore.model.ragged_rows import RaggedRows

from .array_in_files import ArrayInFiles
from .readable import ANYWHERE, Roots
from .registered import OpenFrames, Registered, frames_of
from .rows import AxisKey

__all__ = ["RaggedInFiles"]


class RaggedInFiles:
    """Rows that differ in shape; for any number of threads, and for other processes.

    Parameters
    ----------
    parameters, properties : Mapping
        As registered.
    paths : sequence of str
        The files, or directories, in their order.
    count : int
        How many rows the array has.
    dtype : numpy.dtype
        Of its elements.
    find : callable
        Tells of an array of rows that are alike where its frames are; a function of a module.
    roots : Roots
        Where the files may lie.

    Raises
    ------
    AddressError
        If it is not said which rows are meant, or nothing of ours reads the files.
    """

    def __init__(
        self,
        parameters: Mapping[str, Any],
        properties: Mapping[str, Any],
        paths: Sequence[str],
        count: int,
        dtype: np.dtype[Any],
        find: Callable[[Registered], OpenFrames] = frames_of,
        roots: Roots = ANYWHERE,
    ) -> None:
        self.rows, self.count, self.dtype = RaggedRows.from_parameters(parameters), count, dtype
        known = properties.get("parts") or [{}] * len(self.rows.parts)
        self._parts = [
            ArrayInFiles(
                Registered(
                    part.mimetype,
                    part.parameters,
                    {**part.properties, **more},
                    [paths[number] for number in part.assets],
                    part.shape,
                    np.dtype(part.dtype),
                    roots,
                ),
                find,
            )
            if part.mimetype
            else None
            for part, more in zip(self.rows.parts, known, strict=True)
        ]

    def check_reach(self) -> None:
        """Look whether files of each part are there; raises as `ArrayInFiles.check_reach` does."""
        for part in self._parts:
            if part is not None:
                part.check_reach()

    def parts(self) -> Iterator[tuple[list[int], Registered]]:
        """The rows that are alike, kind by kind, with the array that they are."""
        events: list[list[int]] = [[] for _ in self._parts]
        for row in range(self.rows.count):
            events[self.rows.locate(row)[0]].append(row)
        for of_part, part in zip(events, self._parts, strict=True):
            if part is not None:
                yield of_part, part.registered

    def read(self, index: tuple[int, ...]) -> NDArray[Any]:
        """A row, as `ArrayInFiles` reads it."""
        return self.read_row(index[0])

    def read_row(self, row: int, inner: tuple[AxisKey, ...] = ()) -> NDArray[Any]:
        """A row, or a part of it.

        Raises
        ------
        IndexError
            If there is no such row.
        UnreadableFileError
            If it cannot be read.
        """
        if not -self.count <= row < self.count:
            raise IndexError(f"row {row} is out of range; expected {-self.count} to {self.count - 1}.")
        row %= self.count
        if row >= self.rows.count:
            raise TruncatedFileError(f"row {row} (counted from 0) of {self.count} is not there: {self.rows.missing}.")
        number, place = self.rows.locate(row)
        part = self._parts[number]
        if part is None:
            empty: NDArray[Any] = np.empty(self.rows.parts[number].shape[1:], self.dtype)[inner]
            return empty
        try:
            return part.read((place, *inner)).astype(self.dtype, copy=False)
        except UnreadableFileError as error:
            error.add_note(f"It was to be read for row {row} (counted from 0) of {self.count}.")
            raise
