"""Catalogs of databroker: the contract that Tiled's keeps, and what is theirs alone."""

from collections import Counter
from contextlib import closing

import event_model
import h5py
import numpy as np
import pytest
from brokers import API_KEY, counts, served, temporary
from contracts import CatalogContract
from proxy import Proxy
from small_runs import SHAPE, SmallRun, plain

from bluesky_filestore import CatalogWriter, documents, fill, open_array, register_handler
from bluesky_filestore.catalogs.databroker.broker import tree_of
from bluesky_filestore.catalogs.databroker.collections import Collections
from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
from bluesky_filestore.catalogs.tiled.connecting import connect
from bluesky_filestore.delivery.conveyor import Conveyor
from bluesky_filestore.delivery.problems import Problems
from bluesky_filestore.delivery.resuming import follow
from bluesky_filestore.errors import CatalogUnreachableError, OptionError
from bluesky_filestore.handlers import deregister_handler
from bluesky_filestore.reading.preview import preview
from bluesky_filestore.spool import Ledger

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def broker():
    """What `databroker.temp()` gives."""
    return temporary()


@pytest.fixture(scope="module")
def server():
    """A server with databroker's tree: its address, and the tree."""
    with served() as (uri, tree):
        yield uri, tree


def check_once(tree, run, *, announced=1):
    """The collections of a tree have each document of a run, once, as it was; what it announces, so many times at most.

    A server does not tell whether it has a resource or a datum that no event has referred to.
    """
    here = Collections(tree.database)
    told = list(plain(here.documents_of(run.uid)))
    assert sorted(told, key=repr) == sorted(plain(run.documents), key=repr)
    assert [each for each in told if each[0] == "event"] == [
        each for each in plain(run.documents) if each[0] == "event"
    ]
    for name, field in (("run_start", "uid"), ("event_descriptor", "uid"), ("event", "uid"), ("run_stop", "uid")):
        assert set(Counter(each[field] for each in tree.database[name].find()).values()) == {1}, name
    for name, field in (("resource", "uid"), ("datum", "datum_id")):
        kept = list(tree.database[name].find({}, {"_id": False}))
        assert max(Counter(each[field] for each in kept).values()) <= announced, name
        assert len({repr(each) for each in kept}) == len({each[field] for each in kept}), name


class TestTiled(CatalogContract):
    """A catalog in Tiled's tree."""

    @pytest.fixture(autouse=True)
    def _catalog(self, catalog):
        self.client = catalog.client

    def connect(self):
        """One."""
        return TiledCatalog(self.client)

    def compare(self, run):
        """By `documents`."""
        run.compare(self.client)

    @pytest.fixture
    def tmp_path(self, data_directory, tmp_path):
        """Where the server can read."""
        directory = data_directory / tmp_path.name
        directory.mkdir()
        return directory


class TestTemporary(CatalogContract):
    """A broker in this process."""

    lives = tuple(range(1, 26))

    @pytest.fixture(autouse=True)
    def _broker(self, broker):
        self.broker = broker

    def connect(self):
        """One."""
        return TiledCatalog(self.broker.v2)

    def compare(self, run):
        """By its collections, and by what databroker reads."""
        check_once(tree_of(self.broker.v2), run)
        read = np.array(list(self.broker[run.uid].data("image")))
        np.testing.assert_array_equal(read[:, 0], run.images)


class TestServed(CatalogContract):
    """A broker behind a server."""

    lives = (4, 9)

    @pytest.fixture(autouse=True)
    def _server(self, server):
        self.uri, self.tree = server
        self.made = []
        yield
        for catalog in self.made:
            catalog.close()

    def connect(self):
        """One."""
        self.made.append(TiledCatalog(lambda: connect(self.uri, api_key=API_KEY), f"{self.uri}/api/v1/metadata/"))
        return self.made[-1]

    def compare(self, run):
        """By the collections of the server."""
        check_once(self.tree, run, announced=4)


def test_writer(broker, tmp_path):
    """A writer for a Broker: documents as they came, frames by databroker's own ways, and ours for what it dropped."""
    run = SmallRun(tmp_path, 3)
    with CatalogWriter(broker) as writer:
        for name, doc in run.documents:
            writer(name, doc)
        # Nobody else could ever deliver to it.
        assert writer.status().spool is None
        assert writer.status().catalogs[0].catalog.startswith("memory://")
    header = broker[run.uid]
    table = header.table(fields=["x"])
    # The descriptor says that they are integers, and databroker goes by it.
    assert table["x"].tolist() == list(map(int, run.x))
    np.testing.assert_array_equal(np.array(list(header.v2["primary"]["data"]["image"]))[:, 0], run.images)
    for given in (header, header.v2, broker.v2[run.uid]):
        assert list(plain(documents(given))) == list(plain(run.documents))
        filled = [doc["data"]["image"][0] for name, doc in fill(documents(given)) if name == "event"]
        np.testing.assert_array_equal(filled, run.images)
        np.testing.assert_array_equal(open_array(given)[:][:, 0], run.images)
        assert (preview(given).shown, preview(given).missing) == (len(run.images), {})


