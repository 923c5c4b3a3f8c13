"""The writing end of a spool."""

import logging
import os
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from disks import fill, garble, small_disk
from spooled import put_and_die, run_documents

from bluesky_filestore.errors import SpoolError
from bluesky_filestore.spool import Ledger, Store
from bluesky_filestore.spool.database import BUSY_SECONDS, connect, identity, transaction
from bluesky_filestore.spool.measures import measured

URI = "http://localhost/api/v1/metadata/"


def taken(directory):
    """What a spool holds of each run: why it is broken, and its documents."""
    with closing(Ledger(directory)) as ledger:
        return {
            entry.uid: (entry.reason, list(ledger.documents_of(entry.number)))
            for entry in ledger.entries(ledger.register_catalog(URI))
        }


def append_all(store, documents):
    """Have a store take documents, whatever it says; what it said."""
    said = []
    for name, doc in documents:
        try:
            store.append(name, doc)
        except SpoolError as error:
            said.append(str(error))
    return said


def forget_pages(store):
    """Have the store look at the disk again."""
    store._producer.connection.execute("PRAGMA shrink_memory")


@pytest.fixture
def locked(tmp_path):
    """Somebody else who holds the database for as long as this is not set."""
    release, held = threading.Event(), threading.Event()

    def hold():
        with closing(connect(tmp_path)) as connection, transaction(connection):
            held.set()
            release.wait(60)

    thread = threading.Thread(target=hold)

    def start():
        thread.start()
        held.wait(60)
        return release

    yield start
    release.set()
    thread.join()


@pytest.mark.parametrize("durability", ["normal", "full"])
def test_takes_documents(tmp_path, durability):
    """What was taken is there for others when the call returns, in its order."""
    uid, documents = run_documents(5)
    with closing(Store(tmp_path, durability=durability)) as store:
        for number, pair in enumerate(documents):
            store.append(*pair)
            assert taken(tmp_path) == {uid: ("", documents[: number + 1])}
        assert (store.documents, store.unsaved, store.open_runs, store.error) == (len(documents), 0, (), None)


