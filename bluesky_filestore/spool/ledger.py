"""The reading end of a spool: its documents in their order, and how far each run has come in each catalog."""

import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from bluesky_filestore.catalog_address import comparable_address
from bluesky_filestore.errors import SpoolDamagedError
from bluesky_filestore.visible import storable

from . import states
from .database import BACKSTOP_PAGES, as_stored, ascending, connect, database_errors, identity, put_aside, transaction
from .encoding import decode
from .entries import DeliveryState, Entry, Spooled
from .handoffs import Handoff, insert_handoffs
from .lease import Lease, is_source
from .measures import Measures
from .notes import notes_of

__all__ = ["Ledger"]

_DATUMS_BEFORE, _MOST_TRIES = 10_000, 10
_DOCUMENTS = "SELECT id, producer, run, name, body FROM documents WHERE"
# Of runs that wait the first have the oldest documents, but for writers that take long.
_MOST_LOOKED_AT = 100
_ENTRIES = (
    "SELECT id, uid, producer, first, started, stopped, fault, state, reason FROM runs LEFT JOIN deliveries "
    "ON run = id AND catalog = ?"
)


class Ledger:
    """The reading end of a spool.

    Parameters
    ----------
    directory : Path
        The spool directory.

    Raises
    ------
    SpoolError
        If it cannot be used.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.measures = Measures(directory)
        """What whoever delivers counts."""
        self._identity = identity(directory)
        self._connection = connect(directory)
        if self._identity is None:
            self._identity = identity(directory)
        with database_errors(directory):
            # Nothing here is in a hurry.
            self._connection.execute("PRAGMA busy_timeout = 10000")
            self._connection.execute(f"PRAGMA wal_autocheckpoint = {BACKSTOP_PAGES}")

    def close(self) -> None:
        """Close the database."""
        self.measures.save(at_once=True)
        self._connection.close()

    @property
    def is_current(self) -> bool:
        """Whether the database is the one that is written to: a damaged one is put aside by who finds it so."""
        return identity(self.directory) == self._identity

    def put_aside(self, reason: str) -> None:
        """Put the database aside, which is damaged."""
        put_aside(self.directory, self._identity, reason)

    def register_catalog(self, uri: str) -> int:
        """Make a catalog known, if it is not; its number."""
        for _ in range(_MOST_TRIES):
            known = self.known_catalog(uri)
            if known is not None:
                return known
            with self.transaction():
                self._connection.execute("INSERT OR IGNORE INTO catalogs (uri) VALUES (?)", (uri,))
        raise SpoolDamagedError(f"the spool database in {self.directory} is damaged (a catalog put in is not there)")

    def known_catalog(self, uri: str) -> int | None:
        """The number of the catalog of an address, however that is written; None if it is not known."""
        wanted, known = comparable_address(uri), self.catalogs().items()
        return next((number for number, (other, _) in known if comparable_address(other) == wanted), None)

    def catalogs(self) -> dict[int, tuple[str, str]]:
        """The address of each known catalog, and what it said last instead of taking documents."""
        rows = self.rows("SELECT id, uri, error FROM catalogs ORDER BY id")
        return {number: (uri, error) for number, uri, error in rows}

    def say(self, catalog: int, error: str) -> None:
        """Write down why a catalog does not take documents; empty if it does."""
        with self.transaction():
            statement = "UPDATE catalogs SET error = ?, changed = ? WHERE id = ? AND error <> ?"
            self._connection.execute(statement, (said := storable(error), time.time(), catalog, said))

    def documents_after(self, number: int, limit: int, size: int) -> list[Spooled]:
        """The documents that follow a number, in their order: no more than `limit`, and none after `size` bytes."""
        statement = f"{_DOCUMENTS} id > ? ORDER BY id LIMIT ?"
        return self._found(size, number, statement, number, limit)

    def _found(self, size: int, after: int, statement: str, *values: int) -> list[Spooled]:
        found = []
        with database_errors(self.directory), closing(self._connection.execute(statement, values)) as cursor:
            for row in ascending(cursor, after, self.directory):
                found.append(Spooled(*row))
                size -= found[-1].size
                if size <= 0:
                    break
        return found

    def documents_of_run_after(self, run: int, producer: int, number: int, limit: int, size: int) -> list[Spooled]:
        """The documents of a run that follow a number, with those of its producer that may be of any run.

        They come in their order, no more than `limit`, and none after `size` bytes.
        """
        of_run, of_any = f"{_DOCUMENTS} run = ? AND id > ?", f"{_DOCUMENTS} run IS NULL AND producer = ? AND id > ?"
        statement = f"{of_run} UNION ALL {of_any} ORDER BY id LIMIT ?"
        return self._found(size, number, statement, run, number, producer, number, limit)

    def version(self) -> int:
        """A number that is another one whenever somebody else has changed the database; it costs microseconds."""
        ((number,),) = self.rows("PRAGMA data_version")
        return int(number)

    def has_document(self, number: int) -> bool:
        """Whether there is a document with a number: of a run that is removed the first goes first."""
        return bool(self.rows("SELECT 1 FROM documents WHERE id = ?", number))

    def last_document(self, run: int | None = None) -> int:
        """The number of the last document, of all or of a run; 0 if there is none."""
        if run is None:
            ((number,),) = self.rows("SELECT coalesce(max(id), 0) FROM documents")
        else:
            ((number,),) = self.rows("SELECT coalesce(max(id), 0) FROM documents WHERE run = ?", run)
        return int(number)

    def announced_before(self, number: int, producer: int) -> Iterator[Spooled]:
        """The resources of a producer before a number, and the last datums."""
        for row in self.rows(
            f"{_DOCUMENTS} producer = ? AND id < ? AND name IN ('resource', 'stream_resource') ORDER BY id",
            producer,
            number,
        ):
            yield Spooled(*row)
        lately = self.rows(
            f"{_DOCUMENTS} id < ? AND producer = ? AND name IN ('datum', 'datum_page') ORDER BY id DESC LIMIT ?",
            number,
            producer,
            _DATUMS_BEFORE,
        )
        for row in reversed(list(lately)):
            yield Spooled(*row)

    def documents_of(self, run: int, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
        """The documents of a run, in their order; all, or those of a name."""
        number = 0
        statement = (
            "SELECT id, name, body FROM documents WHERE run = ? AND id > ? AND ? IN ('', name) ORDER BY id LIMIT"
        )
        while rows := list(ascending(self.rows(f"{statement} 1000", run, number, name), number, self.directory)):
            yield from ((of, decode(body)) for _, of, body in rows)
            number = rows[-1][0]

    def notes(self, run: int) -> list[str]:
        """What is to be said of a run in the catalogs, beside its documents."""
        with database_errors(self.directory):
            return notes_of(self._connection, run)

    def count(self, run: int) -> int:
        """How many documents of a run there are."""
        ((count,),) = self.rows("SELECT count(*) FROM documents WHERE run = ?", run)
        return int(count)

    def entries(self, catalog: int, *, uid: str = "") -> list[Entry]:
        """The runs of the spool, oldest first; all, or those whose uid begins so."""
        rows = self.rows(f"{_ENTRIES} WHERE uid >= ? AND uid < ? ORDER BY id", catalog, uid, f"{uid}\U0010ffff")
        return [_entry(*row) for row in rows]

    def entry(self, catalog: int, run: int) -> Entry | None:
        """One run by its number."""
        rows = self.rows(f"{_ENTRIES} WHERE id = ?", catalog, run)
        return next((_entry(*row) for row in rows), None)

    def latest(self) -> Entry | None:
        """The run that began last, whatever catalog it goes to."""
        rows = self.rows(f"{_ENTRIES} WHERE first > 0 ORDER BY id DESC LIMIT 1", 0)
        return next((_entry(*row) for row in rows), None)

    def unfinished(self, catalog: int, limit: int) -> list[Entry]:
        """Some of the runs that are neither delivered nor parked, oldest first."""
        rows = self.rows(
            f"{_ENTRIES} WHERE fault = '' AND coalesce(state, 'waiting') NOT IN ('delivered', 'parked') ORDER BY id "
            f"LIMIT ?",
            catalog,
            limit,
        )
        return [_entry(*row) for row in rows]

    def progress(self, uid: str) -> list[tuple[str, DeliveryState, str, int, int]]:
        """How far a run has come: each catalog's address, state, why, how many documents it has, and of how many."""
        return self.rows(
            "SELECT uri, CASE WHEN fault <> '' THEN 'parked' ELSE coalesce(state, 'waiting') END, "
            "coalesce(nullif(fault, ''), reason, ''), coalesce(deliveries.documents, 0), "
            "(SELECT count(*) FROM documents WHERE documents.run = runs.id) FROM runs JOIN catalogs "
            "LEFT JOIN deliveries ON deliveries.run = runs.id AND catalog = catalogs.id WHERE uid = ? ORDER BY runs.id",
            uid,
        )

    def set_states(self, catalog: int, runs: Mapping[int, states.State], handoffs: Iterable[Handoff] = ()) -> None:
        """Write down how far runs have come: state, reason, and how many more of their documents were taken.

        What somebody has parked stays parked. Messages that runs are complete are put in with it, or not at all.
        """
        with self.transaction() as connection:
            states.put_states(connection, catalog, runs)
            insert_handoffs(connection, handoffs)
        self.measures.add(f"delivered/{catalog}", sum(more for _, _, more in runs.values()))
        self.measures.save()

    def note_doubt(self, catalog: int, runs: Iterable[int]) -> None:
        """Of runs that somebody parked not every answer of the catalog came."""
        with self.transaction() as connection:
            states.note_doubt(connection, catalog, runs)

    def park(self, catalog: int, run: int, reason: str) -> None:
        """Have a run not delivered to a catalog, until somebody asks for it."""
        with self.transaction() as connection:
            states.park(connection, catalog, run, reason)

    def begin_again(self, catalog: int, runs: Iterable[int], *, is_asked: bool = False) -> None:
        """Runs shall be delivered from their first document on; those that somebody parked only if that is asked."""
        with self.transaction() as connection:
            states.begin_again(connection, catalog, runs, is_asked=is_asked)

    def count_anew(self, catalog: int) -> None:
        """Runs that are on their way are gone through from their first document on, whatever was taken of them."""
        with self.transaction() as connection:
            states.count_anew(connection, catalog)

    def asked_for(self, catalog: int) -> dict[int, DeliveryState]:
        """The runs whose state somebody else may have changed: those that wait again, and those that are parked."""
        rows = self.rows(
            "SELECT run, state FROM deliveries WHERE catalog = ? AND state IN ('waiting', 'parked')", catalog
        )
        return dict(rows)

    def counts(self, catalog: int) -> dict[DeliveryState, int]:
        """How many runs there are of each state."""
        rows = self.rows(
            "SELECT CASE WHEN fault <> '' THEN 'parked' ELSE coalesce(state, 'waiting') END AS now, count(*) FROM runs "
            "LEFT JOIN deliveries ON run = id AND catalog = ? GROUP BY now",
            catalog,
        )
        return dict(rows)

    def waiting_documents(self, catalog: int, producer: int | None = None) -> tuple[int, float | None]:
        """How many documents (of one producer, or all) the catalog has not got yet, and when their first run began."""
        ((count, oldest),) = self.rows(
            "SELECT sum(max(0, (SELECT count(*) FROM documents WHERE run = runs.id) - coalesce(documents, 0))), "
            "min(started) FROM runs LEFT JOIN deliveries ON run = runs.id AND catalog = ? "
            "WHERE fault = '' AND coalesce(state, 'waiting') IN ('waiting', 'uploading') "
            "AND (? IS NULL OR producer = ?)",
            catalog,
            producer,
            producer,
        )
        return count or 0, oldest

    def first_waiting(self, catalog: int) -> float | None:
        """When the oldest document was received that the catalog has not got; None if it has all."""
        runs = self.rows(
            "SELECT id, coalesce(documents, 0) FROM runs LEFT JOIN deliveries ON run = id AND catalog = ? "
            "WHERE fault = '' AND coalesce(state, 'waiting') IN ('waiting', 'uploading') AND "
            "coalesce(documents, 0) < (SELECT count(*) FROM documents WHERE run = runs.id) ORDER BY id LIMIT ?",
            *(catalog, _MOST_LOOKED_AT),
        )
        statement = "SELECT received FROM documents WHERE run = ? ORDER BY id LIMIT 1 OFFSET ?"
        return min((row[0] for run in runs for row in self.rows(statement, *run)), default=None)

    def parked(self, catalog: int, limit: int) -> dict[str, str]:
        """Why runs are parked, by uid, the latest first."""
        rows = self.rows(
            "SELECT uid, CASE WHEN fault <> '' THEN fault ELSE reason END FROM runs LEFT JOIN deliveries ON run = id "
            "AND catalog = ? WHERE fault <> '' OR state = 'parked' ORDER BY id DESC LIMIT ?",
            catalog,
            limit,
        )
        return dict(rows)

    def uploader(self, catalog: int) -> int | None:
        """The process that delivers to a catalog, if one does."""
        return Lease(self.lease(catalog)).holder()

    def lease(self, catalog: int) -> Path:
        """The file that who delivers to a catalog has to hold locked."""
        return self.directory / f"uploader-{catalog}.lock"

    def strays(self) -> int:
        """How many documents belong to no run that was begun here."""
        ((count,),) = self.rows(
            "SELECT count(*) FROM documents WHERE run IS NULL AND name NOT IN "
            "('resource', 'stream_resource', 'datum', 'datum_page')"
        )
        return int(count)

    def is_alive(self, producer: int) -> bool:
        """Whether the process that puts in documents under this number still runs, and has not closed its end.

        Who only passes documents on counts as alive: another process goes on with their runs.
        """
        with database_errors(self.directory):
            return self.is_written(producer) or is_source(self._connection, producer)

    def is_written(self, producer: int) -> bool:
        """Whether there is a process that puts in documents under this number."""
        # Where the database was put aside, a writer that goes on in the new one has another number there.
        return self.producer_lease(producer).holder() is not None or not self.is_current

    def producer_lease(self, producer: int) -> Lease:
        """What whoever puts in documents under a number holds locked."""
        return Lease(self.directory / f"producer-{producer}.lock")

    def rows(self, statement: str, *values: Any) -> list[Any]:
        """What a statement finds in the database."""
        with database_errors(self.directory), closing(self._connection.execute(statement, as_stored(values))) as cursor:
            return cursor.fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing of what is executed with this connection inside; whoever puts in documents has to wait."""
        with database_errors(self.directory), transaction(self._connection):
            yield self._connection


def _entry(number: int, uid: str, producer: int, first: int, started: float, *rest: Any) -> Entry:
    stopped, fault, state, reason = rest
    if fault:
        state, reason = "parked", fault
    return Entry(number, uid, producer, first, started, stopped, state or "waiting", reason or "")
