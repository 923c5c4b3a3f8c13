"""Which files a run has that are brought elsewhere, and which of them others need where they are."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bluesky_filestore.catalogs.tiled.relocating import nodes_in_files, run_nodes
from bluesky_filestore.errors import (
    AddressError,
    DocumentError,
    FileStoreError,
    LockedFileError,
    PathError,
    RelocationError,
    UnreadableFileError,
)
from bluesky_filestore.files.hdf5_links import linked_files
from bluesky_filestore.files.readable import ANYWHERE, signature_of
from bluesky_filestore.model.asset_paths import path_of_asset
from bluesky_filestore.model.paths import FlavouredPath, pure_path, semantics_of
from bluesky_filestore.model.root_map import RootMap
from bluesky_filestore.reading.document_reader import documents_of
from bluesky_filestore.reading.from_documents import DocumentedRun
from bluesky_filestore.reading.run_files import find_files
from bluesky_filestore.reading.run_tree import RunTree

from .sidecars import sidecar_name

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = ["MovedFile", "base_of", "check_references", "files_of_run", "needed_by_others"]


@dataclass(frozen=True, slots=True)
class MovedFile:
    """A file of a run."""

    here: str
    """Its path for this machine."""
    recorded: str = ""
    """Its path in the run; empty of one that only another file names."""


def base_of(file: MovedFile, base: str) -> FlavouredPath:
    """What the run calls the directory that is the base here."""
    below = len(Path(file.here).relative_to(base).parts)
    return pure_path(file.recorded, semantics_of(file.recorded)).parents[below - 1]


def files_of_run(key: str, node: Any, here: RootMap) -> Iterator[MovedFile]:
    """The files of a run that are there; raises if one is not that it needs, or it cannot be told which they are."""
    found: dict[str, str] = {}
    try:
        has_documents = "start" in node.metadata
        documented = DocumentedRun(documents_of(RunTree(node)), here) if has_documents else None
    except DocumentError:
        # Another writer's: the catalog alone knows.
        documented = None
    if documented is not None:
        said = find_files(documented)
        if said.problems:
            raise RelocationError(f"which files run {key} has cannot be told: {'; '.join(said.problems)}")
        for file in said.files:
            path = _is_here(file.path, file.here)
            # A file that no event needs may never have been written.
            if file.needed_by or os.path.lexists(path):
                found.setdefault(path, "" if file.led_from else file.path)
    for each in nodes_in_files(key, node).values():
        for asset in each.data_sources()[0].assets:
            if asset.is_directory and documented is None:
                raise RelocationError(f"which files of {asset.data_uri} are those of run {key} cannot be told.")
            if not asset.is_directory:
                recorded = path_of_asset(asset.data_uri)
                found[_is_here(recorded, str(here.find_here(recorded)))] = recorded
    for path in _with_sidecars(key, _with_links(list(found))):
        if not Path(path).is_file():
            signature_of(path)
            raise RelocationError(f"{path} is not a file; expected one with data of run {key}.")
        yield MovedFile(path, found.get(path, ""))


def _is_here(path: str, here: str | None) -> str:
    if here is None:
        raise PathError(f"file {path} is none of this machine; say where its disk is here: root_map={{...}}.")
    return os.path.normpath(here)


def _with_sidecars(key: str, paths: list[str]) -> list[str]:
    """Files, and the sidecars of their run beside them, by which it is found again where they are."""
    beside = (str(Path(directory, sidecar_name(key))) for directory in {str(Path(path).parent): 0 for path in paths})
    return [*paths, *(path for path in beside if path not in paths and Path(path).is_file())]


def _with_links(paths: list[str], *, may_be_damaged: bool = False) -> list[str]:
    """Files, and those that they have data from; where they may be damaged, these need no others any more."""
    known = dict.fromkeys(paths)
    for path in paths:
        if Path(path).is_file():
            try:
                linked = linked_files(path, ANYWHERE)
            except LockedFileError:
                raise
            except UnreadableFileError:
                if not may_be_damaged:
                    raise
                continue
            for other in (os.path.normpath(other) for _, other in linked):
                if other not in known and os.path.lexists(other):
                    known[other] = None
                    paths.append(other)
    return paths


def check_references(files: Sequence[MovedFile]) -> None:
    """Refuse to move what would not be found any more, because another file has its absolute path."""
    moved = {file.here for file in files}
    for file in files:
        for name, other in linked_files(file.here, ANYWHERE):
            apart = Path(other).parent != Path(file.here).parent
            if Path(name).is_absolute() and os.path.normpath(other) in moved and apart:
                raise RelocationError(
                    f"{file.here} refers to {name} by that path, where it would be no more; expected a path relative "
                    f"to the file itself: copy the run, and leave the originals."
                )


def needed_by_others(catalog: "Container", moved: set[str], originals: set[str], here: RootMap) -> dict[str, str]:
    """Which of the originals other runs refer to, and which run does."""
    directories = {str(Path(path).parent) for path in originals}
    needed: dict[str, str] = {}
    for key, node in run_nodes(catalog):
        if key in moved:
            continue
        near = False
        for each in nodes_in_files(key, node).values():
            for asset in each.data_sources()[0].assets:
                try:
                    path = os.path.realpath(str(here.find_here(path_of_asset(asset.data_uri))))
                except (PathError, AddressError):
                    # It is nowhere that this machine sees.
                    continue
                near |= path in originals or (path if asset.is_directory else str(Path(path).parent)) in directories
                if path in originals:
                    needed[path] = key
        said = node.metadata.get("filestore") or {}
        if near or said.get("refused") or said.get("missing"):
            needed |= dict.fromkeys(_files_near(key, node, here) & originals, key)
    return needed


def _files_near(key: str, node: Any, here: RootMap) -> set[str]:
    """The files of another run, as far as they are there.

    Raises
    ------
    RelocationError
        If that cannot be told.
    """
    try:
        try:
            found = find_files(DocumentedRun(documents_of(RunTree(node)), here))
            paths = [file.here for file in found.files if file.here is not None]
        except DocumentError:
            paths = []
            for each in nodes_in_files(key, node).values():
                for asset in each.data_sources()[0].assets:
                    path = str(here.find_here(path_of_asset(asset.data_uri)))
                    paths += list(map(str, Path(path).iterdir())) if Path(path).is_dir() else [path]
        near = _with_links([os.path.normpath(path) for path in paths], may_be_damaged=True)
    except (FileStoreError, OSError) as error:
        raise RelocationError(
            f"whether run {key} needs the originals cannot be told ({error}); nothing was removed."
        ) from error
    return {os.path.realpath(path) for path in near}
