"""Events of a run as they come: from the spool."""

import asyncio
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from document_streams import Camera, Case, Step, build, cases
from hypothesis import HealthCheck, given, settings
from small_runs import SmallRun
from spooled import put, put_and_die, run_documents

from bluesky_filestore import SpoolWriter, follow
from bluesky_filestore.errors import DocumentError, OptionError, RunNotFoundError
from bluesky_filestore.spool import Ledger, Store
from bluesky_filestore.spool.pruning import forget

STREAMS = Case(
    (Camera("cam_image", "AD_HDF5", 1, "<u2"),),
    {"primary": (0,), "dark": (0,)},
    (tuple(Step(stream) for stream in ("dark", "primary", "primary", "dark")),),
)
SLOW = settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))


def told(follower):
    """What is told of each event that is left."""
    return [(each.position, each.stream, each.row, each.seq_num, each.uid) for each in follower]


@given(case=cases())
@SLOW
def test_any_run(tmp_path_factory, case):
    """Every event of any legal run comes, in the order of the documents, with its own frames."""
    directory = tmp_path_factory.mktemp("run")
    built = build(replace(case, frames_cut=0), directory / "files")
    put(directory / "spool", built.documents)
    found = {}
    with follow(directory / "spool", patience=0) as follower:
        events = list(follower)
    for event in events:
        for key in event.frames:
            found.setdefault((event.stream, key), []).append(event[key])
    assert [event.position for event in events] == list(range(1, len(events) + 1))
    assert follower.stop == (built.documents[-1][1] if case.stopped else None)
    assert {name: len(arrays) for name, arrays in found.items()} == {
        name: len(arrays) for name, arrays in built.frames.items() if arrays
    }
    for name, arrays in found.items():
        np.testing.assert_array_equal(arrays, built.frames[name], strict=True)


@pytest.fixture
def small(tmp_path):
    """A run with images in a file."""
    return SmallRun(tmp_path, 3)


def test_as_it_comes(tmp_path, small):
    """Each event comes when it was put there, not at the end, by either way to wait; later the same come again."""
    with closing(Store(tmp_path / "spool")) as store:
        for name, doc in small.documents[:2]:
            store.append(name, doc)
        with follow(tmp_path / "spool") as follower:
            assert follower.start["uid"] == small.uid == follower.run
            assert follower.poll() is None
            live = []
            for name, doc in small.documents[2:]:
                store.append(name, doc)
                if name == "event":
                    live.append(follower.poll(5))
                    np.testing.assert_array_equal(live[-1]["image"][0], small.images[len(live) - 1])
                    assert follower.stop is None
            assert follower.poll() is None
            assert follower.is_over
            assert follower.stop == small.documents[-1][1]
    assert told(live) == told(follow(tmp_path / "spool", small.uid))
    assert [each["x"] for each in live] == [doc["data"]["x"] for name, doc in small.documents if name == "event"]


def test_after_a_position(tmp_path, small):
    """Whoever was ended goes on where he was, and gets the rest, and no event twice."""
    put(tmp_path, small.documents)
    whole = told(follow(tmp_path))
    begun = follow(tmp_path)
    taken = [next(begun) for _ in range(5)]
    begun.close()
    assert list(begun) == []
    assert told(taken) + told(follow(tmp_path, after=taken[-1].position)) == whole


def test_one_stream(tmp_path):
    """Of one stream only its events come, with the positions that they have among all."""
    case = build(STREAMS, tmp_path / "files")
    put(tmp_path, case.documents)
    both = told(follow(tmp_path))
    assert {stream for _, stream, *_ in both} == {"primary", "dark"}
    assert told(follow(tmp_path, stream="dark")) == [each for each in both if each[1] == "dark"]


def test_a_plan_that_goes_back(tmp_path):
    """Points that are taken again come again, with the same number, and say so."""
    steps = tuple(Step("primary", action) for action in ("event", "event", "rewind", "event"))
    put(tmp_path, build(replace(STREAMS, streams={"primary": (0,)}, stagings=(steps,)), tmp_path / "files").documents)
    events = list(follow(tmp_path))
    highest = 0
    for event in events:
        assert event.is_repeated == (event.seq_num <= highest)
        highest = max(highest, event.seq_num)
    assert [event.row for event in events] == list(range(len(events)))
    assert any(event.is_repeated for event in events)


def test_documents_that_came_twice(tmp_path):
    """A writer that is subscribed twice makes no event come twice, and no other run's events are among them."""
    uid, documents = run_documents(4)
    put(tmp_path, [each for each in documents for _ in range(2)], run_documents(2)[1])
    assert [(each.position, each["x"]) for each in follow(tmp_path, uid)] == [(n + 1, float(n)) for n in range(4)]


def test_a_writer_that_dies(tmp_path):
    """A run whose writer was killed ends, without a stop, after all that was there."""
    uid = put_and_die(tmp_path)
    follower = follow(tmp_path, uid)
    assert [each["x"] for each in follower] == [0.0, 1.0, 2.0]
    assert follower.stop is None


