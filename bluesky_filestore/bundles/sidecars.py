"""A run in one file beside its data: its documents, and the manifest of its files, so that a catalog can be made anew.

It is JSON lines, ``["name", {...}]`` each, as `bluesky-filestore export` and suitcase-jsonl write them. The documents
come in their order. The last line, ``["manifest", {...}]``, says which files the run has (`Manifest.to_json`), in which
directory the file lay when it was written, in the documents' words, and a SHA-256 of all that the file says: one
without, or with another, is damaged.

A sidecar appears as a whole or not at all, and takes the place of nothing but a sidecar of the same run.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from event_model import DocumentNames

from bluesky_filestore.errors import FileStoreError, ManifestError
from bluesky_filestore.files.readable import ANYWHERE, Roots
from bluesky_filestore.model.event_record import exact_json, from_exact_json
from bluesky_filestore.model.manifest import MANIFEST, Manifest

__all__ = ["SUFFIX", "Sidecar", "read_sidecar", "sidecar_name", "sidecars_below", "write_sidecar"]

SUFFIX = ".bluesky-run.jsonl"
"""What the names of sidecars end in."""

_SAFE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")
_LARGEST, _LONGEST_LINE, _LONGEST_START = 2**32, 2**28, 2**24
_NAMES = frozenset(each.name for each in DocumentNames)
_MOST_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What is in one."""

    path: Path
    """Where it is."""
    documents: tuple[tuple[str, Any], ...]
    """Of the run, in their order."""
    manifest: Manifest
    """Its files."""
    directory: str
    """Where the sidecar was when it was written, in the words of the documents."""
    digest: str
    """The SHA-256 of the documents: those of copies are alike, wherever they are."""


def sidecar_name(uid: str) -> str:
    """The name of the sidecar of a run: its uid, where that is fit to be part of a file's name.

    Examples
    --------
    >>> sidecar_name("5c450e1a-77aa")
    '5c450e1a-77aa.bluesky-run.jsonl'
    """
    is_safe = _SAFE.fullmatch(uid) is not None
    return f"{uid if is_safe else hashlib.sha256(uid.encode('utf-8', 'backslashreplace')).hexdigest()}{SUFFIX}"


def write_sidecar(
    documents: Iterable[tuple[str, Mapping[str, Any]]], manifest: Manifest, here: Path, directory: str
) -> Path:
    """Write the sidecar of a run.

    Parameters
    ----------
    documents : iterable of tuple of str and Mapping
        Of the run, in their order.
    manifest : Manifest
        Its files.
    here : Path
        The directory that it is put into.
    directory : str
        That directory in the words of the documents.

    Raises
    ------
    ManifestError
        If there is something else of its name.
    OSError
        If it cannot be written; nothing is left of it then.
    """
    path = here / sidecar_name(manifest.uid)
    is_there = os.path.lexists(path)
    if is_there and not _is_sidecar_of(path, manifest.uid):
        raise ManifestError(
            f"{path} is there, and is no sidecar of run {manifest.uid!r}; expected nothing, or that: move it away."
        )
    unfinished = here / f".{path.name}.{os.getpid()}.unfinished"
    try:
        with unfinished.open("xb") as file:
            _write_lines(file, documents, manifest, directory)
        if is_there:
            unfinished.replace(path)
        else:
            _appear(unfinished, path)
    finally:
        with suppress(FileNotFoundError):
            unfinished.unlink()
    return path


def _write_lines(
    file: IO[bytes], documents: Iterable[tuple[str, Mapping[str, Any]]], manifest: Manifest, directory: str
) -> None:
    digest = hashlib.sha256()
    for name, doc in documents:
        line = f"{exact_json([name, doc])}\n".encode()
        digest.update(line)
        file.write(line)
    said = {**manifest.to_json(), "directory": directory}
    said["sha256"] = _digest_of_all(digest.hexdigest(), manifest, directory)
    file.write(f"{json.dumps([MANIFEST, said])}\n".encode())
    file.flush()
    os.fsync(file.fileno())


