"""What an HDF5 file says of its own length, read without HDF5.

Opened with SWMR, HDF5 does not compare the two lengths, and a file that was cut short keeps it looking for what is
missing for ever, with the lock held that all of h5py waits for.
"""

import fcntl
import os

from bluesky_filestore.errors import TruncatedFileError

from .readable import ANYWHERE, locked_error

__all__ = ["check_not_cut_short", "is_being_written", "is_settled", "is_written_with_swmr"]

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_LENGTH_OF_HEADER = 64
# Where the sizes of addresses and the first of the addresses are, by version of the superblock; the third address
# (base, another, end of file) is the end. HDF5 File Format Specification, version 3.0, section II.A.
_VERSION_AT = 8
_FLAGS_AT = 11
# Of the consistency flags, which version 3 has.
_VERSION_WITH_FLAGS = 3
_WRITTEN, _WRITTEN_WITH_SWMR = 1, 4
_PLACES = {0: (13, 24), 1: (13, 28), 2: (9, 12), 3: (9, 12)}


def check_not_cut_short(path: str) -> None:
    """See that a file is as long as its header says, before it is opened with SWMR.

    A file that is being written may be longer. Of files without the header at their very beginning nothing is said.

    Raises
    ------
    TruncatedFileError
        If it is shorter.
    LockedFileError
        If it is shorter because its writer has not put it on the disk yet.
    UnreadableFileError
        If it cannot be opened.
    """
    with ANYWHERE.opened(path) as descriptor:
        header = os.pread(descriptor, _LENGTH_OF_HEADER, 0)
        length = os.fstat(descriptor).st_size
    if not header.startswith(_SIGNATURE) or len(header) < _LENGTH_OF_HEADER or header[8] not in _PLACES:
        return
    size_at, addresses_at = _PLACES[header[8]]
    size = header[size_at]
    if not size:
        # HDF5 has the words for what such a header is.
        return
    base, _, end = (
        int.from_bytes(header[place : place + size], "little")
        for place in range(addresses_at, addresses_at + 3 * size, size)
    )
    # In a file with a user block all addresses count from its end, but that of the end of the file.
    if base == 0 and length < end:
        if is_being_written(path):
            raise locked_error(path)
        raise TruncatedFileError(
            f"file {path} ends after {length} bytes; expected {end}, as its header says: it was cut short."
        )


def is_written_with_swmr(path: str) -> bool:
    """Whether the superblock says that the file is open for writing, and that readers may read it meanwhile.

    Raises
    ------
    UnreadableFileError
        If it cannot be opened.
    """
    with ANYWHERE.opened(path) as descriptor:
        header = os.pread(descriptor, _LENGTH_OF_HEADER, 0)
    if not header.startswith(_SIGNATURE) or len(header) <= _FLAGS_AT or header[_VERSION_AT] < _VERSION_WITH_FLAGS:
        return False
    return bool(header[_FLAGS_AT] & _WRITTEN and header[_FLAGS_AT] & _WRITTEN_WITH_SWMR)


def is_being_written(path: str) -> bool:
    """Whether a writer keeps others out of an HDF5 file: by a mark in its superblock, or by a lock.

    HDF5 locks a file for as long as it is open for writing; what it says to others it says in words.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        header = os.pread(descriptor, _LENGTH_OF_HEADER, 0)
        if not header.startswith(_SIGNATURE) or len(header) < _LENGTH_OF_HEADER:
            return False
        has_flags = header[_VERSION_AT] >= _VERSION_WITH_FLAGS
        if has_flags and header[_FLAGS_AT] & (_WRITTEN | _WRITTEN_WITH_SWMR) == _WRITTEN:
            return True
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def is_settled(path: str) -> bool:
    """Whether a file is there, and as its last writer left it when it closed it; False where that cannot be told.

    While a file is open for writing its header says of another length than it has, or is marked, or locked.
    """
    with ANYWHERE.opened(path) as descriptor:
        header = os.pread(descriptor, _LENGTH_OF_HEADER, 0)
        length = os.fstat(descriptor).st_size
    if not header.startswith(_SIGNATURE) or len(header) < _LENGTH_OF_HEADER or header[_VERSION_AT] not in _PLACES:
        return False
    size_at, addresses_at = _PLACES[header[_VERSION_AT]]
    size = header[size_at]
    base, _, end = (
        int.from_bytes(header[place : place + size], "little")
        for place in range(addresses_at, addresses_at + 3 * size, size)
    )
    marked = header[_VERSION_AT] >= _VERSION_WITH_FLAGS and header[_FLAGS_AT] & (_WRITTEN | _WRITTEN_WITH_SWMR)
    return bool(size) and not base and length == end and not marked and not is_being_written(path)
