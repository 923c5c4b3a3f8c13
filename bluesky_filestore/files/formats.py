"""What data files say of themselves, from their headers alone: shape, dtype, number of frames."""

import stat
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from bluesky_filestore.errors import AddressError, UnreadableFileError
from bluesky_filestore.model.file_facts import FileFacts, Unseen, why_unseen
from bluesky_filestore.model.frame_axis import why_not_served
from bluesky_filestore.model.frame_map import Source
from bluesky_filestore.model.specs import HDF5, JPEG_SERIES, NPY_SERIES, OPAQUE, TIFF_SERIES

from .hdf5 import HDF5Files
from .hdf5_layout import Elsewhere, NoFramesError, dataset_in, linked_dataset
from .hdf5_opening import open_hdf5
from .hdf5_pieces import Pieces
from .readable import ANYWHERE, Roots, parser_errors
from .tiff import ONE_FILE

if TYPE_CHECKING:
    import h5py

__all__ = ["ArrayFormat", "inspect_files", "stored_format"]


@dataclass(frozen=True, slots=True)
class ArrayFormat:
    """What an array is, known before it is read."""

    shape: tuple[int, ...]
    """Its shape."""
    dtype: np.dtype[Any]
    """Of its elements, in the file's byte order."""
    in_pieces: bool = False
    """Whether it is an HDF5 dataset that is there in numbered pieces only."""


def stored_format(mimetype: str, path: str, dataset: str = "", *, roots: Roots = ANYWHERE) -> ArrayFormat:
    """What a file, or a dataset in it, holds.

    Parameters
    ----------
    mimetype : str
        What the file is, or the files of its series are.
    path : str
        The file.
    dataset : str
        For HDF5 files.
    roots : Roots
        Where it may lie.

    Raises
    ------
    AddressError
        If there is no reader for the type.
    UnreadableFileError
        If it cannot be read, in the form that says why.
    """
    if mimetype == HDF5:
        return _hdf5_format(path, dataset, roots)
    try:
        look = _HEADERS[mimetype]
    except KeyError:
        raise AddressError(f"files of type {mimetype!r} are not looked into") from None
    with roots.opened(path), parser_errors(path):
        return look(path)


def _hdf5_format(path: str, dataset: str, roots: Roots) -> ArrayFormat:
    formats: list[ArrayFormat] = []

    def look(path: str, name: str) -> "h5py.Dataset | Elsewhere | Pieces":
        with parser_errors(path), open_hdf5(path, roots=roots) as file:
            found = dataset_in(file, path, name)
            if not isinstance(found, Elsewhere | Pieces):
                unserved = why_not_served(found.shape, found.dtype)
                if unserved:
                    raise NoFramesError(f"dataset {name!r} of file {path} is no array of frames: {unserved}")
                formats.append(ArrayFormat(tuple(found.shape or ()), found.dtype))
            return found

    path, dataset = linked_dataset(roots.admit(path), dataset, look, roots)
    if not formats:
        # Closed at once: whoever writes them has them open.
        with HDF5Files() as files:
            layout = files.layout(path, dataset, roots=roots)
            return ArrayFormat(layout.shape, layout.dtype, in_pieces=True)
    return formats[-1]


def _tiff_format(path: str) -> ArrayFormat:
    import tifffile

    with tifffile.TiffFile(path, **ONE_FILE) as file:
        return ArrayFormat(tuple(file.series[0].shape), np.dtype(file.series[0].dtype))


def _npy_format(path: str) -> ArrayFormat:
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    return ArrayFormat(values.shape, values.dtype)


def _jpeg_format(path: str) -> ArrayFormat:
    from PIL import Image

    with Image.open(path, formats=["JPEG"]) as image:
        colours = len(image.getbands())
        return ArrayFormat((image.height, image.width, *((colours,) if colours > 1 else ())), np.dtype(np.uint8))


