"""Paths as they were recorded, found where they are for this machine, each when it is needed."""

from collections.abc import Iterator, Sequence
from typing import overload

from bluesky_filestore.model.addressing import FILE_SERIES
from bluesky_filestore.model.root_map import RootMap

__all__ = ["MappedPaths", "mapped_paths"]


def mapped_paths(recorded: Sequence[str], mimetype: str, root_map: RootMap) -> Sequence[str]:
    """Paths of this machine for the recorded ones of a data source.

    Raises
    ------
    PathError
        If a directory of a series is none of this machine; of files, when one is looked up.
    """
    if mimetype == FILE_SERIES:
        return [str(root_map.find_here(path)) for path in recorded]
    return MappedPaths(recorded, root_map)


class MappedPaths(Sequence[str]):
    """Paths of this machine for recorded ones of files.

    A series may have 100,000 files in one directory, of which few are read: a directory is looked up once.

    Parameters
    ----------
    recorded : sequence of str
        Absolute paths, posix or windows.
    root_map : RootMap
        Where their directories are now.
    """

    def __init__(self, recorded: Sequence[str], root_map: RootMap) -> None:
        self._recorded, self._root_map = recorded, root_map
        self._directories: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._recorded)

    def __iter__(self) -> Iterator[str]:
        return map(self._mapped, self._recorded)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self._mapped(path) for path in self._recorded[place]]
        return self._mapped(self._recorded[place])

    def _mapped(self, path: str) -> str:
        cut = path.rfind("/") + 1
        directory, name = path[:cut], path[cut:]
        if not cut or not name:
            return str(self._root_map.find_here(path))
        found = self._directories.get(directory)
        if found is None:
            found = str(self._root_map.find_here(directory)).rstrip("/") + "/"
            self._directories[directory] = found
        return found + name
