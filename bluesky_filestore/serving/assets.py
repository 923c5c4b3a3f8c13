"""The files that a data source was registered with."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bluesky_filestore.errors import ForbiddenFileError
from bluesky_filestore.files.registered import Registered
from bluesky_filestore.files.stamps import without_stamps
from bluesky_filestore.model.asset_paths import listed_assets, path_of_asset

if TYPE_CHECKING:
    from tiled.structures.array import ArrayStructure
    from tiled.structures.data_source import DataSource

__all__ = ["path_of", "paths_of", "registered_of"]


def registered_of(
    data_source: "DataSource[ArrayStructure]",
    paths: Sequence[str],
    parameters: Mapping[str, Any],
    *,
    allow_changed: bool = False,
) -> Registered:
    """An array's data source in the words of the reading side, which is not to know the files again if so allowed."""
    structure, properties = data_source.structure, data_source.properties or {}
    return Registered(
        data_source.mimetype,
        parameters,
        without_stamps(properties) if allow_changed else properties,
        paths,
        tuple(structure.shape),
        structure.data_type.to_numpy_dtype(),
    )


def paths_of(data_source: "DataSource[Any]") -> list[str]:
    """The paths of a data source's files in their order.

    Raises
    ------
    AddressError
        If there are none, or one is not a file of this computer.
    ForbiddenFileError
        If a path climbs out of its directory.
    """
    return [path_of(asset.data_uri) for asset in listed_assets(data_source.assets)]


def path_of(uri: str) -> str:
    """The path that Tiled takes a URI for.

    Raises
    ------
    AddressError
        If it is not that of a file.
    ForbiddenFileError
        If it climbs out of its directory: Tiled compares paths by their words.
    """
    path = path_of_asset(uri)
    if "/../" in path or path.endswith("/.."):
        raise ForbiddenFileError(f"file {path} is reached by '..'; expected a path without.")
    return path
