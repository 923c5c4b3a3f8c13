"""Documents of a source go into the spool each once, whatever the source repeats, loses or begins with."""

import json
import random
from contextlib import closing

import event_model
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import SmallRun
from spooled import NUMBER, Applied, run_documents, states

from bluesky_filestore.delivery.conveyor import Conveyor
from bluesky_filestore.delivery.problems import Problems
from bluesky_filestore.delivery.run_delivery import CUT_SHORT
from bluesky_filestore.errors import SpoolError
from bluesky_filestore.sources import intake as intake_module
from bluesky_filestore.sources.consuming import consume
from bluesky_filestore.sources.intake import ASIDE, ASIDE_BEFORE, Intake
from bluesky_filestore.spool import Ledger, Store
from bluesky_filestore.spool.encoding import decode, encode
from bluesky_filestore.spool.pruning import forget
from bluesky_filestore.spool.spooled_run import find_run

SOURCE = "kafka://broker/topic"


def spooled(directory):
    """What is in a spool, in its order: (uid of the run, name, uid) of each document."""
    with closing(Ledger(directory)) as ledger:
        uids = {entry.number: entry.uid for entry in ledger.entries(0)}
        documents = [(each.run, each.name, each.doc()) for each in ledger.documents_after(0, 10**6, 2**40)]
    return [(uids.get(run), name, doc.get("uid") or doc.get("datum_id")) for run, name, doc in documents]


def expected(*runs):
    """The same of documents."""
    return [
        (documents[0][1]["uid"], name, doc.get("uid") or doc.get("datum_id"))
        for documents in runs
        for name, doc in documents
    ]


def poured(directory, documents, at_once=1):
    """Put documents into a spool, some at once, as a process of its own would; what became of them."""
    with closing(Store(directory, source=SOURCE)) as store, Intake(store) as intake:
        for begin in range(0, len(documents), at_once):
            intake.take(documents[begin : begin + at_once])
        return intake.repeated, intake.aside, intake.gaps


def interleaved(runs, seed):
    """Documents of runs, each in its order, as several RunEngines would mix them."""
    chosen = random.Random(seed)
    left = [list(documents) for documents in runs]
    while any(left):
        yield chosen.choice([documents for documents in left if documents]).pop(0)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_each_once(tmp_path_factory, data):
    """However often processes die, and however far back the source goes then, the spool has each document once."""
    directory, seed = tmp_path_factory.mktemp("spool"), data.draw(st.integers(0, 100))
    runs = [SmallRun(directory, number, events=3).documents for number in range(2)] + [run_documents(2)[1]]
    documents = list(interleaved(runs, seed))
    begin, came = 0, 0
    while came < len(documents):
        end = data.draw(st.integers(came + 1, len(documents)))
        _, aside, gaps = poured(directory, documents[begin:end], data.draw(st.integers(1, 20)))
        assert (aside, gaps) == (0, [])
        came = end
        # What was not acknowledged comes again.
        begin = data.draw(st.integers(0, end))
    found = spooled(directory)
    assert sorted(found) == sorted(expected(*runs))
    for documents in runs:
        uid = documents[0][1]["uid"]
        assert [each for each in found if each[0] == uid] == expected(documents)
    with closing(Ledger(directory)) as ledger:
        assert len(ledger.entries(0)) == len({entry.producer for entry in ledger.entries(0)}) * 3
        assert all(entry.stopped for entry in ledger.entries(0))


