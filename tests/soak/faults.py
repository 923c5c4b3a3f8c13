"""What befalls a soak: requests by a proxy, processes and disks by a plan that a seed makes as it goes."""

import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.disks import fill
from tests.proxy import Fault, Request

from .machine import Server, Writer

_OF_REQUESTS: tuple[Fault, ...] = (
    *("drop answer", "cut answer", "garble answer", "cut", "hold", "twice", "lie", "page"),
    *(500, 502, 503, 404, 429, 0.05, 0.5, 2.0),
)
# Twice, or late, is of no matter but for what changes something. All else that a gateway says was done is believed:
# what is promised is that rows are counted.
_NEEDS: Mapping[Fault, Callable[[Request], bool]] = {
    "hold": lambda request: request.method != "GET",
    "twice": lambda request: request.method != "GET",
    "lie": lambda request: request.is_append,
}
_PAUSES = (0.2, 0.5, 1.0, 2.0)
_TRIES = 3


def _words(fault: Fault) -> str:
    """What a fault of a request is called in the table."""
    late = f"{fault:g} s late" if isinstance(fault, float) else ""
    return f"request: {late or (f'status {fault}' if isinstance(fault, int) else fault)}"


class Faults:
    """What befalls which request, and when else something happens.

    Requests are asked for by threads of the proxy; all else is done by the one thread that calls `one`.

    Parameters
    ----------
    seed : int
        Decides.
    server : Server
        Behind its proxy.
    writers : sequence of Writer
        Who is killed.
    small : Path, optional
        The disk of the last writer's spool, if it is a small one.
    """

    def __init__(self, seed: int, server: Server, writers: Sequence[Writer], small: Path | None) -> None:
        self._chance, self._of_requests = random.Random(f"plan {seed}"), random.Random(f"requests {seed}")
        self._server, self._writers, self._small = server, writers, small
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter(dict.fromkeys(map(_words, _OF_REQUESTS), 0))
        """How often each kind came about."""
        self.refused: set[str] = set()
        """The runs at which requests failed for longer than anybody's patience, by uid."""
        self.orphaned: set[str] = set()
        """The runs of which a late request was on its way when a writer was killed, by uid, among other names.

        That is the one thing that nobody can know of: see "Requests that come late" in the docs."""
        self.befallen: Counter[str] = Counter()
        """How often something befell a request that changes something, by the uid of its run, among other names."""
        self._often, self._all, self._run = 0.05, None, ""
        self._to_come: list[Fault] = []
        self._late: list[tuple[float, Request]] = []
        server.proxy.fault = self.fault

    def fault(self, request: Request) -> Fault:
        """What befalls a request."""
        with self._lock:
            if self._run == "next" and request.method == "POST" and request.path.count("/") > 4:
                self._run = request.path.split("/")[4]
                self.refused.add(self._run)
            if self._run and self._run in request.path:
                self.counts["500 at one run"] += 1
                return 500
            if self._all is not None:
                return self._counted(self._all)
            if self._of_requests.random() >= self._often:
                return None
            return self._remember(self._counted(self._next(request)), request)

    def explains(self, uid: str, reason: str) -> bool:
        """Whether a run may be parked for that: requests failed at it, or one of it each time that it was tried."""
        return (uid in self.refused and "the proxy says so" in reason) or self.befallen[uid] >= _TRIES

    def _next(self, request: Request) -> Fault:
        """The next kind that can befall a request: all come equally often, in an order that the seed decides."""
        for _ in range(2):
            for place, fault in enumerate(self._to_come):
                if _NEEDS.get(fault, lambda _: True)(request):
                    return self._to_come.pop(place)
            self._to_come += self._of_requests.sample(_OF_REQUESTS, len(_OF_REQUESTS))
        return None

    def _remember(self, fault: Fault, request: Request) -> Fault:
        """Know of a request that changes something how long it is on its way."""
        if request.method != "GET":
            self.befallen.update(set(request.path.split("/")))
        if request.method != "GET" and (fault == "hold" or isinstance(fault, float)):
            self._late.append((time.monotonic() + (fault if isinstance(fault, float) else math.inf), request))
        return fault

    def _counted(self, fault: Fault) -> Fault:
        self.counts[_words(fault)] += 1
        return fault

    def one(self) -> None:
        """Have the next thing happen, and be over."""
        kinds: list[Callable[[], None]] = [
            *[self._kill_writer] * 4,
            *[self._away] * 2,
            *[self._page] * 1,
            *[self._kill_server] * 2,
            *[self._full] * 2,
            *[self._quota] * 2,
            *[self._other_rate] * 2,
            *[self._one_run] * 1,
        ]
        self._chance.choice(kinds)()
        self._server.proxy.release()
        with self._lock:
            self._late = [each for each in self._late if each[0] < math.inf]
        time.sleep(self._chance.choice(_PAUSES))

    def end(self) -> None:
        """Let all be well."""
        with self._lock:
            self._often, self._all, self._run = 0.0, None, ""
        self._server.start()
        self._server.proxy.release()
        for writer in self._writers:
            writer.allow(-1)

    def _for_a_while(self, fault: Fault) -> None:
        self._all = fault
        time.sleep(self._chance.choice((0.3, 1.0, 4.0)))
        self._all = None

    def _away(self) -> None:
        self.counts["nobody answers"] += 1
        self._for_a_while("cut")

    def _page(self) -> None:
        self.counts["a gateway answers"] += 1
        self._for_a_while(self._chance.choice(("page", 502, 404)))

    def _kill_writer(self) -> None:
        with self._lock:
            self._late = [each for each in self._late if each[0] > time.monotonic()]
            self.orphaned.update(*(request.path.split("/") for _, request in self._late))
        self.counts["writer killed"] += self._chance.choice(self._writers).kill()

    def _kill_server(self) -> None:
        self.counts["server killed"] += 1
        self._server.kill()
        time.sleep(self._chance.choice((0.0, 0.5, 3.0)))
        self._server.start()

    def _full(self) -> None:
        if self._small is None:
            self._quota()
            return
        self.counts["disk full"] += 1
        filler = fill(self._small)
        time.sleep(self._chance.choice((0.5, 2.0)))
        with suppress(OSError):
            filler.unlink()
        # What a killed process may take along is what waits in memory: that is a case, too, but a rare one.
        time.sleep(self._chance.choice((0.0, 1.0, 1.0)))

    def _quota(self) -> None:
        self.counts["quota met"] += 1
        writer = self._chance.choice(self._writers)
        writer.allow(8192)
        time.sleep(self._chance.choice((0.5, 2.0)))
        writer.allow(-1)
        time.sleep(self._chance.choice((0.0, 1.0, 1.0)))

    def _other_rate(self) -> None:
        self._often = self._chance.choice((0.0, 0.02, 0.1, 0.3))

    def _one_run(self) -> None:
        """For longer than anybody's patience requests fail at one run, the next that is made."""
        if self._run:
            self._run = ""
        else:
            self._run = "next"
