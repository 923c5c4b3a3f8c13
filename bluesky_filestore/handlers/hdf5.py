"""Frames along the first axis of a dataset of one HDF5 file."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from bluesky_filestore.errors import DocumentError
from bluesky_filestore.files.numbered import DatasetFrames
from bluesky_filestore.model.addressing import slice_of_frames
from bluesky_filestore.model.specs import spec_named

from .base import PointHandler

__all__ = ["AreaDetectorHDF5Handler", "HDF5DatasetHandler"]


class HDF5DatasetHandler(PointHandler):
    """Any dataset of an HDF5 file, or a slice of it: the spec ``HDF5``.

    Parameters
    ----------
    filename : str
        The file.
    key : str
        The dataset; `dataset` and `path` are other names for it that are in use.
    frame_per_point : int
        How many frames a Datum stands for; `frames_per_point` is another name.
    swmr : bool
        As documents say it of a file that is still being written; every file is read so that it may be.
    locking : bool or str, optional
        As h5py's: False for disks that have no locks.
    slice : str
        What is taken of each frame, in words that begin with the axis of the frames, e.g. ``":,0:2"``.

    Raises
    ------
    DocumentError, AddressError
        If there is no dataset, or it is unclear which frames are meant.
    """

    specs: ClassVar[frozenset[str]] = frozenset({"HDF5"})

    def __init__(
        self,
        filename: str,
        /,
        key: str = "",
        frame_per_point: int = 1,
        *,
        dataset: str = "",
        path: str = "",
        frames_per_point: int | None = None,
        swmr: bool = False,
        locking: bool | str | None = None,
        slice: str = "",  # noqa: A002 - the word of the documents
    ) -> None:
        key = key or dataset or path
        if not key:
            raise DocumentError(f"no dataset of file {filename} is named; expected one as 'key' or 'dataset'.")
        frames = DatasetFrames(str(filename), key, slice_of_frames(slice), locking)
        super().__init__(frames, frame_per_point if frames_per_point is None else frames_per_point)

    def get_file_list(self, datum_kwargs_gen: Iterable[Mapping[str, Any]]) -> list[str]:
        """The one file."""
        return self._frames.paths(range(1))


class AreaDetectorHDF5Handler(HDF5DatasetHandler):
    """A file of areaDetector's HDF5 plugin: the specs ``AD_HDF5`` and ``AD_HDF5_SWMR``.

    Written in SWMR mode (single writer, many readers), it is read while it grows.

    Parameters
    ----------
    filename : str
        The file.
    frame_per_point : int
        How many frames a Datum stands for.
    """

    specs: ClassVar[frozenset[str]] = frozenset({"AD_HDF5", "AD_HDF5_SWMR"})

    def __init__(self, filename: str, /, frame_per_point: int = 1) -> None:
        super().__init__(filename, spec_named("AD_HDF5").dataset or "", frame_per_point)
