"""A lazy array whose frames are read when they are asked for."""

import math
import operator
from collections.abc import Iterator
from functools import cached_property
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.catalogs.databroker.broker import client_of
from bluesky_filestore.catalogs.databroker.runs import documents_of_run, run_of
from bluesky_filestore.errors import (
    AddressError,
    ForbiddenFileError,
    LockedFileError,
    MissingFileError,
    PathError,
    UnreadableFileError,
)
from bluesky_filestore.extras import from_extra
from bluesky_filestore.files.array_in_files import ArrayInFiles
from bluesky_filestore.files.ragged import RaggedInFiles
from bluesky_filestore.files.registered import Registered
from bluesky_filestore.files.rows import AxisKey
from bluesky_filestore.logs import get_logger
from bluesky_filestore.model.ragged_rows import RaggedShape
from bluesky_filestore.model.root_map import RootMap
from bluesky_filestore.visible import visible_line

from .from_documents import Documents, array_of_documents
from .from_node import ArrayInCatalog, frames_of, ragged_of, registered_of
from .ragged_array import RaggedArray, RaggedInCatalog, rows_of_events

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dask.array import Array as DaskArray
    from tiled.client.array import ArrayClient

__all__ = ["Chunks", "FileArray", "open_array"]

Chunks: TypeAlias = tuple[tuple[int, ...], ...]
"""The sizes of the chunks along each axis."""

_logger = get_logger(__name__)
_OUT_OF_REACH = (AddressError, PathError, MissingFileError, ForbiddenFileError, LockedFileError)


class FileArray:
    """An array that is read when it is indexed, as numpy's basic indexing does it; made by `open_array`.

    It can be handed to other threads and processes.

    Parameters
    ----------
    array : ArrayInFiles or ArrayInCatalog
        Reads it.
    shape, dtype, chunks
        Of the array.
    name : str
        What it is, for messages.
    reason : str
        Why it is not read straight from the files, if it is not.
    """

    def __init__(
        self,
        array: ArrayInFiles | ArrayInCatalog,
        *,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        chunks: Chunks,
        name: str,
        reason: str = "",
    ) -> None:
        self._array = array
        self.shape, self.dtype, self.chunks = shape, dtype, chunks
        self.name, self.reason = name, reason

    @property
    def source(self) -> Literal["files", "catalog"]:
        """Where it is read: straight from the files, or through the catalog; then `reason` says why."""
        return "files" if isinstance(self._array, ArrayInFiles) else "catalog"

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The size of the whole array in memory, in bytes."""
        return self.size * self.dtype.itemsize

    @cached_property
    def dask(self) -> "DaskArray":
        """The same as a dask array of the chunks, each read when it is computed, in whatever process."""
        with from_extra("write"):
            from dask.array import from_array

        made: DaskArray = from_array(
            self, chunks=self.chunks, name=False, fancy=False, meta=np.empty((0,) * self.ndim, self.dtype)
        )
        return made

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Read a part of the array.

        Parameters
        ----------
        index : int, slice, Ellipsis, or a tuple of these
            For anything else numpy takes, index what is read, or `dask`.

        Raises
        ------
        IndexError
            If the index does not fit, or is none of these.
        UnreadableFileError
            If a frame cannot be read straight from its file; a note says for which index.
        CatalogError
            If the catalog does not give it.
        """
        keys = tuple(_basic(key) for key in (index if isinstance(index, tuple) else (index,)))
        try:
            values = self._array.read(keys)
        except UnreadableFileError as error:
            error.add_note(f"It was to be read for {self.name}, index {_shown(keys)}.")
            raise
        # numpy gives an element as a number.
        return values if values.ndim else values[()]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError(f"{self!r} cannot be had without being read; expected copy=None or copy=True.")
        return np.asarray(self[...], dtype=dtype)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of an array without axes.")
        return self.shape[0]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[row] for row in range(len(self)))

    def __repr__(self) -> str:
        where = "straight from files" if self.source == "files" else f"through the catalog: {self.reason}"
        return visible_line(f"<FileArray {self.name}, shape={self.shape}, dtype={self.dtype}, {where}>")

    def __getstate__(self) -> "Mapping[str, Any]":
        # The dask array holds this one.
        return {name: value for name, value in self.__dict__.items() if name != "dask"}


