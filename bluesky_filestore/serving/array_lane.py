"""A short way through the server for what is mostly asked for: numbers of an array, rows of a table, by the key.

Tiled finds the node by one query a level, loads all its assets, and works out what its endpoints depend on, for each
request; that costs some ten times as much as reading a frame.
"""

import asyncio
import json
import math
import re
import secrets
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar
from urllib.parse import parse_qsl

import numpy as np
from fastapi import HTTPException
from tiled.adapters.sql import SQLAdapter
from tiled.serialization.table import serialize_arrow

from bluesky_filestore.errors import AddressError
from bluesky_filestore.files.readable import bytes_of
from bluesky_filestore.files.rows import as_axis_key, expanded_index
from bluesky_filestore.leanings import log_once
from bluesky_filestore.logs import get_logger
from bluesky_filestore.model.addressing import parsed_slice

from .confined import ConfinedThreads
from .frames_adapter import FramesAdapter
from .known_arrays import KnownArrays

__all__ = ["ArrayLane"]

_logger = get_logger(__name__)

_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]
_App: TypeAlias = Callable[[_Message, _Receive, _Send], Awaitable[None]]
_Index: TypeAlias = tuple[int | slice, ...]
_Wanted: TypeAlias = tuple[int | range, ...]
_Result = TypeVar("_Result")

_FULL, _BLOCK, _ROWS = "/api/v1/array/full/", "/api/v1/array/block/", "/api/v1/table/partition/"
_MEDIA_TYPE, _ARROW = "application/octet-stream", "application/vnd.apache.arrow.file"
_QUERY = {_FULL: {"slice", "expected_shape"}, _BLOCK: {"slice", "block", "expected_shape"}, _ROWS: {"partition"}}
_NEEDED = {_BLOCK: "block", _ROWS: "partition"}
# A browser asks with an Origin, a client that has kept the answer with If-None-Match: these are Tiled's to answer.
_OTHERS = {b"origin", b"if-none-match", b"range"}
# Each answer in the making holds two batches.
_BATCH_BYTES = 2**20
_MOST_BROKEN = 1000
# What is more than this Tiled compares with a limit that can be set.
_MOST_ROW_BYTES = 2**25
# What Tiled takes for a slice; that it refuses everything else, and in what words, is its own.
_PART = r"-?\d+|-?\d*:-?\d*(?::-?\d*)?"
_SLICE = re.compile(rf"(?:(?:{_PART})(?:,(?:{_PART}))*)?", re.ASCII)
# A status from here on says that the server failed.
_FAILURE = 500


@dataclass(frozen=True, slots=True)
class _Request:
    """What is asked for."""

    key: str
    """Path and query."""
    path: tuple[str, ...]
    """Of the node."""
    query: dict[str, str]
    """With the names that Tiled gives them."""
    columns: list[str]
    """Of a table, if not all are asked for."""
    route: str
    """Whether the whole array, a chunk of it, or rows of a table are asked for."""

    @property
    def media_type(self) -> str:
        """In which the answer is."""
        return _ARROW if self.route == _ROWS else _MEDIA_TYPE