def _digest_of_all(lines: str, manifest: Manifest, directory: str) -> str:
    said = json.dumps([lines, manifest.to_json(), directory], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


def _appear(unfinished: Path, path: Path) -> None:
    """Give a file its name, if nothing has it."""
    try:
        os.link(unfinished, path)
    except FileExistsError:
        raise ManifestError(f"{path} has just been made by somebody else; expected nothing there: try again.") from None
    except OSError:
        # Not every file system has links.
        unfinished.replace(path)


def _is_sidecar_of(path: Path, uid: str) -> bool:
    try:
        with ANYWHERE.opened(str(path)) as descriptor, open(descriptor, "rb", closefd=False) as file:
            return not path.is_symlink() and _named(_value(file.readline(_LONGEST_START)))[1].get("uid") == uid
    except (FileStoreError, OSError):
        return False


def sidecars_below(directory: Path) -> Iterator[Path]:
    """The sidecars in a directory and all below it, by name; links to directories are not followed.

    Raises
    ------
    OSError
        If the directory cannot be looked through.
    """

    def raised(error: OSError) -> None:
        if error.filename == str(directory):
            raise error

    for place, names, files in os.walk(directory, onerror=raised):
        names.sort()
        yield from (Path(place, name) for name in sorted(files) if name.endswith(SUFFIX) and not name.startswith("."))


def read_sidecar(path: Path, roots: Roots = ANYWHERE) -> Sidecar:
    """What is in a sidecar, which anybody may have put there.

    Raises
    ------
    ManifestError
        If it is damaged, or none.
    UnreadableFileError
        If it cannot be read, or is outside the roots.
    """
    documents: list[tuple[str, Any]] = []
    digest, said = hashlib.sha256(), None
    try:
        for number, line in enumerate(_lines(path, roots), 1):
            if said is not None:
                raise ManifestError(f"line {number} comes after its manifest; expected that to be the last.")
            name, doc = _named(_value(line))
            if name == MANIFEST:
                said = doc
                continue
            digest.update(line)
            if (name == "start") != (number == 1):
                raise ManifestError(f"line {number} is a {name}; expected one start, in the first line.")
            documents.append((name, doc))
        if said is None:
            raise ManifestError("its last line is no manifest; expected one: it was cut short.")
        manifest, directory = Manifest.from_json(said), said.get("directory")
        if not documents or documents[0][1].get("uid") != manifest.uid or not isinstance(directory, str):
            raise ManifestError("its manifest does not say of which run it is, or where; expected that of its start.")
        if said.get("sha256") != _digest_of_all(digest.hexdigest(), manifest, directory):
            raise ManifestError("its lines are not those that were written: it was damaged, or changed by hand.")
    except ManifestError as error:
        raise ManifestError(f"{path} is no sidecar that can be used: {error}") from error
    return Sidecar(path, tuple(documents), manifest, directory, digest.hexdigest())


def _lines(path: Path, roots: Roots) -> Iterator[bytes]:
    with roots.opened(str(path)) as descriptor, open(descriptor, "rb", closefd=False) as file:
        size = os.fstat(descriptor).st_size
        if size > _LARGEST:
            raise ManifestError(f"it has {size:,} bytes; expected {_LARGEST:,} at most.")
        while line := file.readline(_LONGEST_LINE):
            if not line.endswith(b"\n"):
                raise ManifestError(f"a line does not end within {len(line):,} bytes; expected whole lines.")
            yield line


def _value(line: bytes) -> Any:
    try:
        return from_exact_json(line.decode())
    except Exception as error:
        # Whatever somebody may have put there.
        raise ManifestError(f"{line[:_MOST_SHOWN]!r} is not of JSON as it is written here ({error!r}).") from error


def _named(item: Any) -> tuple[str, dict[str, Any]]:
    match item:
        case [str() as name, dict() as doc] if name in _NAMES or name == MANIFEST:
            return name, doc
    raise ManifestError(f'{repr(item)[:_MOST_SHOWN]} is no document; expected ["name", {{...}}].')
