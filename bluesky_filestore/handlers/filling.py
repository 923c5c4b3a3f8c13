"""Events filled with the arrays that they only name."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from typing import Any

from bluesky_filestore.errors import DocumentError, OptionError
from bluesky_filestore.model.root_map import RootMap
from bluesky_filestore.model.schema_errors import schema_errors
from bluesky_filestore.protocols import HandlerClass

from .announced import Announced, ExternalEvent
from .opened import OpenHandlers
from .registry import handler_registry

__all__ = ["fill", "fill_event", "read_key"]

_PATIENCE = 2.0
"""Seconds; about what event-model's Filler has."""
_NO_LOCK = nullcontext()


def fill(
    documents: Iterable[tuple[str, Mapping[str, Any]]],
    handlers: Mapping[str, HandlerClass] | None = None,
    root_map: Mapping[str, str] | None = None,
    lazy: bool = False,
    *,
    patience: float = _PATIENCE,
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Documents in, filled documents out, in the same order.

    An event's array takes the place of its datum's id in ``data``, and ``filled`` has the id instead of False, as
    event-model's Filler does it. The array of a stream_datum gets into the event it belongs to, with the uid of its
    stream_resource and its index as the mark in ``filled``, and the event's time as its time stamp.

    An event that comes before its datum, or its stream_datum, waits for it, and what comes after the event with it.
    No document that is handed in is changed: those that are not filled come out as they are, others as new ones.

    Parameters
    ----------
    documents : iterable of tuple of str and Mapping
        Of one run or several, while they go on or later; pages and bulk documents as well.
    handlers : Mapping of str to handler class, optional
        By spec, for Resources; by default `handler_registry`.
    root_map : Mapping of str to str, optional
        Where directories are now that documents name; that of the longest matching path is taken. Windows paths too.
    lazy : bool
        Whether to give dask arrays, which are read when they are computed, instead of numpy's.
    patience : float
        How long, in seconds, a file that can't be read is tried again.

    Yields
    ------
    tuple of str and Mapping
        Name and document.

    Raises
    ------
    DocumentError
        If an event names a datum that was not announced before the run's stop document, or no stream_datum covers it.
    HandlerNotFoundError
        If nobody reads a spec.
    PathError
        If a file's path is not one of this machine.
    OSError
        If a file can't be read; of ours, `UnreadableFileError` and those that derive from it.
    OptionError
        If the documents are those of a pack, which may name any file of this machine.
    """
    _check_trusted(documents)
    announced = Announced()
    waiting: deque[tuple[str, Mapping[str, Any], list[ExternalEvent]]] = deque()
    with closing(_opened(handlers, root_map, lazy, patience)) as opened:
        for name, doc in documents:
            waiting.append((name, doc, announced.receive(name, doc)))
            while waiting and not _waits(announced, waiting[0][2]):
                yield _filled(*waiting.popleft(), announced, opened)
            if name == "stop":
                _check_nothing_waits(announced, waiting, doc["run_start"])
                if not waiting:
                    announced.forget_run(doc["run_start"])
        announced.end()
        _check_nothing_waits(announced, waiting)
        while waiting:
            yield _filled(*waiting.popleft(), announced, opened)


def _check_trusted(documents: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    # `ConfinedDocuments` of reading, which builds on this folder.
    if hasattr(documents, "confinement"):
        raise OptionError(
            "the documents of a pack may name any file, and handlers would read it; expected documents of a catalog. "
            "Read its frames with open_array(run, data_key=...), or unpack it."
        )


def fill_event(
    event: Mapping[str, Any],
    documents: Iterable[tuple[str, Mapping[str, Any]]],
    handlers: Mapping[str, HandlerClass] | None = None,
    root_map: Mapping[str, str] | None = None,
    lazy: bool = False,
    *,
    patience: float = _PATIENCE,
) -> dict[str, Any]:
    """A single event, filled.

    Parameters
    ----------
    event : Mapping
        It is not changed.
    documents : iterable of tuple of str and Mapping
        Those that say where its arrays are: its descriptor, and resources and datums of either kind; or its whole
        run, without which stream_datums of a run that was rewound do not tell which of two events is meant.
    handlers, root_map, lazy, patience
        As for `fill`.

    Returns
    -------
    dict
        A new event.

    Raises
    ------
    DocumentError, HandlerNotFoundError, PathError, OSError
        As for `fill`.
    """
    _check_trusted(documents)
    announced, asked = Announced(), None
    for name, doc in documents:
        for other in announced.receive(name, doc):
            asked = other if other.doc["uid"] == event["uid"] else asked
    if asked is None:
        (asked,) = announced.receive("event", event)
    announced.end()
    _check_nothing_waits(announced, [("event", event, [asked])])
    with closing(_opened(handlers, root_map, lazy, patience)) as opened:
        return _filled_event(replace(asked, doc=event), announced, opened)


def _opened(
    handlers: Mapping[str, HandlerClass] | None, root_map: Mapping[str, str] | None, lazy: bool, patience: float
) -> OpenHandlers:
    classes = handler_registry if handlers is None else handlers
    return OpenHandlers(classes, RootMap(root_map), lazy=lazy, patience=patience)


def _waits(announced: Announced, events: list[ExternalEvent]) -> str:
    return next(filter(None, map(announced.missing, events)), "")


def _check_nothing_waits(announced: Announced, waiting: Iterable[tuple[str, Any, Any]], run: str | None = None) -> None:
    for name, _, events in waiting:
        missing = _waits(announced, [event for event in events if run in (None, event.run)])
        if missing:
            raise DocumentError(f"an {name} cannot be filled: {missing}; expected it before the end of its run.")


def _filled(
    name: str, doc: Mapping[str, Any], events: list[ExternalEvent], announced: Announced, opened: OpenHandlers
) -> tuple[str, Mapping[str, Any]]:
    """The document with its arrays; the same document if it has none."""
    if not any(event.wanted for event in events):
        return name, doc
    filled = [_filled_event(event, announced, opened) for event in events]
    if name == "event":
        return name, filled[0]
    if name == "event_page":
        return name, {**doc, **_columns(filled)}
    rows = iter(filled)
    return name, {descriptor: [next(rows) for _ in of_one] for descriptor, of_one in doc.items()}


def _filled_event(event: ExternalEvent, announced: Announced, opened: OpenHandlers) -> dict[str, Any]:
    doc = event.doc
    with schema_errors("event", doc):
        data, filled, timestamps = dict(doc["data"]), dict(doc.get("filled", {})), dict(doc["timestamps"])
    for key in event.wanted:
        data[key], filled[key] = read_key(event, key, announced, opened)
        if key in event.streamed:
            timestamps = {**timestamps, key: timestamps.get(key, doc["time"])}
    return {**doc, "data": data, "timestamps": timestamps, "filled": filled}


def read_key(
    event: ExternalEvent,
    key: str,
    announced: Announced,
    opened: OpenHandlers,
    lock: AbstractContextManager[Any] = _NO_LOCK,
) -> tuple[Any, str]:
    """The array of an event for one key, and its mark in ``filled``; raises as `fill` does.

    While it is looked for in what was announced, and not while it is read, the lock is held.
    """
    doc = event.doc
    try:
        with schema_errors("event", doc):
            with lock:
                data_key = announced.data_key(event, key)
                if key not in event.streamed:
                    resource, datum = announced.datum(event, key)
                else:
                    source, data_key, index, width = announced.place(event, key)
            if key in event.streamed:
                return opened.read_index(source, data_key, key, index, width), f"{source.uid}/{index}"
            return opened.read_datum(resource, datum.get("datum_kwargs", {}), data_key), doc["data"][key]
    except Exception as error:
        error.add_note(f"It was to be read for {key!r} of the event with seq_num {doc['seq_num']}, {doc['uid']}.")
        raise


def _columns(events: list[dict[str, Any]]) -> dict[str, dict[str, list[Any]]]:
    """What is filled in events, as an event_page has it."""
    return {
        part: {key: [event[part][key] for event in events] for key in events[0][part]}
        for part in ("data", "timestamps", "filled")
    }