def test_over_http(server, tmp_path):
    """A writer by the address of a server with databroker's tree; values that are no numbers stay so."""
    uri, tree = server
    run = event_model.compose_run()
    number = {"source": "s", "dtype": "number", "shape": []}
    bundle = run.compose_descriptor(name="primary", data_keys={"x": number})
    values = [1.0, float("nan"), float("inf")]
    with CatalogWriter.from_uri(uri, api_key=API_KEY, spool=tmp_path / "spool") as writer:
        writer("start", run.start_doc)
        writer("descriptor", bundle.descriptor_doc)
        for value in values:
            writer("event", bundle.compose_event(data={"x": np.float64(value)}, timestamps={"x": 1.0}))
        writer("stop", run.compose_stop())
    client = connect(uri, api_key=API_KEY)
    told = list(documents(client[run.start_doc["uid"]]))
    assert [name for name, _ in told] == ["start", "descriptor", "event", "event", "event", "stop"]
    np.testing.assert_equal([doc["data"]["x"] for name, doc in told if name == "event"], values)
    np.testing.assert_equal(
        [each["data"]["x"] for each in tree.database["event"].find({"descriptor": bundle.descriptor_doc["uid"]})],
        values,
    )
    client.context.close()


def test_lost_answers_of_a_server(server, tmp_path):
    """A network that loses answers and requests at random: each document is there once, since it is asked first."""
    uri, tree = server
    run = SmallRun(tmp_path, 8, events=6)
    with Proxy(uri) as proxy:
        lost = {("POST", 4): "drop answer", ("POST", 9): "cut", ("POST", 15): "cut answer"}
        posts = iter(range(10_000))
        proxy.fault = lambda request: lost.get(("POST", next(posts))) if request.method == "POST" else None
        with CatalogWriter.from_uri(proxy.uri, api_key=API_KEY, spool=tmp_path / "spool", wait_on_stop=0) as writer:
            for name, doc in run.documents:
                writer(name, doc)
            for _ in range(20):
                try:
                    writer.flush()
                    break
                except CatalogUnreachableError:
                    continue
        assert sum(proxy.befell[fault] for fault in lost.values()) == 3
    check_once(tree, run, announced=4)


def test_pages_and_twice(broker, tmp_path):
    """Pages are unpacked by databroker alone; what comes twice, or before its turn, is left out and said."""
    run = SmallRun(tmp_path, 4, events=3)
    by_name = {name: [doc for each, doc in run.documents if each == name] for name, _ in run.documents}
    page = event_model.pack_event_page(*by_name["event"])
    order = [
        ("event", by_name["event"][0]),
        ("start", by_name["start"][0]),
        ("descriptor", by_name["descriptor"][0]),
        ("resource", by_name["resource"][0]),
        ("datum_page", event_model.pack_datum_page(*by_name["datum"])),
        ("event_page", page),
        ("event_page", page),
        ("event", by_name["event"][1]),
        ("stop", by_name["stop"][0]),
    ]
    with CatalogWriter(broker) as writer:
        for name, doc in order:
            writer(name, doc)
        writer.flush()
        assert len([each for each in writer.status().problems if "came twice" in each]) == 3
    check_once(tree_of(broker.v2), run)


def test_two_writers(broker, tmp_path):
    """Of two writers of one process that pass on the same runs, as where a file ran twice, each puts in what lacks."""
    runs = [SmallRun(tmp_path, number, events=20) for number in (5, 6)]
    spools = [tmp_path / "one", tmp_path / "other"]
    with CatalogWriter(broker, spool=spools[0]) as one, CatalogWriter(broker, spool=spools[1]) as other:
        for name, doc in [pair for run in runs for pair in run.documents]:
            one(name, doc)
            other(name, doc)
    for run in runs:
        check_once(tree_of(broker.v2), run)


