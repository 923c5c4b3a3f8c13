"""Which assets of a data source are its files, and the paths that Tiled takes their URIs for."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import unquote

from bluesky_filestore.errors import AddressError, PathError

from .paths import FlavouredPath, from_uri, pure_path, semantics_of, to_uri

__all__ = ["NOT_IN_URIS", "asset_uri", "listed_assets", "moved_assets", "path_of_asset"]

NOT_IN_URIS = frozenset("#?;")
"""What Tiled takes a path for ended by: it parses the URI of an asset without unquoting it."""

_HOST = re.compile(r"file:(?://(?:localhost)?(?=/))?(/.*)", re.DOTALL)
_DRIVE = re.compile(r"/[A-Za-z]:(/|$)")


def listed_assets(assets: Sequence[Any]) -> list[Any]:
    """The assets of a data source that are its files, in the order in which Tiled hands them to an adapter.

    Raises
    ------
    AddressError
        If there are none.
    """
    if not assets:
        raise AddressError("the data source has no assets; expected the files that hold its frames.")
    listed = [asset for asset in assets if asset.num is not None or asset.parameter == "data_uris"]
    return sorted(listed, key=lambda asset: asset.num or 0) or list(assets[:1])


def path_of_asset(uri: str) -> str:
    """The path that Tiled takes the URI of an asset for (``tiled.utils.path_from_uri``).

    Raises
    ------
    AddressError
        If it is not that of a file of one machine.

    Examples
    --------
    >>> path_of_asset("file://localhost/data/50%25.h5"), path_of_asset("file:///C:/a.h5")
    ('/data/50%25.h5', 'C:/a.h5')
    """
    found = _HOST.fullmatch(uri)
    if found is None or NOT_IN_URIS & set(uri):
        raise AddressError(f"asset {uri} is not a file of one machine; expected a URI such as file://localhost/data/a")
    path = found[1]
    return path[1:] if _DRIVE.match(path) else path


def asset_uri(path: str) -> str:
    r"""The URI that Tiled takes for a path.

    Examples
    --------
    >>> asset_uri("/data/50%.h5"), asset_uri("C:\\data\\a.h5")
    ('file://localhost/data/50%.h5', 'file://localhost/C:/data/a.h5')
    """
    # Tiled does not unquote a URI's path (tiled.utils.path_from_uri), and to_uri would take "/./" out.
    if semantics_of(path) == "posix":
        return f"file://localhost{path}"
    return unquote(to_uri(path))


def moved_assets(assets: Sequence[tuple[str, bool]], find: Callable[[FlavouredPath], FlavouredPath]) -> list[str]:
    """The URIs of assets of one data source that went elsewhere; of one that did not, or is no file, as it is.

    A directory that is there more than once (a catalog has each asset once) is again, as ``directory/./name``.

    Parameters
    ----------
    assets : sequence of tuple of str and bool
        The URI of each as the catalog has it, and whether it is a directory.
    find : callable
        Gives the path of now.

    Raises
    ------
    PathError
        If two files would be one, or Tiled takes no URI for a path.

    Examples
    --------
    >>> from bluesky_filestore.model.root_map import RootMap
    >>> moved_assets([("file://localhost/a/b", True), ("file://localhost/a/./b", True)], RootMap({"/a": "/c"}).find)
    ['file://localhost/c/b', 'file://localhost/c/./b']
    """
    paths = [_path_or_none(uri) for uri, _ in assets]
    found = [path if path is None else find(path) for path in paths]
    before: dict[FlavouredPath, FlavouredPath] = {}
    times: Counter[FlavouredPath] = Counter()
    moved = []
    for (uri, is_directory), old, new in zip(assets, paths, found, strict=True):
        if old is None or new is None:
            moved.append(uri)
            continue
        if before.setdefault(new, old) != old and not is_directory:
            raise PathError(f"files {before[new]} and {old} would both be {new}; expected a place for each.")
        moved.append(uri if new == old else _uri_again(new, times[new], is_directory=uri.endswith("/")))
        times[new] += 1
    if len(set(moved)) < len({uri for uri, _ in assets}):
        raise PathError(f"of {assets[0][0]} and others some would be one; expected a place for each.")
    return moved


def _uri_again(path: FlavouredPath, times: int, *, is_directory: bool) -> str:
    if NOT_IN_URIS & set(str(path)):
        raise PathError(
            f"path {str(path)!r} has one of the characters {' '.join(sorted(NOT_IN_URIS))} in it, which Tiled takes "
            f"for the end of a file's address; expected a directory without them."
        )
    parent = path.parent.as_posix().rstrip("/")
    text = f"{parent}/{'./' * times}{path.name}" if times else str(path)
    return asset_uri(f"{text}/" if is_directory else text)


def _path_or_none(uri: str) -> FlavouredPath | None:
    try:
        # A file on a share of Windows has the name of a machine in its URI.
        if uri.startswith("file://") and not uri.startswith(("file:///", "file://localhost/")):
            return from_uri(uri)
        text = path_of_asset(uri)
        return pure_path(text, semantics_of(text))
    except (AddressError, PathError):
        return None
