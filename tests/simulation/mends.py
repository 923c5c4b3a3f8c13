"""Mends of faults that were found once, each of which can be taken out: the simulation then has to find the fault."""

import inspect
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from textwrap import dedent
from typing import Any
from unittest.mock import patch

from .judge import EXCUSES_LATENESS, EXCUSES_READING, EXCUSES_SETTLING, EXCUSES_STOPS


@dataclass(frozen=True)
class Mend:
    """A piece of the package, and what was there in its place, or might have been."""

    fault: str
    """What was wrong, with the number that it has in the issue about faults, if it has one."""
    module: str
    name: str
    """The function, or the class and its method."""
    mend: str
    """Its words that are taken out."""
    before: str
    """What comes instead."""
    seed: int | None
    """Of a history that finds it, if one is known."""
    words: str
    """What is found then, among others."""
    kinds: frozenset[str] = frozenset()
    """What has to befall a history that may find it."""
    hidden_by: frozenset[str] = frozenset()
    """What may not: it would excuse what is found."""
    also: tuple[str, str, str, str] | None = None
    """Module, name, mend and before of a second one: today nothing gets as far as to the first."""

    def may_be_found(self, kinds: frozenset[str]) -> bool:
        """Whether a history may find it that such things befall."""
        return self.kinds <= kinds and not self.hidden_by & kinds

    @contextmanager
    def taken_out(self) -> Iterator[None]:
        """Have the package without it."""
        with ExitStack() as stack:
            for piece in ((self.module, self.name, self.mend, self.before), self.also):
                for place, name, before in _replaced(*piece) if piece else ():
                    stack.enter_context(patch.object(place, name, before))
            yield


def _replaced(module_name: str, path: str, mend: str, before: str) -> Iterator[tuple[Any, str, Any]]:
    """Where something of the package is known, by what name, and what it is without a mend."""
    module = import_module(f"bluesky_filestore.{module_name}")
    *holder, name = path.split(".")
    place: Any = getattr(module, holder[0]) if holder else module
    known, made = getattr(place, name), dict[str, Any]()
    source = dedent(inspect.getsource(known))
    assert source.count(mend) == 1, f"{module_name}.{path} has not once {mend!r}"
    exec(source.replace(mend, before), vars(module), made)  # noqa: S102 - it is ours
    ours = [each for key, each in sys.modules.items() if key.startswith("bluesky_filestore")]
    # Of a function others have the name, too.
    for each in [place] if holder else [each for each in ours if vars(each).get(name) is known]:
        yield each, name, made[name]


