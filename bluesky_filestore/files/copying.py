"""Copies of files that are on the disk, and known to be the same, before anybody goes by them."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from bluesky_filestore.errors import ChangingFileError, RelocationError

from .checksums import sha256_of
from .readable import ANYWHERE, file_errors, signature_of

__all__ = ["copy_file", "same_content", "sync_directory"]

_PIECE = 1 << 20


def copy_file(source: str, target: str) -> str:
    """Copy a file to where none is; it has the name only when its content has been read back and is on the disk.

    Parameters
    ----------
    source : str
        The file; its times and rights go with it.
    target : str
        Where the copy shall be. A file of the same content is taken for it, whoever wrote that.

    Returns
    -------
    str
        The SHA-256 of both, in hexadecimal.

    Raises
    ------
    RelocationError
        If there is a file of another content, which stays.
    UnreadableFileError
        If one of them cannot be read, or the source is written to meanwhile.
    OSError
        If the copy cannot be written.
    """
    place = Path(target)
    if os.path.lexists(target):
        return same_content(source, target)
    make_directories(place.parent)
    with _partial(place) as (partial, descriptor):
        sha256 = _copy_bytes(source, descriptor)
        shutil.copystat(source, partial)
        os.fsync(descriptor)
        if sha256_of(str(partial)) != sha256:
            raise RelocationError(
                f"the copy of {source} in {place.parent} cannot be read back as it was written; expected the same "
                f"bytes: look at that disk. The original is as it was."
            )
        _give_name(partial, place, source)
    sync_directory(place.parent)
    return sha256


def same_content(source: str, target: str) -> str:
    """The SHA-256 of two files that hold the same.

    Raises
    ------
    RelocationError
        If they do not, or the second is no file.
    UnreadableFileError
        If one of them cannot be read.
    """
    alike = Path(target).is_file() and signature_of(source).size == signature_of(target).size
    if alike and (sha256 := sha256_of(source)) == sha256_of(target):
        return sha256
    raise RelocationError(
        f"there is another {target} already, and nothing is written over; expected none, or a copy of {source}."
    )


def make_directories(directory: Path) -> None:
    """Make a directory and those above it that are missing, so that they survive a power failure."""
    if not directory.is_dir():
        make_directories(directory.parent)
        with suppress(FileExistsError):
            directory.mkdir()
        sync_directory(directory.parent)


def sync_directory(directory: Path) -> None:
    """Have the names in a directory on the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _partial(place: Path) -> Iterator[tuple[Path, int]]:
    """A file beside a place, open and locked, to be filled; in the end it is gone, as are those of killed copies."""
    for left in place.parent.glob(f".{_escaped(place.name)}.*.partial"):
        with suppress(OSError), left.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()
    partial = place.parent / f".{place.name}.{uuid4().hex[:8]}.partial"
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield partial, descriptor
    finally:
        os.close(descriptor)
        partial.unlink(missing_ok=True)


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _copy_bytes(source: str, descriptor: int) -> str:
    digest, piece = hashlib.sha256(), memoryview(bytearray(_PIECE))
    with ANYWHERE.opened(source) as opened, file_errors(source):
        before = signature_of(source)
        while count := os.readv(opened, [piece]):
            digest.update(piece[:count])
            done = 0
            while done < count:
                done += os.write(descriptor, piece[done:count])
    if signature_of(source) != before:
        raise ChangingFileError(
            f"file {source} was written to while it was copied; expected one that is complete: try again when nobody "
            f"writes to it any more."
        )
    return digest.hexdigest()


def _give_name(partial: Path, place: Path, source: str) -> None:
    try:
        os.link(partial, place)
    except FileExistsError:
        # Another process was there first.
        same_content(source, str(place))
    except OSError:
        # Not every file system has links; between the look and the renaming nobody else is expected.
        if os.path.lexists(place):
            same_content(source, str(place))
        else:
            partial.rename(place)
