"""What becomes of runs, and of the lanes that they go through, with a catalog that fails as it is told."""

import time
from contextlib import closing
from types import SimpleNamespace

import pytest
from small_runs import SmallRun
from spooled import Failing, put, run_documents

from bluesky_filestore.delivery import applying, health, lane, run_delivery
from bluesky_filestore.delivery import conveyor as conveyor_module
from bluesky_filestore.delivery import problems as problems_module
from bluesky_filestore.delivery.conveyor import Conveyor
from bluesky_filestore.delivery.health import CatalogHealth
from bluesky_filestore.delivery.problems import Problems
from bluesky_filestore.delivery.run_delivery import CUT_SHORT, IN_DOUBT, STOP_UNUSABLE
from bluesky_filestore.delivery.settings import DeliverySettings
from bluesky_filestore.errors import CatalogError, CatalogFaultError, CatalogUnreachableError, RowsDifferError
from bluesky_filestore.operations.operations import (
    AppendRows,
    CloseRun,
    CreateRun,
    CreateStream,
    EndStreams,
    InsertDocument,
    PlaceArray,
)
from bluesky_filestore.spool import Ledger, Store
from bluesky_filestore.spool import states as states_module
from bluesky_filestore.spool.entries import with_doubt
from bluesky_filestore.spool.spooled_run import find_run

WHOLE = [CreateRun, CreateStream, AppendRows, CloseRun, EndStreams]
SETTINGS = DeliverySettings(settle=5.0, park_after=0.0, reconcile=False)


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    clock = SimpleNamespace(now=100.0)
    for module in (conveyor_module, applying, health, lane, run_delivery):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now, time=time.time))
    return clock


@pytest.fixture
def catalog():
    """A catalog."""
    return Failing()


@pytest.fixture
def ledger(tmp_path):
    """The ledger of a spool."""
    with closing(Ledger(tmp_path)) as ours:
        yield ours


@pytest.fixture
def conveyor(ledger, catalog, clock):
    """What delivers from the one to the other."""
    return Conveyor(ledger, catalog, Problems(), settings=SETTINGS)


def states(ledger, catalog):
    """How far each run has come, by uid."""
    return {entry.uid: entry.state for entry in ledger.entries(ledger.register_catalog(catalog.uri))}


def table(catalog, uid):
    """The rows that a run's table was given, by their number; what came again has to be the same."""
    rows = {}
    for each in catalog.operations:
        if isinstance(each, AppendRows) and each.run == uid:
            for place, value in enumerate(each.columns["x"]):
                assert rows.setdefault(each.first_row + place, value) == value
    return [rows[number] for number in sorted(rows)]


def test_few_and_many_at_once(conveyor, ledger, monkeypatch):
    """Whoever is behind takes many documents at once, whoever is not but few."""
    monkeypatch.setattr(conveyor_module, "_FEWEST_AT_ONCE", 3)
    monkeypatch.setattr(conveyor_module, "_MOST_AT_ONCE", 5)
    conveyor._at_once = 3
    cursors = []
    for events in (8, 1):
        put(ledger.directory, run_documents(events)[1])
        more = True
        while more:
            more = conveyor.move()[1]
            cursors.append(conveyor._cursor)
    assert cursors == [3, 8, 11, 14, 15]


def test_so_many_bytes_at_once(conveyor, ledger, monkeypatch):
    """Where as many bytes were taken as are at once, nobody says that these were all."""
    put(ledger.directory, run_documents(1)[1])
    size = sum(document.size for document in ledger.documents_after(0, 3, 10**6))
    monkeypatch.setattr(conveyor_module, "_MOST_BYTES_AT_ONCE", size)
    assert conveyor.move() == ([], True)
    assert conveyor._cursor == 3
    assert not conveyor.move()[1]


def test_answers_are_heard(ledger, catalog, clock):
    """What the catalog answers to the delivery is known to whoever else listens for it."""
    known = CatalogHealth(catalog)
    put(ledger.directory, run_documents(1)[1])
    Conveyor(ledger, catalog, Problems(), known, SETTINGS).move()
    assert known.heard == clock.now


def test_a_catalog_of_documents(ledger, catalog, clock):
    """One that takes documents is given these, each as it came."""
    catalog.takes_documents = True
    uid, docs = run_documents(2)
    put(ledger.directory, docs)
    Conveyor(ledger, catalog, Problems(), settings=SETTINGS).move()
    inserted = [(each.name, each.document) for each in catalog.operations if isinstance(each, InsertDocument)]
    assert inserted == docs
    assert states(ledger, catalog) == {uid: "delivered"}


