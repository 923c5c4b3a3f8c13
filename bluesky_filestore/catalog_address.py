"""Addresses of catalogs, which are their names in spools: as Tiled's client would have them, without asking anybody."""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING

from bluesky_filestore.errors import CatalogUnreachableError
from bluesky_filestore.visible import shown_address

if TYPE_CHECKING:
    import httpx

__all__ = ["ADDRESS_EXAMPLE", "IN_MEMORY", "comparable_address", "container_address", "node_address"]

ADDRESS_EXAMPLE = "http://localhost:8000"
IN_MEMORY = "memory"
"""The scheme of catalogs that go with the process they are in."""


def container_address(uri: str) -> str:
    """The address of a container as Tiled's client would have it, without asking anybody, and without an API key.

    Raises
    ------
    CatalogUnreachableError
        If it is no address.

    Examples
    --------
    >>> container_address("http://localhost:8000")
    'http://localhost:8000/api/v1/metadata/'
    >>> container_address("https://tiled.example.org/api/v1/metadata/raw")
    'https://tiled.example.org/api/v1/metadata/raw'
    """
    # Here, for who only spools has no use for it, and it takes a while to load.
    import httpx

    try:
        url = httpx.URL(uri)
    except (httpx.InvalidURL, TypeError):
        # What httpx says has the address in it, and with it perhaps a key.
        raise CatalogUnreachableError(
            f"{shown_address(uri)!r} is no address that can be used; expected one such as {ADDRESS_EXAMPLE}."
        ) from None
    if url.scheme == IN_MEMORY:
        return str(url)
    base, is_node, node = url.path.partition("/metadata")
    if not is_node:
        base = base.rstrip("/")
        # As Tiled's client reads an address that says less than all.
        base += "/api/v1" if "/api" not in base else "/v1" if "/v1" not in base else ""
    return node_address(url, base, node.split("/"))


@lru_cache(maxsize=256)
def comparable_address(uri: str) -> str:
    """What the addresses of one container have in common, however they are written.

    Examples
    --------
    >>> comparable_address("http://127.0.0.1:8000/api/v1/metadata/raw/") == comparable_address(
    ...     "http://LOCALHOST:8000/api/v1/metadata/raw"
    ... )
    True
    """
    import httpx

    try:
        url = httpx.URL(container_address(uri))
    except CatalogUnreachableError:
        return uri
    return str(url.copy_with(host="localhost")) if _is_this_machine(url.host) else str(url)


def node_address(url: "httpx.URL", base: str, parts: Iterable[str]) -> str:
    """The address of a node, by its path."""
    node = "/".join(part for part in parts if part)
    return shown_address(url.copy_with(path=f"{base.rstrip('/')}/metadata/{node}", query=None, fragment=None))


def _is_this_machine(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified
