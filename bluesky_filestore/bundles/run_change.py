"""What becomes other of a run in a catalog when its files go elsewhere, and whether that may be done to it."""

import os
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from bluesky_filestore.catalog_address import comparable_address
from bluesky_filestore.catalogs.tiled.relocating import (
    NodeAsset,
    Nodes,
    assets_of,
    exchange_files,
    node_at,
    say_relocated,
    unsay_relocated,
)
from bluesky_filestore.errors import AddressError, CatalogError, FileStoreError, RelocationError, TruncatedFileError
from bluesky_filestore.files.hdf5_links import linked_files
from bluesky_filestore.files.ragged import RaggedInFiles
from bluesky_filestore.files.readable import ANYWHERE, signature_of
from bluesky_filestore.files.rows import LooksThrough
from bluesky_filestore.model.asset_paths import moved_assets, path_of_asset
from bluesky_filestore.model.paths import FlavouredPath
from bluesky_filestore.model.ragged_rows import RAGGED
from bluesky_filestore.model.relocations import Relocation, relocations_in
from bluesky_filestore.model.root_map import RootMap
from bluesky_filestore.reading.from_node import frames_of, registered_of

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = [
    "RunChange",
    "Targets",
    "check_at_rest",
    "check_targets",
    "planned",
    "undelivered_runs",
]

_GOING_ON = 24 * 3600


@dataclass(frozen=True, slots=True)
class RunChange:
    """What becomes other of a run: nodes by their path, with their files before and after."""

    key: str
    """Of the run, or of whatever is in the catalog in the place of one."""
    nodes: tuple[tuple[tuple[str, ...], list[NodeAsset], list[NodeAsset]], ...]
    """Those with other files."""
    is_run: bool
    """Whether it has documents."""

    @property
    def files(self) -> int:
        """How many assets become others."""
        return sum(before != after for _, old, new in self.nodes for before, after in zip(old, new, strict=True))

    def to_json(self) -> dict[str, Any]:
        """As a journal keeps it."""
        return {"run": self.key, "nodes": [list(node) for node in self.nodes], "is_run": self.is_run}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> "RunChange":
        """From a journal."""
        nodes = tuple((tuple(path), old, new) for path, old, new in said["nodes"])
        return cls(said["run"], nodes, said["is_run"])

    def apply(
        self, catalog: "Container", relocation: Relocation, *, undo: bool = False, seen: Nodes = MappingProxyType({})
    ) -> None:
        """Have it so in the catalog, or as it was before; whatever of it is so already is left.

        Parameters
        ----------
        catalog : tiled.client.container.Container
            Where the run is.
        relocation : Relocation
            By which the change came about.
        undo : bool
            Whether it shall be as before.
        seen : Mapping
            Nodes that were looked at a moment ago, the run's among them, so that they need not be asked for again.

        Raises
        ------
        RelocationError
            If somebody else changed the run meanwhile.
        CatalogError
            If the catalog does not do it.
        """
        # Documents lead to the new files before arrays do, and to the old ones after them.
        if self.is_run:
            # Not "or": whether a container is true, its length says, which is asked for.
            run = seen[(self.key,)] if (self.key,) in seen else node_at(catalog, [self.key])
            if undo:
                self._check_last(run, relocation)
            else:
                say_relocated(run, relocation)
        for path, old, new in self.nodes:
            known = [asset["data_uri"] for asset in (*old, *new)]
            node = seen[path] if path in seen else node_at(catalog, path)
            exchange_files(node, known, old if undo else new)
        if self.is_run and undo:
            unsay_relocated(run, relocation)

    def _check_last(self, run: Any, relocation: Relocation) -> None:
        each = relocations_in(run.metadata)
        if relocation.uid in {one.uid for one in each} and each[-1].uid != relocation.uid:
            raise RelocationError(f"run {self.key} was relocated again since, at {each[-1].time}; undo that first.")


def planned(key: str, node: Any, nodes: Nodes, relocation: Relocation) -> RunChange:
    """What a relocation changes of a run.

    Raises
    ------
    PathError
        If two files of an array would be one, or the catalog takes no such path.
    RelocationError
        If a view for a stock server would stay where it is, and lead to where files were.
    """
    changed = []
    for path, each in nodes.items():
        old = assets_of(each)
        _check_view(key, old, relocation)
        uris = moved_assets([(asset["data_uri"], asset["is_directory"]) for asset in old], relocation.find)
        new = [{**asset, "data_uri": uri} for asset, uri in zip(old, uris, strict=True)]
        if new != old:
            changed.append((path, old, new))
    return RunChange(key, tuple(changed), "start" in node.metadata)


