"""A frame a file, in numbered files: what handlers of all such formats share."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.errors import DocumentError, MissingFileError, TruncatedFileError, UnreadableFileError

from .base import ArrayFormat, BaseHandler, frames_of_point, positive

__all__ = ["FileSeriesHandler"]


class FileSeriesHandler(BaseHandler):
    """Numbered files of one frame each; formats derive from it and say how a file is read.

    Parameters
    ----------
    directory : str
        Where the files are.
    template : str
        Makes a file's path from directory, name and number, as areaDetector's ``FileTemplate``: ``"%s%s_%6.6d.tiff"``.
    filename : str
        The name.
    frame_per_point : int
        How many files a Datum stands for.

    Raises
    ------
    DocumentError
        If the template can't be filled in.
    """

    def __init__(self, directory: str, /, template: str, filename: str = "", frame_per_point: int = 1) -> None:
        self._directory = os.path.join(directory, "")  # noqa: PTH118 - the separator at its end is the point
        self._template, self._filename = template, filename
        self._frames = positive(frame_per_point, "frame_per_point")
        self._path(0)

    def __call__(self, point_number: int) -> NDArray[Any]:
        """The frames of a point, of shape (frame_per_point, y, x).

        Raises
        ------
        MissingFileError
            If none of its files is there.
        TruncatedFileError
            If some are there; it counts them.
        UnreadableFileError
            If one of them cannot be read, or its frame is not like the others.
        """
        paths = self._paths(point_number)
        frames: list[NDArray[Any]] = []
        try:
            for path in paths:
                frames.append(self._read(path))
                self._check_alike(path, frames[0], frames[-1])
        except MissingFileError as error:
            if not frames:
                raise
            raise TruncatedFileError(
                f"file {paths[len(frames)]} is not there: of the {len(paths)} frames of point {point_number} there are "
                f"{len(frames)}; expected all."
            ) from error
        return frames[0][np.newaxis] if len(frames) == 1 else np.stack(frames)

    def format(self, *, point_number: int) -> ArrayFormat:
        """Shape and dtype of a point, from the header of its first file."""
        frame = self._read_format(self._paths(point_number)[0])
        return ArrayFormat((self._frames, *frame.shape), frame.dtype)

    def get_file_list(self, datum_kwargs_gen: Iterable[Mapping[str, Any]]) -> list[str]:
        """The files of all frames of these points."""
        return [path for kwargs in datum_kwargs_gen for path in self._paths(**kwargs)]

    def _read(self, path: str) -> NDArray[Any]:
        """The frame of a file; raises `MissingFileError` and `UnreadableFileError`."""
        raise NotImplementedError(f"{type(self).__name__} does not say how a file is read.")

    def _read_format(self, path: str) -> ArrayFormat:
        """Shape and dtype of the frame of a file."""
        frame = self._read(path)
        return ArrayFormat(frame.shape, frame.dtype)

    def _paths(self, point_number: int) -> list[str]:
        return [self._path(number) for number in frames_of_point(point_number, self._frames)]

    def _path(self, number: int) -> str:
        try:
            return self._template % (self._directory, self._filename, number)
        except (TypeError, ValueError) as error:
            raise DocumentError(
                f"template {self._template!r} can't be filled in with directory, name and number ({error}); "
                f"expected one such as '%s%s_%6.6d.tiff'."
            ) from error

    @staticmethod
    def _check_alike(path: str, first: NDArray[Any], frame: NDArray[Any]) -> None:
        if (frame.shape, frame.dtype) != (first.shape, first.dtype):
            raise UnreadableFileError(
                f"file {path} holds a frame of {list(frame.shape)} {frame.dtype}; expected {list(first.shape)} "
                f"{first.dtype}, as the first of its point."
            )
