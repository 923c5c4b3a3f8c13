"""Files and directories that only their user may look into, whatever the umask."""

import errno
import os
from contextlib import suppress
from pathlib import Path

__all__ = ["make_private_directory", "make_private_file", "open_private_file"]


def make_private_directory(path: Path) -> None:
    """Make a directory, and those above it, if it is not there; one that is there is left as it is.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    missing = [path]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    for directory in reversed(missing):
        with suppress(FileExistsError):
            directory.mkdir(mode=0o700)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def make_private_file(path: Path, *, shares_owner: bool = False) -> None:
    """Make an empty file, if it is not there; one that is there is left as it is, and not even opened.

    Parameters
    ----------
    path : Path
        The file.
    shares_owner : bool
        Whether it belongs to whom its directory belongs to, also if root makes it.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    with suppress(FileExistsError):
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        if shares_owner:
            _give_to_owner(descriptor, path.parent)
        os.close(descriptor)


def open_private_file(path: Path) -> int:
    """The descriptor of a file to read and to write, which is made for the owner of its directory if it is not there.

    Root may work in the directory of another user, who could do nothing there any more beside files that are root's.
    What that user has put there in their place is not followed elsewhere.

    Raises
    ------
    OSError
        If it cannot be made, or opened.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    _give_to_owner(descriptor, path.parent)
    return descriptor


def _give_to_owner(descriptor: int, directory: Path) -> None:
    """Give a file that root has just made to whom its directory belongs to."""
    if os.geteuid() != 0:
        return
    # Not everybody who is called root may give a file away.
    with suppress(OSError):
        owner, found = directory.stat(), os.fstat(descriptor)
        # One with another name, or with something in it, was there.
        if owner.st_uid != 0 and (found.st_uid, found.st_nlink, found.st_size) == (0, 1, 0):
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
