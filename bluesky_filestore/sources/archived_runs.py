"""Runs in archives, one after the other, of which any may be asked for."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bluesky_filestore.errors import DocumentError, SourceError
from bluesky_filestore.spool.belonging import Belonging

from .archives import archives_in, read_archive

__all__ = ["ArchivedRuns"]

_SHOWN = 80


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
        self.faults: list[str] = []
        """What could not be read, in words."""
        starts = [(*_when(doc), path) for path in archives_in(paths) for doc in self._starts(path)]
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
            If what its archive has between the run's start and its stop cannot all be read.
        """
        if run not in self._where:
            raise DocumentError(f"there is no run {run!r} in the archives; expected the whole uid of one.")
        belonging, started, meant = Belonging(), 0, 0

        def note(sentence: str) -> None:
            # Before the run began it is of another one.
            if meant:
                raise SourceError(sentence)

        for name, doc in read_archive(self._where[run], note):
            if name == "start" and "uid" in doc:
                started += 1
                belonging.start(doc["uid"], started)
                meant = started if doc["uid"] == run else meant
            if meant and (started if name == "start" else belonging.run_of(name, doc)) == meant:
                yield name, doc
                if name == "stop":
                    return
            if name == "stop":
                belonging.stop(str(doc.get("run_start", "")))

    def close(self) -> None:
        """Nothing: an archive is closed when it has been read."""

    def _starts(self, path: Path) -> Iterator[Any]:
        """The starts in an archive; what cannot be read is among the faults, and does not stand before the rest."""
        try:
            for name, doc in read_archive(path, self.faults.append):
                if name == "start" and "uid" in doc:
                    yield doc
                elif name == "start":
                    self.faults.append(f"{path} has a start without a uid: {str(doc)[:_SHOWN]}")
        except (SourceError, OSError) as error:
            self.faults.append(str(error))


def _when(start: Any) -> tuple[float, str]:
    """The time and the uid of a run; what is no time is before all."""
    time = start.get("time")
    return float(time) if isinstance(time, int | float) else 0.0, str(start["uid"])
