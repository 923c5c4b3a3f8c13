"""What a writer does when its spool, or a catalog, is not as it should be."""

import logging
import os
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from disks import fill, garble, small_disk
from spooled import Failing, run_documents, states

from bluesky_filestore import CatalogWriter, documents, serve_catalog
from bluesky_filestore.delivery import spooling
from bluesky_filestore.delivery.conveyor import Conveyor
from bluesky_filestore.errors import CatalogUnreachableError, SpoolError
from bluesky_filestore.operations.operations import AppendRows, CloseRun
from bluesky_filestore.spool import Ledger, Store
from bluesky_filestore.spool.database import connect

PUT = """
import sys
from contextlib import closing, suppress
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from spooled import run_documents
from bluesky_filestore.spool import Store
with closing(Store(Path(sys.argv[1]))) as store:
    for number in range(3):
        for name, doc in run_documents(5, uid=f"{sys.argv[3]}-{number}")[1]:
            with suppress(OSError):  # It is kept, and put in with the next one.
                store.append(name, doc)
print("put", flush=True)
"""


@contextmanager
def newer(directory):
    """A spool of a newer version."""
    with closing(connect(directory)) as connection:
        connection.execute("PRAGMA user_version = 99")
    yield directory, "of version 99, written by a newer"


@contextmanager
def no_directory(directory):
    """A file in place of a spool directory."""
    (directory / "file").write_text("mine")
    yield directory / "file", "cannot be made"


@contextmanager
def in_a_circle(directory):
    """Links that lead to one another."""
    (directory / "a").symlink_to(directory / "b")
    (directory / "b").symlink_to(directory / "a")
    yield directory / "a" / "spool", "cannot be made"


UNUSABLE = pytest.mark.parametrize("unusable", [newer, no_directory, in_a_circle])


def feed(writer, docs):
    """Give the writer documents."""
    for name, doc in docs:
        writer(name, doc)


@UNUSABLE
def test_unusable_warn(tmp_path, catalog, caplog, unusable):
    """By default a spool that cannot be used is said loudly, and runs are written without one."""
    uid, docs = run_documents(3)
    with unusable(tmp_path) as (spool, words):
        with CatalogWriter(catalog.client, spool=spool) as writer:
            feed(writer, docs)
            status = writer.status()
        assert status.spool is None
        assert words in status.problems[0]
    assert "There is no spool, documents are kept in memory only" in caplog.text
    assert list(documents(catalog.client[uid])) == docs


@UNUSABLE
def test_unusable_raise(tmp_path, catalog, unusable):
    """With on_error="raise" it is an error at once."""
    with unusable(tmp_path) as (spool, words), pytest.raises(SpoolError, match=words):
        CatalogWriter(catalog.client, spool=spool, on_error="raise")


def test_uploader_that_cannot_be_made(tmp_path, catalog, monkeypatch):
    """Of a writer that was not made nothing is left: no thread, no connection, no number in the spool."""

    class OnlyOne(spooling.Uploader):
        made = 0

        def __init__(self, *args, **options):
            OnlyOne.made += 1
            if OnlyOne.made == 2:
                raise SpoolError("cannot be made")
            super().__init__(*args, **options)

    monkeypatch.setattr(spooling, "Uploader", OnlyOne)
    before = set(threading.enumerate())
    other = catalog.client.create_container("other")
    with pytest.raises(SpoolError, match="cannot be made"):
        CatalogWriter([catalog.client, other], spool=tmp_path, on_error="raise")
    assert {thread.name for thread in set(threading.enumerate()) - before} & {"spool-keeper", "uploader"} == set()
    with closing(Ledger(tmp_path)) as ledger:
        assert not ledger.is_alive(1)


@pytest.mark.parametrize("on_error", ["warn", "raise"])
def test_disk_full(tmp_path, catalog, caplog, on_error):
    """A full disk is said in the log, or raised with each document; no document is lost as long as we live."""
    (uid, docs), (other, more) = run_documents(300), run_documents(3)
    with CatalogWriter(catalog.client, spool=tmp_path, on_error=on_error, wait_on_stop=0) as writer:
        store = writer._spooling.store
        store._producer.connection.execute("PRAGMA max_page_count = 20")
        raised = []
        for name, doc in docs:
            try:
                writer(name, doc)
            except SpoolError as error:
                raised.append(str(error))
        status = writer.status()
        assert status.unsaved > 0
        assert len(raised) == (status.unsaved if on_error == "raise" else 0)
        assert all("is full" in words for words in raised)
        with pytest.raises(SpoolError, match="is full"):
            writer.flush()
        assert "database or disk is full" in status.spool_error
        assert "database or disk is full" in repr(status)
        store._producer.connection.execute("PRAGMA max_page_count = 100000")
        feed(writer, more)
        assert (writer.status().unsaved, writer.status().error) == (0, "")
    assert list(documents(catalog.client[uid])) == docs
    assert list(documents(catalog.client[other])) == more
    assert caplog.text.count("Make room on the disk") == 1


