"""What Tiled fails at, answered in words, with a status that says whose fault it is.

Tiled answers "Internal server error" to whatever it did not think of: its client asks again for half a minute, nobody
learns what was wrong, and the connection is closed. Most of that comes again each time, as it is what was asked for, or
registered, that has no answer: that is 422 here. What may go at another time stays the server's failure.
"""

import errno
import logging
from contextlib import suppress
from typing import Any

from fastapi.exception_handlers import http_exception_handler
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.websockets import WebSocketDisconnect, WebSocketState

from bluesky_filestore.errors import FileStoreError
from bluesky_filestore.logs import get_logger

from .frames_adapter import status_of

__all__ = ["answer_failures", "failure"]

# Into the log of the server, beside what Tiled says.
_logger = get_logger(f"tiled.{__name__}")

_ASKERS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
    SQLAlchemyError,
)
_SERVERS = (AssertionError, MemoryError, OSError, Exception)
# What databases say that would go at another time; of SQLite, whose other operational errors are of the question.
_MAY_GO_LATER = ("locked", "busy", "disk", "readonly", "unable to open", "connect", "closed", "timeout", "terminating")
_OF_FILES: dict[int | None, int] = {
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR), 404),
    **dict.fromkeys((errno.EACCES, errno.EPERM), 403),
    **dict.fromkeys((None, errno.EEXIST, errno.EISDIR, errno.EINVAL, errno.ENAMETOOLONG, errno.ELOOP), 422),
}
# Of Tiled's own answers that it failed, those that are about what was asked for (tiled/server/router.py).
_ABOUT_THE_QUESTION = ("The shape expected from the structure", "Block index out of range")
_LONGEST = 500
_UNPROCESSABLE, _CONFLICT, _FAILURE, _UNAVAILABLE = 422, 409, 500, 503
_CHANGES = ("PUT", "PATCH", "DELETE")
_FAILED_CODE = 1011
_WHOSE = {_FAILURE: "failed in the server; its log has where", _UNAVAILABLE: "cannot be answered now"}


def answer_failures(app: Any) -> None:
    """Have a FastAPI application of Tiled's answer so."""
    kinds = [*_ASKERS, *_SERVERS, FileStoreError]
    with suppress(ImportError):
        # What event tables are read with; its errors are of the standard for databases.
        from adbc_driver_manager import Error

        kinds.append(Error)
    with suppress(ImportError):
        # Where Tiled keeps what it streams, if not in memory.
        from redis.exceptions import RedisError

        kinds.append(RedisError)
    for kind in kinds:
        app.exception_handler(kind)(failure)
    app.exception_handler(HTTPException)(_said_by_tiled)


async def failure(request: Any, error: Exception) -> JSONResponse | None:
    """The answer where Tiled raised what it did not expect; none to a websocket that is open, or gone."""
    status, is_websocket = _status_of(error), request.scope["type"] == "websocket"
    if is_websocket and isinstance(error, OSError):
        return None
    method = "websocket" if is_websocket else request.method
    if method in _CHANGES and isinstance(error, AttributeError | LookupError):
        # Of two who change something at once one may find it gone: whoever is told that he is wrong never asks again.
        status = _FAILURE
    whose = "cannot be answered" if status < _FAILURE else _WHOSE.get(status, "failed")
    reason = " ".join(str(error).split())[:_LONGEST] or "no words"
    words = str(error) if isinstance(error, FileStoreError) else f"{type(error).__name__}: {reason}"
    # Tiled calls itself for what is nested: that would be thousands of lines.
    where = None if isinstance(error, RecursionError) or status == _UNAVAILABLE else error
    level = logging.INFO if status < _FAILURE else logging.ERROR
    _logger.log(level, "%s %r: %d, %s", method, request.url.path[:200], status, words, exc_info=where)
    if is_websocket and request.application_state is not WebSocketState.CONNECTING:
        with suppress(RuntimeError, WebSocketDisconnect):
            await request.close(_FAILED_CODE)
        return None
    return JSONResponse({"detail": f"This request {whose} ({words})."}, status_code=status)


async def _said_by_tiled(request: Any, error: HTTPException) -> Any:
    status, detail = error.status_code, error.detail
    if not isinstance(status, int):
        # Tiled forgot the status of one of its refusals, and put the words in its place.
        status, detail = 400, str(status)
    elif status == _FAILURE and str(detail).startswith(_ABOUT_THE_QUESTION):
        status = _UNPROCESSABLE
    return await http_exception_handler(request, HTTPException(status, detail, error.headers))


def _status_of(error: Exception) -> int:
    if isinstance(error, FileStoreError):
        return status_of(error)
    if isinstance(error, IntegrityError):
        return _CONFLICT
    if isinstance(error, OperationalError) or type(error).__module__.startswith("adbc"):
        return _FAILURE if any(words in str(error).lower() for words in _MAY_GO_LATER) else _UNPROCESSABLE
    if type(error).__module__.startswith("redis."):
        # It comes back, and what was asked for is none the worse.
        return _UNAVAILABLE
    if isinstance(error, OSError):
        return _OF_FILES.get(error.errno, _FAILURE)
    return _UNPROCESSABLE if isinstance(error, _ASKERS) else _FAILURE
