"""Documents as they should not be: no plan waits for them, nothing is uploading for ever, and what can be kept is."""

import logging
import time

import event_model
import pytest
from small_runs import plain
from spooled import run_documents, states

from bluesky_filestore import CatalogWriter, documents

TEXT = {"source": "s", "dtype": "string", "shape": []}
STOP = {"uid": "the stop", "time": 2.0, "exit_status": "success"}


def with_stop(uid, /, **entries):
    """The uid and documents of a run with another stop document."""
    _, pairs = run_documents(2, uid=uid)
    stop = {**pairs[-1][1], **entries}
    return uid, [*pairs[:-1], ("stop", {name: value for name, value in stop.items() if value is not ...})]


@pytest.mark.parametrize(
    ("uid", "pairs", "words"),
    [
        ("5", [("start", {"uid": 5, "time": 1.0}), ("stop", {**STOP, "run_start": 5})], "start document could not be"),
        ("", [("start", {"uid": "", "time": 1.0}), ("stop", {**STOP, "run_start": ""})], "start '' has uid ''"),
        ("", [("start", {"time": 1.0}), ("stop", {**STOP})], "start None has no uid"),
        ("['a']", [("start", {"uid": ["a"]}), ("stop", {**STOP, "run_start": ["a"]})], "start document could not be"),
        (*with_stop("its stop has no uid", uid=...), "stop None has no uid"),
        (*with_stop("its stop names no run", run_start=None), "has run_start None; expected a text"),
    ],
)
def test_run_that_cannot_be_delivered(catalog, tmp_path, caplog, uid, pairs, words):
    """It is parked with the reason, and its stop does not wait for what will not come; the next run is delivered."""
    later, later_pairs = run_documents(2)
    spool = tmp_path / "spool"
    began = time.monotonic()
    with caplog.at_level(logging.CRITICAL), CatalogWriter(catalog.client, spool=spool, wait_on_stop=120.0) as writer:
        for name, doc in (*pairs, *later_pairs):
            writer(name, doc)
    assert time.monotonic() - began < 60
    assert states(spool, writer.status().catalog) == {uid: "parked", later: "delivered"}
    assert words in writer.status().catalogs[0].parked[uid]


@pytest.mark.parametrize("name", ["\udcff", "a/b", "", ".."])
def test_stream_that_cannot_have_its_name(catalog, tmp_path, caplog, name):
    """Its run says so and is parked, and no other run has to wait, whatever is in the words that say it."""
    run, (later, later_pairs) = event_model.compose_run(), run_documents(2)
    bundle = run.compose_descriptor(name=name, data_keys={"text": TEXT}, validate=False)
    event = bundle.compose_event(data={"text": "a"}, timestamps={"text": 1.0}, validate=False)
    pairs = [("start", run.start_doc), ("descriptor", bundle.descriptor_doc), ("event", event)]
    with CatalogWriter(catalog.client, spool=tmp_path / "spool") as writer:
        for kind, doc in (*pairs, ("stop", run.compose_stop()), *later_pairs):
            writer(kind, doc)
    uid = run.start_doc["uid"]
    assert states(tmp_path / "spool", writer.status().catalog) == {uid: "parked", later: "delivered"}
    assert "cannot be the name of a run, stream or key" in writer.status().catalogs[0].parked[uid]
    assert "cannot be the name of a run, stream or key" in str(catalog.client[uid].metadata["notes"])
    assert caplog.text.encode()


@pytest.mark.parametrize("entry", ["uid", "run_start"])
def test_uids_that_are_no_utf8(catalog, tmp_path, entry):
    """The plan goes on, and so does the delivery."""
    (_, pairs), (later, later_pairs) = run_documents(2), run_documents(2)
    pairs = [(name, {**doc, entry: "\udcff"} if name != "event" and entry in doc else doc) for name, doc in pairs]
    with CatalogWriter(catalog.client, spool=tmp_path / "spool") as writer:
        for kind, doc in (*pairs, *later_pairs):
            writer(kind, doc)
    assert states(tmp_path / "spool", writer.status().catalog)[later] == "delivered"


@pytest.mark.parametrize("text", ["M\udcfcller", "a\0b", "\U0001f600", "'; --"])
def test_texts(catalog, tmp_path, text):
    """A text comes back as it was, be it one that UTF-8 cannot hold, such as part of a file's name."""
    run = event_model.compose_run(metadata={"sample": text, "more": [text, {"text": text}]})
    keys = {"text": {**TEXT, "source": text}, "number": {**TEXT, "dtype": "number"}}
    bundle = run.compose_descriptor(name="primary", data_keys=keys, validate=False)
    pairs = [("start", run.start_doc), ("descriptor", bundle.descriptor_doc)]
    for value in ("usual", text, None):
        data = {"text": value, "number": 1.0 if value == "usual" else value}
        event = bundle.compose_event(data=data, timestamps=dict.fromkeys(data, 5.0), validate=False)
        pairs.append(("event", event))
    pairs.append(("stop", run.compose_stop(reason=text)))
    with CatalogWriter(catalog.client, spool=tmp_path / "spool") as writer:
        for name, doc in pairs:
            writer(name, doc)
    assert set(states(tmp_path / "spool", writer.status().catalog).values()) == {"delivered"}
    assert list(plain(documents(catalog.client[run.start_doc["uid"]]))) == list(plain(pairs))
