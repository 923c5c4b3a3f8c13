"""What befalls the writers of a history, and whoever delivers: outages, failures, full disks, other people."""

import math
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from bluesky_filestore.errors import FileStoreError
from bluesky_filestore.spool.database import FILE_NAME
from bluesky_filestore.spool.spooled_run import find_run

from .network import Rule

if TYPE_CHECKING:
    from .history import History

_UNNOTICED = 0.2
"""Seconds in which the database is free, and whoever waits for it may not have asked."""


class Weather:
    """What may befall a history.

    Parameters
    ----------
    history : History
        Whose chance decides.
    """

    def __init__(self, history: "History") -> None:
        self._history, self._world, self._network = history, history.world, history.network
        self._chance = history.world.chance

    def kinds(self) -> dict[str, Callable[[], None]]:
        """What happens, by its name."""
        return {
            "outages": lambda: self._outages(0),
            "lost writes": lambda: self._outages(self._chance.choice((1, 2, 5, 20))),
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
        for _ in range(self._chance.randint(1, most)):
            self._world.wait(self._chance.choice((0.1, 1.0, 5.0)) * self._chance.random())
            yield

    def _outages(self, unsaved: int) -> None:
        world = self._world
        for _ in self._pauses():
            seconds = world.chance.choice((1.0, 10.0, 300.0) if unsaved else (0.01, 1.0, 10.0, 300.0))
            self._network.restart(seconds, unsaved)
            world.wait(seconds)

    def _hangs(self) -> None:
        for _ in self._pauses():
            seconds = self._chance.choice((0.3, 3.0, 100.0))
            self._network.hang(seconds)
            self._world.wait(seconds)

    def _failing_node(self) -> None:
        world, chance = self._world, self._chance
        for _ in self._pauses(2):
            if not self._history.runs:
                continue
            run = chance.choice(self._history.runs).planned.uid
            what = chance.choice((run, f"{run}/primary", f"{run}/primary/internal", f"{run}/primary/wave", "image"))
            status = chance.choice((404, 429, 500, 503, 422))
            seconds = chance.choice((2.0, 60.0, float("inf")))
            is_done = chance.random() < 0.2

            def applies(verb: str, path: str, what: str = what, run: str = run) -> bool:
                return verb != "GET" and what in path and run in path

            words = f"status {status} for one node"
            self._network.add(Rule(run, words, applies, status, world.now, world.now + seconds, is_done))
            world.fault("failing node", f"{status} for {what} for {seconds:g} s{', and done' if is_done else ''}")

    def _failing_catalog(self) -> None:
        world, chance = self._world, self._chance
        for _ in self._pauses(2):
            status, seconds = chance.choice((404, 429, 500, 503)), chance.choice((1.0, 10.0, 200.0))
            questions_too = chance.random() < 0.5

            def applies(verb: str, path: str, questions_too: bool = questions_too) -> bool:
                return questions_too or verb != "GET"

            self._network.add(Rule("", f"status {status} for all", applies, status, world.now, world.now + seconds))
            world.fault("failing catalog", f"{status} for {seconds:g} s")
            world.wait(seconds)

    def _full_disk(self) -> None:
        for _ in self._pauses():
            self._world.fault("full disk")
            self._world.fill_disk(is_full=True)
            self._world.wait(self._chance.choice((0.2, 3.0, 30.0)))
            self._world.fill_disk(is_full=False)
            self._world.say("there is room again")

    def _damage(self) -> None:
        for _ in self._pauses(1):
            self._world.fault("damage")
            self._world.damage(self._history.spool / FILE_NAME)

    def _resumes(self) -> None:
        world, chance = self._world, self._chance
        for _ in self._pauses():
            process = world.start("resume", self._history.resume)
            if "kills" in self._history.kinds and chance.random() < 0.5:
                process.dies_in = chance.choice((20, 100, 400)) * chance.random()
            world.wait_for_end(process)

    def _locks(self) -> None:
        world, chance = self._world, self._chance
        began = ended = -math.inf
        for _ in self._pauses():
            if not (self._history.spool / FILE_NAME).exists():
                continue
            seconds = chance.choice((0.01, 0.2, 4.0, 7.0))
            with closing(
                world.connect(self._history.spool / FILE_NAME, isolation_level=None, timeout=0.0)
            ) as connection:
                try:
                    connection.execute("BEGIN IMMEDIATE")
                except sqlite3.Error:
                    continue
                world.fault("locked", f"for {seconds:g} s")
                if world.now > ended + _UNNOTICED:
                    began = world.now
                ended = world.now + seconds
                self._history.longest_lock = max(self._history.longest_lock, ended - began)
                world.wait(seconds)

    def _commands(self) -> None:
        world, chance = self._world, self._chance
        for _ in self._pauses():
            if not self._history.runs:
                continue
            uid, verb = chance.choice(self._history.runs).planned.uid, chance.choice(("park", "ask again"))

            def command(uid: str = uid, verb: str = verb) -> None:
                with suppress(FileStoreError):
                    (found,) = find_run([self._history.spool], uid)
                    if verb == "park":
                        self._history.touched.add(uid)
                        found.park("somebody wanted it so")
                    else:
                        found.ask_again()
                    world.fault(f"command {verb}", uid)

            world.start(verb, command)
