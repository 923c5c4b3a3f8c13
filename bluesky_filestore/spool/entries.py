"""The documents and runs of a spool, as values."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from .encoding import decode, read

__all__ = ["DOUBT", "ENDED", "IN_DOUBT", "LATEST_SECONDS", "READABLE", "STATES", "DeliveryState", "Entry", "Spooled"]
__all__ += ["with_doubt"]

DeliveryState: TypeAlias = Literal["waiting", "uploading", "settling", "delivered", "parked"]
"""How far a run has come. Settling: it is readable, and files are looked for that were missing when it ended."""

STATES: tuple[DeliveryState, ...] = get_args(DeliveryState)
ENDED = ("delivered", "parked")
READABLE = ("settling", *ENDED)
DOUBT = "The catalog did not answer to everything"
IN_DOUBT = f"{DOUBT}; it is looked at again."
"""What is said of a run on its way of which not every answer came; the next process that delivers goes by it."""
LATEST_SECONDS = 120.0
"""For how long a gateway may hold a request, before it is carried out."""
_ANNOUNCEMENTS = ("resource", "stream_resource", "datum", "datum_page")


@dataclass(frozen=True, slots=True)
class Spooled:
    """One document in the spool."""

    number: int
    """Its place in the order of all documents."""
    producer: int
    """Who put it there."""
    run: int | None
    """The number of its run; None if it cannot be told."""
    name: str
    """What it is."""
    body: bytes
    """The document, encoded."""

    @property
    def is_announcement(self) -> bool:
        """Whether later runs may refer to it."""
        return self.name in _ANNOUNCEMENTS

    @property
    def size(self) -> int:
        """In bytes; of what a damaged database has in its place, none."""
        return len(self.body) if isinstance(self.body, bytes) else 0

    def doc(self) -> dict[str, Any]:
        """The document."""
        return decode(self.body)

    def read(self) -> tuple[dict[str, Any], list[str]]:
        """The document, and what became of values in it that could not be kept as they were."""
        return read(self.body)


@dataclass(frozen=True, slots=True)
class Entry:
    """One run in the spool, and how far it has come in one catalog."""

    number: int
    """Its number in the spool."""
    uid: str
    """Its uid."""
    producer: int
    """Who put it there."""
    first: int
    """The number of its first document."""
    started: float
    """When it began, in seconds since 1970."""
    stopped: float | None
    """When its stop document came."""
    state: DeliveryState
    """How far it has come."""
    reason: str
    """Why it is parked, or what else is to be said of it."""

    @property
    def is_in_doubt(self) -> bool:
        """Whether something that was asked of the catalog may still come, by what was written down."""
        return DOUBT in self.reason

    @property
    def why_parked(self) -> str:
        """Why it is parked; empty if it is not."""
        return self.reason if self.state == "parked" else ""


def with_doubt(reason: str) -> str:
    """Why a run is parked of which a request may still be carried out: whoever asks for it again has to know."""
    return f"{reason.rstrip('.')}. {DOUBT}."