def test_since(ledger, catalog, clock):
    """Runs that are delivered are not looked at, and documents of none from where it is said."""
    (first, docs), (second, more) = run_documents(1), run_documents(1)
    put(ledger.directory, docs)
    Conveyor(ledger, catalog, Problems(), settings=SETTINGS).move()
    put(ledger.directory, more)
    again = Failing()
    later = Conveyor(ledger, again, Problems(), settings=SETTINGS, since=2)
    later.move()
    assert (again.kinds(first), again.kinds(second)) == ([], WHOLE)
    assert states(ledger, again) == {first: "delivered", second: "delivered"}


def test_a_writer_that_died(conveyor, ledger, catalog, monkeypatch):
    """Its run is cut short when all of its documents are handed on, and not before; its lane goes with it."""
    monkeypatch.setattr(conveyor_module, "_FEWEST_AT_ONCE", 3)
    conveyor._at_once = 3
    uid, docs = run_documents(5)
    put(ledger.directory, docs[:-1])
    assert conveyor.move() == ([], True)
    conveyor.look_around()
    while conveyor.move()[1]:
        conveyor.look_around()
    conveyor.look_around()
    assert conveyor.has_news
    assert [entry.uid for entry in conveyor.move()[0]] == [uid]
    assert table(catalog, uid) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert catalog.closed()[uid]["notes"] == [CUT_SHORT]
    assert len(conveyor._lanes.all()) == 1
    conveyor.look_around()
    assert (conveyor._lanes.all(), conveyor.has_news) == ([], False)


def test_a_writer_that_lives(conveyor, ledger, catalog):
    """Its lane stays, and of a run that was begun again nothing does when that is delivered."""
    uid, docs = run_documents(3)
    with closing(Store(ledger.directory)) as store:
        for pair in docs[:4]:
            store.append(*pair)
        conveyor.move()
        conveyor.begin_again()
        conveyor.look_around()
        assert len(conveyor._lanes.all()) == 2
        for pair in docs[4:]:
            store.append(*pair)
        conveyor.move()
        assert states(ledger, catalog) == {uid: "delivered"}
        assert catalog.kinds(uid).count(CreateRun) == 2
        assert table(catalog, uid) == [0.0, 1.0, 2.0]
        conveyor.look_around()
        (left,) = conveyor._lanes.all()
        assert not left.runs


def test_a_stop_that_is_unusable(conveyor, ledger, catalog):
    """Its run is closed without it, and parked."""
    uid, docs = run_documents(2)
    put(ledger.directory, [*docs[:-1], ("stop", {"run_start": uid})])
    assert [entry.uid for entry in conveyor.move()[0]] == [uid]
    assert states(ledger, catalog) == {uid: "parked"}
    assert table(catalog, uid) == [0.0, 1.0]
    assert catalog.closed()[uid]["notes"][0] == STOP_UNUSABLE


@pytest.mark.parametrize("whose", ["nobody", "the first"])
def test_announced_by_others(conveyor, ledger, catalog, tmp_path, whose):
    """A run may refer to files that were announced without a run, or by an earlier one that goes its own way."""
    (first, begun), run = run_documents(3), SmallRun(tmp_path, 2)
    at = [name for name, _ in run.documents].index("resource")
    announced = {**run.documents[at][1], "run_start": first}
    if whose == "nobody":
        del announced["run_start"]
    catalog.errors[AppendRows] = [RowsDifferError("other rows", first)]
    with closing(Store(tmp_path)) as store:
        for document in begun[:-1]:
            store.append(*document)
        conveyor.move()
        assert conveyor._lanes.own
        for document in [("resource", announced), *run.documents[:at], *run.documents[at + 1 :], begun[-1]]:
            store.append(*document)
        conveyor.move()
    assert any(isinstance(each, PlaceArray) and each.run == run.uid for each in catalog.operations)


def test_patience_is_kept(conveyor, ledger, catalog, clock):
    """A run at which the catalog fails after it was begun again is not begun anew by whoever looks around."""
    uid, docs = run_documents(1)
    put(ledger.directory, docs)
    catalog.errors[CreateRun] = [CatalogFaultError("no room") for _ in range(3)]
    conveyor.move()
    conveyor.begin_again()
    conveyor.move()
    for _ in range(3):
        conveyor.look_around()
        assert conveyor.failing_runs == {uid: "no room"}
    clock.now += 10.0
    conveyor.move()
    assert conveyor.failing_runs == {uid: "no room"}
    clock.now += 10.0
    conveyor.move()
    assert (conveyor.failing_runs, states(ledger, catalog)) == ({}, {uid: "delivered"})


