"""The way to the simulated server, and what befalls requests on it; and a client of Tiled's that goes that way."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from math import inf
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import httpx
import orjson

from .server import URI, Server
from .world import World

if TYPE_CHECKING:
    from tiled.client.container import Container

USUAL = (0.0005, 0.004)
"""For how many seconds an answer lets itself be waited for, if nothing is wrong."""
_LENGTH_OF_UID = 36
_LONGEST_WAIT, _LONGEST_BEFALLING = 65.0, 50.0
_BEFALLS = ("never sent", "cut", "answer lost", "late", "doubled", "slow", "500", "503")
_SAID = orjson.dumps({"detail": "simulated"})


@dataclass(frozen=True)
class Rule:
    """What the server answers to some requests, for some time."""

    run: str
    """The uid of the only run that it is about; empty if it is about all."""
    words: str
    applies: Callable[[str, str], bool]
    """Whether to a request, by its verb and path."""
    status: int
    since: float = 0.0
    until: float = inf
    is_done: bool = False
    """Whether what is asked for is done all the same."""


class Network:
    """The way from all processes of a machine to one server.

    Parameters
    ----------
    world : World
        The machine.
    server : Server
        What answers.
    """

    def __init__(self, world: World, server: Server) -> None:
        self._world, self.server = world, server
        self.up_at = self.answers_at = 0.0
        """When it is there again, and when it no longer hangs."""
        self.latency = USUAL
        self._unsaved = 0
        self.lossy = 0.0
        """How probable it is that something befalls a request."""
        self.lossy_below = 0.0
        """How probable it is beside that for one that changes something below a run: its tables and arrays."""
        self.lost_below = 0
        """How often something did."""
        self.rules: list[Rule] = []
        self.made: list[Rule] = []
        """All that there ever were."""
        self.orphaned: set[str] = set()
        """What requests were about that were done after their process had ended, or another one had taken over."""
        self._asked_by: dict[str, int] = {}
        """Which process asked last about a run."""
        self.requests = 0
        self.came_late: set[str] = set()
        """What requests were about that were done when nobody waited for them any more."""
        self.befallen: set[str] = set()
        """What requests were about that were not answered well, or twice."""
        self.lost: Counter[str] = Counter()
        """How often something befell a request about something by itself, and not all requests."""
        self.made_by: dict[str, int] = {}
        """Which process made a table, by its path."""
        self.read_back: Counter[str] = Counter()
        """How much more often that process has read the rows of a table than made it, by its path."""
        self.closed: dict[str, float] = {}
        """When runs got their ends."""
        self.trouble_until = self.longest_trouble = 0.0
        """Until when something befalls requests, or did, and for how long it lasts at most."""
        self.refused: Counter[tuple[str, int, int]] = Counter()
        """How many requests of a process came in each second while nobody listened."""

    def add(self, rule: Rule) -> None:
        """Answer so from now on."""
        self._trouble(rule.until - rule.since)
        self.rules.append(rule)
        self.made.append(rule)

    def heal(self) -> None:
        """Have all well from now on, but for nodes at which the server fails for ever."""
        self.up_at = self.answers_at = self.lossy = self.lossy_below = 0.0
        self.latency, self.rules = USUAL, [rule for rule in self.rules if rule.until == inf]

    def hang(self, seconds: float) -> None:
        """Answer nothing for a while."""
        self.answers_at = self._world.now + seconds
        self._trouble(seconds)
        self._world.fault("hang", f"for {seconds:g} s")

    def _trouble(self, seconds: float) -> None:
        self.trouble_until = max(self.trouble_until, self._world.now + seconds)
        self.longest_trouble = max(self.longest_trouble, seconds)

    @property
    def well_for(self) -> float:
        """For how many seconds nothing has befallen a request any more that anybody could still feel.

        Who waited while nothing went waits for as long again at most, and for a minute.
        """
        return self._world.now - self.trouble_until - min(self.longest_trouble, _LONGEST_WAIT) - 2.0

    def transport(self) -> httpx.BaseTransport:
        """What a client's requests go by."""
        return _Transport(self)

    def ask(self, request: httpx.Request) -> httpx.Response:
        """Answer a request, sooner or later or never."""
        world = self._world
        if world.task is None:
            # Who looks at it afterwards.
            return _response(request, *self._answer(request))
        self.requests += 1
        words = f"{request.method} {request.url.raw_path.decode()[:70]}"
        for part in request.url.path.split("/")[4:6]:
            if len(part) == _LENGTH_OF_UID:
                self._asked_by[part] = world.process.number
        world.point(words)
        if world.now < self.up_at:
            self._lose()
            self.refused[world.process.name, world.process.number, int(world.now)] += 1
            world.wait(0.001)
            raise httpx.ConnectError("Connection refused", request=request)
        if world.now < self.answers_at:
            return self._hang(request)
        befalls = ""
        is_below = request.method != "GET" and "/primary" in request.url.path
        if world.chance.random() < max(self.lossy, self.lossy_below * is_below):
            befalls = world.chance.choice(_BEFALLS)
            world.fault(befalls, words)
            self._trouble(_LONGEST_BEFALLING)
            self.befallen |= _about(request)
            self.lost.update(_about(request))
            self.lost_below += is_below and bool(self.lossy_below)
        response = self._befallen(request, befalls)
        world.say(f"{response.status_code} {words}")
        self._count(request)
        return response

    def _count(self, request: httpx.Request) -> None:
        """Know who makes tables, and reads them."""
        number, path = self._world.process.number, request.url.path
        if request.method == "POST" and path.endswith("/primary"):
            table = f"{path.partition('/metadata/')[2]}/{orjson.loads(request.content)['id']}"
            self.made_by[table] = number
            self.read_back[table] -= 1
        elif request.method == "GET" and "/table/partition/" in path:
            table = path.partition("/table/partition/")[2]
            self.read_back[table] += self.made_by.get(table) == number

    def _befallen(self, request: httpx.Request, befalls: str) -> httpx.Response:
        world, chance = self._world, self._world.chance
        took = chance.uniform(*self.latency) + (chance.choice((0.5, 3.0, 20.0, 45.0)) if befalls == "slow" else 0.0)
        patience = request.extensions["timeout"]["read"]
        if took > patience:
            self._later(request, took)
            world.wait(patience)
            raise httpx.ReadTimeout("timed out", request=request)
        world.wait(took / 2)
        match befalls:
            case "never sent":
                raise httpx.ConnectError("Connection refused", request=request)
            case "cut":
                raise httpx.ReadError("Connection reset by peer", request=request)
            case "late":
                self._later(request, chance.choice((0.01, 0.5, 5.0, 50.0)))
                raise httpx.RemoteProtocolError("Server disconnected without sending a response.", request=request)
            case "doubled":
                self._done(request)
        response = self._done(request)
        world.wait(took / 2)
        if world.now < self.up_at:
            self._lose()
        if befalls == "answer lost" or world.now < self.up_at:
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.", request=request)
        if befalls in ("500", "503"):
            return _response(request, int(befalls), "application/json", _SAID)
        return response

    def restart(self, seconds: float, unsaved: int) -> None:
        """Be away for a while; if that is noticed by anybody, without what was written last."""
        self.up_at, self._unsaved = self._world.now + seconds, unsaved
        self._trouble(seconds)
        self._world.fault("restart", f"for {seconds:g} s")

    def _lose(self) -> None:
        lost, self._unsaved = self.server.forget(self._unsaved), 0
        if lost:
            self._world.fault("last writes lost", f"{lost} of them")

    def _hang(self, request: httpx.Request) -> httpx.Response:
        self.befallen |= _about(request)
        timeout = request.extensions["timeout"]["read"]
        if self.answers_at - self._world.now > timeout:
            if self._world.chance.random() < 0.5:
                self._later(request, self.answers_at - self._world.now)
            self._world.wait(timeout)
            raise httpx.ReadTimeout("timed out", request=request)
        self._world.wait(self.answers_at - self._world.now)
        return self.ask(request)

    def _later(self, request: httpx.Request, seconds: float) -> None:
        """Have it done although nobody waits for it any more."""
        process = self._world.process

        def later() -> None:
            self._world.wait(seconds)
            if self._world.now >= self.up_at:
                self._world.say(f"late: {request.method} {request.url.path}")
                self._done(request)
                about = request.url.path.split("/")[3:]
                self.came_late.update(about)
                others = [self._asked_by[part] for part in about if part in self._asked_by]
                if not process.is_alive or any(number != process.number for number in others):
                    self.orphaned.update(about)

        self._world.start("gateway", later)

    def _done(self, request: httpx.Request) -> httpx.Response:
        for rule in self.rules:
            if rule.applies(request.method, request.url.path) and self._world.now < rule.until:
                self._world.faults[rule.words] += 1
                self.befallen |= _about(request)
                if rule.is_done:
                    self._answer(request)
                return _response(request, rule.status, "application/json", _SAID)
        response = _response(request, *self._answer(request))
        path = tuple(request.url.path.split("/")[4:])
        if request.method == "PATCH" and len(path) == 1 and "stop" in self.server.nodes[path].metadata:
            self.closed.setdefault(*path, self._world.now)
        return response

    def _answer(self, request: httpx.Request) -> tuple[int, str, bytes]:
        return self.server.answer(request.method, request.url.path, request.url.params, request.content)


