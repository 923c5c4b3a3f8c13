"""Runs put into a pack, with their files; see `bluesky_filestore.bundles.packs` for what is in one."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bluesky_filestore.catalogs.databroker.broker import client_of
from bluesky_filestore.catalogs.databroker.runs import run_of
from bluesky_filestore.errors import OptionError, PackError, RunNotFoundError
from bluesky_filestore.model.manifest import Manifest
from bluesky_filestore.model.root_map import RootMap
from bluesky_filestore.reading.document_reader import documents, documents_of
from bluesky_filestore.reading.from_documents import Documents
from bluesky_filestore.reading.run_tree import RunTree

from .containers import kind_of
from .manifests import manifest_of
from .packs import PackedRun, open_pack
from .partial_pack import OnBytes, PartialPack, beside, clear_away
from .plan import Plan, document_lines

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = ["Packed", "pack"]


@dataclass(frozen=True, slots=True)
class Packed:
    """What was packed."""

    path: Path
    """The pack."""
    uids: tuple[str, ...]
    """Its runs."""
    files: int
    """How many files of the runs are in it."""
    size: int
    """How many bytes these have."""
    notes: tuple[str, ...] = ()
    """What is not in it, or may not be found again from it."""


def pack(
    catalog: "Container | str | Documents",
    uids: str | Sequence[str] = (),
    *,
    to: str | Path,
    root_map: Mapping[str, str] | None = None,
    allow_missing: bool = False,
    on_bytes: OnBytes | None = None,
) -> Packed:
    """Put runs with their documents, files and checksums into a folder, a ``.tar`` or a ``.zip``.

    Each file is read once, and what was written is read back and compared; and with the checksum that the catalog has
    of it, if it has one. Killed, it goes on when it is called again.

    Parameters
    ----------
    catalog : tiled.client.container.Container, str, or iterable of tuple of str and Mapping
        A catalog, or its address; or the documents of one run.
    uids : str or sequence of str
        The runs, or how they begin; of documents it may be left out.
    to : str or Path
        The pack; what its name ends in says what it is. It must not be there.
    root_map : Mapping of str to str, optional
        Where directories are now, as for `open_array`.
    allow_missing : bool
        Whether files may be missing; they are among the notes then. By default that is an error.
    on_bytes : callable, optional
        Told how many more bytes were written; what it raises ends it.

    Returns
    -------
    Packed
        What is in the pack.

    Raises
    ------
    PackError
        If there is another pack already, or a file cannot be in one.
    MissingFileError
        If a file of a run is not there.
    UnreadableFileError
        If one cannot be read, is written to meanwhile, or is not the one whose checksum the catalog has.
    RunNotFoundError, CatalogError, DocumentError
        If the documents of a run cannot be had.
    """
    path = Path(to)
    kind = kind_of(path)
    with _runs(catalog, [uids] if isinstance(uids, str) else list(uids)) as runs:
        meant = list(runs)
        if os.path.lexists(path):
            return _done_already(path, runs)
        if not path.absolute().parent.is_dir():
            raise PackError(f"there is no directory {path.absolute().parent}; expected one for the pack: make it.")
        plan = Plan(RootMap(root_map), beside(path, ".part.documents"), allow_missing=allow_missing)
        with closing(PartialPack(path, kind, on_bytes)) as partial:
            for uid, run in runs.items():
                partial.write(plan.members_of(uid, run.documents(), run.manifest(), partial.sha256))
            partial.write(plan.closing_members())
            partial.finish()
    return Packed(path, tuple(meant), len(plan.sizes), sum(plan.sizes.values()), tuple(plan.notes))


@dataclass(frozen=True, slots=True)
class _Run:
    """A run that is packed."""

    documents: Callable[[], Documents]
    """Has its documents."""
    manifest: Callable[[], Manifest | None] = lambda: None
    """Has what is known of its files, from when that was looked at."""

    @classmethod
    def of(cls, uid: str, node: Any) -> "_Run":
        """As it lies in a catalog."""
        if run_of(node) is not None:
            return cls(lambda: documents(node))
        tree = RunTree(node)
        return cls(lambda: documents_of(tree), lambda: manifest_of(uid, tree))


@contextmanager
def _runs(catalog: Any, uids: list[str]) -> Iterator[Mapping[str, _Run]]:
    """The runs that are meant, by their whole uids."""
    from bluesky_filestore.catalogs.tiled.connecting import connect
    from bluesky_filestore.catalogs.tiled.nodes import find_run

    if isinstance(catalog, str):
        client = connect(catalog)
        try:
            with _runs(client, uids) as found:
                yield found
        finally:
            client.context.close()
        return
    catalog = client_of(catalog)
    if isinstance(catalog, PackedRun):
        # Its documents name the places of its files in another machine.
        raise PackError(f"{catalog} is in a pack already; expected a run of a catalog: copy the pack, or unpack it.")
    if not hasattr(catalog, "metadata"):
        pairs = iter(catalog)
        first: tuple[str, Mapping[str, Any]] = next(pairs, ("nothing", {}))
        uid = str(first[1].get("uid", ""))
        if first[0] != "start" or not all(uid.startswith(each) for each in uids):
            raise OptionError(f"the documents begin with {first[0]} {uid!r}; expected the start of run {uids or ''}.")
        yield {uid: _Run(lambda: chain([first], pairs))}
    elif "start" in catalog.metadata:
        uid = catalog.metadata["start"]["uid"]
        yield {uid: _Run.of(uid, catalog)}
    elif not uids:
        raise OptionError("it is not said which runs are to be packed; expected their uids.")
    else:
        nodes = dict(find_run(catalog, uid) for uid in uids)
        yield {uid: _Run.of(uid, node) for uid, node in nodes.items()}


def _done_already(path: Path, runs: Mapping[str, _Run]) -> Packed:
    """What there is, if it is what was to be made: who was killed behind the last step does not know that."""
    other = f"there is a {path} already; expected a name that is free: move it away, or choose another."
    try:
        with open_pack(path) as found:
            if set(found) != set(runs):
                raise PackError(f"{other} It has the runs {', '.join(found)}.")
            sizes: dict[str, int] = {}
            for uid, run in runs.items():
                digest = hashlib.sha256()
                for line in document_lines(run.documents()):
                    digest.update(line)
                if digest.hexdigest() != found[uid].sha256:
                    raise PackError(f"{other} It has other documents of run {uid}.")
                sizes |= {found.member_of(entry.path): entry.size for entry in found[uid].manifest().entries}
            clear_away(path)
            return Packed(path, tuple(runs), len(sizes), sum(sizes.values()), ("it was there already",))
    except RunNotFoundError as error:
        raise PackError(other) from error
