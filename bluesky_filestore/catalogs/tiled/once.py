"""Requests that are made once: trying again is the delivery's, which has other runs to go on with."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx

from bluesky_filestore.leanings import going_without
from bluesky_filestore.logs import get_logger

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = ["TRY_LATER", "FailedOnceError", "check_answer", "without_retries"]

_logger = get_logger(__name__)

TRY_LATER = (httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS)
"""What says, beside all from 500 on, that another time may be better."""


class FailedOnceError(Exception):
    """A request failed for which Tiled's client would ask again: of errors it knows only httpx's own.

    Parameters
    ----------
    error : httpx.HTTPError
        How it failed.
    """

    def __init__(self, error: httpx.HTTPStatusError | httpx.RequestError) -> None:
        super().__init__(str(error))
        self.error = error


def check_answer(response: httpx.Response) -> None:
    """Refuse what is no error, and no Tiled server's: a page for people, as of a gateway whose users have to log in.

    Raises
    ------
    httpx.RemoteProtocolError
        As if nothing that can be understood had been answered.
    """
    kind = response.headers.get("Content-Type", "")
    is_empty = response.status_code == httpx.codes.NO_CONTENT
    if not (response.is_error or is_empty or kind.startswith("application/")):
        words = f"something between answers instead of it, status {response.status_code} and {kind or 'nothing'}"
        raise httpx.RemoteProtocolError(words, request=response.request)


class _AsksOnce:
    """An HTTP client whose requests end with `FailedOnceError`; else it is the one that it is made of."""

    _VERBS = ("get", "put", "post", "patch", "delete")

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return partial(self._ask, found) if name in self._VERBS else found

    def _ask(self, send: Callable[..., httpx.Response], *arguments: Any, **options: Any) -> httpx.Response:
        try:
            response = send(*arguments, **options)
            if response.is_server_error or response.status_code in TRY_LATER:
                response.raise_for_status()
            check_answer(response)
        except (httpx.HTTPStatusError, httpx.RequestError) as error:
            raise FailedOnceError(error) from error
        return response


def without_retries(client: "Container") -> "Container":
    """The same container for whoever has patience of his own; the client that was given is left as it is.

    Tiled's client makes a request that fails up to ten times, which takes half a minute: other runs would wait for one
    that the catalog fails at.
    """
    with going_without(_logger, "How Tiled's clients make requests", "they ask again by themselves, and others wait"):
        again = client.new_variation()
        context = object.__new__(type(client.context))
        vars(context).update(vars(client.context), http_client=_AsksOnce(client.context.http_client))
        again._context = context
        if again.context is not context:
            raise AttributeError("a client has its context from elsewhere")
        return again
    return client
