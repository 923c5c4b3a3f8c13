"""NDAttributes as data keys: what areaDetector's HDF5 plugin keeps of each frame beside it, such as a temperature.

An `AttributeStore` makes the documents of one attribute as a file store makes those of the frames, from the same file.
It has no device: from `begin` to `end` its file store tells it what happens, all in the thread that runs the plan.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from xml.etree import ElementTree

import numpy as np
from ophyd.device import Staged

from bluesky_filestore.errors import StageError

from .frames import FileStoreWithFrames
from .upstream import pipeline
from .waiting import components_with, optional, pv_name

__all__ = ["AttributeStore", "KnownAttribute", "find_attributes", "texts_of_attributes", "wanted_attributes"]

_GROUP = "/entry/instrument/NDAttributes"
"""Where the default layout of NDFileHDF5 puts them."""
_STRING = "S256"

_TYPES = MappingProxyType(
    {
        "DBR_CHAR": "i1", "DBR_SHORT": "i2", "DBR_ENUM": "i2", "DBR_INT": "i4", "DBR_LONG": "i4", "DBR_FLOAT": "f4",
        "DBR_DOUBLE": "f8", "DBR_STRING": _STRING, "INT": "i4", "INT64": "i8", "DOUBLE": "f8", "STRING": _STRING,
    }
)  # fmt: skip
"""``dbrtype`` and ``datatype`` of areaDetector's XML, and what the plugin writes then."""

_JSON_TYPES = MappingProxyType({"f": "number", "i": "integer", "u": "integer", "b": "boolean", "S": "string"})


@dataclass(frozen=True, slots=True)
class KnownAttribute:
    """What is known of an attribute before it is written."""

    dtype: str
    """In numpy's words; empty if nobody says it."""
    dataset: str
    """Where in the file it will be."""
    source: str = ""
    """What it is the value of, in areaDetector's words."""


_ALWAYS = MappingProxyType(
    {
        "NDArrayUniqueId": KnownAttribute("i4", f"{_GROUP}/NDArrayUniqueId"),
        "NDArrayTimeStamp": KnownAttribute("f8", f"{_GROUP}/NDArrayTimeStamp"),
        "NDArrayEpicsTSSec": KnownAttribute("u4", f"{_GROUP}/NDArrayEpicsTSSec"),
        "NDArrayEpicsTSnSec": KnownAttribute("u4", f"{_GROUP}/NDArrayEpicsTSnSec"),
        "ColorMode": KnownAttribute("i4", "/entry/instrument/detector/NDAttributes/ColorMode"),
    }
)
"""What each frame has."""


def texts_of_attributes(plugin: Any) -> dict[str, str]:
    """What ``NDAttributesFile`` holds of camera and plugins up to this one, by PV."""
    parent = plugin.parent
    upstream = pipeline(plugin) or [getattr(parent, name) for name in components_with(parent, "nd_attributes_file")]
    signals = (optional(device, "nd_attributes_file") for device in dict.fromkeys([*upstream, plugin]))
    return {pv_name(signal): str(signal.get() or "") for signal in signals if signal is not None}


def find_attributes(plugin: Any, wanted: Mapping[str, str]) -> dict[str, KnownAttribute]:
    """What is known of the attributes that are wanted, whose types may have been given.

    Raises
    ------
    StageError
        If nobody sends one, or nobody says of which type it is.
    """
    known, unread = dict(_ALWAYS), []
    for pv, text in texts_of_attributes(plugin).items():
        try:
            known |= _of_xml(text)
        except (OSError, ElementTree.ParseError) as error:
            unread.append(f"{pv} is {text!r}, which can't be read here ({error})")
    found = {}
    for name, given in wanted.items():
        one = known.get(name, KnownAttribute("", f"{_GROUP}/{name}"))
        dtype = given or one.dtype
        if (name not in known and not (given and unread)) or not dtype:
            listed = ", ".join(sorted(known))
            what = "of unknown type" if name in known or unread else "not sent along with the frames"
            raise StageError(
                f"{plugin.name} is asked for the attribute {name!r}, which is {what}; known are {listed}. "
                + "".join(f"{problem}. " for problem in unread)
                + "Put it, with its dbrtype or datatype, into NDAttributesFile of the camera or of a plugin up to this "
                f"one, or say its type: attributes={{{name!r}: 'f8'}}."
            )
        found[name] = KnownAttribute(np.dtype(dtype).str, one.dataset, one.source)
    return found


