"""A run's frames at a glance."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from bluesky_filestore.catalogs.databroker.broker import client_of
from bluesky_filestore.catalogs.databroker.runs import documents_of_run, run_of
from bluesky_filestore.errors import DocumentError, FileStoreError, MissingFramesError
from bluesky_filestore.model.normalize import unpacked

from . import FileArray, open_array
from .contact_sheet import contact_sheet

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage
    from tiled.client.container import Container

    from .from_documents import Documents
from .ragged_array import RaggedArray

__all__ = ["Preview", "preview"]

_COLUMNS = 8
_EMPTY = 144
_COLOURS = 3

_Name: TypeAlias = tuple[str, str]
"""A stream and a data key."""
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


def preview(
    run_or_documents: "Container | Documents",
    *,
    stream: str | None = None,
    data_key: str | None = None,
    frames: int = 24,
    root_map: Mapping[str, str] | None = None,
) -> Preview:
    """Draw frames of a run side by side, contrast stretched, each with the numbers of its event and frame.

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
    height, width = array.shape[array.ndim - axes :][:2]
    empty = _empty(height or 1, width or 1)
    tiles = []
    for number in chosen:
        label, frame = _label(number, grid), empty
        try:
            frame = _frame(subject, tuple(map(int, np.unravel_index(number, grid))))
        except FileStoreError as error:
            missing[label] = str(error)
        tiles.append((label, frame))
    return Preview(contact_sheet(tiles, _COLUMNS), array, len(tiles), count, missing, subject.others)


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
    return _Subject(array, events, missing["reason"], _others(external, (stream, key)))


def _in_documents(documents: "Documents", wanted: _Wanted, root_map: Mapping[str, str] | None) -> _Subject:
    listed = [pair for packed_name, packed in documents for pair in unpacked(packed_name, packed)]
    streams = {doc["uid"]: doc for name, doc in listed if name == "descriptor"}
    external = [
        (doc["name"], key) for doc in streams.values() for key, entry in doc["data_keys"].items() if "external" in entry
    ]
    stream, key = _chosen(list(dict.fromkeys(external)), wanted)
    events = sum(name == "event" and streams[doc["descriptor"]]["name"] == stream for name, doc in listed)
    array = open_array(listed, key, stream, root_map=root_map)
    return _Subject(array, events, "its frame is in no file", _others(external, (stream, key)))


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


def _empty(height: int, width: int) -> NDArray[Any]:
    """What is shown in place of a frame of this shape."""
    scale = _EMPTY / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    tile = Image.new("L", size, 40)
    draw = ImageDraw.Draw(tile)
    right, bottom = size[0] - 1, size[1] - 1
    draw.rectangle((0, 0, right, bottom), outline=110)
    draw.line((0, 0, right, bottom), fill=70)
    draw.line((0, bottom, right, 0), fill=70)
    middle = (size[0] / 2, size[1] / 2)
    draw.rectangle(draw.textbbox(middle, "missing", anchor="mm"), fill=40)
    draw.text(middle, "missing", fill=255, anchor="mm")
    return np.asarray(tile)
