"""What was found once, each in the form in which it was: files as they were, documents by what was changed in them."""

import gzip
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from bluesky_filestore.errors import FileStoreError
from bluesky_filestore.files.hdf5 import shared_files
from bluesky_filestore.files.registered import Registered

from .documents import USES, Documents, DocumentTarget
from .files import FRAMES, KINDS, Way, served, straight
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
    ("stream_datum", "indices", {"start": 0, "stop": 10**12}),
    ("datum", "datum_kwargs", {"point_number": 10**12}),
    ("stream_datum", "seq_nums", {}),
    ("stop", "reason", np.arange(2)),
    ("stop", "num_events", {"primary": "many"}),
    ("stop", "run_start", np.arange(2)),
)


@runtime_checkable
class Found(Target, Protocol):
    """What was found: so many cases and no more."""

    def __len__(self) -> int:
        """How many."""


@dataclass(frozen=True)
class FoundFiles:
    """Files, read as whatever they may be registered as."""

    name: str
    read: Way
    files: Sequence[Path]
    bears: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.files)

    def prepare(self, directory: Path) -> None:
        """Nothing."""

    def case(self, rng: random.Random, number: int) -> tuple[str, Sequence[str], bytes]:
        path = self.files[number]
        suffix = path.name.split(".")[1]
        # What takes its time is tried once.
        kinds = _READ[suffix][: 3 if path.parent == _FILES else 1]
        return suffix, kinds, gzip.decompress(path.read_bytes())

    def attempt(self, case: tuple[str, Sequence[str], bytes], directory: Path) -> str | None:
        (suffix, kinds, data), error = case, None
        for number, kind in enumerate(kinds):
            _, mimetype, parameters = KINDS[kind]
            path = directory / f"{number}.{suffix}"
            path.write_bytes(data)
            shape = FRAMES.shape if suffix == "h5" else FRAMES[:1].shape
            try:
                self.read(Registered(mimetype, parameters, {}, [str(path)], shape, FRAMES.dtype), directory)
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

    def __len__(self) -> int:
        return len(_CHANGES)

    def case(self, rng: random.Random, number: int) -> list[Documents]:
        of, entry, value = _CHANGES[number]
        return [
            [(name, {**doc, entry: value} if name == of else doc) for name, doc in docs]
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


def targets() -> list[Found]:
    """All that was found."""
    mended = sorted(_FILES.glob("*.gz"))
    # What HDF5 itself hangs or crashes with a server finds out in another process.
    files = (FoundFiles("corpus", straight, mended), FoundFiles("corpus served", served, sorted(_FILES.rglob("*.gz"))))
    return [*files, *(FoundDocuments(f"corpus documents {name}", use) for name, use in USES.items())]
