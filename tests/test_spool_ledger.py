"""The reading end of a spool."""

import sqlite3
import threading
import time
from contextlib import closing, contextmanager
from types import SimpleNamespace

import pytest
from disks import garble
from spooled import put, put_and_die, run_documents

from bluesky_filestore.errors import DocumentError, SpoolDamagedError, SpoolError
from bluesky_filestore.spool import Ledger, Store
from bluesky_filestore.spool.database import connect, identity, put_aside
from bluesky_filestore.spool.entries import IN_DOUBT, with_doubt
from bluesky_filestore.spool.lease import Lease
from bluesky_filestore.spool.measures import measured
from bluesky_filestore.spool.pruning import prune
from bluesky_filestore.spool.spooled_run import find_run

HERE, THERE = "http://here/api/v1/metadata/", "http://there/api/v1/metadata/"


@pytest.fixture
def ledger(tmp_path):
    """The ledger of a spool with two runs."""
    put(tmp_path, run_documents(3, uid="first")[1], run_documents(3, uid="second")[1], catalogs=[HERE, THERE])
    with closing(Ledger(tmp_path)) as ours:
        yield ours


def numbers(ledger, uri=HERE):
    """The numbers of the catalog and of the two runs."""
    number = ledger.register_catalog(uri)
    return number, *(entry.number for entry in ledger.entries(number))


def states(ledger, uri=HERE):
    """How far each run has come, by uid."""
    return {entry.uid: entry.state for entry in ledger.entries(ledger.register_catalog(uri))}


def deliver(ledger, *runs):
    """Write down that runs are delivered to every catalog."""
    for number in ledger.catalogs():
        ledger.set_states(number, dict.fromkeys(runs, ("delivered", "", 6)))


def test_catalogs(ledger):
    """Catalogs keep their numbers, and what they said last."""
    here, there = ledger.register_catalog(HERE), ledger.register_catalog(THERE)
    ledger.say(there, "is away")
    assert ledger.catalogs() == {here: (HERE, ""), there: (THERE, "is away")}
    ledger.say(there, "")
    assert ledger.catalogs()[there] == (THERE, "")


def test_order(ledger):
    """Documents come in the order in which they were put in, some at a time."""
    some = ledger.documents_after(0, 4, 10**6)
    rest = ledger.documents_after(some[-1].number, 100, 10**6)
    names = [document.name for document in (*some, *rest)]
    assert names == ["start", "descriptor", *["event"] * 3, "stop"] * 2
    assert ledger.last_document() == rest[-1].number
    here, first, second = numbers(ledger)
    assert ledger.last_document(first) < ledger.entry(here, second).first
    assert ledger.last_document(99) == 0


def test_some_bytes_at_a_time(ledger):
    """No document comes after so many bytes, and one always does."""
    documents = ledger.documents_after(0, 100, 10**6)
    sizes = [document.size for document in documents]
    for size, count in ((0, 1), (sizes[0], 1), (sizes[0] + 1, 2), (sum(sizes[:3]), 3), (sum(sizes[:3]) + 1, 4)):
        assert len(ledger.documents_after(0, 100, size)) == count
    first, second = (number for number in numbers(ledger)[1:])
    producer = ledger.entry(1, first).producer
    assert ledger.documents_of_run_after(first, producer, 0, 100, 10**6) == documents[:6]
    assert ledger.documents_of_run_after(second, producer, 0, 2, 10**6) == documents[6:8]
    assert ledger.documents_of_run_after(second, producer, documents[7].number, 100, 1) == documents[8:9]


def test_what_waits_behind_others(tmp_path):
    """However many runs go on of which the catalog has all so far, what waits behind them is seen."""
    put(tmp_path, *([("start", {"uid": str(n), "time": 0.0})] for n in range(120)), run_documents(1)[1])
    with closing(Ledger(tmp_path)) as ledger:
        here = ledger.register_catalog(HERE)
        *early, last = ledger.entries(here)
        ledger.set_states(here, {entry.number: ("uploading", "", 1) for entry in early})
        assert ledger.first_waiting(here) == last.started


def test_documents_that_are_there(ledger):
    """A document is there by its number until its run is forgotten."""
    last = ledger.last_document()
    assert [ledger.has_document(number) for number in (0, 1, last, last + 1)] == [False, True, True, False]
    find_run([ledger.directory], "first")[0].forget()
    assert [ledger.has_document(number) for number in (1, 6, 7, last)] == [False, False, True, True]


