"""The legal order of documents."""

import event_model
import pytest
from document_streams import build, cases
from hypothesis import HealthCheck, given, settings

from bluesky_filestore.errors import DocumentError
from bluesky_filestore.model.frame_map import Assets
from bluesky_filestore.model.normalize import unpacked
from bluesky_filestore.model.order import REFERENCES, TRANSITIONS, RunState, Sequence
from bluesky_filestore.operations.run import announce

NUMBER = {"source": "s", "dtype": "number", "shape": []}


@pytest.fixture
def run():
    """The documents of a run with one event, by name."""
    composed = event_model.compose_run()
    bundle = composed.compose_descriptor(name="primary", data_keys={"x": NUMBER})
    event = bundle.compose_event(data={"x": 1.0}, timestamps={"x": 5.0})
    return {
        "start": composed.start_doc,
        "descriptor": bundle.descriptor_doc,
        "event": event,
        "stop": composed.compose_stop(),
    }


def follow(sequence, run, *names):
    """Give a sequence documents."""
    for name in names:
        assert sequence.advance(name, run[name]) == run["start"]["uid"]


def test_tables():
    """Each document that belongs to a run has a place in the order, and refers to what the tables know."""
    names = {name for names in TRANSITIONS.values() for name in names}
    assert names == {"start", "descriptor", "event", "stream_datum", "stop"}
    announced = {"resource", "stream_resource", "datum"}
    assert {row.document for row in REFERENCES} | {row.target for row in REFERENCES} <= names | announced


def test_whole_run(run):
    """A run is unknown, then open, then stopped."""
    sequence, uid = Sequence(Assets()), run["start"]["uid"]
    assert sequence.state(uid) is RunState.UNKNOWN
    follow(sequence, run, "start", "descriptor", "event")
    assert (sequence.state(uid), sequence.open_runs) == (RunState.OPEN, (uid,))
    follow(sequence, run, "stop")
    assert (sequence.state(uid), sequence.open_runs) == (RunState.STOPPED, ())


@pytest.mark.parametrize(
    ("before", "name", "words"),
    [
        ("", "descriptor", r"descriptor '.*' refers to the start '.*', which was never received; it is left out"),
        ("", "stop", r"stop '.*' refers to the start '.*', which was never received"),
        ("start", "event", r"event '.*' refers to the descriptor '.*', which was never received or whose run is"),
        ("start", "start", r"start '.*' came twice: its run is open; the second is left out"),
        ("start stop", "start", r"start '.*' came twice: its run is stopped"),
        ("start stop", "stop", r"stop '.*' refers to the start '.*', whose run is stopped"),
        ("start stop", "descriptor", r"descriptor '.*' refers to the start '.*', whose run is stopped"),
        ("start descriptor stop", "event", r"event '.*' refers to the descriptor .* or whose run is stopped"),
        ("start descriptor", "descriptor", r"descriptor '.*' came twice; the second is left out"),
        ("start descriptor event", "event", r"event '.*' came twice; the second is left out"),
    ],
)
def test_out_of_order(run, before, name, words):
    """What comes too early, too late or twice is refused with its uid and the reason."""
    sequence = Sequence(Assets())
    follow(sequence, run, *before.split())
    with pytest.raises(DocumentError, match=words):
        sequence.advance(name, run[name])


def test_what_documents_lack(run):
    """A document without its uid or its reference is refused, and so is one that nobody knows."""
    sequence = Sequence(Assets())
    follow(sequence, run, "start", "descriptor")
    with pytest.raises(DocumentError, match=r"event 'e' has no descriptor; expected a text"):
        sequence.advance("event", {"uid": "e"})
    with pytest.raises(DocumentError, match=r"event None has uid None; expected a text"):
        sequence.advance("event", {**run["event"], "uid": None})
    with pytest.raises(DocumentError, match=r"there is no document 'evnt'; '.*' is left out"):
        sequence.advance("evnt", run["event"])


def test_stream_datum_before_its_resource(run):
    """A stream_datum needs its stream_resource, known or known to be unusable."""
    assets = Assets()
    sequence = Sequence(assets)
    follow(sequence, run, "start", "descriptor")
    doc = {"uid": "d", "descriptor": run["descriptor"]["uid"], "stream_resource": "r"}
    with pytest.raises(DocumentError, match=r"stream_datum 'd' refers to the stream_resource 'r', which was never rec"):
        sequence.advance("stream_datum", doc)
    assets.add_unusable("r", "nobody reads it")
    assert sequence.advance("stream_datum", doc) == run["start"]["uid"]


def test_whom_a_document_is_about(run):
    """A document that does not say is about the only open run, if there is one."""
    sequence, uid = Sequence(Assets()), run["start"]["uid"]
    assert sequence.run_of("datum", {}) == ""
    follow(sequence, run, "start", "descriptor")
    assert {sequence.run_of(name, doc) for name, doc in run.items()} == {uid}
    assert sequence.run_of("datum", None) == uid
    assert sequence.run_of("stop", {"run_start": "other"}) == ""
    sequence.advance("start", event_model.compose_run().start_doc)
    assert sequence.run_of("datum", {}) == ""


def test_events_are_not_all_remembered(run):
    """Memory is bounded: of a long run only the last events are known."""
    sequence = Sequence(Assets())
    follow(sequence, run, "start", "descriptor", "event")
    for number in range(10_000):
        sequence.advance("event", {**run["event"], "uid": str(number)})
    follow(sequence, run, "event")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases())
def test_what_is_legal_passes(tmp_path_factory, case):
    """Nothing of what the RunEngine may emit is refused."""
    assets = Assets()
    sequence = Sequence(assets)
    for name, doc in build(case, tmp_path_factory.mktemp("legal") / "run").documents:
        for single_name, single in unpacked(name, doc):
            if single_name in ("resource", "stream_resource", "datum"):
                announce(single_name, single, assets)
            else:
                sequence.advance(single_name, single)
