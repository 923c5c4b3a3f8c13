"""Hearing what is new in nodes of a catalog, from a server that streams it.

A `Listener` has a thread of its own, in which a loop of asyncio keeps one websocket a node:

    away      there is no connection: it is tried again, after pauses that grow, and far later where it was refused
    accepted  for half a second: a server accepts first, and asks its store for what is new then
    open      what is new in the node is heard; pings show that the server is there, also while nothing happens

Who asks for what a node holds, after it was open, misses nothing: what comes later is heard. `Listener.connections`
tells whether a websocket was made anew since; of what came before that nothing was heard.

The thread knows `_Ears` alone, so that a `Listener` that nobody has any more ends it. What both of them change is under
`_Ears.lock`; tasks are the loop's.
"""

import asyncio
import logging
import threading
import weakref
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import msgpack

from bluesky_filestore.leanings import going_without
from bluesky_filestore.logs import get_logger

from .once import TRY_LATER, FailedOnceError
from .streams import stream_address

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = ["Listener", "News"]

_logger = get_logger(__name__)
# At its level DEBUG websockets logs headers, and the key is in one.
_silent = logging.Logger("silent", logging.CRITICAL)
_FIRST_PAUSE, _LONGEST_PAUSE, _REFUSED_PAUSE = 0.1, 5.0, 600.0
_MOST_BYTES = 2**24
_KEY_SECONDS, _PING_SECONDS = 60, 20.0
_SETTLE_SECONDS, _CLOSE_SECONDS = 0.5, 5.0


@dataclass(frozen=True, slots=True)
class News:
    """Something that a server said of a node."""

    address: str
    """The node's."""
    message: Mapping[str, Any]
    """What was said, by Tiled's words for it; empty if there was more than is kept, or it was not understood."""


@dataclass(eq=False)
class _Ears:
    """What a `Listener` and its thread have in common."""

    node: "Container"
    loop: asyncio.AbstractEventLoop
    lock: threading.Lock = field(default_factory=threading.Lock)
    wanted: tuple[str, ...] = ()
    open: set[str] = field(default_factory=set)
    connections: int = 0
    is_refused: bool = False
    news: list[News] = field(default_factory=list)
    size: int = 0
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    does_stream: asyncio.Event = field(default_factory=asyncio.Event)

    def arrange(self) -> None:
        """Have a websocket for each node that is wanted."""
        with self.lock:
            wanted = self.wanted
        for address in set(self.tasks) - set(wanted):
            self.tasks.pop(address).cancel()
        for address in wanted:
            if address not in self.tasks:
                self.tasks[address] = self.loop.create_task(self.attend(address, is_first=address == wanted[0]))

    def renew(self, address: str) -> None:
        """Have another websocket for a node: there may be another node in its place."""
        if (task := self.tasks.pop(address, None)) is not None:
            task.cancel()
        self.arrange()

    async def attend(self, address: str, *, is_first: bool) -> None:
        """Be connected with one node; with others than the first only if the server streams at all."""
        if not is_first:
            await self.does_stream.wait()
        with going_without(_logger, "The client of websockets", "catalogs are asked at intervals for what is new"):
            await self.keep_hearing(address, is_first=is_first)
        self.is_refused = True

    async def keep_hearing(self, address: str, *, is_first: bool) -> None:
        """Connect again whenever a websocket ends."""
        from websockets.exceptions import InvalidStatus, WebSocketException

        pause = _FIRST_PAUSE
        while True:
            try:
                await self.hear(address, is_first=is_first)
                pause = _FIRST_PAUSE
            except (InvalidStatus, httpx.HTTPStatusError) as error:
                # To a websocket, or to somebody who asks for a key for it.
                status = error.response.status_code
                if status not in (*TRY_LATER, 502, 503, 504):
                    self.is_refused = self.is_refused or is_first
                    pause = _REFUSED_PAUSE
            except (WebSocketException, httpx.HTTPError, FailedOnceError, OSError):
                # There is no server now, or it went away.
                pass
            await asyncio.sleep(pause)
            pause = min(2 * pause, max(pause, _LONGEST_PAUSE))

    async def hear(self, address: str, *, is_first: bool) -> None:
        """What one websocket says, until it ends."""
        from websockets.asyncio.client import connect

        key, made = await asyncio.to_thread(self.key)
        async with connect(
            stream_address(address),
            additional_headers={"Authorization": f"Apikey {key}"} if key else {},
            max_size=_MOST_BYTES,
            ping_interval=_PING_SECONDS,
            ping_timeout=_PING_SECONDS,
            close_timeout=1.0,
            logger=_silent,
        ) as websocket:
            if is_first:
                self.is_refused = False
                self.does_stream.set()
            settling = self.loop.call_later(_SETTLE_SECONDS, self.settle, address)
            try:
                if made is not None:
                    await asyncio.to_thread(self.take_back, made)
                async for message in websocket:
                    self.take_in(address, message)
            finally:
                settling.cancel()
                with self.lock:
                    self.open.discard(address)

    def settle(self, address: str) -> None:
        """Count on a websocket from now on."""
        with self.lock:
            self.open.add(address)
            self.connections += 1

    def take_in(self, address: str, message: str | bytes) -> None:
        """Keep one message; no more than a slow reader should find."""
        try:
            said = msgpack.unpackb(message, raw=False) if isinstance(message, bytes) else {}
        except ValueError:
            said = {}
        said = said if isinstance(said, Mapping) else {}
        if str(said.get("type", "")).endswith("-schema"):
            # The first one of each websocket, which says what the node is.
            return
        if said.get("type") == "container-child-created":
            child = f"{address.rstrip('/')}/{said.get('key')}"
            for other in [each for each in self.tasks if each == child or each.startswith(f"{child}/")]:
                self.renew(other)
        with self.lock:
            self.size += len(message)
            if self.size > _MOST_BYTES:
                self.news, said = [], {}
            self.news.append(News(address, said))

    def key(self) -> tuple[str | None, str | None]:
        """The API key to come with, and by what it is taken back where one is made for this, as users log in."""
        context: Any = self.node.context
        if context.api_key is not None or not context.server_info.authentication.providers:
            return context.api_key, None
        made = context.create_api_key(expires_in=_KEY_SECONDS, note="websocket")
        return str(made["secret"]), str(made["first_eight"])

    def take_back(self, made: str) -> None:
        """Take a key back that was made for this; if that cannot be, it ends by itself soon."""
        with suppress(httpx.HTTPError, FailedOnceError):
            self.node.context.revoke_api_key(made)


