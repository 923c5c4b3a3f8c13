"""A run's frames at a glance."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.catalogs.databroker.broker import client_of
from bluesky_filestore.catalogs.databroker.runs import documents_of_run, run_of
from bluesky_filestore.catalogs.tiled.connecting import catalog_errors
from bluesky_filestore.errors import CatalogError, DocumentError, FileStoreError, MissingFramesError
from bluesky_filestore.logs import get_logger
from bluesky_filestore.model.normalize import unpacked

from . import FileArray, open_array
from .contact_sheet import Section, draw_sections
from .ragged_array import RaggedArray

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage
    from tiled.client.container import Container

    from .from_documents import Documents

__all__ = ["Preview", "preview"]

_logger = get_logger(__name__)
_COLUMNS = 8
_COLOURS = 3

_Name: TypeAlias = tuple[str, str]
"""A stream and a data key."""
_Moved: TypeAlias = tuple[Sequence[Any], str]
"""Where something was at each event, and its units."""
_Wanted: TypeAlias = tuple[str | None, str | None]
"""The same, as far as somebody cares."""


@dataclass(frozen=True, slots=True)
class Preview:
    """A contact sheet, and what there is to say of it."""

    picture: "PILImage"
    """The sheet; save it with ``.save("sheet.png")``."""
    array: FileArray | RaggedArray
    """The array whose frames are shown; it says how it was read."""
    shown: int
    """How many frames were asked for."""
    count: int
    """How many there are."""
    missing: Mapping[str, str]
    """The frames among those shown that could not be read, and why."""
    others: tuple[str, ...]
    """Further arrays of the run, as ``stream/data key``."""


@dataclass(frozen=True, slots=True)
class _Subject:
    """One array of a run."""

    array: FileArray | RaggedArray
    """Its frames."""
    events: int
    """How many events its stream has."""
    why: str
    """Why it ends before the events do, if it does."""
    others: tuple[str, ...]
    """The other arrays."""
    start: Mapping[str, Any]
    """The start document."""
    moved: Mapping[str, _Moved]
    """What was moved, by its name: where it was at each event, and its units."""


def preview(
    run_or_documents: "Container | Documents",
    *,
    stream: str | None = None,
    data_key: str | None = None,
    frames: int = 24,
    root_map: Mapping[str, str] | None = None,
) -> Preview:
    """Draw frames of a run side by side, in colours with one contrast, each with its number and what was moved.

    A frame that cannot be read has an empty tile.

    Parameters
    ----------
    run_or_documents : tiled.client.container.Container, or iterable of tuple of str and Mapping
        A run of a catalog, e.g. ``client[uid]``, of a databroker as well, or its documents.
    stream, data_key : str, optional
        Which array; by default the first with its frames in files, of the stream ``primary`` if there is one.
    frames : int
        How many are shown at most; of more they are chosen evenly, the first and the last among them.
    root_map : Mapping of str to str, optional
        Where directories are now, as for `open_array`.

    Raises
    ------
    DocumentError
        If the run has no such array, or its frames are no images.
    FileStoreError
        As `open_array` says.
    """
    if frames < 1:
        raise DocumentError(f"{frames} frames make no picture; expected at least one.")
    held = run_of(run_or_documents)
    if held is not None:
        run_or_documents = documents_of_run(held)
    run_or_documents = client_of(run_or_documents)
    find = _in_catalog if hasattr(run_or_documents, "metadata") else _in_documents
    subject = find(run_or_documents, (stream, data_key), root_map)
    array, axes = subject.array, _image_axes(subject.array)
    grid = (max(len(array), subject.events), *_frames_axes(array, axes))
    count = math.prod(grid)
    if not count:
        raise DocumentError(f"{array.name} has no frames yet.")
    chosen = np.unique(np.linspace(0, count - 1, min(frames, count)).round().astype(int)).tolist()
    missing: dict[str, str] = {}
    tiles: list[tuple[str, NDArray[Any] | None]] = []
    for number in chosen:
        label, frame = _label(number, grid), None
        place = tuple(map(int, np.unravel_index(number, grid)))
        try:
            frame = _frame(subject, place)
        except FileStoreError as error:
            missing[label] = str(error)
        tiles.append((_caption(label, subject.moved, place[0]), frame))
    shape = " x ".join("?" if length is None else str(length) for length in array.shape)
    about = f"{len(tiles):,} of {count:,} frames, {shape}, {array.dtype}"
    if missing:
        about += f", {len(missing):,} of those shown are missing"
    picture = draw_sections(_title(subject.start), [Section(array.name, about, tiles)], _COLUMNS)
    return Preview(picture, array, len(tiles), count, missing, subject.others)


def _in_catalog(run: Any, wanted: _Wanted, root_map: Mapping[str, str] | None) -> _Subject:
    # The clients of bluesky-tiled-plugins keep Tiled's own under this name.
    run = getattr(run, "base", run)
    said: Mapping[str, Any] = run.metadata.get("filestore") or {}
    streams = {name: getattr(run[name], "base", run[name]) for name in run}
    external = [
        (name, key)
        for name, node in streams.items()
        for key, entry in node.metadata.get("data_keys", {}).items()
        if "external" in entry
    ]
    stream, key = _chosen(external, wanted)
    if key not in streams[stream]:
        why = said.get("refused", {}).get(stream, {}).get(key) or "the catalog does not say why"
        raise DocumentError(f"{stream}/{key} is not in the catalog: {why}.")
    missing = said.get("missing", {}).get(stream, {}).get(key) or {"events": [], "reason": ""}
    array = open_array(streams[stream][key], root_map=root_map)
    events = max([-1, *missing["events"]]) + 1
    start = run.metadata.get("start") or {}
    found = _values_in_catalog(streams[stream], _moved(start, stream))
    moved = _with_units(found, streams[stream].metadata.get("data_keys", {}))
    return _Subject(array, events, missing["reason"], _others(external, (stream, key)), start, moved)


def _in_documents(documents: "Documents", wanted: _Wanted, root_map: Mapping[str, str] | None) -> _Subject:
    listed = [pair for packed_name, packed in documents for pair in unpacked(packed_name, packed)]
    streams = {doc["uid"]: doc for name, doc in listed if name == "descriptor"}
    external = [
        (doc["name"], key) for doc in streams.values() for key, entry in doc["data_keys"].items() if "external" in entry
    ]
    stream, key = _chosen(list(dict.fromkeys(external)), wanted)
    events = [doc for name, doc in listed if name == "event" and streams[doc["descriptor"]]["name"] == stream]
    array = open_array(listed, key, stream, root_map=root_map)
    start = next((doc for name, doc in listed if name == "start"), {})
    found = {name: [event["data"].get(name) for event in events] for name in _moved(start, stream)}
    moved = _with_units(found, next(doc["data_keys"] for doc in streams.values() if doc["name"] == stream))
    others = _others(external, (stream, key))
    return _Subject(array, len(events), "its frame is in no file", others, start, moved)


def _chosen(external: Sequence[_Name], wanted: _Wanted) -> _Name:
    """The array that is wanted, or the first that will do."""
    fitting = [
        name for name in external if all(asked in (None, part) for asked, part in zip(wanted, name, strict=True))
    ]
    if not fitting:
        pairs = zip(("stream", "data key"), wanted, strict=True)
        said = [f"{what} {name!r}" for what, name in pairs if name is not None]
        asked = f" of {' and '.join(said)}" if said else ""
        known = ", ".join("/".join(name) for name in external) or "none"
        raise DocumentError(f"the run has no frames{asked} in files; arrays with their frames in files: {known}.")
    return next((name for name in fitting if name[0] == "primary"), fitting[0])


def _others(external: Iterable[_Name], chosen: _Name) -> tuple[str, ...]:
    return tuple("/".join(name) for name in dict.fromkeys(external) if name != chosen)


def _frames_axes(array: FileArray | RaggedArray, axes: int) -> tuple[int, ...]:
    """The axes that count the frames of an event; none where events differ, of which the first frame is shown."""
    return () if isinstance(array, RaggedArray) else array.shape[1 : array.ndim - axes]


def _frame(subject: _Subject, place: tuple[int, ...]) -> NDArray[Any]:
    array = subject.array
    if place[0] >= len(array):
        raise MissingFramesError(f"event {place[0]} of {array.name}: {subject.why}.")
    found: NDArray[Any] = array[place]
    if isinstance(array, RaggedArray):
        if not found.size:
            raise MissingFramesError(f"event {place[0]} of {array.name} has no frames.")
        first: NDArray[Any] = found[(0,) * (array.ndim - 1 - _image_axes(array))]
        return first
    return found


def _label(number: int, grid: tuple[int, ...]) -> str:
    """What a frame is called.

    Examples
    --------
    >>> _label(5, (10,)), _label(5, (10, 1)), _label(5, (5, 2))
    ('event 5', 'event 5', 'event 2, frame 1')
    """
    event, frame = divmod(number, math.prod(grid[1:]))
    return f"event {event}" if math.prod(grid[1:]) == 1 else f"event {event}, frame {frame}"


def _image_axes(array: FileArray | RaggedArray) -> int:
    """How many of the last axes are those of an image."""
    shape = array.shape
    axes = 3 if len(shape) > 3 and shape[-1] == _COLOURS else 2
    if len(shape) <= axes or array.dtype.kind not in "biuf" or 0 in shape[1:]:
        raise DocumentError(
            f"{array.name} has shape {list(shape)} and dtype {array.dtype}; expected images, (events, ..., y, x). Say "
            f"which array has them."
        )
    return axes


def _title(start: Mapping[str, Any]) -> str:
    """What a run is called: its plan, scan and sample, as far as its start document says them.

    Examples
    --------
    >>> _title({"plan_name": "scan", "scan_id": 12, "uid": "5c450e1a-30fb"})
    'scan, scan 12, run 5c450e1a'
    """
    said = [str(start[key]) for key in ("plan_name", "sample_name") if isinstance(start.get(key), str)]
    scan = start.get("scan_id")
    return ", ".join([*said, *([] if scan is None else [f"scan {scan}"]), f"run {str(start.get('uid', ''))[:8]}"])


def _moved(start: Mapping[str, Any], stream: str) -> list[str]:
    """The columns that a plan's hints say were moved."""
    hints = start.get("hints")
    dimensions = hints.get("dimensions") if isinstance(hints, Mapping) else None
    named: list[str] = []
    for dimension in dimensions if isinstance(dimensions, list | tuple) else ():
        if isinstance(dimension, list | tuple) and len(dimension) == 2 and dimension[1] == stream:
            named += [key for key in dimension[0] if isinstance(key, str) and key != "time"]
    return named


