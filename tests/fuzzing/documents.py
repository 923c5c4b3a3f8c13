"""Documents of runs, changed: gathered as a catalog is written, filled, opened and verified."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bluesky_filestore import fill, open_array, verify_run
from bluesky_filestore.errors import FileStoreError
from bluesky_filestore.files.formats import inspect_files as inspect
from bluesky_filestore.files.hdf5 import shared_files
from bluesky_filestore.model.frame_map import Assets
from bluesky_filestore.model.normalize import unpacked
from bluesky_filestore.model.order import Sequence
from bluesky_filestore.model.validate import schema_fault
from bluesky_filestore.operations.announcing import announce
from bluesky_filestore.operations.run import Run
from bluesky_filestore.spool.encoding import encode, read
from tests.document_streams import KINDS, Builder, Camera, Case, Step

from . import values

Documents = list[tuple[str, Any]]
_ANNOUNCEMENTS = ("resource", "stream_resource", "datum")


@dataclass
class DocumentTarget:
    """The documents of runs of each kind, and what is done with them."""

    name: str
    use: Callable[[Documents], None]
    runs: list[Documents] = field(default_factory=list)
    bears: frozenset[str] = frozenset()

    def prepare(self, directory: Path) -> None:
        steps = (*(Step("primary"),) * 3, Step("dark"), Step("primary", "rewind"), Step("primary"))
        for number, kind in enumerate(KINDS):
            for is_paged in (False, True):
                there = directory / f"{number}{is_paged}"
                there.mkdir()
                case = Case((Camera("cam", kind, 2, "<u2"),), {"primary": (0,), "dark": (0,)}, (steps,), paged=is_paged)
                self.runs.append(Builder(case, there).build().documents)
        shared_files().close()

    def case(self, rng: random.Random, number: int) -> Documents:
        docs = list(rng.choice(self.runs))
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            at = rng.randrange(len(docs))
            name, doc = docs[at]
            match rng.randrange(12):
                case 0:
                    del docs[at]
                case 1:
                    docs.insert(rng.randrange(len(docs) + 1), (name, doc))
                case 2:
                    other = rng.randrange(len(docs))
                    docs[at], docs[other] = docs[other], docs[at]
                case 3:
                    docs[at] = (rng.choice(docs)[0], doc)
                case _:
                    changed = values.changed(rng, doc)
                    docs[at] = (name, changed)
            if not docs:
                break
        return docs

    def attempt(self, case: Documents, directory: Path) -> str | None:
        try:
            self.use(case)
        finally:
            shared_files().close()
        return None


def gather(docs: Documents) -> None:
    """As a lane of delivery makes operations of documents, without its net for what was overlooked."""
    assets, runs = Assets(), dict[str, Run]()
    sequence = Sequence(assets)
    for name, doc in docs:
        body = encode(doc)
        doc, _ = read(body)
        try:
            for single_name, single in unpacked(name, doc):
                schema_fault(single_name, single)
                _follow(single_name, single, sequence, assets, runs)
        except FileStoreError:
            continue
    for run in runs.values():
        list(run.take(final=True))
        run.settle()
        for loss in run.take_losses():
            raise LostError(loss)


def _follow(name: str, doc: Mapping[str, Any], sequence: Sequence, assets: Assets, runs: dict[str, Run]) -> None:
    if name in _ANNOUNCEMENTS:
        announce(name, doc, assets)
        return
    sequence.run_of(name, doc)
    uid = sequence.advance(name, doc)
    if name == "start":
        runs[uid] = Run(doc, assets, inspect, reads=lambda mimetype: True)
    elif uid in runs:
        runs[uid].receive(name, doc)


class LostError(Exception):
    """Something of ours stumbled over a document, and left out what it was making."""


def filled(docs: Documents) -> None:
    """Fill them."""
    for _ in fill(docs, patience=0):
        pass


def opened(docs: Documents) -> None:
    """Open an array of them."""
    array = open_array(docs, stream="primary", data_key="cam")
    np.asarray(array[0])


def verified(docs: Documents) -> None:
    """Verify them; the report says what is wrong."""
    str(verify_run(docs))


USES = {"gathered": gather, "filled": filled, "opened": opened, "verified": verified}


def targets() -> list[DocumentTarget]:
    """Each thing that is done with documents."""
    return [DocumentTarget(f"documents {name}", use) for name, use in USES.items()]
