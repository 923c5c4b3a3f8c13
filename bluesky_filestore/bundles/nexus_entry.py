"""A run in NeXus's words: the entry of its file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from bluesky_filestore.errors import AddressError, FileStoreError
from bluesky_filestore.files.array_in_files import ArrayInFiles
from bluesky_filestore.files.hdf5 import HDF5Files
from bluesky_filestore.files.hdf5_views import lost_rows, view_of
from bluesky_filestore.files.nexus import RUN, Copied, Field, Group, Link, Node, Shown

from .nexus_values import collection, field_of, free_name, listed, put
from .run_contents import RunContents, StreamContents

__all__ = ["NexusEntry", "entry_of"]

_MANY_FILES = 500
_SAID_OF_VALUES = ("units", "source", "precision", "object_name", "lower_ctrl_limit", "upper_ctrl_limit")
_KINDS = {0: "scalar", 1: "spectrum"}
_COPY = "copy its frames with copy=True (--copy)"


@dataclass
class NexusEntry:
    """The entry of a run's file, and what has to be said of it."""

    entry: Group
    """What is written."""
    arrays: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """The shapes of the arrays whose frames are in it, by stream and data key."""
    lacks: dict[str, str] = field(default_factory=dict)
    """What is not in it, and why, by stream and data key."""
    advices: dict[str, None] = field(default_factory=dict)
    """What who reads it has to know."""

    @property
    def advice(self) -> tuple[str, ...]:
        """What who reads it has to know."""
        return tuple(self.advices)


def entry_of(run: RunContents, *, copy: bool) -> NexusEntry:
    """Put a run in NeXus's words.

    Parameters
    ----------
    run : RunContents
        The run.
    copy : bool
        Whether frames are copied that lie in files of one frame each.
    """
    children: dict[str, Node] = {}
    made = NexusEntry(Group("NXentry", children))
    put(children, "title", Field(_title(run.start)))
    put(children, "entry_identifier", Field(run.uid))
    put(children, "program_name", Field("bluesky"))
    for name, doc in (("start_time", run.start), ("end_time", run.stop)):
        if (moment := _moment(doc.get("time"))) is not None:
            put(children, name, Field(moment))
    put(children, "start", collection(run.start))
    put(children, "stop", collection(run.stop))
    if run.notes:
        put(children, "notes", Field(list(run.notes)))
    default = ""
    for name in sorted(run.streams, key=lambda name: name != "primary"):
        path = f"/entry/{free_name(children, name)}"
        group, plot = _Stream(run, name, path, made, copy=copy).group()
        put(children, name, group)
        default = default or plot
    attributes = {RUN: run.uid}
    if default:
        children["data" if "data" not in children else free_name(children, "data")] = Link(default)
        attributes["default"] = next(reversed(children))
    made.entry = Group("NXentry", children, attributes)
    return made


