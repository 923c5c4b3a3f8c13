"""The manifest of a run made: what its files are like is looked at, and kept in its catalog and beside them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as replaced
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bluesky_filestore.catalogs.tiled.manifests import MOST_IN_RUN, NodeName, read_manifest, write_manifest
from bluesky_filestore.errors import ChangedFileError, DocumentError, FileStoreError, ManifestError
from bluesky_filestore.model.manifest import Manifest, ManifestEntry
from bluesky_filestore.model.paths import pure_path, semantics_of
from bluesky_filestore.model.relocations import Relocations, relocations_in
from bluesky_filestore.model.root_map import RootMap
from bluesky_filestore.reading.document_reader import documents_of
from bluesky_filestore.reading.from_documents import DocumentedRun
from bluesky_filestore.reading.run_files import FilesOfRun, RunFile, entry_of, find_files, find_registered
from bluesky_filestore.reading.run_tree import RunTree

from .sidecars import write_sidecar

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = ["DescribedFiles", "describe_files", "keep_manifest", "manifest_of"]

_REPLACED = "what the manifest says of it stays; if the file of now is the right one, have it replaced (--replace)"
_MOST_ALIKE = 3


@dataclass(frozen=True, slots=True)
class DescribedFiles:
    """What was made of a run's files."""

    manifest: Manifest
    """What they are like."""
    problems: tuple[str, ...] = ()
    """What could not be looked at, is otherwise than it was, or has no room, in words."""
    sidecar: Path | None = None
    """The file beside them, if one was written."""

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(entry.size for entry in self.manifest.entries)

    def __str__(self) -> str:
        what = "checksums" if self.manifest.has_checksums else "sizes"
        beside = f", and in {self.sidecar}" if self.sidecar is not None else ""
        return f"{what} of {len(self.manifest.entries):,} files, {self.bytes:,} bytes, are in the catalog{beside}"


