"""A Tiled client, or quickly the reason why there is none."""

import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from inspect import signature
from typing import TYPE_CHECKING, Any

import httpx

from bluesky_filestore.catalog_address import ADDRESS_EXAMPLE, IN_MEMORY, node_address
from bluesky_filestore.errors import (
    CatalogAccessError,
    CatalogDownError,
    CatalogError,
    CatalogFaultError,
    CatalogUnreachableError,
)
from bluesky_filestore.extras import from_extra
from bluesky_filestore.visible import shown_address

from .once import TRY_LATER, FailedOnceError, check_answer

if TYPE_CHECKING:
    from tiled.client.base import BaseClient
    from tiled.client.container import Container

__all__ = [
    "PROBE_TIMEOUT",
    "address_of",
    "ask",
    "catalog_errors",
    "client_options",
    "connect",
    "connect_profile",
    "find_outages",
    "is_away",
    "is_gone",
    "key_for",
    "may_still_be_done",
    "profile_content",
]

PROBE_TIMEOUT = 5.0
"""Seconds that a catalog may take for a word."""
# What Tiled speaks of when it refuses one run or one file, with the status that it has for keys, too (in
# tiled.server.router and tiled.catalog.adapter); the last is ours.
_WORDS_ABOUT_ONE_THING = ("access tags", "readable storage area", "is reached by '..'")
_AT_ONCE = 16
_GIVE_THE_KEY = "Give the right one as api_key, or in the environment variable TILED_API_KEY."


def connect(uri: str, **client_kwargs: Any) -> "Container":
    """A Tiled client for an address; the arguments are those of ``tiled.client.from_uri``.

    Raises
    ------
    CatalogUnreachableError
        If no Tiled server answers at the address.
    CatalogAccessError
        If the API key is not taken.
    """
    with from_extra("write"):
        from tiled.client import from_uri

    arguments = _with_stripped_key(uri, client_kwargs)
    return _connected(uri, arguments, lambda: from_uri(_without_key(uri), **arguments))


def client_options() -> set[str]:
    """The names of the arguments that a client may be made with."""
    with from_extra("write"):
        from tiled.client import from_uri

    return set(signature(from_uri).parameters) - {"uri"}


def connect_profile(name: str, **client_kwargs: Any) -> "Container":
    """A Tiled client for a profile; raises as `connect` does, or if there is no such profile."""
    with from_extra("write"):
        from tiled.client import from_profile

    content = profile_content(name)
    arguments = _with_stripped_key(content["uri"], {**content, **client_kwargs})
    given = client_kwargs | {name: arguments[name] for name in ("api_key",) if name in arguments}
    given = {"uri": _without_key(content["uri"]), **given}
    _be_silent_about_profiles()
    return _connected(content["uri"], arguments, lambda: from_profile(name, **given))


def _be_silent_about_profiles() -> None:
    """Tiled warns of a file of profiles that it leaves out, with all that is in it: a key, most of the time.

    From now on, and not for a while: filters are those of the process, and what another thread has set meanwhile would
    be undone. A second time adds nothing.
    """
    warnings.filterwarnings("ignore", message="Skipping ", module=r"tiled\.profiles")


def profile_content(name: str) -> Mapping[str, Any]:
    """What a Tiled profile holds: an address, and arguments of a client.

    Raises
    ------
    CatalogUnreachableError
        If there is no such profile, or no address in it.
    """
    with from_extra("write"):
        from tiled.profiles import load_profiles

    _be_silent_about_profiles()
    profiles = load_profiles()
    if name not in profiles:
        known = ", ".join(sorted(profiles)) or "none"
        raise CatalogUnreachableError(
            f"there is no Tiled profile {shown_address(name)!r}; known are: {known}. Add it, or give an address. Tiled "
            f"leaves out files with entries that it does not know, such as api_key: a key is in TILED_API_KEY."
        )
    content: Mapping[str, Any] = profiles[name][1]
    if "uri" not in content:
        raise CatalogUnreachableError(f"the Tiled profile {name!r} has no address; expected one under 'uri'.")
    return content


def address_of(client: "Container") -> str:
    """The address of a client's container as whoever made the client gave it, whatever the server calls it."""
    api = httpx.URL(str(client.context.api_uri))
    return node_address(api, api.path, client.path_parts)