def open_array(
    node_or_documents: "ArrayClient | Documents",
    data_key: str | None = None,
    stream: str | None = None,
    *,
    root_map: "Mapping[str, str] | None" = None,
    allow_changed: bool = False,
) -> FileArray | RaggedArray:
    """A lazy array that is read straight from the files where they are in reach, else through the catalog.

    Which it is, is in the array's ``source`` and in the log. Whether the files are in reach is decided once, here, by
    those of the first and the last frame: a file that disappears later is an error that names it, since going another
    way unasked would hide what happened.

    Parameters
    ----------
    node_or_documents : tiled.client.array.ArrayClient, or iterable of tuple of str and Mapping
        An array of a catalog, e.g. ``run["primary"]["det_image"]``; a run or a stream of a catalog, with the key of one
        of its arrays; or the documents of one run, or a run of databroker (``db[uid]``), which can be read only from
        files. These are all looked for, as when they are registered.
    data_key, stream : str, optional
        For documents: which array; may be left out where there is only one. For a run: by default of its stream
        ``primary``. Values that came in events and are not all alike are had so, too.
    root_map : Mapping of str to str, optional
        Where directories are now that the catalog, or the documents, name; that of the longest matching path is taken.
        Windows paths too.
    allow_changed : bool
        Whether files may be others than those that were registered. By default that is an error that names the file.
        Documents do not say what files were like: there it makes no difference.

    Returns
    -------
    FileArray or RaggedArray
        Of the shape, dtype and chunks that the catalog has, or would have; the latter where rows differ in shape.

    Raises
    ------
    TypeError
        If it is a node that is no array, or a text.
    UnreadableFileError
        If the files hold other frames than the catalog says; for documents, if they are not in reach.
    ChangedFileError
        If the file of the first or of the last frame is not the one that was registered.
    DocumentError
        If the documents do not say where the array's frames are.
    CatalogError
        If the catalog does not tell where its files are.
    """
    mapped = RootMap(root_map)
    if isinstance(node_or_documents, str | bytes):
        raise TypeError(
            f"{node_or_documents!r} is no array; expected one such as run['primary']['det_image'], or the documents of "
            f"a run."
        )
    if (of_databroker := run_of(node_or_documents)) is not None:
        node_or_documents = documents_of_run(of_databroker)
    node_or_documents = client_of(node_or_documents)
    if not hasattr(node_or_documents, "data_sources"):
        found = array_of_documents(node_or_documents, stream=stream, data_key=data_key, root_map=mapped)
        if found.ragged is not None:
            return _told_ragged(found.registered, found.ragged, found.name)
        straight = ArrayInFiles(found.registered, frames_of)
        straight.check_reach()
        return _told(straight, found.registered.shape, found.registered.dtype, found.chunks, found.name)
    node: Any = node_or_documents
    if data_key is not None and getattr(node, "structure_family", None) in ("container", "composite"):
        return _array_in(getattr(node, "base", node), data_key, stream, root_map, allow_changed=allow_changed)
    if getattr(node, "structure_family", None) == "ragged":
        return _ragged_array(node, mapped, allow_changed=allow_changed)
    if getattr(node, "structure_family", None) != "array":
        raise TypeError(f"{node!r} is no array; expected one such as run['primary']['det_image'].")
    structure = node.structure()
    shape, dtype, chunks = tuple(structure.shape), structure.data_type.to_numpy_dtype(), tuple(structure.chunks)
    name = "/".join(node.path_parts[-2:])
    try:
        straight = ArrayInFiles(registered_of(node, mapped, allow_changed=allow_changed), frames_of)
        straight.check_reach()
    except _OUT_OF_REACH as error:
        return _told(ArrayInCatalog(node), shape, dtype, chunks, name, reason=str(error))
    return _told(straight, shape, dtype, chunks, name)


def _array_in(
    node: Any, data_key: str, stream: str | None, root_map: "Mapping[str, str] | None", *, allow_changed: bool
) -> FileArray | RaggedArray:
    """An array of a run, or of a stream, by its key."""
    if stream is not None or "BlueskyRun" in {spec.name for spec in node.specs}:
        found = node[stream or "primary"]
        node = getattr(found, "base", found)
    if data_key in node:
        sources = node[data_key].data_sources() or []
        if [source.management for source in sources] == ["external"]:
            return open_array(node[data_key], root_map=root_map, allow_changed=allow_changed)
    return rows_of_events(node, data_key)


def _ragged_array(node: Any, root_map: RootMap, *, allow_changed: bool) -> RaggedArray:
    structure, name = node.structure(), "/".join(node.path_parts[-2:])
    try:
        return _told_ragged(ragged_of(node, root_map, allow_changed=allow_changed), tuple(structure.shape[1:]), name)
    except _OUT_OF_REACH as error:
        dtype = structure.data_type.to_numpy_dtype()
        return RaggedArray(
            RaggedInCatalog(node), shape=tuple(structure.shape), dtype=dtype, name=name, reason=str(error)
        )


def _told_ragged(registered: Registered, row_shape: RaggedShape, name: str) -> RaggedArray:
    """The array straight from the files, if those of each part are in reach."""
    count = registered.shape[0]
    rows = RaggedInFiles(
        registered.parameters,
        registered.properties,
        registered.paths,
        count,
        registered.dtype,
        frames_of,
        registered.roots,
    )
    rows.check_reach()
    return RaggedArray(rows, shape=(count, *row_shape), dtype=registered.dtype, name=name)


def _told(
    array: ArrayInFiles | ArrayInCatalog,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    chunks: Chunks,
    name: str,
    reason: str = "",
) -> FileArray:
    """The array, with a line in the log."""
    opened = FileArray(array, shape=shape, dtype=dtype, chunks=chunks, name=name, reason=reason)
    _logger.info("open_array: %r", opened)
    return opened


def _basic(key: Any) -> AxisKey | EllipsisType:
    if isinstance(key, slice | EllipsisType):
        return key
    try:
        if isinstance(key, bool | np.bool_):
            raise TypeError
        return operator.index(key)
    except TypeError:
        raise IndexError(
            f"index {key!r} is none of whole numbers, slices and '...'; for other indices use .dask, or read first: "
            f"array[...][index]."
        ) from None


def _shown(keys: tuple[AxisKey | EllipsisType, ...]) -> str:
    """An index as it is written."""
    words = []
    for key in keys:
        if isinstance(key, slice):
            bounds = ["" if bound is None else str(bound) for bound in (key.start, key.stop)]
            words.append(":".join(bounds) + (f":{key.step}" if key.step is not None else ""))
        else:
            words.append("..." if key is ... else str(key))
    return f"[{', '.join(words)}]"
