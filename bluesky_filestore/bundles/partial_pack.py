"""A pack that is being written, and gone on with by whoever comes after one that was killed.

What is not whole yet is called ``NAME.part``, with a journal beside it, ``NAME.part.jsonl``: a line for each member
that is in it, whole and read back. Who is killed runs the same again:

==============================================  =======================================================================
found                                           then
==============================================  =======================================================================
nothing                                         it is begun
``NAME.part`` with its journal                  members are planned again; those of the journal, from the first on, that
                                                are planned so and whose bytes are still those, stay; all after is cut
                                                off, and written
``NAME``                                        nothing is written: it is another pack, or it is done, and is said to be
==============================================  =======================================================================
"""

import fcntl
import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, TypeAlias

from bluesky_filestore.errors import ChangedFileError, ChangingFileError, PackError
from bluesky_filestore.files.readable import ANYWHERE, Signature, file_errors, signature_of
from bluesky_filestore.private import make_private_file

from .containers import BLOCK, Kind, Written, open_new
from .members import check_name

__all__ = ["Member", "OnBytes", "PartialPack", "beside", "changed_file", "clear_away"]

OnBytes: TypeAlias = Callable[[int], object]
"""Is told how many more bytes were copied."""


def beside(path: Path, ending: str) -> Path:
    """What is kept beside a pack while it is written."""
    return path.with_name(path.name + ending)


def clear_away(path: Path) -> None:
    """Remove what was kept beside a pack that is whole."""
    for ending in (".part.documents", ".part.jsonl"):
        beside(path, ending).unlink(missing_ok=True)


def changed_file(path: str, words: str) -> ChangedFileError:
    """The error for a file that is not the one that the catalog has the checksum of."""
    return ChangedFileError(
        f"{path} is not the file whose checksum the catalog has: {words}; expected the same bytes: bring back the file "
        f"that was written; if this is the right one, have it described again (bluesky-filestore manifest --replace)."
    )


@dataclass(frozen=True, slots=True)
class Member:
    """What is to be written."""

    name: str
    """Its name."""
    size: int
    """In bytes."""
    modified_ns: int
    """When its file was last written to."""
    blocks: Callable[[], Iterator[bytes]]
    """Reads it."""
    sha256: str = ""
    """Of its bytes, if it is known before."""

    @classmethod
    def of_text(cls, name: str, text: bytes, modified_ns: int) -> "Member":
        """What is made for the pack."""
        return cls(check_name(name), len(text), modified_ns, lambda: iter((text,)), hashlib.sha256(text).hexdigest())

    @classmethod
    def of_file(cls, name: str, here: str, modified_ns: int | None = None, sha256: str = "") -> "Member":
        """A file; with another time than its own, if that says nothing of what is in it."""
        found = signature_of(here)
        modified_ns = found.modified if modified_ns is None else modified_ns
        return cls(check_name(name), found.size, modified_ns, partial(_blocks_of_file, here, found), sha256)


def _blocks_of_file(path: str, planned: Signature) -> Iterator[bytes]:
    with ANYWHERE.opened(path) as descriptor, file_errors(path):
        left = planned.size
        while left and (block := os.read(descriptor, min(BLOCK, left))):
            left -= len(block)
            yield block
        if left or signature_of(path) != planned:
            raise ChangingFileError(
                f"file {path} was written to, or replaced, while it was packed; expected a file that is complete: pack "
                f"the run again when nobody writes to it any more."
            )


class PartialPack:
    """A pack that is being written, and the journal of what is in it; for one process."""

    def __init__(self, path: Path, kind: Kind, on_bytes: OnBytes | None) -> None:
        self.sha256: dict[str, str] = {}
        """Of each member that is in it."""
        self._path, self._part, self._on_bytes = path, beside(path, ".part"), on_bytes
        make_private_file(beside(path, ".part.jsonl"))
        self._journal = beside(path, ".part.jsonl").open("a+b")
        try:
            try:
                fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise PackError(f"another process is writing {self._part}; expected none: wait for it.") from error
            self._known = deque(_journaled(self._journal) if os.path.lexists(self._part) else ())
            self._kept: list[Written] | None = []
            self._container = open_new(kind, self._part)
        except BaseException:
            self._journal.close()
            raise

    def write(self, members: Iterable[Member]) -> None:
        """Have members in it, each read back."""
        for member in members:
            if self._kept is not None:
                if self._is_known(member):
                    self._kept.append(self._known.popleft())
                    self.sha256[member.name] = self._kept[-1].sha256
                    continue
                self._cut_off()
            self._add(member)

    def finish(self) -> None:
        """Give it its name."""
        if self._kept is not None:
            self._cut_off()
        self._container.finish()
        if os.path.lexists(self._path):
            raise PackError(
                f"there is a {self._path} now; expected a name that is free: what was packed is {self._part}."
            )
        self._part.rename(self._path)
        clear_away(self._path)

    def close(self) -> None:
        """Let go of it; what is in it is gone on with the next time."""
        self._container.close()
        self._journal.close()

    def _is_known(self, member: Member) -> bool:
        if not self._known:
            return False
        known = self._known[0]
        is_planned = (known.name, known.size, known.modified_ns) == (member.name, member.size, member.modified_ns)
        if not is_planned or member.sha256 not in ("", known.sha256):
            return False
        try:
            return self._digest(known) == known.sha256
        except OSError:
            return False

    def _cut_off(self) -> None:
        """Have nothing in it but what is kept, from where on it is written."""
        kept, self._kept = self._kept or [], None
        self._container.keep(kept)
        self._journal.truncate(0)
        for written in kept:
            self._note(written)
        self._known.clear()

    def _add(self, member: Member) -> None:
        digest = hashlib.sha256()

        def looked_at() -> Iterator[bytes]:
            for block in member.blocks():
                digest.update(block)
                yield block
                if self._on_bytes is not None:
                    self._on_bytes(len(block))

        place = self._container.add(member.name, looked_at(), member.size, member.modified_ns)
        written = Written(member.name, member.size, member.modified_ns, digest.hexdigest(), place)
        if member.sha256 not in ("", written.sha256):
            raise changed_file(member.name, f"its SHA-256 is {written.sha256}, and was {member.sha256}")
        if self._digest(written) != written.sha256:
            raise PackError(
                f"{member.name} was written to {self._part}, and reads otherwise than it was; expected the same bytes: "
                f"the disk is not to be trusted."
            )
        self.sha256[member.name] = written.sha256
        self._note(written)

    def _digest(self, written: Written) -> str:
        digest = hashlib.sha256()
        for block in self._container.blocks_of(written):
            digest.update(block)
        return digest.hexdigest()

    def _note(self, written: Written) -> None:
        self._journal.write(f"{json.dumps(asdict(written))}\n".encode())
        self._journal.flush()


def _journaled(journal: IO[bytes]) -> Iterator[Written]:
    journal.seek(0)
    for line in journal:
        try:
            yield Written(**json.loads(line))
        except (ValueError, TypeError):
            # Whoever wrote it was killed meanwhile.
            return