def _check_view(key: str, assets: list[NodeAsset], relocation: Relocation) -> None:
    for asset in assets:
        view = path_of_asset(asset["data_uri"])
        # By this name the writer's `views` has them; of other files nobody wants to know where they lead.
        if not PurePath(view).name.startswith(f"{key}_") or str(relocation.find(view)) != view:
            continue
        try:
            sources = [os.path.normpath(here) for _, here in linked_files(view, ANYWHERE)]
        except FileStoreError:
            # A server that could not be asked before is none the worse.
            continue
        left = next((source for source in sources if str(relocation.find(source)) != source), None)
        if left is not None:
            raise RelocationError(
                f"{view} shows a stock server frames of {left}, and would go on to look for them there; expected that "
                f"both went elsewhere together, and OLD=NEW for both. Else the run can be read by "
                f"open_array(documents(run), data_key=..., root_map=...)."
            )


class Targets(RootMap):
    """Where files are for this machine after a relocation."""

    def __init__(self, relocation: Relocation, here: RootMap) -> None:
        super().__init__()
        self._relocation, self._here = relocation, here

    def find(self, path: str | PurePath) -> FlavouredPath:
        """Where a file is that the catalog names."""
        return self._here.find(self._relocation.find(path))


def check_targets(change: RunChange, nodes: Nodes, targets: RootMap) -> None:
    """Look whether the files of a run are where they shall be, and are those that were registered.

    Raises
    ------
    FileStoreError
        If one is not, or cannot be looked at, with the reason.
    """
    for path, _, _ in change.nodes:
        try:
            _check_array(nodes[path], targets)
        except CatalogError:
            raise
        except (FileStoreError, OSError) as error:
            raise RelocationError(f"{'/'.join(path[1:])}: {error}") from error


def _check_array(node: Any, targets: RootMap) -> None:
    try:
        registered = registered_of(node, targets)
        parts = [registered]
        if registered.mimetype == RAGGED:
            count = int(registered.shape[0])
            rows = RaggedInFiles(
                registered.parameters, registered.properties, registered.paths, count, registered.dtype, frames_of
            )
            parts = [part for _, part in rows.parts()]
        frames = [frames_of(part)() for part in parts if 0 not in part.shape]
    except AddressError:
        # Nobody reads it here: its files are all that can be looked at.
        frames = []
    looked_through = [each for each in frames if isinstance(each, LooksThrough)]
    for each in looked_through:
        for problem in each.problems():
            raise problem.error
    if len(looked_through) < len(frames) or not frames:
        for asset in assets_of(node):
            path = str(targets.find_here(path_of_asset(asset["data_uri"])))
            size = signature_of(path).size
            if not asset["is_directory"] and size < (asset["size"] or 0):
                raise TruncatedFileError(f"file {path} has {size:,} bytes; expected {asset['size']:,}.")


def undelivered_runs(address: str) -> dict[str, str]:
    """The runs that spools of this user have not delivered to a catalog to their end, and how far they are."""
    from bluesky_filestore.spool import Ledger
    from bluesky_filestore.spool.entries import ENDED
    from bluesky_filestore.spool.places import all_spools

    found: dict[str, str] = {}
    meant = comparable_address(address)
    for directory in all_spools():
        with closing(Ledger(directory)) as ledger:
            for number, (uri, _) in ledger.catalogs().items():
                if comparable_address(uri) == meant:
                    entries = (entry for entry in ledger.entries(number) if entry.state not in ENDED)
                    found |= {entry.uid: f"{entry.state} in the spool {directory}" for entry in entries}
    return found


def check_at_rest(key: str, node: Any, undelivered: Mapping[str, str]) -> None:
    """Refuse a run that is going on, or that somebody still delivers.

    Raises
    ------
    RelocationError
        If it is.
    """
    start = node.metadata.get("start") or {}
    if key in undelivered:
        raise RelocationError(
            f"run {key} is {undelivered[key]}: what is still delivered of it has the paths of before; expected it "
            f"delivered: wait, or see `bluesky-filestore status`."
        )
    if start and "stop" not in node.metadata and time.time() - start.get("time", 0) < _GOING_ON:
        raise RelocationError(
            f"run {key} has no stop document and was started less than a day ago: it may be going on; expected a run "
            f"that has ended."
        )