@pytest.mark.parametrize(("durability", "level"), [("normal", 1), ("full", 2)])
def test_safe_from_a_power_failure(tmp_path, monkeypatch, durability, level):
    """A call waits for the disk with "full", else with a stop, and soon it has all; so in a new database, too."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda wal: synced.append((threading.current_thread().name, os.fstat(wal).st_ino)))
    with closing(Store(tmp_path, durability=durability)) as store:
        for _ in range(2):
            assert store._producer.connection.execute("PRAGMA synchronous").fetchone() == (level,)
            _, documents = run_documents(1)
            synced.clear()
            append_all(store, documents[:-1])
            assert "MainThread" not in dict(synced)
            store.append(*documents[-1])
            ours = ("MainThread", (tmp_path / "spool.db-wal").stat().st_ino)
            assert [each for each in synced if each[0] == "MainThread"] == [ours]
            store.append_all([*run_documents(1)[1], *run_documents(1)[1][:2]])
            assert [each for each in synced if each[0] == "MainThread"] == [ours, ours]
            store.append(*run_documents(0)[1][0])
            deadline = time.monotonic() + 30
            while ("spool-keeper", ours[1]) not in synced:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            with closing(Ledger(tmp_path)) as ledger:
                ledger.put_aside("somebody found it damaged")
            append_all(store, run_documents(0)[1])


@pytest.mark.parametrize("together", [False, True])
def test_stop_behind_one_that_waited(tmp_path, monkeypatch, together):
    """A stop is on the disk when the call returns, too, if it goes there behind what had waited in memory."""
    monkeypatch.setattr(Store, "_keep", lambda _: None)
    synced, sync = [], os.fsync
    _, documents = run_documents(2)
    with closing(Store(tmp_path)) as store:
        append_all(store, documents[:2])
        with closing(connect(tmp_path)) as other, transaction(other):
            append_all(store, documents[2:3])
        assert store.unsaved == 1
        monkeypatch.setattr(os, "fsync", lambda descriptor: (sync(descriptor), synced.append(descriptor)))
        if together:
            store.append_all(documents[3:])
        else:
            store.append(*documents[3])
            assert synced == []
            with closing(connect(tmp_path)) as other, transaction(other):
                store.append(*documents[2])
            store.append(*documents[-1])
        assert (store.unsaved, len(synced)) == (0, 1)


def test_state_of_the_moment(tmp_path):
    """What counts is what a document held when it was taken."""
    _, documents = run_documents(1)
    doc = {**documents[0][1], "array": np.zeros(3)}
    with closing(Store(tmp_path)) as store:
        store.append("start", doc)
        doc["array"][:] = 7
        ((_, ((_, back),)),) = taken(tmp_path).values()
        assert back["array"].tolist() == [0.0, 0.0, 0.0]


def test_killed(tmp_path):
    """What a killed process had put in is there, and it is known to be dead."""
    uid = put_and_die(tmp_path)
    assert [name for name, _ in taken(tmp_path)[uid][1]] == ["start", "descriptor", *["event"] * 3]
    with closing(Ledger(tmp_path)) as ledger:
        (entry,) = ledger.entries(ledger.register_catalog(URI))
        assert not ledger.is_alive(entry.producer)


def test_two_processes(tmp_path):
    """Several writers share one spool, each with its own runs; that of each is alive until it closes."""
    (first, documents), (second, others) = run_documents(50), run_documents(50)
    one, other = Store(tmp_path), Store(tmp_path)
    threads = [threading.Thread(target=append_all, args=pair) for pair in ((one, documents[:-1]), (other, others[:-1]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one.append(*documents[-1])
    other.append(*others[-1])
    with closing(Ledger(tmp_path)) as ledger:
        assert ledger.is_alive(one.producer)
        one.close()
        assert [ledger.is_alive(one.producer), ledger.is_alive(other.producer)] == [False, True]
        other.close()
    assert taken(tmp_path) == {first: ("", documents), second: ("", others)}


def test_same_run_twice(tmp_path):
    """One run from two writers is two runs; a uid that comes again from one writer goes with its first run."""
    uid, documents = run_documents(1)
    with closing(Store(tmp_path)) as one, closing(Store(tmp_path)) as other:
        append_all(one, [*documents, *documents])
        append_all(other, documents)
    with closing(Ledger(tmp_path)) as ledger:
        entries = ledger.entries(ledger.register_catalog(URI))
        assert [entry.uid for entry in entries] == [uid, uid]
        assert [ledger.count(entry.number) for entry in entries] == [2 * len(documents), len(documents)]


def test_closed(tmp_path, caplog):
    """Closed, it takes nothing more, which is logged once; closing it again is harmless."""
    store = Store(tmp_path)
    store.close()
    store.close()
    for _ in range(2):
        with pytest.raises(SpoolError, match="is closed; make a new one"):
            store.append("start", {"uid": "a"})
    assert caplog.text.count("is closed; make a new one") == 1


def test_forked(tmp_path):
    """A forked child cannot put anything in or close it; its parent goes on."""
    uid, documents = run_documents(2)
    with closing(Store(tmp_path)) as store:
        append_all(store, documents[:2])
        child = os.fork()
        if not child:
            try:
                store.close()
                said = append_all(store, documents[2:3])
                os._exit(0 if "from which this one was forked" in said[0] else 2)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        with closing(Ledger(tmp_path)) as ledger:
            assert ledger.is_alive(store.producer)
        assert append_all(store, documents[2:]) == []
    assert taken(tmp_path) == {uid: ("", documents)}


def wait_until_saved(store):
    """Wait for the store's own thread to put on the disk what is in memory."""
    deadline = time.monotonic() + 30
    while store.unsaved:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("durability", ["normal", "full"])
