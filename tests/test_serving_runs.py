"""A served catalog is one of runs: by number, by scan id, by uid, by time, for the stock client and databroker's v1."""

import event_model
import pytest
from bluesky_tiled_plugins.clients.bluesky_run import BlueskyRun
from bluesky_tiled_plugins.queries import PartialUID, ScanID, ScanIDRange, TimeRange
from small_runs import SmallRun
from tiled.client import from_uri
from tiled.client.container import DEFAULT_STRUCTURE_CLIENT_DISPATCH, Container
from tiled.queries import Eq, Like
from tiled.structures.core import Spec

from bluesky_filestore import CatalogWriter, documents, open_array, serve_catalog
from bluesky_filestore.catalogs.tiled.below import Below, runs_with_contents
from bluesky_filestore.catalogs.tiled.nodes import find_run, plain_container
from bluesky_filestore.reading.preview import preview
from bluesky_filestore.reading.run_tree import RunTree, trees_of_runs

# Uid, scan id and time in the order of their delivery: the newest comes second, and the oldest last.
RUNS = (
    ("aaaaa111-0000-4000-8000-000000000000", 7, 2000.0),
    ("bbbbb222-0000-4000-8000-000000000000", 8, 10000.0),
    ("aaaaa133-0000-4000-8000-000000000000", 8, 3000.0),
    ("ccccc444-0000-4000-8000-000000000000", 10, 999.5),
)
BY_TIME = [uid for uid, _, _ in sorted(RUNS, key=lambda run: run[2])]


def documents_of(uid, scan_id, time, points=2):
    """A small run."""
    run = event_model.compose_run(uid=uid, time=time, metadata={"scan_id": scan_id, "sample": f"sample {scan_id}"})
    data_keys = {"x": {"source": "s", "dtype": "number", "shape": []}}
    bundle = run.compose_descriptor(name="primary", data_keys=data_keys)
    events = [bundle.compose_event(data={"x": 0.5 + n}, timestamps={"x": 1.0}) for n in range(points)]
    return [
        ("start", run.start_doc),
        ("descriptor", bundle.descriptor_doc),
        *(("event", event) for event in events),
        ("stop", run.compose_stop()),
    ]


def write(client, spool, runs):
    """Deliver the runs one after the other."""
    with CatalogWriter(client, spool=spool) as writer:
        for run in runs:
            for name, doc in documents_of(*run):
                writer(name, doc)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with the runs."""
    directory = tmp_path_factory.mktemp("runs")
    with serve_catalog(directory / "catalog") as running:
        write(running.client, directory / "spool", RUNS)
        yield running


@pytest.fixture(scope="module")
def client(server):
    """A stock client of it."""
    made = from_uri(server.uri, api_key=server.api_key)
    yield made
    made.context.close()


def test_by_number_and_scan_id(server, client):
    """The last run is the newest, however late it came; of two with one scan id the newer is meant."""
    for each in (client, server.client):
        assert type(each).__name__ == "CatalogOfBlueskyRuns"
        assert [each[-number].start["uid"] for number in (1, 2, 3, 4)] == BY_TIME[::-1]
        assert list(each) == list(each.keys()) == BY_TIME
        assert (each[7].start["uid"], each[8].start["uid"]) == (RUNS[0][0], RUNS[1][0])
        with pytest.raises(KeyError, match="No match for scan_id=9"):
            each[9]
        with pytest.raises(IndexError):
            each[-5]
    assert list(client.sort(("start.scan_id", -1)).keys()) == [RUNS[n][0] for n in (3, 2, 1, 0)]


def test_by_uid(server, client):
    """The beginning of a uid is enough, where it is that of one run only."""
    for each in (client, server.client):
        for uid, _, _ in RUNS:
            assert each[uid].start["uid"] == each[uid[:8]].start["uid"] == uid
        with pytest.raises(ValueError, match="aaaaa1 has multiple matches"):
            each["aaaaa1"]
        with pytest.raises(KeyError, match="No match for partial_uid aaaaa2"):
            each["aaaaa2"]
        with pytest.raises(ValueError, match="at least 5 characters"):
            each["aaaa"]
    assert "aaaa" not in server.client
    assert find_run(client, "bbb")[0] == RUNS[1][0]


QUERIES = {
    "scan id": (ScanID(8), [RUNS[2][0], RUNS[1][0]], [RUNS[1][0]]),
    "all of a scan id": (ScanID(8, duplicates="all"), [RUNS[2][0], RUNS[1][0]], None),
    "scan ids from 8": (ScanIDRange(8, 10), [RUNS[2][0], RUNS[1][0]], None),
    "uid": (PartialUID("ccccc"), [RUNS[3][0]], None),
    "nobody's uid": (PartialUID("ddddd"), [], None),
    "since": (TimeRange(since=2000.0, timezone="UTC"), BY_TIME[1:], None),
    "until": (TimeRange(until=3000.0, timezone="UTC"), BY_TIME[:2], None),
    "between": (TimeRange(since=1000.0, until=10000.0, timezone="UTC"), BY_TIME[1:3], None),
    "metadata": (Eq("start.sample", "sample 10"), [RUNS[3][0]], None),
    "scan ids of nobody": (ScanIDRange(8, 2**80), [RUNS[3][0], RUNS[2][0], RUNS[1][0]], None),
    "no scan id": (ScanID(-(10**400)), [], None),
    "no beginning": (Like("start.uid", "%133-0000%"), [RUNS[2][0]], None),
}


@pytest.mark.parametrize("name", QUERIES)
def test_queries(client, name):
    """The plugins' queries find runs in the order of their time, asked by their own client and by Tiled's."""
    query, found, by_server = QUERIES[name]
    assert list(client.search(query).keys()) == found
    plain = Container(client.context, item=client.item, structure_clients=client.structure_clients)
    assert list(plain.search(query).keys()) == (found if by_server is None else by_server)
    assert len(plain.search(query)) == len(found if by_server is None else by_server)


@pytest.fixture
def mapped_again():
    """What databroker's old interfaces make of the runs of all clients of a process is undone."""
    yield
    DEFAULT_STRUCTURE_CLIENT_DISPATCH["numpy"].set("BlueskyRun", lambda: BlueskyRun)


