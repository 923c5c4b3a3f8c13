"""Files of runs brought elsewhere: copied, compared, known to the catalog, and only then removed where they were."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bluesky_filestore.catalogs.tiled.relocating import run_nodes
from bluesky_filestore.errors import CatalogError, FileStoreError, OptionError, RelocationError
from bluesky_filestore.files.copying import copy_file, same_content, sync_directory
from bluesky_filestore.files.readable import Signature, signature_of
from bluesky_filestore.model.relocations import Relocation
from bluesky_filestore.model.root_map import RootMap

from .journal import Journal
from .moved_files import MovedFile, base_of, check_references, files_of_run, needed_by_others
from .relocating import RelocationReport, Work, new_header, opened
from .run_change import check_at_rest, undelivered_runs

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = ["copy_files", "move_files"]

_ABOUT = ("catalog", "for", "to", "runs")


def copy_files(
    catalog: "Container | str",
    uids: Sequence[str],
    to: str | Path,
    *,
    root_map: Mapping[str, str] | None = None,
    rewrite: bool = False,
    named: str = "",
) -> RelocationReport:
    """Copy the files of runs into a directory, each compared with its original by what was read back.

    They lie there as they lay below the directory that holds all of them, with what HDF5 files among them refer to.
    Nothing is written over. Interrupted, the same call goes on.

    Parameters
    ----------
    catalog : tiled.client.container.Container or str
        A catalog, or its address.
    uids : sequence of str
        The runs, or how they begin.
    to : str or Path
        The directory; it is made.
    root_map : Mapping of str to str, optional
        Where the directories are for this machine that the catalog names.
    rewrite : bool
        Whether the catalog shall name the copies from then on; `undo_relocation` gives back what was.
    named : str, optional
        What the catalog shall call the directory, if that is not its path here.

    Raises
    ------
    RunNotFoundError
        If there is no such run.
    RelocationError
        If the files cannot be brought there.
    CatalogError
        If the catalog does not answer, or does not take changes.
    OSError
        If a copy cannot be written.
    """
    return _bring(catalog, uids, to, "relocate" if rewrite else "copy", root_map, named)


def move_files(
    catalog: "Container | str",
    uids: Sequence[str],
    to: str | Path,
    *,
    root_map: Mapping[str, str] | None = None,
    named: str = "",
) -> RelocationReport:
    """Move the files of runs: copied and compared first, then known to the catalog, and only then removed.

    Files that another run of the catalog refers to are copied and not removed. Arguments and errors are those of
    `copy_files`; a move cannot be undone but by moving back.
    """
    return _bring(catalog, uids, to, "move", root_map, named)


_Purpose = Literal["copy", "relocate", "move"]


def _bring(
    catalog: "Container | str",
    uids: Sequence[str],
    to: str | Path,
    purpose: _Purpose,
    root_map: Mapping[str, str] | None,
    named: str,
) -> RelocationReport:
    if isinstance(uids, str) or not uids:
        raise OptionError(f"uids={uids!r}; expected a list of the runs whose files shall be brought elsewhere.")
    target = str(Path(to).expanduser().absolute())
    with opened(catalog) as (container, address, _):
        moving = _Moving(container, address, target, named or target, purpose, RootMap(root_map))
        runs = dict(run_nodes(container, uids))
        about = {**new_header(purpose, address, {}), "to": target, "runs": sorted(runs)}
        del about["roots"]
        path = Journal.unfinished(about, _ABOUT)
        files = moving.find_files(runs)
        if not path.exists():
            if not files:
                return moving.report
            about |= moving.directories(files)
        with Journal(path, about) as journal:
            moving.begin(journal)
            moving.copy(files)
            if purpose != "copy" and moving.copies:
                moving.rewrite()
            if purpose == "move":
                moving.remove_originals()
            if moving.report.ok:
                journal.write(end="done")
        return moving.report


@dataclass
class _Moving:
    """Files that are being brought elsewhere; `begin` comes before all but `find_files` and `directories`."""

    catalog: "Container"
    """Where the runs are."""
    address: str
    """Its address."""
    to: str
    """The directory that the files go to."""
    named: str
    """What the catalog shall call it."""
    purpose: _Purpose
    """What is done with catalog and originals."""
    here: RootMap
    """Where files are for this machine."""
    report: RelocationReport = field(default_factory=RelocationReport)
    """What has become of runs."""
    base: str = ""
    """The directory here whose tree is brought there."""
    copies: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """Of each run that was copied, its originals and their copies."""
    compared: dict[tuple[str, str], tuple[Signature, Signature]] = field(default_factory=dict)
    """What original and copy were like when they were found to be the same."""

    def find_files(self, runs: Mapping[str, Any]) -> dict[str, list[MovedFile]]:
        """The files of each run; runs that cannot be moved are refused."""
        spooled = undelivered_runs(self.address)
        found = {}
        for key, node in runs.items():
            try:
                check_at_rest(key, node, spooled)
                files = list(files_of_run(key, node, self.here))
                if self.purpose == "move":
                    check_references(files)
                found[key] = files
            except CatalogError:
                raise
            except FileStoreError as error:
                self.report.refused[key] = str(error)
        return found

    def directories(self, files: Mapping[str, list[MovedFile]]) -> dict[str, Any]:
        """The directory that holds all files, here and as the catalog names it, for the journal.

        Raises
        ------
        RelocationError
            If the catalog has no one name for it, or there is no room where they go.
        """
        each = [file for of_run in files.values() for file in of_run]
        base = os.path.commonpath([str(Path(file.here).parent) for file in each]) if each else self.to
        recorded = {str(base_of(file, base)) for file in each if file.recorded}
        if len(recorded) > 1:
            raise RelocationError(
                f"the catalog calls {base} {' and '.join(sorted(recorded))}; expected one name: move these runs apart."
            )
        return {"base": base, "roots": [[next(iter(recorded), base), self.named]]}

    def begin(self, journal: Journal) -> None:
        """Go by a journal, and know what it says was done."""
        self.journal, self.base = journal, journal.header["base"]
        for entry in journal.entries:
            if "copied" in entry:
                self.copies[entry["copied"]] = [(old, new) for old, new in entry["files"]]
        if self.purpose != "copy":
            self.report.journal = journal.path

    def copy(self, files: Mapping[str, list[MovedFile]]) -> None:
        """Have a copy of each file, and all copies of a run on the disk before it is said."""
        where = Relocation({self.base: self.to})
        self._check_room([file.here for key, each in files.items() if key not in self.copies for file in each], where)
        for key, each in files.items():
            if key in self.copies:
                continue
            pairs = [(file.here, str(where.find(file.here))) for file in each]
            try:
                for old, new in pairs:
                    self._copy(old, new)
            except FileStoreError as error:
                self.report.refused[key] = str(error)
                continue
            self.copies[key] = [(old, new) for old, new in pairs if old != new]
            self.journal.write(copied=key, files=self.copies[key])
            if self.purpose == "copy":
                self.report.words = f"copied to {self.to}"
                self.report.relocated.append(key)
                self.report.files += len(pairs)

    def _copy(self, old: str, new: str) -> None:
        if old == new:
            if not any(Path(old).is_relative_to(directory) for directory in (self.base, self.to)):
                raise RelocationError(
                    f"{old} is not below {self.base}, from where files are brought by journal {self.journal.path}; "
                    f"expected all files below it: move this run apart."
                )
            return
        if Path(new).exists() and Path(old).samefile(new):
            raise RelocationError(f"{old} and {new} are the same file; expected a directory that is another.")
        copy_file(old, new)
        self.compared[old, new] = signature_of(old), signature_of(new)

    def _check_room(self, paths: list[str], where: Relocation) -> None:
        needed = sum(signature_of(path).size for path in paths if not Path(where.find(path)).exists())
        there = next(parent for parent in (Path(self.to), *Path(self.to).parents) if parent.is_dir())
        free = shutil.disk_usage(there).free
        if needed > free:
            raise RelocationError(f"{there} has {free:,} bytes left; expected {needed:,} for the copies: make room.")

    def rewrite(self) -> None:
        """Have the catalog name the copies."""
        relocation = Relocation.from_json(self.journal.header)
        targets = RootMap({self.named: self.to})
        work = Work(self.catalog, self.address, relocation, targets, False, self.report, self.journal)
        work.finish()
        work.relocate_all(list(self.copies))
        for key in self.copies.keys() - {*self.report.relocated, *work.known, *self.report.refused}:
            if self.copies[key]:
                self.report.refused[key] = "nothing in the catalog names its files; they were copied, and stay."
        if self.purpose == "move":
            self.report.words = "moved"

    def remove_originals(self) -> None:
        """Remove what has a copy that the catalog names, and that no other run needs."""
        gone = {key: pairs for key, pairs in self.copies.items() if key not in self.report.refused}
        originals = {os.path.realpath(old) for pairs in gone.values() for old, _ in pairs if os.path.lexists(old)}
        if not originals:
            return
        kept = needed_by_others(self.catalog, set(gone), originals, self.here)
        for key, pairs in gone.items():
            self.journal.write(removing=key)
            try:
                for old, new in pairs:
                    if os.path.lexists(old) and os.path.realpath(old) not in kept:
                        self._remove(old, new)
            except FileStoreError as error:
                self.report.refused[key] = f"its copies are in the catalog, and originals are left: {error}"
            for directory in {Path(old).parent for old, _ in pairs}:
                if directory.is_dir():
                    sync_directory(directory)
        for path, uid in kept.items():
            self.report.kept[path] = uid

    def _remove(self, old: str, new: str) -> None:
        if Path(old).samefile(new):
            raise RelocationError(f"{old} and {new} are the same file, which stays.")
        if self.compared.get((old, new)) != (signature_of(old), signature_of(new)):
            same_content(old, new)
        Path(old).unlink()
        self.report.removed.append(old)