def test_in_the_middle_of_a_run(tmp_path, caplog):
    """Documents of a run that began before anybody listened are set aside, said once, and disturb no other run."""
    early = SmallRun(tmp_path, 1, events=4).documents
    late = run_documents(3)[1]
    repeated, aside, gaps = poured(tmp_path, [*early[6:9], *late[:2], *early[9:], *late[2:]])
    assert spooled(tmp_path)[-len(late) :] == expected(late)
    assert not [each for each in spooled(tmp_path) if each[1] in ("event", "stop") and each[0] is None]
    kept = [json.loads(line) for line in (tmp_path / ASIDE).read_text().splitlines()]
    assert [name for name, _ in kept].count("event") == 3
    assert kept[-1] == ["stop", early[-1][1]]
    assert (repeated, aside, gaps) == (0, len(kept), [])
    with closing(Ledger(tmp_path)) as ledger:
        assert ledger.strays() == 0
    assert len([record for record in caplog.records if "set aside" in record.getMessage()]) <= 3


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_out_of_order(tmp_path_factory, data):
    """However documents of a run come before its stop, each is in the spool once, behind what it refers to."""
    directory = tmp_path_factory.mktemp("spool")
    *some, stop = SmallRun(directory, 1, events=3).documents
    came = [*data.draw(st.permutations(some)), stop]
    _, aside, _ = poured(directory, came, data.draw(st.integers(1, 20)))
    with closing(Ledger(directory)) as ledger:
        found = [(each.name, each.doc()) for each in ledger.documents_after(0, 10**6, 2**40)]
        (entry,) = ledger.entries(0)
    assert aside == 0
    assert entry.stopped is not None
    uids = [doc.get("datum_id") or doc["uid"] for _, doc in found]
    assert sorted(uids) == sorted(doc.get("datum_id") or doc["uid"] for _, doc in came)
    for place, (name, doc) in enumerate(found):
        # A resource may belong to a staging that began before the run.
        of = {"event": "descriptor", "datum": "resource", "descriptor": "run_start", "stop": "run_start"}.get(name)
        assert of is None or doc[of] in uids[:place]


def test_after_its_stop(tmp_path, caplog):
    """An event that comes after the stop of its run is set aside and said, and no repetition; those that are are."""
    documents = gappy("primary 3")
    late = "event", documents[5][1] | {"uid": "late", "seq_num": 3}
    assert poured(tmp_path, [*documents, late, *documents[3:6]])[:2] == (3, 1)
    assert json.loads((tmp_path / ASIDE).read_text())[1]["uid"] == "late"
    assert "came of a run whose stop had come" in caplog.text


def test_events_out_of_order_are_no_further_gaps(tmp_path):
    """What was missed and comes after all is said to have come, once, in the catalog as well."""
    documents = run_documents(6)[1]
    documents[2:8] = [documents[2 + number] for number in (1, 4, 2, 0, 3, 5)]
    _, _, gaps = poured(tmp_path, documents)
    said = [gap.partition(": ")[2].replace(" of stream 'primary'", "") for gap in gaps]
    assert said == [
        "Event 1 did not come.",
        "Events 3 to 4 did not come.",
        "Event 3 came after all, later than others.",
        "Event 1 came after all, later than others.",
        "Event 4 came after all, later than others.",
    ]


def test_few_of_many_gaps_are_listed(tmp_path, monkeypatch):
    """A service that runs for ever keeps the last of what it said, and counts all of it."""
    monkeypatch.setattr(intake_module, "_MOST_LISTED", 3)
    documents = run_documents(20)[1]
    with closing(Store(tmp_path, source=SOURCE)) as store, Intake(store) as intake:
        intake.take([each for each in documents if each[1].get("seq_num", 1) % 2])
        assert (intake.lacking, len(intake.gaps)) == (10, 3)
        assert "Event 20 " in intake.gaps[-1]


def test_descriptor_tells_the_run(tmp_path, caplog):
    """Events of a run that is set aside are not said apart from it if its descriptor came."""
    poured(tmp_path, run_documents(5)[1][1:])
    assert len(caplog.records) == 1
    assert "set aside" in caplog.text


def gappy(*left_out, pages=False, streams=False):
    """The documents of a run of two streams, without some, by their names."""
    run = event_model.compose_run()
    bundles = {name: run.compose_descriptor(name=name, data_keys={"x": NUMBER}) for name in ("primary", "other")}
    documents = {"start": ("start", run.start_doc)}
    for name, bundle in bundles.items():
        documents[f"{name} descriptor"] = "descriptor", bundle.descriptor_doc
    for number in range(1, 7):
        for name, bundle in bundles.items():
            event = bundle.compose_event(data={"x": 1.0}, timestamps={"x": 1.0})
            document = ("event_page", event_model.pack_event_page(event)) if pages else ("event", event)
            documents[f"{name} {number}"] = document
    if streams:
        for number in range(1, 7):
            datum = {
                "uid": f"d/{number}",
                "stream_resource": "d",
                "descriptor": bundles["primary"].descriptor_doc["uid"],
                "seq_nums": {"start": number, "stop": number + 1},
                "indices": {"start": number - 1, "stop": number},
            }
            documents[f"primary {number}"] = "stream_datum", datum
    documents["stop"] = "stop", run.compose_stop()
    return [document for name, document in documents.items() if name not in left_out]


