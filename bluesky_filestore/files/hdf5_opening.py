"""An HDF5 file opened so that neither its writer nor other readers are in the way."""

import os
import weakref
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bluesky_filestore.errors import UnreadableFileError

from .hdf5_apart import apart
from .hdf5_sound import check_sound
from .hdf5_superblock import check_not_cut_short, is_written_with_swmr
from .readable import ANYWHERE, Roots, file_errors, name_of

if TYPE_CHECKING:
    import h5py

__all__ = ["is_open_here", "open_hdf5"]


def open_hdf5(
    path: str, *, locking: bool | str | None = None, driver: str | None = None, roots: Roots = ANYWHERE
) -> "h5py.File":
    """A file, open for reading, with the filters of hdf5plugin at hand.

    It is opened with SWMR only where its superblock says that it is being written so, by a writer that lives or one
    that was killed, and where it is sound: opened with SWMR, HDF5 tries a damaged part of a file again and again, and
    all of h5py waits meanwhile.

    Parameters
    ----------
    path : str
        The file.
    locking : bool or str, optional
        As h5py's: False for disks that have no locks.
    driver : str, optional
        As h5py's, for files that are not opened with SWMR, which only HDF5's own driver can do.
    roots : Roots
        Where it may lie.

    Raises
    ------
    TruncatedFileError
        If it is shorter than its header says, with which HDF5 would look for the rest for ever.
    UnreadableFileError
        If it cannot be read, in the form that says why.
    """
    import hdf5plugin  # noqa: F401 - importing it registers its filters

    first = apart()
    if first is not None:
        first.check(path, None)
    if roots.directories is None:
        return _open(path, locking, driver)
    descriptor = roots.hold(path)
    name = name_of(descriptor)
    if not Path(name).exists():
        os.close(descriptor)
        return _open(path, locking, driver)
    try:
        # HDF5 looks along a path by itself, and would go where that leads by then.
        file = _open(name, locking, driver)
    except UnreadableFileError as error:
        os.close(descriptor)
        raise type(error)(str(error).replace(name, path)) from error
    except BaseException:
        os.close(descriptor)
        raise
    # For as long as HDF5 has the file, it is open under this name.
    weakref.finalize(file, os.close, descriptor)
    return file


def _open(path: str, locking: bool | str | None, driver: str | None) -> "h5py.File":
    check_not_cut_short(path)
    growing = is_written_with_swmr(path)
    if growing:
        check_sound(path)
    other = None if locking is False else False
    with file_errors(path):
        try:
            return _opened(path, locking, swmr=growing, driver=driver)
        except OSError as error:
            # What this process has open in one way, with SWMR or not, with locks or not, HDF5 does not open in another.
            if not is_open_here(path):
                raise
            for locks, swmr in ((locking, not growing), (other, growing), (other, not growing)):
                with suppress(OSError):
                    return _opened(path, locks, swmr=swmr)
            raise error from None


def is_open_here(path: str, *, but: "h5py.File | None" = None) -> bool:
    """Whether HDF5 has the file open in this process, by whatever name, other than as one that is known."""
    import h5py

    for each in h5py.h5f.get_obj_ids(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE):
        try:
            if (but is None or each.id != but.id.id) and Path(os.fsdecode(h5py.h5f.get_name(each))).samefile(path):
                return True
        except (OSError, ValueError):
            # It has no name, or was moved.
            continue
    return False


def _opened(path: str, locking: bool | str | None, *, swmr: bool, driver: str | None = None) -> "h5py.File":
    import h5py

    if swmr:
        return h5py.File(path, "r", libver="latest", swmr=True, locking=locking)
    return h5py.File(path, "r", driver=driver, locking=locking)
