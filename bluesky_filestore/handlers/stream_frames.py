"""What the indices of a StreamResource stand for, read by the handler of its format."""

from collections.abc import Iterable, Mapping
from typing import Any

from numpy.typing import NDArray

from bluesky_filestore.errors import UnknownSpecError
from bluesky_filestore.model.frame_axis import declared_shape, frames_that_fit, same_but_for_ones
from bluesky_filestore.model.frame_map import Source
from bluesky_filestore.model.specs import HDF5, JPEG_SERIES, NPY_SERIES, TIFF_SERIES

from .base import ArrayFormat, BaseHandler
from .hdf5 import HDF5DatasetHandler
from .hdf5_series import AreaDetectorHDF5SeriesHandler
from .jpeg import JPEGSeriesHandler
from .npy import NumpySeriesHandler
from .series import FileSeriesHandler
from .tiff import AreaDetectorTIFFHandler

__all__ = ["StreamFramesHandler"]

_SERIES: Mapping[str, type[FileSeriesHandler]] = {
    HDF5: AreaDetectorHDF5SeriesHandler,
    JPEG_SERIES: JPEGSeriesHandler,
    NPY_SERIES: NumpySeriesHandler,
    TIFF_SERIES: AreaDetectorTIFFHandler,
}


class StreamFramesHandler(BaseHandler):
    """Reads the array of an index, in the shape that the descriptor gives it.

    How many frames an index stands for is what the StreamResource says, or follows from the shapes, by the rules that
    the array in the catalog is made by.

    Parameters
    ----------
    source : Source
        The StreamResource.
    path : str
        Its file or directory here.
    data_key : Mapping
        Its data key in the descriptor.

    Raises
    ------
    UnknownSpecError
        If there is no handler for its mimetype.
    """

    def __init__(self, source: Source, path: str, data_key: Mapping[str, Any]) -> None:
        self._source, self._path, self._data_key = source, path, dict(data_key)
        self._one_frame = self._with_frames(1)
        self._frames: HDF5DatasetHandler | FileSeriesHandler | None = None

    def __call__(self, index: int) -> NDArray[Any]:
        """The array of an index.

        Raises
        ------
        UnreadableFileError
            If its frames cannot be read.
        """
        values = self._of_index(index)(point_number=index)
        return values.reshape(self._shape(values.shape))

    def __getstate__(self) -> dict[str, Any]:
        return {"source": self._source, "path": self._path, "data_key": self._data_key}

    def __setstate__(self, state: dict[str, Any]) -> None:
        StreamFramesHandler.__init__(self, **state)

    def format(self, *, index: int) -> ArrayFormat:
        """Shape and dtype of the array of an index."""
        stored = self._of_index(index).format(point_number=index)
        return ArrayFormat(self._shape(stored.shape), stored.dtype)

    def get_file_list(self, datum_kwargs_gen: Iterable[Mapping[str, Any]]) -> list[str]:
        """The files that hold these indices."""
        indices = [kwargs["index"] for kwargs in datum_kwargs_gen]
        if not indices:
            return []
        return self._of_index(indices[0]).get_file_list({"point_number": index} for index in indices)

    def close(self) -> None:
        """Close what is open."""
        self._one_frame.close()
        if self._frames is not None:
            self._frames.close()

    def _of_index(self, index: int) -> HDF5DatasetHandler | FileSeriesHandler:
        """The handler whose points are the indices."""
        if self._frames is None:
            count = self._source.frames_per_index or self._source.files_per_index or 1
            # Where an index is, the frame of this number is as well.
            _, *frame_shape = self._one_frame.format(point_number=index * count).shape
            frames = self._frames_per_index(tuple(frame_shape))
            reader = self._one_frame if frames == 1 else self._with_frames(frames)
            if isinstance(reader, HDF5DatasetHandler):
                reader.check_axis(declared_shape(self._data_key))
            self._frames = reader
        return self._frames

    def _frames_per_index(self, frame_shape: tuple[int, ...]) -> int:
        if self._source.files_per_index is not None:
            return self._source.files_per_index
        return frames_that_fit(declared_shape(self._data_key), frame_shape) or self._source.frames_per_index or 1

    def _shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        declared = declared_shape(self._data_key)
        if declared is None or not same_but_for_ones(declared, stored):
            return stored
        return () if declared == (1,) else declared

    def _with_frames(self, frames: int) -> HDF5DatasetHandler | FileSeriesHandler:
        source = self._source
        if source.template is None and source.mimetype == HDF5:
            options = {name: source.parameters[name] for name in ("locking", "slice") if name in source.parameters}
            return HDF5DatasetHandler(self._path, source.dataset or "", frames, **options)
        if source.template is None or source.mimetype not in _SERIES:
            raise UnknownSpecError(
                f"stream_resource {source.uid!r} has the mimetype {source.mimetype!r}, which nobody reads here; "
                f"expected one of {', '.join(_SERIES)}."
            )
        # Handlers put the directory before the name: what the template of the whole path begins with is taken off.
        directory = str(source.path).replace("%", "%%")
        template = "%s%s" + source.template.removeprefix(directory).lstrip("/")
        if source.mimetype == HDF5:
            return AreaDetectorHDF5SeriesHandler(self._path, template, "", frames, key=source.dataset or "")
        return _SERIES[source.mimetype](self._path, template, "", frames)
