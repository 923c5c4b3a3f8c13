"""What can be done to a catalog, as values.

An operation names its node by (run uid, stream, data key), never by an object of some catalog, and says what shall be
the case afterwards, so that applying it twice is harmless: that is what makes resuming safe.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "AppendArray",
    "AppendRows",
    "Catalog",
    "CheckRun",
    "CloseRun",
    "ColumnType",
    "CreateRun",
    "CreateStream",
    "DropArray",
    "InsertDocument",
    "NameAxes",
    "Operation",
    "PlaceArray",
    "UpdateStream",
    "own_dims",
]

ColumnType: TypeAlias = Literal["bool", "int64", "float64", "string"]


@dataclass(frozen=True, slots=True)
class CreateRun:
    """There is a container for the run."""

    run: str
    """The run's uid."""
    metadata: Mapping[str, Any]
    """``{"start": ...}``."""
    specs: tuple[Mapping[str, Any], ...] = ()
    """Further specs, beside BlueskyRun 3.0, as ``{"name": ..., "version": ...}``."""
    access_tags: tuple[str, ...] | None = None
    """Who may see it; None leaves it to the catalog."""


@dataclass(frozen=True, slots=True)
class CreateStream:
    """There is a container for the stream."""

    run: str
    """The run's uid."""
    stream: str
    """The stream's name."""
    metadata: Mapping[str, Any]
    """The descriptor, less what the tree itself says."""


@dataclass(frozen=True, slots=True)
class UpdateStream:
    """The stream's metadata hold these entries."""

    run: str
    """The run's uid."""
    stream: str
    """The stream's name."""
    metadata: Mapping[str, Any]
    """The entries, each replacing one of the same name."""


@dataclass(frozen=True, slots=True)
class AppendRows:
    """The stream's event table holds these rows."""

    run: str
    """The run's uid."""
    stream: str
    """The stream's name."""
    first_row: int
    """Where in the table they begin; rows that are there already are not appended again."""
    types: Mapping[str, ColumnType]
    """The type of each column; a column that is of another one in the table is made anew with this."""
    columns: Mapping[str, Sequence[Any]]
    """The values of each column, all of one length; None where there is none."""
    table: str = "internal"
    """The name of the table: very wide ones come in several."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """The data keys of the columns, for the table's metadata when it is made."""


@dataclass(frozen=True, slots=True)
class AppendArray:
    """An array whose values came in the events holds these rows."""

    run: str
    """The run's uid."""
    stream: str
    """The stream's name."""
    data_key: str
    """The array's name."""
    first_row: int
    """Where they begin."""
    values: NDArray[np.generic]
    """(events, *shape of one event)."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """The data key, for the array's metadata when it is made."""
    dims: tuple[str, ...] | None = None
    """The names of the axes when it is made."""


@dataclass(frozen=True, slots=True)
class NameAxes:
    """The axes of an array whose values came in the events have these names from now on."""

    run: str
    """The run's uid."""
    stream: str
    """The stream's name."""
    data_key: str
    """The array's name."""
    dims: tuple[str, ...] | None
    """The names; None if the first axis is that of its stream's table."""


@dataclass(frozen=True, slots=True)
class PlaceArray:
    """An array whose frames are in files is registered with this shape and these files."""

    run: str
    """The run's uid."""
    stream: str
    """The stream's name."""
    data_key: str
    """The array's name."""
    mimetype: str
    """What the files are: it chooses the catalog's adapter."""
    shape: tuple[int, ...]
    """(events, *shape of one event); (events,) where events differ."""
    dtype: str
    """In numpy's notation, with byte order."""
    chunks: tuple[tuple[int, ...], ...]
    """How the array is best read."""
    parameters: Mapping[str, Any]
    """What the adapter is called with."""
    properties: Mapping[str, Any]
    """What else is to be known of the data source."""
    files: tuple[str, ...]
    """The absolute paths of the files from number `first_file` on, in the order in which they are read.

    Of a series as a whole: its directories."""
    first_file: int = 0
    """How many files were registered before."""
    dims: tuple[str, ...] | None = None
    """The names of the axes."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """For the array's metadata when it is made."""
    ragged: tuple[int | None, ...] | None = None
    """The shape of an event where events differ, None along axes that do."""
    size: int = 0
    """How many values it has then."""
    file_sizes: Mapping[int, int] = field(default_factory=dict)
    """In bytes, by the number of the file, as far as known; of files that were registered before, too."""


def own_dims(data_key: str, ndim: int) -> tuple[str, ...]:
    """The names of the axes of an array that has, or may have, other rows than its stream's table.

    The stock client's ``stream.read()`` gives both in one xarray dataset, whose axes of one name have one length. While
    a run goes on, table and arrays are written, and read, one after the other.
    """
    return (f"{data_key}_event", *(f"{data_key}_dim{axis}" for axis in range(1, ndim)))


