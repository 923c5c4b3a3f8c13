"""The page that shows runs as they grow, for ASGI; whoever serves it asks for the key first."""

import base64
import hashlib
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from importlib.resources import files
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from bluesky_filestore.errors import FileStoreError

from .metrics import CONTENT_TYPE, metrics_text
from .page_frames import Look, Picture, draw
from .page_run import RunView, text_of
from .page_state import Watched

__all__ = ["WithPage", "page_app"]

_PATHS = ("/filestore", "/metrics")
_LOOK_SECONDS, _SILENT_SECONDS = 0.05, 10.0
_MOST_RUNS, _MOST_ROWS_AT_ONCE, _FRAMES_AT_ONCE = 200, 5000, 2
_LONGEST_UID = 200


def page_app(watched: Watched, *, cookie: str = "tiled_api_key", is_over: Callable[[], bool] = lambda: False) -> Any:
    """The application: ``/filestore``, what the page asks for, and ``/metrics``.

    Nothing is read or drawn by the server's loop; a viewer asks for one frame at a time, and two are drawn at a time.

    Parameters
    ----------
    watched : Watched
        What is shown.
    cookie : str
        The cookie in which a browser keeps the key that it was given as ``?api_key=``.
    is_over : callable
        Whether the server ends: then viewers are let go.
    """
    answers = _Answers(watched, cookie, is_over)
    return Starlette(
        routes=[
            Route("/filestore", answers.page),
            Route("/filestore/events", answers.events),
            Route("/filestore/runs", answers.runs),
            Route("/filestore/frame", answers.frame),
            Route("/filestore/verify", answers.verify, methods=["POST"]),
            Route("/metrics", answers.metrics),
        ]
    )


class _Answers:
    """What is answered; see `page_app`."""

    def __init__(self, watched: Watched, cookie: str, is_over: Callable[[], bool]) -> None:
        self._watched, self._cookie, self._is_over = watched, cookie, is_over
        self._page, self._policy = _page()
        self._drawing: anyio.CapacityLimiter | None = None

    async def page(self, request: Request) -> Response:
        if key := request.query_params.get("api_key"):
            # Not left in the address, which is seen over shoulders and kept in histories.
            answer = RedirectResponse(request.url.path, status_code=303)
            answer.set_cookie(self._cookie, key, httponly=True, samesite="lax")
            return _private(answer)
        return _private(Response(self._page, media_type="text/html"), {"Content-Security-Policy": self._policy})

    async def events(self, request: Request) -> Response:
        told = _events(self._watched, _uid(request), self._is_over)
        return _private(StreamingResponse(told, media_type="text/event-stream"))

    async def runs(self, request: Request) -> Response:
        offset, limit = (_whole(request, name) for name in ("offset", "limit"))
        return _json(await run_in_threadpool(self._watched.runs, offset, min(limit, _MOST_RUNS) or 1))

    async def frame(self, request: Request) -> Response:
        if self._drawing is None:
            # It belongs to the loop that answers.
            self._drawing = anyio.CapacityLimiter(_FRAMES_AT_ONCE)
        query, row, uid = request.query_params, _whole(request, "row"), _uid(request)

        def picture() -> Picture:
            frame = self._watched.view(uid).frame(query.get("stream", ""), query.get("key", ""), row)
            return draw(frame, Look.asked(query))

        try:
            drawn = await anyio.to_thread.run_sync(picture, limiter=self._drawing, abandon_on_cancel=True)
        except FileStoreError as error:
            # No failure: a frame may not be there yet, and browsers log what is answered with 404.
            return _json({"detail": text_of(error)})
        facts = json.dumps({**drawn.facts, "row": row})
        return _private(Response(drawn.png, media_type="image/png"), {"X-Frame": facts})

    async def verify(self, request: Request) -> Response:
        try:
            found = await run_in_threadpool(self._watched.verified, _uid(request))
        except FileStoreError as error:
            return _json({"detail": text_of(error)}, 400)
        return _json({"found": found})

    async def metrics(self, request: Request) -> Response:
        text = await run_in_threadpool(lambda: metrics_text(self._watched.spools()))
        return _private(Response(text, headers={"Content-Type": CONTENT_TYPE}))


