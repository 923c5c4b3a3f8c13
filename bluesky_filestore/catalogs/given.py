"""What may be given for a catalog: a client of Tiled's, a Broker, or several."""

from collections.abc import Iterable
from typing import Any

from bluesky_filestore.errors import OptionError
from bluesky_filestore.visible import shown_address

from .databroker.broker import client_of
from .tiled.catalog import TiledCatalog

__all__ = ["catalogs_of"]


def catalogs_of(given: Any) -> list[TiledCatalog]:
    """The catalogs that are meant by a client, a Broker, or several.

    Raises
    ------
    OptionError
        If it is something else.
    """
    if isinstance(given, TiledCatalog):
        return [given]
    given = client_of(given)
    if isinstance(given, str):
        shown = shown_address(given)
        raise OptionError(f"{shown!r} is an address, and no client; use CatalogWriter.from_uri({shown!r}).")
    clients = [given] if hasattr(given, "context") or not isinstance(given, Iterable) else list(map(client_of, given))
    if not clients or not all(hasattr(each, "context") for each in clients):
        raise OptionError(f"{given!r} is no client of Tiled; expected a container, a Broker, or several.")
    for each in clients:
        if any(spec.name.startswith("Bluesky") for spec in getattr(each, "specs", ())):
            raise OptionError(f"{each!r} is in a catalog, and none; expected a container that holds runs.")
    return [TiledCatalog(each) for each in clients]
