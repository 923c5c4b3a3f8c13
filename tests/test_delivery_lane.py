"""The documents of one producer on their way to a catalog that fails at some of what is asked of it."""

from types import SimpleNamespace

import pytest
from small_runs import SmallRun
from spooled import Failing, run_documents

from bluesky_filestore.delivery import applying, health, lane, run_delivery
from bluesky_filestore.delivery.health import CatalogHealth
from bluesky_filestore.delivery.lane import Lane
from bluesky_filestore.delivery.problems import Problems
from bluesky_filestore.delivery.run_delivery import CUT_SHORT, Finding
from bluesky_filestore.delivery.settings import DeliverySettings
from bluesky_filestore.errors import (
    CatalogAccessError,
    CatalogError,
    CatalogFaultError,
    CatalogUnreachableError,
    OtherWriterError,
    RowsDifferError,
)
from bluesky_filestore.operations.operations import (
    AppendRows,
    CheckRun,
    CloseRun,
    CreateRun,
    CreateStream,
    EndStreams,
    PlaceArray,
)
from bluesky_filestore.operations.run import Run
from bluesky_filestore.spool.entries import Entry

WHOLE = [CreateRun, CreateStream, AppendRows, CloseRun, EndStreams]


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    clock = SimpleNamespace(now=100.0)
    for module in (applying, health, lane, run_delivery):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


class Going:
    """A lane, its catalog, and what is known of both."""

    def __init__(self, *, settle=5.0, park_after=0.0, **options):
        self.catalog, self.problems = Failing(), Problems()
        settings = DeliverySettings(settle=settle, park_after=park_after, reconcile=False)
        self.lane = Lane(self.catalog, self.problems, CatalogHealth(self.catalog), settings, **options)

    def take(self, uid, docs, *, number=1):
        """Expect a run, and take some of its documents."""
        run = self.lane.runs.get(uid) or self.lane.expect(Entry(number, uid, 1, 1, 1.0, None, "waiting", ""))
        for name, doc in docs:
            self.lane.hand_on(name, doc)
            run.is_handed_on = run.is_handed_on or name == "stop"
        return run

    def find(self, run):
        """What is found of a run."""
        return run.find(self.problems.loss(run.uid), is_behind=self.lane.is_behind)


@pytest.fixture
def going(clock):
    """A lane and its catalog."""
    return Going()


def test_goes(going, clock):
    """All of a run is done, and then nothing is known of it any more but whether it has ended."""
    uid, docs = run_documents(3)
    run = going.take(uid, docs)
    assert going.find(run)[0] is Finding.WAITS
    assert going.lane.write()
    assert going.catalog.kinds() == WHOLE
    assert going.find(run) == (Finding.COMPLETE, "")
    assert going.lane.runs == {uid: run}
    run.state = "delivered"
    going.lane.let_go(run)
    assert going.lane.runs == {}


def test_a_start_waits_for_other_writers(going, clock):
    """A run of which only the start is known is not made yet; with its next document, or in the end, it is."""
    uid, docs = run_documents(1)
    (other, more) = run_documents(1)
    first = going.take(uid, docs[:1])
    assert going.lane.write()
    assert going.catalog.kinds() == []
    going.take(uid, docs[1:2])
    second = going.take(other, more[:1], number=2)
    assert going.lane.write()
    assert (going.catalog.kinds(uid), going.catalog.kinds(other)) == ([CreateRun, CreateStream], [])
    assert (first.is_due, second.is_due) == (False, False)
    going.lane.cut_short(other, CUT_SHORT)
    assert going.lane.write()
    assert going.catalog.kinds(other) == [CreateRun, CloseRun, EndStreams]
    assert CUT_SHORT in going.catalog.closed()[other]["notes"]
    going.lane.cut_short(other, CUT_SHORT)
    assert not second.operations