@pytest.mark.parametrize("kind", [{}, {"pages": True}, {"streams": True}])
@pytest.mark.parametrize(
    ("left_out", "said"),
    [
        ((), []),
        (("primary 1",), ["Event 1 of stream 'primary'"]),
        (("primary 2", "primary 3"), ["Events 2 to 3 of stream 'primary'"]),
        (("primary 6",), ["Event 6 of stream 'primary'"]),
        (("primary 2", "other 5"), ["Event 2 of stream 'primary'", "Event 5 of stream 'other'"]),
        ([f"primary {number}" for number in range(1, 7)], ["Events 1 to 6 of stream 'primary'"]),
    ],
)
def test_gaps(tmp_path, kind, left_out, said):
    """What did not come is said with its stream and its numbers, and the rest is there."""
    documents = gappy(*left_out, **kind)
    _, _, gaps = poured(tmp_path, documents)
    said = [f"{words} did not come." for words in said]
    assert [gap.partition(": ")[2] for gap in gaps] == said
    with closing(Ledger(tmp_path)) as ledger:
        assert [ledger.notes(entry.number) for entry in ledger.entries(0)] == [said]
    assert len(spooled(tmp_path)) == len(documents)


def test_a_descriptor_that_did_not_come(tmp_path):
    """A stream that the stop counts and nothing described is said; its events are set aside."""
    lost = [f"other {number}" for number in range(1, 7)]
    _, aside, gaps = poured(tmp_path, gappy("other descriptor", *lost[:2]))
    assert aside == 4
    assert len(gaps) == 1
    assert "The descriptor of stream 'other' with 6 events did not come" in gaps[0]


@pytest.mark.parametrize("at_once", [1, 100])
@pytest.mark.parametrize("is_cut_short", [False, True])
def test_gaps_are_noted_in_the_catalog(tmp_path, at_once, is_cut_short):
    """Whoever delivers a run writes what did not come of it among its notes, once, however it came to its end."""
    documents = gappy("primary 2", "other 5", "other 6")
    half = documents[:-4] if is_cut_short else documents
    poured(tmp_path, half[:7], at_once)
    poured(tmp_path, half[3:], at_once)
    with closing(Store(tmp_path, source=SOURCE)) as store:
        store.end_source()
    catalog, problems = Applied(), Problems()
    with closing(Ledger(tmp_path)) as ledger:
        conveyor = Conveyor(ledger, catalog, problems, since=0)
        conveyor.move()
        conveyor.look_around()
        conveyor.move()
        # It is no problem of the delivery's.
        assert set(states(tmp_path, catalog.uri).values()) == {"delivered"}
        assert problems.all() == ()
        (uid,) = catalog.closed()
        expected = ["Event 2 of stream 'primary' did not come."]
        expected += [CUT_SHORT] if is_cut_short else ["Events 5 to 6 of stream 'other' did not come."]
        assert sorted(catalog.closed()[uid]["notes"]) == sorted(expected)
        (entry,) = ledger.entries(0)
        forget(ledger, entry.number)
        assert ledger.notes(entry.number) == []


def test_a_storm_of_gaps(tmp_path):
    """Of very many gaps a hundred are noted, and that there are more."""
    documents = run_documents(250)[1]
    _, _, gaps = poured(tmp_path, [each for each in documents if each[1].get("seq_num", 1) % 2], 500)
    with closing(Ledger(tmp_path)) as ledger:
        notes = ledger.notes(1)
    assert (len(gaps), len(notes)) == (125, 101)
    assert notes[0] == "Event 2 of stream 'primary' did not come."
    assert "the log of whoever took it has all" in notes[-1]