def test_nothing_in_it(tmp_path):
    """A spool without runs has nothing that waits."""
    with closing(Ledger(tmp_path)) as ledger:
        here = ledger.register_catalog(HERE)
        assert (ledger.waiting_documents(here), ledger.first_waiting(here)) == ((0, None), None)
        assert (ledger.last_document(), ledger.latest(), ledger.counts(here)) == (0, None, {})


def test_what_waits_first(ledger):
    """The oldest document that a catalog has not got is that after those which it has."""
    here, first, second = numbers(ledger)
    received = [time for (time,) in ledger.rows("SELECT received FROM documents ORDER BY id")]
    assert ledger.first_waiting(here) == received[0]
    ledger.set_states(here, {first: ("uploading", "", 4)})
    assert ledger.first_waiting(here) == received[4]
    ledger.set_states(here, {first: ("settling", "", 2)})
    assert ledger.first_waiting(here) == received[6]
    ledger.set_states(here, {second: ("parked", "refused", 1)})
    assert ledger.first_waiting(here) is None


def test_what_waits_of_whom(tmp_path):
    """How many documents wait is known of all, and of each producer, since its oldest run."""
    with closing(Store(tmp_path)) as one, closing(Store(tmp_path)) as other, closing(Ledger(tmp_path)) as ledger:
        for store, events in ((one, 1), (other, 4), (one, 2)):
            for pair in run_documents(events)[1]:
                store.append(*pair)
        here = ledger.register_catalog(HERE)
        first, second, third = ledger.entries(here)
        assert ledger.waiting_documents(here) == (16, first.started)
        assert ledger.waiting_documents(here, one.producer) == (9, first.started)
        assert ledger.waiting_documents(here, other.producer) == (7, second.started)
        ledger.set_states(here, {first.number: ("delivered", "", 4), second.number: ("uploading", "", 6)})
        assert ledger.waiting_documents(here, one.producer) == (5, third.started)
        assert ledger.waiting_documents(here, other.producer) == (1, second.started)
        assert ledger.latest() == third


def test_progress(ledger):
    """How far a run has come in each catalog, with why, and of how many documents."""
    here, first, _ = numbers(ledger)
    there = ledger.register_catalog(THERE)
    ledger.set_states(there, {first: ("parked", "refused", 2)})
    assert ledger.progress("first") == [(HERE, "waiting", "", 0, 6), (THERE, "parked", "refused", 2, 6)]
    assert ledger.progress("second") == [(HERE, "waiting", "", 0, 6), (THERE, "waiting", "", 0, 6)]
    assert ledger.progress("third") == []
    with ledger.transaction() as connection:
        connection.execute("UPDATE runs SET fault = 'damaged' WHERE id = ?", (first,))
    assert ledger.progress("first") == [(HERE, "parked", "damaged", 0, 6), (THERE, "parked", "damaged", 2, 6)]
    assert (ledger.parked(here, 9), ledger.parked(there, 9)) == ({"first": "damaged"}, {"first": "damaged"})
    assert (ledger.entry(here, first).state, ledger.entry(here, first).reason) == ("parked", "damaged")
    assert ledger.waiting_documents(here)[0] == 6
    assert [entry.uid for entry in ledger.unfinished(here, 9)] == ["second"]


def test_parked_elsewhere(ledger):
    """What is parked for one catalog is not for the other."""
    here, first, second = numbers(ledger)
    ledger.set_states(here, {first: ("parked", "refused", 6), second: ("delivered", "", 6)})
    there = ledger.register_catalog(THERE)
    assert (ledger.parked(here, 9), ledger.parked(there, 9)) == ({"first": "refused"}, {})
    assert (ledger.asked_for(here), ledger.asked_for(there)) == ({first: "parked"}, {})
    assert [entry.uid for entry in ledger.unfinished(there, 9)] == ["first", "second"]
    assert [entry.uid for entry in ledger.unfinished(there, 1)] == ["first"]


def test_counted(ledger):
    """How many documents were delivered is counted for good, at the latest when it is closed."""
    here, first, second = numbers(ledger)
    ledger.set_states(here, {first: ("uploading", "", 4)})
    ledger.set_states(here, {first: ("uploading", "", 1), second: ("uploading", "", 2)})
    ledger.close()
    assert measured(ledger.directory)[f"delivered/{here}"] == 7
    with pytest.raises(SpoolError, match="Cannot operate on a closed database"):
        ledger.last_document()


