"""An HDF5 file that is opened when it is needed, shared by threads and closed after an error."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h5py
from numpy.typing import NDArray

from bluesky_filestore.errors import TruncatedFileError, UnreadableFileError
from bluesky_filestore.files.hdf5 import shared_files
from bluesky_filestore.files.hdf5_filters import missing_filter_error, missing_filters
from bluesky_filestore.files.hdf5_layout import Elsewhere, dataset_in, linked_dataset
from bluesky_filestore.files.hdf5_opening import open_hdf5
from bluesky_filestore.files.hdf5_written import check_written, written_frames
from bluesky_filestore.files.readable import told

from .base import read_errors

__all__ = ["HDF5File"]

# What h5py raises for a file that is not what it should be, beside OSError: KeyError can be a file not yet complete.
_H5PY_ERRORS = (KeyError, RuntimeError, ValueError)


class HDF5File:
    """One file, open while it is used.

    Parameters
    ----------
    path : str
        The file.
    locking : bool or str, optional
        As h5py's: False for disks that have no locks.
    """

    def __init__(self, path: str, *, locking: bool | str | None = None) -> None:
        self.path = str(path)
        self._locking = locking
        self._lock = threading.RLock()
        self._files: dict[str, h5py.File] = {}
        self._datasets: dict[str, h5py.Dataset] = {}
        self._complete: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "locking": self._locking}

    def __setstate__(self, state: dict[str, Any]) -> None:
        HDF5File.__init__(self, **state)

    @contextmanager
    def dataset(self, key: str) -> Iterator[h5py.Dataset]:
        """A dataset, for this thread alone. An error closes the file: the next try finds what is there by then.

        Raises
        ------
        UnreadableFileError
            If the file is missing, locked, broken, has no such dataset, or needs a filter that is not there.
        """
        with self._lock:
            try:
                with read_errors(self.path, *_H5PY_ERRORS):
                    yield self._opened(key)
            except OSError as error:
                missing = missing_filters(self._datasets.get(key))
                self.close()
                if missing and not isinstance(error, TruncatedFileError):
                    raise missing_filter_error(missing, self.path, key) from error
                raise

    def rows(self, dataset: h5py.Dataset, wanted: range) -> slice:
        """The slice of the first axis that holds all wanted rows.

        Raises
        ------
        TruncatedFileError
            If one has no data, or there are fewer, even after another look at a file that is being written.
        """
        # That may be another than this one, where a link led to it.
        path = str(dataset.file.filename)
        if dataset.is_virtual:
            shared_files().layout(path, str(dataset.name)).check(wanted, path, str(dataset.name))
            return slice(wanted.start, wanted.stop)
        if dataset.shape[0] < wanted.stop and dataset.file.swmr_mode:
            dataset.id.refresh()
        if dataset.shape[0] < wanted.stop:
            raise TruncatedFileError(
                f"file {path} holds {dataset.shape[0]} frames in {dataset.name!r}; expected at least "
                f"{wanted.stop}, since frames {wanted.start} to {wanted.stop - 1} are asked for."
            )
        name = str(dataset.name)
        if wanted.stop > self._complete.get(name, 0):
            written = written_frames(dataset, path, each_chunk=not dataset.file.swmr_mode)
            check_written(written, wanted, path, name)
            if written is None:
                self._complete[name] = dataset.shape[0]
        return slice(wanted.start, wanted.stop)

    def read(self, dataset: h5py.Dataset, wanted: range, part: tuple[Any, ...] = ()) -> NDArray[Any]:
        """Rows of a dataset, or a part of each.

        Raises
        ------
        UnreadableFileError
            As of `rows`, and where what a virtual dataset is made of cannot be read.
        """
        values: NDArray[Any]
        if dataset.is_virtual:
            values = shared_files().read(str(dataset.file.filename), str(dataset.name), wanted)
            return values[(slice(None), *part)]
        values = dataset[(self.rows(dataset, wanted), *part)]
        return values

    def close(self) -> None:
        """Close it, if it is open."""
        with self._lock:
            self._datasets.clear()
            self._complete.clear()
            while self._files:
                self._files.popitem()[1].close()

    def _opened(self, key: str) -> h5py.Dataset:
        found = self._datasets.get(key)
        if found is not None:
            return found
        path, name = linked_dataset(self.path, key, self._look)
        found = self._look(path, name)
        if not isinstance(found, h5py.Dataset) or not found.shape:
            raise UnreadableFileError(
                f"file {path} has a dataset without an axis of frames at {name!r}; expected a dataset of frames."
            )
        self._datasets[key] = found
        return found

    def _look(self, path: str, name: str) -> h5py.Dataset | Elsewhere:
        """A dataset of a file, which stays open."""
        with told(path):
            if path not in self._files:
                self._files[path] = open_hdf5(path, locking=self._locking)
            return dataset_in(self._files[path], path, name)
