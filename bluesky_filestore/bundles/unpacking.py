"""Runs out of a pack, into a data directory and a catalog.

First come the files, each under another name until it is whole and was read back, then the documents, by a spool of
their own: a catalog never names a file that is not there; at last the manifest, for `verify --checksums`. Who is killed
runs the same again: files that are there with the bytes that the pack's manifest tells of stay, and documents that the
catalog has are not written twice.

Whoever made the pack may have meant harm. Files are written below the directory and nowhere else, none that is there is
written over, and a run whose documents or files lead out of the directory is not delivered.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeAlias

from bluesky_filestore.catalogs.databroker.broker import client_of
from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
from bluesky_filestore.delivery.resuming import deliver_runs
from bluesky_filestore.errors import CatalogError, FileStoreError, PackError, PathError
from bluesky_filestore.files.checksums import sha256_of
from bluesky_filestore.files.readable import Roots
from bluesky_filestore.model.document_differences import differences, singles
from bluesky_filestore.model.manifest import Manifest, ManifestEntry
from bluesky_filestore.model.paths import FlavouredPath, from_uri, join_resource, semantics_of
from bluesky_filestore.model.relocations import Relocations
from bluesky_filestore.model.root_map import RootMap
from bluesky_filestore.reading.document_reader import documents
from bluesky_filestore.reading.from_documents import ConfinedDocuments, DocumentedRun
from bluesky_filestore.reading.run_files import find_files
from bluesky_filestore.reading.run_tree import RunTree
from bluesky_filestore.spool.store import Store

from .containers import BLOCK
from .manifests import keep_manifest, manifest_of
from .packs import FILES, Pack, PackedRun, open_pack
from .partial_pack import OnBytes

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = ["UnpackState", "Unpacked", "unpack"]

UnpackState: TypeAlias = Literal["unpacked", "there", "refused"]
_MOST_WORDS, _AT_ONCE = 20, 50


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What became of one run."""

    uid: str
    """Its uid."""
    state: UnpackState
    """Whether it is in the catalog now, was there before, with the same documents, or is not, or not as it was."""
    words: tuple[str, ...] = ()
    """Why it is refused, or what is otherwise in the catalog."""
    files: int = 0
    """How many files it has in the directory."""
    size: int = 0
    """How many bytes these have."""


def unpack(
    packed: str | Path,
    catalog: "Container | str",
    *,
    into: str | Path,
    uids: str | Sequence[str] = (),
    on_bytes: OnBytes | None = None,
) -> list[Unpacked]:
    """Put the runs of a pack into a data directory and a catalog, and compare what is there then with the pack.

    Each file goes to the path that it had, below the directory, and documents name it there. Killed, it goes on when it
    is called again.

    Parameters
    ----------
    packed : str or Path
        The pack: a folder, a ``.tar`` or a ``.zip``.
    catalog : tiled.client.container.Container or str
        A catalog in Tiled's tree, or its address; its server has to be allowed to read the directory.
    into : str or Path
        The data directory, made if it is not there.
    uids : str or sequence of str
        Which runs, or how they begin; by default all of the pack.
    on_bytes : callable, optional
        Told how many more bytes were written; what it raises ends it.

    Returns
    -------
    list of Unpacked
        One a run. A run that the catalog has already, with other documents, is refused, and the others are unpacked.

    Raises
    ------
    PackError
        If it is no pack, is damaged, or must not be trusted; or if other files are where its files would be.
    RunNotFoundError
        If there is no such run in it.
    CatalogError
        If the catalog does not answer.
    """
    if isinstance(catalog, str):
        from bluesky_filestore.catalogs.tiled.connecting import connect

        client = connect(catalog)
        try:
            return unpack(packed, client, into=into, uids=uids, on_bytes=on_bytes)
        finally:
            client.context.close()
    with open_pack(packed) as pack:
        wanted = [uids] if isinstance(uids, str) and uids else list(uids) or list(pack)
        runs = iter(dict.fromkeys(pack[uid] for uid in wanted))
        target, found = _Target(Path(into).absolute(), pack, on_bytes), list[Unpacked]()
        while batch := list(islice(runs, _AT_ONCE)):
            found += _unpack_runs(batch, client_of(catalog), target)
        return found


