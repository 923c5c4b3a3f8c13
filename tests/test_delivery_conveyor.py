"""From a spool to a catalog."""

import sqlite3
from contextlib import closing

import event_model
import pytest
from small_runs import SmallRun
from spooled import Applied, put, put_and_die, run_documents

from bluesky_filestore import documents
from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
from bluesky_filestore.delivery.conveyor import Conveyor
from bluesky_filestore.delivery.problems import Problems
from bluesky_filestore.delivery.run_delivery import IN_DOUBT
from bluesky_filestore.errors import CatalogUnreachableError
from bluesky_filestore.spool import Ledger, Store
from bluesky_filestore.spool.spooled_run import find_run


@pytest.fixture
def tiled(catalog):
    """The session's catalog, as it is written to."""
    return TiledCatalog(catalog.client)


@pytest.fixture
def make(tmp_path, tiled):
    """Make conveyors of one spool, each as a process would that has just begun."""
    ledgers = []

    def conveyor(**options):
        ledgers.append(Ledger(tmp_path))
        return Conveyor(ledgers[-1], tiled, Problems(), **options)

    yield conveyor
    for ledger in ledgers:
        ledger.close()


def move_all(conveyor):
    """Hand on all that waits; the runs that can be read."""
    more, readable = True, []
    while more:
        some, more = conveyor.move()
        readable += some
    return [entry.uid for entry in readable]


def states(directory, tiled):
    """How far each run has come, and why it is parked."""
    with closing(Ledger(directory)) as ledger:
        entries = ledger.entries(ledger.register_catalog(tiled.uri))
        return {entry.uid: (entry.state, entry.reason) for entry in entries}


def test_delivers(tmp_path, tiled, catalog, make):
    """Runs come out as they went in, and are said to be readable once."""
    runs = [run_documents(5) for _ in range(3)]
    put(tmp_path, *(docs for _, docs in runs))
    conveyor = make()
    assert conveyor.has_news
    assert move_all(conveyor) == [uid for uid, _ in runs]
    assert not conveyor.has_news
    assert move_all(conveyor) == []
    for uid, docs in runs:
        assert list(documents(catalog.client[uid])) == docs
        assert states(tmp_path, tiled)[uid] == ("delivered", "")


def test_interrupted_anywhere(tmp_path, tiled, catalog, make, monkeypatch):
    """However often it is begun anew in the middle, with other batches each time, each document arrives once."""
    uid, docs = run_documents(40)
    with closing(Store(tmp_path)) as store:
        for number, pair in enumerate(docs):
            store.append(*pair)
            if number % 7 == 3:
                monkeypatch.setattr("bluesky_filestore.delivery.conveyor._FEWEST_AT_ONCE", 3 + number)
                make().move()
    assert move_all(make()) == [uid]
    assert list(documents(catalog.client[uid])) == docs


def test_bulky_documents(tmp_path, tiled, catalog, make, monkeypatch):
    """Of very large documents only some are taken at once."""
    monkeypatch.setattr("bluesky_filestore.delivery.conveyor._MOST_BYTES_AT_ONCE", 1000)
    uid, docs = run_documents(40)
    put(tmp_path, docs)
    conveyor = make()
    moves = 1
    while conveyor.move()[1]:
        moves += 1
    assert moves > 3
    assert list(documents(catalog.client[uid])) == docs


def test_interleaved_and_two_writers(tmp_path, tiled, catalog, make):
    """Runs of several writers, and the same run from two of them, are delivered each once."""
    (first, docs), (second, others) = run_documents(4), run_documents(4)
    with closing(Store(tmp_path)) as one, closing(Store(tmp_path)) as other:
        for pair, another in zip(docs, others, strict=True):
            one.append(*pair)
            other.append(*another)
            other.append(*pair)
    move_all(make())
    assert list(documents(catalog.client[first])) == docs
    assert list(documents(catalog.client[second])) == others
    with closing(Ledger(tmp_path)) as ledger:
        assert [entry.state for entry in ledger.entries(ledger.register_catalog(tiled.uri))] == ["delivered"] * 3


def test_cut_short(tmp_path, tiled, catalog, make):
    """A run whose writer died is closed with a note; one whose writer lives is not."""
    dead = put_and_die(tmp_path)
    uid, docs = run_documents(2)
    with closing(Store(tmp_path)) as store:
        for pair in docs[:-1]:
            store.append(*pair)
        conveyor = make()
        move_all(conveyor)
        conveyor.look_around()
        assert move_all(conveyor) == [dead]
        assert {each: state for each, (state, _) in states(tmp_path, tiled).items()} == {
            dead: "delivered",
            uid: "uploading",
        }
        assert "cut short" in catalog.client[dead].metadata["notes"][0]
        store.append(*docs[-1])
    assert move_all(conveyor) == [uid]


def test_parked_in_the_middle(tmp_path, tiled, catalog, make):
    """A run that is parked while it is delivered is left alone; asked for again, it comes whole."""
    (uid, docs), (other, more) = run_documents(4), run_documents(2)
    with closing(Store(tmp_path)) as store:
        for pair in docs[:4]:
            store.append(*pair)
        conveyor = make()
        move_all(conveyor)
        find_run([tmp_path], uid)[0].park("not wanted")
        conveyor.look_around()
        for pair in (*docs[4:], *more):
            store.append(*pair)
        assert move_all(conveyor) == [other]
        assert states(tmp_path, tiled) == {uid: ("parked", "not wanted"), other: ("delivered", "")}
        assert "stop" not in catalog.client[uid].metadata
        find_run([tmp_path], uid)[0].ask_again()
        conveyor.look_around()
        assert move_all(conveyor) == [uid]
    assert list(documents(catalog.client[uid])) == docs
    assert states(tmp_path, tiled)[uid] == ("delivered", "")


