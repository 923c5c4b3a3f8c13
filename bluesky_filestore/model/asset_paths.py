"""Which assets of a data source are its files, and the paths that Tiled takes their URIs for."""

import re
from collections.abc import Sequence
from typing import Any

from bluesky_filestore.errors import AddressError

__all__ = ["NOT_IN_URIS", "listed_assets", "path_of_asset"]

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
