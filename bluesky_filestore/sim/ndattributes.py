"""NDAttributes: what a camera or plugin has been told, by ``NDAttributesFile``, to send along with each frame."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from xml.etree import ElementTree

import numpy as np

from .records import Records, Value

__all__ = ["AttributesError", "NDAttribute", "read_attributes"]

_LONGEST = 1_000_000
"""Bytes of XML that are read."""

_OK, _NOT_FOUND, _SYNTAX_ERROR, _MACRO_ERROR = range(4)
"""NDAttributesStatus."""

_STRING = "S256"
"""As long as areaDetector keeps strings, whatever they are."""

_DATA_TYPES = MappingProxyType({"INT": "int32", "INT64": "int64", "DOUBLE": "float64", "STRING": _STRING})
"""The ``datatype`` of a parameter or constant."""

_DBR_TYPES = MappingProxyType(
    {
        "DBR_CHAR": "int8", "DBR_SHORT": "int16", "DBR_ENUM": "int16", "DBR_INT": "int32", "DBR_LONG": "int32",
        "DBR_FLOAT": "float32", "DBR_DOUBLE": "float64", "DBR_STRING": _STRING,
    }
)  # fmt: skip
"""The ``dbrtype`` of a PV."""

_NATIVE = MappingProxyType({"enum": "int16", "long": "int32", "double": "float64", "string": _STRING, "char": _STRING})
"""What a record of a kind is by itself."""

_PARAMETERS = MappingProxyType(
    {
        "ACQ_TIME": "AcquireTime", "ACQ_PERIOD": "AcquirePeriod", "ARRAY_COUNTER": "ArrayCounter", "GAIN": "Gain",
        "IMAGE_MODE": "ImageMode", "MANUFACTURER": "Manufacturer", "MODEL": "Model", "NIMAGES": "NumImages",
        "NIMAGES_COUNTER": "NumImagesCounter", "TEMPERATURE": "Temperature", "TEMPERATURE_ACTUAL": "TemperatureActual",
        "UNIQUE_ID": "UniqueId",
    }
)  # fmt: skip
"""The driver's parameters, by the names that asyn has for them, and the records that show them."""


class AttributesError(ValueError):
    """What is wrong with a list of attributes, with what ``NDAttributesStatus`` becomes."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class NDAttribute:
    """One attribute."""

    name: str
    """What it is called in the file."""
    record: str
    """The record whose value it has; empty for a constant, and for one that is not connected."""
    constant: str
    """The value, if it is a constant."""
    dtype: str
    """In numpy's words."""
    notes: Mapping[str, str]
    """What is written beside it in an HDF5 file."""

    def value(self, records: Records) -> Any:
        """What it is now; None if nobody knows, as of a PV that is not connected."""
        if not self.record and not self.constant:
            return None
        present: Value = records[self.record] if self.record else self.constant
        if self.dtype.startswith("S"):
            enum = records.record(self.record).enum if self.record else ()
            return np.bytes_((enum[int(str(present))] if enum else str(present)).encode("latin-1", "replace"))
        return np.dtype(self.dtype).type(present)


def read_attributes(text: str, prefix: str, records: Records) -> list[NDAttribute]:
    """The attributes of ``NDAttributesFile``: the name of a file, or the XML itself.

    Of sources the simulation has this IOC's PVs, some of the driver's parameters, and constants; one that it does not
    have is never connected.

    Parameters
    ----------
    text : str
        What was put.
    prefix : str
        What the records of the port begin with: ``cam1:``.
    records : Records
        All records of the IOC.

    Raises
    ------
    AttributesError
        If it can't be read.
    """
    if not text.strip():
        return []
    try:
        # As the real one tells a file's name from XML.
        source = text if "<Attributes>" in text else Path(os.fsdecode(text.encode("latin-1"))).read_text("utf-8")
    except OSError as error:
        raise AttributesError(_NOT_FOUND, str(error)) from error
    if len(source) > _LONGEST or "<!" in source.replace("<!--", ""):
        raise AttributesError(_SYNTAX_ERROR, "it is too long, or declares types or entities")
    if "$(" in source:
        raise AttributesError(_MACRO_ERROR, "macros are not simulated")
    try:
        root = ElementTree.fromstring(source)  # noqa: S314 - entities have been refused
    except ElementTree.ParseError as error:
        raise AttributesError(_SYNTAX_ERROR, str(error)) from error
    return [_attribute(element, prefix, records) for element in root.iter("Attribute") if element.get("name")]


def _attribute(element: ElementTree.Element, prefix: str, records: Records) -> NDAttribute:
    source, kind = element.get("source", ""), element.get("type", "EPICS_PV")
    record = ""
    if kind == "EPICS_PV":
        parts = source.split(":")
        record = next((name for at in range(len(parts)) if (name := ":".join(parts[at:])) in records), "")
        native = _NATIVE[records.record(record).kind] if record else "float64"
        dtype = _DBR_TYPES.get(element.get("dbrtype", "DBR_NATIVE"), native)
    else:
        dtype = _DATA_TYPES.get(element.get("datatype", "INT").upper(), "int32")
    if kind == "PARAM":
        shown = f"{prefix}{_PARAMETERS.get(source.upper(), source)}"
        record = next((name for name in (f"{shown}_RBV", shown) if name in records), "")
    notes = {
        "NDAttrName": element.get("name", ""),
        "NDAttrDescription": element.get("description", ""),
        "NDAttrSourceType": {
            "EPICS_PV": "NDAttrSourceEPICSPV",
            "PARAM": "NDAttrSourceParam",
            "CONST": "NDAttrSourceConst",
        }.get(kind, "NDAttrSourceUndefined"),
        "NDAttrSource": source,
    }
    return NDAttribute(element.get("name", ""), record, source if kind == "CONST" else "", dtype, notes)
