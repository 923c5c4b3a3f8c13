"""What went wrong with runs, in words."""

import pytest

from bluesky_filestore.delivery import problems as module
from bluesky_filestore.delivery.problems import Problems


@pytest.fixture
def few(monkeypatch):
    """Three of the runs that are on their way no more are remembered."""
    monkeypatch.setattr(module, "_MOST_RUNS", 3)


def test_the_worst_is_told():
    """That files were missing is no reason any more when documents are, whichever was known first."""
    problems = Problems()
    problems.add_loss("a", "files were missing")
    problems.add("a", "the table could not be made", lost=False)
    assert problems.loss("a") == "files were missing"
    problems.add("a", "events could not be written")
    problems.add_loss("a", "other files were missing")
    assert problems.loss("a") == "events could not be written"
    problems.forget("a")
    assert problems.loss("a") == ""


def test_runs_on_their_way_are_kept(few):
    """What a run lacks is known until it has come to its end, however much is said of others meanwhile."""
    problems = Problems()
    for uid in ("long", "short"):
        problems.begin(uid)
        problems.add(uid, f"an event of {uid} is left out")
    problems.end("short")
    for number in range(9):
        problems.begin(f"run {number}")
        problems.add(f"run {number}", "a value is kept as text", lost=False)
        problems.end(f"run {number}")
    assert problems.of("long") == ("an event of long is left out",)
    assert (problems.loss("long"), problems.loss("short")) == ("an event of long is left out", "")


@pytest.mark.parametrize("add", [Problems.add, Problems.add_loss])
def test_runs_that_ended_are_forgotten(few, add):
    """Of runs that ended, or that nobody expected, the last ones are known; those of which nothing is take no place."""
    problems = Problems()
    for number in range(9):
        if number % 2:
            problems.begin(f"run {number}")
        add(problems, f"run {number}", "something is missing")
        problems.end(f"run {number}")
        problems.end("fine")
    assert [number for number in range(9) if problems.loss(f"run {number}")] == [6, 7, 8]
    assert all(len(known) <= 3 for known in vars(problems).values())


def test_runs_of_a_delivery_that_ended(few):
    """Those that were on their way then are not for ever."""
    problems = Problems()
    for number in range(9):
        problems.begin(f"run {number}")
        problems.add(f"run {number}", "something is missing")
    problems.end_all()
    assert all(len(known) <= 3 for known in vars(problems).values())
