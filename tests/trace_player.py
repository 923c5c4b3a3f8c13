"""Reads the recorded traces of a real IOC, and plays their puts against the simulated one.

Run as ``python trace_player.py DIRECTORY RESULT.json`` it plays them all: in a process of its own, because a
process can reach only one IOC over Channel Access, and the other tests have theirs.
"""

import ast
import json
import re
import sys
import threading
import time
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import epics

from bluesky_filestore.sim import SimulatedIOC

TRACES = Path(__file__).parent / "data" / "traces"

ORDER = [
    "hdf5_unprimed_capture",
    "prime",
    "hdf5_stream",
    "hdf5_numcapture",
    "hdf5_lazy_open",
    "hdf5_single",
    "tiff_single",
    "missing_directory",
    "hdf5_stale_priming",
    "abort",
    "hdf5_swmr",
    "odd",
]
"""The traces in the order in which they were recorded, as the counters in them tell."""

IGNORED = frozenset({"cam1:NumQueuedArrays"})
"""How many frames are queued at the moments the IOC looks: chance, in the traces as well."""

SETTINGS = {"SizeX": 64, "SizeY": 48, "AcquireTime": 0.02, "AcquirePeriod": 0.05}
"""What the recorder had set on the camera before the first trace, as the traces show."""

UNHURRIED_PERIOD = 0.25
"""AcquirePeriod while a trace stops the camera between two frames, to leave a slow machine the time."""

_LINE = re.compile(r"^\s*[\d.]+ ms (?P<text>.*)$")
_PUT = re.compile(r"^PUT (?P<name>\S+) (?P<value>.*?)\s+\((?P<how>put-callback|no wait)\)$")
_DONE = re.compile(r"^<-- (?P<name>\S+) completed=(?P<completed>yes|NO)")
_UPDATE = re.compile(r"^    (?P<name>\S+) (?P<value>-?[\d.]+|'.*?')(?: '.*')?$")


@dataclass(frozen=True)
class Put:
    """One put of a trace."""

    name: str
    value: float | str
    waits: bool
    """Whether it was a put with put-callback."""

    completed: bool = False
    """Whether its completion came in time."""


@dataclass(frozen=True)
class Update:
    """One monitor update of a trace."""

    name: str
    value: float | str


Step: TypeAlias = Put | Update


def without_border_exposure(steps: list[Step]) -> list[Step]:
    """The trace without an exposure that ends in the moment it begins.

    The recorder stopped the camera on the border of two frames, when the next exposure had just begun: a
    moment earlier there is no ``Acquire`` before ``Aborted`` in ``DetectorState_RBV``.
    """
    states = [step for step in steps if isinstance(step, Update) and step.name == "cam1:DetectorState_RBV"]
    borders = [state for state, after in pairwise(states) if (state.value, after.value) == (1, 10)]
    return [step for step in steps if not any(step is border for border in borders)]


