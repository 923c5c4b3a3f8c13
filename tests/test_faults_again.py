"""Runs that are gone through again, in whatever batches, are in the catalog as if it were the first time."""

import os
import random
import secrets
from contextlib import closing

import event_model
import numpy as np
import pytest
from effort import times
from proxy import Proxy
from small_runs import plain
from tiled.client import from_uri

from bluesky_filestore import CatalogWriter, documents
from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
from bluesky_filestore.delivery.conveyor import Conveyor
from bluesky_filestore.delivery.problems import Problems
from bluesky_filestore.errors import CatalogUnreachableError
from bluesky_filestore.spool import Ledger, Store

CASES = times(3)
NUMBER = {"source": "s", "dtype": "number", "shape": []}
KEYS = {
    "number": NUMBER,
    "integer": {"source": "s", "dtype": "integer", "shape": []},
    "text": {"source": "s", "dtype": "string", "shape": []},
    "wave": {"source": "s", "dtype": "array", "shape": [3]},
    "other": {"source": "s", "dtype": "array", "shape": [2]},
}


@pytest.fixture
def tiled(catalog):
    """The session's catalog, as it is written to."""
    return TiledCatalog(catalog.client)


@pytest.fixture
def through_proxy(catalog):
    """A proxy before the session's catalog, and a client."""
    with Proxy(catalog.uri) as proxy:
        client = from_uri(proxy.uri, api_key=catalog.api_key)
        yield proxy, client
        client.context.close()


@pytest.fixture
def ledger(tmp_path):
    """The reading end of the test's spool."""
    with closing(Store(tmp_path)), closing(Ledger(tmp_path)) as reading:
        yield reading


def waves(values):
    """The uid and the documents of a run with arrays."""
    run = event_model.compose_run()
    bundle = run.compose_descriptor(name="primary", data_keys={"number": NUMBER, "wave": KEYS["wave"]}, validate=False)
    pairs = [("start", run.start_doc), ("descriptor", bundle.descriptor_doc)]
    for number, wave in enumerate(values):
        data = {"number": float(number), "wave": wave}
        event = bundle.compose_event(data=data, timestamps=dict.fromkeys(data, 5.0), validate=False)
        pairs.append(("event", event))
    return run.start_doc["uid"], [*pairs, ("stop", run.compose_stop())]


def odd_run(chance):
    """The uid and the documents of a run whose values change their types and shapes when they please."""
    run = event_model.compose_run()
    bundle = run.compose_descriptor(name="primary", data_keys=KEYS, validate=False)
    beside = run.compose_descriptor(name="baseline", data_keys={"number": NUMBER})
    pairs = [("start", run.start_doc), ("descriptor", bundle.descriptor_doc), ("descriptor", beside.descriptor_doc)]
    events = chance.randint(1, 14)
    turns = {key: chance.randint(0, events) for key in KEYS}
    odd_first = {key for key in KEYS if chance.random() < 0.3}
    for point in range(events):
        usual = {
            "number": point,
            "integer": point,
            "text": str(point),
            "wave": [point, 5, 7],
            "other": [point / 2, 1.5],
        }
        unusual = {
            "number": point / 4,
            "integer": chance.choice([point / 3, 2**60 + point, 2**70, "odd"]),
            "text": chance.choice(["z", 5]),
            "wave": chance.choice([[point, 5, 7.5], [point, 5], ["a", str(10**point), "b"], [2**63 + point, 5, 7]]),
            "other": chance.choice([[point / 2, 1.5], [1, 2], [[1], [2]], []]),
        }
        data = {key: (unusual if (point >= turns[key]) != (key in odd_first) else usual)[key] for key in KEYS}
        pairs.append(("event", bundle.compose_event(data=data, timestamps=dict.fromkeys(data, 5.5), validate=False)))
        if chance.random() < 0.2:
            pairs.append(("event", beside.compose_event(data={"number": 1.0}, timestamps={"number": 5.0})))
    return run.start_doc["uid"], [*pairs, ("stop", run.compose_stop())]


def put(directory, pairs):
    """Put documents into a spool."""
    with closing(Store(directory)) as store:
        for name, doc in pairs:
            store.append(name, doc)


def move(conveyor, *batches):
    """Hand on so many documents at a time, and then the rest."""
    for batch in (*batches, 1000):
        conveyor._at_once = batch
        conveyor.try_again()
        conveyor.move()


def compare(client, uid, pairs):
    """Assert that a catalog has the documents just so."""
    assert list(plain(documents(client[uid]))) == list(plain(pairs))
    assert client[uid]["primary"]["seq_num"].read().tolist() == list(range(1, sum(_is_primary(pairs)) + 1))


def _is_primary(pairs):
    first = pairs[1][1]["uid"]
    return [name == "event" and doc["descriptor"] == first for name, doc in pairs]


