"""One history: writers, whoever delivers beside them, and what befalls them, all by a seed."""

import random
import sqlite3
from collections.abc import Iterator
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

from .documents import BAD, Planned, planned_run
from .network import Network, client_by
from .server import URI, Server
from .weather import Weather
from .world import Process, World

CATALOG = f"{URI}/metadata/"
ADDRESSES = (CATALOG, CATALOG.rstrip("/"), URI, "http://CATALOG")
"""Of the one catalog, as its users may write them."""
_OURS = tuple(f"application/x-bluesky-filestore-{kind}" for kind in ("hdf5", "series", "handled", "ragged"))
PARK_AFTER, CLOSES = 20.0, 400.0
"""For how many seconds the catalog may fail at a run, and at most for closing a writer."""
_SOON = 0.5
"""For how many seconds files are waited for at least when a writer is closed."""
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
BESIDE = {"service": 0.05, "runs at once": 0.1, "bad files": 0.1, "late files": 0.1}
"""What may be so beside, and how often: somebody delivers all the while, so that writers have to hear of it from
others; a plan has several runs open; files are damaged or missing, or come when documents have told of them."""


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
    unsettled: list[str] = field(default_factory=list)
    """The runs whose files were looked for still when it was over, though they had come when it began, or soon."""


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
        # By itself: what else befalls a history stays the same.
        self._beside = random.Random(~self.seed)
        self.kinds |= {kind for kind, share in BESIDE.items() if self._beside.random() < share}
        self.wait_on_stop = chance.choice((0.0, 1.0, 10.0))
        self._living, self._late, self.is_served = 1, 0, False

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
        weather = [world.start(kind, happens) for kind, happens in Weather(self).kinds().items() if kind in self.kinds]
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
        planned = [planned_run(chance, self._place, chance.choice((0, 1, 3, 6))) for _ in range(runs)]
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
        at_once = len(planned) if "runs at once" in self.kinds else 1
        for begin in range(0, len(planned), at_once):
            some = [Taken(run) for run in planned[begin : begin + at_once]]
            self.runs += some
            # At times somebody changes the sample.
            world.sleep(chance.choice((0.0, 0.0, 0.0, 0.0, 10.0)))
            while going := [taken for taken in some if taken.given < len(taken.planned.documents)]:
                taken = going[0] if at_once == 1 else self._beside.choice(going)
                world.sleep(chance.choice((0.0, 0.001, 0.1, 1.0)))
                self._put(spooling, taken, *taken.planned.documents[taken.given])
        world.sleep(chance.choice((0.0, 0.3, 5.0)))
        began, error = world.now, ""
        try:
            spooling.close()
        except FileStoreError as raised:
            error = str(raised).replace(str(self.directory), "")
        world.say(f"closed {error}")
        seconds = world.now - began
        closing = Call(f"{name} closes", seconds, CLOSES, error, well_for=self.network.well_for - seconds)
        closing.unsettled = self._unsettled(planned, began + _SOON)
        self.calls.append(closing)
        if spooling.store.unsaved:
            self._forget_unsaved(spooling)

    def _place(self, number: int) -> Path:
        """Where the images of a run are said to be, that is one of the numbered files."""
        if "bad files" in self.kinds and self._beside.random() < 0.5:
            return self.files / f"{self._beside.choice(BAD)} {number}.h5"
        if "late files" in self.kinds:
            self._late += 1
            return self.directory / f"late {self._late}.h5"
        return self.files / f"{number}.h5"

    def _bring(self, planned: Planned) -> None:
        """Have a file come that is told of."""
        assert planned.file is not None
        file, known = planned.file, self.files / f"{planned.number}.h5"
        if "late" not in file.name or planned.comes_at:
            return
        seconds, is_begun = self._beside.choice((0.1, 1.0, 4.0)), self._beside.random() < 0.5
        planned.comes_at = self.world.now + seconds

        def bring() -> None:
            if is_begun:
                file.touch()
            self.world.wait(seconds)
            file.unlink(missing_ok=True)
            file.hardlink_to(known)
            self.world.say(f"{file.name} is there")

        self.world.start("camera", bring)

    def _unsettled(self, planned: list[Planned], before: float) -> list[str]:
        """The runs whose files had all come before a time, and are looked for nevertheless."""
        late = [run.uid for run in planned if 0 < run.comes_at < before]
        if late and (self.spool / FILE_NAME).exists():
            with suppress(SpoolError, SpoolDamagedError, sqlite3.Error), closing(Ledger(self.spool)) as ledger:
                entries = ledger.entries(ledger.register_catalog(CATALOG))
                settling = [entry for entry in entries if entry.uid in late and entry.state == "settling"]
                # One in doubt is looked at again for the sake of that.
                return [entry.uid for entry in settling if not entry.is_in_doubt]
        return []

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
        if name == "resource":
            self._bring(taken.planned)
        taken.safe = max(taken.safe, taken.given - spooling.store.unsaved)
        if name == "stop":
            taken.stopped_at = world.now

    def _forget_unsaved(self, spooling: Spooling) -> None:
        for taken in self.runs:
            taken.is_killed = taken.is_killed or taken.safe < taken.given

    def resume(self, wait: float = 20.0) -> None:
        """As the command does."""
        try:
            for _ in follow(self.spool, CATALOG, self._client, wait=wait, park_after=PARK_AFTER):
                pass
        except FileStoreError as error:
            self.world.say(f"resume ends: {error}")

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
