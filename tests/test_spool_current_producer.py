"""A writer whose database is not where it was any more: it goes on in another, and says what is lost."""

import logging
import shutil
import time
from contextlib import closing

import pytest
from spooled import Failing, put_and_die, run_documents, states

from bluesky_filestore import SpoolWriter
from bluesky_filestore.delivery.spooling import Spooling
from bluesky_filestore.errors import CatalogUnreachableError, SpoolError
from bluesky_filestore.spool import Ledger, Store
from bluesky_filestore.spool.database import connect, identity, transaction

GONE = "is gone: somebody has removed or moved it"
WAYS = {
    "the directory is removed": shutil.rmtree,
    "the directory is moved": lambda directory: directory.rename(directory.with_name("elsewhere")),
    "the files are removed": lambda directory: [file.unlink() for file in directory.iterdir()],
}


@pytest.fixture
def directory(tmp_path):
    """Where the spool is."""
    return tmp_path / "spool"


@pytest.fixture
def away():
    """A catalog that is away."""
    catalog = Failing()
    catalog.away = CatalogUnreachableError("it is away")
    return catalog


def wait_until(condition):
    """Wait until something is the case."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def put(spooling, documents):
    """Have documents taken."""
    for pair in documents:
        spooling.put(*pair)


@pytest.mark.parametrize("remove", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("is_seen", [False, True], ids=["at once", "after it was seen"])
def test_removed(directory, away, caplog, remove, is_seen):
    """Which runs went with it is in the log, in what `status` shows, and raised by `flush`, once; later ones stay."""
    (uid, documents), (begun, more), (later, others) = (run_documents(2) for _ in range(3))
    spooling = Spooling(directory, [away], wait_on_stop=0.0, durability="normal")
    put(spooling, [*documents, *more[:2]])
    was = identity(directory)
    remove(directory)
    if is_seen:
        wait_until(lambda: identity(directory) not in (None, was))
    away.away = None
    with pytest.raises(SpoolError, match=f"{GONE}.*1 that had ended, and the beginning of 1 that go on") as raised:
        spooling.flush(0.0)
    assert f"({uid[:8]}, {begun[:8]})" in str(raised.value)
    assert spooling.store.losses.all() == (str(raised.value),)
    put(spooling, [*more[2:], *others])
    spooling.flush(0.0)
    spooling.close()
    assert caplog.text.count(GONE) == 1
    assert [record.levelname for record in caplog.records if GONE in record.getMessage()] == ["ERROR"]
    assert states(directory, away.uri) == {begun: "parked", later: "delivered"}


def test_removed_before_closing(directory, away):
    """Who closes at once is told as well; by a writer without a catalog, too."""
    uid, documents = run_documents(2)
    spooling = Spooling(directory, [away], wait_on_stop=0.0, durability="normal")
    put(spooling, documents)
    shutil.rmtree(directory)
    with pytest.raises(SpoolError, match=f"{GONE}.*{uid[:8]}"):
        spooling.close()
    for end in (SpoolWriter.flush, SpoolWriter.close):
        writer = SpoolWriter(directory)
        for pair in documents:
            writer(*pair)
        shutil.rmtree(directory)
        with pytest.raises(SpoolError, match=f"{GONE}.*{uid[:8]}"):
            end(writer)
        assert GONE in writer._store.losses.all()[0]
        writer.close()


def test_removed_when_all_was_delivered(directory, caplog):
    """Then nothing is lost: it is a warning."""
    catalog, (uid, documents) = Failing(), run_documents(2)
    spooling = Spooling(directory, [catalog], wait_on_stop=60.0, durability="normal")
    put(spooling, documents)
    spooling.flush(0.0)
    shutil.rmtree(directory)
    spooling.flush(0.0)
    spooling.close()
    ((level, words),) = [(each.levelname, each.getMessage()) for each in caplog.records if GONE in each.getMessage()]
    assert (level, "All runs that this writer had put there were delivered" in words) == ("WARNING", True)
    assert uid in catalog.closed()


def test_runs_of_others(directory):
    """Those of writers before it are not said to be this one's."""
    put_and_die(directory)
    with closing(Store(directory)) as store:
        shutil.rmtree(directory)
        wait_until(lambda: identity(directory) is not None)
        assert store.losses.all() == ()


@pytest.mark.parametrize("how", ["put aside", "out of reach"])
def test_not_gone(directory, how, caplog):
    """One that was put aside, or that cannot be looked at for a while, is not said to be gone."""
    with closing(Store(directory)) as store:
        for pair in run_documents(1)[1]:
            store.append(*pair)
        if how == "put aside":
            with closing(Ledger(directory)) as ledger:
                ledger.put_aside("somebody found it damaged")
        else:
            directory.rename(directory.with_name("behind"))
            directory.symlink_to(directory)
            with pytest.raises(SpoolError, match="cannot be made"):
                store.append("start", {"uid": "a"})
            directory.unlink()
            directory.with_name("behind").rename(directory)
        store.append("start", {"uid": "b"})
        assert (store.unsaved, store.losses.all()) == (0, ())
    assert GONE not in caplog.text


@pytest.mark.parametrize("waits", [False, True], ids=["nothing waits", "some wait in memory"])
def test_true_reason(directory, caplog, monkeypatch, waits):
    """Why no other database can be had is what is said, not that there is none, whoever meets it first."""
    monkeypatch.setattr("bluesky_filestore.spool.store._SYNC_SECONDS", 0.02)
    _, documents = run_documents(2)
    store = Store(directory)
    with closing(connect(directory)) as other:
        if waits:
            with transaction(other):
                store.append(*documents[0])
                shutil.rmtree(directory)
                directory.write_text("in the way")
        else:
            shutil.rmtree(directory)
            directory.write_text("in the way")
            wait_until(lambda: store._current.identity is None)
        with caplog.at_level(logging.DEBUG):
            for pair in documents[1:]:
                with pytest.raises(SpoolError, match="cannot be made"):
                    store.append(*pair)
            with pytest.raises(SpoolError, match="cannot be made"):
                store.close()
    assert "closed database" not in caplog.text
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert f"the spool directory {directory} cannot be made" in errors[0]
