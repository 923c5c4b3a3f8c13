"""The files of a run: those that its documents name, and those that these lead to; and the manifest of them."""

import ntpath
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any, TypeAlias

import numpy as np

from bluesky_filestore.errors import DocumentError, FileStoreError, ForbiddenFileError, MissingFileError, PathError
from bluesky_filestore.files.checksums import digest_of
from bluesky_filestore.files.hdf5_links import linked_files
from bluesky_filestore.files.readable import ANYWHERE, Roots, signature_of
from bluesky_filestore.model.addressing import HandledPart
from bluesky_filestore.model.asset_paths import path_of_asset
from bluesky_filestore.model.frame_map import Source, Span
from bluesky_filestore.model.manifest import Manifest, ManifestEntry
from bluesky_filestore.model.paths import FlavouredPath, is_absolute, pure_path, semantics_of
from bluesky_filestore.model.root_map import RootMap
from bluesky_filestore.model.specs import JPEG_SERIES, NPY_SERIES, TIFF_SERIES
from bluesky_filestore.operations.forms import MOST_FILES

from .from_documents import DocumentedRun

__all__ = ["FilesOfRun", "RunFile", "entry_of", "files_of", "find_files", "find_registered", "make_manifest"]

_Key: TypeAlias = tuple[str, str]
_Rows: TypeAlias = "tuple[range, ...]"

_LEAD_NOWHERE = (TIFF_SERIES, NPY_SERIES, JPEG_SERIES)


@dataclass(frozen=True, slots=True)
class RunFile:
    """One file."""

    path: str
    """As the documents name it; of one that another file leads to, as that names it, beside itself or absolute."""
    here: str | None
    """Where it is for this machine, if it can be here: whether it is there nobody has looked."""
    needed_by: Mapping[_Key, _Rows]
    """The stream and data key of each array that needs it, and which rows of it; empty if no event does."""
    led_from: str = ""
    """The path of the file that leads to it, if no document names it."""


@dataclass(frozen=True, slots=True)
class FilesOfRun:
    """What is known of a run's files."""

    files: list[RunFile]
    """Each file once."""
    problems: list[str]
    """Of which files it cannot be told which they are, and why."""
    outside: list[str]
    """Those of them that are so because something leads outside the directories that may be read."""


def files_of(documented: DocumentedRun, *, roots: Roots = ANYWHERE) -> list[RunFile]:
    """The files of a run, each once; see `find_files`."""
    return find_files(documented, roots=roots).files


def find_files(documented: DocumentedRun, *, roots: Roots = ANYWHERE) -> FilesOfRun:
    """The files of a run, whether they are there or not, and those that they lead to as far as they are.

    These are the files of virtual datasets, external links and external storage, and those that the handler of a spec
    names. Of a spec that nobody knows it is the file of its path; what is in a directory is not known then.

    Parameters
    ----------
    documented : DocumentedRun
        The run.
    roots : Roots
        Where files may lie that are looked into.

    Raises
    ------
    DocumentError
        If the documents claim more files than any run has.
    """
    finder = _Finder(documented.root_map, roots)
    finder.find(documented)
    return finder.all()


def find_registered(assets: Mapping[_Key, Iterable[str]], root_map: RootMap) -> FilesOfRun:
    """The files of a run by the assets of its arrays, where a catalog has no documents of it; else as `find_files`."""
    finder = _Finder(root_map, ANYWHERE)
    for key, uris in assets.items():
        for uri in uris:
            finder.note_asset(key, uri)
    return finder.all()


def make_manifest(
    documented: DocumentedRun,
    *,
    checksums: bool = True,
    known: Manifest | None = None,
    on_bytes: Callable[[int], None] | None = None,
    on_problem: Callable[[RunFile, FileStoreError], None] | None = None,
    roots: Roots = ANYWHERE,
) -> Manifest:
    """What the files of a run are like now.

    Parameters
    ----------
    documented : DocumentedRun
        The run.
    checksums : bool
        Whether they are read for their checksums.
    known : Manifest, optional
        What they were like before: a file of the same size and time is not read again.
    on_bytes : callable, optional
        Told how many more bytes were read; what it raises ends it.
    on_problem : callable, optional
        Given each file that cannot be looked at, and why; it is left out. Without, that is raised.
    roots : Roots
        Where files may lie.

    Raises
    ------
    DocumentError
        As `find_files`.
    UnreadableFileError, PathError
        If a file cannot be read, and there is no `on_problem`.
    """
    before = known.by_path if known is not None else {}
    entries = []
    for file in files_of(documented, roots=roots):
        try:
            entries.append(
                entry_of(file, checksums=checksums, known=before.get(file.path), on_bytes=on_bytes, roots=roots)
            )
        except FileStoreError as error:
            if on_problem is None:
                raise
            on_problem(file, error)
    return Manifest(documented.uid, tuple(entries))


