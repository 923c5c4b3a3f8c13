"""The members of a tar, where they lie in it.

Its headers are gone through here, and not by tarfile, which keeps what it finds, takes all sorts of members for files,
and believes any size that a header says: only the header of 512 bytes is parsed by it.
"""

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import IO

from bluesky_filestore.errors import PackError

from .containers import BLOCK
from .members import ListedMembers

__all__ = ["TarMembers"]

_MOST_OF_HEADER = 1 << 16


@dataclass(frozen=True, slots=True)
class _Span:
    """Where a member lies in a file."""

    offset: int
    size: int


class TarMembers(ListedMembers):
    """Those of a tar."""

    def find(self) -> None:
        """Know the members, if all of them are files that do no harm."""
        self._spans: dict[str, _Span] = {}
        end, more = os.fstat(self.file.fileno()).st_size, _More()
        while True:
            header = self.file.read(tarfile.BLOCKSIZE)
            if not header.strip(b"\0"):
                return
            try:
                info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
            except tarfile.HeaderError as error:
                compressed = " (it may be compressed: unpack it first)" if not self.sizes else ""
                raise self.refusal(f"cannot be read after {len(self.sizes):,} members: {error}{compressed}") from error
            begin, is_more = self.file.tell(), info.type in _MORE_TYPES
            size = info.size if is_more or more.size is None else more.size
            if size < 0 or begin + size > end:
                raise self.refusal(f"says that {info.name!r} has {size:,} bytes, and ends before")
            if is_more and size > _MOST_OF_HEADER:
                raise self.refusal(f"has a header of {size:,} bytes")
            if is_more:
                more = _more_of(info.type, self.file.read(size), more)
            else:
                self._take(info, more.name or info.name, _Span(begin, size))
                more = _More()
            self.file.seek(begin + size + -size % tarfile.BLOCKSIZE)

    def _take(self, info: tarfile.TarInfo, name: str, span: _Span) -> None:
        if info.type == tarfile.DIRTYPE and not span.size:
            return
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            raise self.refusal(f"has a member {name!r} that is a link, a device, or another thing than a file")
        self._spans[self.know(name, span.size)] = span

    @contextmanager
    def opened(self, name: str) -> Iterator[IO[bytes]]:
        """A member, to be read."""
        self.size_of(name)
        span = self._spans[self.prefix + name]
        yield io.BufferedReader(_Part(self.file.fileno(), span), BLOCK)


@dataclass(frozen=True, slots=True)
class _More:
    """What comes before the header of a member of a tar, where that has no room for it."""

    name: str = ""
    size: int | None = None


_MORE_TYPES = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME)


def _more_of(kind: bytes, data: bytes, before: _More) -> _More:
    """What the header says of the member after it.

    Raises
    ------
    PackError
        If it says something that makes another thing of the member than a file.
    """
    if kind == tarfile.GNUTYPE_LONGNAME:
        return replace(before, name=data.rstrip(b"\0").decode("utf-8", "surrogateescape"))
    more, rest = before, data
    while rest:
        digits, space, _ = rest.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 9 else 0
        record, rest = rest[len(digits) + len(space) : length], rest[length:]
        key, equals, value = record.rstrip(b"\n").partition(b"=")
        says_size = key == b"size" and value.isdigit() and len(value) < 20 and kind == tarfile.XHDTYPE
        if (
            not length
            or not equals
            or key.startswith((b"linkpath", b"GNU.sparse"))
            or (key == b"size" and not says_size)
        ):
            raise PackError(
                f"a header of the tar has {record[:40]!r} in it; expected the name, size and time of a file."
            )
        if says_size:
            more = replace(more, size=int(value))
        elif key == b"path" and kind == tarfile.XHDTYPE:
            more = replace(more, name=value.decode("utf-8", "surrogateescape"))
    return more


class _Part(io.RawIOBase):
    """Part of a file, as a file that is read only."""

    def __init__(self, descriptor: int, span: _Span) -> None:
        self._descriptor, self._span, self._at = descriptor, span, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._span.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        view = memoryview(buffer).cast("B")
        wanted = max(0, min(view.nbytes, self._span.size - self._at))
        count = os.preadv(self._descriptor, [view[:wanted]], self._span.offset + self._at) if wanted else 0
        self._at += count
        return count
