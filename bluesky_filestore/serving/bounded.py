"""Requests that nothing has an answer to are refused before anything looks at them, and none is waited for for ever."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

from bluesky_filestore.logs import get_logger
from bluesky_filestore.model.limits import Limits, how_to_set

__all__ = ["Bounded"]

_logger = get_logger(__name__)

_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]
_App: TypeAlias = Callable[[_Message, _Receive, _Send], Awaitable[None]]

_API = "/api/v1/"
# What is asked for by POST if the question is too long for an address.
_READ_BY_POST = ("/api/v1/table/", "/api/v1/container/", "/api/v1/node/")
# Tiled counts with Python's numbers, and numpy and databases with 64 bits.
_NUMBERS = {"slice", "block", "expected_shape", "partition", "id", "patch_shape", "patch_offset", "shape", "offset"}
_LARGEST = 2**63 - 1
_NUMBER = re.compile(r"\d+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_MANY_AXES = 64
_LONGEST_QUESTION, _DEEPEST = 8192, 50


class Bounded:
    """An ASGI application before another, which refuses what that would fail at, and does not wait for it for ever.

    What is to be read and not there after `Limits.response_seconds` is answered with 503, and its task is cancelled.
    A thread that reads a file for it goes on until the file system lets it go.

    Parameters
    ----------
    app : callable
        Gets all that is not refused.
    limits : Limits
        What is refused.
    """

    def __init__(self, app: _App, limits: Limits) -> None:
        self.app = app
        """What gets all that is not refused."""
        self._limits = limits
        self._answers: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answer a request, as ASGI has it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, words = self._problem_of(scope["path"], scope["query_string"])
        if words:
            await _say(status, words, send)
        elif scope["method"] in ("GET", "HEAD") or scope["path"].startswith(_READ_BY_POST):
            await self._in_time(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _problem_of(self, path: str, query: bytes) -> tuple[int, str]:
        """What is wrong with a request, with a status; empty words for nothing."""
        segments, most = path.count("/"), self._limits.path_segments
        if segments > most:
            return 414, f"the path has {segments:,} segments; expected {most:,} at most: {how_to_set('path_segments')}."
        if _CONTROL.search(path) or _SURROGATE.search(path):
            return 400, "the path has a control character in it, which nothing in a catalog has; expected a name."
        return _problem_of_query(query) if query and path.startswith(_API) else (0, "")

    async def _in_time(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        task = asyncio.current_task()
        began = timed_out = False

        async def send_in_time(message: _Message) -> None:
            nonlocal began
            if not timed_out:
                began = True
                await send(message)

        def end() -> None:
            nonlocal timed_out
            if began or task is None:
                return
            timed_out = True
            # The task may not come to its end before its thread does: another one says so.
            answer = asyncio.get_running_loop().create_task(self._say_too_late(scope, send))
            self._answers.add(answer)
            answer.add_done_callback(self._answers.discard)
            task.cancel()

        timer = asyncio.get_running_loop().call_later(self._limits.response_seconds, end)
        try:
            await self.app(scope, receive, send_in_time)
        except (Exception, asyncio.CancelledError):
            # What is raised when it is cancelled has nobody to go to.
            if not timed_out:
                raise
        finally:
            timer.cancel()

    async def _say_too_late(self, scope: _Message, send: _Send) -> None:
        seconds = self._limits.response_seconds
        _logger.warning("%r had no answer after %g s, and was given up.", scope["path"][:200], seconds)
        await _say(
            503,
            f"there is no answer after {seconds:g} s, which may take {seconds:g} at most: a disk or a file does not "
            f"answer, or it is too much at a time; ask for less of it, or later ({how_to_set('response_seconds')}).",
            send,
        )


def _problem_of_query(query: bytes) -> tuple[int, str]:
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, errors="surrogateescape")
    for name, value in pairs:
        if _CONTROL.search(value) or _SURROGATE.search(value):
            return 400, f"{name[:50]} has a control character, or bytes that are no text, in it; expected text."
        if name in _NUMBERS or name.startswith("page["):
            # Of very many digits Python makes no number.
            longest = max((digits for digits in _NUMBER.findall(value)), key=len, default="0")
            if len(longest) > len(str(_LARGEST)) or int(longest) > _LARGEST:
                return 422, f"{name} has a number of {len(longest)} digits in it; expected {_LARGEST} at most."
            if value.count(",") > _MANY_AXES:
                return 422, f"{name} has {value.count(',') + 1} parts; expected one an axis."
        if name == "slice" and any(map(_has_no_step, value.split(","))):
            return 422, f"slice {value[:100]!r} has a step of zero; expected another."
        if name == "select_metadata":
            # JMESPath's parser calls itself for each of them.
            nested = sum(map(value.count, "([{|&.!"))
            if len(value) > _LONGEST_QUESTION or nested > _DEEPEST:
                return 400, (
                    f"select_metadata has {len(value):,} characters, {nested:,} of them brackets and the like; "
                    f"expected {_LONGEST_QUESTION:,} and {_DEEPEST} at most."
                )
    return 0, ""


def _has_no_step(part: str) -> bool:
    step = part.split(":")[2:]
    # In any script: Tiled takes the digits of all.
    return len(step) == 1 and step[0].lstrip("+-").isdecimal() and not int(step[0])


async def _say(status: int, words: str, send: _Send) -> None:
    body = json.dumps({"detail": words}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
