"""What a Resource's ``spec`` stands for, as a table.

The names and meanings are those of area-detector-handlers, nslsii and ophyd; the media types are those that Tiled
chooses its adapters by.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

from bluesky_filestore.errors import OptionError, UnknownSpecError

__all__ = [
    "FRAME_MIMETYPES",
    "HDF5",
    "JPEG_SERIES",
    "NPY_SERIES",
    "OPAQUE",
    "SPECS",
    "TIFF_SERIES",
    "Layout",
    "Spec",
    "add_spec",
    "remove_spec",
    "spec_named",
]

Layout: TypeAlias = Literal["file", "series"]

HDF5 = "application/x-hdf5"
TIFF_SERIES = "multipart/related;type=image/tiff"
NPY_SERIES = "multipart/related;type=application/x-npy"
JPEG_SERIES = "multipart/related;type=image/jpeg"
OPAQUE = "application/octet-stream"
"""Files that nobody reads."""
FRAME_MIMETYPES = (HDF5, TIFF_SERIES, NPY_SERIES, JPEG_SERIES)
"""Those of the files that frames are found in without a handler."""

_AREA_DETECTOR_DATASET = "/entry/data/data"
_XSPRESS3_DATASET = "/entry/instrument/detector/data"


@dataclass(frozen=True, slots=True)
class Spec:
    """One row of the table."""

    name: str
    """As it stands in a Resource document."""
    mimetype: str
    """As it stands in a StreamResource document and in Tiled's data sources."""
    layout: Layout
    """``"file"``: the path is one file. ``"series"``: it is the directory of files made from a template."""
    dataset: str | None = None
    """The HDF5 dataset that holds the frames; None where the file has no datasets, or `resource_kwargs` name it."""
    frames_per_file: Literal["many", "one"] = "many"
    """Whether a file of a series holds one frame or all frames of a point."""


_ROWS = (
    Spec("AD_HDF5", HDF5, "file", _AREA_DETECTOR_DATASET),
    Spec("AD_HDF5_SWMR", HDF5, "file", _AREA_DETECTOR_DATASET),
    Spec("AD_HDF5_SWMR_STREAM", HDF5, "file"),
    Spec("AD_HDF5_SINGLE", HDF5, "series", _AREA_DETECTOR_DATASET, "one"),
    Spec("AD_TIFF", TIFF_SERIES, "series", None, "one"),
    Spec("HDF5", HDF5, "file"),
    Spec("NPY_SEQ", NPY_SERIES, "series"),
    Spec("XSP3", HDF5, "file", _XSPRESS3_DATASET),
)

SPECS: Mapping[str, Spec] = MappingProxyType({row.name: row for row in _ROWS})
"""Every spec we can place frames of, by name."""


_ADDED: dict[str, Spec] = {}


def add_spec(name: str, mimetype: str) -> None:
    """Take the frames of an unknown spec for those of plain files: of HDF5, or of a series.

    Their dataset, or the template of their names, is in the ``resource_kwargs`` then, and index i of a Datum is frame
    i, or file i. It holds for this process.

    Raises
    ------
    OptionError
        If the mimetype is of no file that frames are found in, or the spec is known and is another thing.
    """
    if mimetype not in FRAME_MIMETYPES:
        raise OptionError(f"spec {name!r} shall be of {mimetype!r}; expected one of {', '.join(FRAME_MIMETYPES)}.")
    if name in SPECS:
        if SPECS[name].mimetype != mimetype:
            raise OptionError(f"spec {name!r} is of {SPECS[name].mimetype}, and cannot be of {mimetype} as well.")
        return
    _ADDED[name] = Spec(name, mimetype, "file") if mimetype == HDF5 else Spec(name, mimetype, "series", None, "one")


def remove_spec(name: str) -> None:
    """Take back what `add_spec` did, if it did."""
    _ADDED.pop(name, None)


def spec_named(name: str) -> Spec:
    """The row of the table for a Resource's ``spec``.

    Raises
    ------
    UnknownSpecError
        Naming the specs that are known.

    Examples
    --------
    >>> spec_named("AD_HDF5").dataset
    '/entry/data/data'
    """
    try:
        return SPECS.get(name) or _ADDED[name]
    except KeyError:
        known = ", ".join(sorted(SPECS))
        raise UnknownSpecError(f"spec {name!r} is not known; expected one of {known}.") from None
