"""An HDF5 file opened so that neither its writer nor other readers are in the way."""

from typing import TYPE_CHECKING

from .hdf5_sound import check_sound
from .hdf5_superblock import check_not_cut_short, is_written_with_swmr

if TYPE_CHECKING:
    import h5py

__all__ = ["is_open_otherwise", "open_hdf5"]

# What HDF5 says where this process has the file open already, and in another way: with SWMR or not, with locks or not.
_OPEN_OTHERWISE = ("access flag not the same", "locking flag values don't match")


def open_hdf5(path: str, *, locking: bool | str | None = None) -> "h5py.File":
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

    Raises
    ------
    TruncatedFileError
        If it is shorter than its header says, with which HDF5 would look for the rest for ever.
    UnreadableFileError
        If it is marked as being written with SWMR, and damaged.
    OSError
        What h5py raises.
    """
    import hdf5plugin  # noqa: F401 - importing it registers its filters

    check_not_cut_short(path)
    growing = is_written_with_swmr(path)
    if growing:
        check_sound(path)
    other = None if locking is False else False
    for locks, swmr in ((locking, growing), (locking, not growing), (other, growing)):
        try:
            return _opened(path, locks, swmr=swmr)
        except OSError as error:
            if not is_open_otherwise(error):
                raise
    return _opened(path, other, swmr=not growing)


def is_open_otherwise(error: OSError) -> bool:
    """Whether a file could not be opened because this process has it open already, in another way."""
    return any(words in str(error) for words in _OPEN_OTHERWISE)


def _opened(path: str, locking: bool | str | None, *, swmr: bool) -> "h5py.File":
    import h5py

    if swmr:
        return h5py.File(path, "r", libver="latest", swmr=True, locking=locking)
    return h5py.File(path, "r", locking=locking)
