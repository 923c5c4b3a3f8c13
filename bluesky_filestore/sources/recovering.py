"""Runs brought back into a catalog that lost them, out of the sidecars beside their files.

=====================================================  =================================================================
a run of a sidecar                                     then
=====================================================  =================================================================
is in the catalog, and this did not bring it there     it is left alone
is not in the catalog                                  it is delivered through a spool, and compared; see `migrating.py`
was begun by an earlier `recover`, which was killed    the same: what is there already stays
has two sidecars that say different things             it is refused: nobody can tell which is right
=====================================================  =================================================================

Where files lie elsewhere than when the sidecar was written, the documents get the paths of now. Which runs were begun
is remembered in a file, `begun`, in the directory that is kept for the catalog; a run is struck off it when the catalog
has all of it, manifest included.
"""

import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from bluesky_filestore.bundles.manifests import keep_manifest
from bluesky_filestore.bundles.sidecars import Sidecar, read_sidecar, sidecars_below
from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
from bluesky_filestore.catalogs.tiled.nodes import has_ended, has_run
from bluesky_filestore.errors import DocumentError, FileStoreError, PathError, SourceError
from bluesky_filestore.files.readable import Roots
from bluesky_filestore.model.manifest import Manifest, ManifestEntry
from bluesky_filestore.model.paths import FlavouredPath, pure_path, semantics_of
from bluesky_filestore.model.relocations import Relocation, Relocations
from bluesky_filestore.model.root_map import RootMap
from bluesky_filestore.operations.columns import is_node_name
from bluesky_filestore.private import make_private_directory, make_private_file
from bluesky_filestore.reading.document_reader import documents_of
from bluesky_filestore.reading.from_documents import DocumentedRun
from bluesky_filestore.reading.run_files import files_of
from bluesky_filestore.reading.run_tree import RunTree

from .migrating import Migration

__all__ = ["Recovered", "RecoveredState", "recover"]

RecoveredState: TypeAlias = Literal["there", "recovered", "differs", "refused"]

_ENTRIES: Mapping[str, Mapping[str, type]] = {
    "start": {"uid": str},
    "descriptor": {"uid": str, "run_start": str, "name": str, "data_keys": dict},
    "event": {"uid": str, "descriptor": str, "data": dict},
    "resource": {"uid": str},
    "datum": {"datum_id": str, "resource": str},
    "stream_resource": {"uid": str},
    "stream_datum": {"uid": str, "descriptor": str, "stream_resource": str},
    "stop": {"uid": str, "run_start": str},
}
"""What a document has to have, of which kind, so that one can tell of which run it is."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What became of one sidecar."""

    path: Path
    """Where it is."""
    uid: str
    """Its run's; empty if it does not say."""
    state: RecoveredState
    """Whether the catalog had the run, has it now, has something else than the sidecar, or the sidecar is of no use."""
    words: tuple[str, ...] = ()
    """What is otherwise, or why it is refused."""


