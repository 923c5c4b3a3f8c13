"""Whatever befalls a run, its writer and those who follow it: each event comes once, whole and in its order."""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice

import pytest
from effort import times
from proxy import Proxy
from relaying import Relay
from tiled.client import from_uri

from bluesky_filestore import CatalogWriter, documents, follow, serve_catalog
from bluesky_filestore.errors import CatalogError
from bluesky_filestore.model.event_record import exact_json

SECONDS = 120
ENTRIES = ("uid", "seq_num", "time", "data", "timestamps")
FAULTS = ("drop answer", "cut answer", "cut", "twice", 503, 0.05)
VALUES = {
    "whole": lambda rng: rng.randrange(-(2**62), 2**62),
    "small": lambda rng: rng.randrange(100),
    "fraction": lambda rng: rng.random(),
    "flag": lambda rng: rng.random() < 0.5,
    "text": lambda rng: rng.choice(["", "7", "nan", "true", "word", "\u00e5"]),
    "nothing": lambda rng: None,
    "nan": lambda rng: float("nan"),
    "list": lambda rng: [rng.random() for _ in range(rng.choice([2, 2, 3]))],
}
KINDS = {"number": ["small", "small", "fraction", "whole", "nan"], "integer": ["small", "small", "small", "fraction"]}
KINDS |= {"string": ["text"], "boolean": ["flag", "flag", "flag", "nothing"], "array": ["list"], "odd": list(VALUES)}


@pytest.fixture(scope="module")
def server(data_directory, tmp_path_factory) -> "Iterator":
    """A server that streams."""
    with serve_catalog(tmp_path_factory.mktemp("server"), readable=data_directory, streams=True) as running:
        yield running


class RandomRun:
    """A run that is made up as it goes: streams that begin whenever, keys of any type, points that are taken again."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.uid = rng, f"{rng.getrandbits(128):032x}"
        self.events: list[dict] = []
        self.places: list[tuple[str, int]] = []
        self._streams: dict[str, dict] = {}
        self._seq_nums: dict[str, int] = {}
        self._descriptors = 0

    def documents(self) -> "Iterator":
        """Its documents, one after the other."""
        rng = self.rng
        yield "start", {"uid": self.uid, "time": 1.0}
        for _ in range(rng.choice([0, 1, 3, 10, 10, 25])):
            if not self._streams or (rng.random() < 0.05 and len(self._streams) < 4):
                yield "descriptor", self._descriptor(f"stream {len(self._streams)}")
            elif rng.random() < 0.03:
                yield "descriptor", self._descriptor(rng.choice(list(self._streams)), again=True)
            yield "event", self._event()
        yield "stop", self._stop()

    def _descriptor(self, stream: str, *, again: bool = False) -> dict:
        rng = self.rng
        self._descriptors += 1
        if again:
            keys = self._streams[stream]["data_keys"]
        else:
            kinds = [rng.choice(list(KINDS)) for _ in range(rng.randrange(1, 5))]
            keys = {
                f"k{n}_{kind}": {"source": "s", "dtype": "number" if kind == "odd" else kind, "shape": []}
                for n, kind in enumerate(kinds)
            }
        doc = {
            "uid": f"{self.uid}-{self._descriptors}",
            "run_start": self.uid,
            "time": 2.0,
            "name": stream,
            "data_keys": keys,
            "configuration": {"d": {"data": {"n": self._descriptors}, "timestamps": {"n": 1.0}, "data_keys": {}}},
            "object_keys": {"d": list(keys)},
            "hints": {},
        }
        self._streams[stream] = doc
        self._seq_nums.setdefault(stream, 0)
        return doc

    def _event(self) -> dict:
        rng = self.rng
        stream = rng.choice(list(self._streams))
        descriptor, number = self._streams[stream], self._seq_nums[stream] + 1
        if rng.random() < 0.05:
            number = rng.randrange(1, number + 1)
        self._seq_nums[stream] = number
        data = {key: VALUES[rng.choice(KINDS[key.partition("_")[2]])](rng) for key in descriptor["data_keys"]}
        doc = {
            "uid": f"{self.uid}-e{len(self.events)}",
            "descriptor": descriptor["uid"],
            "seq_num": number,
            "time": 3.0 + len(self.events),
            "data": data,
            "timestamps": dict.fromkeys(data, 4.0 + len(self.events)),
            "filled": {},
        }
        self.places.append((stream, sum(each == stream for each, _ in self.places)))
        self.events.append(doc)
        return doc

    def _stop(self) -> dict:
        counts = dict(Counter(stream for stream, _ in self.places))
        stop = {"uid": f"{self.uid}-stop", "run_start": self.uid, "time": 9.0, "exit_status": "success"}
        return {**stop, "num_events": counts}


class Following(threading.Thread):
    """Somebody who follows, at a pace of their own, and may go away and go on."""

    def __init__(self, client, uid: str, seed: float, after: int = 0) -> None:
        super().__init__(daemon=True)
        self._client, self._uid, self._rng = client, uid, random.Random(seed)
        self.after, self.events, self.error = after, [], None
        self.start()

    def run(self) -> None:
        """Follow until the run is over."""
        pause, after = self._rng.choice([0.0, 0.0, 0.02, 0.2]), self.after
        try:
            while True:
                left = self._rng.choice([None, None, 5])
                with follow(self._client, self._uid, after=after, interval=0.3, spool=False) as follower:
                    for event in islice(follower, left):
                        self.events.append(event)
                        after = event.position
                        time.sleep(pause * self._rng.random())
                    if follower.is_over:
                        return
        except BaseException as error:  # noqa: BLE001 - it is the test's
            self.error = error

    def compare(self, stored, places):
        """Assert that it was given what is stored."""
        assert [said(vars_of(each)) for each in self.events] == [said(doc) for doc in stored[self.after :]]
        assert [each.position for each in self.events] == list(range(self.after + 1, len(stored) + 1))
        assert [(each.stream, each.row) for each in self.events] == places[self.after :]


def vars_of(event):
    """What a followed event has of its document."""
    return {name: getattr(event, name) for name in ENTRIES}


def said(event) -> str:
    """What is compared of a document."""
    doc = {name: event[name] for name in ENTRIES}
    for name in ("data", "timestamps"):
        doc[name] = {key: plain(value) for key, value in sorted(doc[name].items())}
    return exact_json(doc)


def plain(value):
    """A whole number may come as a fraction: its column may have become one of fractions."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def faults(rng, proxy, most=6):
    """What befalls the requests of a writer."""
    share = rng.choice([0.0, 0.05, 0.2])

    def fault(_):
        is_one = rng.random() < share and proxy.befell.total() - proxy.befell[None] < most
        return rng.choice(FAULTS) if is_one else None

    return fault