RAGGED = [[1, 2, 3], [4, 5, 6], [7, 8, 9], [1, 2], [3]]
MIXED = [[1, 2, 3], [4, 5, 6.5], [7, 8, 9], [1, 2], [3]]


@pytest.mark.parametrize("values", [RAGGED, MIXED])
@pytest.mark.parametrize("first", [(2, 1), (2, 4), (6,)])
@pytest.mark.parametrize("then", [(2, 1), (7,)])
def test_other_batches(ledger, catalog, values, first, then):
    """Which columns and arrays there are depends on the batches: a second process corrects what the first left."""
    uid, pairs = waves(values)
    put(ledger.directory, pairs[:-1])
    conveyor = Conveyor(ledger, TiledCatalog(catalog.client), Problems(), since=0)
    for batch in first:
        conveyor._at_once = batch
        conveyor.move()
    problems = Problems()
    again = Conveyor(ledger, TiledCatalog(catalog.client), problems, since=0)
    move(again, *then)
    again.look_around()
    move(again)
    compare(catalog.client, uid, pairs[:-1])
    assert problems.all() == ()


class Faulty:
    """A catalog that is away now and then, before or after it did what was asked."""

    def __init__(self, catalog, chance, often):
        self._catalog, self._chance, self.often = catalog, chance, often

    def __getattr__(self, name):
        return getattr(self._catalog, name)

    def apply(self, operation):
        """Have it applied, or not."""
        when = self._chance.random()
        if when < self.often:
            raise CatalogUnreachableError("away before it was done")
        self._catalog.apply(operation)
        if when > 1 - self.often:
            raise CatalogUnreachableError("away when it was done")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("case", range(CASES))
def test_interrupted_at_random(ledger, catalog, case):
    """Processes end, others go on, the catalog goes away, runs are begun again: all at random, in random batches."""
    seed = int(os.environ.get("SEED") or secrets.randbits(32))
    print(f"SEED={seed}")
    chance = random.Random(seed)
    runs = [odd_run(chance) for _ in range(chance.randint(1, 3))]
    left = [list(pairs) for _, pairs in runs]
    often, ends = chance.choice([0.0, 0.05, 0.2]), chance.choice([0.0, 0.1, 0.3])
    number = ledger.register_catalog(TiledCatalog(catalog.client).uri)
    conveyor = None
    with closing(Store(ledger.directory)) as store:
        for rounds in range(400):
            if rounds > 100:
                often, ends = 0.0, 0.0
            for _ in range(chance.choice([1, 2, 5, 30])):
                if any(left):
                    store.append(*chance.choice([pairs for pairs in left if pairs]).pop(0))
            if conveyor is None or chance.random() < ends:
                faulty, problems = Faulty(TiledCatalog(catalog.client), chance, often), Problems()
                conveyor = Conveyor(ledger, faulty, problems, since=0)
            faulty.often = often
            conveyor._at_once = chance.choice([1, 3, 10, 1000])
            conveyor.try_again()
            try:
                conveyor.move()
            except CatalogUnreachableError:
                continue
            if chance.random() < 0.05 and (entries := ledger.entries(number)):
                ledger.begin_again(number, [chance.choice(entries).number])
            conveyor.look_around()
            entries = ledger.entries(number)
            if not any(left) and all(entry.state == "delivered" for entry in entries):
                break
    assert [entry.state for entry in ledger.entries(number)] == ["delivered"] * len(runs), problems.all()
    for uid, pairs in runs:
        compare(catalog.client, uid, pairs)


def test_others_wrote_meanwhile(ledger, catalog):
    """Who delivers for a second time knows nothing of what others did between."""
    uid, pairs = waves([[1, 2, 3]] * 9)
    put(ledger.directory, pairs[:-1])
    first, second = (TiledCatalog(catalog.client) for _ in range(2))
    for tiled, batch in ((first, 5), (second, 8)):
        conveyor = Conveyor(ledger, tiled, Problems(), since=0)
        conveyor._at_once = batch
        conveyor.move()
    move(Conveyor(ledger, first, Problems(), since=0), 6, 2)
    compare(catalog.client, uid, pairs[:-1])


@pytest.mark.parametrize("key", ["internal", "wave"])
def test_removed_meanwhile(ledger, catalog, key):
    """Rows that are gone in the middle of a run are written again, and none after them in their place."""
    uid, pairs = waves([[1, 2, 3]] * 9)
    put(ledger.directory, pairs)
    problems = Problems()
    conveyor = Conveyor(ledger, TiledCatalog(catalog.client), problems, since=0)
    conveyor._at_once = 6
    conveyor.move()
    catalog.client[uid]["primary"].base.delete_contents(key, external_only=False)
    move(conveyor)
    move(conveyor)
    compare(catalog.client, uid, pairs)
    assert problems.all() == ()