def test_it_lacks_its_end(conveyor, ledger, catalog, clock, tmp_path):
    """A run of which only the end fails is not among those that others wait for."""
    small = SmallRun(tmp_path, 1, 2)
    (tmp_path / "small 1.h5").unlink()
    put(ledger.directory, small.documents)
    catalog.errors[CloseRun] = [CatalogFaultError("no room") for _ in range(3)]
    for _ in range(2):
        conveyor.move()
        assert conveyor.failing_runs == {small.uid: "no room"}
        clock.now += 10.0
    conveyor.move()
    assert (conveyor.failing_runs, conveyor.unsettled_runs) == ({}, (small.uid,))
    assert states(ledger, catalog) == {small.uid: "settling"}
    # Its writer has ended, and so has the run.
    conveyor.look_around()
    assert not conveyor.has_news


@pytest.mark.parametrize(("left_out", "state"), [(0, "settling"), (1, "uploading")])
def test_begun_by_another_process(ledger, catalog, clock, tmp_path, left_out, state):
    """A run that is on its way, or settles, when its process ends is gone through again; what it has is counted once.

    That not every answer came of it is not forgotten until it is looked at again.
    """
    small = SmallRun(tmp_path, 1, 2)
    (tmp_path / "small 1.h5").unlink()
    catalog.doubted = {small.uid}
    docs = small.documents[: len(small.documents) - left_out]
    with closing(Store(ledger.directory)) as store:
        for pair in docs:
            store.append(*pair)
        for _ in range(2):
            Conveyor(ledger, catalog, Problems(), settings=SETTINGS).move()
            assert ledger.progress(small.uid) == [(catalog.uri, state, IN_DOUBT, len(docs), len(docs))]
        catalog.away = CatalogUnreachableError("nobody answers")
        with pytest.raises(CatalogUnreachableError, match="nobody answers"):
            Conveyor(ledger, catalog, Problems(), settings=SETTINGS).move()
        assert ledger.progress(small.uid)[0][2] == IN_DOUBT


def test_what_another_process_knew(ledger, catalog, clock):
    """Which runs are ours, and of which not every answer came, is known to the process that goes on with them."""
    (doubted, docs), (begun, more), (waiting, others) = (run_documents(2) for _ in range(3))
    catalog.doubted = {doubted}
    with closing(Store(ledger.directory)) as store:
        for pair in (*docs[:-1], *more[:-1]):
            store.append(*pair)
        Conveyor(ledger, catalog, Problems(), settings=SETTINGS).move()
        for pair in others:
            store.append(*pair)
        following = Failing()
        Conveyor(ledger, following, Problems(), settings=SETTINGS).move()
    assert (following.doubted, following.claimed) == ({doubted}, {doubted, begun})
    assert states(ledger, catalog) == {doubted: "uploading", begun: "uploading", waiting: "delivered"}


@pytest.mark.parametrize("came", [1, 4])
def test_asked_for_again(conveyor, ledger, catalog, came):
    """A run that is parked in the middle is left alone, and comes whole when it is asked for again."""
    (uid, docs), (other, more) = run_documents(4), run_documents(2)
    with closing(Store(ledger.directory)) as store:
        for pair in docs[:came]:
            store.append(*pair)
        conveyor.move()
        find_run([ledger.directory], uid)[0].park("not wanted")
        conveyor.look_around()
        for pair in more:
            store.append(*pair)
        assert [entry.uid for entry in conveyor.move()[0]] == [other]
        assert states(ledger, catalog) == {uid: "parked", other: "delivered"}
        assert table(catalog, uid) == [0.0, 1.0, 2.0, 3.0][: max(0, came - 2)]
        find_run([ledger.directory], uid)[0].ask_again()
        conveyor.look_around()
        for pair in docs[came:]:
            store.append(*pair)
        assert [entry.uid for entry in conveyor.move()[0]] == [uid]
    assert states(ledger, catalog)[uid] == "delivered"
    assert table(catalog, uid) == [0.0, 1.0, 2.0, 3.0]


