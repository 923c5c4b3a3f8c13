"""What a run is made of, stream by stream, for whoever shows it as one thing: from its documents, or from a catalog."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.catalogs.databroker.runs import documents_of_run, run_of
from bluesky_filestore.errors import DocumentError, FileStoreError, OptionError
from bluesky_filestore.files.array_in_files import ArrayInFiles
from bluesky_filestore.model.event_record import RECORD_COLUMN
from bluesky_filestore.model.ragged_rows import RAGGED
from bluesky_filestore.model.root_map import RootMap
from bluesky_filestore.operations.operations import (
    AppendArray,
    AppendRows,
    CloseRun,
    CreateRun,
    CreateStream,
    Operation,
    UpdateStream,
)
from bluesky_filestore.reading.document_reader import documents_of
from bluesky_filestore.reading.from_documents import DocumentedRun
from bluesky_filestore.reading.from_node import frames_of, registered_of
from bluesky_filestore.reading.run_tree import RunTree

__all__ = ["RunContents", "StreamContents", "contents_of"]

_RAGGED = "its rows differ in shape, so that they are no one dataset; open_array reads them"


@dataclass
class StreamContents:
    """A stream."""

    metadata: Mapping[str, Any]
    """Its descriptor, with ``data_keys``, ``configuration`` and ``hints``; ``_config_updates`` are those of later
    ones."""
    events: int = 0
    """How many events it has."""
    columns: dict[str, list[Any]] = field(default_factory=dict)
    """The columns of its event table; None where an event has no value."""
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    """Values that came with the events and are arrays: (events, *shape of one)."""
    external: dict[str, ArrayInFiles | str] = field(default_factory=dict)
    """The arrays that are in files; a text says why one cannot be read."""
    said: dict[str, str] = field(default_factory=dict)
    """What else has to be said of them, e.g. why one ends before the events do."""


@dataclass
class RunContents:
    """A run."""

    uid: str
    """Its uid."""
    start: Mapping[str, Any]
    """Its start document."""
    stop: Mapping[str, Any] = field(default_factory=dict)
    """Its stop document; empty if there is none."""
    notes: list[str] = field(default_factory=list)
    """What its writer noted of it."""
    streams: dict[str, StreamContents] = field(default_factory=dict)
    """By name."""


def contents_of(run: Any, root_map: RootMap) -> RunContents:
    """Gather what a run is made of.

    Parameters
    ----------
    run : tiled.client.container.Container, databroker.v1.Header, or iterable of tuple of str and Mapping
        A run of a catalog, or its documents.
    root_map : RootMap
        Where its files are now.

    Raises
    ------
    DocumentError
        If documents are not those of one run, from its start on.
    OptionError
        If it is no run.
    """
    if (of_databroker := run_of(run)) is not None:
        run = documents_of_run(of_databroker)
    if not hasattr(run, "metadata"):
        return _of_documents(DocumentedRun(run, root_map))
    if "start" not in run.metadata:
        raise OptionError(f"{run.uri} is no run; expected one, e.g. client[uid], or the documents of one.")
    tree = RunTree(run)
    try:
        return _of_documents(DocumentedRun(documents_of(tree), root_map))
    except DocumentError:
        # Another writer's: there is what its catalog holds.
        return _of_tree(tree, root_map)


def _of_documents(documented: DocumentedRun) -> RunContents:
    contents = RunContents(documented.uid, {})
    for operation in documented.operations:
        _apply(operation, contents)
    contents.notes += documented.problems
    for name, events in documented.events.items():
        contents.streams[name].events = len(events)
        contents.streams[name].columns.pop(RECORD_COLUMN, None)
    for key, (stream_name, data_key) in documented.external.items():
        stream = contents.streams[stream_name]
        stream.said[data_key] = "; ".join(documented.said(key))
        try:
            found = documented.array(key)
            stream.external[data_key] = _RAGGED if found.ragged else ArrayInFiles(found.registered, frames_of)
        except FileStoreError as error:
            # What was filled came with the events.
            if data_key not in stream.columns and data_key not in stream.arrays:
                stream.external[data_key] = str(error)
    return contents


def _apply(operation: Operation, contents: RunContents) -> None:
    """What an operation makes the case."""
    match operation:
        case CreateRun():
            contents.start = operation.metadata["start"]
        case CreateStream():
            contents.streams[operation.stream] = StreamContents(operation.metadata)
        case UpdateStream():
            stream = contents.streams[operation.stream]
            stream.metadata = {**stream.metadata, **operation.metadata}
        case AppendRows():
            for name, values in operation.columns.items():
                contents.streams[operation.stream].columns.setdefault(name, []).extend(values)
        case AppendArray():
            known = contents.streams[operation.stream].arrays
            before = [known[operation.data_key]] if operation.data_key in known else []
            known[operation.data_key] = np.concatenate([*before, operation.values])
        case CloseRun():
            contents.stop = operation.metadata.get("stop") or {}
            contents.notes = list(operation.metadata.get("notes", ()))


def _of_tree(tree: RunTree, root_map: RootMap) -> RunContents:
    metadata = tree.metadata
    contents = RunContents(metadata["start"]["uid"], metadata["start"], metadata.get("stop") or {})
    contents.notes = list(metadata.get("notes", ()))
    for name, node in tree.streams.items():
        stream = contents.streams[name] = StreamContents(node.metadata)
        for key, child in tree.children(name).items():
            if child.structure_family == "table":
                stream.columns.update(_columns_of(child))
            elif [source.management for source in child.data_sources() or ()] == ["external"]:
                stream.external[key] = _array_of(child, root_map)
            elif child.structure_family == "array":
                stream.arrays[key] = np.asarray(child.read())
        stream.events = max(map(len, stream.columns.values()), default=0)
    return contents


def _columns_of(table: Any) -> Iterator[tuple[str, list[Any]]]:
    for name, values in table.read().items():
        if name != RECORD_COLUMN:
            yield str(name), [None if missing else value for value, missing in zip(values, values.isna(), strict=True)]


def _array_of(node: Any, root_map: RootMap) -> ArrayInFiles | str:
    try:
        registered = registered_of(node, root_map)
        return _RAGGED if registered.mimetype == RAGGED else ArrayInFiles(registered, frames_of)
    except FileStoreError as error:
        return str(error)
