"""The members of a pack, read by whoever does not know who made it.

Nothing that a pack says of itself is believed before it was looked at: names stay below the pack, links and devices
are refused, a member has just the bytes that it says, and all of them no more than a file of that size can hold.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from bluesky_filestore.errors import FileStoreError, PackError
from bluesky_filestore.files.readable import Roots

__all__ = ["INDEX", "MOST_MEMBERS", "MOST_TEXT", "FolderMembers", "ListedMembers", "Members", "check_name", "read_text"]

INDEX = "pack.json"
"""The member that says what is in a pack."""

MOST_TEXT = 1 << 26
"""How many bytes are read of what is read as a whole: a line of documents, a manifest."""
MOST_MEMBERS = 2_000_000
_MOST_OF_NAME, _MOST_OF_PATH = 255, 3_000


class Members(Protocol):
    """The members of a pack."""

    directory: Path | None
    """Where they are as files; None in a tar or zip."""

    def has(self, name: str) -> bool:
        """Whether there is such a member."""

    def size_of(self, name: str) -> int:
        """How many bytes a member says that it has.

        Raises
        ------
        PackError
            If there is none of the name.
        """

    def opened(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """A member, to be read from its beginning."""

    def close(self) -> None:
        """Let go of it."""


def check_name(name: str) -> str:
    r"""The name of a member, if it can do no harm as a path below a directory.

    Raises
    ------
    PackError
        If it is absolute, climbs, is not in its shortest form, or has in it what no system takes for a name.

    Examples
    --------
    >>> check_name("files/scan 1/a.h5")
    'files/scan 1/a.h5'
    """
    parts = name.split("/")
    bad = (
        not name
        or any(part in ("", ".", "..") for part in parts)
        or "\\" in name
        or not name.isprintable()
        or PurePosixPath(name).is_absolute()
        or (len(parts[0]) > 1 and parts[0][1] == ":")
        or len(os.fsencode(name)) > _MOST_OF_PATH
        or any(len(os.fsencode(part)) > _MOST_OF_NAME for part in parts)
    )
    if bad:
        raise PackError(
            f"{name!r} cannot be the name of a member of a pack; expected a relative path of printable characters "
            f"without '..', backslashes and drives: rename the file, or do not trust the pack."
        )
    return name


def read_text(members: Members, name: str) -> bytes:
    """All of a member.

    Raises
    ------
    PackError
        If it is larger than such a member can be.
    """
    size = members.size_of(name)
    if size > MOST_TEXT:
        raise PackError(f"{name} of the pack has {size:,} bytes; expected at most {MOST_TEXT:,}.")
    with members.opened(name) as file:
        return file.read(size + 1)


class FolderMembers:
    """Those of a folder."""

    def __init__(self, path: Path) -> None:
        self.directory: Path | None = path
        self.path, self._roots = path, Roots.of([path])

    def has(self, name: str) -> bool:
        """Whether there is such a member."""
        return (self.path / check_name(name)).is_file()

    def size_of(self, name: str) -> int:
        """How many bytes a member has."""
        with self._descriptor(name) as descriptor:
            return os.fstat(descriptor).st_size

    @contextmanager
    def opened(self, name: str) -> Iterator[IO[bytes]]:
        """A member, to be read."""
        with self._descriptor(name) as descriptor, os.fdopen(descriptor, "rb", closefd=False) as file:
            yield file

    @contextmanager
    def _descriptor(self, name: str) -> Iterator[int]:
        try:
            with self._roots.opened(str(self.path / check_name(name))) as descriptor:
                yield descriptor
        except FileStoreError as error:
            if isinstance(error, PackError):
                raise
            raise PackError(f"{name} of the pack in {self.path} cannot be read: {error}") from error

    def close(self) -> None:
        """Nothing is open."""


class ListedMembers:
    """What a tar and a zip have in common: members that are all known by name."""

    directory: Path | None = None

    def __init__(self, path: Path) -> None:
        self.path = path
        # A pipe would be waited for.
        self.file = os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb")
        self.sizes: dict[str, int] = {}
        self.prefix = ""
        try:
            if not stat.S_ISREG(os.fstat(self.file.fileno()).st_mode):
                raise PackError(f"{path} is no file; expected a pack.")
            self.find()
            if INDEX not in self.sizes:
                # Whoever packs a folder again often packs the folder itself.
                tops = {name.partition("/")[0] for name in self.sizes}
                self.prefix = f"{tops.pop()}/" if len(tops) == 1 else ""
        except BaseException:
            self.file.close()
            raise

    def find(self) -> None:
        """Know the members."""
        raise NotImplementedError

    def know(self, name: str, size: int) -> str:
        """A member is there."""
        plain = check_name(name.removeprefix("./"))
        if plain in self.sizes:
            raise self.refusal(f"has two members of the name {plain!r}")
        if len(self.sizes) >= MOST_MEMBERS:
            raise self.refusal(f"has more than {MOST_MEMBERS:,} members")
        self.sizes[plain] = size
        return plain

    def refusal(self, words: str) -> PackError:
        """The error for a pack that is not as `pack` makes it."""
        return PackError(f"{self.path} {words}; expected a pack of regular files, as `pack` makes it: do not trust it.")

    def has(self, name: str) -> bool:
        """Whether there is such a member."""
        return self.prefix + check_name(name) in self.sizes

    def size_of(self, name: str) -> int:
        """How many bytes a member has."""
        size = self.sizes.get(self.prefix + check_name(name))
        if size is None:
            raise PackError(f"{self.path} has no member {name!r}; expected it: it is no pack, or not all of one.")
        return size

    def close(self) -> None:
        """Let go of it."""
        self.file.close()
