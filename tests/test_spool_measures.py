"""What is counted at a spool, whatever is in the file that has it."""

import json
import threading
from contextlib import closing

import pytest
from spooled import Applied, run_documents, states

from bluesky_filestore.delivery.spooling import Spooling
from bluesky_filestore.spool import Store
from bluesky_filestore.spool.measures import Measures, measured

BROKEN = {
    "an integer beyond floats": b'{"a": 1' + b"0" * 400 + b"}",
    "an integer of too many digits": b'{"a": 1' + b"0" * 9000 + b"}",
    "nested too deeply": b"[" * 100_000,
    "infinite": b'{"a": Infinity, "b": NaN, "c": -1e999}',
    "no number": b'{"a": "5", "b": null, "c": [1]}',
    "no mapping": b"[1]",
    "no UTF-8": b'{"\xff": 1}',
    "cut off": b'{"a": 1',
    "nothing": b"",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
def test_broken_counts_as_empty(tmp_path, text):
    """What is no count is none, for who reads and for who adds to it."""
    (tmp_path / "measures.json").write_bytes(text)
    assert measured(tmp_path) == {}
    measures = Measures(tmp_path)
    for amount in (1, 2):
        measures.add("a", amount)
        measures.save(at_once=True)
    assert measured(tmp_path) == {"a": 3.0}


def test_the_rest_of_a_broken_one(tmp_path):
    """What is a count beside it stays, and goes on."""
    (tmp_path / "measures.json").write_text(json.dumps({"a": 10**400, "b": 5, "c": 2.5}))
    measures = Measures(tmp_path)
    measures.add("b", 1)
    measures.save(at_once=True)
    assert measured(tmp_path) == {"b": 6.0, "c": 2.5}


@pytest.mark.parametrize("text", [BROKEN["an integer beyond floats"], BROKEN["nested too deeply"]])
def test_nobody_ends_of_it(tmp_path, monkeypatch, text):
    """Who keeps and who delivers goes on, and closes without an error."""
    ended = []
    monkeypatch.setattr(threading, "excepthook", lambda arguments: ended.append(arguments.thread.name))
    with closing(Store(tmp_path)):
        (tmp_path / "measures.json").write_bytes(text)
    catalog, (uid, documents) = Applied(), run_documents(2)
    with closing(Spooling(tmp_path, [catalog], wait_on_stop=60.0, durability="normal")) as spooling:
        (tmp_path / "measures.json").write_bytes(text)
        for pair in documents:
            spooling.put(*pair)
    assert states(tmp_path, catalog.uri) == {uid: "delivered"}
    assert ended == []
