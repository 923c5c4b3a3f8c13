"""What Linux lets a thread open, as Landlock has it: nothing but what is beneath some directories, and no network.

It holds for the thread that asks for it and for what that starts, threads and processes, for good. The numbers are
those of ``linux/landlock.h``.
"""

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterable
from contextlib import suppress
from functools import cache

__all__ = ["confine", "landlock_version"]

_CREATE, _ADD_RULE, _RESTRICT, _BENEATH, _ASK_VERSION = 444, 445, 446, 1, 1
_NO_NEW_PRIVILEGES = 38
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
# The rights that there are since version 1, 2, 3 and 5, which are refused but for what is allowed.
_FILE_RIGHTS = ((1, (1 << 13) - 1), (2, 1 << 13), (3, 1 << 14), (5, 1 << 15))
_BIND_AND_CONNECT, _SINCE_NETWORK = 3, 4
_ABSTRACT_SOCKETS, _SINCE_SCOPES = 1, 6


@cache
def landlock_version() -> int:
    """The version of Landlock that this system has; 0 if it has none."""
    try:
        return max(0, _call(_CREATE, None, 0, _ASK_VERSION))
    except (AttributeError, OSError):
        return 0


def confine(readable: Iterable[str], listed: Iterable[str] = ()) -> None:
    """Let this thread read what is beneath some directories, and nothing else; not even for the user root.

    Parameters
    ----------
    readable : iterable of str
        Directories and files. What is not there is left out.
    listed : iterable of str
        Directories of which it may know, all the way down, what is in them.

    Raises
    ------
    OSError
        If the system does not do it.
    """
    version = landlock_version()
    if not version:
        raise OSError(errno.ENOSYS, "this system has no Landlock")
    rights = sum(right for since, right in _FILE_RIGHTS if since <= version)
    words = [rights]
    words += [_BIND_AND_CONNECT] if version >= _SINCE_NETWORK else []
    words += [_ABSTRACT_SOCKETS] if version >= _SINCE_SCOPES else []
    rules = _call(_CREATE, struct.pack(f"={len(words)}Q", *words), 8 * len(words), 0)
    try:
        for right, paths in ((_READ_FILE | _READ_DIR, readable), (_READ_DIR, listed)):
            for path in paths:
                with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                    _allow(rules, path, right)
        if ctypes.CDLL(None, use_errno=True).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        _call(_RESTRICT, rules, 0)
    finally:
        os.close(rules)


def _allow(rules: int, path: str, right: int) -> None:
    try:
        # A directory is opened, and not only found, so that a disk that is mounted when it is needed is.
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (NotADirectoryError, PermissionError):
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            right &= _READ_FILE
        if right:
            _call(_ADD_RULE, rules, _BENEATH, struct.pack("=Qi", right, descriptor), 0)
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: bytes | int | None) -> int:
    # A word each: ctypes takes a number for an int of C's.
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = int(ctypes.CDLL(None, use_errno=True).syscall(number, *words))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
