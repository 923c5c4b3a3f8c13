"""What becomes a member of a pack."""

import json
import posixpath
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from bluesky_filestore.errors import MissingFileError, PackError, PathError
from bluesky_filestore.files.checksums import sha256_of
from bluesky_filestore.model.event_record import exact_json
from bluesky_filestore.model.manifest import Manifest, ManifestEntry
from bluesky_filestore.model.paths import pure_path, semantics_of
from bluesky_filestore.model.root_map import RootMap
from bluesky_filestore.private import make_private_file
from bluesky_filestore.reading.from_documents import DocumentedRun, Documents
from bluesky_filestore.reading.run_files import RunFile, find_files

from .crate import Crate
from .members import INDEX, MOST_TEXT
from .packs import FILES, FORMAT, VERSION
from .partial_pack import Member, changed_file

__all__ = ["Plan", "document_lines"]

_MOST_NAMED = 5


def document_lines(pairs: Documents) -> Iterator[bytes]:
    """Documents as they stand in a pack."""
    for name, doc in pairs:
        line = f"{exact_json([name, doc])}\n".encode()
        if len(line) > MOST_TEXT:
            raise PackError(f"a {name} has {len(line):,} bytes as JSON; expected at most {MOST_TEXT:,} in a pack.")
        yield line


class Plan:
    """What becomes a member, run by run, in the order in which it is written."""

    def __init__(self, root_map: RootMap, aside: Path, *, allow_missing: bool) -> None:
        self.sizes: dict[str, int] = {}
        """The members that are files, and how many bytes they have."""
        self.notes: list[str] = []
        self._root_map, self._aside, self._allow_missing = root_map, aside, allow_missing
        self._directories: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._places = RootMap()
        self._runs: list[dict[str, str]] = []
        self._crate = Crate()
        self._latest = 0

    def members_of(
        self, uid: str, pairs: Documents, manifest: Manifest | None, sha256: Mapping[str, str]
    ) -> Iterator[Member]:
        """A run's; what was written is in `sha256` before the next is asked for."""
        known = manifest.by_path if manifest is not None else {}
        documented, starts = self._documented(pairs)
        if documented.uid != uid:
            raise PackError(f"the documents of run {uid!r} are those of {documented.uid!r}; expected one run.")
        moment = int(float(starts.get("time") or 0) * 10**9)
        self._latest = max(self._latest, moment)
        if documented.stop is None:
            self.notes.append(f"run {uid} has no stop document: it is going on, or was cut short")
        files = self._files_of(documented)
        directory = f"runs/{quote(uid, safe='')}"
        of_documents, of_manifest = f"{directory}/documents.jsonl", f"{directory}/manifest.json"
        yield Member.of_file(of_documents, str(self._aside), moment, sha256_of(str(self._aside)))
        entries = []
        for file, here in files:
            before = known.get(file.path)
            member = Member.of_file(self._name_of(file, here), here, sha256=before.sha256 if before else "")
            if before is not None and before.size != member.size:
                raise changed_file(here, f"it has {member.size:,} bytes, and had {before.size:,}")
            if member.name not in self.sizes:
                yield member
                self.sizes[member.name] = member.size
                self._crate.add_file(member.name, member.size, member.modified_ns, sha256[member.name])
            entries.append(ManifestEntry(file.path, member.size, member.modified_ns, sha256[member.name]))
        text = json.dumps(Manifest(uid, tuple(entries)).to_json(), indent=1).encode()
        if len(text) > MOST_TEXT:
            raise PackError(f"the manifest of run {uid} has {len(text):,} bytes; expected at most {MOST_TEXT:,}.")
        yield Member.of_text(of_manifest, text, moment)
        self._crate.add_run(uid, starts, of_documents, of_manifest, [self._name_of(*each) for each in files])
        said = {"uid": uid, "documents": of_documents, "documents_sha256": sha256[of_documents]}
        self._runs.append({**said, "manifest": of_manifest})

    def closing_members(self) -> Iterator[Member]:
        """What tells of all of it; with the last of them the pack is whole."""
        astray = [path for path in self._names if not self._finds(path, self._names[path].removeprefix(FILES))]
        if astray:
            raise PackError(
                f"{astray[0]} is one file for one run, or one link, and another for another; expected one place for "
                f"it: pack the runs one by one."
            )
        yield Member.of_text("ro-crate-metadata.json", self._crate.to_json(self._latest), self._latest)
        index = {
            "format": FORMAT,
            "version": VERSION,
            "runs": self._runs,
            "directories": self._directories,
            "notes": self.notes,
        }
        yield Member.of_text(INDEX, json.dumps(index, indent=1).encode(), self._latest)

    def _documented(self, pairs: Documents) -> tuple[DocumentedRun, Mapping[str, Any]]:
        """What the documents come to, which are put aside meanwhile: a tar has to know how long they are."""
        start: dict[str, Any] = {}

        def looked_at(file: IO[bytes]) -> Documents:
            for name, doc in pairs:
                start.update(doc if name == "start" else {})
                file.writelines(document_lines([(name, doc)]))
                yield name, doc

        make_private_file(self._aside)
        with self._aside.open("wb") as file:
            return DocumentedRun(looked_at(file), self._root_map), start

    def _files_of(self, documented: DocumentedRun) -> list[tuple[RunFile, str]]:
        found = find_files(documented)
        self.notes += [f"run {documented.uid}: {words}" for words in found.problems]
        missing = [file.path for file in found.files if file.here is None or not Path(file.here).is_file()]
        if missing:
            shown = ", ".join(missing[:_MOST_NAMED]) + (", ..." if len(missing) > _MOST_NAMED else "")
            words = f"{len(missing):,} files of run {documented.uid} are not there: {shown}"
            if not self._allow_missing:
                raise MissingFileError(
                    f"{words}; expected all of them: say where their disk is (root_map), or pack the rest "
                    f"(allow_missing)."
                )
            self.notes.append(words)
        for source in documented.assets.sources.values():
            # Where the documents look for files that are not there, too.
            with suppress(PathError):
                self._know(str(source.path), str(self._root_map.find_here(source.path)))
        left_out = set(missing)
        return [(file, file.here) for file in found.files if file.here is not None and file.path not in left_out]

    def _name_of(self, file: RunFile, here: str) -> str:
        """The member that a file is: at the whole path that it has here, so that those that lead to it find it."""
        if file.path not in self._names:
            self._know(file.path, here)
            self._names[file.path] = _member_at(here)
        return self._names[file.path]

    def _know(self, documented: str, here: str) -> None:
        """Have the directories say which member a path of the documents is."""
        if self._finds(documented, here):
            return
        old, new = pure_path(documented, semantics_of(documented)), pure_path(f"/{_member_at(here)}", "posix")
        whole = old, new
        while old.name and old.name == new.name and len(new.parts) > 2:
            old, new = old.parent, new.parent
        if str(old) in self._directories:
            old, new = whole
        self._directories[str(old)] = str(new).removeprefix("/")
        self._places = RootMap({old: f"/{new}" for old, new in self._directories.items()})

    def _finds(self, documented: str, here: str) -> bool:
        return posixpath.normpath(str(self._places.find(documented))) == f"/{_member_at(here)}"


def _member_at(here: str) -> str:
    return FILES + posixpath.normpath(here)