def test_what_is_held_keeps_its_order(going, clock, tmp_path):
    """While nobody says what the server reads, documents are held; then all is done as if that had been known."""
    runs = [SmallRun(tmp_path, number, 3) for number in range(2)]
    usual = Going()
    for number, small in enumerate(runs):
        usual.take(small.uid, small.documents, number=number)
    usual.lane.write()

    going.catalog.unknown = CatalogUnreachableError("nobody says")
    delivered = [going.take(small.uid, small.documents, number=number) for number, small in enumerate(runs)]
    for _ in range(2):
        assert (going.lane.is_behind, going.lane.is_due) == (True, True)
        with pytest.raises(CatalogUnreachableError, match="nobody says"):
            going.lane.write()
    going.catalog.unknown = None
    assert going.lane.write()
    assert going.catalog.kinds() == usual.catalog.kinds()
    assert (going.lane.is_behind, going.problems.all()) == (False, ())
    assert [going.find(run)[0] for run in delivered] == [Finding.COMPLETE] * 2


def test_a_stop_without_its_start(going, clock):
    """What is wrong with it is said, and not what somebody stumbled over."""
    uid, docs = run_documents(1)
    going.take(uid, docs[-1:])
    (said,) = going.problems.all()
    assert f"refers to the start {uid!r}, which was never received" in said


def test_of_no_schema(going, clock):
    """What is not of its schema is said with its uid, or the id of a datum, and costs nothing."""
    uid, docs = run_documents(1)
    resource = {
        "uid": "r",
        "spec": "AD_HDF5",
        "root": "/",
        "resource_path": "a",
        "resource_kwargs": {},
        "path_semantics": "posix",
    }
    datum = {"datum_id": "r/0", "resource": "r", "datum_kwargs": {"point_number": 0}, "more": 1}
    start = {**docs[0][1], "data_groups": 7}
    going.take(uid, [("start", start), ("resource", resource), ("datum", datum), *docs[1:]])
    said = going.problems.all()
    assert [words.partition(" is not of its schema: ")[0] for words in said] == [f"start {uid!r}", "datum 'r/0'"]
    assert going.problems.loss(uid) == ""


def test_a_run_that_cannot_be_made_ready(going, clock, monkeypatch):
    """Whatever was overlooked in one run is told of it, and the others go on."""
    (broken, docs), (other, more) = run_documents(1), run_documents(1)
    original = Run.take

    def take(self, **options):
        if self.uid == broken:
            raise RuntimeError("overlooked")
        return original(self, **options)

    monkeypatch.setattr(Run, "take", take)
    going.take(broken, docs[:-1])
    going.take(other, more, number=2)
    assert going.lane.write()
    assert "events cannot be written: RuntimeError('overlooked')" in going.problems.loss(broken)
    assert going.catalog.kinds(other) == WHOLE


def test_fails_once(going, clock):
    """What the catalog fails at while it answers others waits, and holds up its own run alone, and is done."""
    (uid, docs), (other, more) = run_documents(1), run_documents(1)
    going.catalog.errors[CreateStream] = [CatalogFaultError("no room")]
    run = going.take(uid, docs)
    going.take(other, more, number=2)
    assert going.lane.write()
    assert (going.catalog.kinds(uid), going.catalog.kinds(other)) == ([CreateRun], WHOLE)
    assert (run.is_due, run.waits, str(run.error)) == (False, True, "no room")
    clock.now += 10.0
    assert going.lane.write()
    assert going.catalog.kinds(uid) == WHOLE
    assert (run.error, going.find(run)) == (None, (Finding.COMPLETE, ""))
    assert going.catalog.operations[-2].is_complete


def test_fails_for_too_long(going, clock):
    """What it goes on failing at is left out, with the reason; the rest is done, and said not to be complete."""
    uid, docs = run_documents(1)
    going.catalog.errors[AppendRows] = [CatalogFaultError("no room") for _ in range(3)]
    run = going.take(uid, docs)
    for _ in range(3):
        assert going.lane.write()
        clock.now += 100.0
    assert going.catalog.kinds() == [CreateRun, CreateStream, CloseRun, EndStreams]
    reason = f"AppendRows of {uid}/primary: no room"
    assert going.find(run) == (Finding.INCOMPLETE, reason)
    closing = going.catalog.operations[2]
    assert (closing.is_complete, closing.metadata["notes"]) == (False, [reason])