MENDS = {
    "B1 status 5xx": Mend(
        "B1: one run at which the catalog fails held up all others",
        "delivery.applying",
        "Applying._differs_or_is_away",
        "return not differs and not run.only_end_is_left and self._health.failed(run.uid)",
        "return not differs",
        3,
        "not all is settled",
    ),
    "B1 status 404": Mend(
        "B1: one 404 of a gateway parked a run for good",
        "catalogs.tiled.connecting",
        "_error_for",
        "status in (httpx.codes.NOT_FOUND, httpx.codes.INTERNAL_SERVER_ERROR)",
        "status == httpx.codes.INTERNAL_SERVER_ERROR",
        626,
        "nothing befell it",
        frozenset(("failing catalog",)),
    ),
    "B1 patience": Mend(
        "B1: what fails was not tried again",
        "delivery.run_delivery",
        "RunDelivery.failed",
        "if self.failures >= tries and now - self.failed_first >= patience:",
        "if self.failures >= tries:",
        2,
        "nothing befell it",
    ),
    "B2": Mend(
        "B2: a value without a text cost its document",
        "spool.encoding",
        "text_of",
        "except Exception as error:",
        "except ArithmeticError as error:",
        4,
        "no words",
    ),
    "B3 in memory": Mend(
        "B3: a document was taken out of the memory before it was on the disk",
        "spool.store",
        "Store._save_unsaved",
        "self._insert((self._unsaved[0],))\n                self._unsaved.popleft()",
        "self._insert((self._unsaved.popleft(),))",
        11,
        "expected",
    ),
    "B3 operations": Mend(
        "B3: an operation was taken out before the catalog had carried it out",
        "delivery.applying",
        "Applying.try_first",
        "is_refused = not self._apply(run, run.operations[0])",
        "is_refused = not self._apply(run, run.operations.popleft()); run.operations.appendleft(None)",
        2,
        "not all is settled",
    ),
    "B4 producers": Mend(
        "B4: a lease that was not got was taken for one, and two writers had one number",
        "spool.lease",
        "register_producer",
        "    if lease.take():\n            if source:",
        "    if lease.take() or True:\n            if source:",
        1866,
        "expected",
        frozenset(("damage", "second writer")),
    ),
    "B4 uploaders": Mend(
        "B4: a lease that was not got was taken for one, and two delivered",
        "delivery.uploader",
        "Uploader._take_up",
        "if self._lease is None or not self._lease.take():",
        "if self._lease is None or not (self._lease.take() or True):",
        173,
        "expected",
    ),
    "B5 requests": Mend(
        "B5: the plan's thread asked the catalog",
        "delivery.health",
        "CatalogHealth.ask_aside",
        "self._question.start()",
        "self._ask_and_notice(); self._question = None",
        15,
        "promised are",
    ),
    "B5 silence": Mend(
        "B5: a catalog that hangs held up each stop for as long as it may wait",
        "delivery.health",
        "Listener.hears_nothing",
        "return self._silent >= self._ask_after + self._health.patience",
        "return False",
        380,
        "while the catalog answered nothing",
        frozenset(("hangs",)),
        hidden_by=EXCUSES_STOPS,
    ),
    "B5 busy": Mend(
        "B5: while somebody had the database others got errors that blame the disk",
        "spool.store",
        "Store._failed",
        "if time.monotonic() - self._busy_since < LONGEST_BUSY_SECONDS:",
        "if False:",
        121,
        "says, and nothing is wrong",
    ),
    "B6": Mend(
        "B6: one catalog was two by two of its addresses",
        "catalog_address",
        "comparable_address",
        "try:",
        "return uri\n    try:",
        78,
        "written down",
    ),
    "B7": Mend(
        "B7: what was met when looking into a file cost the run more than that array",
        "operations.arrays",
        "ExternalArrays.take",
        "except Exception as error:",
        "except ArithmeticError as error:",
        130,
        "nothing befell it",
        frozenset(("bad files",)),
        also=(
            "files.formats",
            "_read",
            "except UnreadableFileError as error:",
            "except UnreadableFileError as error:\n        raise IndexError('as it was') from error",
        ),
    ),
    "B8 written down": Mend(
        "B8: how far a delivery came was written down once a batch",
        "delivery.conveyor",
        "Conveyor._write_for_a_second",
        "return lane.write(time.monotonic() + _WRITE_DOWN_SECONDS)",
        "return lane.write()",
        505,
        "written down",
        frozenset(("slowness",)),
        hidden_by=EXCUSES_LATENESS,
    ),
    "B8 begun again": Mend(
        "B8: one table that is written again restarted all runs of its producer",
        "delivery.conveyor",
        "Conveyor._write_anew",
        "if run.uid == error.run]",
        "]",
        42876,
        "gone through again",
        frozenset(("losses below runs", "runs at once")),
        hidden_by=EXCUSES_READING,
    ),
    "B8 outages": Mend(
        "B8: a writer that does not deliver never forgot an outage",
        "delivery.uploader",
        "Uploader._round",
        "            self._health.check()\n            self.error = None\n        self._look",
        "            pass\n        self._look",
        18835,
        "although all was well",
        frozenset(("outages", "service")),
        hidden_by=EXCUSES_STOPS | {"losses"},
    ),
    "B9": Mend(
        "B9: who closed a writer did not wait for files that came after the end of their run",
        "delivery.spooling",
        "Spooling.close",
        "self.flush(_SETTLE_AT_CLOSE)\n        if",
        "self.flush(0.0)\n        if",
        7734,
        "to settle",
        frozenset(("late files",)),
        hidden_by=EXCUSES_SETTLING,
    ),
    "counted": Mend(
        "rows that a gateway doubled stayed",
        "catalogs.tiled.tables",
        "TiledTable.verify",
        "if present != self.expected:",
        "if False:",
        633,
        "expected",
        frozenset(("losses below runs",)),
    ),
    "outages": Mend(
        "what a catalog lost in an outage stayed lost",
        "delivery.uploader",
        "Uploader._back",
        "if self._was_down:",
        "if False:",
        2672,
        "expected",
        frozenset(("lost writes",)),
    ),
    "doubt": Mend(
        "requests that came late were not looked for",
        "catalogs.tiled.connecting",
        "may_still_be_done",
        "return error.__cause__.response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR\n    never_left",
        "return False\n    return False\n    never_left",
        19,
        "expected",
    ),
    "order": Mend(
        "what came while others waited in memory went before them",
        "spool.store",
        "Store._take",
        "        if self._unsaved:\n            # The order",
        "        if False:\n            # The order",
        11,
        "expected",
    ),
    "values": Mend(
        "a small array was overwritten by values of another type that came late",
        "catalogs.tiled.held",
        "ValueSum.differs",
        "return self.is_known and not is_same",
        "return False",
        None,
        "expected",
        frozenset(("losses below runs",)),
    ),
    "questions": Mend(
        "a catalog at whose address nobody listens was asked a thousand times a second",
        "delivery.health",
        "CatalogHealth.ask_aside",
        " and time.monotonic() >= self._next_question",
        "",
        76,
        "while nobody listened",
        frozenset(("losses", "lost writes")),
    ),
}
"""By name."""