def entry_of(
    file: RunFile,
    *,
    checksums: bool,
    known: ManifestEntry | None,
    on_bytes: Callable[[int], None] | None = None,
    roots: Roots = ANYWHERE,
) -> ManifestEntry:
    """What one file is like now; the rest is as `make_manifest`."""
    if file.here is None:
        raise PathError(f"file {file.path} is none of this machine; say where its disk is here: root_map={{...}}.")
    found, sha256 = signature_of(roots.admit(file.here)), ""
    if checksums:
        if known is not None and known.sha256 and (known.size, known.modified_ns) == (found.size, found.modified):
            return known
        sha256, found = digest_of(file.here, roots=roots, on_bytes=on_bytes)
    elif not Path(file.here).is_file():
        raise MissingFileError(f"{file.here} is not a file; expected one with data of the run.")
    return ManifestEntry(file.path, found.size, found.modified, sha256)


@dataclass(slots=True)
class _Found:
    """A file, while they are looked for."""

    here: str | None
    may_lead: bool
    led_from: str = ""
    rows: dict[_Key, list[range]] = field(default_factory=dict)

    def add(self, key: _Key, rows: range) -> None:
        """Know that an array needs it for some rows."""
        known = self.rows.setdefault(key, [])
        if known and known[-1].stop == rows.start:
            known[-1] = range(known[-1].start, rows.stop)
        elif rows not in known[-1:]:
            known.append(rows)


