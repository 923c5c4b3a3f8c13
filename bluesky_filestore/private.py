"""Files and directories that only their user may look into, whatever the umask."""

import errno
import os
from contextlib import suppress
from pathlib import Path

__all__ = ["make_private_directory", "make_private_file"]


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


def make_private_file(path: Path) -> None:
    """Make an empty file, if it is not there; one that is there is left as it is.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
