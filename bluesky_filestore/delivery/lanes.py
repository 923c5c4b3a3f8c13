"""The lanes that the runs of a spool go through on their way to a catalog."""

from collections.abc import Callable

from bluesky_filestore.spool.entries import Entry, Spooled
from bluesky_filestore.spool.ledger import Ledger

from .lane import Lane

__all__ = ["Lanes"]


class Lanes:
    """One for each producer, and one for each run that was begun again beside others of its producer.

    Parameters
    ----------
    ledger : Ledger
        The spool.
    make : callable
        Makes a lane.
    """

    def __init__(self, ledger: Ledger, make: Callable[[], Lane]) -> None:
        self._ledger, self._make = ledger, make
        self.shared: dict[int, Lane] = {}
        """By the number of the producer."""
        self.own: dict[int, Lane] = {}
        """By the number of the run."""

    def all(self) -> list[Lane]:
        """All lanes, as they are now."""
        return [*self.shared.values(), *self.own.values()]

    def of(self, entry: Entry) -> Lane:
        """The one that a run goes through."""
        return self.own.get(entry.number) or self.shared[entry.producer]

    def of_producer(self, producer: int, before: int) -> Lane:
        """The one of all runs of a producer that were not begun again; a new one begins at a document."""
        if producer not in self.shared:
            self.shared[producer] = self._new(producer, before)
        return self.shared[producer]

    def of_announcement(self, document: Spooled) -> list[Lane]:
        """Those for a document that later runs may refer to, whatever lane they are in."""
        own = [lane for lane in self.own.values() if lane.producer == document.producer]
        return [self.of_producer(document.producer, document.number), *own]

    def begin_own(self, entry: Entry) -> Lane:
        """A lane for a run that begins again with its first document."""
        lane = self.own[entry.number] = self._new(entry.producer, entry.first)
        lane.cursor = entry.first - 1
        return lane

    def drop(self, entry: Entry) -> None:
        """Have nothing more to do with a run."""
        self.own.pop(entry.number, None)
        if entry.producer in self.shared:
            self.shared[entry.producer].drop(entry.uid)

    def forget_idle(self) -> None:
        """Keep nothing of processes that ended, and all of whose runs did."""
        for number in [number for number, lane in self.own.items() if not lane.runs]:
            del self.own[number]
        idle = (producer for producer, lane in self.shared.items() if not lane.runs)
        for producer in [producer for producer in idle if not self._ledger.is_alive(producer)]:
            del self.shared[producer]

    def _new(self, producer: int, before: int) -> Lane:
        """A lane of a producer that knows what was announced before a document."""
        lane = self._make()
        lane.producer = producer
        for announced in self._ledger.announced_before(before, producer):
            lane.read(announced, "")
        return lane