@dataclass(frozen=True, slots=True)
class DropArray:
    """The array is not registered (any more)."""

    run: str
    """The run's uid."""
    stream: str
    """The stream's name."""
    data_key: str
    """The array's name."""


@dataclass(frozen=True, slots=True)
class CloseRun:
    """The run is complete: its metadata hold these entries."""

    run: str
    """The run's uid."""
    metadata: Mapping[str, Any]
    """``{"stop": ...}``, and what has to be said of the run, see `bluesky_filestore.operations.run`."""
    is_complete: bool = True
    """Whether the catalog took all that came before; if not, what it holds cannot be compared with that."""

    def saying(self, *sentences: str) -> "CloseRun":
        """The same, with more notes."""
        return replace(self, metadata={**self.metadata, "notes": [*self.metadata.get("notes", ()), *sentences]})


@dataclass(frozen=True, slots=True)
class CheckRun:
    """The run still holds what it held when it was closed, if its catalog was in doubt of that."""

    run: str
    """The run's uid."""


@dataclass(frozen=True, slots=True)
class EndStreams:
    """Nobody who is told of what is new in the run waits for more of it."""

    run: str
    """The run's uid."""


@dataclass(frozen=True, slots=True)
class InsertDocument:
    """A catalog of documents holds this one, once; see `Catalog.takes_documents`."""

    run: str
    """The uid of the run that it goes with."""
    name: str
    """What it is; pages come as they are."""
    document: Mapping[str, Any]
    """The document as it was received."""
    is_shared: bool = False
    """Whether it may have been inserted with another run."""


Operation: TypeAlias = (
    CreateRun
    | CreateStream
    | UpdateStream
    | AppendRows
    | AppendArray
    | NameAxes
    | PlaceArray
    | DropArray
    | CloseRun
    | CheckRun
    | EndStreams
    | InsertDocument
)


def name_of(operation: Operation) -> str:
    """What an operation is called for people: what it does, and to which node.

    Examples
    --------
    >>> name_of(CreateStream("5c45", "primary", {}))
    'CreateStream of 5c45/primary'
    """
    parts = (getattr(operation, part, None) for part in ("run", "stream", "data_key", "name"))
    return f"{type(operation).__name__} of {'/'.join(part for part in parts if part)}"


class Catalog(Protocol):
    """Where operations are applied: the only place of the writing side that talks to a catalog."""

    @property
    def uri(self) -> str:
        """The address that its user gave: the name under which things are kept for it."""

    @property
    def server_uri(self) -> str:
        """The address that the server says it has; empty while it has said none.

        It goes for nothing, but that requests go there: what earlier versions kept under it is the same catalog's.
        """

    @property
    def takes_documents(self) -> bool:
        """Whether it holds the documents of a run as they are, by `InsertDocument`, and no tree of nodes.

        Of the other operations such a catalog has to do with `CloseRun`, `CheckRun` and `EndStreams` only. Raises as
        `reads` does.
        """

    def close(self) -> None:
        """Let go of the client, if it was made for this; one that was given stays open."""

    def check(self) -> None:
        """Ask whether the catalog answers, without trying again.

        Raises
        ------
        CatalogUnreachableError, CatalogAccessError
        """

    def reads(self, mimetype: str) -> bool:
        """Whether the catalog's server has an adapter for the mimetype, so that it can be registered.

        Raises
        ------
        CatalogUnreachableError
            If nobody can say now.
        CatalogAccessError
            If the catalog does not take it from us.
        """

    def apply(self, operation: Operation) -> None:
        """Make the operation's words true. Doing so twice is the same as doing so once.

        Raises
        ------
        CatalogUnreachableError
            If no catalog answers; the operation may or may not have been applied.
        CatalogAccessError
            If the catalog does not take it from us.
        OtherWriterError
            If a run that is to be there was made by a writer of another kind; nothing is done to it.
        RowsDifferError
            If a table or an array of the run holds other rows than are, or were, sent; see `remove_rows`.
        CatalogFaultError
            If the catalog failed at it, and may succeed at another time.
        CatalogError
            If the catalog says that it cannot be done.
        """

    def doubt(self, run: str) -> None:
        """Know that something may still be on its way to a run, from an earlier life."""

    def claim(self, run: str) -> None:
        """Know that the run is ours, from an earlier life that may not have marked it as such."""

    def in_doubt(self, run: str) -> bool:
        """Whether something that was asked for the run was not answered, and may be done at any time, or once more."""

    def forget_answers(self) -> None:
        """Take nothing for known of what the catalog holds: others may have written into it meanwhile."""

    def remove_rows(self, run: str) -> None:
        """Remove the rows of a run, in tables and arrays, to be written again from the first one on.

        What is registered where its files are stays. Raises as `apply` does.
        """