def test_its_end_fails(going, clock):
    """A run that lacks nothing but its end is waited for no more, and gets that when it goes."""
    uid, docs = run_documents(1)
    going.catalog.errors[CloseRun] = [CatalogFaultError("no room") for _ in range(4)]
    run = going.take(uid, docs)
    for _ in range(3):
        going.lane.write()
        clock.now += 10.0
    assert going.catalog.kinds() == [CreateRun, CreateStream, AppendRows]
    assert (run.only_end_is_left, run.waits) == (True, False)
    assert going.find(run) == (Finding.INCOMPLETE, f"CloseRun of {uid}: no room")
    run.state = "parked"
    going.lane.let_go(run)
    for _ in range(2):
        clock.now += 61.0
        assert going.lane.write()
    assert going.catalog.kinds() == WHOLE
    assert going.lane.runs == {}


def test_will_not_have_it(going, clock):
    """What the catalog refuses, or stumbles over, is left out at once, with the reason."""
    (uid, docs), (other, more) = run_documents(1), run_documents(1)
    going.catalog.errors[AppendRows] = [CatalogError("too many columns"), KeyError("overlooked")]
    going.take(uid, docs)
    going.take(other, more, number=2)
    assert going.lane.write()
    assert going.problems.loss(uid) == f"AppendRows of {uid}/primary: too many columns"
    assert going.problems.loss(other) == f"AppendRows of {other}/primary: KeyError('overlooked')"
    assert [each.is_complete for each in going.catalog.operations if isinstance(each, CloseRun)] == [False, False]


def test_of_another_writer(going, clock):
    """To a run that another writer made nothing is done, and it is parked."""
    uid, docs = run_documents(1)
    going.catalog.errors[CreateRun] = [OtherWriterError("another writer made it")]
    run = going.take(uid, docs[:3])
    assert going.lane.write()
    going.take(uid, docs[3:])
    assert going.lane.write()
    assert going.catalog.kinds() == []
    assert going.find(run) == (Finding.INCOMPLETE, f"CreateRun of {uid}: another writer made it")


@pytest.mark.parametrize(
    "error", [CatalogUnreachableError("nobody answers"), CatalogAccessError("no key")], ids=["away", "locked"]
)
def test_away(going, clock, error):
    """A catalog that is away costs no run its patience."""
    uid, docs = run_documents(1)
    run = going.take(uid, docs)
    going.catalog.away = error
    for _ in range(5):
        with pytest.raises(type(error), match=str(error)):
            going.lane.write()
        clock.now += 100.0
    assert (run.failures, len(run.operations), going.problems.all()) == (0, 5, ())
    going.catalog.away = None
    assert going.lane.write()
    assert going.catalog.kinds() == WHOLE


def test_fails_at_three_runs(going, clock):
    """Three runs at which it fails, with nothing going between, are a catalog that takes nothing."""
    going.catalog.errors[CreateRun] = [CatalogFaultError("no room") for _ in range(3)]
    for number in range(3):
        assert going.lane.write()
        clock.now += 0.1
        going.take(*run_documents(1), number=number)
    with pytest.raises(CatalogFaultError, match="no room"):
        going.lane.write()


def test_some_time(going, clock):
    """Between two operations it is looked whether the time is over."""
    uid, docs = run_documents(1)
    run = going.take(uid, docs)
    assert not going.lane.write(clock.now - 1.0)
    assert (going.catalog.kinds(), len(run.operations)) == ([], 5)
    assert going.lane.write(clock.now)


