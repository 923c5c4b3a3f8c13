"""Whether the bytes of a run's files are those that its manifest knows."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from bluesky_filestore.bundles.manifests import manifest_of
from bluesky_filestore.bundles.packs import PackedRun
from bluesky_filestore.bundles.sidecars import read_sidecar, sidecar_name
from bluesky_filestore.errors import (
    ChangedFileError,
    ChangingFileError,
    FileStoreError,
    ForbiddenFileError,
    LockedFileError,
    ManifestError,
    MissingFileError,
    PathError,
)
from bluesky_filestore.files.readable import ANYWHERE, Roots
from bluesky_filestore.model.manifest import Manifest
from bluesky_filestore.model.root_map import RootMap
from bluesky_filestore.reading.from_documents import DocumentedRun
from bluesky_filestore.reading.run_files import RunFile, entry_of, find_files
from bluesky_filestore.reading.run_tree import RunTree

from .run_report import RunFinding, together

__all__ = ["compare_checksums"]

_NOT_SEEN = (ChangingFileError, ForbiddenFileError, LockedFileError, PathError)
_CHANGED = "Keep every copy of it; bring back the file that was written"
_MAKE = "As long as the files are good: bluesky-filestore manifest"
_LOOK_ELSEWHERE = "Look again from a machine that sees it, or say with root_map (--root-map) where it is"
_MOST_NAMED = 3


def compare_checksums(
    uid: str,
    root_map: RootMap,
    documented: DocumentedRun | None,
    tree: RunTree | None,
    packed: PackedRun | None = None,
) -> Iterator[RunFinding]:
    """Read each file of a run, and compare it with the manifest of its catalog, its pack, or the sidecar at its files.

    Parameters
    ----------
    uid : str
        The run's.
    root_map : RootMap
        Where its files are now.
    documented : DocumentedRun, optional
        Its documents, if there are such; without, its files are those of the manifest.
    tree : RunTree, optional
        Where it is in a catalog, if it is.
    packed : PackedRun, optional
        The same, of a run that is in a pack.
    """
    roots = documented.roots if documented is not None else ANYWHERE
    found = find_files(documented, roots=roots) if documented is not None else None
    files = found.files if found is not None else []
    for problem in found.problems if found is not None else ():
        yield _line(None, f"not all of its files are known: {problem}")
    try:
        manifest = packed.manifest() if packed is not None else _manifest(uid, files, tree)
    except (FileStoreError, OSError) as error:
        yield _line(None, f"its manifest cannot be used: {str(error).rstrip('.')}", _MAKE)
        return
    if manifest is None:
        if files or documented is None:
            yield _line(None, "there is no manifest, so that nobody knows what was in its files", f"{_MAKE} {uid}")
        return
    unknown = [file.path for file in files if file.path not in manifest.by_path]
    if unknown:
        yield _line(None, f"{len(unknown):,} files are not in the manifest: {_named(unknown)}", f"{_MAKE} {uid}")
    named = {file.path for file in files}
    # What a file led to when it was described is the run's, wherever it leads now.
    places = documented.root_map if documented is not None else root_map
    others = [RunFile(path, _here(path, places), {}) for path in manifest.by_path if path not in named]
    yield from _compared([*(file for file in files if file.path in manifest.by_path), *others], manifest, roots)


def _compared(files: Sequence[RunFile], manifest: Manifest, roots: Roots) -> Iterator[RunFinding]:
    same, size, without, wrong = 0, 0, list[str](), list[tuple[RunFinding, type[Exception]]]()
    for file in files:
        then = manifest.by_path[file.path]
        try:
            # A file of another size need not be read.
            now = entry_of(file, checksums=False, known=None, roots=roots)
            if not then.compare(now):
                now = entry_of(file, checksums=bool(then.sha256), known=None, roots=roots)
        except (FileStoreError, OSError) as error:
            wrong.append((_unread(file, error), type(error)))
            continue
        changed = then.compare(now)
        if changed:
            wrong.append((_of_file(False, file, f"{file.path}: {changed}", _CHANGED), ChangedFileError))
        elif not then.sha256:
            without.append(file.path)
        else:
            same, size = same + 1, size + now.size
    yield from together(wrong)
    if without:
        words = f"of {len(without):,} files the manifest has the size alone, which is as it was: {_named(without)}"
        yield _line(None, words, f"{_MAKE} {manifest.uid}")
    if same:
        yield _line(True, f"{same:,} files, {size:,} bytes, are as they were when the manifest was made")


def _manifest(uid: str, files: Sequence[RunFile], tree: RunTree | None) -> Manifest | None:
    """What the catalog has, or what is in the sidecar beside a file."""
    manifest = manifest_of(uid, tree) if tree is not None else None
    if manifest is not None:
        return manifest
    directories = dict.fromkeys(Path(file.here).parent for file in files if file.here is not None)
    path = next((path for each in directories if (path := each / sidecar_name(uid)).is_file()), None)
    if path is None:
        return None
    manifest = read_sidecar(path).manifest
    if manifest.uid != uid:
        raise ManifestError(f"{path} is of run {manifest.uid!r}; expected {uid!r}.")
    return manifest


def _here(path: str, root_map: RootMap) -> str | None:
    try:
        return str(root_map.find_here(path))
    except PathError:
        return None


def _unread(file: RunFile, error: Exception) -> RunFinding:
    # Of a directory that is not there nobody knows whether it is gone, or not mounted.
    gone = isinstance(error, MissingFileError) and not Path(file.here or "/").parent.is_dir()
    unseen = gone or isinstance(error, _NOT_SEEN)
    words = str(error).rstrip(".")
    return _of_file(None if unseen else False, file, words, _LOOK_ELSEWHERE if unseen else _CHANGED)


def _of_file(ok: bool | None, file: RunFile, words: str, advice: str) -> RunFinding:
    """About one file, with the events of the first array that needs it."""
    for key, rows in file.needed_by.items():
        events = tuple(event for part in rows for event in part)
        return RunFinding("checksums", "/".join(key), ok, words, advice, events=events, file=file.path)
    return RunFinding("checksums", "run", ok, words, advice, file=file.path)


def _line(ok: bool | None, words: str, advice: str = "") -> RunFinding:
    return RunFinding("checksums", "run", ok, words, advice)


def _named(paths: Sequence[str]) -> str:
    return ", ".join(paths[:_MOST_NAMED]) + (", ..." if len(paths) > _MOST_NAMED else "")
