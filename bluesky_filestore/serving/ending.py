"""An answer is over with its last byte, and not only when the application says that nothing more comes.

Tiled's middleware says that in a message of its own. The client has all by then, and may have asked for a websocket by
the same connection: uvicorn gives that away, and fails when it writes the end of the answer: tracebacks in the log.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

__all__ = ["Ended"]

_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]
_App: TypeAlias = Callable[[_Message, _Receive, _Send], Awaitable[None]]


class Ended:
    """An ASGI application before another, whose answers of a known length it ends with their last byte.

    Parameters
    ----------
    app : callable
        Answers.
    """

    def __init__(self, app: _App) -> None:
        self.app = app
        """What answers."""

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answer a request, as ASGI has it."""
        # What answers HEAD has a length, and no bytes.
        if scope["type"] != "http" or scope["method"] == "HEAD":
            await self.app(scope, receive, send)
            return
        left: int | None = None
        is_over = False

        async def send_ended(message: _Message) -> None:
            nonlocal left, is_over
            if message["type"] == "http.response.start":
                length = dict(message.get("headers", ())).get(b"content-length")
                left = None if length is None else int(length)
            elif message["type"] == "http.response.body" and left is not None:
                if is_over and not message.get("body"):
                    return
                left -= len(message.get("body", b""))
                if left == 0:
                    is_over, message = True, {**message, "more_body": False}
            await send(message)

        await self.app(scope, receive, send_ended)