def _values_in_catalog(stream: Any, names: Sequence[str]) -> dict[str, list[Any]]:
    """Columns of the event table of a stream, as far as they are there."""
    found: dict[str, list[Any]] = {}
    if not names:
        return found
    try:
        with catalog_errors(str(stream.uri), stream):
            for _, child in stream.items():
                wanted = [name for name in names if name in (getattr(child, "columns", None) or ())]
                if wanted and child.structure_family == "table":
                    table = child.read(wanted)
                    found |= {name: table[name].tolist() for name in wanted}
    except CatalogError as error:
        # There are frames all the same.
        _logger.warning("What was moved is not shown: %s", error)
    return found


def _caption(label: str, moved: Mapping[str, _Moved], event: int) -> str:
    """What stands under a frame: its number, and where what was moved was."""
    said = []
    for name, (values, units) in moved.items():
        value = values[event] if event < len(values) else None
        if isinstance(value, Real) and math.isfinite(value):
            said.append(f"{name} {float(value):.5g}{f' {units}' if units else ''}")
    return f"{label}\n{', '.join(said)}" if said else label


def _with_units(found: Mapping[str, Sequence[Any]], data_keys: Mapping[str, Any]) -> Mapping[str, _Moved]:
    units = {name: data_keys.get(name, {}).get("units") for name in found}
    return {name: (values, said if isinstance(said := units[name], str) else "") for name, values in found.items()}
