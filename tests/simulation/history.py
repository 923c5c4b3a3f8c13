"""One history: writers, whoever delivers beside them, and what befalls them, all by a seed."""

import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
from bluesky_filestore.catalogs.tiled.connecting import catalog_errors
from bluesky_filestore.delivery.resuming import follow
from bluesky_filestore.delivery.settings import DeliverySettings
from bluesky_filestore.delivery.spooling import Spooling
from bluesky_filestore.delivery.uploader import Uploader
from bluesky_filestore.errors import FileStoreError, SpoolDamagedError, SpoolError
from bluesky_filestore.spool import Ledger
from bluesky_filestore.spool.database import FILE_NAME
from bluesky_filestore.spool.spooled_run import find_run

from .documents import Planned, planned_run
from .network import Network, Rule, client_by
from .server import URI, Server
from .world import Process, World

CATALOG = f"{URI}/metadata/"
ADDRESSES = (CATALOG, CATALOG.rstrip("/"), URI, "http://CATALOG")
"""Of the one catalog, as its users may write them."""
_OURS = tuple(f"application/x-bluesky-filestore-{kind}" for kind in ("hdf5", "series", "handled", "ragged"))
PARK_AFTER, CLOSES = 20.0, 400.0
"""For how many seconds the catalog may fail at a run, and at most for closing a writer."""
_LATEST, _SETTLED, _LONGEST_PAUSE = 3000.0, 1200.0, 16.0
KINDS = (
    "losses",
    "losses below runs",
    "outages",
    "lost writes",
    "hangs",
    "slowness",
    "failing node",
    "failing catalog",
    "kills",
    "full disk",
    "damage",
    "resume",
    "contention",
    "locked",
    "commands",
    "second writer",
)
_SERVED = 0.05
"""How many histories have somebody deliver all the while, so that writers have to hear of it from others."""


@dataclass
class Taken:
    """What became of the documents of a run on their way into the spool."""

    planned: Planned
    given: int = 0
    """How many were given to the writer, the last perhaps when it was killed."""
    safe: int = 0
    """How many of them were on the disk at some time, for certain."""
    is_killed: bool = False
    """Whether its writer was killed in it."""
    stopped_at: float = 0.0


@dataclass
class Call:
    """How long a plan waited."""

    words: str
    seconds: float
    promised: float
    error: str = ""
    """What was raised."""
    run: str = ""
    """The run that it ended, if it did."""
    is_readable: bool = False
    """Whether that could be read then."""
    well_for: float = 0.0
    """For how long all had been well with the catalog, when it was over."""
    is_in_hang: bool = False
    """Whether the catalog answered nothing all the while."""


