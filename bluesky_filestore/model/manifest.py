"""Which files a run has, and what was in them: paths, sizes, times and checksums.

A manifest comes in two forms of JSON. `Manifest.to_json` is for people and other programs: an object a file, in
sidecars and packed runs. `Manifest.to_columns` is for a catalog's metadata, where 10,000 files shall not cost
megabytes: what paths begin with is said once, sizes once where all are alike, and checksums stand in base64, one behind
the other.
"""

import json
import re
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os.path import commonprefix
from typing import Any

from bluesky_filestore.errors import ManifestError

__all__ = ["MANIFEST", "Manifest", "ManifestEntry"]

MANIFEST = "manifest"
"""The entry of a catalog's metadata, and the name of the last line of a sidecar."""

_VERSION = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DIGEST_BYTES = 32
_MOST_SHOWN = 80


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One file.

    Raises
    ------
    ManifestError
        If that cannot be what a file is like.
    """

    path: str
    """As the run's documents name it, or the file that leads to it."""
    size: int
    """In bytes."""
    modified_ns: int
    """When it was last written to, in nanoseconds since 1970."""
    sha256: str = ""
    """In hexadecimal; empty if it was not computed."""

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path or "\0" in self.path:
            raise ManifestError(f"a file's path is {_shown(self.path)}; expected a text without a NUL character.")
        for name, number in (("size", self.size), ("modified_ns", self.modified_ns)):
            if isinstance(number, bool) or not isinstance(number, int) or not -(2**63) <= number < 2**63:
                raise ManifestError(f"{name} of {_shown(self.path)} is {_shown(number)}; expected a whole number.")
        if self.size < 0:
            raise ManifestError(f"size of {_shown(self.path)} is {self.size}; expected a number of bytes.")
        if self.sha256 != "" and not (isinstance(self.sha256, str) and _SHA256.fullmatch(self.sha256)):
            raise ManifestError(
                f"sha256 of {_shown(self.path)} is {_shown(self.sha256)}; expected 64 digits 0-9a-f, or nothing."
            )

    def compare(self, found: "ManifestEntry") -> str:
        """What tells the file that is found now from this one, by size and checksum, in words; empty if nothing does.

        A copy has another time, which tells nothing.
        """
        if self.size != found.size:
            return f"it has {found.size:,} bytes, and had {self.size:,}"
        if self.sha256 and found.sha256 and self.sha256 != found.sha256:
            return f"its bytes are others: its SHA-256 is {found.sha256}, and was {self.sha256}"
        return ""