def cut(relay, rng, over):
    """Cut all sockets now and then."""
    pause = rng.choice([None, 0.3, 2.0])
    while pause and not over.wait(pause * (0.5 + rng.random())):
        relay.cut()


@contextmanager
def cutting(relay, rng):
    """Cut all sockets now and then in the with-block."""
    over = threading.Event()
    thread = threading.Thread(target=cut, args=(relay, rng, over))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def write(writer, made, rng, begin):
    """Write a run at some pace, have others `begin` to follow meanwhile."""
    pace = rng.choice([0.0, 0.005, 0.03])
    for name, doc in made:
        writer(name, doc)
        time.sleep(pace * rng.random())
        if rng.random() < 0.1:
            # What was delivered by now decides how tables are made.
            with suppress(CatalogError):
                writer.flush(1.0)
        if rng.random() < 0.04:
            begin()


@pytest.mark.parametrize("seed", range(times(4)))
def test_whatever_befalls(server, tmp_path, seed):
    """Requests of the writer fail, sockets are cut, and who follows is slow, begins late, goes away and goes on."""
    rng = random.Random(seed)
    run = RandomRun(rng)
    made, following = run.documents(), []

    def begin():
        if len(following) < 3:
            following.append(Following(client, run.uid, rng.random(), rng.randrange(len(run.events) + 1)))

    with ExitStack() as stack:
        proxy, relay = stack.enter_context(Proxy(server.uri)), stack.enter_context(Relay(server.uri))
        writer = CatalogWriter.from_uri(
            proxy.uri,
            api_key=server.api_key,
            spool=tmp_path / "spool",
            interval=rng.choice([0.01, 0.05, 0.3]),
            wait_on_stop=0,
        )
        stack.enter_context(writer)
        client = from_uri(relay.uri, api_key=server.api_key)
        stack.callback(client.context.close)
        writer(*next(made))
        writer.flush(SECONDS)
        begin()
        with cutting(relay, random.Random(seed)):
            proxy.fault = faults(random.Random(seed), proxy)
            write(writer, made, rng, begin)
            for each in following:
                each.join(SECONDS)
        for each in following:
            assert not each.is_alive()
            assert each.error is None
    stored = [doc for name, doc in documents(server.client[run.uid]) if name == "event"]
    assert [said(doc) for doc in stored] == [said(doc) for doc in run.events]
    for each in following:
        each.compare(stored, run.places)
