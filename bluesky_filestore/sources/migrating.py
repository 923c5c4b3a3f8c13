"""Runs copied from elsewhere into a catalog of Tiled's, and compared there, one by one.

`Migration` keeps a database of its own beside the spool that it delivers from:

==========  ==========================================================================  ==============================
state       it is so when                                                               the next time
==========  ==========================================================================  ==============================
(none)      nobody has looked at it, or the process was killed meanwhile                it is copied: what the catalog
                                                                                        has of it already stays
same        the catalog has every document, and the frames that were looked at          it is left alone
differs     something is otherwise, or is not there: `Copied.differences` says what     it is copied again if asked
failed      it could not be read, or the catalog did not take it                        it is copied again
==========  ==========================================================================  ==============================

Some runs are handed on at once, so that the catalog is kept busy; each is compared when all of them are there.
"""

import json
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
from bluesky_filestore.delivery.resuming import deliver_runs
from bluesky_filestore.errors import FileStoreError
from bluesky_filestore.handlers import fill_event
from bluesky_filestore.model.document_differences import differences, singles
from bluesky_filestore.private import make_private_directory, make_private_file
from bluesky_filestore.reading.document_reader import documents_of
from bluesky_filestore.reading.run_tree import RunTree
from bluesky_filestore.spool.store import Store

from .databroker import Runs

__all__ = ["Copied", "CopyState", "Migration"]

CopyState: TypeAlias = Literal["same", "differs", "failed"]

_MOST_WORDS = 20
_ODD = (FileStoreError, OSError, LookupError, ValueError, TypeError, AttributeError)
"""What documents of anybody's may come to; other runs are copied all the same."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    uid TEXT PRIMARY KEY, state TEXT NOT NULL, events INTEGER, frames INTEGER, differences TEXT, notes TEXT
)
"""


@dataclass(frozen=True, slots=True)
class Copied:
    """What became of one run."""

    uid: str
    """Its uid."""
    state: CopyState
    """Whether the catalog has what the source has."""
    events: int = 0
    """How many events it has."""
    frames: int = 0
    """How many frames were compared."""
    differences: tuple[str, ...] = ()
    """What is otherwise in the catalog, or why it could not be copied."""
    notes: tuple[str, ...] = ()
    """What the catalog has no words for, as the run says there itself."""


