"""What any process puts into spools, delivered to a catalog for as long as this one lasts.

A service has an `Uploader` for each spool, which tries to get the lease, so that several services, and writers that
deliver themselves, do no harm to one another. It looks at the spools ten times a second, which costs a `stat` of a
file each: documents that come after a silence are delivered at once, those of a steady flow every `interval`.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from bluesky_filestore.errors import SpoolError
from bluesky_filestore.logs import get_logger
from bluesky_filestore.operations.operations import Catalog
from bluesky_filestore.spool.database import FILE_NAME
from bluesky_filestore.spool.places import is_private, kept_instead

from .private_spools import is_held, is_over, remove_if_over
from .settings import AS_USUAL, DeliverySettings
from .uploader import Uploader

__all__ = ["Service", "spools_below"]

_logger = get_logger(__name__)
_NEW_SPOOLS_SECONDS, _LEAVE_SECONDS = 2.0, 5.0


def spools_below(places: Iterable[Path]) -> list[Path]:
    """The spool directories among directories, or right below them, and what is kept elsewhere in their place.

    Those that are not there (yet) are none.
    """
    found: dict[Path, None] = {}
    for place in places:
        found.update(dict.fromkeys(kept_instead(place)))
        if (place / FILE_NAME).exists():
            found[place] = None
        else:
            found.update(dict.fromkeys(sorted(file.parent for file in place.glob(f"*/{FILE_NAME}"))))
    return list(found)


class Service:
    """Delivers what is put into spools; `look` has to be called now and then, by one thread.

    Parameters
    ----------
    places : sequence of Path
        Spool directories, or directories that hold some. They need not be there yet.
    make_catalog : callable
        Makes the catalog that they are delivered to; each spool gets its own.
    settings : DeliverySettings
        How its user wants it.
    """

    def __init__(
        self,
        places: Sequence[Path],
        make_catalog: Callable[[], Catalog],
        settings: DeliverySettings = AS_USUAL,
    ) -> None:
        self.uploaders: dict[Path, Uploader] = {}
        """Who delivers from each spool, by its directory."""
        self._places, self._make_catalog, self._settings = list(places), make_catalog, settings
        self._seen: dict[Path, tuple[tuple[int, int], bool]] = {}
        self._unusable: dict[Path, str] = {}
        self._next_search = 0.0

    def look(self) -> None:
        """Begin to deliver from spools that are new, and wake those who deliver from one that was silent."""
        now = time.monotonic()
        if now >= self._next_search:
            self._next_search = now + _NEW_SPOOLS_SECONDS
            self._remove_private_ones()
            self._search()
        for directory, uploader in self.uploaders.items():
            stamp = _stamp(directory)
            before, was_busy = self._seen.get(directory, ((0, 0), False))
            if stamp != before and not was_busy:
                uploader.wake()
            self._seen[directory] = stamp, stamp != before

    @property
    def is_alive(self) -> bool:
        """Whether all who should deliver are at it."""
        return all(uploader.is_alive() for uploader in self.uploaders.values())

    def describe(self) -> str:
        """How it is doing, in a line."""
        wrong = [words for uploader in self.uploaders.values() if (words := str(uploader.error or uploader.trouble))]
        count = len(self.uploaders)
        spools = f"{count} spool{'' if count == 1 else 's'}" if count else "no spool yet"
        return "; ".join([f"Delivers from {spools}", *dict.fromkeys([*wrong, *self._unusable.values()])])

    def close(self, timeout: float) -> None:
        """End after the requests that are under way, but wait for these no longer than so many seconds altogether."""
        until = time.monotonic() + timeout
        for uploader in self.uploaders.values():
            uploader.close(0.0)
        for uploader in self.uploaders.values():
            uploader.close(max(0.0, until - time.monotonic()))
            uploader.catalog.close()

    def _remove_private_ones(self) -> None:
        """Remove what writers kept that could not use their spool, and have ended, once all of it is delivered."""
        for directory in filter(is_private, tuple(self.uploaders)):
            try:
                if is_over(directory):
                    self._leave(directory)
                    remove_if_over(directory)
                    _logger.info("All that was kept in %s is delivered, and it is removed.", directory)
            except SpoolError as error:
                # Whoever delivers from it says so as well, and tries again.
                _logger.debug("%s", error)

    def _leave(self, directory: Path, timeout: float = _LEAVE_SECONDS) -> None:
        gone = self.uploaders.pop(directory)
        gone.close(timeout)
        gone.catalog.close()

    def _search(self) -> None:
        found = spools_below(self._places)
        for directory in found:
            if directory in self.uploaders:
                continue
            try:
                if is_private(directory) and is_held(directory):
                    continue  # Its writer delivers, and removes it when all is.
                self.uploaders[directory] = Uploader(directory, self._make_catalog(), self._settings)
                self._unusable.pop(directory, None)
                _logger.info("Delivers from %s.", directory)
            except SpoolError as error:
                if self._unusable.get(directory) != str(error):
                    _logger.error("Nothing is delivered from %s, which is tried again: %s", directory, error)
                self._unusable[directory] = str(error)
        for directory in self.uploaders.keys() - set(found):
            if not directory.exists():
                _logger.warning("The spool in %s is gone.", directory)
                self._leave(directory, 0.0)


def _stamp(directory: Path) -> tuple[int, int]:
    """What changes whenever something is put into a spool."""
    try:
        found = (directory / f"{FILE_NAME}-wal").stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size