def read_trace(name: str) -> list[Step]:
    """The puts and updates of a trace, in order."""
    steps: list[Step] = []
    for line in (TRACES / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        text = _LINE.match(line)["text"]
        if match := _PUT.match(text):
            steps.append(Put(match["name"], ast.literal_eval(match["value"]), match["how"] == "put-callback"))
        elif match := _DONE.match(text):
            last = max(i for i, step in enumerate(steps) if isinstance(step, Put))
            put = steps[last]
            assert put.name == match["name"]
            steps[last] = Put(put.name, put.value, put.waits, match["completed"] == "yes")
        elif match := _UPDATE.match(text):
            steps.append(Update(match["name"], ast.literal_eval(match["value"])))
        else:
            assert text.startswith("###"), f"unread line: {line!r}"
    return without_border_exposure(steps)


@dataclass
class Player:
    """A Channel Access client that plays traces, and notes what it sees.

    A put is played as soon as every update that the trace shows before it has been seen: so the times of
    the trace, and the speed of the machine, do not matter.
    """

    prefix: str
    directory: str
    names: set[str]
    """The records to monitor."""

    ignored: frozenset[str]
    """Records whose updates are not waited for."""

    patience: float = 10.0
    """Seconds to wait for an update or completion that the trace shows."""

    refusal: float = 0.5
    """Seconds to wait for a completion that the trace shows not to come."""

    quiet: float = 0.15
    """Seconds at the end of a trace in which updates that are too many may come."""

    seen: list[Update] = field(default_factory=list)
    pvs: dict[str, epics.PV] = field(default_factory=dict)
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def connect(self) -> None:
        """Monitor all records, and forget the first update of each, which tells its present value."""
        for name in sorted(self.names):
            self.pvs[name] = epics.PV(self.prefix + name, auto_monitor=epics.dbr.DBE_VALUE)
        for name, pv in self.pvs.items():
            assert pv.wait_for_connection(timeout=self.patience), f"{name} does not connect"
            pv.get(timeout=self.patience)
            pv.add_callback(self._note, record=name)

    def _note(self, record: str, value: object, char_value: str, count: int, **_: object) -> None:
        is_text = self.pvs[record].type == "time_char"
        shown = str(char_value).replace(self.directory, "/data") if is_text else int(value)
        with self.arrived:
            self.seen.append(Update(record, shown))
            self.arrived.notify_all()

    def put(self, put: Put) -> bool:
        """Play one put; True if it completed in time."""
        value = put.value.replace("/data", self.directory) if isinstance(put.value, str) else put.value
        pv = self.pvs[put.name] if put.name in self.pvs else epics.PV(self.prefix + put.name)
        assert pv.wait_for_connection(timeout=self.patience), f"{put.name} does not connect"
        if not put.waits:
            pv.put(value)
            return False
        done = threading.Event()
        pv.put(value, wait=False, use_complete=True, callback=lambda **_: done.set())
        return done.wait(self.patience if put.completed else self.refusal)

    def wait_for(self, expected: list[Update]) -> None:
        """Wait until each record has been seen as often as in these updates; give up after `patience`."""
        wanted = [update.name for update in expected if update.name not in self.ignored]

        def all_seen() -> bool:
            names = [update.name for update in self.seen]
            return all(names.count(name) >= wanted.count(name) for name in set(wanted))

        with self.arrived:
            self.arrived.wait_for(all_seen, timeout=self.patience)

    def play(self, steps: list[Step]) -> list[Step]:
        """Play a trace; returns the trace this IOC gives."""
        with self.arrived:
            self.seen.clear()
        puts = []
        for index, step in enumerate(steps):
            if isinstance(step, Put):
                self.wait_for([earlier for earlier in steps[:index] if isinstance(earlier, Update)])
                puts.append(replace(step, completed=self.put(step)))
        self.wait_for([step for step in steps if isinstance(step, Update)])
        time.sleep(self.quiet)
        with self.arrived:
            return without_border_exposure([*puts, *self.seen])


def play_all(directory: Path) -> dict[str, list[Step]]:
    """Play all traces, one after the other, on one IOC that has just booted."""
    traces = {name: read_trace(name) for name in ORDER}
    monitored = {step.name for steps in traces.values() for step in steps if isinstance(step, Update)}
    played = {}
    with SimulatedIOC(directory) as ioc:
        player = Player(ioc.prefix, str(ioc.directory), monitored, IGNORED)
        player.connect()
        for name, value in SETTINGS.items():
            player.put(Put(f"cam1:{name}", value, waits=True, completed=True))
        for name, steps in traces.items():
            period = UNHURRIED_PERIOD if name == "abort" else SETTINGS["AcquirePeriod"]
            player.put(Put("cam1:AcquirePeriod", period, waits=True, completed=True))
            played[name] = player.play(steps)
    return played


def load_played(path: Path) -> dict[str, list[Step]]:
    """What a run of this module has written."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return {
        name: [Put(**step) if "waits" in step else Update(**step) for step in steps] for name, steps in document.items()
    }


if __name__ == "__main__":
    directory, target = sys.argv[1:]
    played = play_all(Path(directory))
    document = {name: [asdict(step) for step in steps] for name, steps in played.items()}
    Path(target).write_text(json.dumps(document), encoding="utf-8")
