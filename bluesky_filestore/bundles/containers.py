"""What a pack is kept in: a folder, a tar or a zip, written one member after the other.

Nothing is made smaller on the way: a member of a tar or zip lies in it as the file that it was, so that others read it
where it is, and so that what was written can be gone on with:

=======  ==============================================  =============================================================
kind     a member is                                     what was killed is gone on with by
=======  ==============================================  =============================================================
folder   a file                                          removing the files that are not known to be whole
.tar     a header (POSIX pax) and the file's bytes       cutting off what comes after the last member that is known
.zip     a header and the bytes, listed at the end       the same; the list is written when all members are there
=======  ==============================================  =============================================================
"""

import os
import tarfile
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from bluesky_filestore.errors import PackError

__all__ = ["BLOCK", "Container", "Kind", "Written", "kind_of", "open_new"]

Kind: TypeAlias = Literal["folder", "tar", "zip"]

BLOCK = 1 << 20
"""How many bytes are copied at a time."""

_FIRST_ZIP_TIME, _LAST_ZIP_TIME = (1980, 1, 1, 0, 0, 0), (2107, 12, 31, 23, 59, 58)
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".tgz", ".tbz2", ".txz", ".7z", ".rar")


@dataclass(frozen=True, slots=True)
class Written:
    """A member that is in a container, whole."""

    name: str
    """Its name."""
    size: int
    """In bytes."""
    modified_ns: int
    """When its file was last written to."""
    sha256: str
    """Of its bytes."""
    place: Mapping[str, int] = field(default_factory=dict)
    """Where it lies in a tar or zip: ``data``, ``end``, and what a zip's list says of it."""


def kind_of(path: Path) -> Kind:
    """What a pack of this name is.

    Raises
    ------
    PackError
        If the name is one of archives that are packed as a whole.
    """
    name = path.name.lower()
    if name.endswith(_COMPRESSED):
        raise PackError(
            f"{path} is an archive of a kind that packs are not kept in; expected a folder, or a name that ends in "
            f".tar or .zip: what is compressed as a whole has to be unpacked first."
        )
    return "tar" if name.endswith(".tar") else "zip" if name.endswith(".zip") else "folder"


class Container(Protocol):
    """What members are written into, by one thread."""

    def keep(self, known: Iterable[Written]) -> None:
        """Have these members, which were written before, and nothing else; called before anything is added."""

    def add(self, name: str, blocks: Iterable[bytes], size: int, modified_ns: int) -> Mapping[str, int]:
        """Write a member of just so many bytes; where it lies."""

    def blocks_of(self, member: Written) -> Iterator[bytes]:
        """What was written."""

    def finish(self) -> None:
        """Write what comes after the last member, and have all of it on the disk."""

    def close(self) -> None:
        """Let go of it, finished or not."""


def open_new(kind: Kind, path: Path) -> Container:
    """A container to be written, or to be gone on with."""
    makers: Mapping[Kind, type[_Folder | _Tar | _Zip]] = {"folder": _Folder, "tar": _Tar, "zip": _Zip}
    return makers[kind](path)


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(exist_ok=True)

    def keep(self, known: Iterable[Written]) -> None:
        whole = {str(self._path / member.name) for member in known}
        for directory, _, names in os.walk(self._path):
            for name in names:
                if os.path.join(directory, name) not in whole:  # noqa: PTH118 - there may be many
                    Path(directory, name).unlink()

    def add(self, name: str, blocks: Iterable[bytes], size: int, modified_ns: int) -> Mapping[str, int]:
        path = self._path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            for block in blocks:
                file.write(block)
        os.utime(path, ns=(modified_ns, modified_ns))
        return {}

    def blocks_of(self, member: Written) -> Iterator[bytes]:
        with (self._path / member.name).open("rb", buffering=0) as file:
            while block := file.read(BLOCK):
                yield block

    def finish(self) -> None:
        # For each file by itself the disk would take 10 ms.
        os.sync()

    def close(self) -> None:
        """Nothing is open."""


