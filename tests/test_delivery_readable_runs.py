"""Which runs can be read."""

from bluesky_filestore.delivery import readable_runs as module
from bluesky_filestore.delivery.readable_runs import ReadableRuns


def test_the_last_are_known(monkeypatch):
    """Of those that can be read some are remembered, with why they are parked, until they begin once more."""
    monkeypatch.setattr(module, "_REMEMBERED", 3)
    runs = ReadableRuns()
    runs.add({"a": "", "b": "refused"})
    assert ("a" in runs, runs.why_parked("a"), runs.why_parked("b")) == (True, "", "refused")
    runs.add({"c": "", "d": ""})
    assert [uid for uid in "abcd" if uid in runs] == ["b", "c", "d"]
    for _ in range(2):
        runs.discard("b")
    assert ("b" in runs, runs.why_parked("b")) == (False, "")
