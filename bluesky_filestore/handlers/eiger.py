"""Images of a Dectris Eiger: a master file for each sequence, which links to data files of so many images each."""

from collections.abc import Iterable, Mapping
from glob import escape
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from bluesky_filestore.errors import DocumentError, TruncatedFileError, UnreadableFileError
from bluesky_filestore.files.hdf5 import shared_files
from bluesky_filestore.files.hdf5_layout import NoDatasetError
from bluesky_filestore.files.numbered import DatasetFrames
from bluesky_filestore.model.normalize import positive

from .base import ArrayFormat, BaseHandler

__all__ = ["EigerHandler"]

_GROUPS = ("/entry/data", "/entry")
"""Where the links are, by today's firmware and by that from before 1.3."""


class EigerHandler(BaseHandler):
    """Files ``<filename>_<seq_id>_master.h5``: the specs ``AD_EIGER``, ``AD_EIGER2`` and ``AD_EIGER_SLICE``.

    Which image is in which file the files tell themselves; a virtual dataset is not needed. As with
    area-detector-handlers.

    Parameters
    ----------
    filename : str
        What the paths of the files begin with.
    images_per_file : int, optional
        How many images a data file has; `frame_per_point` is an older name for it.
    frame_per_point : int, optional
        The same.

    Raises
    ------
    DocumentError
        If neither is given.
    """

    specs: ClassVar[frozenset[str]] = frozenset({"AD_EIGER", "AD_EIGER2", "AD_EIGER_SLICE"})

    def __init__(
        self, filename: str, /, images_per_file: int | None = None, frame_per_point: int | None = None
    ) -> None:
        said = frame_per_point if images_per_file is None else images_per_file
        if said is None:
            raise DocumentError(f"how many images the files {filename}_... have is not said; expected images_per_file.")
        positive(said, "images_per_file")
        self._filename = str(filename)

    def __call__(self, seq_id: int, frame_num: int | None = None) -> NDArray[Any]:
        """All images of a sequence, of shape (images, y, x), or one of them.

        Raises
        ------
        UnreadableFileError
            If one is missing; it names the file.
        """
        frames, wanted = self._frames(seq_id, frame_num)
        values = frames.read(wanted)
        return values if frame_num is None else values.reshape(values.shape[1:])

    def format(self, *, seq_id: int, frame_num: int | None = None) -> ArrayFormat:
        """Shape and dtype of what is read, which has to be there."""
        frames, wanted = self._frames(seq_id, frame_num)
        stored = frames.format(wanted)
        return stored if frame_num is None else ArrayFormat(stored.shape[1:], stored.dtype)

    def get_file_list(self, datum_kwargs_gen: Iterable[Mapping[str, Any]]) -> list[str]:
        """The master files, and the data files beside them."""
        files: list[str] = []
        for datum_kwargs in datum_kwargs_gen:
            master = Path(self._path(datum_kwargs["seq_id"]))
            beside = master.parent.glob(f"{escape(master.name.removesuffix('master.h5'))}*")
            files += sorted(map(str, beside)) or [str(master)]
        return files

    def _path(self, seq_id: int) -> str:
        return f"{self._filename}_{seq_id}_master.h5"

    def _frames(self, seq_id: int, frame_num: int | None) -> tuple[DatasetFrames, range]:
        path, layout = self._path(seq_id), None
        for group in _GROUPS:
            try:
                layout = shared_files().layout(path, group, swmr=True)
            except NoDatasetError:
                continue
            break
        if layout is None or layout.virtual is None or not layout.virtual.parts:
            raise UnreadableFileError(f"file {path} has no links to data files (data_000001 and on) in {_GROUPS[0]}.")
        if layout.virtual.ends and frame_num is None:
            # A sequence that was aborted, or is not all written: fewer images than there were to be are not all.
            raise TruncatedFileError(
                f"file {path} links to more images than there are ({layout.count} so far): {layout.virtual.ends} "
                f"Single images are read with a frame_num, or as frames of its dataset {group}."
            )
        wanted = range(layout.count) if frame_num is None else range(frame_num, frame_num + 1)
        return DatasetFrames(path, group), wanted
