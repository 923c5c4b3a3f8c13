"""NeXus files written at once: groups, values, links, and arrays that are shown where they are or copied.

What a file shall hold is put together as `Group` and what is in it, without HDF5, and written in one go under another
name, which becomes its own when all is there: nobody ever sees half of a file, and doing it again is harmless.
"""

import glob
import io
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from .array_in_files import ArrayInFiles
from .hdf5_view_writing import fill_value, write_view
from .hdf5_views import View

if TYPE_CHECKING:
    import h5py

__all__ = ["RUN", "Copied", "Field", "Group", "Link", "Node", "Shown", "run_shown_by", "write_nexus"]

RUN = "bluesky_run"
"""The attribute of an entry that names the run that it shows, by its uid."""

_LONGEST_ATTRIBUTE = 30_000
"""Bytes; HDF5 takes 64 kB for all of an object."""
_LEFT_AFTER = 3600.0
"""Seconds."""
_PARTS = "parts_of_virtual_datasets"


@dataclass(frozen=True, slots=True)
class Field:
    """A value, or values."""

    values: Any
    """Numbers in an array of numpy's, a text, or a list of texts."""
    attributes: dict[str, Any] = field(default_factory=dict)
    """Its attributes: texts, lists of texts, or numbers."""


@dataclass(frozen=True, slots=True)
class Link:
    """Another name for what is elsewhere in the file."""

    target: str
    """Its path; it has to be written before."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An array that stays where it is, as a virtual dataset."""

    view: View
    """Where it is."""
    attributes: dict[str, Any] = field(default_factory=dict)
    """As of a `Field`."""


@dataclass(frozen=True, slots=True)
class Copied:
    """An array that is copied, row by row."""

    array: ArrayInFiles
    """Where it is."""
    missing: Mapping[int, str]
    """The rows that cannot be read, and why."""
    attributes: dict[str, Any] = field(default_factory=dict)
    """As of a `Field`."""


@dataclass(frozen=True, slots=True)
class Group:
    """A group."""

    nexus_class: str
    """Its class, e.g. ``NXdata``."""
    children: Mapping[str, "Node"]
    """What is in it, written in this order."""
    attributes: dict[str, Any] = field(default_factory=dict)
    """As of a `Field`."""


Node: TypeAlias = Field | Link | Shown | Copied | Group


def write_nexus(path: Path, entry: Group) -> None:
    """Write a file with one entry, or put it in the place of the one that is there.

    Parameters
    ----------
    path : Path
        The file.
    entry : Group
        What is in it, as ``/entry``.

    Raises
    ------
    OSError
        If it cannot be written, or frames that are to be copied cannot be read; what was there is as it was.
    """
    with _written_aside(path) as file:
        file.attrs.update(NX_class="NXroot", default="entry", file_name=path.name, creator="bluesky_filestore")
        _write(file, "entry", entry, path.parent)


def run_shown_by(path: Path) -> str:
    """The uid of the run that a file shows; empty if it is no such file."""
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            return str(file["entry"].attrs[RUN])
    except (OSError, KeyError):
        return ""


@contextmanager
def _written_aside(path: Path) -> "Iterator[h5py.File]":
    import h5py

    begins = f".{path.name[:200]}."
    for left in path.parent.glob(f"{glob.escape(begins)}*.part"):
        # Of a process that was killed; one that is at it writes all the time.
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _LEFT_AFTER:
                left.unlink()
    aside = path.with_name(f"{begins}{os.getpid()}.{threading.get_ident()}.part")
    try:
        # Closed before its stream is: from Python 3.13 on, whoever is not is complained about.
        with aside.open("w+b") as stream, _Guarded(stream) as guarded:
            # Virtual datasets are of HDF5 1.10; whatever newer there is, others may not read.
            with h5py.File(guarded, "w", libver=("v110", "v110")) as file:
                yield file
            guarded.check()
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    finally:
        with suppress(FileNotFoundError):
            aside.unlink()


class _Guarded(io.RawIOBase):
    """A file for HDF5 to write through, which never hears of an error.

    On a full disk it would neither write nor let go of what it has not written, for as long as the process lives.
    """

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise what went wrong first."""
        if self._error is not None:
            raise self._error

    def _tried(self, call: Callable[[], int | None], otherwise: int) -> int:
        try:
            done = call()
        except OSError as error:
            self._error = self._error or error
            return otherwise
        return otherwise if done is None else done

    def write(self, data: Any) -> int:
        return len(data) if self._error else self._tried(lambda: self._stream.write(data), len(data))

    def readinto(self, buffer: Any) -> int:
        return self._tried(lambda: self._stream.readinto(buffer), 0)  # type: ignore[attr-defined]

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._tried(lambda: self._stream.seek(offset, whence), offset)

    def tell(self) -> int:
        return self._tried(self._stream.tell, 0)

    def truncate(self, size: int | None = None) -> int:
        return self._tried(lambda: self._stream.truncate(size), size or 0)

    def flush(self) -> None:
        self._tried(self._stream.flush, 0)


def _write(parent: "h5py.Group", name: str, node: Node, directory: Path) -> None:
    match node:
        case Group():
            made = parent.create_group(name, track_order=True)
            made.attrs["NX_class"] = node.nexus_class
            for child, within in node.children.items():
                _write(made, child, within, directory)
        case Link():
            parent[name] = made = parent.file[node.target]
            made.attrs["target"] = made.attrs.get("target", made.name)
            return
        case Field():
            made = parent.create_dataset(name, data=_storable(node.values), dtype=_text_type(node.values))
        case Shown():
            made = write_view(parent, name, node.view, f"/entry/{_PARTS}", str(directory))
        case Copied():
            made = _copied(parent, name, node)
    for attribute, value in node.attributes.items():
        if not isinstance(value, str) or len(value.encode(errors="replace")) < _LONGEST_ATTRIBUTE:
            made.attrs.create(attribute, _storable(value), dtype=_text_type(value))


def _copied(parent: "h5py.Group", name: str, node: Copied) -> "h5py.Dataset":
    registered = node.array.registered
    dtype = registered.dtype
    chunks = (1, *registered.shape[1:]) if 0 not in registered.shape else None
    made = parent.create_dataset(name, registered.shape, dtype, chunks=chunks, fillvalue=fill_value(dtype))
    for row in range(registered.shape[0]):
        if row not in node.missing:
            made[row] = node.array.read((row,))
    return made


def _text_type(values: Any) -> Any:
    import h5py

    is_text = isinstance(values, str) or (isinstance(values, list) and all(isinstance(each, str) for each in values))
    return h5py.string_dtype() if is_text else None


def _storable(values: Any) -> Any:
    if isinstance(values, str):
        # HDF5's texts end where C's do, and are of true characters.
        return values.replace("\0", "\\0").encode(errors="backslashreplace").decode()
    return [_storable(each) for each in values] if isinstance(values, list) else values
