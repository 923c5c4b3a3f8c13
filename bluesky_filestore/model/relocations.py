"""Where the files of a run went after it was written: what a catalog says of it, and what that makes of paths.

A relocation is a map of directories. A run's metadata list those that it went through, the first one first, under
`RELOCATED`. Assets of the catalog have the paths of now. Documents are kept as they came, and are given with the paths
of now.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath
from typing import Any

from bluesky_filestore.errors import PathError

from .paths import (
    FlavouredPath,
    absolute_root,
    from_uri,
    join_resource,
    pure_path,
    semantics_of,
    to_uri,
    with_trailing_separator,
)
from .root_map import RootMap

__all__ = ["RELOCATED", "Relocation", "Relocations", "relocations_in"]

RELOCATED = "relocated"
"""The entry of a run's metadata."""


@dataclass(frozen=True)
class Relocation:
    r"""Directories that were moved, or are mounted under another name.

    Examples
    --------
    >>> moved = Relocation({"/data": "/data/archive", "Z:\\run": "/mnt/z"})
    >>> moved.find("/data/a.h5"), moved.find("/data/archive/a.h5"), moved.find("z:/run/b.h5")
    (PurePosixPath('/data/archive/a.h5'), PurePosixPath('/data/archive/a.h5'), PurePosixPath('/mnt/z/b.h5'))
    """

    roots: Mapping[str, str]
    """From an absolute directory to an absolute directory, of either flavour each."""
    uid: str = ""
    """Of the relocation."""
    time: str = ""
    """When it was begun, in ISO 8601."""
    _map: RootMap = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_map", RootMap(self.roots))

    @property
    def is_repeatable(self) -> bool:
        """Whether paths that it leads to are none that it leads away from, so that going through it twice is once."""
        pairs = [(absolute_root(old), absolute_root(new)) for old, new in self.roots.items()]
        return not any(
            type(old) is type(new) and (old.is_relative_to(new) or (new.is_relative_to(old) and new != inner))
            for old, inner in pairs
            for _, new in pairs
        )

    def find(self, path: str | PurePath) -> FlavouredPath:
        """Where a file is after it; where a directory went into itself, what lies there already stays.

        Raises
        ------
        PathError
            If the path is not absolute.
        """
        asked = pure_path(path, semantics_of(path))
        pair = self._map.pair_for(asked)
        if pair is not None and pair[1] != pair[0] and type(pair[1]) is type(asked):
            old, new = pair
            if new.is_relative_to(old) and asked.is_relative_to(new):
                return asked
        return self._map.find(asked)

    def find_back(self, path: str | PurePath) -> FlavouredPath:
        """Where a file was before it that is at a path now; the same, if no directory went there.

        Raises
        ------
        PathError
            If the path is not absolute.
        """
        now = pure_path(path, semantics_of(path))
        before = self._back.find(now)
        return before if self.find(before) == now else now

    @cached_property
    def _back(self) -> RootMap:
        # Of several that went to the same place the first one that was given.
        return RootMap({new: old for old, new in reversed(list(self.roots.items()))})

    def to_json(self) -> dict[str, Any]:
        """As an entry of `RELOCATED`."""
        return {"uid": self.uid, "time": self.time, "roots": [list(pair) for pair in self.roots.items()]}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> "Relocation":
        """From such an entry."""
        return cls(dict(said["roots"]), said.get("uid", ""), said.get("time", ""))


def relocations_in(metadata: Mapping[str, Any]) -> tuple[Relocation, ...]:
    """What a run's metadata say of where its files went, the first one first."""
    return tuple(map(Relocation.from_json, metadata.get(RELOCATED) or ()))


@dataclass(frozen=True, slots=True)
class Relocations:
    """The relocations that a run went through."""

    each: tuple[Relocation | RootMap, ...] = ()
    """The first one first."""

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> "Relocations":
        """By the run's metadata."""
        return cls(relocations_in(metadata))

    def __bool__(self) -> bool:
        return bool(self.each)

    def find(self, path: str | PurePath) -> FlavouredPath:
        """Where a file is now that a document names.

        Raises
        ------
        PathError
            If the path is not absolute.
        """
        found = pure_path(path, semantics_of(path))
        for relocation in self.each:
            found = relocation.find(found)
        return found

    def document(self, name: str, doc: Mapping[str, Any]) -> Mapping[str, Any]:
        """A document, with the path that its files have now; what names no file under a moved directory is as it was.

        Parameters
        ----------
        name : str
            What it is; only resources and stream resources name files.
        doc : Mapping
            It stays as it is.
        """
        if not self.each or name not in ("resource", "stream_resource"):
            return doc
        try:
            return self._with_uri(doc) if "uri" in doc else self._with_root(doc)
        except PathError:
            # It names no place on a disk, or one that nobody can tell: no directory that moved holds it.
            return doc

    def _with_uri(self, doc: Mapping[str, Any]) -> Mapping[str, Any]:
        path = from_uri(doc["uri"])
        found = self.find(path)
        if found == path:
            return doc
        return {**doc, "uri": to_uri(f"{found}/" if doc["uri"].endswith("/") else found)}

    def _with_root(self, doc: Mapping[str, Any]) -> Mapping[str, Any]:
        root, below = doc.get("root") or "", str(doc["resource_path"])
        path = join_resource(root, below, doc.get("path_semantics") or "posix")
        found = self.find(path)
        if found == path:
            return doc
        part = _below(path, root)
        base = self.find(root) if root else found.parent
        if not part or pure_path(base / part.as_posix(), semantics_of(base)) != found:
            # A directory below the root moved, and the root did not.
            base, part = found.parent, PurePath(found.name)
        semantics = semantics_of(base)
        text = str(pure_path(part.as_posix(), semantics))
        if below.endswith(("/", "\\")):
            text = with_trailing_separator(text, semantics)
        moved = {**doc, "root": str(base), "resource_path": text}
        return {**moved, "path_semantics": semantics} if "path_semantics" in doc or semantics != "posix" else moved


def _below(path: FlavouredPath, root: str) -> PurePath | None:
    """What of a path is below a root."""
    base = absolute_root(root) if root else None
    if base is None or type(base) is not type(path) or not path.is_relative_to(base) or path == base:
        return None
    return path.relative_to(base)
