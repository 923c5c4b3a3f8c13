"""The events of a stream, gathered into batches: columns of the event table, and arrays beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.model.event_record import RECORD_COLUMN, EventRecord, encode_record

from .columns import Column, exact_array, is_column_name, is_kept_array_name, is_masked
from .gathering import GatheredEvent, completed
from .operations import AppendArray, AppendRows, NameAxes, Operation, own_dims

__all__ = ["EventTable"]

# SQLite has 2,000 columns at most; PostgreSQL 1,600, of which a row of numbers has to fit into a page of 8 kB.
_MAX_COLUMNS = 1000
_EXACT_IN_FLOAT = 2**53


@dataclass(frozen=True, slots=True)
class ArrayType:
    """The type of an array that holds every value so far just as it came.

    Examples
    --------
    >>> numbers = ArrayType.of(np.array([[1, 2]]))
    >>> numbers.joined(ArrayType.of(np.array([[0.5, 1.5]]))).dtype
    dtype('float64')
    >>> numbers.joined(ArrayType.of(np.array([[0.5, 1.5, 2.5]])))
    """

    shape: tuple[int, ...]
    """Of one event."""
    dtype: np.dtype[Any]
    """Of the values."""
    exact_in_float: bool
    """Whether every value can be told apart from all others as a float."""

    @classmethod
    def of(cls, array: NDArray[Any]) -> "ArrayType":
        """The type of some events' values: (events, *shape of one)."""
        exact = (
            array.dtype.kind not in "iu" or -_EXACT_IN_FLOAT <= int(array.min()) <= int(array.max()) <= _EXACT_IN_FLOAT
        )
        return cls(array.shape[1:], array.dtype, exact)

    def joined(self, other: "ArrayType") -> "ArrayType | None":
        """The type that holds the values of both as they came; None if there is none."""
        if self.shape != other.shape:
            return None
        kinds = {self.dtype.kind, other.dtype.kind}
        if "b" in kinds and len(kinds) > 1:
            return None
        dtype = self.dtype if self.dtype == other.dtype else np.result_type(self.dtype, other.dtype)
        exact = self.exact_in_float and other.exact_in_float
        if dtype.kind in "fc" and not exact:
            return None
        return ArrayType(self.shape, dtype, exact)


