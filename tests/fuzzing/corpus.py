"""What was found once, each in the form in which it was: files as they were, documents by what was changed in them."""

import gzip
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bluesky_filestore.errors import FileStoreError
from bluesky_filestore.files.hdf5 import shared_files
from bluesky_filestore.files.registered import Registered

from .documents import USES, Documents, DocumentTarget
from .files import FRAMES, IN_HDF5, KINDS, served, straight
from .running import Target

_FILES = Path(__file__).parent / "corpus"
_READ = {"h5": ("hdf5 plain", "hdf5 swmr", "hdf5 whole"), "tif": ("tiff",)}
# The document, what of it, and what that was: before the mend it was an error of Python's, or lost others with it.
_CHANGES: Sequence[tuple[str, str, Any]] = (
    ("event", "timestamps", 5.0),
    ("event", "data", None),
    ("event", "seq_num", "1"),
    ("event", "seq_num", 2**70),
    ("event_page", "time", []),
    ("event_page", "data", [1]),
    ("datum", "datum_id", {}),
    ("datum_page", "datum_kwargs", {"point_number": []}),
    ("start", "uid", 0.5),
    ("start", "run_start", [1]),
    ("descriptor", "name", 7),
    ("descriptor", "uid", np.arange(2)),
    ("descriptor", "data_keys", None),
    ("resource", "resource_kwargs", {"template": "%" + "0" * 100_000}),
    ("stream_resource", "parameters", {"template": "{:" + "9" * 100_000 + "}"}),
    ("stream_resource", "parameters", 1),
    ("stream_datum", "indices", {"start": 0, "stop": 10**30}),
    ("stream_datum", "seq_nums", {}),
    ("stop", "reason", np.arange(2)),
    ("stop", "num_events", {"primary": "many"}),
    ("stop", "run_start", np.arange(2)),
)


@dataclass(frozen=True)
class FoundFile:
    """A file, read as whatever it may be registered as."""

    path: Path
    is_served: bool

    @property
    def name(self) -> str:
        """Of the file, and the way."""
        return f"corpus {'served ' if self.is_served else ''}{self.path.name.partition('.')[0]}"

    @property
    def bears(self) -> frozenset[str]:
        """What HDF5 does itself, in a process without another that tries."""
        return IN_HDF5 if self.path.parent != _FILES and not self.is_served else frozenset()

    def prepare(self, directory: Path) -> None:
        """Nothing."""

    def case(self, rng: random.Random) -> bytes:
        return gzip.decompress(self.path.read_bytes())

    def attempt(self, case: bytes, directory: Path) -> str | None:
        suffix, error = self.path.name.split(".")[1], None
        for number, kind in enumerate(_READ[suffix]):
            _, mimetype, parameters = KINDS[kind]
            path = directory / f"{number}.{suffix}"
            path.write_bytes(case)
            shape = FRAMES.shape if suffix == "h5" else FRAMES[:1].shape
            registered = Registered(mimetype, parameters, {}, [str(path)], shape, FRAMES.dtype)
            try:
                (served if self.is_served else straight)(registered, directory)
            except FileStoreError as refused:
                error = refused
            finally:
                shared_files().close()
        if error is not None:
            raise error
        return None


@dataclass
class FoundDocuments(DocumentTarget):
    """Documents of runs of each kind, in each of which each document of a name was changed in one way."""

    changes: Sequence[tuple[str, str, Any]] = field(default=_CHANGES)

    def case(self, rng: random.Random) -> list[Documents]:
        return [
            [(name, {**doc, entry: value} if name == of else doc) for name, doc in docs]
            for of, entry, value in self.changes
            for docs in self.runs
            if of in dict(docs)
        ]

    def attempt(self, case: list[Documents], directory: Path) -> str | None:
        error = None
        for docs in case:
            try:
                super().attempt(docs, directory)
            except FileStoreError as refused:
                error = refused
        if error is not None:
            raise error
        return None


def targets() -> list[Target]:
    """All that was found: one case each."""
    files = [FoundFile(path, way) for path in sorted(_FILES.rglob("*.gz")) for way in (False, True)]
    return [*files, *(FoundDocuments(f"corpus documents {name}", use) for name, use in USES.items())]
