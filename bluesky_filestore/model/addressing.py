"""How our own data sources say which frames the rows of an array are: their mimetypes and parameters, made and parsed.

The writing side registers them where the server has our adapters, the serving side reads them. Row i of the array is
event i; its shape, dtype and chunks are the data source's own. The assets are the files, or the directories of a
series, each listed once under the parameter ``data_uris``; a row span names its asset by the asset's ``num``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Any, TypeAlias

from bluesky_filestore.errors import AddressError, DocumentError

from .paths import formatted, has_one_number

__all__ = [
    "FILE_SERIES",
    "HANDLED",
    "HDF5_ROWS",
    "AxisIndex",
    "FileSeries",
    "HDF5Rows",
    "HandledPart",
    "HandledRows",
    "RowSpan",
    "parsed_slice",
    "slice_of_frames",
]

HDF5_ROWS = "application/x-bluesky-filestore-hdf5"
"""Rows anywhere in a dataset of one or many HDF5 files; parameters: `HDF5Rows`."""
FILE_SERIES = "application/x-bluesky-filestore-series"
"""Rows made of numbered one-frame files in one or many directories; parameters: `FileSeries`."""
HANDLED = "application/x-bluesky-filestore-handled"
"""Rows that are what a handler answers; parameters: `HandledRows`."""

AxisIndex: TypeAlias = int | slice | EllipsisType
"""What one axis is indexed with."""


@dataclass(frozen=True, slots=True)
class RowSpan:
    """Consecutive events whose frames (or files) lie at a constant distance in one asset.

    With m frames an event, event k of the span is the frames ``first + k * step`` to ``first + k * step + m``.
    """

    asset: int
    """The ``num`` of the asset."""
    first: int
    """The first frame (of a series: the number of the first file) of the first event."""
    count: int
    """How many events, at least one."""
    step: int
    """The distance from event to event in frames; may be zero or negative."""

    def __post_init__(self) -> None:
        numbers = (self.asset, self.first, self.count, self.step)
        if any(isinstance(number, bool) or not isinstance(number, int) for number in numbers):
            raise AddressError(f"row span {list(numbers)!r} is not made of four whole numbers.")
        if self.asset < 0 or self.first < 0 or self.count < 1 or self.last < 0:
            raise AddressError(
                f"row span {list(numbers)} names no frames; expected [asset, first, count, step] with an asset and "
                f"frames from 0 on and at least one event."
            )

    @property
    def last(self) -> int:
        """The first frame of the last event."""
        return self.first + (self.count - 1) * self.step


@dataclass(frozen=True, slots=True)
class HDF5Rows:
    """The parameters of a data source of the mimetype `HDF5_ROWS`."""

    dataset: str
    """The path of the dataset, the same in all files; its first axis is that of the frames."""
    frames_per_event: int
    """How many consecutive frames make up an event."""
    rows: tuple[RowSpan, ...]
    """The events in their order."""
    slice: str = ""
    """What is taken of the axes after the first, e.g. ``"0:2,:"``; empty for all of them."""
    swmr: bool = False
    """Whether the files may still be being written, and are opened accordingly."""

    def __post_init__(self) -> None:
        _check_common(self.dataset, self.frames_per_event, self.rows)
        parsed_slice(self.slice)

    def to_parameters(self) -> dict[str, Any]:
        """As the data source's parameters, fit for JSON."""
        parameters: dict[str, Any] = {"dataset": self.dataset, "frames_per_event": self.frames_per_event}
        parameters["rows"] = _listed(self.rows)
        if self.slice:
            parameters["slice"] = self.slice
        if self.swmr:
            parameters["swmr"] = True
        return parameters

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> "HDF5Rows":
        """From the data source's parameters.

        Raises
        ------
        AddressError
            If something is missing, of the wrong kind, or not known.
        """
        _check_names(parameters, required=("dataset", "frames_per_event", "rows"), optional=("slice", "swmr"))
        return cls(
            dataset=_of_type(parameters, "dataset", str),
            frames_per_event=_of_type(parameters, "frames_per_event", int),
            rows=_parsed_rows(parameters["rows"]),
            slice=_of_type({"slice": "", **parameters}, "slice", str),
            swmr=_of_type({"swmr": False, **parameters}, "swmr", bool),
        )