def test_forgotten_in_the_middle(tmp_path, tiled, catalog, make):
    """A run that is forgotten while it is delivered does not disturb the others."""
    (uid, docs), (other, more) = run_documents(4), run_documents(2)
    put(tmp_path, docs[:4])
    conveyor = make()
    move_all(conveyor)
    find_run([tmp_path], uid)[0].forget()
    conveyor.look_around()
    put(tmp_path, more)
    assert move_all(conveyor) == [other]
    assert states(tmp_path, tiled) == {other: ("delivered", "")}


@pytest.mark.parametrize("name", ["start", "event", "stop"])
def test_document_that_cannot_be_read(tmp_path, tiled, catalog, make, name):
    """Bytes that are no document park their run, and nothing else."""
    (uid, docs), (other, more) = run_documents(3), run_documents(3)
    put(tmp_path, docs, more)
    with closing(sqlite3.connect(tmp_path / "spool.db")) as connection, connection:
        connection.execute(
            "UPDATE documents SET body = x'c1' WHERE id = (SELECT min(id) FROM documents WHERE name = ?)", (name,)
        )
    conveyor = make()
    move_all(conveyor)
    conveyor.look_around()
    move_all(conveyor)
    found = states(tmp_path, tiled)
    assert found[other] == ("delivered", "")
    assert found[uid][0] == "parked"
    assert f"{name} document cannot be read out of the spool" in found[uid][1]


def test_start_that_is_wrong(tmp_path, tiled, catalog, make):
    """A run whose start document cannot be used is parked with the reason, the next is delivered."""
    uid, docs = run_documents(2)
    put(tmp_path, [("start", {"uid": "bad one", "time": "noon", "data_groups": 7}), ("stop", {"run_start": "bad one"})])
    put(tmp_path, docs)
    move_all(make())
    assert states(tmp_path, tiled)[uid] == ("delivered", "")
    assert states(tmp_path, tiled)["bad one"][0] == "parked"


def test_a_catalog_without_its_last_writes(tmp_path, tiled, catalog, make):
    """After its server has ended a run is gone through again: rows in the middle of an array would be zeros."""
    wave = {"source": "s", "dtype": "array", "shape": [2]}
    run = event_model.compose_run()
    bundle = run.compose_descriptor(name="primary", data_keys={"wave": wave})
    docs = [("start", run.start_doc), ("descriptor", bundle.descriptor_doc)]
    for n in range(6):
        docs.append(("event", bundle.compose_event(data={"wave": [n + 1.5, 7.0]}, timestamps={"wave": 5.0})))
    docs.append(("stop", run.compose_stop()))
    with closing(Store(tmp_path)) as store:
        for pair in docs[:6]:
            store.append(*pair)
        conveyor = make()
        conveyor.move()
        conveyor.try_again()
        conveyor.move()
        stream = catalog.client[run.start_doc["uid"]].base["primary"].base
        first = stream["wave"].read()[:2]
        stream.delete_contents("wave", external_only=False)
        stream.write_array(first, key="wave")
        conveyor.begin_again()
        for pair in docs[6:]:
            store.append(*pair)
    assert move_all(conveyor) == [run.start_doc["uid"]]
    assert list(documents(catalog.client[run.start_doc["uid"]])) == docs


def test_doubts_are_written_down(tmp_path):
    """That not every answer came of a run is known to the process that goes on with it."""

    class Doubted(Applied):
        doubts = ()

        def in_doubt(self, run):
            return True

        def doubt(self, run):
            self.doubts = (*self.doubts, run)

    uid, docs = run_documents(2)
    with closing(Store(tmp_path)) as store, closing(Ledger(tmp_path)) as ledger:
        for pair in docs[:-1]:
            store.append(*pair)
        Conveyor(ledger, Doubted(), Problems()).move()
        (entry,) = ledger.entries(ledger.register_catalog(Doubted.uri))
        assert entry.reason == IN_DOUBT
        following = Doubted()
        Conveyor(ledger, following, Problems()).move()
        assert following.doubts == (uid,)


def test_nothing_is_remembered(tmp_path, tiled, make):
    """Of delivered runs nothing is left in memory that grows with their documents."""
    conveyor = make()
    with closing(Store(tmp_path)) as store:
        for _ in range(6):
            for pair in run_documents(2)[1]:
                store.append(*pair)
            move_all(conveyor)
    assert not conveyor._runs
    (lane,) = conveyor._lanes.all()
    assert not lane.runs


def test_asked_again(data_directory, tmp_path, tiled, catalog, make, monkeypatch):
    """A catalog that cannot say in the middle what it reads is asked again, and whoever waits learns why."""
    run, real, answers = SmallRun(data_directory, 1), tiled.reads, iter([False] * 5)

    def reads(mimetype):
        if next(answers, True):
            return real(mimetype)
        raise CatalogUnreachableError("nobody says")

    conveyor = make()
    conveyor.move()
    monkeypatch.setattr(tiled, "reads", reads)
    put(tmp_path, run.documents)
    for _ in range(2):
        assert conveyor.has_news
        with pytest.raises(CatalogUnreachableError, match="nobody says"):
            conveyor.move()
    assert conveyor.has_news
    assert move_all(conveyor) == [run.uid]
    run.compare(catalog.client)