# The first bytes of numpy files say the shape. Of TIFF files: width, height, bits, samples, and their type.
_HEAD_BYTES = 128
_CLASSIC_TIFF, _TAGS_OF_SHAPE = 42, (256, 257, 258, 277, 339)
_HEADERS: Mapping[str, Callable[[str], ArrayFormat]] = {
    TIFF_SERIES: _tiff_format,
    NPY_SERIES: _npy_format,
    JPEG_SERIES: _jpeg_format,
}


def inspect_files(source: Source, files: Sequence[PurePath], *, roots: Roots = ANYWHERE) -> list[FileFacts | Unseen]:
    """Look at files of one source.

    Parameters
    ----------
    source : Source
        Says what the files are.
    files : sequence of PurePath
        The files to look at, of one format and, where the format has them, one dataset.
    roots : Roots
        Where they may lie.

    Returns
    -------
    list of FileFacts or Unseen
        One for each file. `Unseen` says whether the file is out of reach (its directory is not there), missing or
        broken, and why.
    """
    directories: dict[PurePath, bool] = {}
    alike: dict[Any, FileFacts] = {}
    seen: list[FileFacts | Unseen] = []
    for file in files:
        path = Path(file)
        try:
            roots.admit(str(path))
        except UnreadableFileError as error:
            seen.append(why_unseen(error))
            continue
        if path.parent not in directories:
            directories[path.parent] = path.parent.is_dir()
        if not directories[path.parent]:
            seen.append(Unseen("out of reach", f"directory {path.parent} is not there"))
            continue
        try:
            status = path.stat()
        except OSError as error:
            seen.append(Unseen("missing", f"file {path} cannot be found ({error.strerror})"))
            continue
        if source.mimetype == OPAQUE and stat.S_ISDIR(status.st_mode):
            seen.append(FileFacts((), "|u1"))
            continue
        if not stat.S_ISREG(status.st_mode):
            seen.append(Unseen("broken", f"{path} is not a file"))
            continue
        if source.mimetype == OPAQUE:
            seen.append(FileFacts((status.st_size,), "|u1"))
            continue
        if not status.st_size:
            why = "it is empty (0 bytes), nothing was written to it, or not yet"
            seen.append(Unseen("broken", f"file {path} cannot be read: {why}"))
            continue
        # Files of one series that begin alike are alike; reading 10,000 headers with tifffile would take seconds.
        beginning = _beginning(source.mimetype, path, status.st_size)
        facts = alike.get(beginning) or _read(source, path, roots)
        if isinstance(facts, FileFacts) and beginning is not None:
            alike[beginning] = facts
        seen.append(facts)
    return seen


def _beginning(mimetype: str, path: Path, size: int) -> tuple[Any, ...] | None:
    """What files of one shape have in common, and no others, by a look at their first bytes; None if that is not so."""
    if mimetype not in (NPY_SERIES, TIFF_SERIES):
        return None
    with suppress(OSError, struct.error), path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        if mimetype == NPY_SERIES:
            return size, head
        order = "<" if head[:2] == b"II" else ">"
        version, offset = struct.unpack_from(f"{order}HI", head, 2)
        file.seek(offset)
        (count,) = struct.unpack(f"{order}H", file.read(2))
        entries = file.read(12 * count)
        if version == _CLASSIC_TIFF and len(entries) == 12 * count:
            tags = [entries[place : place + 12] for place in range(0, len(entries), 12)]
            return (size, *(tag for tag in tags if struct.unpack(f"{order}H", tag[:2])[0] in _TAGS_OF_SHAPE))
    return None


def _read(source: Source, path: Path, roots: Roots) -> FileFacts | Unseen:
    try:
        stored = stored_format(source.mimetype, str(path), source.dataset or "", roots=roots)
    except AddressError as error:
        return Unseen("out of reach", str(error))
    except UnreadableFileError as error:
        return why_unseen(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        # What libraries raise for files that are not what they should be has no bounds, and is of one key only.
        return Unseen("broken", f"file {path} cannot be read: {str(error) or type(error).__name__}")
    return FileFacts(stored.shape, stored.dtype.str, stored.in_pieces)