class WithPage:
    """The page beside another ASGI application, which gets whatever else is asked for.

    Parameters
    ----------
    app : callable
        The other one.
    page : callable
        That of `page_app`.
    """

    def __init__(self, app: Any, page: Any) -> None:
        self.app = app
        """The other application."""
        self._page = page

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, as ASGI has it."""
        path = scope.get("path", "")
        is_ours = scope["type"] == "http" and any(path == each or path.startswith(f"{each}/") for each in _PATHS)
        await (self._page if is_ours else self.app)(scope, receive, send)


async def _events(watched: Watched, asked: str, is_over: Callable[[], bool]) -> AsyncIterator[str]:
    """What has changed, as server-sent events, for one viewer; without a run that was asked for, of the latest one.

    What is not taken in time is not made either: the next event has all that came meanwhile.
    """
    yield _event("hello", {"verifies": watched.verify is not None})
    told: dict[str, Any] = {}
    sent: dict[str, int] = {}
    uid, view, said = "", None, time.monotonic()
    while not is_over():
        latest = asked or watched.latest()
        if latest and (latest != uid or view is None or view.is_closed):
            uid, view, sent = latest, watched.view(latest), {}
        for name, found in (("delivery", watched.delivery()), ("runs", watched.heads())):
            if found is not None and told.get(name) != found:
                told[name] = found
                yield _event(name, found)
        if view is not None:
            view.looked = time.monotonic()
            header = view.header()
            if told.get("run") != header:
                told["run"] = header
                yield _event("run", header)
            for rows in _new_rows(view, sent):
                said = time.monotonic()
                yield _event("rows", rows)
        if time.monotonic() - said > _SILENT_SECONDS:
            # A connection that is gone is noticed by who writes to it.
            said = time.monotonic()
            yield ": still here\n\n"
        await anyio.sleep(_LOOK_SECONDS)


def _new_rows(view: RunView, sent: dict[str, int]) -> list[dict[str, Any]]:
    """The rows of each stream that were not sent yet."""
    found = []
    for name, stream in list(view.streams.items()):
        begin, end = sent.get(name, 0), stream.count
        if begin < end:
            end = min(end, begin + _MOST_ROWS_AT_ONCE)
            found.append({"uid": view.uid, "stream": name, **stream.rows(begin, end)})
            sent[name] = end
    return found


def _page() -> tuple[bytes, str]:
    """The page, and what the browser shall let it do: run its own script and style, and ask this server."""
    page = files(__package__).joinpath("page.html").read_bytes()
    script, style = (
        base64.b64encode(
            hashlib.sha256(re.findall(rb"<%s>(.*?)</%s>" % (tag, tag), page, re.DOTALL)[0]).digest()
        ).decode()
        for tag in (b"script", b"style")
    )
    return page, (
        f"default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; img-src blob: data:; "
        f"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _private(answer: Response, more: Mapping[str, str] | None = None) -> Response:
    """An answer that no other page, and no cache, gets hold of."""
    answer.headers.update(
        {
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            **(more or {}),
        }
    )
    return answer


def _json(content: Any, status: int = 200) -> Response:
    # Escaped: what others wrote may have halves of characters in it, which no answer can be made of.
    return _private(Response(json.dumps(content, allow_nan=False), status_code=status, media_type="application/json"))


def _event(name: str, data: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'), allow_nan=False)}\n\n"


def _uid(request: Request) -> str:
    return request.query_params.get("run", "")[:_LONGEST_UID]


def _whole(request: Request, name: str) -> int:
    text = request.query_params.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
