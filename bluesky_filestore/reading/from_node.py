"""An array of a Tiled catalog: what is registered of it, and how it is read through the server."""

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from bluesky_filestore.catalogs.tiled.connecting import catalog_errors
from bluesky_filestore.catalogs.tiled.values import read_array
from bluesky_filestore.errors import AddressError, FileStoreError
from bluesky_filestore.files import registered as reading
from bluesky_filestore.files.registered import OpenFrames, Registered
from bluesky_filestore.files.rows import ArrayIndex, as_axis_key, expanded_index
from bluesky_filestore.files.stamps import without_stamps
from bluesky_filestore.handlers import handler_registry
from bluesky_filestore.handlers.handled_frames import handled_frames
from bluesky_filestore.model.addressing import HANDLED
from bluesky_filestore.model.asset_paths import listed_assets, path_of_asset
from bluesky_filestore.model.ragged_rows import RAGGED
from bluesky_filestore.model.root_map import RootMap

from .mapped_paths import mapped_paths

if TYPE_CHECKING:
    from tiled.client.array import ArrayClient
    from tiled.client.ragged import RaggedClient

__all__ = ["ArrayInCatalog", "RowsAhead", "frames_of", "ragged_of", "registered_of"]

_BLOCK_BYTES = 2**18


class ArrayInCatalog:
    """An array that is read through the server.

    Parameters
    ----------
    node : tiled.client.array.ArrayClient
        The array.
    """

    def __init__(self, node: "ArrayClient") -> None:
        self._node = node

    @property
    def uri(self) -> str:
        """Its address."""
        return str(self._node.uri)

    def read(self, index: ArrayIndex = ...) -> NDArray[Any]:
        """A part of the array.

        Raises
        ------
        IndexError
            If the index does not fit the shape.
        CatalogError
            If the catalog does not give it.
        """
        keys = tuple(map(as_axis_key, expanded_index(index, tuple(self._node.shape))))
        return read_array(self._node, keys)


class RowsAhead:
    """An array of a catalog of which several rows are asked for at once, where that takes no longer than one."""

    def __init__(self, node: Any, every_frame: bool) -> None:
        self._array = ArrayInCatalog(node)
        rows, size = max(1, int(node.shape[0])), prod(map(int, node.shape)) * node.dtype.itemsize
        self._count = max(1, _BLOCK_BYTES * rows // max(1, size)) if every_frame or size <= _BLOCK_BYTES else 1
        self._block: tuple[int, NDArray[Any]] | None = None

    def read(self, index: tuple[int]) -> NDArray[Any]:
        """One row."""
        (row,) = index
        first = row - row % self._count
        if self._count > 1 and (self._block is None or self._block[0] != first):
            try:
                self._block = first, self._array.read((slice(first, first + self._count),))
            except FileStoreError:
                # It is to be known of which row.
                self._count = 1
        return self._array.read(index) if self._count == 1 or self._block is None else self._block[1][row - first]


def registered_of(node: "ArrayClient", root_map: RootMap, *, allow_changed: bool = False) -> Registered:
    """What a catalog says of the files of an array; not what they were like if they may be others by now.

    Raises
    ------
    AddressError
        If the array is not in files, or in more than one way.
    PathError
        If a directory it is in is none of this machine.
    CatalogError
        If the catalog does not tell.
    """
    with catalog_errors(str(node.uri), node):
        sources = node.data_sources() or []
    if len(sources) != 1:
        raise AddressError(f"the catalog has {len(sources)} data sources for it; expected one")
    (source,) = sources
    if source.management != "external":
        raise AddressError("its values are in the catalog itself; expected files that were registered")
    if node.structure_family not in ("array", "ragged"):
        raise AddressError(f"it is of Tiled's family {node.structure_family!r}; expected an array")
    structure, properties = node.structure(), dict(getattr(source, "properties", None) or {})
    paths = [path_of_asset(asset.data_uri) for asset in listed_assets(source.assets)]
    return Registered(
        source.mimetype,
        dict(source.parameters or {}),
        without_stamps(properties) if allow_changed else properties,
        mapped_paths(paths, source.mimetype, root_map),
        tuple(structure.shape),
        structure.data_type.to_numpy_dtype(),
    )


def ragged_of(node: "RaggedClient", root_map: RootMap, *, allow_changed: bool = False) -> Registered:
    """The same of an array whose rows differ in shape; `Registered.shape` is the number of rows alone."""
    registered = registered_of(node, root_map, allow_changed=allow_changed)
    if registered.mimetype != RAGGED:
        raise AddressError(f"its files are of type {registered.mimetype!r}; expected {RAGGED}")
    return replace(registered, shape=registered.shape[:1])


def frames_of(registered: Registered) -> OpenFrames:
    """The frames of an array, by a handler where that is what the catalog says.

    Raises
    ------
    AddressError
        If nothing of ours reads the mimetype, nobody has the handler, or it is not said which frames are meant.
    """
    if registered.mimetype != HANDLED:
        return reading.frames_of(registered)
    frames = handled_frames(registered, handlers=handler_registry, roots=registered.roots)
    return lambda: frames