def test_set_aside_is_bounded(tmp_path, monkeypatch, caplog):
    """Of what is set aside the last is kept, which is said; whatever text is in it."""
    monkeypatch.setattr(intake_module, "_MOST_ASIDE", 2000)
    strays = [("event", {"uid": f"e{n}", "descriptor": "none", "text": "\udcff \u00e4"}) for n in range(200)]
    assert poured(tmp_path, strays, 10) == (0, 200, [])
    kept = [tmp_path / ASIDE_BEFORE, tmp_path / ASIDE]
    assert all(path.stat().st_size < 2200 for path in kept)
    lines = [json.loads(line) for path in kept for line in path.read_text("utf-8").splitlines()]
    assert lines == [[name, doc] for name, doc in strays[-len(lines) :]]
    assert "what that held is gone" in caplog.text


def test_what_waits_is_bounded(tmp_path, monkeypatch):
    """What is set aside is kept in memory up to a size; what was let go is missing, and said to be, as any other."""
    monkeypatch.setattr(intake_module, "_MOST_WAITING", 2000)
    start, descriptor, *events, stop = run_documents(40)[1]
    _, aside, gaps = poured(tmp_path, [start, *events, descriptor, stop])
    assert 0 < aside <= len(events)
    assert len(spooled(tmp_path)) == 3 + len(events) - aside
    assert [gap.partition(": ")[2] for gap in gaps] == [f"Events 1 to {aside} of stream 'primary' did not come."]


def test_nothing_can_be_set_aside(tmp_path, caplog):
    """A file that cannot be written to keeps no run out of the spool."""
    documents = run_documents(2)[1]
    (tmp_path / ASIDE).mkdir()
    assert poured(tmp_path, [("event", {"uid": "e", "descriptor": "none"}), *documents]) == (0, 1, [])
    assert spooled(tmp_path) == expected(documents)
    assert "it is lost" in caplog.text


def test_a_stop_that_never_comes(tmp_path):
    """A run of a source whose stop never comes can be parked at any time, and forgotten when nobody passes it on."""
    documents = run_documents(3)[1]
    uid = documents[0][1]["uid"]
    with closing(Store(tmp_path, source=SOURCE)) as store, Intake(store) as intake:
        intake.take(documents[:3])
        with closing(Ledger(tmp_path)) as ledger:
            ledger.register_catalog(Applied.uri)
        (run,) = find_run([tmp_path], uid)
        assert run.park("nobody ends it") == 1
        with pytest.raises(SpoolError, match="or the process that puts it here"):
            run.forget()
    run.forget()
    assert poured(tmp_path, documents[3:]) == (0, 3, [])
    with closing(Ledger(tmp_path)) as ledger:
        assert ledger.entries(0) == []
    # From its start it is a run as any other.
    poured(tmp_path, documents)
    assert spooled(tmp_path)[-len(documents) :] == expected(documents)


def test_rewinds_are_no_gaps(tmp_path):
    """A plan that was rewound takes points again under their numbers."""
    documents = run_documents(6)[1]
    for number, (name, doc) in zip([1, 2, 3, 2, 3, 4], documents[2:8], strict=True):
        assert name == "event"
        doc["seq_num"] = number
    documents[-1][1]["num_events"] = {"primary": 4}
    assert poured(tmp_path, documents) == (0, 0, [])


def test_an_archive_again(tmp_path):
    """What comes of runs that the spool has to their end is known again by whoever comes later, datums as well."""
    documents = [pair for number in range(2) for pair in SmallRun(tmp_path, number, events=3).documents]
    poured(tmp_path, documents)
    assert poured(tmp_path, documents) == (len(documents), 0, [])
    # A staging that went on: what is new of it is put in.
    (resource,) = [doc for name, doc in documents[:4] if name == "resource"]
    new = "datum", {"datum_id": "new", "resource": resource["uid"], "datum_kwargs": {}}
    assert poured(tmp_path, [*documents, new]) == (len(documents), 0, [])
    assert [each[2] for each in spooled(tmp_path)].count("new") == 1