class _Stream:
    """A stream of a run, in NeXus's words.

    Parameters
    ----------
    run : RunContents
        The run.
    name : str
        The stream's.
    path : str
        Where its group will be.
    made : NexusEntry
        What has to be said is added here.
    copy : bool
        As for `entry_of`.
    """

    def __init__(self, run: RunContents, name: str, path: str, made: NexusEntry, *, copy: bool) -> None:
        self._run, self._name, self._path, self._made, self._copy = run, name, path, made, copy
        self._stream: StreamContents = run.streams[name]
        self._data_keys: Mapping[str, Any] = self._stream.metadata.get("data_keys") or {}
        self._children: dict[str, Node] = {}
        self._names: dict[str, str] = {}

    def group(self) -> tuple[Group, str]:
        """Its group, and the path of what is plotted of it; empty if that is nothing."""
        for key, values in self._stream.columns.items():
            if not self._is_timestamp(key):
                self._names[key] = put(self._children, key, self._column(key, values))
        for key, array in self._stream.arrays.items():
            self._names[key] = put(self._children, key, Field(array, self._said_of(key)))
        timestamps: dict[str, Node] = {}
        for key, values in self._stream.columns.items():
            if self._is_timestamp(key):
                put(timestamps, key.removeprefix("ts_"), field_of(values, {"units": "s"}))
        if timestamps:
            put(self._children, "timestamps", Group("NXcollection", timestamps))
        rest = {key: value for key, value in self._stream.metadata.items() if key != "data_keys"}
        put(self._children, "descriptor", collection(rest))
        shown = [self._external(key, array) for key, array in self._stream.external.items()]
        plots = [f"{self._path}/{name}" for name in shown if name] or self._plot()
        return Group("NXcollection", self._children, {"stream": self._name}), next(iter(plots), "")

    def _is_timestamp(self, key: str) -> bool:
        return key.startswith("ts_") and key not in self._data_keys

    def _column(self, key: str, values: Sequence[Any]) -> Field:
        if key == "time" and key not in self._data_keys:
            return field_of(values, {"units": "s", "start": "1970-01-01T00:00:00Z", "long_name": "time"})
        return field_of(values, self._said_of(key))

    def _said_of(self, key: str) -> dict[str, Any]:
        entry = self._data_keys.get(key) or {}
        said = {name: entry[name] for name in _SAID_OF_VALUES if isinstance(entry.get(name), str | int | float)}
        units = str(said.get("units") or "")
        return {"long_name": f"{key} ({units})" if units else key, **said}

    def _external(self, key: str, array: ArrayInFiles | str) -> str:
        """The name of the group of an array in files; empty if it has none of its frames."""
        name = f"{self._name}/{key}"
        try:
            if isinstance(array, str):
                raise AddressError(array)
            shown, missing = self._shown(key, array)
        except (FileStoreError, OSError) as error:
            self._made.lacks[name] = str(error)
            put(self._children, key, Group("NXcollection", {}, {"not_shown": str(error)}))
            return ""
        rows = array.registered.shape[0]
        said = self._stream.said.get(key, "") or "they are not in its files"
        reasons = {**missing, **dict.fromkeys(range(rows, self._stream.events), said)}
        self._made.arrays[name] = array.registered.shape
        children: dict[str, Node] = {}
        if reasons:
            self._made.lacks[name] = f"{listed(reasons)}: {next(iter(reasons.values()))}"
            shown.attributes["missing_events"] = listed(reasons)
            children["missing_events"] = Field(np.array(sorted(reasons), np.int64))
        axes = self._axes(children, rows)
        ndim = len(array.registered.shape)
        children["data"] = shown
        attributes: dict[str, Any] = {"signal": "data", "axes": [*axes[:1], *["."] * (ndim - len(axes[:1]))]}
        attributes |= {f"{axis}_indices": 0 for axis in axes}
        return put(self._children, key, Group("NXdata", children, attributes))

    def _shown(self, key: str, array: ArrayInFiles) -> tuple[Shown | Copied, Mapping[int, str]]:
        """An array where it is, or to be copied, and the rows that it lacks."""
        shape = array.registered.shape
        said = {**self._said_of(key), "interpretation": _KINDS.get(_frame_axes(shape), "image")}
        with HDF5Files() as files:
            try:
                view = view_of(array, files)
            except AddressError as error:
                if not self._copy:
                    raise AddressError(f"{error}; {_COPY}") from error
                view = None
        if view is None or (self._copy and view.is_of_single_frames):
            missing = lost_rows(array.frames(), shape[0])
            return Copied(array, missing, said), missing
        if view.filters:
            said["filters"] = list(map(str, view.filters))
            self._made.advices[
                f"Frames are packed by HDF5 filter {', '.join(map(str, view.filters))}: programs need its plugin, "
                f"which Python has after `import hdf5plugin`."
            ] = None
        if view.files > _MANY_FILES:
            self._made.advices[
                f"'{key}' is in {view.files:,} files, and HDF5 keeps each open of which it has read something: where a "
                f"process may not open so many (ulimit -n), it gives the fill value for the rest. Read some hundred "
                f"frames at a time and close the file between, or {_COPY}."
            ] = None
        return Shown(view, said), view.missing

    def _axes(self, children: dict[str, Node], rows: int) -> list[str]:
        """The names of what was moved, and of what else the events are plotted against."""
        names = []
        for key in self._moved():
            name = free_name(children, key)
            column = self._children[self._names[key]]
            if isinstance(column, Field) and len(column.values) == rows:
                children[name] = Link(f"{self._path}/{self._names[key]}")
            elif isinstance(column, Field):
                children[name] = Field(column.values[:rows], column.attributes)
            names.append(name)
        return names

    def _moved(self) -> list[str]:
        """The columns of numbers that the plan's hints name as axes; the time if there are none."""
        hints = self._run.start.get("hints")
        dimensions = hints.get("dimensions") if isinstance(hints, Mapping) else None
        named = []
        for dimension in dimensions if isinstance(dimensions, list | tuple) else ():
            if isinstance(dimension, list | tuple) and len(dimension) == 2 and dimension[1] == self._name:
                named += [key for key in dimension[0] if isinstance(key, str)]
        return [key for key in named if self._is_plain(key)] or [key for key in ("time",) if self._is_plain(key)]

    def _is_plain(self, key: str) -> bool:
        column = self._children.get(self._names.get(key, ""))
        return isinstance(column, Field) and isinstance(column.values, np.ndarray) and column.values.ndim == 1

    def _plot(self) -> list[str]:
        """The path of a plot of the first number that the detectors' hints name; nothing if there is none."""
        hints, moved = self._stream.metadata.get("hints") or {}, self._moved()
        fields = [key for each in hints.values() if isinstance(each, Mapping) for key in each.get("fields") or ()]
        signals = [key for key in fields if isinstance(key, str) and self._is_plain(key) and key not in moved]
        if not signals:
            return []
        children: dict[str, Node] = {}
        axes = [put(children, key, Link(f"{self._path}/{self._names[key]}")) for key in moved]
        names = [put(children, key, Link(f"{self._path}/{self._names[key]}")) for key in dict.fromkeys(signals)]
        attributes: dict[str, Any] = {"signal": names[0], "axes": axes[:1] or ["."]}
        attributes |= {f"{axis}_indices": 0 for axis in axes}
        if names[1:]:
            attributes["auxiliary_signals"] = names[1:]
        return [f"{self._path}/{put(self._children, 'plot', Group('NXdata', children, attributes))}"]


def _frame_axes(shape: tuple[int, ...]) -> int:
    return sum(size > 1 for size in shape[1:])


def _title(start: Mapping[str, Any]) -> str:
    plan, scan = start.get("plan_name"), start.get("scan_id")
    return " ".join(str(each) for each in (plan, None if scan is None else f"scan {scan}") if each) or "run"


def _moment(time: Any) -> str | None:
    try:
        return datetime.fromtimestamp(float(time), UTC).isoformat()
    except (TypeError, ValueError, OverflowError, OSError):
        return None
