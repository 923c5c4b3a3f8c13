"""Runs in archives, one after the other, of which any may be asked for."""

from collections.abc import Generator, Iterable, Iterator
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
        self._where: dict[str, list[Path]] = {}
        # Runs are asked for in the order of their times, which is mostly that of an archive: it is read once then.
        self._reading: dict[Path, Generator[tuple[str, list[tuple[str, Any]], str]]] = {}
        for _, uid, path in sorted(starts, key=lambda start: start[:2]):
            if path not in self._where.setdefault(uid, []):
                self._where[uid].append(path)

    def count(self) -> int:
        """How many there are."""
        return len(self._where)

    def uids(self) -> Iterator[str]:
        """Their uids, oldest first."""
        yield from self._where

    def documents_of(self, run: str) -> Iterator[tuple[str, Any]]:
        """The documents of one, as they stand in its archive; of several, in that which has most of them.

        Raises
        ------
        DocumentError
            If there is no such run.
        SourceError
            If what its archive, or each of them, has between the run's start and its stop cannot all be read.
        """
        if run not in self._where:
            raise DocumentError(f"there is no run {run!r} in the archives; expected the whole uid of one.")
        copies, faults = [], []
        for path in self._where[run]:
            try:
                copies.append(self._documents_in(path, run))
            except (SourceError, OSError) as error:
                faults.append(error)
        if not copies:
            raise faults[0]
        yield from max(copies, key=len)

    def close(self) -> None:
        """Close the archive that was read last."""
        for reading in self._reading.values():
            reading.close()
        self._reading.clear()

    def _documents_in(self, path: Path, run: str) -> list[tuple[str, Any]]:
        for is_new in (path not in self._reading, True):
            if is_new:
                self.close()
                self._reading[path] = _runs_in(path)
            for uid, documents, fault in self._reading[path]:
                if uid == run and fault:
                    raise SourceError(fault)
                if uid == run:
                    return documents
        raise DocumentError(f"run {run} is not in {path} any more; expected that it stays as it is.")

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


def _runs_in(path: Path) -> Generator[tuple[str, list[tuple[str, Any]], str]]:
    """The runs in an archive, each when it ends: uid, documents, and what could not be read while it went on."""
    belonging, started = Belonging(), 0
    runs: dict[int | None, tuple[str, list[tuple[str, Any]]]] = {}
    faults: dict[int | None, str] = {}

    def note(sentence: str) -> None:
        for each in runs:
            faults.setdefault(each, sentence)

    for name, doc in read_archive(path, note):
        if name == "start" and "uid" not in doc:
            continue
        if name == "start":
            started += 1
            belonging.start(doc["uid"], started)
            runs[started] = doc["uid"], []
        number = started if name == "start" else belonging.run_of(name, doc)
        if number in runs:
            runs[number][1].append((name, doc))
        if name == "stop":
            belonging.stop(str(doc.get("run_start", "")))
            if number in runs:
                yield *runs.pop(number), faults.pop(number, "")
    for number in runs:
        yield *runs[number], faults.get(number, "")


def _when(start: Any) -> tuple[float, str]:
    """The time and the uid of a run; what is no time is before all."""
    time = start.get("time")
    return float(time) if isinstance(time, int | float) else 0.0, str(start["uid"])