def test_put_aside_while_it_is_opened(tmp_path, monkeypatch):
    """A ledger whose database was put aside before it came to use it knows that this is not the one any more."""

    def connect_and_lose(directory):
        connection = connect(directory)
        put_aside(directory, identity(directory), "somebody found it damaged")
        Store(directory).close()
        return connection

    put(tmp_path, run_documents(1)[1])
    monkeypatch.setattr("bluesky_filestore.spool.ledger.connect", connect_and_lose)
    with closing(Ledger(tmp_path)) as ledger:
        assert not ledger.is_current
        # Its writer has another number in the new one.
        assert ledger.is_alive(99)
        monkeypatch.undo()
    with closing(Ledger(tmp_path)) as ledger:
        assert (ledger.is_current, ledger.is_alive(99)) == (True, False)


def test_states(ledger):
    """How far a run has come is known by catalog, and how many documents are not there."""
    here, first, second = numbers(ledger)
    assert ledger.waiting_documents(here)[0] == 12
    ledger.set_states(here, {first: ("uploading", "", 4)})
    assert (states(ledger), ledger.waiting_documents(here)[0]) == ({"first": "uploading", "second": "waiting"}, 8)
    ledger.set_states(here, {first: ("settling", "", 2), second: ("uploading", "", 6)})
    assert ledger.waiting_documents(here)[0] == 0
    assert states(ledger, THERE) == {"first": "waiting", "second": "waiting"}
    ledger.set_states(here, {first: ("delivered", "", 0)})
    assert ledger.counts(here) == {"delivered": 1, "uploading": 1}
    assert [entry.uid for entry in ledger.unfinished(here, 5)] == ["second"]


def test_parked_and_begun_again(ledger):
    """A parked run stays parked, whatever who delivers says of it, until it is begun again."""
    here, first, second = numbers(ledger)
    (run,) = find_run([ledger.directory], "first")
    assert run.park("not wanted") == 2
    ledger.set_states(here, {first: ("delivered", "", 6), second: ("parked", "refused", 6)})
    assert states(ledger) == {"first": "parked", "second": "parked"}
    assert ledger.parked(here, 10) == {"second": "refused", "first": "not wanted"}
    assert ledger.parked(here, 1) == {"second": "refused"}
    assert ledger.asked_for(here) == {first: "parked", second: "parked"}
    ledger.begin_again(here, [first, second])
    assert states(ledger) == {"first": "parked", "second": "parked"}
    with pytest.raises(SpoolError, match="run first is parked already; there is nothing to park"):
        find_run([ledger.directory], "first")[0].park("again")
    find_run([ledger.directory], "first")[0].ask_again()
    assert states(ledger) == {"first": "waiting", "second": "parked"}
    assert states(ledger, THERE)["first"] == "waiting"
    assert ledger.entry(here, first).reason == ""
    assert ledger.waiting_documents(here)[0] == 6


def test_parked_in_doubt(ledger, monkeypatch):
    """That an answer is missing is kept of a run that is parked, whichever is known first, for two minutes."""
    here, first, second = numbers(ledger)
    runs = [find_run([ledger.directory], uid)[0] for uid in ("first", "second")]
    ledger.set_states(here, {first: ("uploading", IN_DOUBT, 1)})
    for run in runs:
        run.park("not wanted.")
    ledger.set_states(here, {second: ("uploading", IN_DOUBT, 1)})
    assert ledger.parked(here, 10) == dict.fromkeys(("first", "second"), with_doubt("not wanted."))
    assert ledger.parked(ledger.register_catalog(THERE), 10) == dict.fromkeys(("first", "second"), "not wanted.")
    now = time.time()
    monkeypatch.setattr("bluesky_filestore.spool.states.time", SimpleNamespace(time=lambda: now + 100.0))
    ledger.note_doubt(here, [second])
    assert ledger.parked(here, 1) == {"second": with_doubt("not wanted.")}
    monkeypatch.setattr("bluesky_filestore.spool.states.time", SimpleNamespace(time=lambda: now + 200.0))
    for run in runs:
        find_run([ledger.directory], run.uid)[0].ask_again()
    assert [ledger.entry(here, number).reason for number in (first, second)] == ["", IN_DOUBT]


def test_forget(ledger):
    """Of a forgotten run nothing is left; numbers are not given out twice."""
    (run,) = find_run([ledger.directory], "second")
    last = ledger.last_document()
    assert run.documents() == 6
    run.forget()
    assert list(states(ledger)) == ["first"]
    put(ledger.directory, run_documents(1, uid="third")[1])
    (third,) = (entry for entry in ledger.entries(1) if entry.uid == "third")
    assert third.first > last
    assert ledger.count(third.number) == 4


