"""What the database of a spool does not take, whatever room there is: it costs nobody else a document."""

import json
import logging
import sqlite3
import time
from contextlib import closing, suppress

import numpy as np
import pytest
from spooled import Applied, run_documents

from bluesky_filestore.delivery.spooling import Spooling
from bluesky_filestore.errors import SpoolError
from bluesky_filestore.sources.consuming import ArchiveSource, consume
from bluesky_filestore.sources.intake import Intake
from bluesky_filestore.spool import Ledger, Store
from bluesky_filestore.spool.database import connect, transaction
from bluesky_filestore.spool.measures import Measures
from bluesky_filestore.spool.notes import NOTE
from bluesky_filestore.spool.producer import Producer
from bluesky_filestore.spool.spooled_run import find_run
from bluesky_filestore.spool_writer import SpoolWriter

ODD = "r\udce9sum"
STORED = r"r\udce9sum"


class Unsayable:
    """Has no text."""

    def __str__(self):
        raise ValueError("no")


@pytest.fixture(params=["one by one", "together", "after they waited in memory"])
def put(tmp_path, request):
    """Has a store take documents, in one way or another, and gives the store, and what it said."""
    stores = []

    def attempt(said, take, *arguments):
        try:
            take(*arguments)
        except SpoolError as error:
            said.append(str(error))

    def take(documents, store=None):
        store, said = store or Store(tmp_path), []
        stores.append(store)
        if request.param == "together":
            attempt(said, store.append_all, documents)
        elif request.param == "one by one":
            for pair in documents:
                attempt(said, store.append, *pair)
        else:
            with closing(connect(tmp_path)) as other, transaction(other):
                for pair in documents:
                    store.append(*pair)
                assert store.unsaved == len(documents)
            attempt(said, store.save)
        return store, said

    yield take
    for store in stores:
        store.close()


def kept(directory):
    """The names of the documents of each run in a spool, by uid, and how many are of none."""
    with closing(Ledger(directory)) as ledger:
        runs = {entry.uid: [name for name, _ in ledger.documents_of(entry.number)] for entry in ledger.entries(0)}
        return runs, ledger.strays()


def wait_until_saved(store):
    """Wait for the store's own thread to put on the disk what is in memory."""
    deadline = time.monotonic() + 30
    while store.unsaved:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def has_limit(store, most=200_000):
    """Let a store's database take no value of more bytes: SQLite's own limit would need gigabytes."""
    store._producer.connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, most)
    return store


def with_big(documents, place):
    """The documents of a run, of which one has a big entry."""
    name, doc = documents[place]
    return [*documents[:place], (name, {**doc, "big": np.zeros(300_000, "u1")}), *documents[place + 1 :]]


@pytest.mark.parametrize(
    ("uid", "stored"), [(ODD, STORED), (Unsayable(), "<Unsayable that has no text: ValueError>"), ("grün", "grün")]
)
def test_uid_that_is_no_text_of_sqlite(tmp_path, put, uid, stored):
    """Its run is kept like any other, under a text that can be, and those after it are."""
    uid_of = {"uid": uid}
    documents = [
        ("start", {**uid_of, "time": 1.0}),
        ("descriptor", {"uid": ODD, "run_start": uid, "name": "primary", "data_keys": {}, "time": 1.0}),
        (NOTE, {"run_start": uid, "text": f"note {ODD}"}),
        ("event", {"uid": "e", "descriptor": ODD, "data": {}, "timestamps": {}, "seq_num": 1, "time": 1.0}),
        ("stop", {"uid": "s", "run_start": uid, "time": 2.0, "exit_status": "success"}),
    ]
    later, more = run_documents(2)
    store, said = put([*documents, *more])
    assert (store.open_runs, said) == ((), [])
    names = [name for name, _ in documents if name != NOTE]
    assert kept(tmp_path) == ({stored: names, later: [name for name, _ in more]}, 0)
    with closing(Ledger(tmp_path)) as ledger:
        assert ledger.notes(1) == [f"note {STORED}"]