def test_somebody_has_the_database_for_a_moment(tmp_path, caplog, locked, durability):
    """While another program has the database documents wait in memory, nobody is blamed, and no call takes long."""
    (uid, documents), (other, more) = run_documents(30), run_documents(3)
    with closing(Store(tmp_path, durability=durability)) as store:
        append_all(store, documents[:2])
        release = locked()
        took = []
        for pair in [*more, *documents[2:-1]]:
            began = time.monotonic()
            store.append(*pair)
            took.append(time.monotonic() - began)
        # 50 ms are promised; the median, for this machine may have other things to do.
        assert sorted(took)[len(took) // 2] < 0.05
        assert max(took) < 1.0
        assert (store.unsaved, store.error) == (36, None)
        release.set()
        wait_until_saved(store)
        assert append_all(store, documents[-1:]) == []
        assert (store.unsaved, store.documents) == (0, len(documents) + len(more))
    assert taken(tmp_path) == {uid: ("", documents), other: ("", more)}
    assert caplog.records == []


def test_saved_with_the_next(tmp_path, locked, monkeypatch):
    """What waited in memory is put on the disk, in its order, with the document that comes next."""
    monkeypatch.setattr(Store, "_keep", lambda _: None)
    uid, documents = run_documents(3)
    with closing(Store(tmp_path)) as store:
        append_all(store, documents[:2])
        release = locked()
        assert append_all(store, documents[2:4]) == []
        assert store.unsaved == 2
        release.set()
        time.sleep(0.2)
        assert append_all(store, documents[4:]) == []
        assert store.unsaved == 0
    assert taken(tmp_path) == {uid: ("", documents)}


def test_closed_while_somebody_has_the_database(tmp_path, locked):
    """Closing waits for whoever has the database for a moment, and so does saving."""
    uid, documents = run_documents(3)
    store = Store(tmp_path)
    append_all(store, documents[:2])
    release = locked()
    assert append_all(store, documents[2:]) == []
    threading.Timer(0.3, release.set).start()
    store.save()
    store.close()
    assert taken(tmp_path) == {uid: ("", documents)}


def test_somebody_holds_the_database(tmp_path, caplog, locked, monkeypatch):
    """If it lasts it is said, with what is the matter, and how many wait; when it is over that is said, too."""
    monkeypatch.setattr("bluesky_filestore.spool.store.LONGEST_BUSY_SECONDS", 0.2)
    uid, documents = run_documents(3)
    with closing(Store(tmp_path)) as store:
        append_all(store, documents[:2])
        release = locked()
        assert append_all(store, documents[2:3]) == []
        time.sleep(0.5)
        (said,) = append_all(store, documents[3:4])
        assert "has been in other hands" in said
        assert "(database is locked); 2 wait in memory and would be lost with this process" in said
        assert "disk" not in said
        release.set()
        wait_until_saved(store)
        assert append_all(store, documents[4:]) == []
        assert store.error is None
    assert taken(tmp_path) == {uid: ("", documents)}
    words = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in words] == ["ERROR", "WARNING"]
    assert "takes documents again; nothing was lost" in words[1][1]


def test_state_of_the_moment_in_memory(tmp_path, locked):
    """So it is for what has to wait in memory."""
    uid, documents = run_documents(1)
    event = {**documents[2][1], "data": {"x": [1.0]}}
    with closing(Store(tmp_path)) as store:
        append_all(store, documents[:2])
        release = locked()
        append_all(store, [("event", event)])
        event["data"]["x"][0] = 7.0
        release.set()
    assert taken(tmp_path)[uid][1][2][1]["data"] == {"x": [1.0]}


def test_full(tmp_path, caplog):
    """When the database may not grow documents wait in memory, and are put in, in their order, when it may again."""
    caplog.set_level(logging.WARNING)
    (uid, documents), (other, more) = run_documents(300), run_documents(3)
    with closing(Store(tmp_path)) as store:
        store._producer.connection.execute("PRAGMA max_page_count = 20")
        said = append_all(store, documents)
        assert "(database or disk is full)" in said[0]
        assert "Make room on the disk, or give it another directory with spool=." in said[0]
        assert store.unsaved == len(said)
        # The figure is that of the moment, not of the first document that was not taken.
        assert f"is full); {store.unsaved} wait in memory" in str(store.error)
        assert "is full); documents wait in memory" in caplog.text
        store._producer.connection.execute("PRAGMA max_page_count = 100000")
        assert append_all(store, more) == []
        assert (store.unsaved, store.error) == (0, None)
        # Somebody else who has the database is waited for again.
        assert store._producer.connection.execute("PRAGMA busy_timeout").fetchone() == (int(BUSY_SECONDS * 1000),)
    assert taken(tmp_path) == {uid: ("", documents), other: ("", more)}