def test_a_run_is_no_catalog(broker, tmp_path):
    """A run is refused where a catalog was meant."""
    run = SmallRun(tmp_path, 9, events=1)
    with CatalogWriter(broker) as writer:
        for name, doc in run.documents:
            writer(name, doc)
    with pytest.raises(OptionError, match="is in a catalog, and none"):
        CatalogWriter(broker.v2[run.uid])


def test_a_resource_of_an_earlier_run(broker, tmp_path):
    """Resources and datums that came before their run, with none, or after their event are there once."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["/entry/data/data"] = np.arange(36, dtype="<u2").reshape(3, *SHAPE)
    first, second = event_model.compose_run(), event_model.compose_run()
    image = {"source": "s", "dtype": "array", "shape": [1, *SHAPE], "dtype_numpy": "<u2", "external": "FILESTORE:"}
    resource = first.compose_resource(
        spec="AD_HDF5", root=str(tmp_path), resource_path="a.h5", resource_kwargs={"frame_per_point": 1}
    )
    datums = [resource.compose_datum(datum_kwargs={"point_number": number}) for number in range(3)]
    bundles = [each.compose_descriptor(name="primary", data_keys={"image": image}) for each in (first, second)]

    def event(number, datum):
        data = {"image": datum["datum_id"]}
        return bundles[number].compose_event(data=data, timestamps={"image": 1.0}, filled={"image": False})

    before = counts(tree_of(broker.v2))
    with CatalogWriter(broker) as writer:
        for name, doc in (
            ("resource", resource.resource_doc),
            ("datum", datums[0]),
            ("start", first.start_doc),
            ("descriptor", bundles[0].descriptor_doc),
            ("event", event(0, datums[0])),
            ("stop", first.compose_stop()),
            ("start", second.start_doc),
            ("descriptor", bundles[1].descriptor_doc),
            ("event", event(1, datums[0])),
            ("event", event(1, datums[1])),
            ("datum", datums[1]),
            ("datum", datums[2]),
            ("event", event(1, datums[2])),
            ("stop", second.compose_stop()),
        ):
            writer(name, doc)
        writer.flush()
        assert writer.status().problems == ()
    after = counts(tree_of(broker.v2))
    assert {name: after[name] - before[name] for name in after} == {
        "run_start": 2,
        "event_descriptor": 2,
        "resource": 1,
        "datum": 3,
        "event": 4,
        "run_stop": 2,
    }
    read = np.array(list(broker[second.start_doc["uid"]].data("image")))[:, 0]
    np.testing.assert_array_equal(read.reshape(3, -1)[:, 0], [0, 12, 24])
    # A reader that is given a datum with each event is given each once by ours.
    assert Counter(name for name, _ in documents(broker[second.start_doc["uid"]]))["datum"] == 3


def test_what_it_has_no_place_for(broker, tmp_path):
    """Stream documents, which databroker drops without a word, are said to be left out; the rest is there."""
    run = event_model.compose_run()
    image = {"source": "s", "dtype": "array", "shape": [2, 2], "dtype_numpy": "<u2", "external": "STREAM:"}
    bundle = run.compose_descriptor(name="primary", data_keys={"image": image})
    stream = run.compose_stream_resource(
        mimetype="application/x-hdf5", uri="file://localhost/a.h5", data_key="image", parameters={"dataset": "a"}
    )
    datum = stream.compose_stream_datum({"start": 0, "stop": 1}, {"start": 1, "stop": 2}, bundle.descriptor_doc)
    with CatalogWriter(broker, spool=tmp_path / "spool") as writer:
        for name, doc in (
            ("start", run.start_doc),
            ("descriptor", bundle.descriptor_doc),
            ("stream_resource", stream.stream_resource_doc),
            ("stream_datum", datum),
            ("stop", run.compose_stop()),
        ):
            writer(name, doc)
        writer.flush()
        (parked,) = writer.status().catalogs[0].parked.values()
        assert "databroker has no place for a stream_resource" in parked
    assert broker[run.start_doc["uid"]].stop["exit_status"] == "success"


def test_handlers_are_shared(broker, tmp_path):
    """A handler that is registered with us reads databroker's runs, whether they were read before or not."""
    run = event_model.compose_run()
    image = {"source": "s", "dtype": "array", "shape": [2], "dtype_numpy": "<f8", "external": "FILESTORE:"}
    bundle = run.compose_descriptor(name="primary", data_keys={"image": image})
    resource = run.compose_resource(spec="OUR_OWN", root="/", resource_path="nowhere", resource_kwargs={})
    datum = resource.compose_datum(datum_kwargs={"n": 7})
    event = bundle.compose_event(data={"image": datum["datum_id"]}, timestamps={"image": 1.0}, filled={"image": False})
    with CatalogWriter(broker) as writer:
        for pair in (
            ("start", run.start_doc),
            ("descriptor", bundle.descriptor_doc),
            ("resource", resource.resource_doc),
            ("datum", datum),
            ("event", event),
            ("stop", run.compose_stop()),
        ):
            writer(*pair)
    uid = run.start_doc["uid"]
    try:
        for factor in (1, 10):
            register_handler("OUR_OWN", _handler(factor), overwrite=True)
            (read,) = broker[uid].data("image")
            assert read.tolist() == [7.0 * factor, 7.0 * factor]
    finally:
        deregister_handler("OUR_OWN")
    assert "OUR_OWN" not in tree_of(broker.v2).handler_registry


