"""What delivers a spool in the background."""

import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import pytest
from disks import garble
from spooled import put, put_and_die, run_documents, states

from bluesky_filestore import documents
from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
from bluesky_filestore.delivery.conveyor import Conveyor
from bluesky_filestore.delivery.settings import DeliverySettings
from bluesky_filestore.delivery.uploader import Uploader
from bluesky_filestore.errors import CatalogDownError, CatalogUnreachableError, SpoolError
from bluesky_filestore.spool import Ledger, Store

HOLDER = """
import sys, time
from pathlib import Path
from bluesky_filestore.spool.lease import Lease
print(Lease(Path(sys.argv[1])).take() and "holds", flush=True)
time.sleep(120)
"""


@pytest.fixture
def tiled(catalog):
    """The session's catalog, as it is written to."""
    return TiledCatalog(catalog.client)


@pytest.fixture
def uploader_for(tmp_path, tiled):
    """Make uploaders of a spool, which are closed afterwards."""
    uploaders = []

    def make(**options):
        uploaders.append(Uploader(tmp_path, tiled, DeliverySettings(interval=0.05, **options)))
        return uploaders[-1]

    yield make
    for uploader in uploaders:
        uploader.close()


@pytest.fixture
def stopped_holder(tmp_path, tiled):
    """A process that would deliver, but is stopped."""
    with closing(Ledger(tmp_path)) as ledger:
        path = ledger.lease(ledger.register_catalog(tiled.uri))
    command = [sys.executable, "-c", HOLDER.replace("Lease(Path(sys.argv[1]))", "(lease := Lease(Path(sys.argv[1])))")]
    with subprocess.Popen([*command, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "holds\n"
        process.send_signal(signal.SIGSTOP)
        yield process
        process.kill()


def wait_for(condition, timeout=30.0):
    """Wait until something is the case."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_delivers(tmp_path, tiled, catalog, uploader_for):
    """What was there before, and what comes later, is delivered."""
    (first, docs), (second, others) = run_documents(3), run_documents(3)
    put(tmp_path, docs)
    uploader = uploader_for()
    assert uploader.wait_until_readable(first, 30.0)
    put(tmp_path, others)
    assert uploader.wait_until_readable(second, 30.0)
    assert uploader.delivers
    assert list(documents(catalog.client[first])) == docs
    assert list(documents(catalog.client[second])) == others


def test_the_catalog_is_known_from_the_beginning(tmp_path, tiled, monkeypatch):
    """Whoever looks at a spool knows where its documents are to go, though its writer was killed at once."""
    monkeypatch.setattr(Uploader, "_run", lambda _: None)
    with closing(Uploader(tmp_path, tiled)), closing(Ledger(tmp_path)) as ledger:
        assert [uri for uri, _ in ledger.catalogs().values()] == [tiled.uri]


def test_one_of_several_delivers(tmp_path, tiled, uploader_for):
    """Of two one delivers, and the other notices what that does; it takes over when that ends."""
    (first, docs), (second, others) = run_documents(3), run_documents(3)
    one, other = uploader_for(), uploader_for()
    put(tmp_path, docs)
    assert one.wait_until_readable(first, 30.0)
    assert other.wait_until_readable(first, 30.0)
    assert sorted([one.delivers, other.delivers]) == [False, True]
    holder, heir = (one, other) if one.delivers else (other, one)
    holder.close()
    put(tmp_path, others)
    assert heir.wait_until_readable(second, 30.0)
    assert heir.delivers
    assert holder.wait_until_readable(second, 30.0), "the catalog has it, whoever did it"


def test_who_watches_says_nothing(tmp_path, tiled, uploader_for, stopped_holder, monkeypatch):
    """An outage that a watching uploader met is over for it with the outage, and is nothing for the spool to tell."""

    def fail():
        raise CatalogUnreachableError("away")

    uploader = uploader_for()
    wait_for(lambda: uploader.rounds)
    monkeypatch.setattr(tiled, "check", fail)
    uploader._notice(CatalogUnreachableError("away"))
    rounds = uploader.rounds
    wait_for(lambda: uploader.rounds >= rounds + 2)
    assert not uploader.delivers
    assert uploader.error is not None
    monkeypatch.undo()
    uploader.wake()
    wait_for(lambda: uploader.error is None)
    with closing(Ledger(tmp_path)) as ledger:
        assert [said for _, said in ledger.catalogs().values()] == [""]


@pytest.mark.parametrize("kind", [CatalogDownError, CatalogUnreachableError])
def test_what_is_gone_through_again(tmp_path, tiled, uploader_for, monkeypatch, kind):
    """After its server has ended it is all that is on its way; where requests fail at times that would never end."""
    spools = []
    begin_again = Conveyor.begin_again
    monkeypatch.setattr(
        Conveyor, "begin_again", lambda conveyor: (spools.append(conveyor._ledger.directory), begin_again(conveyor))
    )
    uploader = uploader_for()
    wait_for(lambda: uploader.delivers)
    uploader._notice(kind("no answer"))
    uploader.wake()
    wait_for(lambda: uploader.error is None)
    # Others of this process may have a server that has ended, too.
    assert spools.count(tmp_path) == (kind is CatalogDownError)


def test_who_waits_does_not_spin(uploader_for, stopped_holder):
    """Who waits for what another process does has the spool looked through now and then, not again and again."""
    uploader = uploader_for()
    began, rounds = time.monotonic(), uploader.rounds
    assert not uploader.wait_until_readable("never", 0.5)
    assert uploader.rounds - rounds < 10 + 40 * (time.monotonic() - began)


def test_stopped_holder(tmp_path, tiled, uploader_for, stopped_holder):
    """Who delivers may be stopped: others wait for as long as they were told to, and take over when it is killed."""
    uid, docs = run_documents(3)
    uploader = uploader_for()
    put(tmp_path, docs)
    began = time.monotonic()
    assert not uploader.wait_until_readable(uid, 0.5)
    assert 0.4 < time.monotonic() - began < 10.0
    assert not uploader.delivers
    with closing(Ledger(tmp_path)) as ledger:
        assert ledger.uploader(ledger.register_catalog(tiled.uri)) == stopped_holder.pid
    stopped_holder.kill()
    assert uploader.wait_until_readable(uid, 30.0)


def test_runs_of_killed_writers(tmp_path, tiled, catalog, uploader_for):
    """The run of a killed process is closed without anybody asking for it."""
    uid = put_and_die(tmp_path)
    uploader = uploader_for()
    assert uploader.wait_until_readable(uid, 30.0)
    assert "cut short" in catalog.client[uid].metadata["notes"][0]


def test_prunes(tmp_path, tiled, uploader_for):
    """What was delivered leaves the spool after the time it is kept."""
    uid, docs = run_documents(3)
    put(tmp_path, docs)
    uploader = uploader_for(keep=0.0)
    assert uploader.wait_until_readable(uid, 30.0)
    time.sleep(0.01)
    uploader.look_around()
    uploader.wake()
    wait_for(lambda: states(tmp_path, tiled.uri) == {})


@pytest.mark.parametrize("when", ["before", "while it delivers"])
def test_damage_that_only_reading_finds(tmp_path, tiled, catalog, uploader_for, caplog, when):
    """A database that cannot be read is put aside, once; the writer goes on in the new one, and that is delivered."""
    (broken, torn), (later, whole) = run_documents(400), run_documents(3)
    with closing(Store(tmp_path)) as store:
        uploader = uploader_for() if when != "before" else None
        for pair in torn[:-1]:
            store.append(*pair)
        # The writer itself does not look at these pages again.
        garble(tmp_path, first=12)
        uploader = uploader or uploader_for()
        uploader._ledger and uploader._ledger._connection.execute("PRAGMA shrink_memory")
        wait_for(lambda: list(tmp_path.glob("damaged-*")))
        for pair in (torn[-1], *whole):
            store.append(*pair)
        assert uploader.wait_until_readable(later, 30.0)
    assert list(documents(catalog.client[later])) == whole
    assert states(tmp_path, tiled.uri) == {broken: "parked", later: "delivered"}
    assert len(list(tmp_path.glob("damaged-*"))) == 1
    assert "is damaged" in caplog.text


def test_what_nobody_thought_of(tmp_path, tiled, catalog, uploader_for, caplog, monkeypatch):
    """Whatever goes wrong in the thread is said once and tried again; nobody waits for it without end."""
    uid, docs = run_documents(3)
    move = Conveyor.move

    def fail(conveyor):
        raise ZeroDivisionError("nobody thought of it")

    monkeypatch.setattr(Conveyor, "move", fail)
    put(tmp_path, docs)
    uploader = uploader_for()
    began = time.monotonic()
    assert not uploader.wait_until_readable(uid, 60.0)
    assert time.monotonic() - began < 30.0
    assert "could not be delivered, which is tried again: ZeroDivisionError('nobody thought of it')" in uploader.trouble
    wait_for(lambda: (uploader.wake(), uploader.rounds > 3)[1])
    assert [record.levelno for record in caplog.records if "nobody thought" in record.message] == [logging.ERROR]
    monkeypatch.setattr(Conveyor, "move", move)
    wait_for(lambda: (uploader.wake(), uploader.trouble == "")[1])
    assert uploader.wait_until_readable(uid, 30.0)
    assert list(documents(catalog.client[uid])) == docs


def test_away_and_no_room_to_say_so(tmp_path, tiled, catalog, uploader_for, monkeypatch):
    """That it cannot be written down why the catalog takes nothing does not end the delivery."""
    uid, docs = run_documents(3)

    def away():
        raise CatalogUnreachableError("the catalog is away")

    def full(*_):
        raise SpoolError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(tiled, "check", away)
        patch.setattr(Ledger, "say", full)
        put(tmp_path, docs)
        uploader = uploader_for()
        wait_for(lambda: (uploader.wake(), uploader.rounds > 2)[1])
        assert (str(uploader.error), uploader.trouble) == ("the catalog is away", "the disk is full")
    wait_for(lambda: (uploader.wake(), uploader.error is None and not uploader.trouble)[1])
    assert uploader.wait_until_readable(uid, 30.0)


def test_closed(tmp_path, tiled, uploader_for):
    """Nobody waits for one that is closed, which may be done twice."""
    uid, docs = run_documents(3)
    uploader = uploader_for()
    uploader.close()
    put(tmp_path, docs)
    assert not uploader.wait_until_readable(uid, 600.0)
    assert not uploader.wait_for(lambda: False, after=10)
    uploader.close()


def test_forked(tmp_path, tiled, uploader_for):
    """A child that was forked does not keep the delivery from others."""
    uploader = uploader_for()
    wait_for(lambda: uploader.delivers)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.read(reading, 1)
        os._exit(0)
    uploader.close()
    heir = uploader_for()
    wait_for(lambda: heir.delivers)
    os.write(writing, b".")
    os.waitpid(child, 0)
    os.close(reading)
    os.close(writing)
