"""Documents out of archives: JSON lines, JSON, msgpack and exports of Mongo, found out by what is in them.

=====================  ===============================================================================================
written by             what is in a file
=====================  ===============================================================================================
suitcase-jsonl, ours   ``["name", {...}]`` a line; so are the sidecars of `bluesky_filestore.bundles.sidecars`
TiledWriter's backup,  ``{"name": "name", "doc": {...}}`` a line; or the same in one array, which nobody ended if its
bluesky's JSON writers writer was killed
suitcase-msgpack       ``["name", {...}]`` one after the other, with the values of numpy as msgpack_numpy has them
suitcase-mongo         a directory of collections, as ``mongoexport`` (JSON) or ``mongodump`` (BSON) writes them:
                       ``mongo.py``
=====================  ===============================================================================================

Each may be compressed with gzip.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any, NoReturn, TypeAlias

from bluesky_filestore.errors import SourceError
from bluesky_filestore.model.manifest import MANIFEST
from bluesky_filestore.spool.encoding import Unpacker

from .mongo import DAMAGED, exported_runs, is_export, opened
from .wire import named, numpy_hook

__all__ = ["Document", "OnFault", "archives_in", "read_archive"]

Document: TypeAlias = tuple[str, dict[str, Any]]
"""The name of a document, and the document."""

OnFault: TypeAlias = Callable[[str], object]
"""Is given a sentence for each document that cannot be read, and may go on without it, or raise."""

_SUFFIXES = (".jsonl", ".json", ".msgpack", ".ndjson")
# The mark that editors put before UTF-8; no document begins with any of these bytes.
_MARK = b"\xef\xbb\xbf"


def _refuse(sentence: str) -> NoReturn:
    raise SourceError(sentence)


def archives_in(paths: Iterable[Path]) -> list[Path]:
    """The archives among files and directories, each once and by name; an export of Mongo is a directory.

    Raises
    ------
    SourceError
        If there is nothing under a path, or no archive.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise SourceError(f"there is no {path}; expected a file with documents, or a directory of such files.")
        if not path.is_dir() or is_export(path):
            found[path] = None
            continue
        files = sorted(each for each in path.rglob("*") if _is_named_as_one(each))
        if not files:
            raise SourceError(
                f"no archive is in {path}; expected files that end in {', '.join(_SUFFIXES)} (or the same with .gz), "
                f"or the collections of a Mongo database."
            )
        found.update(dict.fromkeys(files))
    return list(found)


def _is_named_as_one(path: Path) -> bool:
    return path.name.removesuffix(".gz").endswith(_SUFFIXES) and path.is_file()


def read_archive(path: Path, on_fault: OnFault = _refuse) -> Iterator[Document]:
    """The documents in an archive, in their order.

    Parameters
    ----------
    path : Path
        A file, or a directory that Mongo was exported into.
    on_fault : callable, optional
        Is given a sentence for each document that cannot be read; by default that is an error.

    Raises
    ------
    SourceError
        Unless `on_fault` has it otherwise: if it is no archive, or a document cannot be read.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> for name, doc in read_archive(Path("run.jsonl")):  # doctest: +SKIP
    ...     writer(name, doc)
    """
    if path.is_dir():
        yield from exported_runs(path, on_fault)
        return
    with closing(opened(path)) as stream:
        try:
            first = _first_byte(stream)
            items = _json_items(stream, path, on_fault) if first in b"[{" else _msgpack_items(stream, path, on_fault)
            for where, item in items:
                if isinstance(item, list) and item[:1] == [MANIFEST]:
                    # The last line of a sidecar, which says what is in the run's files.
                    continue
                try:
                    document = named(item)
                except SourceError as error:
                    on_fault(f"{path}, {where}: {error}")
                else:
                    yield document
        except DAMAGED as error:
            on_fault(f"{path} cannot be read to its end ({error}): it is damaged, or whoever wrote it was cut short.")


def _first_byte(stream: IO[bytes]) -> bytes:
    """The first byte that is no space, nor of the mark of UTF-8, before which the stream then is."""
    while byte := stream.read(1):
        if not byte.isspace() and byte not in _MARK:
            stream.seek(-1, 1)
            break
    return byte


def _json_items(stream: IO[bytes], path: Path, on_fault: OnFault) -> Iterator[tuple[str, Any]]:
    """What is in a file of JSON: a line each, or one array of them however that is laid out."""
    begin = stream.tell()
    for number, line in enumerate(stream, 1):
        text = line.strip().rstrip(b",")
        if text in (b"", b"[", b"]"):
            continue
        try:
            values = _of_line(text)
        except ValueError as error:
            if (number == 1 or text == b"{") and (whole := _of_whole(stream, begin)) is not None:
                yield from whole
                return
            end = "" if line.endswith(b"\n") else " It is the last one: whoever wrote it was cut short."
            on_fault(f"{path}, line {number} cannot be read ({error}).{end}")
        else:
            yield from ((f"line {number}", value) for value in values)


def _of_line(text: bytes) -> list[Any]:
    """The documents of a line, which may be the first or last of an array, or all of it."""
    try:
        value = json.loads(text)
    except ValueError:
        if text[:1] == b"[" and text[1:2].strip() in (b"{", b"["):
            return [json.loads(text[1:])]
        if text[-1:] != b"]":
            raise
        return [json.loads(text[:-1])]
    is_array = isinstance(value, list) and all(isinstance(each, list | dict) for each in value)
    return value if is_array else [value]


def _of_whole(stream: IO[bytes], begin: int) -> list[tuple[str, Any]] | None:
    """What is in a file that is one value over many lines; None if it is none, and the stream where it was."""
    before = stream.tell()
    stream.seek(begin)
    try:
        value = json.load(stream)
    except ValueError:
        stream.seek(before)
        return None
    lists = value.values() if isinstance(value, dict) and "doc" not in value else [value]
    items = [item for each in lists for item in (each if isinstance(each, list) else [each])]
    return [(f"document {number}", item) for number, item in enumerate(items, 1)]


def _msgpack_items(stream: IO[bytes], path: Path, on_fault: OnFault) -> Iterator[tuple[str, Any]]:
    options = {"object_hook": numpy_hook, "strict_map_key": False, "unicode_errors": "surrogatepass"}
    items = Unpacker(stream, max_buffer_size=0, **options)
    offset, number = stream.tell(), 0
    while True:
        begin = items.tell()
        try:
            item = items.unpack()
        except Exception as error:
            # Of msgpack, or of what makes values of numpy; what is wrong with the file itself is for who opened it.
            if isinstance(error, DAMAGED):
                raise
            if number == 0:
                on_fault(f"{path} is no archive ({error!r}); expected JSON lines, JSON or msgpack.")
            elif offset + begin != stream.tell():
                on_fault(f"{path} cannot be read after document {number}, at byte {begin} ({error!r}).")
            return
        number += 1
        yield f"document {number}", item
