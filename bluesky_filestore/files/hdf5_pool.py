"""HDF5 files that are kept open, for any number of threads.

A file is `OpenFile`, by its path. Its lock is held while it is read; the pool's own only while a file is looked up, put
in or taken out. A file that has changed since it was opened is opened anew, but for one that grows in SWMR mode. At
most so many stay open when nobody is reading: those that were read longest ago are closed.

Whoever writes must not find that one of them is open, in this process or another. HDF5 knows what it has open already
by file and driver: here it has another driver than everybody's, which reads as fast, and no lock. Only its own can
read beside a writer in SWMR mode: such a file is closed at once if this process has it open elsewhere, too, and else
as soon as it was not read for a moment.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .hdf5_frames import PackedChunks
from .hdf5_layout import Elsewhere, dataset_in
from .hdf5_opening import is_open_here, open_hdf5
from .hdf5_pieces import Pieces
from .hdf5_superblock import is_being_written
from .readable import Roots, Signature, parser_errors, signature_of

if TYPE_CHECKING:
    import h5py

__all__ = ["HDF5Pool", "OpenFile"]

_DRIVER = "stdio"
_IDLE_SECONDS = 2.0


@dataclass(slots=True)
class OpenFile:
    """One file of the pool."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    """Held while the file is read: it must not be closed meanwhile."""
    file: "h5py.File | None" = None
    """None before it is opened and after it is closed."""
    signature: Signature | None = None
    """What it looked like when it was opened."""
    grows: bool = False
    """Whether it is open in SWMR mode."""
    is_shared: bool = False
    """Whether HDF5 has it open as what this process has open already: it would stay so when that is closed."""
    read: float = 0.0
    """When it was read last, on the monotonic clock."""
    datasets: "dict[str, h5py.Dataset]" = field(default_factory=dict)
    """Those that were read: while one is open, HDF5 keeps what it has unpacked of it."""

    packed: dict[str, PackedChunks] = field(default_factory=dict)
    """What is known of their chunks."""

    def dataset(self, path: str, name: str) -> "h5py.Dataset | Elsewhere | Pieces":
        """A dataset of the file, or where a link puts it."""
        # A dataset is false when its file was closed.
        found = self.datasets.get(name) or dataset_in(self.file, path, name)
        # Pieces are not kept: there may be more of them the next time.
        if not isinstance(found, Elsewhere | Pieces):
            self.datasets[name] = found
        return found

    def close(self) -> None:
        """Close it, if it is open."""
        self.datasets.clear()
        self.packed.clear()
        if self.file is not None:
            self.file.close()
            self.file = None


class HDF5Pool:
    """Files that are open.

    Parameters
    ----------
    most_files : int
        How many may be open when nobody is reading.
    locking : bool or str, optional
        As h5py's: False for disks that have no locks.
    """

    def __init__(self, most_files: int, locking: bool | str | None = None) -> None:
        self._most_files, self._locking = most_files, locking
        self._lock = threading.Lock()
        self._files: OrderedDict[str, OpenFile] = OrderedDict()
        self._timer: threading.Timer | None = None

    def __len__(self) -> int:
        """How many files are open."""
        return len(self._files)

    @contextmanager
    def open(self, path: str, swmr: bool, roots: Roots) -> Iterator[OpenFile]:
        """A file that stays open for the while, and perhaps longer.

        Parameters
        ----------
        path : str
            The file.
        swmr : bool
            Whether it may have grown since it was opened, if it was opened in SWMR mode.
        roots : Roots
            Where it may lie.

        Raises
        ------
        UnreadableFileError
            If it cannot be read, or what is done with it fails, in the form that says why.
        """
        with self._locked(path) as entry, parser_errors(path):
            signature = signature_of(path)
            if not _is_still_true(entry.signature, signature, swmr and entry.grows):
                entry.close()
            if entry.file is None:
                entry.file = _opened(path, self._locking, roots)
                entry.grows = entry.file.swmr_mode
                entry.is_shared = entry.file.driver != _DRIVER and is_open_here(path, but=entry.file)
            entry.signature = signature
            try:
                yield entry
            finally:
                entry.read = time.monotonic()
                if entry.is_shared:
                    self.close_file(path)
                elif entry.grows:
                    self._close_when_idle()
        self._close_beyond(self._most_files)

    @contextmanager
    def _locked(self, path: str) -> Iterator[OpenFile]:
        while True:
            with self._lock:
                entry = self._files.setdefault(path, OpenFile())
                self._files.move_to_end(path)
            with entry.lock:
                # Who waited for the lock may find that the file was closed and left the pool.
                if self._files.get(path) is entry:
                    yield entry
                    return

    def _close_when_idle(self) -> None:
        with self._lock:
            if self._timer is None:
                self._timer = threading.Timer(_IDLE_SECONDS, self._close_idle)
                self._timer.daemon = True
                self._timer.start()

    def _close_idle(self) -> None:
        with self._lock:
            self._timer = None
            growing = {path: entry.read for path, entry in self._files.items() if entry.grows}
        idle = [path for path, read in growing.items() if time.monotonic() - read >= _IDLE_SECONDS]
        for path in idle:
            self.close_file(path)
        if len(idle) < len(growing):
            self._close_when_idle()

    def close(self) -> None:
        """Close all files that nobody is reading."""
        with self._lock:
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        self._close_beyond(0)

    def close_file(self, path: str) -> None:
        """Close a file, when nobody is reading it."""
        with self._lock:
            entry = self._files.get(path)
        if entry is None:
            return
        with entry.lock:
            entry.close()
            with self._lock:
                if self._files.get(path) is entry:
                    del self._files[path]

    def _close_beyond(self, most: int) -> None:
        with self._lock:
            surplus = list(self._files)[: max(0, len(self._files) - most)]
        for path in surplus:
            self.close_file(path)


def _is_still_true(before: Signature | None, now: Signature, swmr: bool) -> bool:
    """Whether what HDF5 knows of an open file still holds: of changes, only those of a writer in SWMR mode leave it."""
    return before is not None and (before == now or (swmr and before.same_file(now)))


def _opened(path: str, locking: bool | str | None, roots: Roots) -> "h5py.File":
    if locking is not False and is_being_written(path):
        # HDF5 refuses it, or it is this process that writes.
        return open_hdf5(path, locking=locking, roots=roots)
    return open_hdf5(path, locking=False, driver=_DRIVER, roots=roots)