class _InOneFile:
    """What a tar and a zip have in common: members one behind the other in a file."""

    def __init__(self, path: Path) -> None:
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+b")

    def keep(self, known: Iterable[Written]) -> None:
        end = max((member.place["end"] for member in known), default=0)
        self._file.truncate(end)
        self._file.seek(end)

    def blocks_of(self, member: Written) -> Iterator[bytes]:
        offset, end = member.place["data"], member.place["data"] + member.size
        while offset < end and (block := os.pread(self._file.fileno(), min(BLOCK, end - offset), offset)):
            offset += len(block)
            yield block

    def close(self) -> None:
        self._file.close()


class _Tar(_InOneFile):
    def add(self, name: str, blocks: Iterable[bytes], size: int, modified_ns: int) -> Mapping[str, int]:
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, 0o644
        info.mtime, rest = divmod(modified_ns, 10**9)
        if rest:
            info.pax_headers = {"mtime": f"{info.mtime}.{rest:09d}"}
        self._file.write(info.tobuf(tarfile.PAX_FORMAT))
        data = self._file.tell()
        for block in blocks:
            self._file.write(block)
        self._file.write(bytes(-size % tarfile.BLOCKSIZE))
        self._file.flush()
        return {"data": data, "end": self._file.tell()}

    def finish(self) -> None:
        end = self._file.tell() + 2 * tarfile.BLOCKSIZE
        self._file.write(bytes(2 * tarfile.BLOCKSIZE + -end % tarfile.RECORDSIZE))
        self._file.flush()
        os.fsync(self._file.fileno())


class _Zip(_InOneFile):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._zip: zipfile.ZipFile | None = None

    def keep(self, known: Iterable[Written]) -> None:
        members = list(known)
        super().keep(members)
        self._zip = zipfile.ZipFile(self._file, "w")
        for member in members:
            info = _zip_info(member.name, member.modified_ns)
            info.file_size = info.compress_size = member.size
            info.header_offset, info.CRC = member.place["header"], member.place["crc"]
            info.flag_bits, info.create_version = member.place["flags"], member.place["version"]
            info.extract_version = member.place["version"]
            # It is the list itself, of which the one at the end of the file is made.
            self._zip.infolist().append(info)
        if len(self._zip.infolist()) != len(members):
            raise PackError(
                f"Python's zipfile cannot go on with {self._file.name}; expected that its list takes members: remove "
                f"the file, and pack again."
            )

    def add(self, name: str, blocks: Iterable[bytes], size: int, modified_ns: int) -> Mapping[str, int]:
        info = _zip_info(name, modified_ns)
        info.file_size = size
        with self._archive().open(info, "w", force_zip64=True) as member:
            place = {"data": self._file.tell()}
            for block in blocks:
                member.write(block)
        self._file.flush()
        return place | {
            "end": self._file.tell(),
            "header": info.header_offset,
            "crc": info.CRC,
            "flags": info.flag_bits,
            "version": info.extract_version,
        }

    def finish(self) -> None:
        self._archive().close()
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        # Of a zip that is not whole it writes a list, too, which is cut off when it is gone on with.
        with suppress(OSError, ValueError):
            self._archive().close()
        with suppress(OSError):
            self._file.close()

    def _archive(self) -> zipfile.ZipFile:
        if self._zip is None:
            raise ValueError("keep() comes first.")
        return self._zip


def _zip_info(name: str, modified_ns: int) -> zipfile.ZipInfo:
    # In UTC, so that the same run gives the same bytes everywhere; the manifest has it to the nanosecond.
    moment = time.gmtime(modified_ns / 10**9)[:6]
    info = zipfile.ZipInfo(name, max(_FIRST_ZIP_TIME, min(_LAST_ZIP_TIME, moment)))
    info.external_attr = 0o100644 << 16
    return info