def _unpack_runs(runs: list[PackedRun], client: "Container", target: "_Target") -> list[Unpacked]:
    """Some runs, whose documents go into one spool."""
    found: dict[str, Unpacked] = {}
    delivered = []
    with tempfile.TemporaryDirectory(prefix="bluesky-filestore-") as directory:
        with closing(Store(Path(directory))) as store:
            for run in runs:
                found[run.uid] = before = _compared(run, client, target)
                if before.state == "refused":
                    continue
                manifest = run.manifest()
                size = target.write(manifest)
                found[run.uid] = replace(before, files=len(manifest.entries), size=size)
                if before.state == "unpacked":
                    target.check_documents(run)
                    for name, doc in target.moved(run):
                        store.append(name, doc)
                    delivered.append(run)
        parked = deliver_runs(Path(directory), TiledCatalog(client), [run.uid for run in delivered])
    for run in delivered:
        after, why = _compared(run, client, target), parked.get(run.uid, "")
        words = (why, *after.words) if why else after.words
        state: UnpackState = "unpacked" if after.state == "there" and not words else "refused"
        found[run.uid] = replace(found[run.uid], state=state, words=words)
    for run in runs:
        if found[run.uid].state != "refused":
            words = tuple(_keep_manifest(run, client, target))
            found[run.uid] = replace(found[run.uid], words=(*found[run.uid].words, *words))
    return [found[run.uid] for run in runs]


def _keep_manifest(run: PackedRun, client: "Container", target: "_Target") -> list[str]:
    """Have the catalog keep the checksums by which the files were unpacked, where it has none; what it does not."""
    from bluesky_filestore.catalogs.tiled.nodes import find_run

    _, node = find_run(client, run.uid)
    tree, told = RunTree(node), target.moved_manifest(run.manifest())
    try:
        before = manifest_of(run.uid, tree) or Manifest(run.uid, ())
        known = (entry for entry in before.entries if entry.sha256 or entry.path not in told.by_path)
        manifest = told.joined(Manifest(run.uid, tuple(known)))
        documented = DocumentedRun(target.moved(run), RootMap())
        files = find_files(documented, roots=target.roots).files
        return keep_manifest(node, tree, documented.external, files, manifest)
    except CatalogError:
        raise
    except FileStoreError as error:
        return [f"its manifest is not in the catalog: {str(error).rstrip('.')}"]


def _compared(run: PackedRun, client: "Container", target: "_Target") -> Unpacked:
    """What a catalog has of a run: all of it, another one, or nothing or a part, of which it can become unpacked."""
    from bluesky_filestore.catalogs.tiled.nodes import find_run, has_run

    if not has_run(client, run.uid):
        return Unpacked(run.uid, "unpacked", ("it is not in the catalog",))
    _, node = find_run(client, run.uid)
    there = list(singles(documents(node)))
    words = differences(list(singles(target.moved(run))), there)
    if words and not differences(list(map(_without_path, singles(run))), list(map(_without_path, there))):
        return Unpacked(run.uid, "refused", ("it is in the catalog already, with its files in another directory",))
    if not words:
        return Unpacked(run.uid, "there")
    is_part = "stop" not in node.metadata and all(each.endswith("is not in the catalog") for each in words)
    return Unpacked(run.uid, "unpacked" if is_part else "refused", tuple(words[:_MOST_WORDS]))


def _without_path(pair: tuple[str, Any]) -> tuple[str, Any]:
    name, doc = pair
    places = ("root", "resource_path", "path_semantics", "uri") if name in ("resource", "stream_resource") else ()
    return name, {key: value for key, value in doc.items() if key not in places}