@pytest.mark.parametrize("way", [Store.close, Store.save])
def test_full_and_then_in_other_hands(tmp_path, way):
    """That somebody else just has the database is waited for, and not taken for the trouble of before."""
    uid, documents = run_documents(300)
    store = Store(tmp_path)
    store._producer.connection.execute("PRAGMA max_page_count = 20")
    assert append_all(store, documents)
    taken_by_another = threading.Event()

    def take():
        with closing(connect(tmp_path)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            taken_by_another.set()
            time.sleep(0.3)
            connection.execute("ROLLBACK")

    thread = threading.Thread(target=take)
    thread.start()
    taken_by_another.wait(60)
    store._producer.connection.execute("PRAGMA max_page_count = 100000")
    way(store)
    thread.join()
    store.close()
    assert taken(tmp_path) == {uid: ("", documents)}


def test_some_at_a_time(tmp_path, monkeypatch):
    """What waited for room is put on the disk by itself, many at a time, without another document."""
    monkeypatch.setattr("bluesky_filestore.spool.store._SYNC_SECONDS", 0.02)
    saved, save = [], Store._save_unsaved
    monkeypatch.setattr(
        Store, "_save_unsaved", lambda store, **until: (saved.append(store.unsaved), save(store, **until))
    )
    uid, documents = run_documents(300)
    with closing(Store(tmp_path)) as store:
        store._producer.connection.execute("PRAGMA max_page_count = 20")
        append_all(store, documents)
        assert store.unsaved > 100
        saved.clear()
        store._producer.connection.execute("PRAGMA max_page_count = 100000")
        wait_until_saved(store)
        assert len(set(saved)) < 50
    assert taken(tmp_path) == {uid: ("", documents)}


def test_one_at_a_time(tmp_path, monkeypatch, caplog):
    """A disk that is slow, so that the last one that waited is in just when the time is over, has no trouble left."""
    monkeypatch.setattr("bluesky_filestore.spool.store._SYNC_SECONDS", 0.02)
    monkeypatch.setattr("bluesky_filestore.spool.store._PAUSE_SECONDS", 0.0)
    left, save = [], Store._save_unsaved
    monkeypatch.setattr(
        Store, "_save_unsaved", lambda store, **until: (save(store, **until), left.append(store.unsaved))
    )
    uid, documents = run_documents(200)
    with closing(Store(tmp_path)) as store:
        store._producer.connection.execute("PRAGMA max_page_count = 20")
        append_all(store, documents)
        assert store.error is not None
        wait, _ = store.unsaved, left.clear()
        store._producer.connection.execute("PRAGMA max_page_count = 100000")
        wait_until_saved(store)
        assert store.error is None
        deadline = time.monotonic() + 30
        while "takes documents again" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)
    assert caplog.text.count("takes documents again") == 1
    assert [number for number in left if number < wait] == list(range(wait - 1, -1, -1))
    assert taken(tmp_path) == {uid: ("", documents)}


def counted_rounds(store, monkeypatch):
    """A list that grows by each round of this store's own thread: those of other stores may still be at it."""
    rounds, save = [], store.measures.save
    monkeypatch.setattr(store.measures, "save", lambda **options: (save(**options), rounds.append(1)))
    return rounds


def test_synced_once(tmp_path, monkeypatch):
    """What is on the disk is not put there again every second."""
    monkeypatch.setattr("bluesky_filestore.spool.store._SYNC_SECONDS", 0.01)
    synced, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (sync(descriptor), synced.append(descriptor)))
    with closing(Store(tmp_path)) as store:
        rounds = counted_rounds(store, monkeypatch)
        append_all(store, run_documents(3)[1][:-1])
        while not set(store._current._wals).intersection(synced) or len(rounds) < 20:
            time.sleep(0.01)
        assert len([each for each in synced if each in store._current._wals]) <= 5