def key_for(uri: str, client_kwargs: Mapping[str, Any]) -> str | None:
    """The API key with which a client for an address would come, if with one."""
    key = client_kwargs.get("api_key") or httpx.URL(uri).params.get("api_key") or os.environ.get("TILED_API_KEY")
    return key.strip() if isinstance(key, str) else None


def _without_key(uri: str) -> str:
    """The address that a client is made for, where the key is another argument: httpx logs all addresses.

    A user is left out as well, who would be in the header that the key goes in.
    """
    return str(httpx.URL(uri).copy_with(userinfo=b"", query=None, fragment=None))


def _with_stripped_key(uri: str, client_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a client, with the API key of wherever it is: a key out of a file ends in a newline."""
    try:
        key = key_for(uri, client_kwargs)
    except (httpx.InvalidURL, TypeError):
        key = None
    return {**client_kwargs, "api_key": key} if key else dict(client_kwargs)


def _connected(uri: str, client_kwargs: Mapping[str, Any], make: "Callable[[], Container]") -> "Container":
    with catalog_errors(shown_address(uri)):
        wants_key = _probe(uri, client_kwargs)
        try:
            return make()
        except json.JSONDecodeError as error:
            raise _no_tiled(uri) from error
        except KeyError as error:
            raise CatalogUnreachableError(
                f"the Tiled server at {shown_address(uri)} has no such container ({error})."
            ) from error
        except RuntimeError as error:
            if not wants_key:
                raise
            raise CatalogAccessError(
                f"the catalog at {shown_address(uri)} does not take visitors without an API key. {_GIVE_THE_KEY}"
            ) from error


def _probe(uri: str, client_kwargs: Mapping[str, Any]) -> bool:
    """Ask once, where Tiled's own client tries for 45 s before it gives up, and leaves a connection behind.

    The answer is whether it wants to know who comes, and no key says so.
    """
    options = {"timeout": PROBE_TIMEOUT, "verify": client_kwargs.get("verify", True)}
    authentication = _ask_for_authentication(uri, options)
    # The key goes in a header only: addresses are in the logs of whoever is between.
    key = key_for(uri, client_kwargs)
    if not key and authentication["required"] and not authentication["providers"]:
        raise CatalogAccessError(
            f"the catalog at {shown_address(uri)} does not take visitors without an API key. {_GIVE_THE_KEY}"
        )
    if key:
        headers = {"Authorization": f"Apikey {key}"}
        httpx.get(_server_address(uri, "metadata/"), headers=headers, **options).raise_for_status()
    return bool(authentication["required"] and not key)


def _ask_for_authentication(uri: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a server says of how to be let in; any Tiled server says it to anybody."""
    if str(uri).startswith(f"{IN_MEMORY}://"):
        raise CatalogUnreachableError(
            f"the catalog {uri} was in the memory of one process, and went with it; `bluesky-filestore rename` has its "
            f"runs go to another one."
        )
    try:
        about = httpx.get(_server_address(uri, ""), **options)
        if about.status_code in TRY_LATER or about.is_server_error:
            about.raise_for_status()
        authentication: Mapping[str, Any] = about.json()["authentication"]
    except (ValueError, KeyError, TypeError, httpx.InvalidURL) as error:
        raise _no_tiled(uri) from error
    return authentication


def _no_tiled(uri: str) -> CatalogUnreachableError:
    return CatalogUnreachableError(
        f"something answers at {shown_address(uri)} that is no Tiled server; expected the address of one, such as "
        f"{ADDRESS_EXAMPLE}."
    )


def _server_address(uri: str, path: str) -> httpx.URL:
    url = httpx.URL(uri)
    base = url.path.partition("/api/v1")[0].rstrip("/")
    return url.copy_with(path=f"{base}/api/v1/{path}", query=None, fragment=None, userinfo=b"")


def ask(client: "Container") -> None:
    """Ask whether a catalog answers, without trying again; raises what httpx does."""
    http_client = client.context.http_client
    # That of an application in this process has no timeouts.
    options = {} if hasattr(http_client, "app") else {"timeout": PROBE_TIMEOUT}
    try:
        check_answer(http_client.get(client.uri, **options).raise_for_status())
    except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
        if isinstance(error, httpx.ConnectError):
            raise
        # Servers end connections that are not used for some seconds, at times just as one is used again.
        check_answer(http_client.get(client.uri, **options).raise_for_status())


def find_outages(uris: Iterable[str], timeout: float) -> dict[str, str]:
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
        Why no Tiled server answers, by address; empty if one does, whatever it thinks of us.
    """
    addresses = list(dict.fromkeys(uris))
    if not addresses:
        return {}

    def outage(uri: str) -> str:
        try:
            with catalog_errors(uri):
                _ask_for_authentication(uri, {"timeout": timeout})
        except CatalogError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(min(_AT_ONCE, len(addresses))) as pool:
        return dict(zip(addresses, pool.map(outage, addresses), strict=True))


@contextmanager
def catalog_errors(uri: str, node: "BaseClient | None" = None) -> Iterator[None]:
    """Turn what Tiled's client raises while talking to a catalog into our errors, with what to do.

    By the node that is asked it is known whether its client was closed.
    """
    try:
        yield
    except FailedOnceError as failure:
        raise _error_for(failure.error, uri) from failure.error
    except (httpx.HTTPStatusError, httpx.RequestError) as error:
        raise _error_for(error, uri) from error
    except RuntimeError as error:
        if node is None or not node.context.http_client.is_closed:
            raise
        raise CatalogUnreachableError(
            f"the client of the catalog at {uri} was closed; expected it to stay open as long as its writer."
        ) from error


def may_still_be_done(error: CatalogError) -> bool:
    """Whether what was asked for may have reached the catalog, although it did not answer, or not well."""
    if isinstance(error.__cause__, httpx.HTTPStatusError):
        return error.__cause__.response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR
    never_left = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
    return isinstance(error.__cause__, httpx.RequestError) and not isinstance(error.__cause__, never_left)


def is_away(error: CatalogError) -> bool:
    """Whether there is nobody at the address for now, and not somebody else, or nobody ever."""
    if isinstance(error.__cause__, httpx.HTTPStatusError):
        return isinstance(error, CatalogUnreachableError | CatalogFaultError) and not is_gone(error)
    return isinstance(error.__cause__, httpx.RequestError) and not isinstance(
        error.__cause__, httpx.UnsupportedProtocol
    )


def is_gone(error: CatalogError) -> bool:
    """Whether the catalog does not know the node that it was asked about."""
    cause = error.__cause__
    return isinstance(cause, httpx.HTTPStatusError) and cause.response.status_code == httpx.codes.NOT_FOUND


def _error_for(error: httpx.HTTPError, uri: str) -> CatalogError:
    if isinstance(error, httpx.LocalProtocolError):
        return CatalogAccessError(
            f"the API key for the catalog at {uri} cannot be sent: it has characters that no header may have. "
            f"{_GIVE_THE_KEY}"
        )
    if not isinstance(error, httpx.HTTPStatusError):
        kind = CatalogDownError if isinstance(error, httpx.ConnectError) else CatalogUnreachableError
        return kind(
            f"no catalog answers at {uri} ({error or type(error).__name__}); expected a Tiled server. "
            f"Check the address, and that the server runs."
        )
    status = error.response.status_code
    detail = _detail(error.response)
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN) and not any(
        words in detail for words in _WORDS_ABOUT_ONE_THING
    ):
        return CatalogAccessError(
            f"the catalog at {uri} does not take this API key ({detail}); expected one with the scopes to write and to "
            f"register. {_GIVE_THE_KEY}"
        )
    if status in TRY_LATER or status >= httpx.codes.BAD_GATEWAY:
        return CatalogUnreachableError(
            f"the catalog at {uri} does not answer now (status {status}: {detail}); try again later."
        )
    if status in (httpx.codes.NOT_FOUND, httpx.codes.INTERNAL_SERVER_ERROR):
        # Gateways answer 404 while what is behind them starts.
        return CatalogFaultError(f"the catalog at {uri} failed (status {status}): {detail}")
    return CatalogError(f"the catalog at {uri} refused (status {status}): {detail}")


def _detail(response: httpx.Response) -> str:
    try:
        body: Mapping[str, Any] = response.json()
        return str(body.get("detail", response.reason_phrase))
    except (ValueError, KeyError, AttributeError, httpx.ResponseNotRead):
        return response.reason_phrase