def test_asynchronously(tmp_path, small):
    """Asynchronously the same events come; whoever is cancelled while he waits loses none."""

    async def follow_it(store):
        follower, found = follow(tmp_path), []
        for name, doc in small.documents[2:]:
            if not found:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(follower), 0.02)
            store.append(name, doc)
            if name == "event":
                found.append(await anext(follower))
        return found + [each async for each in follower]

    with closing(Store(tmp_path)) as store:
        for name, doc in small.documents[:2]:
            store.append(name, doc)
        found = asyncio.run(follow_it(store))
    assert told(found) == told(follow(tmp_path))


def test_a_frame_that_is_late(tmp_path, small):
    """An event whose frames nobody has announced comes after some patience; its frames are an error until then."""
    resources = [each for each in small.documents if each[0] in ("resource", "datum")]
    others = [each for each in small.documents if each not in resources]
    with closing(Store(tmp_path)) as store:
        for name, doc in others[:-1]:
            store.append(name, doc)
        follower = follow(tmp_path, patience=0.05)
        event = follower.poll(5)
        with pytest.raises(DocumentError, match=r"'image' of the event with seq_num 1 .* cannot be read yet: .*datum"):
            event["image"]
        for name, doc in resources:
            store.append(name, doc)
        assert follower.poll(5) is not None
        deadline = time.monotonic() + 5
        while follower.poll(0.02) is not None and time.monotonic() < deadline:
            pass
        np.testing.assert_array_equal(event["image"][0], small.images[0])


def test_staged_for_two_runs(tmp_path, small):
    """Frames of a run whose detector was staged in a run before it are found."""
    second = SmallRun(tmp_path, 3)
    resources = [each for each in second.documents if each[0] == "resource"]
    rest = [each for each in second.documents if each not in resources]
    with closing(Store(tmp_path)) as store:
        for name, doc in [*small.documents[:2], *resources, *small.documents[2:], *rest]:
            store.append(name, doc)
    for number, event in enumerate(follow(tmp_path, second.uid)):
        np.testing.assert_array_equal(event["image"][0], second.images[number])


def test_a_run_that_is_taken_away(tmp_path):
    """A run that is removed from the spool meanwhile is an error that says so, and no shorter run."""
    uid, documents = run_documents(600)
    put(tmp_path, documents)
    follower = follow(tmp_path, uid)
    assert next(follower).position == 1
    with closing(Ledger(tmp_path)) as ledger:
        forget(ledger, ledger.latest().number)
    with pytest.raises(RunNotFoundError, match=r"was removed from the spool .* Go on in the catalog"):
        list(follower)


def test_a_writer_is_followed(tmp_path):
    """Of a writer it is the run that began last; nothing is read ahead of who reads it slowly."""
    with SpoolWriter(tmp_path) as writer:
        for _ in range(2):
            uid, documents = run_documents(1000)
            for name, doc in documents:
                writer(name, doc)
        follower = follow(writer)
        assert follower.run == uid
        assert next(follower).position == 1
        assert len(follower._ready) < 200
        assert [each.position for each in follower] == list(range(2, 1001))


@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        (5, OptionError, "5 is nothing that can be followed; expected a writer"),
        (Path("/nowhere"), OSError, "there is no spool in /nowhere"),
    ],
)
def test_what_cannot_be_followed(what, error, words):
    """What is no run is refused, with what would be one."""
    with pytest.raises(error, match=words):
        follow(what)


def test_from_another_thread(tmp_path):
    """An iterator that waits is ended by closing it."""
    _, documents = run_documents(1)
    with closing(Store(tmp_path)) as store:
        for name, doc in documents[:-1]:
            store.append(name, doc)
        follower = follow(tmp_path)
        found = []
        thread = threading.Thread(target=lambda: found.extend(follower))
        thread.start()
        deadline = time.monotonic() + 5
        while not found and time.monotonic() < deadline:
            time.sleep(0.001)
        follower.close()
        thread.join(5)
        assert not thread.is_alive()
        assert [each["x"] for each in found] == [0.0]


def test_a_follower_that_is_killed(tmp_path, small):
    """One that is killed is gone on for by another after the last event that it was through with."""
    put(tmp_path, small.documents)
    code = f"""
from pathlib import Path
from bluesky_filestore import follow
for event in follow(Path({str(tmp_path)!r})):
    print(event.position, event["image"][0, 0, 0], flush=True)
    if event.position == 5:
        input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as killed:
        lines = [killed.stdout.readline().split() for _ in range(5)]
        killed.kill()
    rest = [(event.position, event["image"][0, 0, 0]) for event in follow(tmp_path, after=int(lines[-1][0]))]
    expected = [(number + 1, small.images[number, 0, 0]) for number in range(small.events)]
    assert [tuple(map(int, line)) for line in lines] + rest == expected
