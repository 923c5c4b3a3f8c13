"""What the database of a spool does not take, whatever room there is: it costs nobody else a document."""

import threading
from contextlib import closing

import pytest
from spooled import run_documents

from bluesky_filestore.spool import Ledger, Store
from bluesky_filestore.spool.database import connect, transaction
from bluesky_filestore.spool.notes import NOTE
from bluesky_filestore.spool.spooled_run import find_run

ODD = "r\udce9sum"
STORED = r"r\udce9sum"


class Unsayable:
    """Has no text."""

    def __str__(self):
        raise ValueError("no")


@pytest.fixture(params=["one by one", "together", "after they waited in memory"])
def put(tmp_path, request):
    """Has a store take documents, in one way or another, and gives the store."""
    stores = []

    def take(documents, store=None):
        store = store or Store(tmp_path)
        stores.append(store)
        if request.param == "together":
            store.append_all(documents)
        elif request.param == "one by one":
            for name, doc in documents:
                store.append(name, doc)
        else:
            with closing(connect(tmp_path)) as other, transaction(other):
                for name, doc in documents:
                    store.append(name, doc)
                assert store.unsaved == len(documents)
            store.save()
        return store

    yield take
    for store in stores:
        store.close()


def kept(directory):
    """The names of the documents of each run in a spool, by uid, and how many are of none."""
    with closing(Ledger(directory)) as ledger:
        runs = {entry.uid: [name for name, _ in ledger.documents_of(entry.number)] for entry in ledger.entries(0)}
        return runs, ledger.strays()


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
    store = put([*documents, *more])
    assert store.open_runs == ()
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
        for _ in range(3000):
            if not store.unsaved:
                break
            threading.Event().wait(0.01)
        assert store.unsaved == 0
    assert kept(tmp_path) == ({STORED: [name for name, _ in documents]}, 0)
    assert uid == ODD