def _about(request: httpx.Request) -> set[str]:
    """The parts of the path of the node that a request is about, among them the uid of its run."""
    parts = set(request.url.path.split("/"))
    return parts | {orjson.loads(request.content)["id"]} if request.method == "POST" else parts


def _response(request: httpx.Request, status: int, kind: str, content: bytes) -> httpx.Response:
    return httpx.Response(status, headers=_headers(kind), content=content, request=request)


@cache
def _headers(kind: str) -> httpx.Headers:
    return httpx.Headers({"content-type": kind})


class _Client(httpx.Client):
    """Goes without what takes httpx most of its time, and of which the server wants to know nothing: headers, cookies.

    Nor does it follow anybody elsewhere. So a request costs a quarter.
    """

    def build_request(
        self, method: str, url: Any, *, content: Any = None, json: Any = None, params: Any = None, **options: Any
    ) -> httpx.Request:
        """As httpx does, but for headers."""
        timeout = options.get("timeout", httpx.USE_CLIENT_DEFAULT)
        timeout = self.timeout if timeout is httpx.USE_CLIENT_DEFAULT else timeout
        extensions = {"timeout": httpx.Timeout(timeout).as_dict()}
        return httpx.Request(method, _url(str(url)), params=params, content=content, json=json, extensions=extensions)

    def send(self, request: httpx.Request, **_: Any) -> httpx.Response:
        """As httpx does, but for redirects."""
        return self._transport.handle_request(request)


_url = lru_cache(maxsize=1000)(httpx.URL)


class _Transport(httpx.BaseTransport):
    def __init__(self, network: Network) -> None:
        self._network = network

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._network.ask(request)


class _About(httpx.BaseTransport):
    """Says what a server says of itself."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        import tiled

        about = {
            "api_version": 0,
            "library_version": tiled.__version__,
            "formats": {},
            "aliases": {},
            "queries": [],
            "authentication": {"required": True, "providers": [], "links": None},
            "links": {"self": f"{URI}/"},
            "meta": {},
        }
        return _response(request, 200, "application/json", orjson.dumps(about))


@cache
def _context() -> Any:
    from tiled.client.context import Context

    with patch("tiled.client.context.Transport", lambda **_: _About()):
        return Context(URI, api_key="secret")


def client_by(transport: httpx.BaseTransport) -> "Container":
    """Tiled's client of a server that is reached so: made without a request but one for its root."""
    from tiled.client.constructors import from_context

    template = _context()
    context = object.__new__(type(template))
    client = _Client(transport=transport, timeout=template.http_client.timeout, trust_env=False)
    client.headers = template.http_client.headers
    vars(context).update(vars(template), http_client=client)
    return from_context(context)