def test_other_rows(clock):
    """Of other rows than were sent the run begins again, if it may, and has given nothing up; else that is left out."""
    for may, given_up in ((True, False), (True, True), (False, False)):
        going = Going(may_begin_again=lambda _, may=may: may)
        uid, docs = run_documents(1)
        going.catalog.errors[AppendRows] = [RowsDifferError("has other rows", uid)]
        run = going.take(uid, docs)
        run.has_given_up = given_up
        if may and not given_up:
            with pytest.raises(RowsDifferError, match="has other rows"):
                going.lane.write()
            assert going.problems.all() == ()
        else:
            assert going.lane.write()
            assert going.problems.loss(uid) == f"AppendRows of {uid}/primary: has other rows"
            assert going.catalog.kinds() == [CreateRun, CreateStream, CloseRun, EndStreams]


def test_other_rows_for_an_error(going, clock):
    """Where the catalog failed at looking for its rows, that may succeed at another time."""
    uid, docs = run_documents(1)
    error = RowsDifferError("has other rows", uid)
    error.__cause__ = CatalogFaultError("no room")
    going.catalog.errors[AppendRows] = [error]
    going.take(uid, docs)
    assert going.lane.write()
    assert going.problems.all() == ()
    clock.now += 10.0
    assert going.lane.write()
    assert going.catalog.kinds() == WHOLE


def test_doubted(going, clock):
    """A run of which an answer is missing is looked at once more, two minutes after its end, and only then."""
    uid, docs = run_documents(1)
    going.catalog.doubted = {uid}
    run = going.take(uid, docs)
    going.lane.write()
    assert going.find(run)[0] is Finding.UNSETTLED
    clock.now += 119.0
    going.lane.settle()
    assert not run.operations
    clock.now += 2.0
    for _ in range(3):
        going.lane.settle()
        clock.now += 1000.0
    assert list(run.operations) == [CheckRun(uid)]
    assert going.lane.write()
    assert going.catalog.kinds() == [*WHOLE, CheckRun]
    assert going.find(run) == (Finding.COMPLETE, "")


@pytest.mark.parametrize("failures", [0, 1])
def test_doubted_when_a_file_comes(clock, tmp_path, failures):
    """What is asked of the catalog when that look is due may come late, too: two minutes are waited from then."""
    going = Going(settle=600.0, park_after=60.0)
    small, elsewhere, file = missing(tmp_path)
    going.catalog.doubted = {small.uid}
    run = going.take(small.uid, small.documents)
    going.lane.write()
    clock.now += 121.0
    elsewhere.rename(file)
    going.catalog.errors[PlaceArray] = [CatalogFaultError("504")] * failures
    done = len(going.catalog.operations)
    for _ in range(60):
        going.lane.settle()
        going.lane.write()
        clock.now += 2.0
    assert going.catalog.kinds()[done:] == [PlaceArray, CloseRun, EndStreams]
    assert going.find(run)[0] is Finding.UNSETTLED
    clock.now += 10.0
    going.lane.settle()
    going.lane.write()
    assert going.catalog.kinds()[-1] is CheckRun
    assert going.find(run) == (Finding.COMPLETE, "")


@pytest.mark.parametrize("kind", [PlaceArray, CloseRun])
def test_doubted_and_given_up(going, clock, tmp_path, kind):
    """A run that lacks something after all is not looked at again, and nobody waits for that."""
    small, elsewhere, file = missing(tmp_path)
    going.catalog.doubted = {small.uid}
    run = going.take(small.uid, small.documents)
    going.lane.write()
    assert going.find(run)[0] is Finding.UNSETTLED
    elsewhere.rename(file)
    going.catalog.errors[kind] = [CatalogFaultError("no room")] * 5
    for _ in range(10):
        going.lane.settle()
        going.lane.write()
        clock.now += 100.0
    assert CheckRun not in going.catalog.kinds()
    finding, reason = going.find(run)
    assert (finding, reason[: len(kind.__name__)], reason[-7:]) == (Finding.INCOMPLETE, kind.__name__, "no room")


