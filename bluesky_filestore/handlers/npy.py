"""An array a file, in numbered files of numpy's own format."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from bluesky_filestore.files.numbered import SeriesFrames
from bluesky_filestore.model.specs import NPY_SERIES

from .base import ArrayFormat, BaseHandler, frames_of_point

__all__ = ["NumpySequenceHandler"]


class NumpySequenceHandler(BaseHandler):
    """Files of ophyd's simulated detectors, ``<filename>_<index>.npy``: the spec ``NPY_SEQ``.

    Parameters
    ----------
    filename : str
        What the paths of the files begin with.
    root : str
        The directory that `filename` is below, where the Resource did not say it itself.
    """

    specs: ClassVar[frozenset[str]] = frozenset({"NPY_SEQ"})

    def __init__(self, filename: str, /, root: str = "") -> None:
        self._frames = SeriesFrames(NPY_SERIES, "%s_%d.npy", (str(Path(root) / filename),))

    def __call__(self, index: int) -> NDArray[Any]:
        """The array of a file, as it is there.

        Raises
        ------
        UnreadableFileError
            If it is missing or broken.
        """
        values: NDArray[Any] = self._frames.read(frames_of_point(index, 1))[0, ...]
        return values

    def format(self, *, index: int) -> ArrayFormat:
        """Shape and dtype of a file's array."""
        stored = self._frames.format(frames_of_point(index, 1))
        return ArrayFormat(stored.shape[1:], stored.dtype)

    def get_file_list(self, datum_kwargs_gen: Iterable[Mapping[str, Any]]) -> list[str]:
        """A file for each Datum."""
        return [path for kwargs in datum_kwargs_gen for path in self._frames.paths(frames_of_point(kwargs["index"], 1))]
