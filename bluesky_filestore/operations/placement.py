"""Where an array's rows are, in the words of a catalog's adapter, or why they cannot be put so."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Protocol, TypeAlias

from bluesky_filestore.model.addressing import FILE_SERIES, HANDLED, HDF5_ROWS
from bluesky_filestore.model.file_facts import FileFacts, Unseen
from bluesky_filestore.model.frame_map import Source
from bluesky_filestore.model.ragged_rows import RAGGED, RaggedShape
from bluesky_filestore.model.specs import OPAQUE

from .structure import EventStructure

__all__ = [
    "ASKED_FOR",
    "Inspector",
    "Look",
    "Placement",
    "Reads",
    "Refusal",
    "SizesOf",
    "Stamper",
    "Viewer",
    "knows_no_sizes",
    "reads_nothing_of_ours",
    "stamps_nothing",
]

ASKED_FOR = (HDF5_ROWS, FILE_SERIES, HANDLED, RAGGED, OPAQUE)
"""The mimetypes of which a catalog's server is asked whether it reads them: those of ours, and what is no array."""

Inspector: TypeAlias = Callable[[Source, Sequence[PurePath]], "list[FileFacts | Unseen]"]
"""Looks at files of one source; one answer for each."""
Reads: TypeAlias = Callable[[str], bool]
"""Whether the catalog's server has an adapter for one of our own mimetypes; raises `CatalogUnreachableError` if nobody
can say now."""
Stamper: TypeAlias = "Callable[[Placement, Placement | None, float], Placement]"
"""Adds what the files of an array are like to its properties, or why that cannot be told; it is given what is
registered of it, and when its run ended."""

SizesOf: TypeAlias = "Callable[[Sequence[str]], list[int | None]]"
"""The sizes of files in bytes, as far as they are in sight; of a directory there is none."""


def reads_nothing_of_ours(mimetype: str) -> bool:
    """What a stock server answers."""
    return False


def stamps_nothing(placement: "Placement", before: "Placement | None", ended: float) -> "Placement":
    """For those who do not register, or ask in the middle of a run."""
    return placement


def knows_no_sizes(files: Sequence[str]) -> list[int | None]:
    """For those who see no files."""
    return [None] * len(files)


class Look(Protocol):
    """Somebody looks for each frame of an array in its file."""

    def done(self) -> bool:
        """Whether he has."""

    def result(self) -> Mapping[str, Any]:
        """Which ``events`` lack frames and the ``reason``; empty if none does."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an array's rows are."""

    mimetype: str
    """Chooses the adapter."""
    event: EventStructure
    """The array of one event."""
    count: int
    """How many events, from the first on."""
    parameters: Mapping[str, Any]
    """What the adapter is called with."""
    files: tuple[str, ...]
    """The files in the order in which the adapter joins them; of a series as a whole its directories."""
    properties: Mapping[str, Any] = field(default_factory=dict)
    """What else the adapter goes by."""
    unverified: str = ""
    """Why no file was looked into, if none was."""
    missing: str = ""
    """Why the rows end before the event table does, if they do."""
    settled: bool = True
    """Whether looking again later will not help: no file is missing or still being written."""
    lengths: Mapping[PurePath, int] = field(default_factory=dict, compare=False)
    """How many frames each file holds, where that was seen."""
    ragged: RaggedShape | None = None
    """The shape of an event where events differ, None along axes that do; `event` says the dtype alone then."""
    size: int = 0
    """How many values it has then."""
    refused: str = ""
    """Why it is no array, and nothing but its files is registered, if that is so."""
    look: "Look | None" = field(default=None, compare=False)
    """What becomes of looking for each of its frames, if somebody does."""

    @property
    def family(self) -> str:
        """Of which of Tiled's structure families it is."""
        return "bytes" if self.refused else "array" if self.ragged is None else "ragged"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an array is not registered."""

    reason: str
    """In words."""
    settled: bool = True
    """Whether looking again later will not help; a file that cannot be read yet may be readable after the run."""


Viewer: TypeAlias = Callable[[str, str, str, Placement], Placement | Refusal]
"""Makes a file that shows the rows of an array, by run, stream and data key, so that a stock adapter can address it.

It is given a placement for our adapter, and gives one for a stock one. Doing so twice is harmless."""
