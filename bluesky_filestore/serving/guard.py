"""What stands before Tiled's application: requests that it would answer to anybody, or wrongly."""

from typing import Any
from urllib.parse import parse_qsl

from starlette.responses import JSONResponse

__all__ = ["guarded"]

_OPEN_ROUTES = ("/zarr/", "/api/graphql")
_FULL = "/api/v1/array/full/"


def guarded(app: Any) -> Any:
    """The application, for ASGI, with two differences.

    Tiled answers to whoever has no key with arrays and documents under ``/zarr``, and with GraphQL: both are not there.

    A client asks for an array in the shape that it knows of. Tiled answers 500, for which clients try again for half a
    minute, if there are more rows by now: here the answer is the rows that were asked for.
    """
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
    if "slice" in entries or not all(size.isdecimal() and int(size) for size in sizes):
        return query
    return query + b"&slice=" + ",".join(f"0:{int(size)}" for size in sizes).encode()