class _MovedDocuments(ConfinedDocuments):
    """The documents of a run, as its files are then."""

    def __init__(
        self, run: PackedRun, moved: Callable[[str, Mapping[str, Any]], Mapping[str, Any]], roots: Roots
    ) -> None:
        self._run, self._moved, self._roots = run, moved, roots

    def __iter__(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        return ((name, self._moved(name, doc)) for name, doc in self._run)

    def confinement(self) -> tuple[RootMap, Roots]:
        """They name places of now."""
        return RootMap(), self._roots


class _Target:
    """The directory that files are put into."""

    def __init__(self, directory: Path, pack: Pack, on_bytes: OnBytes | None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory, self._pack, self._on_bytes = directory, pack, on_bytes
        self.roots = Roots.of([directory])
        """Where files may lie."""
        places = {old: str(directory / new.removeprefix(FILES).lstrip("/")) for old, new in pack.directories.items()}
        self._relocations = Relocations((RootMap(places),))

    def moved(self, run: PackedRun) -> "_MovedDocuments":
        """The documents of a run, with the paths of its files in the directory."""
        return _MovedDocuments(run, self._moved, self.roots)

    def moved_manifest(self, manifest: Manifest) -> Manifest:
        """The manifest of a run, with the paths of its files in the directory."""
        entries = (replace(entry, path=str(self._relocations.find(entry.path))) for entry in manifest.entries)
        return Manifest(manifest.uid, tuple({entry.path: entry for entry in entries}.values()))

    def write(self, manifest: Manifest) -> int:
        """Have the files of a run in the directory; how many bytes they have."""
        wanted = {self._path_of(entry): entry for entry in manifest.entries}
        for entry in wanted.values():
            member = self._pack.member_of(entry.path)
            if self._pack.members.size_of(member) != entry.size:
                raise PackError(f"{member} of the pack has not {entry.size:,} bytes; expected them: it is damaged.")
        missing = {path: entry for path, entry in wanted.items() if not self._is_there(path, entry)}
        needed, free = sum(entry.size for entry in missing.values()), shutil.disk_usage(self._directory).free
        if needed > free:
            raise PackError(f"run {manifest.uid} needs {needed:,} bytes in {self._directory}, which has {free:,} free.")
        for path, entry in missing.items():
            try:
                self._write(path, entry)
            except FileStoreError:
                raise
            except OSError as error:
                raise PackError(
                    f"{path} cannot be written ({error.strerror}); expected a place for the file."
                ) from error
        # Before a catalog names them.
        os.sync()
        return sum(entry.size for entry in wanted.values())

    def check_documents(self, run: PackedRun) -> None:
        """Raise `PackError` where documents, or the files that they name, lead out of the directory."""
        found = find_files(DocumentedRun(self.moved(run), RootMap()), roots=self.roots)
        outside = list(found.outside)
        for file in found.files:
            if file.here is not None and (not file.led_from or os.path.lexists(file.here)):
                try:
                    self.roots.admit(file.here)
                except FileStoreError as error:
                    outside.append(f"{file.led_from or 'its documents'}: {error}")
        if outside:
            raise PackError(
                f"run {run.uid} is not delivered, since a file outside of {self._directory} is named by {outside[0]} "
                f"What was unpacked stays there; expected files of the pack alone."
            )

    def _path_of(self, entry: ManifestEntry) -> Path:
        name = self._pack.member_of(entry.path)
        if not name.startswith(f"{FILES}/"):
            raise PackError(f"{entry.path!r} is {name} in the pack; expected a member below {FILES!r}.")
        return self._directory / name.removeprefix(f"{FILES}/")

    def _is_there(self, path: Path, entry: ManifestEntry) -> bool:
        if not os.path.lexists(path):
            return False
        is_file = path.is_file() and path.stat().st_size == entry.size
        if is_file and sha256_of(str(path), roots=self.roots) == entry.sha256:
            return True
        raise PackError(
            f"{path} is there, and is another file than that of the pack; expected none, or the same: unpack into "
            f"another directory, or move it away."
        )

    def _write(self, path: Path, entry: ManifestEntry) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A link that leads away may be among the directories that were there.
        self.roots.admit(str(path.parent))
        new = path.with_name(f".unpacking-{hashlib.sha256(path.name.encode()).hexdigest()[:16]}")
        new.unlink(missing_ok=True)
        with self._pack.members.opened(self._pack.member_of(entry.path)) as source, new.open("xb") as file:
            digest = self._copy(source, file, entry.size)
        if digest != entry.sha256 or sha256_of(str(new)) != entry.sha256:
            new.unlink()
            raise PackError(
                f"{entry.path} in the pack has other bytes than were packed; expected those of SHA-256 {entry.sha256}: "
                f"the pack is damaged."
            )
        os.utime(new, ns=(entry.modified_ns, entry.modified_ns))
        new.rename(path)

    def _copy(self, source: IO[bytes], file: IO[bytes], size: int) -> str:
        """Copy no more than a size; the digest of what was copied, and of what would be more."""
        digest, left = hashlib.sha256(), size
        while block := source.read(min(BLOCK, left + 1)):
            digest.update(block)
            file.write(block[:left])
            left -= len(block)
            if left < 0:
                break
            if self._on_bytes is not None:
                self._on_bytes(len(block))
        return digest.hexdigest()

    def _moved(self, name: str, doc: Mapping[str, Any]) -> Mapping[str, Any]:
        """A document, if it does not lead out of the directory."""
        try:
            moved = self._relocations.document(name, doc)
            if name in ("resource", "stream_resource") and (path := _path_of(moved)) is not None:
                is_here = ".." not in path.parts and path.is_relative_to(self._directory)
                # Of a disk of Windows nobody has a file here, and nobody will take it for one.
                if not is_here and semantics_of(path) == "posix":
                    raise PackError(
                        f"a {name} of the pack names {str(path)!r}; expected a file of the pack, below "
                        f"{sorted(self._pack.directories)}."
                    )
        except (KeyError, TypeError, AttributeError) as error:
            raise PackError(f"a {name} of the pack does not say where its file is ({error!r}).") from error
        return moved


def _path_of(doc: Mapping[str, Any]) -> FlavouredPath | None:
    """Where the files of a resource are; None if it names no place on a disk."""
    try:
        if "uri" in doc:
            return from_uri(doc["uri"])
        return join_resource(doc.get("root") or "", doc["resource_path"], doc.get("path_semantics") or "posix")
    except PathError:
        return None
