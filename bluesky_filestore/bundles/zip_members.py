"""The members of a zip, as its list says and no more."""

import io
import os
import stat
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from bluesky_filestore.errors import FileStoreError, PackError

from .containers import BLOCK
from .members import MOST_MEMBERS, ListedMembers

__all__ = ["ZipMembers"]

_MOST_TIMES_SMALLER, _ROOM = 100, 1 << 26
_ZIP_END, _ZIP64_LOCATOR, _ZIP64_END = b"PK\5\6", b"PK\6\7", b"PK\6\6"
_ZIP_ENTRY_BYTES, _MOST_ZIP_COMMENT = 512, 1 << 16


class ZipMembers(ListedMembers):
    """Those of a zip."""

    def find(self) -> None:
        """Know the members, if all of them are files that do no harm."""
        end = os.fstat(self.file.fileno()).st_size
        entries = _zip_list_bytes(self.file, end)
        if entries > MOST_MEMBERS * _ZIP_ENTRY_BYTES:
            raise self.refusal(f"has a list of members of {entries:,} bytes")
        self._zip = zipfile.ZipFile(self.file)
        self._infos: dict[str, zipfile.ZipInfo] = {}
        packed = unpacked = 0
        for info in self._zip.infolist():
            mode = info.external_attr >> 16
            if info.is_dir() and not info.file_size:
                continue
            if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise self.refusal(f"has a member {info.filename!r} that is a link, a device, or no file")
            if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise self.refusal(f"has a member {info.filename!r} that is encrypted, or packed in an unusual way")
            if info.orig_filename != info.filename:
                raise self.refusal(f"has a member whose name is {info.orig_filename!r}")
            self._infos[self.know(info.filename, info.file_size)] = info
            packed, unpacked = packed + info.compress_size, unpacked + info.file_size
        if packed > end or unpacked > _MOST_TIMES_SMALLER * packed + _ROOM:
            raise self.refusal(
                f"says that its members have {unpacked:,} bytes, packed into {packed:,} of a file of {end:,}"
            )

    @contextmanager
    def opened(self, name: str) -> Iterator[IO[bytes]]:
        """A member, to be read."""
        self.size_of(name)
        with _told(f"{name} of {self.path}"):
            member = self._zip.open(self._infos[self.prefix + name])
        with member:
            yield io.BufferedReader(_Unpacked(member, f"{name} of {self.path}"), BLOCK)

    def close(self) -> None:
        """Let go of it."""
        self._zip.close()
        super().close()


class _Unpacked(io.RawIOBase):
    """A member of a zip, with what is wrong with it said as of a pack."""

    def __init__(self, member: IO[bytes], name: str) -> None:
        self._member, self._name = member, name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        view = memoryview(buffer).cast("B")
        with _told(self._name):
            data = self._member.read(view.nbytes)
        view[: len(data)] = data
        return len(data)


@contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except FileStoreError:
        raise
    except Exception as error:
        # zipfile and zlib have no bounds in what they raise.
        raise PackError(f"{name} cannot be read ({error}); expected it whole: the pack is damaged.") from error


def _zip_list_bytes(file: IO[bytes], end: int) -> int:
    """How long the list at the end of a zip says that it is; what reads it reads all of it."""
    begin = max(0, end - _MOST_ZIP_COMMENT - 22)
    file.seek(begin)
    tail = file.read()
    at = tail.rfind(_ZIP_END)
    if at < 0:
        raise zipfile.BadZipFile("it has no list of members at its end")
    (size,) = struct.unpack_from("<L", tail, at + 12)
    if at >= 20 and tail[at - 20 : at - 16] == _ZIP64_LOCATOR:
        (offset,) = struct.unpack_from("<Q", tail, at - 12)
        file.seek(offset)
        record = file.read(56)
        if record[:4] == _ZIP64_END:
            (size,) = struct.unpack_from("<Q", record, 40)
    return int(size)