class Migration:
    """Copies the runs of a source into a catalog, and remembers which.

    Parameters
    ----------
    source : Runs
        Where they are.
    catalog : TiledCatalog
        Where they go.
    directory : Path
        Where it is remembered how far this has come; one for each source and catalog.
    root_map : Mapping of str to str, optional
        Where directories are, for who compares frames, that documents name.
    at_once : int
        How many runs are handed on at once.

    Raises
    ------
    SpoolError
        If the directory cannot be used.
    """

    def __init__(
        self,
        source: Runs,
        catalog: TiledCatalog,
        directory: Path,
        *,
        root_map: Mapping[str, str] | None = None,
        at_once: int = 50,
    ) -> None:
        self._source, self._catalog, self._root_map, self._at_once = source, catalog, root_map, at_once
        make_private_directory(directory)
        self._spool = directory / "spool"
        make_private_file(directory / "migration.sqlite")
        self._known = sqlite3.connect(directory / "migration.sqlite", isolation_level=None)
        self._known.execute(_SCHEMA)

    def close(self) -> None:
        """End; what was copied is remembered."""
        self._known.close()

    def __enter__(self) -> "Migration":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def counts(self) -> dict[CopyState, int]:
        """How many runs there are of each state."""
        found = dict(self._known.execute("SELECT state, count(*) FROM runs GROUP BY state").fetchall())
        return {state: found.get(state, 0) for state in get_args(CopyState)}

    def unlike(self) -> Iterator[Copied]:
        """The runs that are not the same, or have notes."""
        for uid, state, events, frames, words, notes in self._known.execute(
            "SELECT * FROM runs WHERE state <> 'same' OR notes <> '[]' ORDER BY rowid"
        ):
            yield Copied(uid, state, events, frames, tuple(json.loads(words)), tuple(json.loads(notes)))

    def copy(self, limit: int | None = None, *, again: bool = False) -> Iterator[Copied]:
        """Copy what is not there yet, oldest runs first.

        Parameters
        ----------
        limit : int, optional
            How many runs at most.
        again : bool
            Whether those that differed are copied again, too.

        Raises
        ------
        CatalogError
            If the catalog is away.
        """
        wanted = islice((uid for uid in self._source.uids() if not self._is_done(uid, again)), limit)
        while batch := list(islice(wanted, self._at_once)):
            # What an earlier life left there is in the source.
            shutil.rmtree(self._spool, ignore_errors=True)
            for copied in self._copy(batch):
                self._remember(copied)
                yield copied
        shutil.rmtree(self._spool, ignore_errors=True)

    def _is_done(self, uid: str, again: bool) -> bool:
        row = self._known.execute("SELECT state FROM runs WHERE uid = ?", (uid,)).fetchone()
        return row is not None and (row[0] == "same" or (row[0] == "differs" and not again))

    def _remember(self, copied: Copied) -> None:
        self._known.execute(
            "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?)",
            (
                copied.uid,
                copied.state,
                copied.events,
                copied.frames,
                json.dumps(copied.differences),
                json.dumps(copied.notes),
            ),
        )

    def _copy(self, batch: list[str]) -> Iterator[Copied]:
        failed: dict[str, str] = {}
        with closing(Store(self._spool)) as store:
            for uid in batch:
                try:
                    # All of it before the first is handed on: half of a run is none.
                    for name, doc in list(self._source.documents_of(uid)):
                        store.append(name, doc)
                except _ODD as error:
                    failed[uid] = f"it cannot be read: {error!r}"
        parked = deliver_runs(self._spool, self._catalog, [uid for uid in batch if uid not in failed])
        for uid in batch:
            if uid in failed:
                yield Copied(uid, "failed", differences=(failed[uid],))
                continue
            try:
                yield self._compare(uid, parked.get(uid, ""))
            except _ODD as error:
                yield Copied(uid, "failed", differences=(f"it cannot be compared: {error!r}",))

    def _compare(self, uid: str, parked: str) -> Copied:
        node = RunTree(self._catalog.connect()[uid])
        source = list(singles(self._source.documents_of(uid)))
        words = [parked] if parked else []
        words += differences(source, list(singles(documents_of(node))))
        frames, odd = self._compare_frames(node, source)
        words += odd
        events = sum(name == "event" for name, _ in source)
        notes = tuple(map(str, node.metadata.get("notes", ())))
        return Copied(uid, "differs" if words else "same", events, frames, tuple(words[:_MOST_WORDS]), notes)

    def _compare_frames(self, node: RunTree, source: list[tuple[str, Any]]) -> tuple[int, list[str]]:
        """The first, a middle and the last frame of each external key: how many were compared, what is otherwise."""
        about = [pair for pair in source if pair[0] not in ("start", "event", "stop")]
        words, compared = [], 0
        for stream, keys in _external_keys(source).items():
            events = [doc for name, doc in source if name == "event" and doc["descriptor"] in keys]
            for key in sorted({key for some in keys.values() for key in some}):
                rows = [row for row, event in enumerate(events) if key in event["data"]]
                row = 0
                try:
                    array = node.children(stream)[key]
                    for row in sorted({rows[0], rows[len(rows) // 2], rows[-1]} if rows else ()):
                        expected = fill_event(events[row], about, root_map=self._root_map, patience=0.0)["data"][key]
                        if not np.array_equal(np.squeeze(expected), np.squeeze(array.read((row,)))):
                            words.append(f"frame {row} of {stream}/{key} is another one in the catalog")
                        compared += 1
                except Exception as error:  # noqa: BLE001 - a handler is anybody's code
                    words.append(f"frame {row} of {stream}/{key} cannot be compared: {error!r}")
        return compared, words


def _external_keys(source: list[tuple[str, Any]]) -> dict[str, dict[str, list[str]]]:
    """The external keys by stream and descriptor."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, doc in source:
        if name == "descriptor":
            keys = [key for key, entry in doc["data_keys"].items() if entry.get("external")]
            found.setdefault(doc["name"], {})[doc["uid"]] = keys
    return found