def test_going_on_is_not_forgotten(tmp_path):
    """A run is not forgotten while its writer puts in documents; one whose writer was killed is."""
    uid, documents = run_documents(3)
    with closing(Store(tmp_path)) as store:
        for pair in documents[:-1]:
            store.append(*pair)
        with pytest.raises(SpoolError, match="is still going on; park it if it shall not be delivered"):
            find_run([tmp_path], uid)[0].forget()
    dead = put_and_die(tmp_path)
    find_run([tmp_path], dead)[0].forget()
    with closing(Ledger(tmp_path)) as ledger:
        assert list(states(ledger)) == [uid]


def test_prune(ledger, monkeypatch):
    """Pruned is what every catalog has got for long enough, and nothing else."""
    here, first, second = numbers(ledger)
    ledger.set_states(here, {first: ("delivered", "", 6), second: ("delivered", "", 6)})
    ledger.set_states(ledger.register_catalog(THERE), {first: ("delivered", "", 6), second: ("parked", "refused", 6)})
    assert prune(ledger, 60.0) == 0
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61.0)
    assert prune(ledger, 60.0) == 1
    assert list(states(ledger)) == ["second"]
    assert {document.run for document in ledger.documents_after(0, 100, 10**6)} == {second}


def test_an_address_that_nobody_delivers_to(ledger):
    """A catalog that never took a run keeps none of them, unless somebody delivers to it just now."""
    here, first, second = numbers(ledger)
    ledger.set_states(here, {first: ("delivered", "", 6), second: ("delivered", "", 6)})
    lease = Lease(ledger.lease(ledger.register_catalog(THERE)))
    assert lease.take()
    assert prune(ledger, -1.0) == 0
    lease.give_up()
    assert prune(ledger, -1.0) == 2


@pytest.mark.parametrize(("size", "most"), [(10, 98), (400_000, 3), (3_000_000, 1)])
def test_pruned_some_at_a_time(tmp_path, monkeypatch, size, most):
    """However many and large documents are, whoever puts in others is kept for a few of them only."""
    uid, documents = run_documents(3 * most + 1)
    bulky = [(name, {**doc, "more": b"x" * size} if name == "event" else doc) for name, doc in documents]
    put(tmp_path, bulky, run_documents(1)[1], catalogs=[HERE])
    removed = []
    with closing(Ledger(tmp_path)) as ledger:
        deliver(ledger, ledger.entries(1, uid=uid)[0].number)
        once = Ledger.transaction

        @contextmanager
        def counted(self):
            with once(self) as connection:
                before = connection.total_changes
                yield connection
                removed.append(connection.total_changes - before)

        monkeypatch.setattr(Ledger, "transaction", counted)
        assert prune(ledger, -1.0) == 1
        assert list(ledger.documents_of(1)) == []
    # The start and the descriptor are small.
    assert max(removed) <= most + 2
    assert sum(removed) >= len(documents)


def test_pruned_for_a_while(ledger):
    """What is not pruned in the time that there is, is pruned the next time."""
    deliver(ledger, *numbers(ledger)[1:])
    assert prune(ledger, -1.0, seconds=0.0) == 0
    assert prune(ledger, -1.0) == 2


def test_pruned_while_documents_come(tmp_path):
    """Who puts in documents meanwhile is told of nothing, and loses nothing."""
    _, documents = run_documents(200)
    put(tmp_path, [(name, {**doc, "more": b"x" * 100_000}) for name, doc in documents])
    other, more = run_documents(300)
    with closing(Store(tmp_path)) as store, closing(Ledger(tmp_path)) as ledger:
        deliver(ledger, *(entry.number for entry in ledger.entries(ledger.register_catalog(HERE))))
        store.append(*more[0])
        pruning = threading.Thread(target=prune, args=(ledger, -1.0))
        pruning.start()
        for pair in more[1:]:
            store.append(*pair)
            assert store.error is None
        pruning.join()
        store.save()
        assert [entry.uid for entry in ledger.entries(1)] == [other]
        assert list(ledger.documents_of(2)) == more


