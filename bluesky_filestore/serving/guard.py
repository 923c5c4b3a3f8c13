"""Tiled's application as it is served here, and the guard before it: who asks, by what name, and with which key."""

import copy
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from functools import partial
from importlib.metadata import version
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

from starlette.responses import JSONResponse

from bluesky_filestore.errors import CatalogError
from bluesky_filestore.leanings import going_without, log_once
from bluesky_filestore.logs import get_logger
from bluesky_filestore.model.limits import Limits

from .dependants import remember_dependants
from .failures import answer_failures, failure
from .leftovers import replace_leftovers
from .log_files import without_refusals

__all__ = ["TILED_COOKIE", "Guard", "tiled_app"]

_logger = get_logger(__name__)

_Message: TypeAlias = MutableMapping[str, Any]
_App: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]

_OPEN = {
    "/": "a page that says what this is, and nothing of what is in it",
    "/healthz": "whether the server is there, for whoever watches it",
    "/api/v1/": "how to come in: what a client asks before it shows a key",
}
"""What is answered to whoever asks, whole and not as the beginning of a path, and why."""
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
# The name and the port of a header Host; that of an Origin comes after its scheme.
_HOST = re.compile(rb"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?", re.IGNORECASE)
TILED_COOKIE = "tiled_api_key"
"""In which Tiled has browsers keep the key."""
# What Tiled says where it fails because a file is not among the readable ones (tiled/catalog/adapter.py).
_REFUSAL, _NO_ADAPTER = "Refusing to serve", "Server configuration has no adapter"
_NOT_ASKED_FOR_A_KEY = ("/zarr", "/api/graphql")
_FULL = "/api/v1/array/full/"
_PLAIN = "application/octet-stream"
# Digits of a size: Python makes no number of very many.
_LONGEST = 20
_LONGEST_SHOWN = 200
_NO_KEY = 401


