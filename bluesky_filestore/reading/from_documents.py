"""An array of a run's documents: what would be registered of it on a server with our adapters."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, TypeAlias

import numpy as np

from bluesky_filestore.errors import DocumentError
from bluesky_filestore.files.readable import ANYWHERE, Roots
from bluesky_filestore.files.registered import Registered
from bluesky_filestore.handlers.asking import has_handler, inspect
from bluesky_filestore.logs import get_logger
from bluesky_filestore.model.file_facts import FileFacts, Unseen
from bluesky_filestore.model.frame_map import Assets, Source
from bluesky_filestore.model.normalize import renamed_keys, unpacked
from bluesky_filestore.model.ragged_rows import RaggedShape
from bluesky_filestore.model.root_map import RootMap
from bluesky_filestore.model.schema_errors import schema_errors
from bluesky_filestore.model.specs import OPAQUE
from bluesky_filestore.operations.announcing import announce
from bluesky_filestore.operations.arrays import ExternalArrays
from bluesky_filestore.operations.operations import CloseRun, DropArray, Operation, PlaceArray
from bluesky_filestore.operations.run import Run

from .mapped_paths import mapped_paths

__all__ = [
    "ArrayOfDocuments",
    "ConfinedDocuments",
    "DocumentedRun",
    "Documents",
    "array_of_documents",
    "passed_through",
]

Documents: TypeAlias = Iterable[tuple[str, Mapping[str, Any]]]
"""Names and documents of one run."""


class ConfinedDocuments(ABC):
    """The documents of a run, of which nobody knows who made them: the files may lie below some directories only."""

    @abstractmethod
    def __iter__(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Names and documents, as they were recorded."""

    @abstractmethod
    def confinement(self) -> tuple[RootMap, Roots]:
        """Where the directories are that the documents name, and below which the files have to be.

        Raises
        ------
        FileStoreError
            If frames cannot be read from where the files are.
        """


def passed_through(documents: Documents, look: Callable[[Documents], Documents]) -> Documents:
    """The documents that a generator gives of others, confined where these are."""
    return _PassedThrough(documents, look) if isinstance(documents, ConfinedDocuments) else look(documents)