def test_clock_set_back(ledger, monkeypatch):
    """With the clock set back runs are kept for longer, no more."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 86_400.0)
    deliver(ledger, *numbers(ledger)[1:])
    assert (prune(ledger, 60.0), list(states(ledger))) == (0, ["first", "second"])
    monkeypatch.setattr(time, "time", lambda: now)
    assert prune(ledger, 60.0) == 2


def test_resources_outlive_their_run(tmp_path):
    """A resource stays as long as its writer lives, or has a run: a later run may refer to it."""
    _, documents = run_documents(1, uid="first")
    resource = ("resource", {"uid": "r", "run_start": "first"})
    with closing(Ledger(tmp_path)) as ledger, closing(Store(tmp_path)) as store:
        for pair in (documents[0], resource, *documents[1:]):
            store.append(*pair)
        deliver(ledger, ledger.entries(ledger.register_catalog(HERE))[0].number)
        assert prune(ledger, -1.0) == 1
        announced = list(ledger.announced_before(10_000, store.producer))
        assert [(each.name, each.doc(), each.is_announcement) for each in announced] == [(*resource, True)]
        store.close()
        prune(ledger, -1.0)
        assert list(ledger.announced_before(10_000, store.producer)) == []
    assert not list(tmp_path.glob("producer-*"))


def test_strays(tmp_path):
    """Documents of no run are counted, those that may be announced without one are not."""
    put(tmp_path, [("event", {"descriptor": "?"}), ("resource", {"uid": "r"}), ("stop", {"run_start": "?"})])
    with closing(Ledger(tmp_path)) as ledger:
        assert ledger.strays() == 2


def test_found_by_the_beginning(ledger):
    """Runs are found by how their uid begins, also where that means something to SQL."""
    put(ledger.directory, run_documents(1, uid="%_x")[1])
    here = ledger.register_catalog(HERE)
    assert [entry.uid for entry in ledger.entries(here, uid="f")] == ["first"]
    assert [entry.uid for entry in ledger.entries(here, uid="%")] == ["%_x"]
    assert [entry.uid for entry in ledger.entries(here)] == ["first", "second", "%_x"]


def test_damaged_while_open(tmp_path):
    """Damage that is found while reading is an error of the spool."""
    put(tmp_path, *(run_documents(300)[1] for _ in range(3)))
    with closing(Ledger(tmp_path)) as ledger:
        ledger._connection.execute("PRAGMA cache_size = 0")
        garble(tmp_path, first=40)
        with pytest.raises(SpoolDamagedError, match=r"the spool database .* is damaged"):
            ledger.documents_after(0, 100_000, 10**9)


def test_an_index_that_has_lost_an_entry(tmp_path, ledger):
    """A database that does not find what was put into it is damaged, and nobody tries for ever."""
    ledger._connection.execute("CREATE TRIGGER lost AFTER INSERT ON catalogs BEGIN DELETE FROM catalogs; END")
    with pytest.raises(SpoolDamagedError, match=r"is damaged \(a catalog put in is not there\)"):
        ledger.register_catalog("http://new/api/v1/metadata/")


def test_a_body_that_is_none(tmp_path, ledger):
    """A document that cannot be read any more is an error of its own; who puts in more, and who delivers, goes on."""
    uid = run_documents(1)[1]
    ledger._connection.execute("UPDATE documents SET body = 5 WHERE name = 'descriptor'")
    assert [document.size > 0 for document in ledger.documents_after(0, 3, 10**9)] == [True, False, True]
    with pytest.raises(DocumentError, match="no bytes: 5 are no document"):
        list(ledger.documents_of(1))
    put(tmp_path, uid)


def test_an_index_out_of_order(tmp_path):
    """Rows that follow themselves in it are found to be damage, and not gone through for ever."""
    put(tmp_path, run_documents(5, uid="only")[1], catalogs=[HERE])
    path = tmp_path / "spool.db"
    with closing(sqlite3.connect(path)) as connection:
        ((root,),) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'documents_of_run'").fetchall()
        ((size,),) = connection.execute("PRAGMA page_size").fetchall()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(path.read_bytes())
    # A leaf begins with 8 bytes, of which two are how many cells it has; where each of them is comes next.
    page = (root - 1) * size
    end = page + 8 + 2 * int.from_bytes(content[page + 3 : page + 5])
    places = [content[at : at + 2] for at in range(page + 8, end, 2)]
    content[page + 8 : end] = b"".join(reversed(places))
    path.write_bytes(content)
    with closing(Ledger(tmp_path)) as ledger, pytest.raises(SpoolDamagedError, match="damaged"):
        list(ledger.documents_of(1))


class Broken(sqlite3.Connection):
    """A connection whose database was damaged a moment ago."""

    def execute(self, *_):
        """It is found with the first statement."""
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def test_damaged_while_it_is_opened(tmp_path, monkeypatch):
    """Whoever opens it is told so in our words, however far that had gone."""
    connection = sqlite3.connect(tmp_path / "spool.db", factory=Broken)
    monkeypatch.setattr("bluesky_filestore.spool.ledger.connect", lambda _: connection)
    with closing(connection), pytest.raises(SpoolDamagedError, match="is damaged"):
        Ledger(tmp_path)