class Listener:
    """Hears what is new in some nodes of a catalog, if its server streams that; see the top of this module.

    Parameters
    ----------
    node : tiled.client.container.Container
        One of the nodes, of which the others are.
    """

    def __init__(self, node: "Container") -> None:
        self._ears = _Ears(node, asyncio.new_event_loop())
        self._thread = threading.Thread(target=_run, args=(self._ears.loop,), name="catalog-listener", daemon=True)
        self._thread.start()
        self._end = weakref.finalize(self, _end, self._ears.loop)

    def listen_to(self, addresses: Iterable[str]) -> None:
        """Listen to these nodes, and no others; to all but the first only if that can be heard."""
        wanted = tuple(dict.fromkeys(addresses))
        with self._ears.lock:
            if wanted == self._ears.wanted:
                return
            self._ears.wanted = wanted
        self._call(self._ears.arrange)

    def renew(self) -> None:
        """Have all websockets made anew."""
        with self._ears.lock:
            wanted = self._ears.wanted
            self._ears.open.clear()
        for address in wanted:
            self._call(self._ears.renew, address)

    def hears(self, addresses: Iterable[str]) -> bool:
        """Whether whatever is new in these nodes is heard now."""
        with self._ears.lock:
            return self._ears.open.issuperset(addresses)

    @property
    def connections(self) -> int:
        """How many websockets were made so far."""
        with self._ears.lock:
            return self._ears.connections

    @property
    def is_refused(self) -> bool:
        """Whether the server does not stream, or not to us."""
        return self._ears.is_refused

    @property
    def has_news(self) -> bool:
        """Whether there is something to take."""
        return bool(self._ears.news)

    def take(self) -> list[News]:
        """What was heard since it was taken last, in its order."""
        with self._ears.lock:
            news, self._ears.news, self._ears.size = self._ears.news, [], 0
        return news

    def close(self) -> None:
        """Listen no more. Closing twice is harmless."""
        self._end()
        self._thread.join(_CLOSE_SECONDS)

    def _call(self, function: Any, *arguments: Any) -> None:
        with suppress(RuntimeError):
            # It was closed.
            self._ears.loop.call_soon_threadsafe(function, *arguments)


def _end(loop: asyncio.AbstractEventLoop) -> None:
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(loop.stop)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
        loop.run_until_complete(_cancel_all())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
