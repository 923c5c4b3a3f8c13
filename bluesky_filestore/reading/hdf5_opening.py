"""An HDF5 file opened so that neither its writer nor other readers are in the way."""

import subprocess
import sys
import time
from functools import lru_cache
from typing import TYPE_CHECKING

from bluesky_filestore.errors import UnreadableFileError

from .files import Signature, signature_of
from .hdf5_superblock import check_not_cut_short, is_written_with_swmr

if TYPE_CHECKING:
    import h5py

__all__ = ["open_hdf5"]

# What HDF5 says where this process has the file open already, and not with SWMR.
_OPEN_OTHERWISE = "access flag not the same"
# A writer that lives changes its file more often; its file is not damaged as a rule.
_LEFT_AFTER = 60.0
_TRIED_SECONDS = 10.0
_TRY = """
import sys, h5py, hdf5plugin
def look(name, found):
    if isinstance(found, h5py.Dataset) and found.chunks and found.size:
        found.id.chunk_iter(lambda chunk: None)
with h5py.File(sys.argv[1], "r", libver="latest", swmr=True, locking=False) as file:
    file.visititems(look)
"""


def open_hdf5(path: str, *, locking: bool | str | None = None) -> "h5py.File":
    """A file, open for reading, with the filters of hdf5plugin at hand.

    It is opened with SWMR only where its superblock says that it is being written so: opened with SWMR, HDF5 tries a
    damaged part of a file again and again, and all of h5py waits meanwhile. Of a writer that was killed that is left
    for ever: its file is tried in another process first.

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
        If a writer left it so that HDF5 does not come to an end with it.
    OSError
        What h5py raises.
    """
    import hdf5plugin  # noqa: F401 - importing it registers its filters

    check_not_cut_short(path)
    growing = is_written_with_swmr(path)
    if growing:
        signature = signature_of(path)
        if time.time() - signature.modified / 1e9 > _LEFT_AFTER:
            _check_comes_to_an_end(path, signature)
    try:
        return _opened(path, locking, swmr=growing)
    except OSError as error:
        if _OPEN_OTHERWISE not in str(error):
            raise
    return _opened(path, locking, swmr=not growing)


def _opened(path: str, locking: bool | str | None, *, swmr: bool) -> "h5py.File":
    import h5py

    if swmr:
        return h5py.File(path, "r", libver="latest", swmr=True, locking=locking)
    return h5py.File(path, "r", locking=locking)


@lru_cache(maxsize=1000)
def _check_comes_to_an_end(path: str, _: Signature) -> None:
    try:
        command = [sys.executable, "-c", _TRY, path]
        subprocess.run(command, timeout=_TRIED_SECONDS, capture_output=True, check=False)  # noqa: S603 - our own
    except subprocess.TimeoutExpired:
        raise UnreadableFileError(
            f"file {path} is damaged: a program that wrote it with SWMR left it open, and HDF5 does not come to an end "
            f"with it; expected a file whose parts agree with their checksums. Clear its flags with `h5clear -s` to "
            f"see what h5py says of it."
        ) from None