def _handler(factor):
    return lambda path, **_: lambda n: np.full(2, float(n * factor))


def test_by_name(server, profile, tmp_path, monkeypatch):
    """A catalog by databroker's name for it is a profile of Tiled's; one that cannot be meant is refused."""
    uri, tree = server
    profile(uri)
    monkeypatch.setenv("TILED_API_KEY", API_KEY)
    run = SmallRun(tmp_path, 9, events=2)
    with CatalogWriter.from_databroker("ours", spool=tmp_path / "spool") as writer:
        for name, doc in run.documents:
            writer(name, doc)
        assert writer.status().catalogs[0].catalog == f"{uri}/api/v1/metadata/"
    check_once(tree, run, announced=4)
    with pytest.raises(OptionError, match=r"make it, and give it to CatalogWriter"):
        CatalogWriter.from_databroker("temp")
    with pytest.raises(CatalogUnreachableError, match="no Tiled profile"):
        CatalogWriter.from_databroker("nobodys")


def test_gone_with_its_process():
    """A catalog that was in the memory of another process cannot be connected to, and it is said what to do."""
    with pytest.raises(CatalogUnreachableError, match=r"went with it.*bluesky-filestore rename"):
        connect("memory://host/123-abc")


def test_resumed(server, tmp_path):
    """What waits for a broker behind a server is delivered by `resume`, which sees what it is by itself."""
    uri, tree = server
    run = SmallRun(tmp_path, 11, events=2)
    CatalogContract().spool(tmp_path / "spool", run)
    address = f"{uri}/api/v1/metadata/"
    looks = list(follow(tmp_path / "spool", address, lambda: connect(uri, api_key=API_KEY), wait=5.0))
    assert looks[-1].done
    assert looks[-1].runs == {"delivered": 1}
    check_once(tree, run, announced=4)


def test_without_the_tree(broker, tmp_path, monkeypatch):
    """A tree in this process that is nowhere to be found is asked by HTTP, as one behind a server is."""
    tree = tree_of(broker.v2)
    run = SmallRun(tmp_path, 12, events=2)
    CatalogContract().spool(tmp_path / "spool", run)
    for module in ("store", "broker"):
        monkeypatch.setattr(f"bluesky_filestore.catalogs.databroker.{module}.tree_of", lambda _: None)
    catalog = TiledCatalog(broker.v2)
    assert not catalog.is_in_memory
    assert catalog.takes_documents
    CatalogContract().deliver(catalog, tmp_path / "spool")
    monkeypatch.undo()
    check_once(tree, run)


def test_a_request_that_came_late(server, tmp_path, monkeypatch):
    """A document that is there twice after all, as a lost request was carried out late, is said, and parks its run."""
    uri, tree = server
    run = SmallRun(tmp_path, 13, events=2)
    CatalogContract().spool(tmp_path / "spool", run)
    monkeypatch.setattr("bluesky_filestore.delivery.lane._LATEST_SECONDS", 0.0)
    catalog = TiledCatalog(lambda: connect(uri, api_key=API_KEY), "http://somewhere")
    catalog.doubt(run.uid)
    with closing(Ledger(tmp_path / "spool")) as ledger:
        conveyor = Conveyor(ledger, catalog, Problems(), since=0)
        conveyor.move()
        assert ledger.counts(1) == {"settling": 1}
        event = next(doc for name, doc in run.documents if name == "event")
        kept = tree.database["event"].find_one({"uid": event["uid"]}, {"_id": False})
        twice = tree.database["event"].insert_one(kept).inserted_id
        conveyor.look_again()
        assert ledger.counts(1) == {"parked": 1}
        assert f"holds event_page '{event['uid']}'" in ledger.entries(1)[0].reason
    tree.database["event"].delete_one({"_id": twice})
    catalog.close()
