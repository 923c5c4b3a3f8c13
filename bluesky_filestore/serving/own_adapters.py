"""Adapters for the mimetypes of our own: rows anywhere in HDF5 files, rows that are files of a series."""

from typing import TYPE_CHECKING, Any

from bluesky_filestore.addressing import FileSeries, HDF5Rows, parsed_slice
from bluesky_filestore.errors import AddressError
from bluesky_filestore.reading.files import ANYWHERE, Roots
from bluesky_filestore.reading.hdf5 import HDF5Files, shared_files
from bluesky_filestore.reading.hdf5_rows import HDF5Dataset, HDF5Frames, SpanIndex
from bluesky_filestore.reading.series import FrameFiles, file_reader, frame_shape_of

from .assets import paths_of
from .frames_adapter import FramesAdapter, answered

if TYPE_CHECKING:
    from tiled.structures.array import ArrayStructure
    from tiled.structures.data_source import DataSource

__all__ = ["FileSeriesAdapters", "HDF5RowsAdapters"]


class HDF5RowsAdapters:
    """Makes the adapters of data sources of the mimetype `bluesky_filestore.addressing.HDF5_ROWS`.

    Parameters
    ----------
    roots : Roots
        Where files may lie, beside what Tiled allows.
    files : HDF5Files, optional
        The pool they are opened through; by default the one of this process.
    """

    def __init__(self, roots: Roots = ANYWHERE, files: HDF5Files | None = None) -> None:
        self._roots = roots
        self._files = files or shared_files()

    def from_catalog(self, data_source: "DataSource[ArrayStructure]", node: Any, /, **parameters: Any) -> FramesAdapter:
        """The adapter of a data source, as Tiled asks for it.

        Raises
        ------
        HTTPException
            If the data source does not say which frames its rows are.
        """
        with answered():
            rows = HDF5Rows.from_parameters(parameters)
            paths = paths_of(data_source)
            missing = next((span for span in rows.rows if span.asset >= len(paths)), None)
            if missing is not None:
                raise AddressError(f"rows are in file number {missing.asset}; expected one of {len(paths)} assets.")
            dataset = HDF5Dataset(self._files, tuple(paths), rows.dataset, rows.swmr, self._roots)
            index = SpanIndex(rows.rows, rows.frames_per_event)
            inner = parsed_slice(rows.slice)
        return FramesAdapter(
            lambda: HDF5Frames(dataset, index, inner), data_source.structure, metadata=node.metadata_, specs=node.specs
        )


class FileSeriesAdapters:
    """Makes the adapters of data sources of the mimetype `bluesky_filestore.addressing.FILE_SERIES`.

    Parameters
    ----------
    roots : Roots
        Where files may lie, beside what Tiled allows.
    files : HDF5Files, optional
        The pool that HDF5 files are opened through; by default the one of this process.
    """

    def __init__(self, roots: Roots = ANYWHERE, files: HDF5Files | None = None) -> None:
        self._roots = roots
        self._files = files or shared_files()

    def from_catalog(self, data_source: "DataSource[ArrayStructure]", node: Any, /, **parameters: Any) -> FramesAdapter:
        """The adapter of a data source, as Tiled asks for it.

        Raises
        ------
        HTTPException
            If the data source does not say which files its rows are.
        """
        structure = data_source.structure
        with answered():
            series = FileSeries.from_parameters(parameters)
            directories = paths_of(data_source)
            if len(directories) < len(series.templates):
                raise AddressError(
                    f"there are {len(series.templates)} templates for {len(directories)} directories; expected one "
                    f"a directory."
                )
            index = SpanIndex(series.rows, series.frames_per_event)

            def path_of(frame: int) -> str:
                asset, number = index.locate(frame)
                return f"{directories[asset]}/{series.file_name(asset, number)}"

            frames = FrameFiles(
                path_of,
                index.count,
                frame_shape_of(tuple(structure.shape), index.count),
                structure.data_type.to_numpy_dtype(),
                file_reader(series.mimetype, series.dataset, hdf5=self._files, roots=self._roots),
            )
        return FramesAdapter(lambda: frames, structure, metadata=node.metadata_, specs=node.specs)
