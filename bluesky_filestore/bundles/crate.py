"""What is in a pack, for other programs: RO-Crate 1.1 (https://w3id.org/ro/crate/1.1)."""

import json
import mimetypes
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from bluesky_filestore import __version__

__all__ = ["Crate"]

_CONTEXT, _PROFILE = "https://w3id.org/ro/crate/1.1/context", "https://w3id.org/ro/crate/1.1"
_SOFTWARE = "#bluesky_filestore"
_TYPES = {".h5": "application/x-hdf5", ".hdf5": "application/x-hdf5", ".nxs": "application/x-hdf5"}
_TYPES |= {".npy": "application/x-npy", ".jsonl": "application/jsonl", ".json": "application/json"}
_MOST_LISTED = 20_000
"""How many files are listed one by one: of a directory of more, the directory is."""


class Crate:
    """Is told what is packed, and then tells it as JSON-LD."""

    def __init__(self) -> None:
        self._entities: list[dict[str, Any]] = []
        self._of_files: list[dict[str, Any]] = []
        self._parts: list[dict[str, str]] = []
        self._runs: list[str] = []
        self._files = 0

    def add_file(self, name: str, size: int, modified_ns: int, sha256: str) -> None:
        """A file of a run."""
        self._files += 1
        if self._files > _MOST_LISTED:
            self._of_files.clear()
            return
        self._of_files.append(
            {
                "@id": quote(name),
                "@type": "File",
                "name": PurePosixPath(name).name,
                "contentSize": str(size),
                "dateModified": _moment(modified_ns),
                "encodingFormat": _type_of(name),
                "sha256": sha256,
            }
        )

    def add_run(self, uid: str, start: Mapping[str, Any], documents: str, manifest: str, names: Sequence[str]) -> None:
        """A run, whose files were told of."""
        directory = quote(documents.rpartition("/")[0]) + "/"
        known = names if self._files <= _MOST_LISTED else _directories(names)
        said = " ".join(str(start[key]) for key in ("plan_name", "scan_id") if key in start)
        self._runs.append(uid)
        self._parts.append({"@id": directory})
        self._entities += [
            {
                "@id": directory,
                "@type": "Dataset",
                "name": f"Bluesky run {uid}",
                "description": f"A run of Bluesky{f' ({said})' if said else ''}: its documents, and its files.",
                "identifier": uid,
                "dateCreated": _moment(int(float(start.get("time") or 0) * 10**9)),
                "hasPart": [{"@id": quote(name)} for name in (documents, manifest, *known)],
            },
            {
                "@id": quote(documents),
                "@type": "File",
                "name": "Documents of the run, as event-model describes them, one a line",
                "encodingFormat": _type_of(documents),
            },
            {
                "@id": quote(manifest),
                "@type": "File",
                "name": "Path, size, time and SHA-256 of the files of the run",
                "encodingFormat": _type_of(manifest),
            },
        ]

    def to_json(self, moment_ns: int) -> bytes:
        """All of it, as of a moment."""
        if self._files > _MOST_LISTED:
            for entity in self._entities:
                if "hasPart" in entity:
                    first, *names = [part["@id"] for part in entity["hasPart"]]
                    entity["hasPart"] = [{"@id": name} for name in (first, names[0], *_directories(names[1:]))]
        listed = {entity["@id"] for entity in (*self._entities, *self._of_files)}
        wanted = {part["@id"] for entity in self._entities for part in entity.get("hasPart", ())}
        directories = [
            {"@id": name, "@type": "Dataset", "name": f"Files in {name}"} for name in sorted(wanted - listed)
        ]
        graph = [
            {
                "@id": "ro-crate-metadata.json",
                "@type": "CreativeWork",
                "conformsTo": {"@id": _PROFILE},
                "about": {"@id": "./"},
            },
            {
                "@id": "./",
                "@type": "Dataset",
                "name": f"{len(self._runs):,} runs of Bluesky with their files",
                "description": f"Documents and {self._files:,} data files of the runs {', '.join(self._runs[:5])}"
                + ("." if len(self._runs) <= 5 else ", and others."),
                "datePublished": _moment(moment_ns),
                "license": "The owners of the data say what may be done with it.",
                "hasPart": [*self._parts, {"@id": "pack.json"}],
                "creator": {"@id": _SOFTWARE},
            },
            {
                "@id": _SOFTWARE,
                "@type": "SoftwareApplication",
                "name": "bluesky_filestore",
                "version": __version__,
                "url": "https://blueskyproject.io",
            },
            {
                "@id": "pack.json",
                "@type": "File",
                "name": "What is in the pack, for bluesky_filestore",
                "encodingFormat": "application/json",
            },
            *self._entities,
            *self._of_files,
            *directories,
        ]
        return json.dumps({"@context": _CONTEXT, "@graph": graph}, indent=1).encode()


def _directories(names: Iterable[str]) -> list[str]:
    return sorted({f"{name.rpartition('/')[0]}/" for name in names})


def _moment(ns: int) -> str:
    return datetime.fromtimestamp(ns / 10**9, UTC).isoformat(timespec="seconds")


def _type_of(name: str) -> str:
    suffix = PurePosixPath(name).suffix.lower()
    return _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
