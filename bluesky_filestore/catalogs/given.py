"""What may be given for a catalog: a client of Tiled's, a Broker, or several; or an address."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from bluesky_filestore.catalog_address import container_address
from bluesky_filestore.errors import CatalogError, OptionError
from bluesky_filestore.visible import shown_address

from .databroker.broker import client_of
from .tiled.catalog import TiledCatalog
from .tiled.connecting import is_away, key_for

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = ["catalogs_of", "connected_or_away"]


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


def connected_or_away(
    uri: str, make_client: "Callable[[], Container]", client_kwargs: Mapping[str, Any], *, may_be_away: bool = True
) -> TiledCatalog:
    """The catalog at an address, asked once, which may be away then.

    Raises
    ------
    CatalogError
        If it answers, and cannot be used; if it is away, and may not be, or there is no API key: Tiled would ask for a
        password when it is back.
    """
    catalog = TiledCatalog(make_client, container_address(uri))
    try:
        catalog.connect()
    except CatalogError as error:
        if not (may_be_away and is_away(error) and key_for(uri, client_kwargs)):
            raise
    return catalog
