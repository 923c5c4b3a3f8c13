"""What a relocation has begun and done, on the disk before it is so in the catalog.

A journal is a file of JSON lines. The first says what it is about; each other one says of a run that something was
begun, done or undone, or of the whole that it has ended. What was begun and not done is done again by whoever opens the
journal the next time: each step says what shall be the case, and what is the case already is left. Who has it open
locks it. A line that a crash has cut off is as if it had never been written.
"""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from bluesky_filestore.errors import RelocationError
from bluesky_filestore.files.copying import sync_directory
from bluesky_filestore.private import make_private_directory, make_private_file

__all__ = ["Journal"]

_KIND, _VERSION = "bluesky_filestore relocation", 1


class Journal:
    """A journal, open and locked.

    Parameters
    ----------
    path : Path
        The file.
    header : Mapping, optional
        What it is about, if it is to be begun; else it has to be there.

    Raises
    ------
    RelocationError
        If the file is no journal, is about something else, or another process has it open.
    """

    def __init__(self, path: Path, header: Mapping[str, Any] | None = None) -> None:
        self.path = path
        """The file."""
        if header is None and not path.is_file():
            raise RelocationError(f"there is no journal {path}; expected the file that relocate or move has named.")
        make_private_directory(path.parent)
        if header is not None:
            make_private_file(path)
        self._file = path.open("a+b")
        try:
            self._lock()
            lines = self._read()
            if not lines:
                if header is None:
                    raise RelocationError(f"journal {path} is empty; there is nothing to go on with, or to undo.")
                lines = [{"journal": _KIND, "version": _VERSION, **header}]
                self.write(**lines[0])
                sync_directory(path.parent)
            self.header, self.entries = lines[0], lines[1:]
            """What it is about, and what was written of it before it was opened."""
            self._check(header)
        except BaseException:
            self._file.close()
            raise

    @classmethod
    def unfinished(cls, header: Mapping[str, Any], names: tuple[str, ...]) -> Path:
        """The journal of this user that is about the same and has not ended, or the path of a new one.

        Parameters
        ----------
        header : Mapping
            What it is about.
        names : tuple of str
            The entries that tell it from another.
        """
        about = hashlib.sha256(json.dumps([header[name] for name in names]).encode()).hexdigest()[:12]
        directory = cls.directory()
        for path in sorted(directory.glob(f"*-{about}.jsonl"), reverse=True):
            lines = _lines(path.read_bytes())
            if lines and not any("end" in line for line in lines):
                return path
        return directory / f"{time.strftime('%Y-%m-%dT%H%M%S')}-{str(header['uid'])[:8]}-{about}.jsonl"

    @staticmethod
    def directory() -> Path:
        """Where journals of this user are that nobody told where to be."""
        from platformdirs import user_state_path

        return user_state_path("bluesky-filestore") / "relocations"

    @property
    def has_ended(self) -> bool:
        """Whether everything was done, or undone."""
        return any("end" in entry for entry in self.entries)

    def write(self, *, sync: bool = True, **entry: Any) -> None:
        """Append a line; it is on the disk when this returns, unless it may be lost."""
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()
        if sync:
            os.fsync(self._file.fileno())

    def discard(self) -> None:
        """Have it no more: nothing was begun."""
        self.path.unlink()

    def close(self) -> None:
        """Unlock it."""
        self._file.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RelocationError(
                f"journal {self.path} is in use by another process; wait until that has ended, and try again."
            ) from error

    def _read(self) -> list[dict[str, Any]]:
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            self._file.truncate(whole)
        try:
            lines = _lines(content)
        except ValueError as error:
            raise RelocationError(f"{self.path} is no journal of a relocation, or is damaged ({error}).") from error
        if lines and lines[0].get("journal") != _KIND:
            raise RelocationError(f"{self.path} is no journal of a relocation; expected the file that it has named.")
        if lines and lines[0]["version"] != _VERSION:
            raise RelocationError(f"{self.path} is of version {lines[0]['version']}; expected {_VERSION}.")
        return lines

    def _check(self, header: Mapping[str, Any] | None) -> None:
        for name, value in (header or {}).items():
            if name not in ("time", "uid") and self.header.get(name) != value:
                raise RelocationError(
                    f"journal {self.path} has {name} {self.header.get(name)!r}; expected {value!r}: name another file."
                )


def _lines(content: bytes) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]
    if not all(isinstance(line, dict) for line in lines):
        raise ValueError("expected an object a line")
    return lines
