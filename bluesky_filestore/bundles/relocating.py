"""Runs whose files went elsewhere: the catalog gets the paths of now, and can be given those of before again."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from bluesky_filestore.catalog_address import comparable_address
from bluesky_filestore.catalogs.tiled.connecting import catalog_errors
from bluesky_filestore.catalogs.tiled.relocating import (
    Nodes,
    catalog_of,
    check_may_write,
    nodes_in_files,
    run_nodes,
)
from bluesky_filestore.errors import (
    CatalogError,
    DocumentError,
    FileStoreError,
    OptionError,
    RelocationError,
    RunNotFoundError,
)
from bluesky_filestore.model.relocations import Relocation, Relocations, relocations_in
from bluesky_filestore.model.root_map import RootMap
from bluesky_filestore.reading.document_reader import documents_of
from bluesky_filestore.reading.run_tree import RunTree

from .journal import Journal
from .run_change import (
    RunChange,
    Targets,
    check_at_rest,
    check_targets,
    planned,
    undelivered_runs,
)

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = ["RelocationReport", "Work", "new_header", "opened", "relocate", "undo_relocation"]

_ABOUT = ("catalog", "roots", "for")
_MOST_SHOWN = 20


@dataclass
class RelocationReport:
    """What became of runs; it shows itself in words."""

    relocated: list[str] = field(default_factory=list)
    """The runs whose paths are others now (of a dry run: would be), or as before again."""
    unchanged: int = 0
    """How many runs have nothing in the directories that were named."""
    refused: dict[str, str] = field(default_factory=dict)
    """Why runs were left as they are, by uid."""
    files: int = 0
    """How many assets of the catalog are concerned."""
    journal: Path | None = None
    """The file by which it can be undone; None of a dry run, and where nothing was written."""
    removed: list[str] = field(default_factory=list)
    """The files that were removed after they were copied."""
    kept: dict[str, str] = field(default_factory=dict)
    """The files that were not removed, because another run refers to them, and which."""
    words: str = "relocated"
    """What was done."""

    @property
    def ok(self) -> bool:
        """Whether nothing was refused."""
        return not self.refused

    def __str__(self) -> str:
        parts = [f"{len(self.relocated):,} runs {self.words}, with {self.files:,} files or directories in the catalog"]
        parts += [f"{self.unchanged:,} runs have nothing there"] if self.unchanged else []
        parts += [f"{len(self.removed):,} originals removed"] if self.removed else []
        parts += [f"{len(self.kept):,} left, which other runs refer to"] if self.kept else []
        parts += [f"{len(self.refused):,} refused and left as they are"] if self.refused else []
        lines = ["; ".join(parts) + "."]
        lines += [f"refused {uid}: {why}" for uid, why in list(self.refused.items())[:_MOST_SHOWN]]
        if len(self.refused) > _MOST_SHOWN:
            lines.append(f"and {len(self.refused) - _MOST_SHOWN} more refused.")
        return "\n".join([*lines, f"Journal: {self.journal}"] if self.journal else lines)


def relocate(
    catalog: "Container | str",
    roots: Mapping[str, str],
    uids: Sequence[str] = (),
    *,
    dry_run: bool = False,
    root_map: Mapping[str, str] | None = None,
    trust: bool = False,
    journal: str | Path | None = None,
) -> RelocationReport:
    r"""Have a catalog say where files are that were moved, or whose disk is mounted elsewhere.

    A run is relocated as a whole, or refused: if one of its files is not where it should be then, or is not the one
    that was registered, if the run is going on, or waits in a spool of this user to be delivered. What a kill
    interrupted is finished by the same call; `undo_relocation` gives back what was.

    Parameters
    ----------
    catalog : tiled.client.container.Container or str
        A catalog, or its address, or a run of it.
    roots : Mapping of str to str
        From a directory as the catalog names it to the directory that it shall name; posix or windows. Of several that
        hold a file the longest counts.
    uids : sequence of str
        The runs, or how they begin; by default all that is in the catalog.
    dry_run : bool
        Whether it is only looked what would be done.
    root_map : Mapping of str to str, optional
        Where the new directories are for this machine, if elsewhere than the catalog shall name.
    trust : bool
        Whether nothing is looked for: for whoever cannot see the new directories from here.
    journal : str or Path, optional
        The file to write the journal to; by default one among this user's state, which is in the report.

    Raises
    ------
    RunNotFoundError
        If there is no such run.
    RelocationError
        If the journal cannot be used.
    CatalogError
        If the catalog does not answer, or does not take changes.
    """
    if isinstance(uids, str) or not roots:
        raise OptionError(f"roots={roots!r}, uids={uids!r}; expected {{OLD: NEW}} and a list of uids.")
    here = RootMap(root_map)
    with opened(catalog) as (container, address, run):
        header = new_header("relocate", address, roots)
        if dry_run:
            work = Work(container, address, _relocation_of(header), here, trust, RelocationReport())
            work.report.words = "would be relocated"
            work.relocate_all(uids or [run] * bool(run))
            return work.report
        path = Path(journal) if journal is not None else Journal.unfinished(header, _ABOUT)
        with Journal(path, header) as opened_journal:
            if opened_journal.has_ended:
                raise RelocationError(f"journal {path} has ended; name another file for another relocation.")
            relocation = _relocation_of(opened_journal.header)
            report = RelocationReport(journal=path)
            work = Work(container, address, relocation, here, trust, report, opened_journal)
            work.finish()
            work.relocate_all(uids or [run] * bool(run))
            if not work.begun:
                opened_journal.discard()
                report.journal = None
            elif report.ok:
                opened_journal.write(end="done")
    return report


def undo_relocation(catalog: "Container | str", journal: str | Path) -> RelocationReport:
    """Give a catalog back the paths that it had before a relocation.

    Parameters
    ----------
    catalog : tiled.client.container.Container or str
        The catalog, or its address.
    journal : str or Path
        The file that `relocate` has named.

    Raises
    ------
    RelocationError
        If the journal is none, is of another catalog, or of files whose originals were removed.
    CatalogError
        If the catalog does not answer, or does not take changes.
    """
    report = RelocationReport(words="are as before", journal=Path(journal))
    with opened(catalog) as (container, address, _), Journal(Path(journal)) as opened_journal:
        header = opened_journal.header
        if header["catalog"] != comparable_address(address):
            raise RelocationError(f"journal {journal} is about {header['catalog']}; expected {address}.")
        if any("removing" in entry for entry in opened_journal.entries):
            raise RelocationError(
                f"the originals of journal {journal} were removed after they were copied; move the files back instead."
            )
        relocation = _relocation_of(header)
        undone = {entry["undone"] for entry in opened_journal.entries if "undone" in entry}
        begun = [entry for entry in opened_journal.entries if "nodes" in entry]
        for number, entry in reversed(list(enumerate(begun))):
            if number in undone:
                continue
            change = RunChange.from_json(entry)
            try:
                change.apply(container, relocation, undo=True)
            except (RelocationError, RunNotFoundError) as error:
                report.refused[change.key] = str(error)
                continue
            opened_journal.write(sync=False, undone=number)
            report.relocated.append(change.key)
            report.files += change.files
        if report.ok:
            opened_journal.write(end="undone")
    return report


@contextmanager
def opened(catalog: "Container | str") -> "Iterator[tuple[Container, str, str]]":
    """A catalog, its address, and the uid of the run if the client given is one of a run."""
    if isinstance(catalog, str):
        from bluesky_filestore.catalogs.tiled.connecting import connect

        client = connect(catalog)
        try:
            yield catalog_of(client)
        finally:
            client.context.close()
    else:
        yield catalog_of(catalog)


def new_header(purpose: str, address: str, roots: Mapping[str, str]) -> dict[str, Any]:
    """What the journal of a relocation is about."""
    return {
        "for": purpose,
        "catalog": comparable_address(address),
        "roots": [list(pair) for pair in roots.items()],
        "uid": str(uuid4()),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _relocation_of(header: Mapping[str, Any]) -> Relocation:
    return Relocation.from_json(header)


@dataclass
class Work:
    """A relocation that is at work."""

    catalog: "Container"
    """Where the runs are."""
    address: str
    """Its address."""
    relocation: Relocation
    """Where their files go."""
    here: RootMap
    """Where the new directories are for this machine."""
    trust: bool
    """Whether files are not looked for."""
    report: RelocationReport
    """What has become of runs."""
    journal: Journal | None = None
    """None of a dry run."""
    begun: int = 0
    """How many changes were begun, ever."""
    known: set[str] = field(default_factory=set)
    """The runs that were begun before."""
    may_write: bool = False
    """Whether the catalog is known to take changes."""

    def finish(self) -> None:
        """Do again what was begun and may not have been done."""
        entries = self.journal.entries if self.journal is not None else []
        done = {entry["done"] for entry in entries if "done" in entry}
        for entry in (entry for entry in entries if "nodes" in entry):
            if self.begun not in done:
                self._apply(RunChange.from_json(entry), self.begun)
            self.known.add(entry["run"])
            self.begun += 1

    def relocate_all(self, uids: Iterable[str]) -> None:
        """Look at runs one by one, and relocate them."""
        spooled = undelivered_runs(self.address)
        for key, node in run_nodes(self.catalog, list(uids)):
            if key in self.known and not self.relocation.is_repeatable:
                continue
            try:
                nodes = nodes_in_files(key, node)
                change = planned(key, node, nodes, self.relocation)
                concerns = change.nodes or self._has_such_documents(change, node)
                if concerns:
                    check_at_rest(key, node, spooled)
                    self._check_first_time(key, node)
                    if not self.trust:
                        check_targets(change, nodes, Targets(self.relocation, self.here))
            except CatalogError:
                raise
            except FileStoreError as error:
                self.report.refused[key] = str(error)
                continue
            if not concerns:
                self.report.unchanged += 1
            elif self.journal is None:
                self._count(change)
            else:
                self._begin(change, {(key,): node, **nodes})

    def _begin(self, change: RunChange, seen: Nodes) -> None:
        if not self.may_write and change.nodes:
            check_may_write(seen[change.nodes[0][0]])
            self.may_write = True
        if self.journal is not None:
            self.journal.write(**change.to_json())
        self.begun += 1
        self._apply(change, self.begun - 1, seen)

    def _apply(self, change: RunChange, number: int, seen: Nodes = MappingProxyType({})) -> None:
        try:
            change.apply(self.catalog, self.relocation, seen=seen)
        except (RelocationError, RunNotFoundError) as error:
            self.report.refused[change.key] = str(error)
            return
        if self.journal is not None:
            # Should it be lost, it is done again.
            self.journal.write(sync=False, done=number)
        self._count(change)

    def _count(self, change: RunChange) -> None:
        self.report.relocated.append(change.key)
        self.report.files += change.files

    def _check_first_time(self, key: str, node: Any) -> None:
        """Refuse what would lead on the files that it has led to."""
        if self.relocation.is_repeatable or "start" not in node.metadata:
            return
        each = relocations_in(node.metadata)
        if each and each[-1].roots == self.relocation.roots and each[-1].uid != self.relocation.uid:
            raise RelocationError(
                f"run {key} was relocated so at {each[-1].time}, and its files would be led on; expected that to be "
                f"undone (relocate --undo), or gone on with by its journal (--journal)."
            )

    def _has_such_documents(self, change: RunChange, node: Any) -> bool:
        """Whether only the documents of a run name files that moved: of arrays that are not in the catalog."""
        said = node.metadata.get("filestore") or {}
        if not change.is_run or not (said.get("refused") or said.get("missing")):
            return False
        once = Relocations((self.relocation,))
        try:
            with catalog_errors(str(node.uri)):
                return any(once.document(name, doc) is not doc for name, doc in documents_of(RunTree(node)))
        except DocumentError:
            return False
