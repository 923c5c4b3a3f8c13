"""What Prometheus is told."""

import http.client
import json
import re
import time
from contextlib import closing
from pathlib import Path

import h5py
import pytest
from prometheus_client.parser import text_string_to_metric_families
from small_runs import SmallRun
from spooled import Applied, put, run_documents

from bluesky_filestore import SpoolWriter
from bluesky_filestore.delivery.conveyor import Conveyor
from bluesky_filestore.delivery.problems import Problems
from bluesky_filestore.delivery.settings import DeliverySettings
from bluesky_filestore.errors import OptionError
from bluesky_filestore.live.metrics import CONTENT_TYPE, metrics_text, serving_metrics
from bluesky_filestore.spool import Ledger
from bluesky_filestore.spool.measures import Measures, measured

BOARD = Path(__file__).parents[1] / "examples" / "grafana-board.json"


def samples(text):
    """What a text of metrics says, by name and labels."""
    found = {}
    for family in text_string_to_metric_families(text):
        for each in family.samples:
            name = each.name.removeprefix("bluesky_filestore_")
            assert (name, *each.labels.values()) not in found, "a series twice"
            found[name, *each.labels.values()] = each.value
    return found


def deliver(directory, catalog):
    """Deliver what is in a spool, and look at it until nothing more is waited for."""
    with closing(Ledger(directory)) as ledger:
        conveyor = Conveyor(ledger, catalog, Problems(), settings=DeliverySettings(settle=0.0), since=0)
        conveyor.move()
        until = time.monotonic() + 20
        while conveyor.unsettled_runs and time.monotonic() < until:
            conveyor.look_again()
            time.sleep(0.01)


def test_runs_that_wait_and_are_delivered(tmp_path):
    """The numbers of a spool before its catalog takes documents, and after."""
    (_, first), (_, second) = run_documents(5), run_documents(2)
    put(tmp_path / "spool", first, second[:-1], catalogs=[Applied.uri])
    before = samples(metrics_text([tmp_path / "spool"]))
    uri = "http://applied/api/v1/metadata/"
    count = len(first) + len(second) - 1
    assert before["documents_taken_total", "spool"] == before["documents_waiting", "spool", uri] == count
    assert before["runs", "spool", uri, "waiting"] == 2
    assert 0 < before["lag_seconds", "spool", uri] <= before["oldest_waiting_seconds", "spool", uri] < 60
    assert before["documents_delivered_total", "spool", uri] == before["is_delivered_to", "spool", uri] == 0
    deliver(tmp_path / "spool", Applied())
    after = samples(metrics_text([tmp_path / "spool"]))
    assert after["documents_delivered_total", "spool", uri] == count
    assert after["documents_waiting", "spool", uri] == after["lag_seconds", "spool", uri] == 0
    assert after["runs", "spool", uri, "delivered"] == 1
    assert after["runs", "spool", uri, "uploading"] == 1
    assert after["frames_missing_total", "spool", uri] == 0


def test_the_lag_is_that_of_the_oldest_document_that_waits(tmp_path):
    """A long run whose documents are taken as they come has no lag, and one of which the last wait has theirs."""
    _, docs = run_documents(30)
    put(tmp_path, docs[:10])
    deliver(tmp_path, Applied())
    with closing(Ledger(tmp_path)) as ledger:
        number = ledger.known_catalog(Applied.uri)
        assert ledger.first_waiting(number) is None
        began = time.time()
        with ledger.transaction() as connection:
            connection.execute(
                "INSERT INTO documents (producer, run, name, received, body) "
                "SELECT producer, run, name, ? + id, body FROM documents WHERE name = 'event'",
                (began,),
            )
        assert ledger.first_waiting(number) == pytest.approx(began + 3)


def test_frames_that_are_missing_are_counted(tmp_path):
    """Events whose frames are in no file are counted when their run has ended."""
    run = SmallRun(tmp_path, 1)
    # The file ends before the events do.
    with h5py.File(tmp_path / "small 1.h5", "w") as file:
        file["/entry/data/data"] = run.images[:-3]
    put(tmp_path / "spool", run.documents)
    deliver(tmp_path / "spool", Applied())
    found = samples(metrics_text([tmp_path / "spool"]))
    assert found["frames_missing_total", "spool", Applied.uri] == 3