@dataclass(frozen=True, slots=True)
class FileSeries:
    """The parameters of a data source of the mimetype `FILE_SERIES`."""

    mimetype: str
    """What a file of it is, in the words of `bluesky_filestore.model.specs`."""
    templates: tuple[str, ...]
    """For each directory the name of its files as a C-style template of their number, e.g. ``"run_%06d.tiff"``."""
    frames_per_event: int
    """How many consecutive files make up an event."""
    rows: tuple[RowSpan, ...]
    """The events in their order; an asset is a directory, a frame is a file's number."""
    dataset: str = ""
    """For HDF5 files: the path of the dataset that holds the frame."""

    def __post_init__(self) -> None:
        _check_common(self.dataset or "/", self.frames_per_event, self.rows)
        for template in self.templates:
            _check_template(template)
        unknown = next((span for span in self.rows if span.asset >= len(self.templates)), None)
        if unknown is not None:
            raise AddressError(
                f"row span {_listed([unknown])[0]} is in directory number {unknown.asset}, but there are templates "
                f"for {len(self.templates)}; expected one template a directory."
            )

    def file_name(self, asset: int, number: int) -> str:
        """The name of a file, without its directory."""
        return formatted(self.templates[asset], number)

    def to_parameters(self) -> dict[str, Any]:
        """As the data source's parameters, fit for JSON."""
        parameters: dict[str, Any] = {"mimetype": self.mimetype, "templates": list(self.templates)}
        parameters |= {"frames_per_event": self.frames_per_event, "rows": _listed(self.rows)}
        if self.dataset:
            parameters["dataset"] = self.dataset
        return parameters

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> "FileSeries":
        """From the data source's parameters.

        Raises
        ------
        AddressError
            If something is missing, of the wrong kind, or not known; or if a template leads out of its directory.
        """
        required = ("mimetype", "templates", "frames_per_event", "rows")
        _check_names(parameters, required=required, optional=("dataset",))
        return cls(
            mimetype=_of_type(parameters, "mimetype", str),
            templates=tuple(_of_type(parameters, "templates", list, tuple)),
            frames_per_event=_of_type(parameters, "frames_per_event", int),
            rows=_parsed_rows(parameters["rows"]),
            dataset=_of_type({"dataset": "", **parameters}, "dataset", str),
        )


@dataclass(frozen=True, slots=True)
class HandledPart:
    """Consecutive events of one Resource."""

    asset: int
    """The ``num`` of the asset that the handler is made with."""
    resource_kwargs: Mapping[str, Any]
    """What else it is made with."""
    datum_kwargs: Sequence[Mapping[str, Any]]
    """What it is asked for each event."""
    directory: bool = False
    """Whether the path is handed to it with a separator at its end: some put a file's name right behind it."""

    def __post_init__(self) -> None:
        if isinstance(self.asset, bool) or not isinstance(self.asset, int) or self.asset < 0:
            raise AddressError(f"the asset of a part is {self.asset!r}; expected its number, from 0 on.")
        mappings = [self.resource_kwargs, *self.datum_kwargs]
        if not self.datum_kwargs or not all(isinstance(each, Mapping) for each in mappings):
            raise AddressError("a part does not say what its events are; expected a mapping in datum_kwargs for each.")

    def to_parameters(self) -> dict[str, Any]:
        """All but the asset, fit for JSON if the arguments are."""
        parameters = {"resource_kwargs": self.resource_kwargs, "datum_kwargs": list(self.datum_kwargs)}
        return parameters | ({"directory": True} if self.directory else {})


@dataclass(frozen=True, slots=True)
class HandledRows:
    """The parameters of a data source of the mimetype `HANDLED`.

    Those of one Resource are ``spec``, ``resource_kwargs`` and ``datum_kwargs``, a list with a mapping for each event;
    those of several are ``spec`` and ``parts``, each with an ``asset`` and the rest.
    """

    spec: str
    """Of the Resources."""
    parts: tuple[HandledPart, ...]
    """The events in their order."""

    def to_parameters(self) -> dict[str, Any]:
        """As the data source's parameters."""
        if len(self.parts) == 1 and self.parts[0].asset == 0:
            return {"spec": self.spec, **self.parts[0].to_parameters()}
        return {"spec": self.spec, "parts": [{"asset": part.asset, **part.to_parameters()} for part in self.parts]}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> "HandledRows":
        """From the data source's parameters.

        Raises
        ------
        AddressError
            If they do not say what the events are.
        """
        spec, listed = parameters.get("spec"), parameters.get("parts", [{"asset": 0, **parameters}])
        known = isinstance(listed, list) and all(
            isinstance(part, Mapping) and isinstance(part.get("datum_kwargs"), list) for part in listed
        )
        if not isinstance(spec, str) or not listed or not known:
            raise AddressError(
                f"parameters {sorted(parameters)} do not say what the events are; expected spec, resource_kwargs, and "
                f"datum_kwargs with a mapping for each."
            )
        parts = [
            HandledPart(part.get("asset"), part.get("resource_kwargs") or {}, part["datum_kwargs"], _is_directory(part))
            for part in listed
        ]
        return cls(spec, tuple(parts))


