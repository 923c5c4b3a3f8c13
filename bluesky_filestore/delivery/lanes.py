"""Documents on their way to a catalog: those of each producer in one lane, a run that begins again in its own."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bluesky_filestore.spool.entries import DeliveryState, Entry, Spooled

from .run_delivery import Delivery

__all__ = ["Lane", "Lanes", "OnItsWay"]


@dataclass(slots=True, eq=False)
class Lane:
    """Documents of one producer that are being delivered in their order."""

    producer: int
    """Who put them into the spool."""
    delivery: Delivery
    """The documents on their way."""
    cursor: int = 0
    """The number of the last document that was handed on."""
    run: int | None = None
    """The only run whose documents go here, which was begun again; None if all others do."""


@dataclass(slots=True)
class OnItsWay:
    """A run that is being delivered."""

    entry: Entry
    """What the ledger says of it."""
    lane: Lane
    """Where its documents go."""
    state: DeliveryState = "uploading"
    """How far it has come."""
    more: int = 0
    """How many of its documents were handed on that the ledger does not know of."""
    stopped: bool = False
    """Whether its last document was handed on."""
    closed: bool = False
    """Whether the catalog has learned of its end."""


class Lanes:
    """The lanes of all producers.

    Parameters
    ----------
    make : callable
        Makes a lane of a producer, which knows what the producer announced before a document's number.
    """

    def __init__(self, make: Callable[[int, int], Lane]) -> None:
        self._make = make
        self._shared: dict[int, Lane] = {}
        self._own: dict[int, Lane] = {}

    def __iter__(self) -> Iterator[Lane]:
        """All lanes, as they are now."""
        return iter([*self._shared.values(), *self._own.values()])

    def __contains__(self, lane: object) -> bool:
        return any(lane is other for other in self)

    def shared(self, document: Spooled) -> Lane:
        """The lane of all runs of a document's producer that were not begun again."""
        lane = self._shared.get(document.producer)
        if lane is None:
            lane = self._shared[document.producer] = self._make(document.producer, document.number)
        return lane

    def all_of(self, document: Spooled) -> list[Lane]:
        """All lanes of a document's producer."""
        return [self.shared(document), *(lane for lane in self._own.values() if lane.producer == document.producer)]

    def begin_again(self, entry: Entry) -> Lane:
        """A new lane for a run, from its first document on; what was on its way of it is dropped."""
        self.drop(entry)
        lane = self._own[entry.number] = self._make(entry.producer, entry.first)
        lane.cursor, lane.run = entry.first - 1, entry.number
        return lane

    def drop(self, entry: Entry) -> None:
        """Have nothing more to do with a run."""
        self._own.pop(entry.number, None)
        if entry.producer in self._shared:
            self._shared[entry.producer].delivery.drop(entry.uid)

    def remove(self, lane: Lane) -> None:
        """Nothing of it is needed any more."""
        if lane.run is None:
            del self._shared[lane.producer]
        else:
            del self._own[lane.run]
