"""Files that may be read: where they may lie, and why one cannot be read, in our words."""

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.errors import (
    FileStoreError,
    ForbiddenFileError,
    LockedFileError,
    MissingFileError,
    TruncatedFileError,
    UnreadableFileError,
)
from bluesky_filestore.model.limits import DEFAULT_LIMITS, Limits

__all__ = [
    "ANYWHERE",
    "Roots",
    "Signature",
    "bytes_of",
    "file_errors",
    "locked_error",
    "name_of",
    "parser_error",
    "parser_errors",
    "read_at",
    "signature_of",
]


@dataclass(frozen=True, slots=True)
class Signature:
    """What tells a file from the one that took its place, and from itself after a change."""

    device: int
    """The file system."""
    inode: int
    """The file on it."""
    size: int
    """In bytes."""
    modified: int
    """When it was last written to, in nanoseconds."""

    def same_file(self, other: "Signature") -> bool:
        """Whether both are of one file, changed or not."""
        return (self.device, self.inode) == (other.device, other.inode)


@dataclass(frozen=True, slots=True)
class Roots:
    """The directories that files may be read from, and how much of what is in them."""

    directories: tuple[str, ...] | None
    """Their real paths; None allows any."""
    limits: Limits = DEFAULT_LIMITS
    """What is refused as too much."""

    @classmethod
    def of(cls, directories: Iterable[str | Path], limits: Limits = DEFAULT_LIMITS) -> "Roots":
        """From directories as they were named, links and all."""
        return cls(tuple(os.path.realpath(directory) for directory in directories), limits)

    def admit(self, path: str) -> str:
        """The real path of a file or directory.

        Raises
        ------
        ForbiddenFileError
            If it lies, or a link leads, outside the directories.
        """
        if self.directories is None:
            return path
        with file_errors(path):
            real = _real(path)
        self._check(real, path)
        return real

    def _check(self, real: str, path: str) -> None:
        known = self.directories or ()
        if any(real == directory or real.startswith(directory.rstrip(os.sep) + os.sep) for directory in known):
            return
        where = f"{path}, which is {real}," if real != path else path
        raise ForbiddenFileError(
            f"file {where} is outside the directories that may be read; expected it below "
            f"{', '.join(known) or 'one of them (there are none)'}."
        )

    @contextmanager
    def opened(self, path: str, admitted: dict[str, str] | None = None) -> Iterator[int]:
        """The descriptor of a regular file, open for reading.

        Parameters
        ----------
        path : str
            The file.
        admitted : dict, optional
            The directories that were found good so far and their real paths, for those who open many files.

        Raises
        ------
        UnreadableFileError
            In the form that says why.
        """
        with file_errors(path):
            descriptor = self.hold(path, admitted)
            try:
                yield descriptor
            finally:
                os.close(descriptor)

    def hold(self, path: str, admitted: dict[str, str] | None = None) -> int:
        """As `opened`, for those who close it themselves."""
        with file_errors(path):
            descriptor = self._open(path, {} if admitted is None else admitted)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise UnreadableFileError(f"{path} is not a file; expected a file with frames.")
                opened = _path_of(descriptor) if self.directories is not None else None
                if opened is not None:
                    # Between the look at its directories and the opening one of them may have become a link.
                    self._check(opened, path)
            except BaseException:
                os.close(descriptor)
                raise
            return descriptor

    def _open(self, path: str, admitted: dict[str, str]) -> int:
        # Without O_NONBLOCK the opening of a pipe waits for somebody to write to it.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        if self.directories is None:
            return os.open(path, flags)
        directory, _, name = path.rpartition("/")
        real = admitted.get(directory)
        if real is None:
            real = admitted[directory] = self.admit(directory)
        try:
            return os.open(f"{real}/{name}", flags | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
        return os.open(self.admit(path), flags | os.O_NOFOLLOW)


ANYWHERE = Roots(None)
"""For those who may read what the operating system lets them."""


def _real(path: str) -> str:
    """The path without links: as Linux tells it of a file, in a sixth of the time that looking along the path takes."""
    try:
        # With O_PATH a file is only found, and not opened, whatever it is.
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (AttributeError, OSError):
        return os.path.realpath(path)
    try:
        real = _path_of(descriptor)
    finally:
        os.close(descriptor)
    # Of what was deleted meanwhile, or lies outside of what this process can see, Linux tells no path.
    if real is None or not real.startswith("/") or real.endswith(" (deleted)"):
        return os.path.realpath(path)
    return real


def _path_of(descriptor: int) -> str | None:
    """Where an open file is, as Linux tells it; None on another system."""
    try:
        return os.readlink(name_of(descriptor))  # noqa: PTH115 - a Path costs more than the call
    except OSError:
        return None


def name_of(descriptor: int) -> str:
    """A name by which Linux opens this very file again, wherever it is by now."""
    return f"/proc/self/fd/{descriptor}"


def signature_of(path: str) -> Signature:
    """What a file looks like now.

    Raises
    ------
    UnreadableFileError
        In the form that says why.
    """
    with file_errors(path):
        found = os.stat(path)  # noqa: PTH116 - a Path costs more than the call
    return Signature(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def bytes_of(values: NDArray[np.generic]) -> memoryview:
    """The memory of an array that is contiguous, of whatever dtype."""
    return values.reshape(-1).view(np.uint8).data


def read_at(descriptor: int, buffer: memoryview, offset: int, path: str) -> None:
    """Fill a buffer with the bytes from an offset on.

    Raises
    ------
    TruncatedFileError
        If the file ends before.
    """
    done, wanted = 0, buffer.nbytes
    while done < wanted:
        count = os.preadv(descriptor, [buffer[done:]], offset + done)
        if not count:
            raise TruncatedFileError(
                f"file {path} ends after {offset + done} bytes; expected {offset + wanted}: it was cut short."
            )
        done += count


@contextmanager
def file_errors(path: str) -> Iterator[None]:
    """Say of a file what the operating system, or the library that reads it, says in its own words."""
    try:
        yield
    except UnreadableFileError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingFileError(
            f"file {path} is not there; expected it where it was registered: it was moved or deleted, or its disk is "
            f"not mounted."
        ) from error
    except PermissionError as error:
        raise ForbiddenFileError(
            f"file {path} may not be read by the user of this program; expected the right to read it."
        ) from error
    except BlockingIOError as error:
        raise locked_error(path) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    except ValueError as error:
        if "\0" not in path:
            raise
        raise UnreadableFileError(f"{path!r} is no name of a file; expected one without NUL in it.") from error


@contextmanager
def parser_errors(path: str) -> Iterator[None]:
    """As `file_errors`, where a library takes a file apart: what it raises for a damaged one has no bounds."""
    with file_errors(path):
        try:
            yield
        except (FileStoreError, OSError):
            raise
        except Exception as error:
            if "\0" in path:
                raise
            raise parser_error(path, error) from error


def parser_error(path: str, error: Exception) -> UnreadableFileError:
    """The error for a file that a library stumbled over.

    Parameters
    ----------
    path : str
        The file.
    error : Exception
        What the library raised.
    """
    if isinstance(error, MemoryError):
        return UnreadableFileError(
            f"file {path} cannot be read: what is asked for, or what it says it holds, does not fit into memory "
            f"({error or 'no more is given'}); expected less: read fewer frames at a time, if it is not damaged."
        )
    words = str(error) if type(error) in (KeyError, RuntimeError, ValueError) else f"{type(error).__name__}: {error}"
    return UnreadableFileError(f"file {path} cannot be read, it is damaged or not all written: {words}.")


def locked_error(path: str, words: str = "") -> LockedFileError:
    """The error for a file whose writer lets nobody read it, with what would let them.

    Parameters
    ----------
    path : str
        The file.
    words : str
        What HDF5 says.
    """
    return LockedFileError(
        f"file {path} is open for writing, and its writer keeps others out; expected it closed, or written in HDF5's "
        f"SWMR mode (FileStoreHDF5 with swmr=True): try again later{f' ({words})' if words else ''}."
    )


def _unreadable(path: str, error: OSError) -> UnreadableFileError:
    # It builds on this module.
    from .hdf5_superblock import is_being_written

    words = str(error)
    if is_being_written(path):
        return locked_error(path, words)
    # Only of a file with a user block, whose length `check_not_cut_short` does not look at.
    if "truncated file" in words:
        return TruncatedFileError(f"file {path} was cut short: {words}.")
    return UnreadableFileError(f"file {path} cannot be read: {error.strerror or words}.")