@pytest.mark.parametrize(
    ("error", "failures"),
    [(CatalogError("refused"), 1), (RowsDifferError("has other rows", ""), 1), (CatalogFaultError("no room"), 3)],
)
def test_doubted_for_good(clock, error, failures):
    """A run that cannot be written again, and whose look fails, is done with: nobody waits for it for ever."""
    going = Going(may_begin_again=lambda _: False)
    uid, docs = run_documents(1)
    going.catalog.doubted = {uid}
    run = going.take(uid, docs)
    going.lane.write()
    clock.now += 121.0
    going.lane.settle()
    going.catalog.errors[CheckRun] = [error] * failures
    for _ in range(failures):
        going.lane.write()
        clock.now += 100.0
    assert not run.operations
    assert not run.is_unsettled
    assert going.find(run) == (Finding.INCOMPLETE, f"CheckRun of {uid}: {error}")


def missing(directory):
    """A run whose file is away, and its file."""
    small = SmallRun(directory, 1, 3)
    file = directory / "small 1.h5"
    return small, file.rename(directory / "elsewhere"), file


def test_a_file_that_comes(going, clock, tmp_path):
    """A file that was not there when its run ended is registered when it is."""
    small, elsewhere, file = missing(tmp_path)
    uid, docs = run_documents(1)
    run = going.take(small.uid, small.documents)
    going.take(uid, docs, number=2)
    going.lane.write()
    assert (going.find(run)[0], EndStreams in going.catalog.kinds(small.uid)) == (Finding.UNSETTLED, False)
    assert going.catalog.kinds(uid) == WHOLE
    going.lane.settle()
    assert run.settle_until is not None
    elsewhere.rename(file)
    going.lane.settle()
    going.lane.write()
    assert going.find(run) == (Finding.COMPLETE, "")
    assert going.catalog.kinds(small.uid)[-3:] == [PlaceArray, CloseRun, EndStreams]


def test_a_file_that_does_not_come(going, clock, tmp_path):
    """It is waited for no longer than it was asked for, and what is lacking is said."""
    small, *_ = missing(tmp_path)
    run = going.take(small.uid, small.documents)
    going.lane.write()
    clock.now += 6.0
    going.lane.settle()
    going.lane.write()
    finding, reason = going.find(run)
    assert finding is Finding.INCOMPLETE
    assert reason.startswith("files were still missing")
    assert going.catalog.kinds(small.uid)[-1] is EndStreams


def test_what_is_lost_at_the_end(going, clock, monkeypatch):
    """What cannot be made of a run that is cut short is told, too."""
    uid, docs = run_documents(1)
    going.take(uid, docs[:2])
    going.lane.write()
    monkeypatch.setattr(Run, "end_without_stop", lambda self, reason: self._made("rows", _overlooked))
    going.lane.cut_short(uid, CUT_SHORT)
    assert going.problems.loss(uid) == "rows cannot be written: RuntimeError('overlooked')"


def test_what_comes_after_a_run_was_cut_short(going):
    """What its writer puts in after all, who was taken for dead, is left out, and that is told."""
    uid, docs = run_documents(2)
    run = going.take(uid, docs[:-2])
    going.lane.cut_short(uid, CUT_SHORT)
    going.take(uid, docs[-2:])
    going.lane.write()
    assert run.stop == {}
    assert f"event {docs[-2][1]['uid']!r} is left out: its run was closed before it came" in going.problems.of(uid)[0]
    assert going.catalog.kinds().count(AppendRows) == 1


def _overlooked():
    raise RuntimeError("overlooked")


def test_notes(clock):
    """What is noted of a run in the spool, and its problems, are said at its end."""
    going = Going(notes_of=lambda number: [f"noted of {number}"])
    uid, docs = run_documents(1)
    going.take(uid, docs, number=7)
    going.problems.add(uid, "odd", lost=False)
    going.lane.write()
    assert going.catalog.closed()[uid]["notes"] == ["noted of 7", "odd"]