class Guard:
    """An ASGI application before all others, which lets in whoever has the key, and asks for it at every path.

    What is open is a list, and all else is closed, whatever routes Tiled comes to have. A request is refused

    - 400, if it is for another host (DNS rebinding: a page of strangers whose name leads to this machine), as ``Host``
      and ``X-Forwarded-Host`` say;
    - 403, if it comes from a page of elsewhere, as ``Origin`` says, without the key in its header ``Authorization``:
      what else it has may be the browser's doing, and not the user's;
    - 401, if the key is not there, or another one. It may be where Tiled takes it: in that header, in the query, and
      in the cookie that Tiled's pages keep it in.

    Parameters
    ----------
    app : callable
        What is guarded.
    api_key : str
        The only key of the server.
    host_names : iterable of str
        Names, besides those of loopback, by which the server may be asked.
    cookie : str
        The cookie that browsers keep the key in; by default Tiled's.
    """

    def __init__(self, app: _App, api_key: str, host_names: Iterable[str] = (), cookie: str = TILED_COOKIE) -> None:
        self.app = app
        """What is guarded."""
        self._key, self._cookie = api_key.encode(), cookie.encode()
        self._others = frozenset(name.lower().encode() for name in host_names)
        self._hosts = self._others | {name.encode() for name in _LOOPBACK}

    async def __call__(self, scope: _Message, receive: Any, send: Any) -> None:
        """Answer a request, as ASGI has it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self.app(scope, receive, send)
        elif refusal.status_code == _NO_KEY and _is_open(scope):
            # Without the query, out of which Tiled would keep a key that is none.
            await self.app({**scope, "query_string": b""}, receive, send)
        elif scope["type"] == "http" or "websocket.http.response" in scope.get("extensions", {}):
            await refusal(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _refusal(self, scope: _Message) -> JSONResponse | None:
        """Why a request is not answered, if it is not."""
        hosts, origins, has_key = [], [], False
        for name, value in scope["headers"]:
            if name in (b"host", b"x-forwarded-host"):
                hosts.append(value)
            elif name == b"origin":
                origins.append(value)
            elif name == b"authorization":
                scheme, _, key = value.partition(b" ")
                has_key = scheme.lower() == b"apikey" and self._is_key(key.strip())
        names = [_HOST.fullmatch(host) for host in hosts]
        if not names or not all(name is not None and name[1].lower() in self._hosts for name in names):
            known = ", ".join(sorted(name.decode() for name in self._hosts))
            return _refused(
                400,
                f"This server is asked as {' and '.join(map(_shown, hosts)) or 'nobody'}; expected one of {known}. "
                f"Other names are given where it is started: serve_catalog(host_names=...), or --host-name.",
            )
        if has_key:
            return None
        if not all(self._is_own(origin, hosts) for origin in origins):
            return _refused(
                403,
                f"A page of {' and '.join(map(_shown, origins))} asks, which is not of this server; expected the key "
                f"in the header Authorization.",
            )
        if any(self._is_key(key) for key in _keys_of_browser(scope, self._cookie)):
            return None
        return _refused(
            _NO_KEY,
            "This server answers nobody without its key, or with another one; expected it in the header "
            "'Authorization: Apikey KEY'. A browser is given it once, as /?api_key=KEY, and keeps it.",
        )

    def _is_key(self, key: bytes) -> bool:
        return secrets.compare_digest(key, self._key)

    def _is_own(self, origin: bytes, hosts: list[bytes]) -> bool:
        """Whether a page comes from this server, as it was asked, or under a name that it was given."""
        _, separator, host = origin.partition(b"://")
        name = _HOST.fullmatch(host)
        return bool(separator) and name is not None and (host in hosts or name[1].lower() in self._others)


def _is_open(scope: _Message) -> bool:
    return scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and scope["path"] in _OPEN


def _keys_of_browser(scope: _Message, cookie_name: bytes) -> Iterator[bytes]:
    """Keys in the query and in cookies."""
    for name, value in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True):
        if name == "api_key":
            yield value.encode()
    for name, value in scope["headers"]:
        if name == b"cookie":
            for cookie in value.split(b";"):
                key, _, kept = cookie.strip().partition(b"=")
                if key == cookie_name:
                    yield kept


def _refused(status: int, words: str) -> JSONResponse:
    headers = {"WWW-Authenticate": "Apikey"} if status == _NO_KEY else None
    return JSONResponse({"detail": words}, status_code=status, headers=headers)


def _shown(value: bytes) -> str:
    return repr(value[:_LONGEST_SHOWN].decode("latin-1"))


def tiled_app(tree: Any, api_key: str, limits: Limits, *, streams: bool = False) -> Any:
    """Tiled's application, for ASGI, with three differences.

    What Tiled answers without asking for a key, arrays and documents under ``/zarr``, and GraphQL, is not there.

    Nothing is streamed, unless the tree has the store that Tiled needs for it, and fails without.

    A client asks for an array in the shape that it knows of. Tiled answers 500, for which clients try again for half a
    minute, if there are more rows by now: here the answer is the rows that were asked for.

    Raises
    ------
    CatalogError
        If Tiled makes no application in the way that is known here.
    """
    app = _make_app(tree, api_key, limits)
    without_refusals()
    refusal = JSONResponse(
        {"detail": "This server has no such thing: Tiled asks nobody for a key there."}, status_code=404
    )
    no_stream = JSONResponse(
        {"detail": "This server streams nothing (serve_catalog(streams=True) does); ask again for what is new."},
        status_code=404,
    )

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
        elif scope["type"] == "websocket" and not streams:
            await no_stream(scope, receive, send)
        elif scope["path"].startswith(_NOT_ASKED_FOR_A_KEY):
            await refusal(scope, receive, send)
        elif scope["path"].startswith(_FULL):
            await app({**scope, "query_string": _with_rows(scope["query_string"])}, receive, send)
        else:
            await app(scope, receive, send)

    return answer


def _with_rows(query: bytes) -> bytes:
    """The query with a slice of just the shape that is expected, if it has none.

    Examples
    --------
    >>> _with_rows(b"expected_shape=20,3")
    b'expected_shape=20,3&slice=0:20,0:3'
    >>> _with_rows(b"expected_shape=3&slice=5:8")
    b'expected_shape=3&slice=5:8'
    """
    entries = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    sizes = entries.get("expected_shape", "").split(",")
    if "slice" in entries or not all(size.isdecimal() and len(size) < _LONGEST and int(size) for size in sizes):
        return query
    return query + b"&slice=" + ",".join(f"0:{int(size)}" for size in sizes).encode()


def _make_app(tree: Any, api_key: str, limits: Limits) -> Any:
    """Tiled's application, with the key and what we add to it."""
    try:
        from tiled.config import Authentication
        from tiled.server.app import build_app

        app = build_app(tree, authentication=Authentication(single_user_api_key=api_key), **_additions())
    except ModuleNotFoundError:
        raise
    except (ImportError, TypeError, ValueError) as error:
        raise CatalogError(
            f"Tiled {version('tiled')} makes no server in the way that is known here ({error}); expected a version "
            f"that this one of bluesky_filestore was tried with, see 'Leaning on others' in its documentation."
        ) from error
    _keep_settings_apart(app, api_key, limits)
    with going_without(_logger, "How FastAPI knows what a dependency asks for", "each request is answered more slowly"):
        remember_dependants()
    with going_without(_logger, "How Tiled makes arrays", "one that a killed server left half made stays so"):
        replace_leftovers()
    answer_failures(app)
    _say_when_refused(app)
    return app


