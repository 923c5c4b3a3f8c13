"""What the log says of a run at its end."""

import logging
import time

import pytest
from small_runs import image_documents
from spooled import run_documents

from bluesky_filestore import CatalogWriter, serve_catalog
from bluesky_filestore.delivery.spooling import RunSummary

SPOOLING = "bluesky_filestore.delivery.spooling"


def feed(writer, documents):
    """Give the writer documents."""
    for name, doc in documents:
        writer(name, doc)


def said(caplog):
    """The level and the words of what was said at the ends of runs."""
    return [(record.levelname, record.getMessage()) for record in caplog.records if record.name == SPOOLING]


@pytest.mark.parametrize(
    ("start", "stop", "words"),
    [
        ({"time": 5.0}, {"time": 6.5, "num_events": {"primary": 1}}, "(success): primary 1 event in 1.5 s"),
        ({"scan_id": 7}, {"exit_status": "abort", "num_events": {}}, "(scan 7, abort): no events"),
        ({"time": "noon", "scan_id": "a"}, {"time": 6.5, "num_events": None}, "(scan a, success)"),
        ({"time": 9.0}, {"time": 8.0}, "(success) in 0.0 s"),
    ],
)
def test_words(start, stop, words):
    """What is not in the documents is left out."""
    summary = RunSummary()
    summary.start({"uid": "3f2a9c01-77aa", **start})
    assert summary.stop({"run_start": "3f2a9c01-77aa", **stop}) == f"Run 3f2a9c01 {words}"


def test_run_that_was_not_seen():
    """Of a stop without its start there is nothing to say."""
    assert RunSummary().stop({}) == ""


def test_nobody_waits_for_a_run_that_was_not_seen(catalog, caplog, tmp_path):
    """A stop of a run that never began, or a second one, is not waited for."""
    _, docs = run_documents(1)
    began = time.monotonic()
    with caplog.at_level(logging.CRITICAL), CatalogWriter(catalog.client, spool=tmp_path, wait_on_stop=60) as writer:
        feed(writer, [*docs, docs[-1], ("stop", {**docs[-1][1], "uid": "other", "run_start": "nobody"})])
    assert time.monotonic() - began < 50.0


def test_readable(catalog, caplog, tmp_path):
    """A good run is one line of information: what it has, and where it is."""
    uid, docs = run_documents(3, scan_id=12)
    with caplog.at_level(logging.INFO), CatalogWriter(catalog.client, spool=tmp_path) as writer:
        feed(writer, docs)
    ((level, words),) = said(caplog)
    assert level == "INFO"
    assert words.startswith(f"Run {uid[:8]} (scan 12, success): primary 3 events in ")
    assert words.endswith(f"; in {catalog.client.uri}.")


def test_not_waited_for(catalog, caplog, tmp_path):
    """Without waiting, it is said where the run is kept."""
    _, docs = run_documents(3)
    with caplog.at_level(logging.INFO), CatalogWriter(catalog.client, spool=tmp_path, wait_on_stop=0) as writer:
        feed(writer, docs)
    ((level, words),) = said(caplog)
    assert level == "INFO"
    assert words.endswith(f"; kept in {tmp_path} for {catalog.client.uri}.")


@pytest.mark.usefixtures("few_tries")
def test_catalog_is_away(caplog, tmp_path):
    """A run that is not delivered yet is a warning that says where it waits, and why."""
    _, docs = run_documents(3)
    with serve_catalog(tmp_path / "kept") as catalog:
        uri = catalog.client.uri
        writer = CatalogWriter.from_uri(catalog.uri, api_key=catalog.api_key, spool=tmp_path / "spool")
    feed(writer, docs)
    with pytest.raises(ConnectionError, match="Nothing is lost"):
        writer.close()
    ((level, words),) = said(caplog)
    assert level == "WARNING"
    assert f"not in {uri} yet, it waits in {tmp_path / 'spool'} and will be delivered" in words
    assert "no catalog answers at" in words


def test_parked(catalog, caplog, tmp_path):
    """So is one of which something could not be written."""
    uid, docs = run_documents(3)
    odd = {**docs[2][1], "uid": "odd", "descriptor": "nobody"}
    with CatalogWriter(catalog.client, spool=tmp_path) as writer:
        feed(writer, [*docs[:-1], ("event", odd), docs[-1]])
        text = repr(writer.status())
    ((level, words),) = said(caplog)
    assert level == "WARNING"
    assert f"; parked, not all of it is in {catalog.client.uri}: event 'odd' refers to the descriptor 'nobody'" in words
    assert f"parked {uid[:8]}: event 'odd'" in text
    assert "1 problem, the last: event 'odd'" in text


def test_files_are_missing(catalog, caplog, tmp_path):
    """A run whose files are not there yet says so."""
    docs = image_documents(tmp_path / "no.h5")
    with caplog.at_level(logging.INFO), CatalogWriter(catalog.client, spool=tmp_path) as writer:
        feed(writer, docs)
    ((level, words),) = said(caplog)
    assert level == "INFO"
    assert "It is looked at again: files of it are still being written, or missing." in words
