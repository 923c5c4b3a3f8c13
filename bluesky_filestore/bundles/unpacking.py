"""Runs out of a pack, into a data directory and a catalog.

First come the files, each under another name until it is whole and was read back, then the documents, by a spool of
their own: a catalog never names a file that is not there. Who is killed runs the same again: files that are there with
the bytes that the pack's manifest tells of stay, and documents that the catalog has are not written twice.

Whoever made the pack may have meant harm. Files are written below the directory and nowhere else, none that is there is
written over, and a run whose documents or files lead out of the directory is not delivered.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeAlias

from bluesky_filestore.catalogs.databroker.broker import client_of
from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
from bluesky_filestore.delivery.resuming import deliver_runs
from bluesky_filestore.errors import FileStoreError, PackError, PathError, RunNotFoundError
from bluesky_filestore.files.checksums import sha256_of
from bluesky_filestore.files.readable import Roots
from bluesky_filestore.model.document_differences import differences, singles
from bluesky_filestore.model.manifest import Manifest, ManifestEntry
from bluesky_filestore.model.paths import from_uri, is_absolute, join_resource, semantics_of, to_uri
from bluesky_filestore.model.root_map import RootMap
from bluesky_filestore.reading.document_reader import documents
from bluesky_filestore.reading.from_documents import DocumentedRun, Documents
from bluesky_filestore.reading.run_files import files_of
from bluesky_filestore.spool.store import Store

from .containers import BLOCK
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
    return [found[run.uid] for run in runs]


def _compared(run: PackedRun, client: "Container", target: "_Target") -> Unpacked:
    """What a catalog has of a run: all of it, another one, or nothing or a part, of which it can become unpacked."""
    from bluesky_filestore.catalogs.tiled.nodes import find_run

    try:
        found, node = find_run(client, run.uid)
    except RunNotFoundError:
        found = ""
    if found != run.uid:
        return Unpacked(run.uid, "unpacked", ("it is not in the catalog",))
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


class _Target:
    """The directory that files are put into."""

    def __init__(self, directory: Path, pack: Pack, on_bytes: OnBytes | None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory, self._pack, self._on_bytes = directory, pack, on_bytes
        self._roots = Roots.of([directory])
        self._root_map = RootMap(
            {old: str(directory / new.removeprefix(FILES).lstrip("/")) for old, new in pack.directories.items()}
        )

    def moved(self, run: PackedRun) -> Documents:
        """The documents of a run, with the paths of its files in the directory."""
        return ((name, self._moved(name, doc)) for name, doc in run)

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
        documented = DocumentedRun(self.moved(run), RootMap())
        for file in files_of(documented, roots=self._roots):
            if file.here is None or (file.led_from and not os.path.lexists(file.here)):
                continue
            try:
                self._roots.admit(file.here)
            except FileStoreError as error:
                by = f" by {file.led_from}" if file.led_from else ""
                raise PackError(
                    f"run {run.uid} is not delivered: its file {file.path} is named{by} outside of {self._directory}; "
                    f"expected files of the pack alone. What was unpacked stays there."
                ) from error

    def _path_of(self, entry: ManifestEntry) -> Path:
        name = self._pack.member_of(entry.path)
        if not name.startswith(f"{FILES}/"):
            raise PackError(f"{entry.path!r} is {name} in the pack; expected a member below {FILES!r}.")
        return self._directory / name.removeprefix(f"{FILES}/")

    def _is_there(self, path: Path, entry: ManifestEntry) -> bool:
        if not os.path.lexists(path):
            return False
        is_file = path.is_file() and path.stat().st_size == entry.size
        if is_file and sha256_of(str(path), roots=self._roots) == entry.sha256:
            return True
        raise PackError(
            f"{path} is there, and is another file than that of the pack; expected none, or the same: unpack into "
            f"another directory, or move it away."
        )

    def _write(self, path: Path, entry: ManifestEntry) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A link that leads away may be among the directories that were there.
        self._roots.admit(str(path.parent))
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

    def _moved(self, name: str, doc: dict[str, Any]) -> dict[str, Any]:
        try:
            if name == "stream_resource" and "uri" in doc:
                return self._moved_uri(doc)
            return self._moved_path(doc) if name in ("resource", "stream_resource") else doc
        except (PathError, KeyError, TypeError, AttributeError) as error:
            raise PackError(f"a {name} of the pack does not say where its file is: {error!r}") from error

    def _moved_uri(self, doc: dict[str, Any]) -> dict[str, Any]:
        uri = doc["uri"]
        if not uri.startswith("file:"):
            return doc
        found = self._found(str(from_uri(uri)))
        if not Path(found).is_absolute():
            return doc
        return {**doc, "uri": to_uri(found + "/" if uri.endswith("/") else found)}

    def _moved_path(self, doc: dict[str, Any]) -> dict[str, Any]:
        root, below = doc.get("root") or "", doc["resource_path"]
        if not root and not is_absolute(below):
            return doc
        old = join_resource(root, below, doc.get("path_semantics") or "posix")
        found = Path(self._found(str(old)))
        if not found.is_absolute():
            return doc
        # As much of it is left to be the part that keeps its meaning as there was before.
        count = len(Path(below.replace("\\", "/")).parts) if root and not is_absolute(below) else 1
        keeps = 0 < count < len(found.parts) - len(self._directory.parts) + 1
        cut = -count if keeps else -1
        ending = "/" if below.endswith(("/", "\\")) else ""
        moved = {"root": str(Path(*found.parts[:cut])), "resource_path": "/".join(found.parts[cut:]) + ending}
        return {**doc, **moved, "path_semantics": "posix"}

    def _found(self, path: str) -> str:
        """Where a path of the documents is in the directory."""
        found = str(self._root_map.find(path))
        if ".." in Path(found).parts or not Path(found).is_relative_to(self._directory):
            if semantics_of(path) == "windows" and found == path:
                # Nobody has a file of it here, and nobody will take it for one.
                return path
            raise PathError(f"{path!r} is not in the pack; expected a path below {sorted(self._pack.directories)}.")
        return found
