"""Paths as they were recorded, found where they are for this machine, each when it is needed."""

from collections.abc import Sequence
from functools import partial

from bluesky_filestore.files.series import LazyPaths
from bluesky_filestore.model.addressing import FILE_SERIES
from bluesky_filestore.model.root_map import RootMap

__all__ = ["mapped_paths"]


def mapped_paths(recorded: Sequence[str], mimetype: str, root_map: RootMap) -> Sequence[str]:
    """Paths of this machine for the recorded ones of a data source.

    Raises
    ------
    PathError
        If a directory of a series is none of this machine; of files, when one is looked up.
    """
    if mimetype == FILE_SERIES:
        return [str(root_map.find_here(path)) for path in recorded]
    return LazyPaths(recorded, partial(_found_here, root_map, {}))


def _found_here(root_map: RootMap, directories: dict[str, str], path: str) -> str:
    """Where a file is here; a directory, in which there may be many, is looked up once."""
    cut = path.rfind("/") + 1
    directory, name = path[:cut], path[cut:]
    if not cut or not name:
        return str(root_map.find_here(path))
    found = directories.get(directory)
    if found is None:
        found = directories[directory] = str(root_map.find_here(directory)).rstrip("/") + "/"
    return found + name
