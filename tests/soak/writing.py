"""A writer: takes orders, and forks for each a child that writes runs until it is told to end, or killed."""

import itertools
import json
import logging
import os
import pickle
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from tests.document_streams import Case, build
from tests.small_runs import SmallRun

from .journal import Begins, Closed, Given, Sending, Taken

Document = tuple[str, Mapping[str, Any]]
_MOST_WAITING = 300
_PACES = (0.0, 0.0, 0.002, 0.02)


class Life:
    """What one child does."""

    def __init__(self, order: Mapping[str, Any]) -> None:
        self.order, self.chance = order, random.Random(order["seed"])
        self.say, self.directory = Sending(order["journal"]), Path(order["data"])
        self.cases: list[Case] = pickle.loads(Path(order["cases"]).read_bytes())  # noqa: S301 - our own
        self.numbers = itertools.count(order["first"])
        self.writer = self.made()
        self.unsaved: Callable[[], int] = lambda: self.writer._spooling.store.unsaved
        self.pace = 0.0

    def made(self) -> Any:
        """The writer, as soon as nothing but the catalog is in its way."""
        from bluesky_filestore import CatalogWriter
        from bluesky_filestore.errors import CatalogError, SpoolError

        options = {"interval": 0.05, "wait_on_stop": 0.3, "park_after": self.order["park_after"], "settle": 5.0}
        while True:
            with suppress(CatalogError, SpoolError):
                return CatalogWriter.from_uri(
                    self.order["uri"], api_key=self.order["api_key"], spool=self.order["spool"], **options
                )
            time.sleep(0.2)

    def live(self) -> None:
        """Write runs until told to end."""
        from bluesky_filestore.errors import CatalogError

        kinds = [self.small, self.small, self.case, self.case, self.engine]
        while not Path(self.order["end"]).exists():
            self.pace = self.chance.choice(_PACES)
            with suppress(_NoRoomError):
                self.chance.choice(kinds)()
            time.sleep(self.chance.uniform(0.0, 2 * self.order["rest"]))
            # What is asked of the server is to be no more than it can do: backlogs come of what befalls it.
            while self.waiting() > _MOST_WAITING and not Path(self.order["end"]).exists():
                time.sleep(0.2)
        error = ""
        try:
            self.writer.close()
        except CatalogError as away:
            error = str(away)
        self.say(Closed(error))

    def waiting(self) -> int:
        """How many documents of the spool the catalog has not got; none if nobody can say."""
        from bluesky_filestore.errors import SpoolError
        from bluesky_filestore.spool import Ledger

        with suppress(SpoolError), closing(Ledger(Path(self.order["spool"]))) as ledger:
            return max((ledger.waiting_documents(number)[0] for number in ledger.catalogs()), default=0)
        return 0

    def give(self, uid: str, name: str, doc: Mapping[str, Any]) -> None:
        """Hand over a document."""
        self.say(Given(uid, name, doc))
        began = time.monotonic()
        self.writer(name, doc)
        self.say(Taken(time.monotonic() - began, self.unsaved()))
        time.sleep(self.pace)

    def small(self) -> None:
        """A run with small arrays, a column that changes its type, and images in one file."""
        with _no_room():
            run = SmallRun(self.directory, next(self.numbers), self.chance.choice([1, 5, 12, 40]))
        self.say(Begins(run.uid, "composed", {("primary", "image"): run.images[:, np.newaxis]}))
        for name, doc in run.documents:
            self.give(run.uid, name, doc)

    def case(self) -> None:
        """A run of several cameras, streams and stagings, rewound and paged."""
        with _no_room():
            built = build(self.chance.choice(self.cases), self.directory / f"case {next(self.numbers)}")
        frames = {place: np.stack(of) for place, of in built.frames.items()}
        self.say(Begins(built.uid, "right frame", frames))
        for name, doc in built.documents:
            self.give(built.uid, name, doc)

    def engine(self) -> None:
        """A run of a RunEngine, whose detector writes a file for each point."""
        from bluesky import RunEngine
        from bluesky.plans import scan
        from ophyd.sim import SynAxis, SynSignalWithRegistry

        first, values = next(self.numbers), itertools.count()
        motor, count = SynAxis(name="motor"), self.chance.choice([1, 7, 20])
        image = np.arange(12, dtype="<f8").reshape(3, 4) + 1000 * first
        camera = SynSignalWithRegistry(
            lambda: image + next(values), name="camera", save_path=str(self.directory), labels={"detectors"}
        )
        run = RunEngine()
        run.subscribe(self.of_engine())
        try:
            with suppress(OSError):
                # On a full disk its detector fails, and so does the plan.
                run(scan([camera], motor, 0, 1, count))
        finally:
            run.loop.call_soon_threadsafe(run.loop.stop)
            run._th.join()
            run.loop.close()

    def of_engine(self) -> Callable[[str, Mapping[str, Any]], None]:
        """What is subscribed: the journal, and the writer."""
        uid = ""

        def take(name: str, doc: Mapping[str, Any]) -> None:
            nonlocal uid
            if name == "start":
                uid = str(doc["uid"])
                self.say(Begins(uid, "RunEngine", {}))
            self.give(uid, name, dict(doc))

        return take


class _NoRoomError(Exception):
    """A detector's disk is full: there is no such run."""


@contextmanager
def _no_room() -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        time.sleep(0.2)
        raise _NoRoomError from error


def orders() -> Iterator[dict[str, Any]]:
    """What is to be done, one JSON line each."""
    return map(json.loads, sys.stdin)


def main() -> None:
    """Take orders; say of each the child's number, and that it is over."""
    # A child finds it all imported.
    import bluesky.plans  # noqa: F401
    import h5py  # noqa: F401
    import ophyd.sim  # noqa: F401
    import tiled.client.array
    import tiled.client.dataframe  # noqa: F401

    import bluesky_filestore.catalog_writer  # noqa: F401
    from bluesky_filestore.delivery import lane

    print("ready", flush=True)
    for order in orders():
        child = os.fork()
        if not child:
            try:
                logging.basicConfig(filename=order["log"], level=logging.WARNING)
                # The log meets the quotas, too.
                logging.raiseExceptions = False
                lane._LATEST_SECONDS = order["late"]
                Life(order).live()
            except BaseException:
                # Whatever it ran out of.
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                logging.exception("The writer ended.")
                os._exit(1)
            os._exit(0)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