def test_asked_for_again_before_anything_else_came(conveyor, ledger, catalog):
    """The same of a run of which no more than its start had come, which was the last document of all."""
    uid, docs = run_documents(2)
    with closing(Store(ledger.directory)) as store:
        store.append(*docs[0])
        conveyor.move()
        find_run([ledger.directory], uid)[0].park("not wanted")
        conveyor.look_around()
        find_run([ledger.directory], uid)[0].ask_again()
        conveyor.look_around()
        for pair in docs[1:]:
            store.append(*pair)
        conveyor.move()
    assert (states(ledger, catalog), table(catalog, uid)) == ({uid: "delivered"}, [0.0, 1.0])


@pytest.mark.parametrize("ended", ["delivered", "parked", "settling"])
@pytest.mark.parametrize("whose", ["ours", "another one's", "one that took over"])
def test_a_run_that_comes_once_more(ledger, catalog, clock, ended, whose):
    """It is gone through again, once, as if somebody had asked for it: it may have been removed from the catalog."""
    uid, docs = run_documents(2)
    catalog.doubted = {uid} if ended == "settling" else set()
    if ended == "parked":
        catalog.errors[AppendRows] = [CatalogError("too many columns")]
    conveyor = Conveyor(ledger, catalog, Problems(), settings=SETTINGS)
    with closing(Store(ledger.directory)) as store:
        for pair in docs:
            store.append(*pair)
        conveyor.move()
        assert states(ledger, catalog) == {uid: ended}
        if whose != "ours":
            conveyor = Conveyor(ledger, catalog, Problems(), settings=SETTINGS)
        if whose == "another one's":
            conveyor.move()
        catalog.operations.clear()
        for pair in docs[:4]:
            store.append(*pair)
        for _ in range(3):
            conveyor.move()
        assert ledger.waiting_documents(ledger.register_catalog(catalog.uri))[0] == 0
        for pair in docs[4:]:
            store.append(*pair)
        for _ in range(3):
            conveyor.move()
            conveyor.look_around()
    assert ledger.progress(uid)[0][1:] == (
        ("settling", IN_DOUBT, 10, 10) if ended == "settling" else ("delivered", "", 10, 10)
    )
    assert catalog.kinds() == WHOLE
    assert conveyor._problems.all() == ()


def test_a_run_that_comes_once_more_at_once(conveyor, ledger, catalog):
    """Before it was delivered the first time: once is enough, and nothing is wrong."""
    uid, docs = run_documents(2)
    with closing(Store(ledger.directory)) as store:
        for pair in docs * 2:
            store.append(*pair)
        for _ in range(3):
            conveyor.move()
    assert (states(ledger, catalog), table(catalog, uid)) == ({uid: "delivered"}, [0.0, 1.0])
    assert (catalog.kinds(), conveyor._problems.all()) == (WHOLE, ())


@pytest.mark.parametrize("who", ["somebody", "the delivery"])
@pytest.mark.parametrize("is_another", [False, True])
def test_doubt_survives_being_parked(ledger, catalog, clock, who, is_another):
    """Of a run that is asked for again a request of before may still come, whoever parked it or delivers it now."""
    uid, docs = run_documents(2)
    conveyor = Conveyor(ledger, catalog, Problems(), settings=SETTINGS)
    if who == "the delivery":
        catalog.errors[AppendRows] = [CatalogError("too many columns")]
    catalog.doubted = {uid}
    with closing(Store(ledger.directory)) as store:
        for pair in docs[: len(docs) if who == "the delivery" else 4]:
            store.append(*pair)
        conveyor.move()
        if who == "somebody":
            find_run([ledger.directory], uid)[0].park("not wanted")
        conveyor.look_around()
        assert states(ledger, catalog) == {uid: "parked"}
        catalog.doubted = set()
        if is_another:
            conveyor = Conveyor(ledger, catalog, Problems(), settings=SETTINGS)
            conveyor.move()
        find_run([ledger.directory], uid)[0].ask_again()
        conveyor.look_around()
        conveyor.move()
    assert catalog.doubted == {uid}
    assert ledger.progress(uid)[0][2] == IN_DOUBT


