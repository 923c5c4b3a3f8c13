"""Whether catalogs answer just now."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from bluesky_filestore.errors import CatalogError, CatalogUnreachableError

from .connecting import in_our_words

__all__ = ["answers", "why_not"]

_AT_ONCE = 16


def answers(uris: Iterable[str], timeout: float) -> dict[str, str]:
    """Ask all catalogs at once.

    Parameters
    ----------
    uris : iterable of str
        Their addresses.
    timeout : float
        For how many seconds each may take to answer.

    Returns
    -------
    dict
        Why a catalog does not answer, by address; empty if it does.
    """
    addresses = list(dict.fromkeys(uris))
    if not addresses:
        return {}
    with ThreadPoolExecutor(min(_AT_ONCE, len(addresses))) as pool:
        return dict(zip(addresses, pool.map(lambda uri: why_not(uri, timeout), addresses), strict=True))


def why_not(uri: str, timeout: float) -> str:
    """Why no Tiled server answers at an address; empty if one does, whatever it thinks of us."""
    import httpx

    try:
        with in_our_words(uri):
            url = httpx.URL(uri)
            base = url.path.partition("/api/v1")[0].rstrip("/")
            answer = httpx.get(url.copy_with(path=f"{base}/api/v1/", query=None), timeout=timeout)
            answer.raise_for_status()
            if "authentication" not in answer.json():
                raise CatalogUnreachableError(f"something answers at {uri} that is no Tiled server.")
    except CatalogError as error:
        return str(error)
    except (ValueError, TypeError, httpx.InvalidURL):
        return f"something answers at {uri} that is no Tiled server."
    return ""