def test_disk_full_for_the_delivery(tmp_path, catalog):
    """On a disk without any room nobody waits without end, and what was taken is delivered when there is some."""
    with small_disk(tmp_path / "disk", "8m") as mounted:
        if not mounted:
            pytest.skip("only root may mount a disk")
        uid, docs = run_documents(200)
        writer = CatalogWriter(catalog.client, spool=tmp_path / "disk" / "spool", wait_on_stop=0.5)
        feed(writer, docs[:5])
        filler = fill(tmp_path / "disk")
        feed(writer, docs[5:])
        assert writer.status().unsaved > 0
        began = time.monotonic()
        with pytest.raises(SpoolError, match="is full"):
            writer.flush()
        assert time.monotonic() - began < 60.0
        filler.unlink()
        writer.close()
        assert list(documents(catalog.client[uid])) == docs


def test_damaged_at_the_start(tmp_path, catalog, caplog):
    """A database that is damaged is put aside, and the writer works with a new one."""
    (tmp_path / "spool.db").write_bytes(b"no database" * 1000)
    uid, docs = run_documents(3)
    with CatalogWriter(catalog.client, spool=tmp_path, on_error="raise") as writer:
        feed(writer, docs)
    assert list(documents(catalog.client[uid])) == docs
    assert "It was moved to" in caplog.text


def test_damaged_in_the_middle(tmp_path, catalog, caplog):
    """The run that is open is parked with the reason; the plan goes on, and later runs are delivered."""
    (broken, torn), (later, whole) = run_documents(300), run_documents(3)
    with CatalogWriter(catalog.client, spool=tmp_path, on_error="raise", wait_on_stop=0) as writer:
        feed(writer, torn[:250])
        garble(tmp_path)
        writer._spooling.store._producer.connection.execute("PRAGMA shrink_memory")
        feed(writer, [*torn[250:], *whole])
        writer.flush()
        status = writer.status()
    assert status.catalogs[0].parked == {broken: "the spool was damaged in the middle of the run"}
    assert f"parked {broken[:8]}: the spool was damaged in the middle of the run" in repr(status)
    assert list(documents(catalog.client[later])) == whole
    assert states(tmp_path, catalog.client.uri) == {broken: "parked", later: "delivered"}
    assert "is damaged" in caplog.text


def test_two_processes(tmp_path, catalog):
    """What other processes put into the same spool at the same time is delivered with our own, each document once."""
    command = [sys.executable, "-c", PUT, str(tmp_path), str(Path(__file__).parent)]
    ours = [run_documents(5) for _ in range(3)]
    with CatalogWriter(catalog.client, spool=tmp_path, wait_on_stop=0, interval=0.02) as writer:
        others = [
            subprocess.Popen([*command, f"{tmp_path.parent.name}-{name}"], stdout=subprocess.PIPE, text=True)
            for name in "ab"
        ]
        for _, docs in ours:
            feed(writer, docs)
        for process in others:
            assert process.communicate(timeout=60)[0] == "put\n"
        deadline = time.monotonic() + 30
        while set(states(tmp_path, catalog.client.uri).values()) != {"delivered"}:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    found = states(tmp_path, catalog.client.uri)
    assert len(found) == 9
    for uid, docs in ours:
        assert list(documents(catalog.client[uid])) == docs
    with closing(Ledger(tmp_path)) as ledger:
        for entry in ledger.entries(ledger.register_catalog(catalog.client.uri)):
            assert list(documents(catalog.client[entry.uid])) == list(ledger.documents_of(entry.number))


def test_closed(tmp_path, catalog, caplog):
    """Closing twice is harmless, what comes later is refused, and flush does not wait for what cannot come."""
    uid, docs = run_documents(3)
    with CatalogWriter(catalog.client, spool=tmp_path, on_error="raise") as writer:
        feed(writer, docs)
        writer.close()
    writer.flush()
    with pytest.raises(SpoolError, match="is closed; make a new one"):
        writer(*docs[0])
    assert list(documents(catalog.client[uid])) == docs


def test_closed_is_said(tmp_path, catalog, caplog):
    """What comes after closing is lost, which is said once, whatever is to be done about errors."""
    _, docs = run_documents(3)
    writer = CatalogWriter(catalog.client, spool=tmp_path)
    writer.close()
    feed(writer, docs)
    assert caplog.text.count("is closed; make a new one. The document is lost.") == 1


def test_open_run_whose_documents_are_on_their_way(tmp_path, catalog, monkeypatch):
    """A run that is open when its writer is closed ends there, though the last documents are still to be delivered."""
    uid, docs = run_documents(3)
    move, passed = Conveyor.move, []

    def late_move(conveyor):
        if writer._spooling._closed and not passed:
            passed.append(conveyor)
            return [], False
        return move(conveyor)

    monkeypatch.setattr(Conveyor, "move", late_move)
    with CatalogWriter(catalog.client, spool=tmp_path, interval=60.0) as writer:
        feed(writer, docs[:-1])
    assert passed
    assert states(tmp_path, writer.status().catalog) == {uid: "delivered"}
    assert "cut short" in catalog.client[uid].metadata["notes"][0]


