"""Runs in archives, one after the other, of which any may be asked for."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bluesky_filestore.errors import DocumentError, SourceError
from bluesky_filestore.spool.belonging import Belonging

from .archives import archives_in, read_archive

__all__ = ["ArchivedRuns"]

_logger = logging.getLogger(__name__)


class ArchivedRuns:
    """The runs in archives, as `bluesky_filestore.sources.databroker.Runs`; each is read once to know which it has.

    Parameters
    ----------
    paths : iterable of Path
        Archives, as `archives_in` finds them.

    Raises
    ------
    SourceError
        If there is none.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        starts = [(doc.get("time", 0.0), doc["uid"], path) for path in archives_in(paths) for doc in _starts(path)]
        self._where = {uid: path for _, uid, path in sorted(starts, key=lambda start: start[:2])}

    def count(self) -> int:
        """How many there are."""
        return len(self._where)

    def uids(self) -> Iterator[str]:
        """Their uids, oldest first."""
        yield from self._where

    def documents_of(self, run: str) -> Iterator[tuple[str, Any]]:
        """The documents of one, as they stand in its archive.

        Raises
        ------
        DocumentError
            If there is no such run.
        SourceError
            If its archive cannot be read to the run's end.
        """
        if run not in self._where:
            raise DocumentError(f"there is no run {run!r} in the archives; expected the whole uid of one.")
        belonging, started, meant = Belonging(), 0, 0
        for name, doc in read_archive(self._where[run]):
            if name == "start":
                started += 1
                belonging.start(doc["uid"], started)
                meant = started if doc["uid"] == run else meant
            if (started if name == "start" else belonging.run_of(name, doc)) == meant:
                yield name, doc
                if name == "stop":
                    return
            if name == "stop":
                belonging.stop(str(doc.get("run_start", "")))

    def close(self) -> None:
        """Nothing: an archive is closed when it has been read."""


def _starts(path: Path) -> Iterator[Any]:
    """The starts in an archive, as far as it can be read: what is wrong with a run is said when that is read."""
    try:
        yield from (doc for name, doc in read_archive(path) if name == "start")
    except SourceError as error:
        _logger.warning("%s", error)