def recover(
    directory: Path, catalog: TiledCatalog, state: Path, *, root_map: Mapping[str, str] | None = None
) -> Iterator[Recovered]:
    """Bring the runs of the sidecars below a directory into a catalog, those that it lacks.

    Parameters
    ----------
    directory : Path
        Where sidecars are looked for; links that lead out of it are not followed.
    catalog : TiledCatalog
        Where the runs go.
    state : Path
        Where it is remembered how far this has come; one for each catalog.
    root_map : Mapping of str to str, optional
        Where directories are now that documents name; where it says nothing of a run's files, and they are not where
        they were, they are looked for beside the sidecar.

    Yields
    ------
    Recovered
        What became of each sidecar: first of those that are of no use, or whose runs are there, then of the others.

    Raises
    ------
    SourceError
        If there is no such directory, or another process does the same.
    PathError
        If the map is none of absolute directories.
    CatalogError
        If the catalog is away.
    """
    if not directory.is_dir():
        raise SourceError(f"there is no directory {directory}; expected one with the files of runs.")
    make_private_directory(state)
    with _alone(state):
        # What an earlier life has brought back, the catalog may have lost since.
        shutil.rmtree(state / "migration", ignore_errors=True)
        lost = _LostRuns(directory, catalog, state / "begun", dict(root_map or {}))
        yield from lost.look()
        with closing(Migration(lost, catalog, state / "migration")) as migration:
            for copied in migration.copy():
                words = copied.differences
                if copied.state != "failed":
                    words = (*words, *lost.end(copied.uid))
                yield Recovered(lost.paths[copied.uid], copied.uid, "differs" if words else "recovered", words)


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    make_private_file(state / "lock")
    with (state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SourceError(f"another process recovers runs by {state}; expected none: wait for it.") from None
        yield


class _LostRuns:
    """The runs of sidecars that are to be brought back; a `bluesky_filestore.sources.databroker.Runs`.

    Sidecars are read twice, to know of which run they are and to deliver it: those of a whole beamline are many.
    """

    faults: Sequence[str] = ()
    """Nothing: `look` says what became of each sidecar."""

    def __init__(self, directory: Path, catalog: TiledCatalog, begun: Path, root_map: dict[str, str]) -> None:
        self._directory, self._catalog, self._root_map = directory.resolve(), catalog, root_map
        RootMap(root_map)
        self._roots = Roots.of([directory])
        self._begun_at = begun
        self._begun: set[str] = set(json.loads(begun.read_text())) if begun.exists() else set()
        self.paths: dict[str, Path] = {}
        """The sidecar of each run that is to be brought back."""

    def look(self) -> Iterator[Recovered]:
        """Find out which runs are lost; what became of the other sidecars."""
        found: dict[str, dict[str, list[Path]]] = {}
        times: dict[str, float] = {}
        for path in sidecars_below(self._directory):
            try:
                sidecar = read_sidecar(path, self._roots)
                _check(sidecar)
            except (FileStoreError, OSError) as error:
                yield Recovered(path, "", "refused", (str(error).rstrip("."),))
                continue
            uid, time = sidecar.manifest.uid, sidecar.documents[0][1].get("time")
            times[uid] = float(time) if isinstance(time, int | float) else 0.0
            found.setdefault(uid, {}).setdefault(sidecar.digest, []).append(path)
        for uid in sorted(found, key=lambda uid: (times[uid], uid)):
            yield from self._sort_out(uid, found[uid])

    def _sort_out(self, uid: str, paths: Mapping[str, list[Path]]) -> Iterator[Recovered]:
        each = [path for alike in paths.values() for path in alike]
        client = self._catalog.connect()
        if uid not in self._begun and has_run(client, uid):
            words = () if has_ended(client, uid) else ("it is in the catalog, not to its end, and is left as it is",)
            yield from (Recovered(path, uid, "there", words) for path in each)
        elif len(paths) > 1:
            words = (f"sidecars of run {uid} say different things: {', '.join(map(str, each))}; expected equal ones",)
            yield from (Recovered(path, uid, "refused", words) for path in each)
        else:
            self.paths[uid] = each[0]

    def count(self) -> int:
        """How many there are."""
        return len(self.paths)

    def uids(self) -> Iterator[str]:
        """Their uids, oldest first; each is remembered as begun before it is handed on."""
        for uid in self.paths:
            self._remember(self._begun | {uid})
            yield uid

    def documents_of(self, run: str) -> Iterator[tuple[str, Any]]:
        """The documents of one, with the paths of now."""
        sidecar = read_sidecar(self.paths[run], self._roots)
        moved = Relocations((self._moves(sidecar),))
        for name, doc in sidecar.documents:
            yield name, moved.document(name, doc)

    def close(self) -> None:
        """Nothing: a sidecar is closed when it has been read."""

    def end(self, uid: str) -> tuple[str, ...]:
        """Have the catalog keep the manifest of a run that it has now; what of it cannot be kept, in words."""
        sidecar = read_sidecar(self.paths[uid], self._roots)
        moves, node = self._moves(sidecar), self._catalog.connect()[uid]
        entries = (
            ManifestEntry(_moved(entry.path, moves), entry.size, entry.modified_ns, entry.sha256)
            for entry in sidecar.manifest.entries
        )
        try:
            manifest = Manifest(uid, tuple({entry.path: entry for entry in entries}.values()))
            tree = RunTree(node)
            documented = DocumentedRun(documents_of(tree), RootMap())
            words = keep_manifest(node, tree, documented.external, files_of(documented), manifest)
        except (DocumentError, OSError) as error:
            return (f"its manifest is not in the catalog: {error}",)
        self._remember(self._begun - {uid})
        return tuple(words)

    def _remember(self, begun: set[str]) -> None:
        self._begun = begun
        unfinished = self._begun_at.with_suffix(".unfinished")
        make_private_file(unfinished)
        unfinished.write_text(json.dumps(sorted(begun)))
        unfinished.replace(self._begun_at)

    def _moves(self, sidecar: Sidecar) -> Relocation:
        """Where directories of a run's documents are now."""
        known = Relocation(self._root_map)
        steps = list(_steps(sidecar))
        for entry in sidecar.manifest.entries:
            try:
                path = pure_path(entry.path, semantics_of(entry.path))
            except PathError:
                continue
            if known.find(path) != path or Path(path).exists():
                continue
            for old, new in steps:
                if type(old) is type(path) and path.is_relative_to(old) and (new / path.relative_to(old)).exists():
                    known = Relocation({**known.roots, str(old): str(new)})
                    break
        return known


def _steps(sidecar: Sidecar) -> Iterator[tuple[FlavouredPath, Path]]:
    """The directory of a sidecar then and now, and those above as far as they have the same names, but for a root."""
    try:
        old = pure_path(sidecar.directory, semantics_of(sidecar.directory))
    except PathError:
        return
    new = sidecar.path.parent
    while old.parent != old:
        yield old, new
        if old.name != new.name or new.parent == new:
            return
        old, new = old.parent, new.parent


def _moved(path: str, moves: Relocation) -> str:
    try:
        return str(moves.find(path))
    except PathError:
        return path


def _check(sidecar: Sidecar) -> None:
    """Refuse a sidecar whose documents are not those of one run, each with what tells so.

    Raises
    ------
    DocumentError
        If it is one.
    """
    uid, descriptors = sidecar.manifest.uid, set[str]()
    if not is_node_name(uid):
        raise DocumentError(f"{sidecar.path} is of run {uid!r}, which no catalog can have; expected another uid.")
    for number, (name, doc) in enumerate(sidecar.documents, 1):
        where = f"{sidecar.path}, line {number}: a {name}"
        for entry, kind in _ENTRIES.get(name, {"": str}).items():
            if not isinstance(doc.get(entry), kind):
                raise DocumentError(
                    f"{where} has the {entry or 'name'} {doc.get(entry, name)!r:.80}; expected a {kind.__name__}."
                )
        if doc.get("run_start", uid) != uid or doc.get("descriptor", uid) not in {uid, *descriptors}:
            raise DocumentError(f"{where} is of another run than {uid}; expected the documents of one.")
        if name == "descriptor":
            descriptors.add(doc["uid"])
        if name == "stop" and number < len(sidecar.documents):
            raise DocumentError(f"{where} is followed by other documents; expected it to be the last.")
