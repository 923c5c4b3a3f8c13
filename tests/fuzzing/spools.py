"""Spools of which bytes were changed: looked through, read, delivered from and written to; and documents in them."""

import random
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bluesky_filestore.delivery.conveyor import Conveyor
from bluesky_filestore.delivery.problems import Problems
from bluesky_filestore.errors import FileStoreError
from bluesky_filestore.spool import Ledger, Store
from bluesky_filestore.spool.encoding import encode, read
from bluesky_filestore.spool.spooled_run import exported, find_run
from tests.spooled import Applied, put, run_documents

from .mutations import Original, changed

NAME = "spool.db"


@dataclass
class SpoolTarget:
    """The database of a spool with three runs."""

    name: str = "spools"
    original: Original | None = None
    uids: list[str] = field(default_factory=list)
    bears: frozenset[str] = frozenset()

    def prepare(self, directory: Path) -> None:
        odd = {"when": np.datetime64("2026-01-01"), ("a", 1): [{(2,): np.eye(2)}], "big": 2**80}
        runs = [run_documents(4, f"{number}" * 8, note="x" * 50) for number in range(3)]
        runs[1][1][0][1]["odd"] = odd
        runs[1][1].insert(3, ("event", {"data": None}))
        runs[1][1].insert(3, ("datum", {"datum_id": [{}], "resource": {}}))
        self.uids = [uid for uid, _ in runs]
        put(directory, *(docs for _, docs in runs), catalogs=[Applied.uri])
        with closing(Ledger(directory)) as ledger:
            ledger.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        data = (directory / NAME).read_bytes()
        pages = range(0, len(data), 4096)
        # The header of each page, its cells, and the heads of records.
        fields = [at for page in pages for at in range(page, page + 120) if any(data[page : page + 4096])]
        fields += [at for at in range(len(data)) if data[at : at + 3] in (b"sta", b"des", b"eve", b"sto")]
        self.original = Original(data, [], fields=[*range(100), *fields])

    def case(self, rng: random.Random, number: int) -> bytes:
        assert self.original is not None
        return bytes(changed(rng, self.original, big=True).data)

    def attempt(self, case: bytes, directory: Path) -> str | None:
        (directory / NAME).write_bytes(case)
        refused = None
        for use in (_look, self._export, _deliver, _write):
            try:
                use(directory)
            except FileStoreError as error:
                refused = error
        if refused is not None:
            raise refused
        return None

    def _export(self, directory: Path) -> None:
        for uid in self.uids:
            for run in find_run([directory], uid):
                list(exported(run))


def _look(directory: Path) -> None:
    with closing(Ledger(directory)) as ledger:
        for number in ledger.catalogs():
            ledger.entries(number)
            ledger.counts(number)
            ledger.waiting_documents(number)
            ledger.parked(number, 10)
        ledger.strays()


def _deliver(directory: Path) -> None:
    with closing(Ledger(directory)) as ledger:
        conveyor = Conveyor(ledger, Applied(), Problems())
        while conveyor.move()[1]:
            pass


def _write(directory: Path) -> None:
    with closing(Store(directory)) as store:
        for name, doc in run_documents(2, "9" * 8)[1]:
            store.append(name, doc)


@dataclass
class BodyTarget:
    """Documents as they are kept in a spool."""

    name: str = "spooled documents"
    originals: list[Original] = field(default_factory=list)
    bears: frozenset[str] = frozenset()

    def prepare(self, directory: Path) -> None:
        docs: list[Any] = [doc for _, doc in run_documents(1)[1]]
        masked = np.ma.masked_array([1, 2], [True, False])
        docs.append({"a": np.arange(6).reshape(2, 3), "big": 2**80, "odd": object(), "masked": masked, "b": b"\xff"})
        docs.append({"when": np.datetime64("2026-01-01"), "deep": [[[{"x": (1, 2)}]]], ("a", 1): 2.5})
        for body in map(encode, docs):
            self.originals.append(Original(body, [], fields=list(range(len(body)))))

    def case(self, rng: random.Random, number: int) -> bytes:
        return bytes(changed(rng, rng.choice(self.originals), big=True).data)

    def attempt(self, case: bytes, directory: Path) -> str | None:
        read(case)
        return None


def targets() -> list[Any]:
    """The database, and what is in it."""
    return [SpoolTarget(), BodyTarget()]