@pytest.mark.parametrize("ago", [0.0, 100.0])
def test_doubt_after_a_run_was_parked(conveyor, ledger, catalog, monkeypatch, ago):
    """A request that hangs while somebody parks its run, and is not answered, counts from then for who asks again."""
    uid, docs = run_documents(2)
    put(ledger.directory, docs)
    now = time.time()

    def apply(operation):
        if isinstance(operation, AppendRows):
            find_run([ledger.directory], uid)[0].park("it hangs")
            monkeypatch.setattr(states_module, "time", SimpleNamespace(time=lambda: now + ago))
            catalog.doubt(uid)
            raise CatalogUnreachableError("timed out")

    monkeypatch.setattr(catalog, "apply", apply)
    conveyor.move()
    for _ in range(2):
        assert ledger.progress(uid)[0][1:3] == ("parked", with_doubt("it hangs"))
        conveyor.look_around()
    monkeypatch.setattr(states_module, "time", SimpleNamespace(time=lambda: now + ago + 60.0))
    find_run([ledger.directory], uid)[0].ask_again()
    following = Failing()
    Conveyor(ledger, following, Problems(), settings=SETTINGS).move()
    assert (following.doubted, states(ledger, catalog)) == ({uid}, {uid: "settling"})


def test_doubt_of_a_run_that_gave_something_up(ledger, catalog, clock, tmp_path):
    """Of a run that lacks something, and whose files are looked for, the next process knows, too."""
    small = SmallRun(tmp_path, 1)
    (file,) = tmp_path.glob("*.h5")
    file.unlink()
    put(ledger.directory, small.documents)
    catalog.errors[AppendRows] = [CatalogError("too many columns")]
    catalog.doubted = {small.uid}
    conveyor = Conveyor(ledger, catalog, Problems(), settings=SETTINGS)
    conveyor.move()
    (entry,) = ledger.entries(ledger.register_catalog(catalog.uri))
    assert (entry.state, entry.reason, entry.why_parked) == ("settling", IN_DOUBT, "")
    following = Failing()
    Conveyor(ledger, following, Problems(), settings=SETTINGS).move()
    assert following.doubted == {small.uid}
    clock.now += 10.0
    conveyor.look_again()
    (entry,) = ledger.entries(ledger.register_catalog(catalog.uri))
    assert (entry.state, entry.is_in_doubt, entry.why_parked) == ("parked", True, entry.reason)


@pytest.mark.parametrize(("ago", "doubted"), [(60.0, True), (180.0, False)])
def test_doubt_ends(ledger, catalog, clock, monkeypatch, ago, doubted):
    """Of a run that was parked long ago nothing comes any more: nobody has to wait for that."""
    uid, docs = run_documents(2)
    put(ledger.directory, docs)
    catalog.errors[AppendRows] = [CatalogError("too many columns")]
    catalog.doubted = {uid}
    Conveyor(ledger, catalog, Problems(), settings=SETTINGS).move()
    catalog.doubted = set()
    now = time.time()
    monkeypatch.setattr("bluesky_filestore.spool.states.time", SimpleNamespace(time=lambda: now + ago))
    find_run([ledger.directory], uid)[0].ask_again()
    Conveyor(ledger, catalog, Problems(), settings=SETTINGS).move()
    assert (uid in catalog.doubted) is doubted


def test_parked_in_a_lane_of_its_own(conveyor, ledger, catalog, clock):
    """A run that goes its own way, and whose process is gone, is left alone as soon as somebody wants it so."""
    uid, docs = run_documents(2)
    put(ledger.directory, docs)
    catalog.errors[AppendRows] = [RowsDifferError("other rows", uid), CatalogFaultError("no room")]
    for _ in range(2):
        conveyor.move()
    conveyor.look_around()
    assert conveyor._lanes.own
    assert not conveyor._lanes.shared
    find_run([ledger.directory], uid)[0].park("not wanted")
    conveyor.look_around()
    clock.now += 100.0
    conveyor.move()
    assert (states(ledger, catalog), table(catalog, uid)) == ({uid: "parked"}, [])


def test_counted_once(conveyor, ledger, catalog):
    """The documents of a run that passes by again, since another one begins again, are counted once."""
    (first, docs), (second, more) = run_documents(3), run_documents(3)
    catalog.errors[AppendRows] = [RowsDifferError("other rows", first)]
    with closing(Store(ledger.directory)) as store:
        for pair in (*docs[:-1], *more[:-1]):
            store.append(*pair)
        for _ in range(3):
            conveyor.move()
        for pair in (docs[-1], more[-1]):
            store.append(*pair)
        conveyor.move()
    for uid, own in ((first, docs), (second, more)):
        assert ledger.progress(uid) == [(catalog.uri, "delivered", "", len(own), len(own))]


