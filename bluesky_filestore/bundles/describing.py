"""A thread that describes the files of runs when a catalog has them: behind the plan, with one core at the most.

=========  =======================================================  ==========================================
a run      it is so while                                           then
=========  =======================================================  ==========================================
waits      its files are still being written or looked for          it is looked at again in a moment
waits      the catalog does not answer, or has not got its end;     the same, after a longer one
           another process may deliver it, and does not tell
is read    its files are read, one by one, at a low priority        it is done, and what was found is said
is left    the writer was closed before that was done               it is said how to do it later
=========  =======================================================  ==========================================

`_waiting` and `_is_closing` change under `_news`; `_made` is the thread's alone. Nothing is kept of a run before all of
it is known, so that whoever is killed in the middle leaves nothing that is wrong: `verify --checksums` says that there
is no manifest, and `bluesky-filestore manifest` makes it.
"""

import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TypeAlias

from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
from bluesky_filestore.catalogs.tiled.nodes import has_ended
from bluesky_filestore.delivery.yielding import small_slices
from bluesky_filestore.errors import CatalogUnreachableError, FileStoreError
from bluesky_filestore.logs import get_logger
from bluesky_filestore.model.manifest import Manifest
from bluesky_filestore.operations.operations import Catalog

from .manifests import describe_files

__all__ = ["FileDescriber"]

_logger = get_logger(__name__)
_LOOK_SECONDS, _AWAY_SECONDS, _LAST_SECONDS = 0.25, 10.0, 5.0
_NICENESS = 10
_REMEMBERED, _MOST_NAMED = 10, 5

_Asked: TypeAlias = tuple[Catalog, str]


class _GivenUpError(Exception):
    """The writer is being closed."""


class FileDescriber:
    """Describes the files of runs, one after the other, in a thread of its own; see the top of this module.

    Parameters
    ----------
    checksums : bool
        Whether files are read for their checksums.
    sidecars : bool
        Whether each run gets a file beside its files.
    is_settled : callable
        Whether the files of a run, by its uid, are no longer looked for.
    """

    def __init__(self, *, checksums: bool, sidecars: bool, is_settled: Callable[[str], bool]) -> None:
        self._checksums, self._sidecars, self._is_settled = checksums, sidecars, is_settled
        self._news = threading.Condition()
        self._waiting: OrderedDict[_Asked, float] = OrderedDict()
        self._is_closing, self._gives_up = False, threading.Event()
        self._made: OrderedDict[str, Manifest] = OrderedDict()
        self._thread: threading.Thread | None = None

    def expect(self, catalogs: Iterable[Catalog], uid: str) -> None:
        """A run has ended, and will be in catalogs, whoever brings it there."""
        for catalog in catalogs:
            self._add(catalog, [uid], time.monotonic() + _AWAY_SECONDS)

    def take(self, catalog: Catalog, uids: Sequence[str]) -> None:
        """A catalog has runs: their files are described as soon as they are complete."""
        self._add(catalog, uids, 0.0)

    def _add(self, catalog: Catalog, uids: Sequence[str], when: float) -> None:
        with self._news:
            self._waiting.update({(catalog, uid): when for uid in uids})
            self._news.notify_all()
            if self._waiting and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="manifests", daemon=True)
                self._thread.start()

    def close(self, timeout: float) -> None:
        """End when all is described, or after so many seconds; what is left is said."""
        until = time.monotonic() + timeout
        with self._news:
            self._is_closing = True
            self._news.notify_all()
            self._news.wait_for(lambda: not self._waiting, max(0.0, until - time.monotonic()))
            self._gives_up.set()
            self._news.notify_all()
            left = list(dict.fromkeys(uid for _, uid in self._waiting))
        if self._thread is not None:
            self._thread.join(_LAST_SECONDS)
        if left:
            named = " ".join(left[:_MOST_NAMED]) + (" ..." if len(left) > _MOST_NAMED else "")
            _logger.warning(
                "The writer was closed before the files of %d runs were described; do it with: bluesky-filestore "
                "manifest %s",
                len(left),
                named,
            )

    def _run(self) -> None:
        if sys.platform == "linux":
            # Of a thread, by its number; others keep theirs.
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        while not self._gives_up.is_set():
            with self._news:
                asked = self._next()
                if asked is None:
                    if self._is_closing and not self._waiting:
                        return
                    self._news.wait(_LOOK_SECONDS if self._waiting else None)
                    continue
            again_in = self._describe(*asked)
            with self._news:
                if again_in is None:
                    self._waiting.pop(asked, None)
                else:
                    # Behind the others, who shall not wait for it.
                    self._waiting[asked] = time.monotonic() + again_in
                    self._waiting.move_to_end(asked)
                self._news.notify_all()
                if again_in is not None and not self._gives_up.is_set():
                    self._news.wait(_LOOK_SECONDS)

    def _next(self) -> _Asked | None:
        """The first run that is complete; of a writer that is closed, whose files are waited for no more, any."""
        now = time.monotonic()
        due = (asked for asked, when in self._waiting.items() if self._is_closing or when <= now)
        return next((asked for asked in due if self._is_closing or self._is_settled(asked[1])), None)

    def _describe(self, catalog: Catalog, uid: str) -> float | None:
        """Describe the files of a run; in how many seconds to try it again, if that is to be."""
        if not isinstance(catalog, TiledCatalog) or catalog.takes_documents:
            _logger.warning("Run %s: %s holds documents, and has no place for a manifest.", uid, catalog.uri)
            return None
        try:
            if not has_ended(catalog.connect(), uid):
                return _AWAY_SECONDS
            with small_slices():
                found = describe_files(
                    catalog.connect()[uid],
                    checksums=self._checksums,
                    sidecar=self._sidecars,
                    known=self._made.get(uid),
                    on_bytes=self._on_bytes,
                )
        except _GivenUpError:
            return _LOOK_SECONDS
        except CatalogUnreachableError as error:
            _logger.info("The files of run %s are described later: %s", uid, error)
            return _AWAY_SECONDS
        except FileStoreError as error:
            _logger.warning("The files of run %s cannot be described: %s", uid, error)
            return None
        except Exception:
            # Whatever we overlooked, other runs are described.
            _logger.exception("The files of run %s could not be described.", uid)
            return None
        self._made[uid] = found.manifest
        while len(self._made) > _REMEMBERED:
            self._made.popitem(last=False)
        for problem in found.problems:
            _logger.warning("Run %s: %s.", uid, problem)
        _logger.info("Run %s: %s.", uid, found)
        return None

    def _on_bytes(self, count: int) -> None:
        if self._gives_up.is_set():
            raise _GivenUpError
