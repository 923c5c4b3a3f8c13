"""Where files are now that were recorded elsewhere: a map of directories."""

from collections.abc import Mapping
from pathlib import PurePath

from bluesky_filestore.errors import PathError

from .paths import FlavouredPath, absolute_root, check_semantics, pure_path, semantics_of

__all__ = ["RootMap"]


class RootMap:
    r"""Directories as documents name them, and where they are for this machine.

    Parameters
    ----------
    mapping : Mapping of str to str, optional
        From an absolute directory to an absolute directory, of either flavour each.

    Raises
    ------
    PathError
        If one of them is not absolute.

    Examples
    --------
    >>> moved = RootMap({"/data": "/archive", "/data/2026": "/recent", "Z:\\data": "/mnt/z"})
    >>> moved.find("/data/2026/11/a.h5"), moved.find("z:/data/b.h5"), moved.find("/database/c.h5")
    (PurePosixPath('/recent/11/a.h5'), PurePosixPath('/mnt/z/b.h5'), PurePosixPath('/database/c.h5'))
    """

    def __init__(self, mapping: Mapping[str, str] | None = None) -> None:
        pairs = [(absolute_root(old), absolute_root(new)) for old, new in (mapping or {}).items()]
        # The longest first: it says most of the path.
        self._pairs = sorted(pairs, key=lambda pair: len(pair[0].parts), reverse=True)

    def __repr__(self) -> str:
        return f"RootMap({ {str(old): str(new) for old, new in self._pairs} })"

    def find(self, path: str | PurePath) -> FlavouredPath:
        """Where a file is now: below the longest directory of the map that holds it, else where it was.

        Windows paths are compared as Windows does, without regard to upper and lower case.

        Raises
        ------
        PathError
            If the path is not absolute.
        """
        asked = pure_path(path, semantics_of(path))
        pair = self.pair_for(asked)
        if pair is None:
            return asked
        old, new = pair
        return pure_path(new / asked.relative_to(old).as_posix(), semantics_of(new))

    def pair_for(self, path: FlavouredPath) -> tuple[FlavouredPath, FlavouredPath] | None:
        """The longest directory of the map that holds a path, and where that is now; None if none does."""
        return next(
            ((old, new) for old, new in self._pairs if type(old) is type(path) and path.is_relative_to(old)), None
        )

    def find_here(self, path: str | PurePath) -> FlavouredPath:
        """The same, checked to be a path that this machine can have.

        Raises
        ------
        PathError
            If it is one of the other flavour.
        """
        found = self.find(path)
        if semantics_of(found) != check_semantics(None):
            raise PathError(
                f"path {str(found)!r} is a {semantics_of(found)} path, which this machine has not; say where the disk "
                f"is here: root_map={{{found.anchor!r}: ...}}."
            )
        return found