def test_asks_anew(ledger, catalog):
    """Whoever takes up the delivery believes nothing that the catalog remembers of before."""
    Conveyor(ledger, catalog, Problems(), settings=SETTINGS).move()
    assert catalog.forgotten == 1


def test_tried_at_once(conveyor, ledger, catalog):
    """What waits after a failure is tried at once when it is said to be time."""
    uid, docs = run_documents(1)
    put(ledger.directory, docs)
    catalog.errors[CreateRun] = [CatalogFaultError("no room")]
    conveyor.move()
    conveyor.move()
    assert conveyor.failing_runs == {uid: "no room"}
    conveyor.try_again()
    conveyor.move()
    assert states(ledger, catalog) == {uid: "delivered"}


def test_problems_of_before(conveyor, ledger, catalog):
    """What went wrong with a run before it was begun again does not count."""
    uid, docs = run_documents(2)
    with closing(Store(ledger.directory)) as store:
        for pair in docs[:-1]:
            store.append(*pair)
        catalog.errors[AppendRows] = [CatalogError("too many columns")]
        conveyor.move()
        assert conveyor._problems.loss(uid).endswith("too many columns")
        conveyor.begin_again()
        store.append(*docs[-1])
        conveyor.move()
    assert (states(ledger, catalog), table(catalog, uid)) == ({uid: "delivered"}, [0.0, 1.0])


def test_ended_runs_are_forgotten(conveyor, ledger, monkeypatch):
    """Of runs that ended only some numbers are remembered."""
    monkeypatch.setattr(conveyor_module, "_REMEMBERED", 3)
    for _ in range(8):
        put(ledger.directory, run_documents(1)[1])
        conveyor.move()
        assert len(conveyor._ended) <= 3


def test_other_rows(conveyor, ledger, catalog):
    """A table that holds other rows is made anew, at once; the other runs of its writer are delivered meanwhile."""
    (uid, docs), (other, more) = run_documents(2), run_documents(2)
    put(ledger.directory, docs, more)
    catalog.errors[AppendRows] = [RowsDifferError("has other rows", uid)]
    conveyor.move()
    assert states(ledger, catalog)[other] == "delivered"
    conveyor.move()
    assert states(ledger, catalog) == {uid: "delivered", other: "delivered"}
    assert table(catalog, uid) == [0.0, 1.0]


def test_other_rows_again_and_again(conveyor, ledger, catalog):
    """After three tries it is said, and the run is parked."""
    uid, docs = run_documents(2)
    put(ledger.directory, docs)
    catalog.errors[AppendRows] = [RowsDifferError("has other rows", uid) for _ in range(4)]
    for _ in range(4):
        conveyor.move()
    assert states(ledger, catalog) == {uid: "parked"}
    assert catalog.kinds(uid).count(CreateRun) == 4


def test_away_in_the_middle(conveyor, ledger, catalog):
    """What was handed on, and not taken, waits; nothing of it is said to be delivered."""
    uid, docs = run_documents(2)
    put(ledger.directory, docs)
    conveyor.move()
    other, more = run_documents(2)
    put(ledger.directory, more)
    catalog.away = CatalogUnreachableError("nobody answers")
    for _ in range(2):
        with pytest.raises(CatalogUnreachableError, match="nobody answers"):
            conveyor.move()
        assert states(ledger, catalog) == {uid: "delivered", other: "waiting"}
    assert ledger.waiting_documents(ledger.register_catalog(catalog.uri))[0] == len(more)
    catalog.away = None
    assert [entry.uid for entry in conveyor.move()[0]] == [other]
    assert states(ledger, catalog) == {uid: "delivered", other: "delivered"}


def test_many_that_lack_something(conveyor, ledger, catalog, monkeypatch):
    """However many runs of one round lack something, as after an outage, none of them is taken to be whole."""
    monkeypatch.setattr(problems_module, "_MOST_RUNS", 3)
    runs = dict(run_documents(2) for _ in range(12))
    for docs in runs.values():
        docs[3] = ("event", {**docs[3][1], "descriptor": "unknown"})
    put(ledger.directory, *runs.values())
    readable = []
    for _ in range(3):
        readable += conveyor.move()[0]
    assert states(ledger, catalog) == dict.fromkeys(runs, "parked")
    assert all("unknown" in entry.reason for entry in readable)
    assert [len(closed["notes"]) for closed in catalog.closed().values()] == [1] * len(runs)
