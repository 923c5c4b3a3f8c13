"""A pack, opened without being unpacked; it may be anybody's.

======================================  ==============================================================================
member                                  what it is
======================================  ==============================================================================
``pack.json``                           what is in the pack: the last that is written, so that what has it is whole
``ro-crate-metadata.json``              the same for other programs, as RO-Crate 1.1 has it
``runs/UID/documents.jsonl``            ``["name", {...}]`` a line: the documents as they were recorded
``runs/UID/manifest.json``              path, size, time and SHA-256 of each file, by the path that the documents name
``files/...``                           the files as they are, at the whole path that they had
======================================  ==============================================================================

The ``directories`` of ``pack.json`` say which member is which path of the documents: ``{"/": "files"}``, and more where
documents name a disk otherwise than who packed it.
"""

import hashlib
import json
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bluesky_filestore.errors import FileStoreError, PackError, PathError, RunNotFoundError
from bluesky_filestore.files.hdf5 import shared_files
from bluesky_filestore.files.readable import Roots
from bluesky_filestore.model.event_record import from_exact_json
from bluesky_filestore.model.manifest import Manifest
from bluesky_filestore.model.root_map import RootMap
from bluesky_filestore.reading.from_documents import ConfinedDocuments
from bluesky_filestore.visible import visible_line

from .containers import BLOCK, kind_of
from .members import INDEX, MOST_TEXT, FolderMembers, Members, check_name, read_text
from .tar_members import TarMembers
from .zip_members import ZipMembers

__all__ = ["FILES", "FORMAT", "VERSION", "Pack", "PackedRun", "open_pack"]

FORMAT, VERSION = "bluesky_filestore pack", 1
FILES = "files"
"""The directory of the files in a pack."""
_MOST_SHOWN = 60


def open_pack(path: str | Path) -> "Pack":
    """A pack, by whomever: a folder, a .tar or a .zip.

    Parameters
    ----------
    path : str or Path
        The pack.

    Returns
    -------
    Pack
        The runs in it, by uid; to be closed, or used in a with-statement.

    Raises
    ------
    PackError
        If it is none, is not whole, or must not be trusted.

    Examples
    --------
    >>> with open_pack("night.tar") as pack:  # doctest: +SKIP
    ...     run = pack[uid]
    ...     start = next(documents(run))
    """
    return Pack(Path(path))