def test_callbacks_are_timed(tmp_path):
    """Each document that a writer took is in the histogram, those that end runs apart; a second writer adds to it."""
    for _ in range(2):
        with SpoolWriter(tmp_path / "spool") as writer:
            for name, doc in run_documents(8)[1]:
                writer(name, doc)
    found = samples(metrics_text([tmp_path / "spool"]))
    assert found["callback_seconds_count", "spool", "other"] == 20
    assert found["callback_seconds_count", "spool", "stop"] == 2
    assert 0 < found["callback_seconds_sum", "spool", "other"] < 10
    buckets = [value for (name, *labels), value in found.items() if name.endswith("_bucket") and "other" in labels]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 20


def test_measures_are_no_promise(tmp_path):
    """What was counted is added to what is there; a file that is broken or cannot be written costs nothing else."""
    (tmp_path / "measures.json").write_text("[1, 2")
    assert measured(tmp_path) == {}
    mine, other = Measures(tmp_path), Measures(tmp_path)
    mine.add("a", 2)
    other.add("a", 3)
    mine.save(at_once=True)
    other.save(at_once=True)
    mine.save(at_once=True)
    assert measured(tmp_path) == {"a": 5}
    gone = Measures(tmp_path / "not there")
    gone.add("a", 1)
    gone.save(at_once=True)
    assert measured(tmp_path / "not there") == {}


def test_hostile_names_and_secrets(tmp_path):
    """A name cannot forge a line, no password of an address is told, and no path."""
    directory = tmp_path / 'a"} 1\nforged 2'
    put(directory, catalogs=["http://user:secret@host/a", "http://other:secret@host/a"])
    text = metrics_text([directory, tmp_path / "x" / "twice", tmp_path / "y" / "twice"])
    assert "secret" not in text
    assert str(tmp_path) not in text
    assert "\nforged" not in text
    assert len({labels for name, *labels in map(tuple, samples(text)) for labels in [tuple(labels)]}) > 3


def test_a_broken_spool_is_said(tmp_path):
    """One that cannot be read is a number, and the others are told of all the same."""
    put(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "spool.db").write_bytes(b"no database" * 1000)
    found = samples(metrics_text([tmp_path / "bad", tmp_path / "good"]))
    assert found["spool_readable", "bad"] == 0
    assert found["spool_readable", "good"] == 1


def test_served_on_loopback():
    """What asks by a name of loopback gets it; pages of strangers, and other paths, do not."""
    with serving_metrics(0, lambda: "up 1\n") as port:

        def ask(path, host):
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
                connection.request("GET", path, headers={"Host": host})
                answer = connection.getresponse()
                return answer.status, answer.read().decode(), answer.headers["Content-Type"]

        assert ask("/metrics", f"127.0.0.1:{port}") == (200, "up 1\n", CONTENT_TYPE)
        assert ask("/metrics?x=1", "localhost")[0] == 200
        assert ask("/metrics", "evil.example")[0] == 400
        assert ask("/", "localhost")[0] == 404
        with (
            pytest.raises(OptionError, match=rf"port {port} on 127\.0\.0\.1 cannot be used"),
            serving_metrics(port, str),
        ):
            pass


def test_the_board_asks_for_what_there_is(tmp_path):
    """Each number that the example's board for Grafana draws is one that is told."""
    put(tmp_path, run_documents(2)[1], catalogs=[Applied.uri])
    told = set(re.findall(r"^(bluesky_filestore_\w+)", metrics_text([tmp_path]), re.MULTILINE))
    board = json.loads(BOARD.read_text())
    asked = {
        name
        for panel in board["panels"]
        for target in panel.get("targets", ())
        for name in re.findall(r"bluesky_filestore_\w+", target["expr"])
    }
    assert len(asked) > 9
    assert asked <= told