def parsed_slice(text: str) -> tuple[AxisIndex, ...]:
    """The indices that a slice says in words, one an axis.

    Raises
    ------
    AddressError
        If it is made of anything but whole numbers, ranges and ``...``.

    Examples
    --------
    >>> parsed_slice("1:3, 0")
    (slice(1, 3, None), 0)
    """
    plain = text.strip("()[] ").replace(" ", "")
    try:
        return tuple(_axis_index(part) for part in plain.split(",")) if plain else ()
    except ValueError as error:
        raise AddressError(
            f"slice {text!r} cannot be understood; expected whole numbers and ranges, e.g. ':,0:2'."
        ) from error


def slice_of_frames(text: str) -> tuple[AxisIndex, ...]:
    """What a slice takes of each frame; the first axis, that of the frames, it has to leave alone.

    Raises
    ------
    DocumentError
        If it does not.
    AddressError
        If it can't be understood.
    """
    indices = parsed_slice(text)
    if not indices or indices[0] is ...:
        return indices
    if indices[0] != slice(None):
        raise DocumentError(f"the slice is {text!r}; expected ':' for the first axis, which is that of the frames.")
    return indices[1:]


def _is_directory(part: Mapping[str, Any]) -> bool:
    return bool(_of_type({"directory": False, **part}, "directory", bool))


def _axis_index(part: str) -> AxisIndex:
    if part == "...":
        return ...
    if ":" in part:
        bounds = [int(number) if number else None for number in part.split(":")]
        if len(bounds) > 3 or 0 in bounds[2:]:
            raise ValueError(part)
        return slice(*bounds)
    return int(part)


def _check_common(dataset: str, frames_per_event: int, rows: Sequence[RowSpan]) -> None:
    if not dataset:
        raise AddressError("the dataset has no name; expected its path in the file.")
    if frames_per_event < 1:
        raise AddressError(f"frames_per_event is {frames_per_event}; expected at least 1.")
    if not rows:
        raise AddressError("there are no rows; expected at least one span.")


def _check_template(template: Any) -> None:
    if not isinstance(template, str) or not has_one_number(template):
        raise AddressError(f"template {template!r} has no field for the file's number; expected one, e.g. '%06d'.")
    try:
        name = formatted(template, 1)
    except (TypeError, ValueError) as error:
        raise AddressError(f"template {template!r} cannot be filled in: {error}; write '%' as '%%'.") from error
    if "/" in name or "\\" in name or "\0" in name:
        raise AddressError(f"template {template!r} leads into another directory; expected the name of a file alone.")


def _check_names(parameters: Mapping[str, Any], *, required: Sequence[str], optional: Sequence[str]) -> None:
    missing = [name for name in required if name not in parameters]
    # What we do not know might say which frames are meant.
    unknown = sorted(parameters.keys() - {*required, *optional})
    if missing or unknown:
        expected = f"{', '.join(required)}, and maybe {', '.join(optional)}"
        words = f"parameters {sorted(parameters)} lack {missing} and have {unknown} that are not known"
        raise AddressError(f"{words}; expected {expected}.")


def _of_type(parameters: Mapping[str, Any], name: str, *kinds: type) -> Any:
    value = parameters[name]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise AddressError(f"{name} is {value!r}; expected {' or '.join(kind.__name__ for kind in kinds)}.")
    return value


def _listed(rows: Sequence[RowSpan]) -> list[list[int]]:
    return [[span.asset, span.first, span.count, span.step] for span in rows]


def _parsed_rows(rows: Any) -> tuple[RowSpan, ...]:
    try:
        return tuple(RowSpan(*span) for span in rows)
    except TypeError as error:
        raise AddressError("rows are not a list of row spans; expected [[asset, first, count, step], ...].") from error
