"""The records an areaDetector IOC serves: their kinds, boot values and present values.

The list is that of a real IOC (EPICS 7.0.8, ADCore 3.14, ADSimDetector 2.11), recorded right after boot
and kept as ``records.json``. Nothing here knows the network: whoever serves the records gives a listener.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Record", "Records", "Value", "load_records"]

Value: TypeAlias = "int | float | str | NDArray[Any]"
"""What a record holds: an enum's index, a number, a string, or an array."""

_STRING_LENGTH = 39
"""Characters in an EPICS string, its terminating NUL left out."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it is right after boot."""

    name: str
    """Without the IOC's prefix: ``cam1:Acquire``."""

    kind: str
    """``enum``, ``long``, ``double``, ``string``, or ``char`` for a long string."""

    value: Value
    """What it holds right after boot."""

    count: int = 1
    """How many elements it can hold."""

    enum: tuple[str, ...] = ()
    """The words of an enum, in order."""

    units: str = ""
    """Engineering units, where set."""

    precision: int = 0
    """Digits to show after the decimal point, where set."""

    limits: tuple[float, float] = (0, 0)
    """Lowest and highest value that can be put; no limits unless the first is below the second."""

    @property
    def is_array(self) -> bool:
        """Whether it holds an array of numbers."""
        return self.count > 1 and self.kind != "char"

    def coerce(self, value: Any) -> Value:
        """What the record makes of a value that is put to it.

        Raises
        ------
        ValueError
            For a word that the enum does not have, or text that is no number.
        """
        if self.kind == "char":
            return str(value).partition("\0")[0][: self.count - 1]
        if self.kind == "string":
            return str(value).partition("\0")[0][:_STRING_LENGTH]
        if self.is_array:
            return np.atleast_1d(np.asarray(value, dtype=np.float64 if self.kind == "double" else np.int32))
        if self.kind == "enum":
            return self._index(value)
        numeric = float(value) if self.kind == "double" else int(float(value))
        low, high = self.limits
        return type(numeric)(min(max(numeric, low), high)) if low < high else numeric

    def _index(self, value: Any) -> int:
        """The index that an enum's word or number stands for."""
        if isinstance(value, str) and value in self.enum:
            return self.enum.index(value)
        try:
            index = int(value)
        except ValueError:
            index = -1
        if not 0 <= index < max(len(self.enum), 1):
            raise ValueError(f"{self.name} takes one of {', '.join(self.enum)}; it was given {value!r}")
        return index


def _parse(name: str, entry: Mapping[str, Any]) -> Record:
    """One entry of ``records.json``."""
    kind, count = entry["type"], entry.get("count", 1)
    value: Value = entry.get("value", 0 if count == 1 else [])
    if count > 1 and kind != "char":
        value = np.asarray(value, dtype=np.float64 if kind == "double" else np.int32)
    limits = (entry.get("lower_ctrl_limit", 0), entry.get("upper_ctrl_limit", 0))
    units, precision = entry.get("units", ""), entry.get("precision", 0)
    return Record(name, kind, value, count, tuple(entry.get("enum", ())), units, precision, limits)


def load_records() -> dict[str, Record]:
    """All records of the real IOC, and those of a codec plugin, by name without prefix."""
    entries = json.loads(files(__package__).joinpath("records.json").read_text(encoding="utf-8"))
    return {name: _parse(name, entry) for name, entry in (entries | _codec_entries(entries)).items()}


def _codec_entries(entries: Mapping[str, Any]) -> dict[str, Any]:
    """The records of a codec plugin, ``Codec1:``, which the recorded IOC did not have.

    What all plugins have is taken from the colour converter; the rest is written down after ADCore's database.
    """
    made = {
        "Codec1:" + name.removeprefix("CC1:"): entry
        for name, entry in entries.items()
        if name.startswith("CC1:") and not name.startswith(("CC1:ColorModeOut", "CC1:FalseColor"))
    }
    for name, value in (("PluginType_RBV", "NDPluginCodec"), ("PortName_RBV", "CODEC1")):
        made[f"Codec1:{name}"] = {**made[f"Codec1:{name}"], "value": value}
    made["Codec1:CodecStatus"] = {"type": "enum", "enum": ["Success", "Warning", "Error"], "value": 0}
    made["Codec1:CompFactor_RBV"] = {"type": "double", "value": 1.0}
    made["Codec1:CodecError"] = {"type": "char", "count": 256, "value": ""}
    settings: dict[str, dict[str, Any]] = {
        "Mode": {"type": "enum", "enum": ["Compress", "Decompress"], "value": 0},
        "Compressor": {"type": "enum", "enum": ["None", "JPEG", "Blosc", "LZ4", "BSLZ4"], "value": 0},
        "JPEGQuality": {"type": "long", "value": 85},
        "BloscCompressor": entries["HDF1:BloscCompressor"],
        "BloscCLevel": {"type": "long", "value": 5},
        "BloscShuffle": {"type": "enum", "enum": ["None", "Bit", "Byte"], "value": 1},
        "BloscNumThreads": {"type": "long", "value": 1},
    }
    for name, entry in settings.items():
        made[f"Codec1:{name}"] = made[f"Codec1:{name}_RBV"] = entry
    return made


class Records:
    """The present value of every record; a listener is told of what a client's monitor would be told.

    Parameters
    ----------
    records : mapping of str to Record
        What there is, by name.
    """

    def __init__(self, records: Mapping[str, Record]) -> None:
        self._records = records
        self._values = {name: record.value for name, record in records.items()}
        self.listener: Callable[[str, Value], None] = lambda name, value: None

    def __contains__(self, name: object) -> bool:
        return name in self._records

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __getitem__(self, name: str) -> Value:
        """The present value."""
        return self._values[name]

    def record(self, name: str) -> Record:
        """What kind of record it is."""
        return self._records[name]

    def post(self, name: str, value: Value, *, always: bool = False) -> None:
        """Give a record a new value and tell the listener.

        A scalar record tells its monitors of changes only; a waveform, long strings included, of every
        processing (``MPST`` and ``APST`` of the waveform record are ``Always`` by default).
        """
        record = self._records[name]
        if record.count == 1 and not always and self._values[name] == value:
            return
        self._values[name] = value
        self.listener(name, value)
