"""Tiled's application as it is served here, behind a guard against requests that it would answer to anybody."""

import copy
import logging
from importlib.metadata import version
from typing import Any
from urllib.parse import parse_qsl

from starlette.responses import JSONResponse

from bluesky_filestore.errors import CatalogError
from bluesky_filestore.leanings import going_without, log_once

__all__ = ["guarded_app"]

_logger = logging.getLogger(__name__)
# What Tiled says where it fails because a file is not among the readable ones (tiled/catalog/adapter.py).
_REFUSAL = "Refusing to serve"
_OPEN_ROUTES = ("/zarr/", "/api/graphql")
_FULL = "/api/v1/array/full/"
# Digits of a size: Python makes no number of very many.
_LONGEST = 20


def guarded_app(tree: Any, api_key: str) -> Any:
    """Tiled's application, for ASGI, with two differences.

    Tiled answers to whoever has no key with arrays and documents under ``/zarr``, and with GraphQL: both are not there.

    A client asks for an array in the shape that it knows of. Tiled answers 500, for which clients try again for half a
    minute, if there are more rows by now: here the answer is the rows that were asked for.

    Raises
    ------
    CatalogError
        If Tiled makes no application in the way that is known here.
    """
    app = _make_app(tree, api_key)
    refusal = JSONResponse(
        {"detail": "This server has no such thing: Tiled asks nobody for a key there."}, status_code=404
    )

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
        elif scope["path"].startswith(_OPEN_ROUTES):
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


def _make_app(tree: Any, api_key: str) -> Any:
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
    _keep_settings_apart(app, api_key)
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
        added["serialization_registry"] = registry
    return added


def _keep_settings_apart(app: Any, api_key: str) -> None:
    # Tiled keeps one set of settings a process: of two servers, the one that started last would give its key to both.
    with going_without(_logger, "Where Tiled keeps its settings", "the servers of one process may share a key"):
        from tiled.server.settings import Settings, get_settings

        settings = Settings()
        settings.single_user_api_key = api_key
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
    async def refused(request: Any, error: RuntimeError) -> JSONResponse:
        if not str(error).startswith(_REFUSAL):
            log_once(_logger, "Tiled failed with words that are not known here; its answer is that it failed", error)
            raise error
        return answer(403, f"{error} Start it with the file's directory among the readable ones.")