def test_stopped_uploader_elsewhere(tmp_path, catalog, monkeypatch):
    """Another process that delivers, and does nothing, is not waited for without end, by a stop or at the end."""
    monkeypatch.setattr(spooling, "_PATIENCE_SECONDS", 1.0)
    uid, docs = run_documents(3)
    Store(tmp_path).close()
    with closing(Ledger(tmp_path)) as ledger:
        lease = ledger.lease(ledger.register_catalog(catalog.client.uri))
    code = "import fcntl, os, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); "
    code += "f.write(str(os.getpid())); f.flush(); print('holds', flush=True); time.sleep(120)"
    with subprocess.Popen([sys.executable, "-c", code, str(lease)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"holds\n"
        began = time.monotonic()
        writer = CatalogWriter(catalog.client, spool=tmp_path, wait_on_stop=0.5)
        feed(writer, docs)
        assert writer.status().catalogs[0].uploader == holder.pid
        with pytest.raises(
            ConnectionError, match=rf"Process {holder.pid} delivers, and has done nothing for 1 s\. Not"
        ):
            writer.close()
        assert time.monotonic() - began < 20.0
        holder.kill()
    with CatalogWriter(catalog.client, spool=tmp_path) as writer:
        writer.flush()
    assert list(documents(catalog.client[uid])) == docs


def test_one_of_two_catalogs_is_away(tmp_path, catalog, caplog):
    """A catalog that is away does not keep a run from the other, not even when the writer is closed."""
    caplog.set_level(logging.WARNING)
    uid, docs = run_documents(3)
    with serve_catalog(tmp_path / "away") as away:
        writer = CatalogWriter([away.client, catalog.client], spool=tmp_path / "spool", wait_on_stop=0)
        feed(writer, docs[:3])
    feed(writer, docs[3:])
    with pytest.raises(CatalogUnreachableError, match="Nothing is lost"):
        writer.close()
    assert list(documents(catalog.client[uid])) == docs
    assert states(tmp_path / "spool", catalog.client.uri) == {uid: "delivered"}


def test_clock_set_back(tmp_path, catalog, monkeypatch):
    """A clock that is set back by a day changes nothing but times."""
    runs = [run_documents(3) for _ in range(3)]
    now = time.time()
    with CatalogWriter(catalog.client, spool=tmp_path, keep=0.0) as writer:
        for number, (_, docs) in enumerate(runs):
            monkeypatch.setattr(time, "time", lambda number=number: now - number * 86_400.0)
            feed(writer, docs)
    monkeypatch.undo()
    for uid, docs in runs:
        assert list(documents(catalog.client[uid])) == docs


def test_forked(tmp_path, catalog):
    """In a forked child a writer says whose it is, and ends at once without a word; its parent goes on."""
    uid, docs = run_documents(2)
    with CatalogWriter(catalog.client, spool=tmp_path, wait_on_stop=0) as writer:
        for name, doc in docs[:-1]:
            writer(name, doc)
        child = os.fork()
        if not child:
            try:
                began = time.monotonic()
                with suppress(SpoolError):
                    writer.flush()
                    os._exit(2)
                writer.close()
                os._exit(0 if time.monotonic() - began < 5 else 3)
            except CatalogUnreachableError:
                os._exit(4)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        writer(*docs[-1])
        writer.flush()
    assert [name for name, _ in documents(catalog.client[uid])] == [name for name, _ in docs]


def test_a_run_that_comes_once_more(tmp_path, caplog):
    """Its stop waits until the catalog has it again, and it is not said before; what is there would stay once."""
    caplog.set_level("INFO")
    catalog = Failing()
    uid, docs = run_documents(3)
    ours = spooling.Spooling(tmp_path, [catalog], wait_on_stop=30.0, durability="normal")
    for times in (1, 2):
        for pair in docs:
            ours.put(*pair)
        assert catalog.kinds().count(CloseRun) == times
    catalog.away = CatalogUnreachableError("nobody answers")
    for pair in docs:
        ours.put(*pair)
    catalog.away = None
    ours.close()
    ends = [record.message for record in caplog.records if "(success)" in record.message]
    assert ["; not in" in end for end in ends] == [False, False, True]
    taken = [each for each in catalog.operations if isinstance(each, AppendRows)]
    rows = {each.first_row + place: value for each in taken for place, value in enumerate(each.columns["x"])}
    assert rows == {0: 0.0, 1: 1.0, 2: 2.0}
    assert states(tmp_path, catalog.uri) == {uid: "delivered"}
