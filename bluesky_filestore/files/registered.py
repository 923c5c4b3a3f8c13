"""From what is registered of an array to its frames: the only place that knows what a data source means."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.errors import AddressError, UnreadableFileError
from bluesky_filestore.model.addressing import FILE_SERIES, HDF5_ROWS, FileSeries, HDF5Rows, parsed_slice
from bluesky_filestore.model.limits import Limits, check_width
from bluesky_filestore.model.specs import HDF5, JPEG_SERIES, NPY_SERIES, TIFF_SERIES

from .hdf5 import HDF5Files, shared_files
from .hdf5_joined import JoinedDatasets
from .hdf5_rows import HDF5Dataset, HDF5Frames, SpanIndex
from .readable import ANYWHERE, Roots
from .rows import ReadableFrames, fits_in
from .series import FileSamples, FrameFiles, file_reader, frame_shape_of
from .stamps import Stamps, stamps_of

__all__ = ["OpenFrames", "Registered", "checked_dtype", "frames_of", "joined_datasets"]

OpenFrames: TypeAlias = Callable[[], ReadableFrames]
"""Gives the frames as they are now; files grow and are replaced."""


@dataclass(frozen=True, slots=True)
class Registered:
    """An array whose frames are in files, in the words of a data source."""

    mimetype: str
    """What the files are."""
    parameters: Mapping[str, Any]
    """Which rows of them the array has."""
    properties: Mapping[str, Any]
    """What else is known of them."""
    paths: Sequence[str]
    """The files, or the directories of a series, in their order."""
    shape: tuple[int, ...]
    """Of the array."""
    dtype: np.dtype[Any]
    """Of its elements."""
    roots: Roots = ANYWHERE
    """Where its files may lie, if whoever says where they are is not trusted."""

    @property
    def stamps(self) -> Stamps | None:
        """What the files were like when they were registered, if that is known."""
        return stamps_of(self.properties)


def frames_of(registered: Registered, *, files: HDF5Files | None = None, roots: Roots | None = None) -> OpenFrames:
    """The frames of an array.

    Parameters
    ----------
    registered : Registered
        The array.
    files : HDF5Files, optional
        The pool that HDF5 files are opened through; by default the one of this process.
    roots : Roots, optional
        Where the files may lie; by default where the array says.

    Raises
    ------
    AddressError
        If nothing of ours reads the mimetype, or parameters and files do not say which frames are meant.
    """
    try:
        make = _MAKERS[registered.mimetype]
    except KeyError:
        raise AddressError(
            f"files of type {registered.mimetype!r} are not among those that are read by their frames; expected one "
            f"of {', '.join(_MAKERS)}."
        ) from None
    return make(registered, shared_files() if files is None else files, registered.roots if roots is None else roots)


def joined_datasets(registered: Registered, files: HDF5Files, roots: Roots) -> JoinedDatasets:
    """What an array of the mimetype ``application/x-hdf5`` is made of.

    Raises
    ------
    AddressError
        If the slice cannot be understood.
    """
    parameters = registered.parameters
    name, text = parameters.get("dataset", "/"), parameters.get("slice") or ""
    if not isinstance(text, str):
        raise AddressError(f"slice is {text!r}; expected words such as ':,0:2'.")
    dataset = HDF5Dataset(
        files,
        tuple(registered.paths),
        name if isinstance(name, str) else "/".join(name),
        bool(parameters.get("swmr")),
        roots,
        registered.stamps,
    )
    return JoinedDatasets(dataset, parsed_slice(text), bool(parameters.get("squeeze")), registered.shape)


def checked_dtype(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """What was read, in the dtype that is registered.

    Raises
    ------
    UnreadableFileError
        If that would change values.
    """
    if values.dtype == dtype:
        return values
    if not fits_in(values.dtype, dtype):
        raise UnreadableFileError(
            f"the files hold {values.dtype}; expected {dtype}, as it is registered: register what they hold."
        )
    return values.astype(dtype)


def _joined(registered: Registered, files: HDF5Files, roots: Roots) -> OpenFrames:
    return joined_datasets(registered, files, roots).frames


def _hdf5_rows(registered: Registered, files: HDF5Files, roots: Roots) -> OpenFrames:
    rows = HDF5Rows.from_parameters(registered.parameters)
    _check_claims(rows, roots.limits)
    missing = next((span for span in rows.rows if span.asset >= len(registered.paths)), None)
    if missing is not None:
        raise AddressError(f"rows are in file number {missing.asset}; expected one of {len(registered.paths)} assets.")
    dataset = HDF5Dataset(files, tuple(registered.paths), rows.dataset, rows.swmr, roots, registered.stamps)
    index = SpanIndex(rows.rows, rows.frames_per_event)
    inner = parsed_slice(rows.slice)
    return lambda: HDF5Frames(dataset, index, inner)


def _check_claims(rows: HDF5Rows | FileSeries, limits: Limits) -> None:
    limits.check("spans", len(rows.rows), "its registration is made of", "row spans")
    limits.check("frames", sum(span.count for span in rows.rows) * rows.frames_per_event, "its rows claim", "frames")


def _file_series(registered: Registered, files: HDF5Files, roots: Roots) -> OpenFrames:
    for template in registered.parameters.get("templates") or ():
        check_width(template, roots.limits)
    series = FileSeries.from_parameters(registered.parameters)
    _check_claims(series, roots.limits)
    directories = tuple(registered.paths)
    if len(directories) < len(series.templates):
        raise AddressError(
            f"there are {len(series.templates)} templates for {len(directories)} directories; expected one a directory."
        )
    index = SpanIndex(series.rows, series.frames_per_event)

    def path_of(frame: int) -> str:
        asset, number = index.locate(frame)
        return f"{directories[asset]}/{series.file_name(asset, number)}"

    read_file = file_reader(series.mimetype, series.dataset, hdf5=files, roots=roots)
    shape = frame_shape_of(registered.shape, index.count)
    samples = FileSamples(series.mimetype, read_file, roots)
    dataset = series.dataset if series.mimetype == HDF5 else ""
    frames = FrameFiles(path_of, index.count, shape, registered.dtype, read_file, samples, registered.stamps, dataset)
    return lambda: frames


def _listed_files(registered: Registered, files: HDF5Files, roots: Roots) -> OpenFrames:
    paths = registered.paths
    chunks = registered.properties.get("chunks")
    # The data source may say what the shape of a file's frame is; else it is what is left of the array's.
    shape = tuple(map(sum, chunks[1:])) if chunks else frame_shape_of(registered.shape, len(paths))
    read_file = file_reader(registered.mimetype, "", hdf5=files, roots=roots)
    samples = FileSamples(registered.mimetype, read_file, roots)
    frames = FrameFiles(paths.__getitem__, len(paths), shape, registered.dtype, read_file, samples, registered.stamps)
    return lambda: frames


_MAKERS: Mapping[str, Callable[[Registered, HDF5Files, Roots], OpenFrames]] = {
    HDF5: _joined,
    HDF5_ROWS: _hdf5_rows,
    FILE_SERIES: _file_series,
    TIFF_SERIES: _listed_files,
    NPY_SERIES: _listed_files,
    JPEG_SERIES: _listed_files,
}
