"""A disk of limited size, on which the file plugins write."""

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Disk"]


@dataclass(slots=True)
class Disk:
    """How much the file plugins may write altogether; a file that is removed makes room again."""

    size: int | None = None
    """Bytes; None for no limit but that of the real disk."""

    _files: dict[Path, int] = field(default_factory=dict)

    def grant(self, path: Path, wanted: int) -> int:
        """How many bytes a file may have that would like so many in all.

        A file keeps what it has been granted, so that one that grows asks again with its new length.
        """
        if self.size is None:
            return wanted
        others = sum(size for file, size in self._files.items() if file != path and file.exists())
        self._files[path] = min(wanted, max(self.size - others, 0))
        return self._files[path]

    def write(self, path: Path, content: bytes) -> None:
        """Write a whole file, or as much of it as there is room for.

        Raises
        ------
        OSError
            If that is not all of it; a cut-off file, or one of 0 bytes, is left.
        """
        granted = self.grant(path, len(content))
        path.write_bytes(content[:granted])
        self._check(path, granted, len(content))

    def cut(self, path: Path) -> None:
        """Take from a finished file what there is no room for.

        Raises
        ------
        OSError
            If that is anything.
        """
        if self.size is None:
            return
        size = path.stat().st_size
        granted = self.grant(path, size)
        if granted < size:
            os.truncate(path, granted)
        self._check(path, granted, size)

    def _check(self, path: Path, granted: int, wanted: int) -> None:
        if granted < wanted:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