def test_nobody_wakes(tmp_path, monkeypatch):
    """The thread that nobody waits for sleeps for its second, however many documents come."""
    monkeypatch.setattr("bluesky_filestore.spool.store._SYNC_SECONDS", 3600.0)
    with closing(Store(tmp_path)) as store:
        rounds = counted_rounds(store, monkeypatch)
        append_all(store, run_documents(300)[1])
        assert not rounds


def test_closing(tmp_path, monkeypatch):
    """What waited until then is put in, and on the disk, and no file stays open."""
    monkeypatch.setattr("bluesky_filestore.spool.store._SYNC_SECONDS", 3600.0)
    done, sync, insert, store = [], os.fsync, Store._insert, Store(tmp_path)
    store._producer.connection.execute("PRAGMA max_page_count = 20")
    assert append_all(store, run_documents(300)[1])
    store._producer.connection.execute("PRAGMA max_page_count = 100000")
    monkeypatch.setattr(os, "fsync", lambda descriptor: (sync(descriptor), done.append(descriptor)))
    monkeypatch.setattr(store, "_insert", lambda stretch: (insert(store, stretch), done.append("in")))
    store.close()
    assert [each for each in done if each in ("in", *store._current._wals)][-2:] == ["in", store._current._wals[-1]]
    assert not [file for file in Path("/proc/self/fd").iterdir() if tmp_path in file.resolve().parents]


def test_counted(tmp_path):
    """What was counted is written down when it is closed, at the latest."""
    with closing(Store(tmp_path)) as store:
        store.measures.save(at_once=True)
        store.measures.add("documents", 3)
    assert measured(tmp_path)["documents"] == 3


def test_full_to_the_end(tmp_path):
    """If there is no room at the end either, closing says what is lost; it ends all the same."""
    uid, documents = run_documents(300)
    store = Store(tmp_path)
    store._producer.connection.execute("PRAGMA max_page_count = 20")
    said = append_all(store, documents)
    with pytest.raises(SpoolError, match=f"{len(said)} wait in memory and would be lost"):
        store.close()
    assert taken(tmp_path) == {uid: ("", documents[: -len(said)])}


def test_full_disk(tmp_path):
    """On a disk that is really full nothing is lost, and it goes on when there is room."""
    with small_disk(tmp_path / "disk", "8m") as mounted:
        if not mounted:
            pytest.skip("only root may mount a disk")
        spool = tmp_path / "disk" / "spool"
        (uid, documents), (other, more) = run_documents(100), run_documents(3)
        with closing(Store(spool)) as store:
            append_all(store, documents[:50])
            filler = fill(tmp_path / "disk")
            said = append_all(store, documents[50:])
            assert "(database or disk is full)" in said[-1]
            with pytest.raises(SpoolError, match=r"cannot be (made|used|written to) .*"):
                Store(tmp_path / "disk" / "another")
            filler.unlink()
            assert append_all(store, more) == []
        assert taken(spool) == {uid: ("", documents), other: ("", more)}


def test_damaged_while_open(tmp_path, caplog):
    """The damaged database is put aside, runs that were open are said to be broken, later ones are whole."""
    (before, documents), (broken, torn), (later, whole) = (run_documents(200) for _ in range(3))
    with closing(Store(tmp_path)) as store:
        append_all(store, [*documents, *torn[:100]])
        garble(tmp_path)
        forget_pages(store)
        assert append_all(store, [*torn[100:], *whole]) == []
        assert (store.error, store.unsaved, store.open_runs) == (None, 0, ())
    (aside,) = tmp_path.glob("damaged-*")
    assert f"moved to {aside}" in caplog.text
    assert "does not take documents" not in caplog.text
    found = taken(tmp_path)
    assert before not in found
    reason, left = found[broken]
    assert reason == "the spool was damaged in the middle of the run"
    assert left == torn[-len(left) :]
    assert len(left) >= len(torn) - 100
    assert found[later] == ("", whole)