class _Finder:
    """Looks for the files of one run: those that are named, then, for `all`, those that they lead to."""

    def __init__(self, root_map: RootMap, roots: Roots) -> None:
        self._root_map, self._roots = root_map, roots
        self._problems, self._outside = list[str](), list[str]()
        self._found: dict[str, _Found] = {}
        self._sources: Mapping[str, Source] = {}

    def all(self) -> FilesOfRun:
        """What was found."""
        self._follow_links()
        files = [
            RunFile(path, each.here, {key: tuple(rows) for key, rows in each.rows.items()}, each.led_from)
            for path, each in self._found.items()
        ]
        return FilesOfRun(files, self._problems, self._outside)

    def note_asset(self, key: _Key, uri: str) -> None:
        """Take a file that is registered; which rows need it is not said."""
        try:
            path = pure_path(path_of_asset(uri), semantics_of(path_of_asset(uri)))
        except FileStoreError as error:
            self._problem(f"{'/'.join(key)}: {str(error).rstrip('.')}")
            return
        here = self._here(path)
        if here is not None and Path(here).is_dir():
            self._problem(f"{path} is a directory; which files of it are the run's, nobody knows")
        else:
            self._note(str(path), here, key, range(0))
            self._found[str(path)].rows.setdefault(key, [])

    def find(self, documented: DocumentedRun) -> None:
        """Go through all that the documents say."""
        arrays, assets = documented.arrays, documented.assets
        self._sources = assets.sources
        known = set(arrays.frames.arrays())
        for old, new in documented.external.items():
            if new not in known:
                continue
            rows, row = arrays.frames.rows(*new), 0
            for span in rows.spans:
                source = self._sources[span.source]
                asked = [rows.datum_kwargs[row + place] for place in range(span.count)] if source.is_handled else []
                each = arrays.files_per_index(*new, source, span.width)
                self._add_span(source, span, each, asked, old, row)
                row += span.count
            for left in arrays.frames.untaken(*new):
                source, span = (
                    self._sources[left.source],
                    Span(left.source, left.start, left.count, left.width, left.width),
                )
                self._add_span(source, span, arrays.files_per_index(*new, source, left.width), [])
        for uid, start, count, kwargs in assets.unused():
            if uid in self._sources:
                source = self._sources[uid]
                each = source.files_per_index or source.frames_per_index or 1
                self._add_span(source, Span(uid, start, count), each, [kwargs or {}])
        for source in self._sources.values():
            if source.template is None and not source.is_handled:
                self._add(source.path, source)
        for uid, reason in assets.unusable.items():
            if assets.documents.get(uid, ("",))[0] in ("resource", "stream_resource"):
                self._problem(f"where the files of resource {uid} are is not known: {reason.rstrip('.')}")

    def _add_span(
        self,
        source: Source,
        span: Span,
        each: int,
        asked: list[Mapping[str, Any]],
        key: _Key | None = None,
        row: int = 0,
    ) -> None:
        """The files of some rows."""
        rows = range(row, row + span.count)
        if source.is_handled:
            for path, here in self._of_handler(source, asked):
                self._note(path, here, key, rows)
            return
        if source.template is None:
            self._add(source.path, source, key, rows)
            return
        if len(self._found) + span.count * span.width * each > MOST_FILES:
            raise DocumentError(
                f"a run claims more than {MOST_FILES:,} files, such as {source.template}; "
                f"expected fewer: its documents are damaged."
            )
        for place, index in enumerate(span.indices()):
            for number in range(index * each, (index + span.width) * each):
                file = type(source.path)(source.template % number)
                self._add(file, source, key, rows[place : place + 1])

    def _add(self, path: FlavouredPath, source: Source, key: _Key | None = None, rows: range = range(0)) -> None:
        here = self._here(path)
        if source.template is None and here is not None and Path(here).is_dir():
            self._problem(f"{path} is a directory; which files of it are the run's, nobody knows")
            return
        self._note(str(path), here, key, rows, may_lead=source.mimetype not in _LEAD_NOWHERE)

    def _note(self, path: str, here: str | None, key: _Key | None, rows: range, *, may_lead: bool = True) -> None:
        found = self._found.setdefault(path, _Found(here, may_lead))
        if key is not None and rows:
            found.add(key, rows)

    def _of_handler(self, source: Source, asked: list[Mapping[str, Any]]) -> Iterable[tuple[str, str | None]]:
        """What the handler of a spec says that it reads."""
        from bluesky_filestore.handlers import handler_registry
        from bluesky_filestore.handlers.handled_frames import HandledFrames

        here = self._here(source.path)
        if here is None or not asked:
            return [(str(source.path), here)]
        try:
            said = source.parameters
            part = HandledPart(0, said["resource_kwargs"], asked, said["directory"])
            made = handler_registry[source.spec]
            frames = HandledFrames(made, source.spec, (here,), (part,), (), np.dtype("u1"), self._roots)
            named = [file for file in dict.fromkeys(frames.files_of(part, asked)) if not Path(file).is_dir()]
        except (FileStoreError, OSError) as error:
            self._problem(f"the handler of {source.spec!r} does not tell the files at {source.path}: {error}", error)
            named = [here] if Path(here).is_file() else []
        else:
            if not named:
                self._problem(f"{source.path} is a directory, of which the handler of {source.spec!r} names no file")
        directory = Path(here).parent
        return [(_named_beside(source.path, posixpath.relpath(file, directory)), file) for file in named]

    def _here(self, path: FlavouredPath) -> str | None:
        try:
            return str(self._root_map.find_here(path))
        except PathError:
            return None

    def _follow_links(self) -> None:
        known = {each.here for each in self._found.values()}
        waiting = list(self._found)
        for path in waiting:
            found = self._found[path]
            for name, here in self._links(found):
                if here not in known:
                    known.add(here)
                    other = _named_beside(pure_path(path, semantics_of(path)), name)
                    self._found.setdefault(other, _Found(here, True, path, found.rows))
                    waiting.append(other)

    def _links(self, found: _Found) -> Iterator[tuple[str, str]]:
        if not found.may_lead or found.here is None or not Path(found.here).is_file():
            return
        try:
            yield from linked_files(found.here, self._roots)
        except (FileStoreError, OSError) as error:
            self._problem(f"where {found.here} leads to is not known: {error}", error)

    def _problem(self, words: str, error: Exception | None = None) -> None:
        if words not in self._problems:
            self._problems.append(words)
            if isinstance(error, ForbiddenFileError):
                self._outside.append(words)


def _named_beside(path: PurePath, name: str) -> str:
    """The file that another names, in the words of that one's path: the same, wherever both are moved together."""
    if is_absolute(name):
        return name
    normalized = ntpath.normpath if isinstance(path, PureWindowsPath) else posixpath.normpath
    return normalized(str(path.parent / name))
