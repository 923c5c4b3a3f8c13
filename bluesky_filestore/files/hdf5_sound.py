"""Whether HDF5 comes to an end with a file that is marked as being written in SWMR mode.

In SWMR mode HDF5 reads what does not agree with its checksum again and again, with ever longer pauses, inside the lock
that all of h5py waits for. Such a file is looked through first with the mark hidden from HDF5: then HDF5 gives up at
once. The mark alone does not tell a writer that lives from one that was killed, and writers in SWMR mode hold no lock.
"""

import io
import os
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from bluesky_filestore.errors import UnreadableFileError

from .readable import Signature, signature_of

if TYPE_CHECKING:
    import h5py

__all__ = ["check_sound"]

# Of the superblock of version 3: HDF5 File Format Specification, version 3.0, section II.A.
_SIZE_AT, _FLAGS_AT, _ADDRESSES_AT, _ADDRESSES = 9, 11, 12, 4
_END_OF_FILE = 2
# What a writer has just written in part is whole when it is looked at again.
_PAUSES = (0.002, 0.01, 0.05, 0.2)


def check_sound(path: str) -> None:
    """See that all of a file that is marked as being written agrees with its checksums, but for the frames.

    Raises
    ------
    UnreadableFileError
        If it does not.
    """
    for pause in _PAUSES:
        if _problem(path, signature_of(path)) is None:
            return
        # The writer may have been in the middle of it.
        time.sleep(pause)
    problem = _problem(path, signature_of(path))
    if problem is not None:
        raise UnreadableFileError(
            f"file {path} is marked as being written in SWMR mode, and is damaged ({problem}); expected a file whose "
            f"parts agree with their checksums. If no program writes to it any more, `h5clear -s` takes the mark away, "
            f"and h5py says what is left of it."
        )


@lru_cache(maxsize=1000)
def _problem(path: str, _: Signature) -> str | None:
    import h5py

    try:
        with _Unmarked(path) as unmarked, h5py.File(unmarked, "r") as file:
            file.visititems(_look_through)
    except Exception as error:  # noqa: BLE001 - what h5py raises for a damaged file has no bounds
        return str(error) or type(error).__name__
    return None


def _look_through(_: str, found: "h5py.Group | h5py.Dataset") -> None:
    """Have HDF5 read what it keeps of a group or dataset."""
    import h5py

    list(found.attrs)
    if isinstance(found, h5py.Dataset) and found.chunks and found.size:
        found.id.chunk_iter(lambda chunk: None)


class _Unmarked(io.FileIO):
    """A file as it would be if nobody had it open for writing."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._header = _unmarked_header(os.pread(self.fileno(), 128, 0), os.fstat(self.fileno()).st_size)

    def readinto(self, buffer: Any) -> int:
        """Read, with another header."""
        at = self.tell()
        count = super().readinto(buffer) or 0
        if at < len(self._header):
            header = self._header[at : at + count]
            memoryview(buffer).cast("B")[: len(header)] = header
        return count


def _unmarked_header(header: bytes, length: int) -> bytes:
    """The superblock without its flags, and with the length that the file has."""
    size = header[_SIZE_AT]
    end = _ADDRESSES_AT + _ADDRESSES * size
    changed = bytearray(header[: end + 4])
    changed[_FLAGS_AT] = 0
    place = _ADDRESSES_AT + _END_OF_FILE * size
    changed[place : place + size] = length.to_bytes(size, "little")
    changed[end:] = _lookup3(bytes(changed[:end])).to_bytes(4, "little")
    # The checksum that is there has to be right before it is made anew.
    right = _lookup3(header[:end]).to_bytes(4, "little") == header[end : end + 4]
    return bytes(changed) if right else header


def _lookup3(data: bytes) -> int:
    """The checksum of HDF5's metadata: Bob Jenkins' lookup3 (``H5_checksum_lookup3``)."""
    mask = 0xFFFFFFFF

    def rotated(value: int, by: int) -> int:
        return ((value << by) | (value >> (32 - by))) & mask

    a = b = c = (0xDEADBEEF + len(data)) & mask
    padded = data.ljust(max(12, -(-len(data) // 12) * 12), b"\0")
    words = [int.from_bytes(padded[place : place + 4], "little") for place in range(0, len(padded), 4)]
    for place in range(0, len(words), 3):
        a, b, c = ((value + word) & mask for value, word in zip((a, b, c), words[place : place + 3], strict=True))
        if place < len(words) - 3:
            for by in (4, 6, 8, 16, 19, 4):
                # The three change places in each step.
                a, b, c = b, (c + b) & mask, ((a - c) & mask) ^ rotated(c, by)
    for by in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - rotated(b, by)) & mask
        a, b, c = b, c, a
    return b