def test_damage_that_opening_does_not_find(tmp_path):
    """The database is put aside as well if only what is written to is broken."""
    (_, documents), (later, whole) = run_documents(200), run_documents(3)
    with closing(Store(tmp_path)) as store:
        append_all(store, documents[:-1])
        store._producer.connection.execute("DROP INDEX documents_of_run")
        with closing(connect(tmp_path)) as connection:
            (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'runs'").fetchone()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with (tmp_path / "spool.db").open("r+b") as file:
            file.seek((page - 1) * 4096)
            file.write(b"\xff" * 4096)
        forget_pages(store)
        assert append_all(store, [*documents[-1:], *whole]) == []
    assert taken(tmp_path)[later] == ("", whole)
    assert len(list(tmp_path.glob("damaged-*"))) == 1


def test_put_aside_by_another(tmp_path, caplog):
    """If another process puts the database aside, this one goes on in the new one, at the next start or end."""
    (broken, torn), (later, whole) = run_documents(3), run_documents(3)
    with closing(Store(tmp_path)) as store:
        append_all(store, torn[:3])
        with closing(Ledger(tmp_path)) as ledger:
            ledger.put_aside("somebody found it damaged")
            assert not ledger.is_current
        assert append_all(store, [torn[-1], *whole]) == []
        with closing(Ledger(tmp_path)) as ledger:
            assert ledger.is_current
            assert ledger.is_alive(store.producer)
    assert taken(tmp_path) == {
        broken: ("the spool was damaged in the middle of the run", torn[-1:]),
        later: ("", whole),
    }


def test_put_aside_while_nothing_comes(tmp_path, monkeypatch):
    """It goes on in the new one without a start or end, too, so that events are where others read."""
    monkeypatch.setattr("bluesky_filestore.spool.store._SYNC_SECONDS", 0.02)
    uid, documents = run_documents(3)
    with closing(Store(tmp_path)) as store:
        append_all(store, documents[:2])
        with closing(Ledger(tmp_path)) as ledger:
            ledger.put_aside("somebody found it damaged")
        deadline = time.monotonic() + 30
        while store._current.identity != identity(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.01)
        append_all(store, documents[2:4])
        assert taken(tmp_path)[uid] == ("the spool was damaged in the middle of the run", documents[2:4])


def test_no_room_for_a_new_database(tmp_path, monkeypatch):
    """If no new one can be begun in place of a damaged one, documents wait in memory until it can."""
    (_, documents), (later, whole) = run_documents(200), run_documents(3)
    with closing(Store(tmp_path / "spool")) as store:
        append_all(store, documents)
        garble(tmp_path / "spool")
        forget_pages(store)
        (tmp_path / "spool").rename(tmp_path / "away")
        (tmp_path / "spool").write_text("in the way")
        said = append_all(store, whole)
        assert len(said) == len(whole)
        assert store.unsaved == len(whole)
        assert store.error is not None
        (tmp_path / "spool").unlink()
        (tmp_path / "away").rename(tmp_path / "spool")
        deadline = time.monotonic() + 30
        while store.unsaved:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert taken(tmp_path / "spool")[later] == ("", whole)


def test_clock_set_back(tmp_path, monkeypatch):
    """The order is that in which documents came, whatever the clock says."""
    (first, documents), (second, others) = run_documents(3), run_documents(3)
    now = time.time()
    with closing(Store(tmp_path)) as store:
        append_all(store, documents)
        monkeypatch.setattr(time, "time", lambda: now - 86_400.0)
        append_all(store, others)
    assert list(taken(tmp_path).items()) == [(first, ("", documents)), (second, ("", others))]


def test_long_log_is_folded_in(tmp_path):
    """The write-ahead log does not grow without end."""
    with closing(Store(tmp_path)) as store:
        store.append("start", {"uid": "a"})
        for _ in range(2):
            store.append("descriptor", {"uid": "d", "run_start": "a", "big": np.zeros(10_000_000, "u1")})
        deadline = time.monotonic() + 30
        while (tmp_path / "spool.db").stat().st_size < 10_000_000:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_misuse_is_not_hidden(tmp_path):
    """A broken connection is an error of the spool."""
    store = Store(tmp_path)
    store._producer.connection.close()
    with pytest.raises(SpoolError, match="Cannot operate on a closed database"):
        store.append("start", {"uid": "a"})
    with pytest.raises(SpoolError, match="1 wait in memory"):
        store.close()