def test_away_while_tables_are_removed(ledger, catalog, through_proxy):
    """A catalog that goes away when some of a run's rows are removed gets them all anew when it is back."""
    proxy, client = through_proxy
    uid, pairs = waves(RAGGED)
    put(ledger.directory, pairs)
    conveyor = Conveyor(ledger, TiledCatalog(client), Problems(), since=0)
    for batch in (2, 3):
        conveyor._at_once = batch
        conveyor.move()
    removals = []

    def second_removal(request):
        if request.method == "DELETE":
            removals.append(request.path)
        return 503 if request.method == "DELETE" and len(removals) == 2 else None

    proxy.fault = second_removal
    again = Conveyor(ledger, TiledCatalog(client), Problems(), since=0)
    with pytest.raises(CatalogUnreachableError, match="503"):
        again.move()
    move(again, 3, 4)
    assert len(removals) > 2
    compare(catalog.client, uid, pairs)


@pytest.mark.parametrize("method", ["DELETE", "POST", "PATCH"])
@pytest.mark.parametrize("fault", [503, "drop answer"])
def test_away_while_an_array_becomes_wider(ledger, catalog, through_proxy, method, fault):
    """An array whose integers become fractions has all its rows, wherever the catalog goes away meanwhile."""
    proxy, client = through_proxy
    values = [[1, 2, 3], [4, 5, 6], [7, 8, 9.5], [1, 2, 3]]
    uid, pairs = waves(values)
    put(ledger.directory, pairs)
    problems = Problems()
    conveyor = Conveyor(ledger, TiledCatalog(client), problems, since=0)
    conveyor._at_once = 4
    conveyor.move()
    assert catalog.client[uid]["primary"]["wave"].dtype == np.int64
    faults = [fault]

    def is_of_array(request):
        return request.method == method and not request.is_append

    proxy.fault = lambda request: faults.pop() if faults and is_of_array(request) else None
    move(conveyor)
    move(conveyor)
    assert proxy.befell[fault] == 1
    assert catalog.client[uid]["primary"]["wave"].read().tolist() == values
    compare(catalog.client, uid, pairs)
    assert problems.all() == ()


def test_forgets_processes_that_ended(tmp_path, tiled, ledger):
    """Of writers that ended nothing is left in memory, however many they were."""
    conveyor = Conveyor(ledger, tiled, Problems(), since=0)
    for _ in range(3):
        put(tmp_path, waves([[1, 2, 3]])[1])
        move(conveyor)
        conveyor.look_around()
    assert not list(conveyor._lanes.all())


def test_other_rows_without_a_spool(catalog, caplog):
    """Without a spool, too, a table with other rows is made anew, and what follows is written."""
    uid, pairs = waves([[1, 2, 3]] * 2)
    with CatalogWriter(catalog.client, spool=None) as writer:
        for name, doc in pairs:
            writer(name, doc)
    other = [("event", {**doc, "uid": f"other {number}"}) for number, (_, doc) in enumerate(pairs[2:-1])]
    later_uid, later = waves([[1, 2, 3]] * 2)
    with CatalogWriter(catalog.client, spool=None) as writer:
        for name, doc in (*pairs[:2], *other, pairs[-1], *later):
            writer(name, doc)
        assert not writer.status().problems
    assert any("has other rows than events 0 and on" in words for words in caplog.messages)
    compare(catalog.client, uid, [*pairs[:2], *other, pairs[-1]])
    compare(catalog.client, later_uid, later)


class Counting:
    """A catalog that counts what it is asked for of each run."""

    def __init__(self, catalog):
        self._catalog, self.asked = catalog, []

    def __getattr__(self, name):
        return getattr(self._catalog, name)

    def apply(self, operation):
        """Have it applied."""
        self.asked.append((operation.run, type(operation).__name__))
        self._catalog.apply(operation)


def test_others_go_on_where_one_begins_again(ledger, catalog):
    """A run that is gone through again leaves those beside it, of the same writer, where they are."""
    (bad, bad_pairs), (good, good_pairs) = waves([[1, 2, 3]] * 9), waves([[1, 2, 3]] * 9)
    with closing(Store(ledger.directory)) as store:
        for pair in (pair for both in zip(bad_pairs[:-1], good_pairs[:-1], strict=True) for pair in both):
            store.append(*pair)
        counting = Counting(TiledCatalog(catalog.client))
        conveyor = Conveyor(ledger, counting, Problems(), since=0)
        conveyor._at_once = 12
        conveyor.move()
        catalog.client[bad]["primary"].base.delete_contents("internal", external_only=False)
        move(conveyor)
        for pairs in (bad_pairs, good_pairs):
            store.append(*pairs[-1])
        move(conveyor)
        move(conveyor)
        conveyor.look_around()
    for uid, pairs in ((bad, bad_pairs), (good, good_pairs)):
        compare(catalog.client, uid, pairs)
    assert counting.asked.count((bad, "CreateRun")) == 2
    assert counting.asked.count((good, "CreateRun")) == 1
    assert not conveyor._runs
    assert not conveyor._lanes.own