@pytest.mark.usefixtures("mapped_again")
def test_v1(client):
    """The first interface of databroker reads runs, by all that it was indexed by."""
    catalog = client.v1
    for header in (catalog[-1], catalog[8], catalog[RUNS[1][0][:8]]):
        assert header.start["uid"] == RUNS[1][0]
        assert header.table()["x"].tolist() == [0.5, 1.5]


@pytest.mark.usefixtures("mapped_again")
def test_headers_are_runs(client, tmp_path):
    """What takes a run takes a Header of databroker's first interface, whatever its catalog keeps."""
    run = SmallRun(tmp_path, 1)
    with CatalogWriter(client, spool=tmp_path / "spool") as writer:
        for name, doc in run.documents:
            writer(name, doc)
    header = client.v1[run.uid]
    assert open_array(header, "image", root_map={}).shape[0] == run.events
    assert preview(header).count == run.events
    with pytest.raises(TypeError, match="is no array; expected one such as run"):
        open_array(header)
    client.delete_contents([run.uid], recursive=True, external_only=False)


@pytest.mark.usefixtures("mapped_again")
def test_documents_come_back(client):
    """What takes a run takes one that was found by number, whichever class of client databroker left behind."""
    for run in (client[-1], client.v2[-1]):
        assert [name for name, _ in documents(run)] == ["start", "descriptor", "event", "event", "stop"]


def test_a_writer_takes_no_run_for_another(server, tmp_path):
    """A run whose uid another's begins with is written as its own."""
    stock = from_uri(server.uri, api_key=server.api_key)
    write(stock, tmp_path / "spool", [("bbbbb", 11, 1.0)])
    assert stock["bbbbb"].start["scan_id"] == 11
    assert stock["bbbbb2"].start["scan_id"] == 8
    stock.delete_contents(["bbbbb"], recursive=True, external_only=False)
    stock.context.close()


def test_pages(server, client):
    """Of many runs each is listed once and in order, also where some are removed from page to page."""
    spec = Spec("BlueskyRun", version="3.0")
    for number in range(25):
        start = {"uid": f"page {number:02}", "time": 5000.0 + (number * 7) % 25, "scan_id": 100 + number}
        server.client.create_container(start["uid"], metadata={"start": start}, specs=[spec])
    found = client.search(ScanIDRange(100, 200))
    times = [item.metadata["start"]["time"] for item in found.values().page_size(4)]
    assert times == [5000.0 + number for number in range(25)]
    assert [item.metadata["start"]["time"] for item in found.values().page_size(4)[::-1]] == times[::-1]
    by_scan_id = found.sort(("start.scan_id", -1)).keys().page_size(4)
    assert list(by_scan_id) == [f"page {number:02}" for number in range(24, -1, -1)]
    for key in found.keys().page_size(4):
        server.client.delete_contents([key])
    assert list(found.keys()) == []


@pytest.mark.skipif(not hasattr(Container, "search_deep"), reason="Tiled before 0.2.19 has no search below a container")
def test_several_with_all_that_is_in_them(server, client, tmp_path):
    """Runs that are asked for at once have the same in them as each by itself; pages leave nothing out."""
    runs = [SmallRun(tmp_path, number, events=3) for number in range(2)]
    with CatalogWriter(client, spool=tmp_path / "spool") as writer:
        for run in runs:
            for name, doc in run.documents:
                writer(name, doc)
    uids = [runs[1].uid, "nothing like it", runs[0].uid, *BY_TIME]
    trees = trees_of_runs(client, uids)
    assert set(trees) == {*BY_TIME, *(run.uid for run in runs)}
    plain = plain_container(client)
    for uid, tree in trees.items():
        assert tree._below is not None
        alone = RunTree(client[uid])
        assert tree.metadata == alone.metadata
        assert list(tree.streams) == list(alone.streams) == ["primary"]
        for key, node in alone.children("primary").items():
            same = tree.children("primary")[key]
            assert (same.item, same.uri) == (node.item, node.uri)
            assert same.data_sources() == node.data_sources()
        assert tree.children("primary").keys() == alone.children("primary").keys()
    paged = plain.search_deep(Below(uids), max_depth=3)._items_slice(0, None, 1, page_size=4)
    paths = [path for path, _ in paged]
    assert sorted(set(paths)) == sorted(paths)
    below = {(uid, *path) for uid, nodes in runs_with_contents(client, uids).items() for path in nodes}
    assert set(paths) == below
    for run in runs:
        client.delete_contents(run.uid, recursive=True, external_only=False)


def test_served_before(tmp_path):
    """A catalog that was served before is one of runs; with other things in it it stays the container that it was."""
    with serve_catalog(tmp_path / "kept") as first:
        write(first.client, tmp_path / "spool", RUNS[:2])
        first.client.create_container("raw")
        assert first.client["raw"].path_parts == ["raw"]
    with serve_catalog(tmp_path / "kept") as second:
        assert type(second.client) is Container
        assert second.client["raw"].path_parts == ["raw"]
        assert list(second.client.search(ScanID(8))) == [RUNS[1][0]]
        second.client.delete_contents(["raw"])
    with serve_catalog(tmp_path / "kept") as third:
        assert third.client[-1].start["uid"] == RUNS[1][0]