class ArrayLane:
    """An ASGI application before Tiled's, which it leaves everything to that it does not know to answer.

    Parameters
    ----------
    app : callable
        Tiled's.
    arrays : KnownArrays
        Finds the arrays.
    api_key : str
        The only key of the server, with which everything may be read.
    threads : ConfinedThreads
        Where files are read.
    """

    def __init__(self, app: _App, arrays: KnownArrays, api_key: str, threads: ConfinedThreads) -> None:
        self._app = app
        self._arrays = arrays
        self._threads = threads
        self._authorization = f"apikey {api_key}".encode()
        self._broken: dict[str, None] = {}

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answer a request, as ASGI has it."""
        if not await self._answer(scope, send):
            await self._app(scope, receive, send)

    def _understood(self, scope: _Message) -> _Request | None:
        """What is asked for, if it is for us to answer."""
        if scope["type"] != "http" or scope["method"] != "GET":
            return None
        path: str = scope["path"]
        route = next((route for route in _QUERY if path.startswith(route)), None)
        if route is None:
            return None
        headers = dict(scope["headers"])
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        if not secrets.compare_digest(scheme.lower() + b" " + key.strip(), self._authorization):
            return None
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        columns = [value for name, value in pairs if name == "column" and route == _ROWS]
        query = dict(pair for pair in pairs if pair[0] != "column" or route != _ROWS)
        if len(query) + len(columns) < len(pairs) or query.keys() - _QUERY[route]:
            return None
        segments = tuple(segment for segment in path[len(route) :].split("/") if segment)
        request = _Request(f"{path}?{scope['query_string']!r}", segments, query, columns, route)
        if headers.get(b"accept") != request.media_type.encode() or headers.keys() & _OTHERS:
            return None
        return request if route not in _NEEDED or _NEEDED[route] in query else None

    async def _answer(self, scope: _Message, send: _Send) -> bool:
        """Answer it; False if it is for Tiled to answer after all.

        Until the first bytes of the array are there nothing is sent: whatever goes wrong before leaves it to Tiled.
        """
        try:
            request = self._understood(scope)
            adapter = None if request is None else await self._arrays.find(request.path)
            if request is None or adapter is None or isinstance(adapter, SQLAdapter) != (request.route == _ROWS):
                return False
            if isinstance(adapter, SQLAdapter):
                rows = await asyncio.get_running_loop().run_in_executor(None, _rows, adapter, request)
            else:
                wanted = _wanted(adapter, request)
                if wanted is None:
                    return False
                adapter.check_size(wanted)
                if request.key in self._broken:
                    await self._threads.run_beside(_check_all, adapter, wanted)
                    del self._broken[request.key]
                batches, first = await self._threads.run_beside(_begun, adapter, wanted)
                length = math.prod(_shape(wanted)) * adapter.dtype.itemsize
        except HTTPException as error:
            return await _send_error(error, send)
        except Exception as error:  # noqa: BLE001 - whatever it is, no way of ours may be worse than none
            # A plain one is what Tiled raises where it refuses a file or has no adapter; it has the answers, too.
            if type(error) is not RuntimeError:
                log_once(_logger, "Arrays are left to Tiled, which is not as expected here", error)
            return False
        if isinstance(adapter, SQLAdapter):
            return rows is not None and await _send_whole(200, _ARROW, rows, send)
        await _start(200, _MEDIA_TYPE, length, send)
        try:
            await self._send_all(adapter, first, batches, send)
        except Exception:
            # Too late to say so. The client asks again, and is told then.
            self._broken[request.key] = None
            while len(self._broken) > _MOST_BROKEN:
                del self._broken[next(iter(self._broken))]
            raise
        return True

    async def _send_all(
        self, adapter: FramesAdapter, first: memoryview, batches: Iterator[_Index], send: _Send
    ) -> None:
        body = first
        for index in batches:
            reading = asyncio.create_task(self._threads.run_beside(_read, adapter, index))
            try:
                await send({"type": "http.response.body", "body": body, "more_body": True})
            finally:
                body = await reading
        await send({"type": "http.response.body", "body": body, "more_body": False})


def _wanted(adapter: FramesAdapter, request: _Request) -> _Wanted | None:
    """Which elements are asked for; None if that cannot be understood, or is not what the client expects."""
    structure = adapter.structure()
    shape = tuple(structure.shape)
    try:
        asked = request.query.get("slice", "")
        if _SLICE.fullmatch(asked) is None:
            return None
        index: Any = parsed_slice(asked) or ...
        if request.route == _BLOCK:
            block = tuple(int(number) for number in request.query["block"].split(","))
            if len(block) != len(shape):
                return None
            index = adapter.index_of_block(block, index)
        wanted = expanded_index(index, shape)
    except (AddressError, IndexError, ValueError):
        return None
    expected = request.query.get("expected_shape")
    found = ",".join(map(str, _shape(wanted))) or "scalar"
    return wanted if expected in (None, found) and shape else None


def _shape(wanted: _Wanted) -> tuple[int, ...]:
    return tuple(len(key) for key in wanted if isinstance(key, range))


def _batches(wanted: _Wanted, whole: int, itemsize: int) -> Iterator[_Index]:
    """Indices that give the elements in their order, a megabyte or at least a frame each; none if there are none.

    The last `whole` axes are never cut: files are read by whole frames, and a frame would be read for each piece.
    """
    if 0 in _shape(wanted):
        return
    counting = enumerate(wanted[: len(wanted) - whole])
    axis, along = next(((axis, key) for axis, key in counting if isinstance(key, range) and len(key) > 1), (0, None))
    if along is None:
        yield tuple(map(as_axis_key, wanted))
        return
    row_bytes = math.prod(_shape(wanted)) // len(along) * itemsize
    count = max(1, _BATCH_BYTES // max(1, row_bytes))
    for first in range(0, len(along), count):
        some = (*wanted[:axis], along[first : first + count], *wanted[axis + 1 :])
        if count == 1:
            yield from _batches(some, whole, itemsize)
        else:
            yield tuple(map(as_axis_key, some))


def _begun(adapter: FramesAdapter, wanted: _Wanted) -> tuple[Iterator[_Index], memoryview]:
    batches = _batches(wanted, adapter.axes_of_frame, adapter.dtype.itemsize)
    first = next(batches, None)
    # Tiled cannot say in bytes that there are none.
    return batches, memoryview(b"") if first is None else _read(adapter, first)


def _check_all(adapter: FramesAdapter, wanted: _Wanted) -> None:
    for index in _batches(wanted, adapter.axes_of_frame, adapter.dtype.itemsize):
        _read(adapter, index)


def _read(adapter: FramesAdapter, index: _Index) -> memoryview:
    return bytes_of(np.ascontiguousarray(adapter.read(index)))


def _rows(adapter: SQLAdapter, request: _Request) -> memoryview | None:
    if request.query["partition"] != "0" or not set(request.columns) <= set(adapter.structure().columns):
        return None
    rows = adapter.read_partition(0, request.columns or None)
    if rows.memory_usage().sum() > _MOST_ROW_BYTES:
        return None
    content: memoryview = serialize_arrow(_ARROW, rows, {})
    return content


async def _send_error(error: HTTPException, send: _Send) -> bool:
    """Send one of our adapters' answers; False if it is none."""
    if error.status_code >= _FAILURE:
        return False
    body = json.dumps({"detail": str(error.detail)}, ensure_ascii=False, separators=(",", ":")).encode()
    return await _send_whole(error.status_code, "application/json", body, send)


async def _send_whole(status: int, media_type: str, body: bytes | memoryview, send: _Send) -> bool:
    await _start(status, media_type, len(body), send)
    await send({"type": "http.response.body", "body": body, "more_body": False})
    return True


async def _start(status: int, media_type: str, length: int, send: _Send) -> None:
    headers = [(b"content-type", media_type.encode()), (b"content-length", str(length).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