def test_runs_that_are_there(tmp_path):
    """A run that another writer has put into the spool to its end is not put there again."""
    documents = run_documents(3)[1]
    with closing(Store(tmp_path)) as store:
        for name, doc in documents:
            store.append(name, doc)
    assert poured(tmp_path, documents) == (len(documents), 0, [])
    assert spooled(tmp_path) == expected(documents)


def test_one_process_a_source(tmp_path):
    """Two processes that pass on what comes from the same would both put it there: the second is refused."""
    with closing(Store(tmp_path, source=SOURCE)) as first, closing(Store(tmp_path, source="other")):
        with pytest.raises(SpoolError, match=f"puts what comes from {SOURCE} into the spool"):
            Store(tmp_path, source=SOURCE)
        producer = first.producer
    with closing(Store(tmp_path, source=SOURCE)) as again:
        assert again.producer == producer


def test_runs_of_a_source_outlive_processes(tmp_path):
    """A run of a source is not cut short because the process ended that passed it on, unless the source has."""
    documents = run_documents(3)[1]
    with closing(Store(tmp_path, source=SOURCE)) as store, closing(Ledger(tmp_path)) as ledger:
        for name, doc in documents[:3]:
            store.append(name, doc)
        producer = store.producer
    with closing(Ledger(tmp_path)) as ledger:
        assert ledger.is_alive(producer)
        with closing(Store(tmp_path, source=SOURCE)) as store:
            assert store.open_runs == (documents[0][1]["uid"],)
            for name, doc in documents[3:4]:
                store.append(name, doc)
            store.end_source()
            assert ledger.is_alive(producer)
        assert not ledger.is_alive(producer)
    assert spooled(tmp_path) == expected(documents[:4])


class Given:
    """A source that gives what it was given, and remembers what was acknowledged."""

    def __init__(self, documents):
        self.name = SOURCE
        self.given = self.safe = 0
        self._documents = documents

    def documents(self):
        """Each after the other."""
        for document in self._documents:
            yield document
            self.given += document is not None

    def acknowledge(self):
        """So far."""
        self.safe = self.given


def test_acknowledged_when_safe(tmp_path, monkeypatch):
    """A source learns that it was heard when all is on the disk, and not while the disk takes nothing."""
    documents = run_documents(3)[1]
    source = Given([*documents[:3], None, *documents[3:], None])
    with closing(Store(tmp_path, source=SOURCE)) as store, Intake(store) as intake:
        failing = [True]
        sync = store.make_safe

        def make_safe():
            # Nothing is acknowledged of what is not there.
            with closing(Ledger(tmp_path)) as ledger:
                assert ledger.last_document() >= source.given
            return not failing[0] and sync()

        monkeypatch.setattr(store, "make_safe", make_safe)
        assert consume(source, store, intake, lambda: False)
        assert source.safe == 0
        failing[0] = False
        assert consume(Given([]), store, intake, lambda: False)
        again = Given(documents)
        assert consume(again, store, intake, lambda: False)
        assert again.safe == len(documents)
    assert spooled(tmp_path) == expected(documents)


def test_what_is_kept_is_as_it_came(tmp_path):
    """Values of a source's documents are kept as any writer's are."""
    documents = run_documents(1)[1]
    documents[2][1]["data"]["more"] = {"a": [1, None, "b"]}
    poured(tmp_path, documents)
    with closing(Ledger(tmp_path)) as ledger:
        assert [each.doc() for each in ledger.documents_after(0, 10, 2**20)] == [
            decode(encode(doc)) for _, doc in documents
        ]


def test_uid_that_is_no_utf8(tmp_path):
    """A run with such a uid, as JSON may have it, is taken like any other, and known when it comes again."""
    odd, uid = "r\udce9sum", r"r\udce9sum"
    runs = [run_documents(2)[1], run_documents(2, uid=odd)[1], run_documents(2)[1]]
    documents = [document for run in runs for document in run]
    assert poured(tmp_path, documents[:7]) == (0, 0, [])
    assert poured(tmp_path, documents, at_once=20) == (7, 0, [])
    assert poured(tmp_path, runs[1]) == (5, 0, [])
    assert spooled(tmp_path) == [(uid if of == odd else of, name, each) for of, name, each in expected(*runs)]