class _PassedThrough(ConfinedDocuments):
    def __init__(self, documents: ConfinedDocuments, look: Callable[[Documents], Documents]) -> None:
        self._documents, self._look = documents, look

    def __iter__(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        return iter(self._look(self._documents))

    def confinement(self) -> tuple[RootMap, Roots]:
        return self._documents.confinement()


_Key: TypeAlias = tuple[str, str]
"""A stream and a data key."""

_logger = get_logger(__name__)
_ANNOUNCEMENTS = ("resource", "stream_resource", "datum")


@dataclass(frozen=True, slots=True)
class ArrayOfDocuments:
    """One array of a run."""

    registered: Registered
    """Where it is."""
    chunks: tuple[tuple[int, ...], ...]
    """How it is best read."""
    name: str
    """Its stream and data key, and the run."""
    ragged: RaggedShape | None = None
    """The shape of a row where rows differ."""


def array_of_documents(
    documents: Documents, *, stream: str | None, data_key: str | None, root_map: RootMap
) -> ArrayOfDocuments:
    """Find where the frames of an array are.

    Parameters
    ----------
    documents : iterable of tuple of str and Mapping
        Of one run, to its end or so far; pages as well.
    stream, data_key : str, optional
        Which array; may be left out where there is only one.
    root_map : RootMap
        Where files are now.

    Raises
    ------
    DocumentError
        If there is no such array, or the documents do not say where its frames are, with the reason.
    """
    run = DocumentedRun(documents, root_map)
    return run.array(_chosen(run, stream, data_key))


class DocumentedRun:
    """What the documents of a run come to.

    Parameters
    ----------
    documents : iterable of tuple of str and Mapping
        Of one run, to its end or so far; pages as well.
    root_map : RootMap
        Where its files are now; `ConfinedDocuments` know it themselves.

    Raises
    ------
    DocumentError
        If they are of several runs, or do not begin with a start.
    """

    def __init__(self, documents: Documents, root_map: RootMap) -> None:
        self.uid = ""
        self.external: dict[_Key, _Key] = {}
        """Stream and data key of each array in files, and what both are called in a catalog."""
        self.problems: list[str] = []
        """What is wrong with single documents."""
        self.events: dict[str, list[int]] = {}
        """The sequence numbers of the events of each stream, in their order."""
        self.stop: Mapping[str, Any] | None = None
        """The stop, if it has come."""
        self.root_map = root_map
        """Where its files are now."""
        self.assets = Assets(has_handler)
        """Its resources and datums."""
        self._streams: dict[str, str] = {}
        self._run: Run | None = None
        self.roots = ANYWHERE
        """Where they may lie."""
        if isinstance(documents, ConfinedDocuments):
            self.root_map, self.roots = documents.confinement()
        for packed_name, packed in documents:
            for name, doc in self._singles(packed_name, packed):
                self._receive(name, doc)
        self._operations = self._end()

    @property
    def operations(self) -> Sequence[Operation]:
        """What would be done to a catalog: the tables and metadata that it would hold."""
        return self._operations

    def array(self, key: _Key) -> ArrayOfDocuments:
        """Where the frames of an array are.

        Raises
        ------
        DocumentError
            If the documents do not say it, with the reason.
        """
        placed, files = _placed(self._operations, self.external[key])
        said = [*self.said(key), *self.problems]
        if placed is None:
            why = "; ".join(said) or "no document says where its frames are"
            raise DocumentError(f"{key[1]!r} of stream {key[0]!r} of run {self.uid!r} cannot be read: {why}")
        for words in said:
            _logger.warning("%s of stream %s of run %s: %s", key[1], key[0], self.uid, words)
        registered = Registered(
            placed.mimetype,
            placed.parameters,
            placed.properties,
            mapped_paths(files, placed.mimetype, self.root_map),
            placed.shape,
            np.dtype(placed.dtype),
            self.roots,
        )
        return ArrayOfDocuments(registered, placed.chunks, f"{key[0]}/{key[1]} of run {self.uid[:8]}", placed.ragged)

    @property
    def arrays(self) -> ExternalArrays:
        """Which rows of which files its arrays are, under the names that they have in a catalog."""
        return self._started().arrays

    def said(self, key: _Key) -> list[str]:
        """What has to be said of an array: why it is refused, or ends before the events do, or is not as described."""
        return _said(self._operations, self.external[key])

    def _singles(self, name: str, doc: Mapping[str, Any]) -> Documents:
        """The documents of a page, as far as it has any; what is wrong with it is put among the problems."""
        try:
            yield from unpacked(name, doc)
        except DocumentError as error:
            self._started()
            self.problems.append(str(error))

    def _receive(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document. What is wrong with it may not matter for the array, and is put among the problems.

        Raises
        ------
        DocumentError
            If it is not one of this run, or comes before its start.
        """
        if name == "start":
            with schema_errors(name, doc):
                uid = doc["uid"]
                if self._run is not None:
                    raise DocumentError(f"after run {self.uid!r} comes {uid!r}; expected documents of one run.")
                if not isinstance(uid, str):
                    raise TypeError("expected a text for a uid")
                self.uid, self._run = uid, Run(doc, self.assets, self._look, lambda mimetype: mimetype != OPAQUE)
            return
        try:
            if name in _ANNOUNCEMENTS:
                announce(name, doc, self.assets)
            else:
                self._started().receive(name, doc)
                with schema_errors(name, doc):
                    self._follow(name, doc)
        except DocumentError as error:
            if self._run is None:
                raise
            self.problems.append(str(error))

    def _follow(self, name: str, doc: Mapping[str, Any]) -> None:
        if name == "descriptor":
            self.external |= _external_keys(doc)
            self._streams[doc["uid"]] = doc["name"]
            self.events.setdefault(doc["name"], [])
        elif name == "event":
            self.events[self._streams[doc["descriptor"]]].append(doc["seq_num"])
        elif name == "stop":
            self.stop = doc

    def _end(self) -> list[Operation]:
        """What would be done to a catalog."""
        run = self._started()
        operations = run.take(final=True)
        if not any(isinstance(operation, CloseRun) for operation in operations):
            operations += run.end_without_stop("not stopped")
        return operations

    def _started(self) -> Run:
        if self._run is None:
            raise DocumentError("there is no start of a run; expected the documents of one, from its start on.")
        return self._run

    def _look(self, source: Source, files: Sequence[PurePath]) -> list[FileFacts | Unseen]:
        return inspect(source, [self.root_map.find_here(file) for file in files], roots=self.roots)


def _external_keys(doc: Mapping[str, Any]) -> dict[_Key, _Key]:
    renamed = renamed_keys(doc["data_keys"])
    return {
        (doc["name"], key): (doc["name"], renamed.get(key, key))
        for key, entry in doc["data_keys"].items()
        if "external" in entry
    }


def _chosen(received: DocumentedRun, stream: str | None, data_key: str | None) -> _Key:
    known = list(received.external)
    matching = [key for key in known if stream in (None, key[0]) and data_key in (None, key[1])]
    if len(matching) == 1:
        return matching[0]
    listed = ", ".join(f"{name}/{key}" for name, key in known) or "none"
    wanted = f"stream {stream!r} and data key {data_key!r}" if stream or data_key else "no name at all"
    raise DocumentError(
        f"{len(matching)} arrays of run {received.uid!r} fit {wanted}; expected stream and data_key of one of its "
        f"arrays in files: {listed}."
    )


def _placed(operations: Iterable[Operation], key: _Key) -> tuple[PlaceArray | None, tuple[str, ...]]:
    """How an array is registered in the end, and all its files."""
    placed, files = None, tuple[str, ...]()
    for operation in operations:
        if isinstance(operation, DropArray | PlaceArray) and (operation.stream, operation.data_key) == key:
            placed = None
            if isinstance(operation, PlaceArray):
                placed, files = operation, files[: operation.first_file] + operation.files
    return placed, files


def _said(operations: Iterable[Operation], key: _Key) -> list[str]:
    """What has to be said of an array."""
    closing = [operation for operation in operations if isinstance(operation, CloseRun)]
    said: list[str] = []
    for kind, streams in closing[-1].metadata["filestore"].items() if closing else ():
        words = streams.get(key[0], {}).get(key[1])
        if words:
            said.append(f"{kind}: {words['reason'] if isinstance(words, Mapping) else words}")
    return said