class EventTable:
    """Gathers the events of one stream and hands them on in batches.

    Parameters
    ----------
    run, stream : str
        The uid and the name.
    data_keys : Mapping
        The descriptor's data keys, under the names they have in the catalog.
    """

    def __init__(self, run: str, stream: str, data_keys: Mapping[str, Mapping[str, Any]]) -> None:
        self.notes: list[str] = []
        self.losses: list[str] = []
        """What could not be written of events that were taken; the rest of them was."""
        self._run, self._stream = run, stream
        self._data_keys = data_keys
        self._events: list[GatheredEvent] = []
        self._written = 0
        self._columns: dict[str, Column] = {}
        self._arrays: dict[str, ArrayType] = {}
        self._continued: dict[str, str] = {}
        self._masked: set[str] = set()
        self._growing: set[str] = set()

    def __contains__(self, key: str) -> bool:
        """Whether values of the key came with the events."""
        return key in self._columns or key in self._arrays or key in self._continued.values()

    def __len__(self) -> int:
        return len(self._events)

    def add(self, event: GatheredEvent) -> None:
        """Gather one event."""
        self._events.append(event)

    def all_notes(self) -> list[str]:
        """What a reader of the stream has to know of its columns and arrays."""
        of_columns = [
            f"The column '{name}' in stream '{self._stream}' {column.note}. documents() has the values as they came."
            for name, column in self._columns.items()
            if column.note and name in self._data_keys
        ]
        return [*self.notes, *of_columns]

    def take(self, *, final: bool = True) -> list[Operation]:
        """What has to be written for the events gathered since the last time; `final` if no others will come."""
        operations = self._take_events(final=final) if self._events else []
        if final:
            ended = [key for key in self._growing if key in self._arrays]
            operations += [NameAxes(self._run, self._stream, key, None) for key in ended]
            self._growing.clear()
        return operations

    def _take_events(self, *, final: bool) -> list[Operation]:
        events, first_row = list(self._events), self._written
        if not self._columns:
            self._choose(events)
        values = {name: self._fitted(name, events) for name in self._columns}
        if not final and not first_row:
            self._growing.update(self._arrays)
        arrays = [self._array_rows(key, first_row, events, values) for key in list(self._arrays)]
        values[RECORD_COLUMN] = self._records(events)
        operations: list[Operation] = [*self._tables(first_row, values), *arrays]
        # Not before they have become operations.
        self._events, self._written = [], first_row + len(events)
        return operations

    def _records(self, events: Sequence[GatheredEvent]) -> list[str]:
        moved = self._continued
        stored = {*(self._columns.keys() & self._data_keys.keys()), *self._arrays, *moved.values()}
        timed = {key for key in self._data_keys if f"ts_{key}" in self._columns}
        records = []
        for event in events:
            try:
                record = encode_record(completed(event, self._data_keys, stored, timed, moved))
            except Exception as error:  # noqa: BLE001 - one value must not cost the other events
                self._lose(event, "what documents() needs beside its columns", error)
                record = encode_record(EventRecord(event.record.number, event.record.uid, event.record.descriptor))
            records.append(record)
        return records

    def _fitted(self, name: str, events: Sequence[GatheredEvent]) -> list[Any]:
        """The values of a column; a cell whose value cannot be written stays empty."""
        column, values = self._columns[name], self._values(name, events)
        try:
            return column.fit(values)
        except Exception:  # noqa: BLE001 - each is tried by itself
            for position, value in enumerate(values):
                try:
                    Column().fit([value])
                except Exception as error:  # noqa: BLE001 - whatever somebody's value raises
                    self._lose(events[position], f"the value of '{name}'", error)
                    values[position] = None
            return column.fit(values)

    def _lose(self, event: GatheredEvent, what: str, error: Exception) -> None:
        self.losses.append(
            f"Of event {event.record.uid!r} of stream '{self._stream}' {what} cannot be written: {error!r}"
        )

    def take_losses(self) -> list[str]:
        """What could not be written, since the last time."""
        losses, self.losses = self.losses, []
        return losses

    def _values(self, name: str, events: Sequence[GatheredEvent]) -> list[Any]:
        if name in ("seq_num", "time", RECORD_COLUMN):
            return [getattr(event, name, None) for event in events]
        if name in self._data_keys:
            return [event.data.get(name) for event in events]
        if name in self._continued:
            return [event.data.get(self._continued[name]) for event in events]
        key = name.removeprefix("ts_")
        return [event.timestamps.get(key) for event in events]

    def _tables(self, first_row: int, values: Mapping[str, Sequence[Any]]) -> list[AppendRows]:
        names = list(values)
        parts = [names[at : at + _MAX_COLUMNS] for at in range(0, len(names), _MAX_COLUMNS)]
        return [
            AppendRows(
                self._run,
                self._stream,
                first_row,
                types={name: self._columns[name].type for name in part},
                columns={name: values[name] for name in part},
                table="internal" if number == 0 else f"internal_{number}",
                metadata={name: self._data_keys[name] for name in part if name in self._data_keys},
            )
            for number, part in enumerate(parts)
        ]

    def _choose(self, events: Sequence[GatheredEvent]) -> None:
        """Which keys become columns and which arrays beside them, by the descriptor and the first events."""
        self._columns = {"seq_num": Column("integer"), "time": Column("number"), RECORD_COLUMN: Column("string")}
        # Tiled folds the names of columns to lower case, and has two of its own.
        taken = {"seq_num", "time", RECORD_COLUMN, "_dataset_id", "_partition_id"}
        for key, entry in self._data_keys.items():
            if "external" in entry and not any(key in event.data for event in events):
                continue
            first_values = [event.data.get(key) for event in events]
            has_name = is_column_name(key) and not {key.lower(), f"ts_{key}".lower()} & taken
            is_array = entry.get("dtype") == "array" or any(_is_sequence(value) for value in first_values)
            if is_array or not has_name:
                # What no node can be called goes into the table, too, whose columns may be called otherwise.
                array = _array(first_values) if is_kept_array_name(key) else None
                if array is not None:
                    self._arrays[key] = ArrayType.of(array)
                    continue
            if is_array:
                self.notes.append(
                    f"The arrays of '{key}' in stream '{self._stream}' differ in shape, are empty or hold no numbers; "
                    f"they are stored as JSON text."
                )
            if not has_name:
                name = self._begin_column(key, f"column_{len(self._columns)}", str(entry.get("dtype", "")))
                self.notes.append(
                    f"'{key}' in stream '{self._stream}' is in the column '{name}': no column can have its name."
                )
                taken.add(name)
                continue
            self._columns[key] = Column(str(entry.get("dtype", "")))
            taken |= {key.lower(), f"ts_{key}".lower()}
        for key in self._data_keys:
            known = key in self._columns or f"ts_{key}".lower() not in taken
            if known and is_column_name(f"ts_{key}") and any(key in event.timestamps for event in events):
                self._columns[f"ts_{key}"] = Column("number")
                taken.add(f"ts_{key}".lower())

    def _array_rows(
        self, key: str, first_row: int, events: Sequence[GatheredEvent], values: dict[str, list[Any]]
    ) -> AppendArray | NameAxes:
        """The next rows of an array; where they are of another shape or type, a column goes on in its place."""
        values_here = [event.data.get(key) for event in events]
        array = _array(values_here)
        joined = None if array is None else self._arrays[key].joined(ArrayType.of(array))
        if array is not None and joined is not None:
            self._arrays[key] = joined
            wide = array.astype(joined.dtype, copy=False)
            if key not in self._masked and any(map(is_masked, values_here)):
                self._masked.add(key)
                self.notes.append(f"Masked elements of the array '{key}' in stream '{self._stream}' are NaN.")
            dims = own_dims(key, wide.ndim) if key in self._growing else None
            return AppendArray(self._run, self._stream, key, first_row, wide, self._data_keys[key], dims)
        ndim = 1 + len(self._arrays.pop(key).shape)
        name = self._begin_column(key, key if is_column_name(key) else f"array_{first_row}", "array")
        values[name] = self._fitted(name, events)
        self.notes.append(
            f"The array '{key}' in stream '{self._stream}' ends before event {first_row}, where its shape or type "
            f"changes; from there on it is JSON text in the column '{name}'."
        )
        return NameAxes(self._run, self._stream, key, own_dims(key, ndim))

    def _begin_column(self, key: str, name: str, declared: str) -> str:
        """Begin a column for a key that cannot have one of its own name."""
        taken = {other.lower() for other in (*self._columns, *self._data_keys)}
        while name.lower() in taken:
            name += "_"
        self._continued[name] = key
        self._columns[name] = Column(declared)
        return name


def _array(values: Sequence[Any]) -> NDArray[np.generic] | None:
    try:
        return exact_array(values)
    except Exception:  # noqa: BLE001 - what is no array for whatever reason becomes text, and may be odd as such
        return None


def _is_sequence(value: Any) -> bool:
    return isinstance(value, list | tuple | np.ndarray)