def _additions() -> dict[str, Any]:
    """What runs can be asked for besides: a validation, and ``run.documents()`` of bluesky-tiled-plugins' clients."""
    added: dict[str, Any] = {}
    with going_without(_logger, "bluesky_tiled_plugins' router", "runs cannot be validated through this server"):
        from bluesky_tiled_plugins.routers.validator import router

        added["include_routers"] = [router]
    with going_without(_logger, "The way to add exports", "run.documents() of this server's clients does not work"):
        from tiled.media_type_registration import default_serialization_registry

        from .exporting import export_documents

        registry = copy.deepcopy(default_serialization_registry)
        registry.register("BlueskyRun", "application/json-seq", export_documents)
        plain = registry.dispatch("array", _PLAIN)
        registry.register("array", _PLAIN, partial(_serialize_plain, plain))
        added["serialization_registry"] = registry
    return added


def _serialize_plain(plain: Any, mimetype: str, array: Any, metadata: Any) -> Any:
    """The numbers of an array, as Tiled gives them, and none where there are none, which it fails at."""
    return plain(mimetype, array, metadata) if array.size else b""


def _keep_settings_apart(app: Any, api_key: str, limits: Limits) -> None:
    # Tiled keeps one set of settings a process: of two servers, the one that started last would give its key to both.
    with going_without(_logger, "Where Tiled keeps its settings", "the servers of one process may share a key"):
        from tiled.server.settings import Settings, get_settings

        settings = Settings()
        settings.single_user_api_key = api_key
        settings.response_bytesize_limit = min(settings.response_bytesize_limit, limits.response_bytes)
        if get_settings not in app.dependency_overrides:
            raise LookupError("Tiled does not have its settings from get_settings any more")
        app.dependency_overrides[get_settings] = lambda: settings


def _say_when_refused(app: Any) -> None:
    """Tell the client why a file is not served, where Tiled only says that the server failed."""

    def answer(status: int, detail: str) -> JSONResponse:
        return JSONResponse(status_code=status, content={"detail": detail})

    with going_without(_logger, "Tiled's Collision", "of a run with two writers the second is told less"):
        from tiled.catalog.adapter import Collision

        @app.exception_handler(Collision)  # type: ignore[untyped-decorator]
        async def taken(request: Any, error: Collision) -> JSONResponse:
            return answer(
                409,
                f"{error} is in the catalog already, made by another writer; expected one writer for a run: of a "
                f"CatalogWriter and a TiledWriter of one RunEngine and one catalog, unsubscribe one.",
            )

    @app.exception_handler(RuntimeError)  # type: ignore[untyped-decorator]
    async def refused(request: Any, error: RuntimeError) -> JSONResponse | None:
        if str(error).startswith(_NO_ADAPTER):
            return answer(415, f"{error}.")
        if not str(error).startswith(_REFUSAL):
            log_once(_logger, "Tiled failed with words that are not known here; its answer is that it failed", error)
            return await failure(request, error)
        return answer(403, f"{error} Start it with the file's directory among the readable ones.")
