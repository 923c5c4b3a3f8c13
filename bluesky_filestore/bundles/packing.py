"""Runs put into a pack, with their files; see `bluesky_filestore.bundles.packs` for what is in one."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from bluesky_filestore.catalogs.databroker.broker import client_of
from bluesky_filestore.errors import OptionError, PackError, RunNotFoundError
from bluesky_filestore.model.root_map import RootMap
from bluesky_filestore.reading.document_reader import documents
from bluesky_filestore.reading.from_documents import Documents

from .containers import kind_of
from .packs import open_pack
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

    Each file is read once, and what was written is read back and compared. Killed, it goes on when it is called again.

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
        If one cannot be read, or is written to meanwhile.
    RunNotFoundError, CatalogError, DocumentError
        If the documents of a run cannot be had.
    """
    path = Path(to)
    kind = kind_of(path)
    with _runs(catalog, [uids] if isinstance(uids, str) else list(uids)) as (meant, documents_of_run):
        if os.path.lexists(path):
            return _done_already(path, meant, documents_of_run)
        plan = Plan(RootMap(root_map), beside(path, ".part.documents"), allow_missing=allow_missing)
        with closing(PartialPack(path, kind, on_bytes)) as partial:
            for uid in meant:
                partial.write(plan.members_of(uid, documents_of_run(uid), partial.sha256))
            partial.write(plan.closing_members())
            partial.finish()
    return Packed(path, tuple(meant), len(plan.sizes), sum(plan.sizes.values()), tuple(plan.notes))


_DocumentsOf: TypeAlias = Callable[[str], Documents]


@contextmanager
def _runs(catalog: Any, uids: list[str]) -> Iterator[tuple[list[str], _DocumentsOf]]:
    """The whole uids of the runs that are meant, and how the documents of each are had."""
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
    if not hasattr(catalog, "metadata"):
        pairs = iter(catalog)
        first: tuple[str, Mapping[str, Any]] = next(pairs, ("nothing", {}))
        uid = str(first[1].get("uid", ""))
        if first[0] != "start" or not all(uid.startswith(each) for each in uids):
            raise OptionError(f"the documents begin with {first[0]} {uid!r}; expected the start of run {uids or ''}.")
        yield [uid], lambda _: chain([first], pairs)
    elif "start" in catalog.metadata:
        yield [catalog.metadata["start"]["uid"]], lambda _: documents(catalog)
    elif not uids:
        raise OptionError("it is not said which runs are to be packed; expected their uids.")
    else:
        nodes = dict(find_run(catalog, uid) for uid in uids)
        yield list(nodes), lambda uid: documents(nodes[uid])


def _done_already(path: Path, uids: list[str], documents_of_run: _DocumentsOf) -> Packed:
    """What there is, if it is what was to be made: who was killed behind the last step does not know that."""
    other = f"there is a {path} already; expected a name that is free: move it away, or choose another."
    try:
        with open_pack(path) as found:
            if sorted(found) != sorted(uids):
                raise PackError(f"{other} It has the runs {', '.join(found)}.")
            sizes: dict[str, int] = {}
            for uid in uids:
                digest = hashlib.sha256()
                for line in document_lines(documents_of_run(uid)):
                    digest.update(line)
                if digest.hexdigest() != found[uid].sha256:
                    raise PackError(f"{other} It has other documents of run {uid}.")
                sizes |= {found.member_of(entry.path): entry.size for entry in found[uid].manifest().entries}
            clear_away(path)
            return Packed(path, tuple(uids), len(sizes), sum(sizes.values()), ("it was there already",))
    except RunNotFoundError as error:
        raise PackError(other) from error