def _of_xml(text: str) -> dict[str, KnownAttribute]:
    if not text.strip():
        return {}
    # As areaDetector tells a file's name from XML.
    source = text if "<Attributes>" in text else Path(text).read_text("utf-8")
    if "<!" in source.replace("<!--", ""):
        raise ElementTree.ParseError("it declares types or entities")
    root = ElementTree.fromstring(source)  # noqa: S314 - entities have been refused
    found = {}
    for element in root.iter("Attribute"):
        is_pv = element.get("type", "EPICS_PV") == "EPICS_PV"
        said = element.get("dbrtype", "DBR_NATIVE") if is_pv else element.get("datatype", "INT").upper()
        name, where = element.get("name", ""), element.get("source", "")
        found[name] = KnownAttribute(_TYPES.get(said, ""), f"{_GROUP}/{name}", f"PV:{where}" if is_pv else where)
    return found


class AttributeStore(FileStoreWithFrames):
    """The documents of one attribute.

    Parameters
    ----------
    attribute : str
        Its name.
    asset_docs : {'datum', 'stream'}
        As for the frames.
    """

    filestore_spec = "HDF5"

    def __init__(self, attribute: str, asset_docs: str) -> None:
        super().__init__(write_path_template="/", asset_docs=asset_docs, confirm_frames="never")
        self.attribute = attribute
        self.known = KnownAttribute("", "")
        """What is known of it in this stage."""

    def begin(self, owner: FileStoreWithFrames, key: str, known: KnownAttribute, *, swmr: bool) -> None:
        """Begin anew beside the frames of a file store, which has its file."""
        self._begin_anew()
        self._staged = Staged.yes
        self._streams = None
        self._resource_collected = False
        self.reg_root, self._fn, self._data_key, self.known = owner.reg_root, owner._fn, key, known
        frames = (owner._resource_kwargs or {}).get("frame_per_point", 1)
        reader = {"swmr": True} if swmr else {}
        self._generate_resource({"dataset": known.dataset, "frame_per_point": frames, **reader})

    def end(self) -> None:
        """Make no more; what was not collected stays until the next time."""
        self._staged = Staged.no
        self._locked_key_list = False
        self._resource_uid = None

    def begin_flight_after(self, frames: int) -> None:
        """From now on each frame is an event; so many are in the file already."""
        self._generate_resource({**(self._resource_kwargs or {}), "frame_per_point": 1})
        if self._streams is not None:
            self._streams.skip(frames)

    def document_frames(self, count: int) -> None:
        """Queue the documents of the next frames of a flight."""
        if self._streams is not None and count > 0:
            self._streams.add(str(self._data_key), count)

    @property
    def _image_name(self) -> str | None:
        return None

    def _predicted_keys(self) -> tuple[str, ...]:
        return (str(self._data_key),) if self._staged == Staged.yes else ()

    def _make_data_key(self) -> dict[str, Any]:
        frames = (self._resource_kwargs or {}).get("frame_per_point", 1)
        dtype = np.dtype(self.known.dtype)
        return {
            "source": self.known.source or self.known.dataset,
            "dtype": _JSON_TYPES[dtype.kind] if frames == 1 else "array",
            "dtype_numpy": dtype.str,
            "shape": [] if frames == 1 else [frames],
            "external": "FILESTORE:" if self._streams is None else "STREAM:",
        }


def wanted_attributes(attributes: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """The attributes by name, with their types where they are given.

    Raises
    ------
    ValueError, TypeError
        If a type is none that numpy knows, or there is but one text.
    """
    if isinstance(attributes, str):
        raise ValueError(f"attributes is {attributes!r}; expected names, such as [{attributes!r}].")
    wanted = dict(attributes) if isinstance(attributes, Mapping) else dict.fromkeys(attributes, "")
    for name, dtype in wanted.items():
        if dtype and np.dtype(dtype).kind not in _JSON_TYPES:
            raise ValueError(f"attribute {name!r} is of type {dtype!r}; expected a number or a text such as 'S256'.")
    return wanted
