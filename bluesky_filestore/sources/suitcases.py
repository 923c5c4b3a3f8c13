"""Runs in files of suitcase-jsonl and suitcase-msgpack, which databroker's catalogs of files are made of."""

import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from bluesky_filestore.errors import DocumentError, OptionError

__all__ = ["SuitcaseRuns"]

_logger = logging.getLogger(__name__)
_SUFFIXES = (".jsonl", ".msgpack")


class SuitcaseRuns:
    """The runs in files, as `bluesky_filestore.sources.databroker.Runs`; each file is read once to know which it has.

    Parameters
    ----------
    paths : iterable of Path
        Files that end in ``.jsonl`` or ``.msgpack``, and directories with such. A file may have several runs, one after
        the other.

    Raises
    ------
    OptionError
        If there is no such file.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        given = list(paths)
        files = [each for path in given for each in (sorted(path.rglob("*")) if path.is_dir() else [path])]
        self._files = [path for path in files if path.suffix in _SUFFIXES and path.is_file()]
        if not self._files:
            raise OptionError(
                f"no file in {', '.join(map(str, given))} ends in {' or '.join(_SUFFIXES)}; expected those of "
                f"suitcase-jsonl or suitcase-msgpack."
            )
        starts = [(doc.get("time", 0.0), doc["uid"], path) for path in self._files for doc in _starts(path)]
        self._where = {uid: path for _, uid, path in sorted(starts, key=lambda start: start[:2])}

    def count(self) -> int:
        """How many there are."""
        return len(self._where)

    def uids(self) -> Iterator[str]:
        """Their uids, oldest first."""
        yield from self._where

    def documents_of(self, run: str) -> Iterator[tuple[str, Any]]:
        """The documents of one, as they stand in its file.

        Raises
        ------
        DocumentError
            If there is no such run, or its file cannot be read to the run's end.
        """
        if run not in self._where:
            raise DocumentError(f"there is no run {run!r} in the files; expected the whole uid of one.")
        is_meant = False
        for name, doc in _pairs(self._where[run]):
            if name == "start":
                is_meant = doc["uid"] == run
            if is_meant:
                yield name, doc


def _starts(path: Path) -> Iterator[Any]:
    """The starts in a file, as far as it can be read: what is wrong with a run is said when that is read."""
    try:
        yield from (doc for name, doc in _pairs(path) if name == "start")
    except DocumentError as error:
        _logger.warning("%s", error)


def _pairs(path: Path) -> Iterator[tuple[str, Any]]:
    number = end = 0
    try:
        with path.open("rb") as file:
            packed = msgpack.Unpacker(file, object_hook=_array, strict_map_key=False)
            for name, doc in packed if path.suffix == ".msgpack" else map(json.loads, file):
                number, end = number + 1, packed.tell()
                yield str(name), doc
            # It ends without a word in the middle of what is cut short.
            if path.suffix == ".msgpack" and end != path.stat().st_size:
                raise ValueError("it is cut short")
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise DocumentError(
            f"{path} cannot be read after {number} documents ({error}); expected pairs of a name and a document."
        ) from error


def _array(entry: dict[Any, Any]) -> Any:
    """An array of numpy, as msgpack_numpy writes it; Python objects in one are nobody's to be made."""
    if entry.get("nd", entry.get(b"nd")) is None:
        return entry
    plain = {key.decode() if isinstance(key, bytes) else key: value for key, value in entry.items()}
    if not isinstance(plain.get("type"), str | bytes):
        raise ValueError(f"an array of {plain.get('type')!r}; expected one of numbers")
    kind = plain["type"]
    values = np.frombuffer(plain["data"], np.dtype(kind.decode() if isinstance(kind, bytes) else kind))
    return values.reshape(plain["shape"]) if plain["nd"] else values[0]