@dataclass(frozen=True)
class Manifest:
    """The files of a run.

    Raises
    ------
    ManifestError
        If two are of one path.
    """

    uid: str
    """The run's."""
    entries: tuple[ManifestEntry, ...]
    """One a file."""

    def __post_init__(self) -> None:
        if not isinstance(self.uid, str):
            raise ManifestError(f"the uid of a manifest's run is {_shown(self.uid)}; expected a text.")
        if len(self.by_path) != len(self.entries):
            (twice, _), *_ = Counter(entry.path for entry in self.entries).most_common(1)
            raise ManifestError(f"file {_shown(twice)} stands in a manifest twice; expected each file once.")

    @cached_property
    def by_path(self) -> dict[str, ManifestEntry]:
        """Each file, by its path."""
        return {entry.path: entry for entry in self.entries}

    @property
    def has_checksums(self) -> bool:
        """Whether there is a checksum of each file."""
        return all(entry.sha256 for entry in self.entries)

    def of(self, paths: Iterable[str]) -> "Manifest":
        """The part that is about some files."""
        known = self.by_path
        return Manifest(self.uid, tuple(known[path] for path in dict.fromkeys(paths) if path in known))

    def joined(self, other: "Manifest") -> "Manifest":
        """With the files of another part."""
        return Manifest(self.uid, tuple({**self.by_path, **other.by_path}.values()))

    def to_json(self) -> dict[str, Any]:
        """For people and other programs, an object a file."""
        files = [
            {"path": entry.path, "size": entry.size, "modified_ns": entry.modified_ns, "sha256": entry.sha256}
            for entry in self.entries
        ]
        return {"manifest": _VERSION, "uid": self.uid, "files": files}

    @classmethod
    def from_json(cls, said: Mapping[str, Any] | str | bytes) -> "Manifest":
        """From `to_json`, which anybody may have written.

        Raises
        ------
        ManifestError
            If it is no manifest.
        """
        if isinstance(said, str | bytes):
            said = _parsed(said)
        _check_version(said)
        files = said.get("files")
        if not isinstance(files, list) or not all(isinstance(file, Mapping) for file in files):
            raise ManifestError(f"the files of a manifest are {_shown(files)}; expected a list of objects.")
        entries = (
            ManifestEntry(file.get("path"), file.get("size"), file.get("modified_ns"), file.get("sha256", ""))
            for file in files
        )
        return cls(said.get("uid"), tuple(entries))  # type: ignore[arg-type]

    def to_columns(self) -> dict[str, Any]:
        """The same in little room, for the metadata of a catalog."""
        paths = [entry.path for entry in self.entries]
        # Character by character: names with a number in them have most of it in common.
        prefix = commonprefix(paths) if len(paths) > 1 else ""  # noqa: RUF071
        sizes = [entry.size for entry in self.entries]
        first = min((entry.modified_ns for entry in self.entries), default=0)
        said: dict[str, Any] = {
            "manifest": _VERSION,
            "prefix": prefix,
            "paths": [path[len(prefix) :] for path in paths],
            "sizes": sizes[:1] if len(set(sizes)) == 1 else sizes,
            "first_modified_ns": first,
            "modified_ns_after": [entry.modified_ns - first for entry in self.entries],
        }
        if self.entries and self.has_checksums:
            digests = b"".join(bytes.fromhex(entry.sha256) for entry in self.entries)
            return {**said, "sha256_base64": b64encode(digests).decode()}
        if any(entry.sha256 for entry in self.entries):
            said["sha256"] = [entry.sha256 for entry in self.entries]
        return said

    @classmethod
    def from_columns(cls, uid: str, said: Mapping[str, Any]) -> "Manifest":
        """From `to_columns`.

        Raises
        ------
        ManifestError
            If it is no manifest.
        """
        _check_version(said)
        prefix, first = said.get("prefix"), said.get("first_modified_ns")
        paths, times = _listed(said, "paths"), _listed(said, "modified_ns_after")
        sizes = _listed(said, "sizes")
        sizes = [*sizes] * len(paths) if len(sizes) == 1 else sizes
        checksums = _checksums(said, len(paths))
        if (
            not isinstance(prefix, str)
            or not isinstance(first, int)
            or not all(isinstance(path, str) for path in paths)
        ):
            raise ManifestError(
                "the paths or times of a manifest are not what they should be; expected texts, numbers."
            )
        if not len(paths) == len(sizes) == len(times) == len(checksums):
            raise ManifestError(f"a manifest has {len(paths)} paths, and not as much of all else; expected one a file.")
        if not all(isinstance(time, int) for time in times):
            raise ManifestError("the times of a manifest are no whole numbers; expected nanoseconds.")
        columns = zip(paths, sizes, times, checksums, strict=True)
        return cls(
            uid, tuple(ManifestEntry(prefix + path, size, first + time, sha) for path, size, time, sha in columns)
        )


def _parsed(text: str | bytes) -> Mapping[str, Any]:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"a manifest is no JSON ({error}); expected an object.") from error
    return said if isinstance(said, Mapping) else {"manifest": said}


def _check_version(said: Any) -> None:
    version = said.get("manifest") if isinstance(said, Mapping) else None
    if not isinstance(version, int) or isinstance(version, bool) or version != _VERSION:
        raise ManifestError(
            f"a manifest is of version {_shown(version)}; expected {_VERSION}: it is damaged, or a later version of "
            f"bluesky_filestore wrote it."
        )


def _listed(said: Mapping[str, Any], name: str) -> Sequence[Any]:
    listed = said.get(name)
    # Tiled's client has sequences of its own.
    if not isinstance(listed, Sequence) or isinstance(listed, str | bytes):
        raise ManifestError(f"{name} of a manifest is {_shown(listed)}; expected a list.")
    return listed


def _checksums(said: Mapping[str, Any], count: int) -> Sequence[Any]:
    if "sha256_base64" not in said:
        return _listed(said, "sha256") if "sha256" in said else [""] * count
    try:
        digests = b64decode(said["sha256_base64"], validate=True)
    except (TypeError, ValueError) as error:
        raise ManifestError(f"the checksums of a manifest are not in base64 ({error}).") from error
    if len(digests) % _DIGEST_BYTES:
        raise ManifestError(f"the checksums of a manifest are {len(digests)} bytes; expected {_DIGEST_BYTES} a file.")
    return [digests[place : place + _DIGEST_BYTES].hex() for place in range(0, len(digests), _DIGEST_BYTES)]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
