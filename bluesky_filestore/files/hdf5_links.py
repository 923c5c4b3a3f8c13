"""Where a whole HDF5 file leads, for what others read of it: they leave it to HDF5 to find the files that it names."""

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bluesky_filestore.errors import FileStoreError, UnreadableFileError
from bluesky_filestore.model.limits import DEFAULT_LIMITS, Limits

from .hdf5_apart import apart
from .hdf5_layout import beside
from .hdf5_opening import open_hdf5
from .hdf5_virtual import named_block
from .hdf5_written import storage_file
from .readable import Roots, parser_errors

if TYPE_CHECKING:
    import h5py

__all__ = ["check_file", "check_links", "linked_files"]


def check_file(path: str, roots: Roots) -> None:
    """Refuse a file outside the roots or, where it is one of HDF5, that has data from there.

    Raises
    ------
    ForbiddenFileError, UnreadableFileError
        As `check_links` does.
    """
    import h5py

    admitted = roots.admit(path)
    if Path(admitted).is_file() and h5py.is_hdf5(admitted):
        check_links(admitted, roots)


_PREFIXES = ("HDF5_EXT_PREFIX", "HDF5_VDS_PREFIX")


def check_links(path: str, roots: Roots) -> None:
    """Refuse a file that has data from outside the roots, or leads to one that has.

    Raises
    ------
    ForbiddenFileError
        If an external link, a virtual dataset or external storage leads outside.
    UnreadableFileError
        If the file cannot be read, or leads to what is no file.
    """
    real = roots.admit(path)
    waiting, seen = _led_to(real, roots), {real}
    while waiting:
        other = waiting.pop()
        if other not in seen and _is_hdf5(other):
            waiting += _led_to(other, roots)
        seen.add(other)


def linked_files(path: str, roots: Roots) -> list[tuple[str, str]]:
    """The files that an HDF5 file has data from, each once: as it names them, and where they are for who reads frames.

    What it names by number (``%b``) is counted up for as long as there are files. What is no HDF5 file names none.

    Raises
    ------
    ForbiddenFileError
        If the file itself is outside the roots; what it leads to may be, and is not looked at.
    UnreadableFileError
        If it cannot be read.
    """
    admitted = roots.admit(path)
    if not _is_hdf5(admitted):
        return []
    found: dict[tuple[str, str], None] = {}
    with parser_errors(path), open_hdf5(admitted) as file:
        file.visititems_links(lambda name, link: found.update(dict.fromkeys(_named(file, path, name, link))))
    return [(name, here) for name, here in found if here != path]


def _named(file: "h5py.File", path: str, name: str, link: Any) -> Iterator[tuple[str, str]]:
    """The files that a link, or the dataset behind it, names; external storage as if it were named from there."""
    import h5py

    if isinstance(link, h5py.ExternalLink):
        yield link.filename, beside(path, link.filename)
        return
    found = file[name] if isinstance(link, h5py.HardLink) else None
    if not isinstance(found, h5py.Dataset):
        return
    for storage, _, _ in found.external or ():
        here = storage_file(path, storage)
        yield storage if Path(storage).is_absolute() else os.path.relpath(here, Path(path).parent), here
    for source in _sources(found, DEFAULT_LIMITS):
        yield from ((other, beside(path, other)) for other in _numbered(source.file_name, path, DEFAULT_LIMITS))


def _sources(found: "h5py.Dataset", limits: Limits) -> list[Any]:
    """What a dataset is made of, if it is virtual."""
    if not found.is_virtual:
        return []
    count = found.id.get_create_plist().get_virtual_count()
    limits.check("virtual_sources", count, f"virtual dataset {found.name} has", "parts")
    return list(found.virtual_sources())


def _numbered(named: str, path: str, limits: Limits) -> Iterator[str]:
    """The files that a source of a virtual dataset names, up to the first that is not there."""
    seen = {"."}
    for block in count():
        other = named_block(named, block)
        limits.check("virtual_sources", block, f"a part of a virtual dataset of file {path} stands for", "files")
        if other in seen:
            return
        yield other
        if not os.path.lexists(beside(path, other)):
            return
        seen.add(other)


def _led_to(path: str, roots: Roots) -> list[str]:
    """The files that a file leads to, all of them under the roots."""
    led_to: list[str] = []
    first = apart()
    if first is not None:
        first.check(path, "/")
    with parser_errors(path), open_hdf5(path, roots=roots) as file:
        if roots.directories is None:
            return []

        def look(name: str, link: Any) -> FileStoreError | None:
            # HDF5 lets no error through; what is returned ends the visit.
            try:
                led_to.extend(roots.admit(other) for other in _of_link(file, path, name, link, roots.limits))
            except FileStoreError as error:
                return error
            return None

        found = file.visititems_links(look)
    if found is not None:
        raise found
    return led_to


def _of_link(file: "h5py.File", path: str, name: str, link: Any, limits: Limits) -> Iterator[str]:
    """The files that a link leads to, or the dataset behind it."""
    import h5py

    if isinstance(link, h5py.ExternalLink):
        yield from _opened_for(path, link.filename)
        return
    found = file[name] if isinstance(link, h5py.HardLink) else None
    if not isinstance(found, h5py.Dataset):
        return
    for storage, _, _ in found.external or ():
        yield _regular(storage_file(path, storage))
    for source in _sources(found, limits):
        # HDF5 counts the blocks up for as long as there is a file.
        for other in _numbered(source.file_name, path, limits):
            yield from _opened_for(path, other)


def _opened_for(path: str, name: str) -> Iterator[str]:
    """The files that HDF5 opens to find the one that is named, in its order (``H5F_prefix_open_file``)."""
    if name == ".":
        return
    near = Path(path).absolute().parent
    last = Path(name).name if Path(name).is_absolute() else name
    prefixes = [prefix for variable in _PREFIXES for prefix in os.environ.get(variable, "").split(":") if prefix]
    directories: list[str | Path] = [*(prefix.replace("${ORIGIN}", str(near)) for prefix in prefixes), near, Path.cwd()]
    tried = [str(near / name), *(str(Path(directory, last)) for directory in directories)]
    yield beside(path, name)
    for place in tried if Path(name).is_absolute() else tried[1:]:
        if os.path.lexists(place):
            yield _regular(place)
            if _is_hdf5(place):
                return


def _regular(path: str) -> str:
    if Path(path).exists() and not Path(path).is_file():
        raise UnreadableFileError(f"{path} is not a file; expected a file with frames.")
    return path


def _is_hdf5(path: str) -> bool:
    import h5py

    # For a source that may not be read HDF5 gives the fill value.
    with parser_errors(path):
        return Path(path).is_file() and bool(h5py.is_hdf5(path))