def describe_files(
    run: "Container",
    *,
    checksums: bool = True,
    sidecar: bool = False,
    replace: bool = False,
    root_map: Mapping[str, str] | None = None,
    known: Manifest | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> DescribedFiles:
    """Keep of each file of a run its path, size, time and SHA-256: in the catalog and, if asked, beside the files.

    A file that is as it was when it was described is not read again, so that this can be done as often as one likes.

    Parameters
    ----------
    run : tiled.client.container.Container
        A run of a catalog that has ended; of one that another writer wrote the files are those that are registered.
    checksums : bool
        Whether files are read for their checksums; without, their sizes and times are kept.
    sidecar : bool
        Whether a file with the run's documents and its manifest is written beside the first of its files.
    replace : bool
        Whether what the catalog says of a file is replaced where the file is another by now.
    root_map : Mapping of str to str, optional
        Where directories are, as for `open_array`.
    known : Manifest, optional
        What is known of files beside what the catalog says.
    on_bytes : callable, optional
        Told how many more bytes were read; what it raises ends it, and nothing is kept.

    Raises
    ------
    DocumentError
        If the run has not ended.
    ManifestError
        If what the catalog has of a manifest cannot be understood.
    CatalogError
        If the catalog does not answer, or does not take it.
    """
    tree = RunTree(run)
    if not {"stop", "notes"} & set(tree.metadata):
        raise DocumentError(f"{run.uri} has not ended; expected a run whose files are complete.")
    uid, moved = str(tree.metadata["start"]["uid"]), RootMap(root_map)
    documents, found, names = _documents_and_files(tree, moved)
    before = manifest_of(uid, tree) or Manifest(uid, ())
    beside = known.by_path if known is not None else {}
    maker = _Maker(checksums, replace, before.by_path, on_bytes, list(found.problems))
    entries = [entry for file in found.files if (entry := maker.entry(file, beside.get(file.path))) is not None]
    # What a file led to when it was described is the run's, whether it leads there now or not.
    manifest = (Manifest(uid, ()) if replace else before).joined(Manifest(uid, tuple(entries)))
    problems = [*maker.all_problems(), *keep_manifest(run, tree, names, found.files, manifest)]
    path = _write_beside(documents, found.files, manifest, problems) if sidecar and found.files else None
    return DescribedFiles(manifest, tuple(problems), path)


def _documents_and_files(
    tree: RunTree, root_map: RootMap
) -> tuple[list[tuple[str, Any]] | None, FilesOfRun, Mapping[tuple[str, str], NodeName]]:
    """The documents of a run, if the catalog has them, its files, and what its arrays are called there."""
    try:
        documents = list(documents_of(tree))
    except DocumentError:
        arrays = _arrays(tree)
        assets = {name: [asset.data_uri for asset in _assets(node)] for name, node in arrays.items()}
        return None, find_registered(assets, root_map), {name: name for name in arrays}
    documented = DocumentedRun(documents, root_map)
    return documents, find_files(documented), documented.external


def _assets(node: Any) -> Sequence[Any]:
    """What an array is made of outside of the catalog."""
    sources = node.data_sources() or ()
    return [asset for source in sources if source.management == "external" for asset in source.assets]


def manifest_of(uid: str, tree: RunTree) -> Manifest | None:
    """The manifest that a catalog has of a run, with the paths that files have now; raises as `read_manifest`."""
    manifest = read_manifest(uid, [tree, *_arrays(tree).values()])
    relocations = Relocations.of(tree.metadata)
    if manifest is None or not relocations:
        return manifest
    moved = (replaced(entry, path=str(relocations.find(entry.path))) for entry in manifest.entries)
    return Manifest(uid, tuple({entry.path: entry for entry in moved}.values()))


def _recorded(path: str, tree: RunTree) -> str:
    """What was the path of a file before its run was relocated: who undoes that has the right manifest, too."""
    for relocation in reversed(relocations_in(tree.metadata)):
        path = str(relocation.find_back(path))
    return path


def keep_manifest(
    run: "Container",
    tree: RunTree,
    names: Mapping[tuple[str, str], NodeName],
    files: Sequence[RunFile],
    manifest: Manifest,
) -> list[str]:
    """Have the catalog keep a manifest of a run; what it has no room for is told in words.

    Parameters
    ----------
    run : tiled.client.container.Container
        The run.
    tree : RunTree
        What is in it.
    names : Mapping
        What the arrays are called in the catalog, by stream and data key.
    files : sequence of RunFile
        Its files, with the arrays that need them.
    manifest : Manifest
        What they are like.

    Raises
    ------
    CatalogError
        If the catalog does not take it.
    """
    arrays = _arrays(tree)
    array_of: dict[str, NodeName] = {}
    for file in files:
        of_file = [name for key in file.needed_by if (name := names[key]) in arrays]
        if of_file:
            array_of[file.path] = of_file[0]
    recorded = {entry.path: _recorded(entry.path, tree) for entry in manifest.entries}
    kept = {recorded[entry.path]: replaced(entry, path=recorded[entry.path]) for entry in manifest.entries}
    of_recorded = {recorded.get(path, path): name for path, name in array_of.items()}
    left = write_manifest(
        getattr(run, "base", run), arrays, Manifest(manifest.uid, tuple(kept.values())), of_recorded.get
    )
    words = (
        f"{len(left):,} files belong to no array of the catalog, such as {left[0]}, and are too many for the run's "
        f"metadata (at most {MOST_IN_RUN:,}): only a sidecar has their checksums"
        if left
        else ""
    )
    return [words] if words else []


@dataclass(slots=True)
class _Maker:
    """Looks at files, one by one."""

    checksums: bool
    replace: bool
    before: Mapping[str, ManifestEntry]
    on_bytes: Callable[[int], None] | None
    problems: list[str] = field(default_factory=list)
    _alike: dict[type[Exception], list[str]] = field(default_factory=dict)

    def all_problems(self) -> list[str]:
        """In words; of more than a few of a kind the first, and how many there are."""
        told = list(self.problems)
        for alike in self._alike.values():
            more = f" (and {len(alike) - 1:,} more files so)"
            told += alike if len(alike) <= _MOST_ALIKE else [alike[0] + more]
        return told

    def _problem(self, kind: type[Exception], words: str) -> None:
        self._alike.setdefault(kind, []).append(words)

    def entry(self, file: RunFile, known: ManifestEntry | None) -> ManifestEntry | None:
        """What a file is like; what it was like before, if it is another and that is not to be replaced."""
        before = self.before.get(file.path)
        try:
            known = before if before is not None and before.sha256 else known
            entry = entry_of(file, checksums=self.checksums, known=known, on_bytes=self.on_bytes)
        except FileStoreError as error:
            self._problem(type(error), str(error).rstrip("."))
            return before
        if before is None or self.replace:
            return entry
        changed = before.compare(entry)
        if changed:
            self._problem(ChangedFileError, f"{file.path}: {changed}; {_REPLACED}")
        # A copy has another time, and who asks for no checksums does not want to lose those that there are.
        return before if changed or (before.sha256 and not entry.sha256) else entry


def _arrays(tree: RunTree) -> dict[NodeName, Any]:
    return {
        (stream, key): child
        for stream in tree.streams
        for key, child in tree.children(stream).items()
        if child.structure_family != "table"
    }


def _write_beside(
    documents: list[tuple[str, Any]] | None, files: list[RunFile], manifest: Manifest, problems: list[str]
) -> Path | None:
    if documents is None:
        problems.append("the catalog does not hold its documents, so that there is no sidecar to be written")
        return None
    first = next((file for file in files if file.here is not None and Path(file.here).is_file()), None)
    if first is None or first.here is None:
        problems.append("none of its files is there, so that there is no place for a sidecar beside them")
        return None
    directory = str(pure_path(first.path, semantics_of(first.path)).parent)
    try:
        return write_sidecar(documents, manifest, Path(first.here).parent, directory)
    except (OSError, ManifestError) as error:
        problems.append(f"no sidecar could be written in {Path(first.here).parent}: {str(error).rstrip('.')}")
        return None
