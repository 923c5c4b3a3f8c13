"""The checksums of files: read once, in pieces, as they were at one moment."""

import hashlib
import os
from collections.abc import Callable

from bluesky_filestore.errors import ChangingFileError

from .readable import ANYWHERE, Roots, Signature, file_errors, signature_of

__all__ = ["digest_of", "sha256_of"]

_PIECE, _LEAST = 1 << 20, 1 << 12


def sha256_of(path: str, *, roots: Roots = ANYWHERE, on_bytes: Callable[[int], None] | None = None) -> str:
    """The SHA-256 of a file, in hexadecimal.

    Parameters
    ----------
    path : str
        The file; a pipe, a device and a directory are none.
    roots : Roots
        Where it may lie, links and all.
    on_bytes : callable, optional
        Told how many more bytes were read, every megabyte; what it raises ends the reading.

    Raises
    ------
    ChangingFileError
        If the file was written to, or replaced, while it was read.
    UnreadableFileError
        If it cannot be read, in the form that says why.
    """
    return digest_of(path, roots=roots, on_bytes=on_bytes)[0]


def digest_of(
    path: str, *, roots: Roots = ANYWHERE, on_bytes: Callable[[int], None] | None = None
) -> tuple[str, Signature]:
    """The SHA-256 of a file, and what the file looked like before and after it was read; the rest is as `sha256_of`."""
    digest = hashlib.sha256()
    with roots.opened(path) as descriptor, file_errors(path):
        before, done = _signature(descriptor), 0
        # Of small files there may be 10,000.
        piece = memoryview(bytearray(min(_PIECE, max(_LEAST, before.size))))
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while count := os.readv(descriptor, [piece]):
            digest.update(piece[:count])
            done += count
            if on_bytes is not None:
                on_bytes(count)
        after = _signature(descriptor)
    # The file of that name, too: another may have taken its place.
    if done != before.size or not before == after == signature_of(path):
        raise ChangingFileError(
            f"file {path} was written to, or replaced, while it was read for its checksum ({before.size} bytes before, "
            f"{after.size} behind it); expected a file that is complete: try again when nobody writes to it any more."
        )
    return digest.hexdigest(), before


def _signature(descriptor: int) -> Signature:
    found = os.fstat(descriptor)
    return Signature(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