@dataclass
class History:
    """What is simulated, and what is known of it from outside.

    Parameters
    ----------
    seed : int
        What happens follows from it.
    directory : Path
        An empty directory.
    files : Path
        Where the images are, see `documents.make_files`.
    """

    seed: int
    directory: Path
    files: Path
    runs: list[Taken] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)
    """The runs that somebody parked, or forgot."""
    kinds: frozenset[str] = frozenset()
    findings: list[str] = field(default_factory=list)
    longest_lock: float = 0.0
    """For how long somebody had the database, at most."""

    def __post_init__(self) -> None:
        self.world = World(self.seed, self.directory)
        self.is_stock = self.world.chance.random() < 0.5
        self.network = Network(self.world, Server(() if self.is_stock else _OURS))
        self.spool = self.directory / "spool"
        chance = self.world.chance
        share = chance.choice((0.1, 0.25, 0.5))
        self.kinds = frozenset(kind for kind in KINDS if chance.random() < share)
        if random.Random(~self.seed).random() < _SERVED:
            self.kinds |= {"service"}
        self.wait_on_stop = chance.choice((0.0, 1.0, 10.0))
        self._living, self.is_served = 1, False

    def run(self) -> None:
        """Have it happen, to its end."""
        world, chance = self.world, self.world.chance
        world.say(f"seed {self.seed}: {', '.join(sorted(self.kinds)) or 'nothing befalls it'}")
        if "contention" in self.kinds:
            world.slow = chance.choice((0.02, 0.2))
        if "losses" in self.kinds:
            self.network.lossy = chance.choice((0.01, 0.05, 0.3))
        if "losses below runs" in self.kinds:
            self.network.lossy_below = chance.choice((0.1, 0.3, 0.6))
        if "slowness" in self.kinds:
            self.network.latency = chance.choice(((0.05, 0.3), (0.5, 3.0)))
        if "service" in self.kinds:
            world.start("service", self._serve)
            world.run(lambda: self.is_served, _LATEST)
        names = ["writer"] + ["second"] * ("second writer" in self.kinds)
        self._living = len(names)
        for name in names:
            self._begin_writer(name, chance.choice((1, 2, 3)), lives=chance.choice((1, 2, 3)))
        weather = [world.start(kind, happens) for kind, happens in self._weather().items() if kind in self.kinds]
        if not world.run(lambda: not self._living, _LATEST):
            self.findings.append(f"a writer has not ended after {_LATEST:g} s")
        for process in weather:
            world.stop(process)
        self.network.heal()
        world.fill_disk(is_full=False)
        world.slow = 0.0
        world.say("all is well from now on")
        self._end()

    def _serve(self) -> None:
        how = DeliverySettings(0.5, settle=5.0, park_after=PARK_AFTER, reconcile=False)
        uploader = Uploader(self.spool, TiledCatalog(self._client, CATALOG), how)
        while self._living:
            self.is_served = self.is_served or uploader.delivers
            self.world.sleep(0.5)
        uploader.close()

    # Writers

    def _begin_writer(self, name: str, runs: int, lives: int) -> None:
        world, chance = self.world, self.world.chance
        planned = [planned_run(chance, self.files, chance.choice((0, 1, 3, 6))) for _ in range(runs)]
        process = world.start(name, lambda: self._write(name, planned))
        if "kills" in self.kinds and lives > 1:
            process.dies_in = chance.choice((20, 60, 150, 400, 1000)) * chance.random()

        def watch() -> None:
            world.wait_for_end(process)
            for taken in self.runs:
                if taken.planned in planned and taken.safe < len(taken.planned.documents):
                    taken.is_killed = True
            if process.failure is not None:
                self.findings.append(f"{name} ended with {process.failure!r}")
            if lives > 1 and "kills" in self.kinds:
                world.wait(chance.choice((0.0, 1.0, 20.0)))
                self._begin_writer(name, runs, lives - 1)
            else:
                self._living -= 1

        world.start(f"watch {name}", watch)

    def _write(self, name: str, planned: list[Planned]) -> None:
        world, chance = self.world, self.world.chance
        spooling = None
        while spooling is None:
            try:
                spooling = self._spooling()
            except SpoolError as error:
                world.say(f"{error}")
                world.sleep(1.0)
        for run in planned:
            taken = Taken(run)
            self.runs.append(taken)
            # At times somebody changes the sample.
            world.sleep(chance.choice((0.0, 0.0, 0.0, 0.0, 10.0)))
            for document in run.documents:
                world.sleep(chance.choice((0.0, 0.001, 0.1, 1.0)))
                self._put(spooling, taken, *document)
        world.sleep(chance.choice((0.0, 0.3, 5.0)))
        began, error = world.now, ""
        try:
            spooling.close()
        except FileStoreError as raised:
            error = str(raised).replace(str(self.directory), "")
        world.say(f"closed {error}")
        seconds = world.now - began
        self.calls.append(Call(f"{name} closes", seconds, CLOSES, error, well_for=self.network.well_for - seconds))
        if spooling.store.unsaved:
            self._forget_unsaved(spooling)

    def _spooling(self) -> Spooling:
        chance = self.world.chance
        how = DeliverySettings(chance.choice((0.05, 0.5)), settle=5.0, park_after=PARK_AFTER, reconcile=False)
        return Spooling(
            self.spool,
            [TiledCatalog(self._client, chance.choice(ADDRESSES))],
            wait_on_stop=self.wait_on_stop,
            durability=chance.choice(("normal", "full")),
            settings=how,
            batch_size=chance.choice((1, 3, 1000)),
        )

    def _client(self) -> Any:
        with catalog_errors(URI):
            return client_by(self.network.transport())

    def _put(self, spooling: Spooling, taken: Taken, name: str, doc: Any) -> None:
        world = self.world
        taken.given += 1
        began, stalled, hangs_until = world.now, world.stalled(), self.network.answers_at
        uid, error = taken.planned.uid, ""
        try:
            spooling.put(name, doc)
        except SpoolError as raised:
            error = str(raised)
        seconds = world.now - began - (world.stalled() - stalled)
        promised = 0.05 + (self.wait_on_stop if name == "stop" else 0.0)
        call = Call(f"{name} of run {uid[:8]} at {began:.3f}", seconds, promised, error)
        if name == "stop":
            call.run, call.is_readable = uid, uid in self.network.closed
            call.well_for, call.is_in_hang = self.network.well_for - seconds, world.now <= hangs_until
        self.calls.append(call)
        taken.safe = max(taken.safe, taken.given - spooling.store.unsaved)
        if name == "stop":
            taken.stopped_at = world.now

    def _forget_unsaved(self, spooling: Spooling) -> None:
        for taken in self.runs:
            taken.is_killed = taken.is_killed or taken.safe < taken.given

    # What befalls them

    def _weather(self) -> dict[str, Callable[[], None]]:
        return {
            "outages": lambda: self._outages(0),
            "lost writes": lambda: self._outages(self.world.chance.choice((1, 2, 5, 20))),
            "hangs": self._hangs,
            "failing node": self._failing_node,
            "failing catalog": self._failing_catalog,
            "full disk": self._full_disk,
            "damage": self._damage,
            "resume": self._resumes,
            "locked": self._locks,
            "commands": self._commands,
        }

    def _pauses(self, most: int = 3) -> Iterator[None]:
        for _ in range(self.world.chance.randint(1, most)):
            self.world.wait(self.world.chance.choice((0.1, 1.0, 5.0)) * self.world.chance.random())
            yield

    def _outages(self, unsaved: int) -> None:
        world = self.world
        for _ in self._pauses():
            seconds = world.chance.choice((1.0, 10.0, 300.0) if unsaved else (0.01, 1.0, 10.0, 300.0))
            self.network.restart(seconds, unsaved)
            world.wait(seconds)

    def _hangs(self) -> None:
        for _ in self._pauses():
            seconds = self.world.chance.choice((0.3, 3.0, 100.0))
            self.network.hang(seconds)
            self.world.wait(seconds)

    def _failing_node(self) -> None:
        world, chance = self.world, self.world.chance
        for _ in self._pauses(2):
            if not self.runs:
                continue
            run = chance.choice(self.runs).planned.uid
            what = chance.choice((run, f"{run}/primary", f"{run}/primary/internal", f"{run}/primary/wave", "image"))
            status = chance.choice((404, 429, 500, 503, 422))
            seconds = chance.choice((2.0, 60.0, float("inf")))
            is_done = chance.random() < 0.2

            def applies(verb: str, path: str, what: str = what, run: str = run) -> bool:
                return verb != "GET" and what in path and run in path

            words = f"status {status} for one node"
            self.network.add(Rule(run, words, applies, status, world.now, world.now + seconds, is_done))
            world.fault("failing node", f"{status} for {what} for {seconds:g} s{', and done' if is_done else ''}")

    def _failing_catalog(self) -> None:
        world, chance = self.world, self.world.chance
        for _ in self._pauses(2):
            status, seconds = chance.choice((404, 429, 500, 503)), chance.choice((1.0, 10.0, 200.0))
            questions_too = chance.random() < 0.5

            def applies(verb: str, path: str, questions_too: bool = questions_too) -> bool:
                return questions_too or verb != "GET"

            self.network.add(Rule("", f"status {status} for all", applies, status, world.now, world.now + seconds))
            world.fault("failing catalog", f"{status} for {seconds:g} s")
            world.wait(seconds)

    def _full_disk(self) -> None:
        for _ in self._pauses():
            self.world.fault("full disk")
            self.world.fill_disk(is_full=True)
            self.world.wait(self.world.chance.choice((0.2, 3.0, 30.0)))
            self.world.fill_disk(is_full=False)
            self.world.say("there is room again")

    def _damage(self) -> None:
        for _ in self._pauses(1):
            self.world.fault("damage")
            self.world.damage(self.spool / FILE_NAME)

    def _resumes(self) -> None:
        world, chance = self.world, self.world.chance
        for _ in self._pauses():
            process = world.start("resume", self._resume)
            if "kills" in self.kinds and chance.random() < 0.5:
                process.dies_in = chance.choice((20, 100, 400)) * chance.random()
            world.wait_for_end(process)

    def _resume(self, wait: float = 20.0) -> None:
        try:
            for _ in follow(self.spool, CATALOG, self._client, wait=wait, park_after=PARK_AFTER):
                pass
        except FileStoreError as error:
            self.world.say(f"resume ends: {error}")

    def _locks(self) -> None:
        world, chance = self.world, self.world.chance
        for _ in self._pauses():
            if not (self.spool / FILE_NAME).exists():
                continue
            seconds = chance.choice((0.01, 0.2, 4.0, 7.0))
            with closing(world.connect(self.spool / FILE_NAME, isolation_level=None, timeout=0.0)) as connection:
                try:
                    connection.execute("BEGIN IMMEDIATE")
                except sqlite3.Error:
                    continue
                world.fault("locked", f"for {seconds:g} s")
                self.longest_lock = max(self.longest_lock, seconds)
                world.wait(seconds)

    def _commands(self) -> None:
        world, chance = self.world, self.world.chance
        for _ in self._pauses():
            if not self.runs:
                continue
            uid, verb = chance.choice(self.runs).planned.uid, chance.choice(("park", "ask again"))

            def command(uid: str = uid, verb: str = verb) -> None:
                with suppress(FileStoreError):
                    (found,) = find_run([self.spool], uid)
                    if verb == "park":
                        self.touched.add(uid)
                        found.park("somebody wanted it so")
                    else:
                        found.ask_again()
                    world.fault(f"command {verb}", uid)

            world.start(verb, command)

    def _end(self) -> None:
        """Deliver what is left, while nothing goes wrong."""
        world = self.world
        latest = world.now + _SETTLED

        def last() -> None:
            for uid in sorted(self.touched):
                with suppress(FileStoreError):
                    (found,) = find_run([self.spool], uid)
                    found.ask_again()
            how = DeliverySettings(2.0, settle=5.0, park_after=PARK_AFTER, reconcile=False, keep=float("inf"))
            uploader = Uploader(self.spool, TiledCatalog(self._client, CATALOG), how)
            pause = 0.5
            while self._is_unfinished():
                world.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            uploader.close()

        process: Process = world.start("last", last)
        if not world.run(lambda: not process.is_alive, latest):
            self.findings.append(f"not all is settled {_SETTLED:g} s after all was well")
        if process.failure is not None:
            self.findings.append(f"resume ended with {process.failure!r}")

    def _is_unfinished(self) -> bool:
        try:
            with closing(Ledger(self.spool)) as ledger:
                return bool(ledger.unfinished(ledger.register_catalog(CATALOG), 1))
        except SpoolDamagedError:
            return True


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing that runs in threads of its own, sleeps, or fills the screen."""
    import logging

    import dask
    import stamina

    was_active = stamina.is_active()
    stamina.set_active(False)
    logging.disable(logging.CRITICAL)
    try:
        with dask.config.set(scheduler="synchronous"):
            yield
    finally:
        logging.disable(logging.NOTSET)
        stamina.set_active(was_active)