@pytest.mark.parametrize("name", [ODD, None, ["event"], Unsayable()])
def test_name_that_is_none(tmp_path, put, name):
    """A document that goes by no name is kept, with the text of what it goes by."""
    uid, documents = run_documents(1)
    put([*documents[:-1], (name, {}), documents[-1]])
    runs, strays = kept(tmp_path)
    names = runs[uid]
    assert ([*names[:3], names[-1]], len(names), strays) == (["start", "descriptor", "event", "stop"], 5, 0)
    assert isinstance(names[3], str)


def test_found_by_it(tmp_path, put):
    """Whoever asks for such a run, by its uid as it is or as it is stored, finds it, and can say anything of it."""
    uid, documents = run_documents(1, uid=ODD)
    put(documents)
    with closing(Ledger(tmp_path)) as ledger:
        number = ledger.register_catalog("http://localhost/api/v1/metadata/")
        ledger.say(number, f"away: {ODD}")
        assert ledger.catalogs()[number][1] == f"away: {STORED}"
        assert len(ledger.progress(ODD)) == 1
    for asked in (uid, STORED, uid[:2]):
        (run,) = find_run([tmp_path], asked)
        assert run.uid == STORED
    run.park(f"of {ODD}")
    (run,) = find_run([tmp_path], uid)
    assert [entry.reason for _, entry in run.deliveries] == [f"of {STORED}"]


def test_source_of_such_a_name(tmp_path):
    """What comes from there goes on under the same number."""
    with closing(Store(tmp_path, source=f"archive {ODD}")) as store:
        number = store.producer
    with closing(Store(tmp_path, source=f"archive {ODD}")) as store:
        assert store.producer == number


def test_waiting_in_memory_with_a_thread(tmp_path):
    """The thread that puts on the disk what waited goes on, too."""
    uid, documents = run_documents(1, uid=ODD)
    with closing(Store(tmp_path)) as store:
        with closing(connect(tmp_path)) as other, transaction(other):
            for pair in documents:
                store.append(*pair)
        wait_until_saved(store)
    assert kept(tmp_path) == ({STORED: [name for name, _ in documents]}, 0)
    assert uid == ODD


def test_too_big(tmp_path, put, caplog):
    """A document that is too big costs nothing but itself, and its run says so; so do the log, and whoever is asked."""
    (uid, documents), (later, more) = run_documents(3), run_documents(2)
    store, said = put([*with_big(documents, 3), *more], has_limit(Store(tmp_path)))
    (words,) = said
    assert f"Run {uid[:8]}: A event document of 300," in words
    assert "is not kept (string or blob too big, expected 200,000 bytes at most: what is that big belongs" in words
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("ERROR", words)]
    assert (store.unsaved, store.error, store.losses.all(), store.open_runs) == (0, None, (words,), ())
    names = [name for name, _ in documents]
    assert kept(tmp_path) == ({uid: [*names[:3], *names[4:]], later: [name for name, _ in more]}, 0)
    with closing(Ledger(tmp_path)) as ledger:
        assert [note.partition(" of 300,")[0] for note in ledger.notes(1)] == ["A event document"]
        assert ledger.notes(2) == []


@pytest.mark.parametrize("place", [0, -1])
def test_begin_or_end_that_is_too_big(tmp_path, put, place):
    """Its run begins and ends all the same: the document is kept without what is too big of it, and the run says so."""
    uid, documents = run_documents(2)
    store, said = put(with_big(documents, place if place == 0 else len(documents) - 1), has_limit(Store(tmp_path)))
    name = documents[place][0]
    (words,) = said
    assert f"Run {uid[:8]}: The {name} document of 300," in words
    assert "is kept without its 'big' (string or blob too big" in words
    assert store.open_runs == ()
    with closing(Ledger(tmp_path)) as ledger:
        (entry,) = ledger.entries(0)
        assert list(ledger.documents_of(entry.number)) == documents
        assert entry.stopped is not None
        (note,) = ledger.notes(entry.number)
        assert note.startswith(f"The {name} document of 300,")