class Pack(Mapping[str, "PackedRun"]):
    """The runs in a pack, by uid.

    Parameters
    ----------
    path : Path
        Where it is.

    Raises
    ------
    PackError
        If it is none, is not whole, or must not be trusted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.members = _members_of(path)
        self._taking_out, self._out_of = threading.Lock(), dict[str, Path]()
        self._out: tempfile.TemporaryDirectory[str] | None = None
        try:
            index = _parsed(read_text(self.members, INDEX), f"{INDEX} of {path}")
            if index.get("format") != FORMAT or index.get("version") != VERSION:
                raise PackError(
                    f"{path} is of format {_shown(index.get('format'))}, version {_shown(index.get('version'))}; "
                    f"expected {FORMAT!r}, {VERSION}: it is no pack, or a later bluesky_filestore made it."
                )
            self.directories = _directories(index.get("directories"))
            """Which directory of the pack each is that the documents name."""
            self._places = self.root_map("/")
            runs = index.get("runs")
            if not isinstance(runs, list) or not all(isinstance(run, dict) for run in runs):
                raise PackError(f"the runs of {path} are {_shown(runs)}; expected a list of objects.")
            found = [PackedRun(self, run) for run in runs]
            self._runs = {run.uid: run for run in found}
            if len(self._runs) != len(found):
                raise PackError(f"{path} has a run twice; expected each once.")
        except BaseException:
            self.members.close()
            raise

    def __getitem__(self, uid: str) -> "PackedRun":
        """A run by its uid, or the beginning of it."""
        found = [run for known, run in self._runs.items() if uid and known.startswith(uid)]
        if uid in self._runs:
            return self._runs[uid]
        if len(found) != 1:
            raise RunNotFoundError(
                f"{len(found)} runs in {self.path} have a uid that begins with {uid!r}; expected just one of "
                f"{', '.join(self._runs)}."
            )
        return found[0]

    def __contains__(self, uid: object) -> bool:
        return uid in self._runs

    def __iter__(self) -> Iterator[str]:
        return iter(self._runs)

    def __len__(self) -> int:
        return len(self._runs)

    def __repr__(self) -> str:
        return visible_line(f"<Pack of {len(self)} runs in {self.path}>")

    def close(self) -> None:
        """Let go of it, and of what was taken out of it."""
        self.members.close()
        if self._out is not None:
            for path in self._out_of.values():
                shared_files().close_file(str(path))
            self._out.cleanup()
            self._out = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def member_of(self, path: str) -> str:
        """The member that is a file that the documents name.

        Raises
        ------
        PackError
            If it is none of the pack.
        """
        try:
            return check_name(str(self._places.find(path)).removeprefix("/"))
        except PathError as error:
            raise PackError(f"{path!r} is no file of {self.path}: {error}") from error

    def taken_out(self, paths: Iterable[str]) -> Path:
        """A private directory with the members that are these files of the documents, of an archive.

        It is there until the pack is closed. What the pack does not have is not there.

        Raises
        ------
        PackError
            If a member is damaged, or there is no room for them.
        """
        with self._taking_out:
            if self._out is None:
                self._out = tempfile.TemporaryDirectory(prefix="bluesky-filestore-pack-")
            directory = Path(self._out.name)
            (directory / FILES).mkdir(exist_ok=True)
            wanted = [name for name in dict.fromkeys(map(self.member_of, paths)) if self.members.has(name)]
            missing = [name for name in wanted if name not in self._out_of]
            needed, free = sum(map(self.members.size_of, missing)), shutil.disk_usage(directory).free
            if needed > free:
                raise PackError(
                    f"frames are read from files, and those of the run in {self.path} have {needed:,} bytes, of which "
                    f"{directory.parent} has {free:,} free; expected room for them: have TMPDIR name another disk, or "
                    f"unpack it (tar -xf, unzip), and open the folder."
                )
            for name in missing:
                self._take_out(name, directory / name)
        return directory

    def _take_out(self, name: str, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # What was not all written is not known, and written again.
            with self.members.opened(name) as member, path.open("wb") as file:
                shutil.copyfileobj(member, file, BLOCK)
        except FileStoreError:
            raise
        except OSError as error:
            raise PackError(f"{name} cannot be taken out of {self.path} ({error}); expected room for it.") from error
        self._out_of[name] = path

    def root_map(self, directory: str | Path) -> RootMap:
        """Where the directories are that the documents name, if the pack lies in a directory."""
        return RootMap({old: str(Path(directory, new)) for old, new in self.directories.items()})


class PackedRun(ConfinedDocuments):
    """A run in a pack: its documents, as they were recorded, one by one.

    `documents`, `open_array` and `verify_run` take it, and read no file that is not in it. For the latter two the
    files of the run are taken out of a tar or zip, into a private directory, until the pack is closed.
    """

    def __init__(self, pack: Pack, said: Mapping[str, Any]) -> None:
        self.pack = pack
        self.uid, self.member, self.sha256 = (_text(said, name) for name in ("uid", "documents", "documents_sha256"))
        """Its uid; the member with its documents, and what that comes to."""
        self._manifest = _text(said, "manifest")

    def __repr__(self) -> str:
        return visible_line(f"<PackedRun {self.uid} in {self.pack.path}>")

    def manifest(self) -> Manifest:
        """What its files are.

        Raises
        ------
        PackError
            If the pack does not say it.
        """
        try:
            manifest = Manifest.from_json(read_text(self.pack.members, self._manifest))
        except FileStoreError as error:
            raise PackError(f"the manifest of run {self.uid} cannot be read: {error}") from error
        if manifest.uid != self.uid or not manifest.has_checksums:
            raise PackError(
                f"{self._manifest} is of run {_shown(manifest.uid)}; expected that of {self.uid}, with checksums."
            )
        return manifest

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Its documents; that they are those that were packed is known behind the last."""
        digest, number = hashlib.sha256(), 0
        with self.pack.members.opened(self.member) as file:
            while line := file.readline(MOST_TEXT + 1):
                number += 1
                where = f"line {number} of {self.member}"
                if len(line) > MOST_TEXT:
                    raise PackError(f"{where} is longer than {MOST_TEXT:,} bytes; expected fewer.")
                digest.update(line)
                name, doc = _document(line, where)
                if (number == 1) != (name == "start") or (name == "start" and doc.get("uid") != self.uid):
                    raise PackError(f"{where} is a {name}; expected the documents of {self.uid}, from its start on.")
                yield name, doc
        if digest.hexdigest() != self.sha256:
            raise PackError(
                f"the documents of run {self.uid} are not those that were packed; expected those: {self.member} is "
                f"damaged."
            )

    def confinement(self) -> tuple[RootMap, Roots]:
        """Where its files are, and that they have to be in the pack."""
        directory = self.pack.members.directory
        if directory is None:
            directory = self.pack.taken_out(entry.path for entry in self.manifest().entries)
        return self.pack.root_map(directory.absolute()), Roots.of([directory / FILES])


def _parsed(text: bytes, what: str) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PackError(f"{what} is no JSON ({error}); expected an object: the pack is damaged.") from error
    if not isinstance(said, dict):
        raise PackError(f"{what} is {_shown(said)}; expected an object.")
    return said


def _document(line: bytes, what: str) -> tuple[str, dict[str, Any]]:
    try:
        name, doc = from_exact_json(line.decode())
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise PackError(f'{what} is no document ({error}); expected ["name", {{...}}].') from error
    if not isinstance(name, str) or not isinstance(doc, dict):
        raise PackError(f'{what} is no document; expected ["name", {{...}}].')
    return name, doc


def _directories(said: Any) -> dict[str, str]:
    if not isinstance(said, dict) or not all(isinstance(new, str) for new in said.values()):
        raise PackError(f"the directories of the pack are {_shown(said)}; expected an object of texts.")
    for new in said.values():
        if check_name(new).partition("/")[0] != FILES:
            raise PackError(f"a directory of the pack is {new!r}; expected one below {FILES!r}.")
    try:
        RootMap({old: f"/{new}" for old, new in said.items()})
    except PathError as error:
        raise PackError(f"a directory that the pack names is none: {error}") from error
    return said


def _text(said: Mapping[str, Any], name: str) -> str:
    value = said.get(name)
    if not isinstance(value, str) or not value:
        raise PackError(f"{name} of a run in the pack is {_shown(value)}; expected a text.")
    return value if name in ("uid", "documents_sha256") else check_name(value)


def _shown(value: Any) -> str:
    return repr(value)[:_MOST_SHOWN]


def _members_of(path: Path) -> Members:
    kind = kind_of(path)
    try:
        if path.is_dir():
            return FolderMembers(path)
        if not path.exists():
            raise PackError(f"there is no {path}; expected a pack: a folder, a .tar or a .zip.")
        return ZipMembers(path) if kind == "zip" else TarMembers(path)
    except FileStoreError:
        raise
    except Exception as error:
        # What zipfile and tarfile raise for damaged ones has no bounds.
        raise PackError(f"{path} cannot be read as a pack ({error}); expected a folder, a .tar or a .zip.") from error
