"""A source poured into a spool, until it ends or somebody wants it to."""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from bluesky_filestore.errors import SourceError, SpoolError
from bluesky_filestore.logs import get_logger
from bluesky_filestore.spool.store import Store

from . import Source
from .archives import Document, read_archive
from .intake import Intake

__all__ = ["ArchiveSource", "consume"]

_logger = get_logger(__name__)
_SAFE_SECONDS, _RETRY_SECONDS = 1.0, 0.5
# In one transaction: it holds up others that put documents into the spool.
_MOST_AT_ONCE, _GATHER_SECONDS = 500, 0.02


class ArchiveSource:
    """What is in archives, one after the other; see `bluesky_filestore.sources.Source`.

    What cannot be read in one is said, kept in `faults`, and does not stand in the way of the rest.
    """

    name = "archives"

    def __init__(self, paths: Iterable[Path]) -> None:
        self.faults: list[str] = []
        """What could not be read, in words."""
        self._paths = list(paths)

    def documents(self) -> Iterator[tuple[str, dict[str, Any]] | None]:
        """The documents in their order."""
        for path in self._paths:
            try:
                yield from read_archive(path, self._note)
            except (SourceError, OSError) as error:
                self._note(str(error))

    def _note(self, sentence: str) -> None:
        self.faults.append(sentence)
        _logger.error("%s", sentence)

    def acknowledge(self) -> None:
        """Nothing: an archive stays."""

    def close(self) -> None:
        """Nothing: each file is closed when it has been read."""


def consume(source: Source, store: Store, intake: Intake, is_over: Callable[[], bool]) -> bool:
    """Put what comes from a source into a spool, and let the source know what is safe there.

    Parameters
    ----------
    source : Source
        Where the documents come from.
    store : Store
        The writing end of the spool, made with the source's name.
    intake : Intake
        Puts them there.
    is_over : callable
        Whether to end. Until then documents that the disk does not take are tried again, and no others are taken.

    Returns
    -------
    bool
        Whether the source has ended: no more can come.
    """
    safe_at, is_safe = time.monotonic() + _SAFE_SECONDS, True
    for documents in _together(source.documents()):
        try:
            intake.take(documents)
        except SpoolError:
            # The spool has logged it, and keeps the documents in memory.
            _wait_for_disk(store, is_over)
        now, is_safe = time.monotonic(), is_safe and not documents
        if not is_safe and (not documents or now >= safe_at):
            is_safe, safe_at = _acknowledge(source, store), now + _SAFE_SECONDS
        if is_over():
            _acknowledge(source, store)
            return False
    _acknowledge(source, store)
    return True


def _together(documents: Iterable[Document | None]) -> Iterator[list[Document]]:
    """What is there at once, some hundred at the most; nothing where nothing came since."""
    gathered: list[Document] = []
    for document in documents:
        if document is not None:
            if not gathered:
                until = time.monotonic() + _GATHER_SECONDS
            gathered.append(document)
            if len(gathered) < _MOST_AT_ONCE and time.monotonic() < until:
                continue
        yield gathered
        gathered = []
    if gathered:
        yield gathered


def _wait_for_disk(store: Store, is_over: Callable[[], bool]) -> None:
    while store.unsaved and not is_over():
        time.sleep(_RETRY_SECONDS)
        try:
            store.save()
        except SpoolError as error:
            _logger.debug("%s", error)


def _acknowledge(source: Source, store: Store) -> bool:
    try:
        is_safe = store.make_safe()
    except SpoolError as error:
        _logger.debug("%s", error)
        return False
    if is_safe:
        source.acknowledge()
    return is_safe