def test_begin_that_is_nothing_but_too_big(tmp_path, put):
    """If even its uid is, it is lost alone."""
    uid, documents = run_documents(1)
    _, said = put([("start", {"uid": "x" * 300_000, "time": 1.0}), *documents], has_limit(Store(tmp_path)))
    (words,) = said
    assert "A start document of 300," in words
    assert "It is of no run that is known here." in words
    assert kept(tmp_path) == ({uid: [name for name, _ in documents]}, 0)


def test_archive_with_what_is_too_big(tmp_path):
    """`consume` goes on to the end, and has no need to be begun again."""
    (uid, documents), (later, more) = run_documents(2), run_documents(2)
    documents[2] = ("event", {**documents[2][1], "big": "x" * 300_000})
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(pair)}\n" for pair in [*documents, *more]))
    with closing(has_limit(Store(tmp_path / "spool", source="archives"))) as store, Intake(store) as intake:
        assert consume(ArchiveSource([tmp_path / "a.jsonl"]), store, intake, lambda: False)
        assert (store.unsaved, len(store.losses.all()), intake.gaps) == (0, 1, [])
    names = ["start", "descriptor", "event", "stop"]
    assert kept(tmp_path / "spool") == ({uid: names, later: [name for name, _ in more]}, 0)


def test_writer_says_it(tmp_path):
    """The plan goes on, `status` has it, and `flush` raises it once."""
    _, documents = run_documents(2)
    with SpoolWriter(tmp_path) as writer:
        has_limit(writer._store)
        for pair in with_big(documents, 2):
            writer(*pair)
        (words,) = writer.status().problems
        with pytest.raises(SpoolError, match="is not kept"):
            writer.flush()
        writer.flush()
        assert writer.status().problems == (words,)
    writer = SpoolWriter(tmp_path, on_error="raise")
    has_limit(writer._store)
    first, second, third, *_ = with_big(run_documents(2)[1], 2)
    writer(*first)
    writer(*second)
    with pytest.raises(SpoolError, match="is not kept"):
        writer(*third)
    with pytest.raises(SpoolError, match="is not kept"):
        writer.close()


def test_delivered_with_the_rest(tmp_path):
    """The run is in the catalog, and says there what it lacks; who waits for all to be there is told once."""
    uid, documents = run_documents(3)
    catalog = Applied()
    spooling = Spooling(tmp_path, [catalog], wait_on_stop=0.0, durability="normal")
    has_limit(spooling.store)
    for pair in with_big(documents, 4):
        with suppress(SpoolError):
            spooling.put(*pair)
    with pytest.raises(SpoolError, match="is not kept"):
        spooling.close()
    (note,) = catalog.closed()[uid]["notes"]
    assert note.startswith("A event document of 300,")


def test_no_memory_for_it(tmp_path, monkeypatch):
    """What there is no memory for now waits, as for a disk that is full: it may be kept later."""
    uid, documents = run_documents(2)
    insert = Producer.insert

    def without(producer, stretch):
        raise MemoryError

    with closing(Store(tmp_path)) as store:
        store.append_all(documents[:2])
        monkeypatch.setattr(Producer, "insert", without)
        with pytest.raises(SpoolError, match=r"\(there is not enough memory for it\); 1 wait in memory"):
            store.append(*documents[2])
        monkeypatch.setattr(Producer, "insert", insert)
        store.append_all(documents[3:])
        assert (store.unsaved, store.losses.all()) == (0, ())
    assert kept(tmp_path) == ({uid: [name for name, _ in documents]}, 0)


def test_thread_goes_on(tmp_path, monkeypatch, caplog):
    """Whatever the store's own thread meets, it goes on, and says so once."""
    monkeypatch.setattr("bluesky_filestore.spool.store._SYNC_SECONDS", 0.01)
    rounds = []

    def save(measures, *, at_once=False):
        rounds.append(1)
        if not at_once:
            raise RuntimeError("what nobody thought of")

    monkeypatch.setattr(Measures, "save", save)
    with closing(Store(tmp_path)), caplog.at_level(logging.ERROR):
        deadline = time.monotonic() + 30
        while len(rounds) < 5:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    # Those of writers that other tests have left say so of their own.
    assert caplog.text.count(f"The spool in {tmp_path} is not seen to, which is tried again") == 1
    assert "RuntimeError: what nobody thought of" in caplog.text
