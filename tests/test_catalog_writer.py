"""The callback that is subscribed to a RunEngine."""

import logging
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import event_model
import h5py
import numpy as np
import pytest
from proxy import Proxy

from bluesky_filestore import CatalogWriter, serve_catalog
from bluesky_filestore.catalogs.tiled.nodes import Nodes
from bluesky_filestore.errors import CatalogAccessError, CatalogError, CatalogUnreachableError, OptionError

NUMBER = {"source": "s", "dtype": "number", "shape": []}
IMAGE = {"source": "s", "dtype": "array", "shape": [1, 4, 6], "external": "FILESTORE:"}


@pytest.fixture
def writer(catalog):
    """A writer for the session's catalog."""
    with CatalogWriter(catalog.client) as ours:
        yield ours


def run_documents(events=3, **metadata):
    """The documents of a run with a number."""
    run = event_model.compose_run(metadata=metadata)
    bundle = run.compose_descriptor(name="primary", data_keys={"x": NUMBER})
    singles = [("event", bundle.compose_event(data={"x": float(n)}, timestamps={"x": 5.0})) for n in range(events)]
    documents = [("start", run.start_doc), ("descriptor", bundle.descriptor_doc), *singles]
    return run.start_doc["uid"], [*documents, ("stop", run.compose_stop())]


def image_documents(root, name="a.h5", points=3):
    """The documents of a run with an image in an HDF5 file."""
    run = event_model.compose_run()
    bundle = run.compose_descriptor(name="primary", data_keys={"image": {**IMAGE, "dtype_numpy": "<u2"}})
    resource = run.compose_resource(spec="AD_HDF5", root=str(root), resource_path=name, resource_kwargs={})
    documents = [
        ("start", run.start_doc),
        ("descriptor", bundle.descriptor_doc),
        ("resource", resource.resource_doc),
    ]
    for point in range(points):
        datum = resource.compose_datum(datum_kwargs={"point_number": point})
        event = bundle.compose_event(
            data={"image": datum["datum_id"]}, timestamps={"image": 5.0}, filled={"image": False}
        )
        documents += [("datum", datum), ("event", event)]
    return run.start_doc["uid"], [*documents, ("stop", run.compose_stop())]


def feed(writer, documents):
    """Give the writer documents."""
    for name, doc in documents:
        writer(name, doc)


def wait_for(condition, timeout=30.0):
    """Wait until something is the case."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_run_engine(catalog, run_engine, data_directory):
    """A scan with ophyd's simulated motor, detector and image is readable when the RunEngine returns."""
    from bluesky.plans import scan
    from ophyd.sim import SynAxis, SynGauss, SynSignalWithRegistry

    motor = SynAxis(name="motor")
    det = SynGauss("det", motor, "motor", center=0, Imax=1, sigma=1)
    images = iter(range(10))
    img = SynSignalWithRegistry(
        func=lambda: np.full((3, 5), next(images), "i4"), name="img", save_path=str(data_directory)
    )
    with CatalogWriter(catalog.client) as writer:
        token = run_engine.subscribe(writer)
        (uid,) = run_engine(scan([det, img], motor, -1, 1, 5))
        run_engine.unsubscribe(token)
        dataset = catalog.client[uid]["primary"].read()
    assert dataset["motor"].values.tolist() == [-1, -0.5, 0, 0.5, 1]
    assert dataset["det"].values.argmax() == 2
    image = dataset["img"].values
    assert image.dtype == np.dtype("i4")
    assert np.diff(image[:, 0, 0]).tolist() == [1, 1, 1, 1]
    assert catalog.client[uid].metadata["start"]["plan_name"] == "scan"


def test_interrupted_scan(catalog, run_engine):
    """A scan that is paused, rewound and resumed has all events that were emitted, in their order."""
    from bluesky.plan_stubs import checkpoint, close_run, create, null, open_run, pause, read, save
    from ophyd.sim import SynAxis

    motor = SynAxis(name="motor")
    paused = []

    def plan():
        yield from open_run()
        yield from checkpoint()
        for number in range(3):
            yield from create("primary")
            yield from read(motor)
            yield from save()
            if number == 1 and not paused:
                paused.append(True)
                yield from pause()
            yield from null()
        yield from close_run()

    from bluesky.utils import RunEngineInterrupted

    with CatalogWriter(catalog.client) as writer:
        token = run_engine.subscribe(writer)
        with pytest.raises(RunEngineInterrupted):
            run_engine(plan())
        (uid,) = run_engine.resume()
        run_engine.unsubscribe(token)
    assert catalog.client[uid]["primary"]["seq_num"].read().tolist() == [1, 2, 1, 2, 3]


def test_two_runs_at_once(catalog, writer):
    """Documents of runs that are open together go to their own runs."""
    first, second = run_documents(2), run_documents(4)
    for pair in zip(first[1], second[1], strict=False):
        feed(writer, pair)
    feed(writer, second[1][len(first[1]) :])
    assert [catalog.client[uid]["primary"]["x"].read().size for uid in (first[0], second[0])] == [2, 4]
    assert writer.status().open_runs == ()


def test_pages(catalog, writer):
    """A run in pages is the same as a run in events."""
    uid, documents = run_documents(5)
    events = [doc for name, doc in documents if name == "event"]
    feed(writer, [*documents[:2], ("event_page", event_model.pack_event_page(*events)), documents[-1]])
    assert catalog.client[uid]["primary"]["x"].read().tolist() == [0, 1, 2, 3, 4]


def rows_of(client, uid):
    """How many rows a run's table has, as soon as there is one."""
    try:
        return client[uid]["primary"]["x"].read().size
    except KeyError:
        return 0


@pytest.mark.parametrize("spool", [None, "spool"])
def test_batches(catalog, tmp_path, spool):
    """Events are written when enough have come, however long the interval is."""
    uid, documents = run_documents(6)
    spool = spool and tmp_path / spool
    with CatalogWriter(catalog.client, spool=spool, batch_size=2, interval=3600) as writer:
        feed(writer, documents[:7])
        wait_for(lambda: rows_of(catalog.client, uid) >= 4)
        writer.flush()
        assert rows_of(catalog.client, uid) == 5


def test_nothing_is_asked_of_the_catalog_by_the_plan(catalog):
    """Without a spool, too, a catalog that hangs holds up no document; what it has not got is where the error says."""
    uid, documents = run_documents(6)
    with Proxy(catalog.uri) as proxy:
        writer = CatalogWriter.from_uri(proxy.uri, api_key=catalog.api_key, spool=None, wait_on_stop=0.5)
        proxy.fault = lambda _: "hold"
        took = []
        for name, doc in documents:
            began = time.monotonic()
            writer(name, doc)
            took.append(time.monotonic() - began)
        assert max(took[:-1]) < 0.5
        assert took[-1] < 3
        proxy.fault = lambda _: 503
        proxy.release()
        with pytest.raises(CatalogUnreachableError, match="waits in") as refused:
            writer.close()
        # Not even where it is closed again.
        writer.close()
    directory = Path(re.search(r"waits in (\S+);", str(refused.value))[1])
    with CatalogWriter(catalog.client, spool=directory) as another:
        another.flush()
    assert rows_of(catalog.client, uid) == 6
    shutil.rmtree(directory)


def test_what_is_delivered_leaves_nothing(catalog):
    """The place that a writer without a spool has for its documents is gone with it."""
    _, documents = run_documents(3)
    writer = CatalogWriter(catalog.client, spool=None)
    directory = writer.directory
    feed(writer, documents)
    assert directory.is_dir()
    writer.close()
    assert not directory.exists()
    assert writer.status().waiting == 0


SCRIPT = """
import sys
from spooled import run_documents
from tiled.client import from_uri
from bluesky_filestore import CatalogWriter

uid, documents = run_documents(40)
writer = CatalogWriter(from_uri(sys.argv[1], api_key=sys.argv[2]), spool=None, wait_on_stop=0)
for name, doc in documents:
    writer(name, doc)
print(uid, writer.directory)
"""


def test_script_that_ends_without_closing(catalog):
    """What a writer without a spool still has is delivered when its process ends, and nothing is left behind."""
    command = [sys.executable, "-c", SCRIPT, catalog.uri, catalog.api_key]
    ended = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=120, check=True)
    uid, directory = ended.stdout.split()
    assert rows_of(catalog.client, uid) == 40
    assert "stop" in catalog.client[uid].metadata
    assert not Path(directory).exists(), ended.stderr


def test_live(catalog, data_directory):
    """While a slow plan goes on, its rows and frames are readable for a second client within a second."""
    from tiled.client import from_uri

    uid, documents = image_documents(data_directory, "live.h5")
    second = from_uri(catalog.uri, api_key=catalog.api_key)
    with h5py.File(data_directory / "live.h5", "w", libver="latest") as file:
        frames = file.create_dataset("/entry/data/data", (0, 4, 6), "<u2", maxshape=(None, 4, 6), chunks=(1, 4, 6))
        file.swmr_mode = True
        with CatalogWriter(catalog.client, interval=0.1) as writer:
            feed(writer, documents[:3])
            for point in range(3):
                frames.resize(point + 1, axis=0)
                frames[point] = point
                frames.flush()
                feed(writer, documents[3 + 2 * point : 5 + 2 * point])
                began = time.monotonic()
                wait_for(lambda: uid in second and "primary" in second[uid] and "image" in second[uid]["primary"])
                wait_for(lambda point=point: second[uid]["primary"]["image"].shape[0] == point + 1)
                assert time.monotonic() - began < 5.0, "a slow machine is given some time more than the second"
                assert second[uid]["primary"]["image"][point].tolist() == np.full((1, 4, 6), point).tolist()
                assert second[uid]["primary"]["seq_num"].read().tolist() == list(range(1, point + 2))
            assert "stop" not in second[uid].metadata
            writer(*documents[-1])
    second.context.close()


def test_no_request_an_event(catalog):
    """Events that come quickly are written together: requests grow with the time, not with the events."""
    from tiled.client import from_uri

    client = from_uri(catalog.uri, api_key=catalog.api_key)
    requests = []
    client.context.http_client.event_hooks["request"].append(requests.append)
    uid, documents = run_documents(2000)
    with CatalogWriter(client, interval=0.2) as writer:
        feed(writer, documents)
    assert len(requests) < 200
    assert catalog.client[uid]["primary"]["x"].read().size == 2000
    client.context.close()


def test_run_without_a_stop(catalog):
    """What was received of a run that never ends is written on closing."""
    uid, documents = run_documents(3)
    with CatalogWriter(catalog.client, interval=3600) as writer:
        feed(writer, documents[:-1])
        assert writer.status().open_runs == (uid,)
    assert catalog.client[uid]["primary"]["x"].read().tolist() == [0, 1, 2]
    assert "stop" not in catalog.client[uid].metadata


def test_resource_of_an_earlier_run(catalog, writer, data_directory):
    """A staging that outlives a run announces its resource once; later runs use it, too."""
    with h5py.File(data_directory / "two runs.h5", "w") as file:
        file["/entry/data/data"] = np.arange(6 * 24, dtype="<u2").reshape(6, 4, 6)
    uid, documents = image_documents(data_directory, "two runs.h5")
    feed(writer, documents)
    resource = documents[2][1]["uid"]
    run = event_model.compose_run()
    bundle = run.compose_descriptor(name="primary", data_keys={"image": IMAGE})
    later = [("start", run.start_doc), ("descriptor", bundle.descriptor_doc)]
    for point in (3, 4, 5):
        datum = {"datum_id": f"{resource}/{point}", "resource": resource, "datum_kwargs": {"point_number": point}}
        event = bundle.compose_event(
            data={"image": datum["datum_id"]}, timestamps={"image": 5.0}, filled={"image": False}
        )
        later += [("event", event), ("datum", datum)]
    feed(writer, [*later, ("stop", run.compose_stop())])
    arrays = [catalog.client[run]["primary"]["image"].read() for run in (uid, run.start_doc["uid"])]
    np.testing.assert_array_equal(np.concatenate(arrays).ravel(), np.arange(6 * 24))


def test_file_is_closed_after_the_run(catalog, writer, data_directory):
    """A detector that is unstaged after its run's last document holds its file until then: it is looked at later."""
    uid, documents = image_documents(data_directory, "late.h5")
    with h5py.File(data_directory / "late.h5", "w") as file:
        file["/entry/data/data"] = np.arange(3 * 24, dtype="<f4").reshape(3, 4, 6)
        file.flush()
        feed(writer, documents)
    writer.flush(timeout=30)
    assert writer.status().unsettled_runs == ()
    array = catalog.client[uid]["primary"]["image"].read()
    assert array.dtype == np.dtype("<f4")
    np.testing.assert_array_equal(array.ravel(), np.arange(3 * 24))
    assert set(catalog.client[uid].metadata["filestore"]) == {"differences"}


@pytest.mark.parametrize("spool", [None, "spool"])
def test_file_is_closed_after_the_writer(catalog, data_directory, tmp_path, spool):
    """A file that is still held when the writer is closed, and let go a moment later, is settled by the time it is."""
    uid, documents = image_documents(data_directory, f"held {spool}.h5")
    writer = CatalogWriter(catalog.client, spool=None if spool is None else tmp_path / spool)
    with h5py.File(data_directory / f"held {spool}.h5", "w") as file:
        file["/entry/data/data"] = np.arange(3 * 24, dtype="<f4").reshape(3, 4, 6)
        file.flush()
        feed(writer, documents)
        closing = threading.Thread(target=writer.close)
        closing.start()
        time.sleep(0.5)
    closing.join(20)
    assert writer.status().unsettled_runs == ()
    assert catalog.client[uid]["primary"]["image"].read().dtype == np.dtype("<f4")
    assert "refused" not in catalog.client[uid].metadata["filestore"]


def test_file_that_comes_late(catalog, data_directory, caplog):
    """A file that appears after its run is registered without being asked for, and without alarm."""
    uid, documents = image_documents(data_directory, "comes late.h5")
    with CatalogWriter(catalog.client) as writer:
        feed(writer, documents)
        assert "cannot be found" in catalog.client[uid].metadata["filestore"]["refused"]["primary"]["image"]
        with h5py.File(data_directory / "comes late.h5.part", "w") as file:
            file["/entry/data/data"] = np.zeros((3, 4, 6), "<u2")
        (data_directory / "comes late.h5.part").rename(data_directory / "comes late.h5")
        wait_for(lambda: not writer.status().unsettled_runs)
    assert catalog.client[uid]["primary"]["image"].shape == (3, 1, 4, 6)
    assert catalog.client[uid].metadata["filestore"] == {}
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


def test_file_that_never_comes(catalog, data_directory, caplog):
    """After a while a file is not waited for any more, and the run and the log say that it is missing."""
    uid, documents = image_documents(data_directory, "never.h5")
    with CatalogWriter(catalog.client, settle=0.1) as writer:
        feed(writer, documents)
        wait_for(lambda: not writer.status().unsettled_runs)
    assert "never.h5 cannot be found" in catalog.client[uid].metadata["notes"][0]
    # What is said of the whole run at its stop depends on which of the two comes first.
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    (of_array,) = [message for message in said if message.startswith(f"Run {uid}: ")]
    assert of_array.startswith(f"Run {uid}: 'image' in stream 'primary' is not registered")


def test_bad_documents(catalog, caplog):
    """Documents that fit nothing are left out, named in the status and in the log; the others are written."""
    uid, documents = run_documents(2)
    with caplog.at_level(logging.CRITICAL), CatalogWriter(catalog.client) as writer:
        feed(writer, documents[:2])
        writer("start", documents[0][1])
        writer("event", {**documents[2][1], "descriptor": "nobody"})
        writer("stop", {**documents[-1][1], "run_start": "nobody"})
        writer("event", {"descriptor": documents[1][1]["uid"], "uid": "half"})
        feed(writer, documents[2:])
        writer.flush()
        problems = "\n".join(writer.status().problems)
    for words in ("came twice", "refers to the start 'nobody', which was never received", "event 'half'"):
        assert words in problems
    assert catalog.client[uid]["primary"]["x"].read().tolist() == [0, 1]


def test_no_document_at_all(catalog, caplog):
    """Not even nonsense stops a plan."""
    with caplog.at_level(logging.CRITICAL), CatalogWriter(catalog.client) as writer:
        writer("event", None)
        writer("resource", {"no": "uid"})
        uid, documents = run_documents(1)
        feed(writer, documents)
        assert [words.split(" ")[0] for words in writer.status().problems] == ["event", "resource"]
    assert uid in catalog.client


def test_one_node_refused(catalog, caplog, monkeypatch):
    """A node that the catalog will not have does not keep the rest of the run from it."""
    run = event_model.compose_run()
    bundle = run.compose_descriptor(name="primary", data_keys={"x": NUMBER, "w": {**NUMBER, "dtype": "array"}})
    odd = run.compose_descriptor(name="odd", data_keys={"y": NUMBER})
    original = Nodes.make

    def make(self, path, family, **attributes):
        if path[-1] == "odd":
            raise CatalogError("there shall be no odd streams")
        return original(self, path, family, **attributes)

    monkeypatch.setattr(Nodes, "make", make)
    documents = [
        ("start", run.start_doc),
        ("descriptor", bundle.descriptor_doc),
        ("descriptor", odd.descriptor_doc),
        ("event", bundle.compose_event(data={"x": 1.0, "w": [1]}, timestamps={"x": 5.0, "w": 5.0})),
        ("event", odd.compose_event(data={"y": 1.0}, timestamps={"y": 5.0})),
        ("stop", run.compose_stop()),
    ]
    with caplog.at_level(logging.CRITICAL), CatalogWriter(catalog.client) as writer:
        feed(writer, documents)
        problems = writer.status().problems
    node = catalog.client[run.start_doc["uid"]]
    assert node["primary"]["x"].read().tolist() == [1.0]
    assert any("no odd streams" in words for words in problems)
    assert any("no odd streams" in note for note in node.metadata["notes"])


@pytest.mark.usefixtures("few_tries")
def test_catalog_goes_and_comes_back(tmp_path, caplog):
    """A catalog that stops in the middle fails no document; when it is back it gets all of them, once."""
    uid, documents = run_documents(4)
    port = free_port()
    with serve_catalog(tmp_path / "kept", port=port, api_key="secret") as first:
        writer = CatalogWriter.from_uri(first.uri, api_key="secret")
        feed(writer, documents[:4])
    with caplog.at_level(logging.CRITICAL):
        begin = time.monotonic()
        feed(writer, documents[4:])
        assert time.monotonic() - begin < 20
        status = writer.status()
        assert status.waiting > 0
        assert f"no catalog answers at {first.uri}" in status.error
        with pytest.raises(CatalogUnreachableError, match=r"Check the address, and that the server runs"):
            writer.flush()
    with serve_catalog(tmp_path / "kept", port=port, api_key="secret") as second:
        writer.close()
        assert writer.status().error == ""
        assert second.client[uid]["primary"]["x"].read().tolist() == [0, 1, 2, 3]
        assert second.client[uid].metadata["stop"]["num_events"] == {"primary": 4}


@pytest.mark.parametrize("options", [{"on_error": "raise"}, {"spool": None}, {"api_key": None}])
def test_catalog_not_reachable(options):
    """Nobody at the address, and documents could not be kept or delivered: said at once, with what to do."""
    begin = time.monotonic()
    uri = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(CatalogUnreachableError, match=rf"no catalog answers at {uri} .*Check the address"):
        CatalogWriter.from_uri(uri, **{"api_key": "secret", **options})
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("way", ["address", "profile"])
def test_catalog_away_from_the_beginning(tmp_path, caplog, profile, way):
    """A catalog that is away when the writer is made gets the runs when it comes; the log says that it is away."""
    port, spool = free_port(), tmp_path / "spool"
    uri = f"http://127.0.0.1:{port}"
    profile(uri)
    make = {
        "address": lambda: CatalogWriter.from_uri(uri, api_key="secret", spool=spool),
        "profile": lambda: CatalogWriter.from_profile("ours", api_key="secret", spool=spool),
    }[way]
    with make() as writer:
        uid, documents = run_documents()
        begin = time.monotonic()
        feed(writer, documents)
        assert time.monotonic() - begin < 30
        assert f"no catalog answers at {uri}" in caplog.text
        assert writer.status().waiting == len(documents)
        with serve_catalog(tmp_path / "kept", port=port, api_key="secret") as late:
            wait_for(lambda: uid in late.client)
            writer.flush()
            assert late.client[uid]["primary"]["x"].read().tolist() == [0, 1, 2]
            # It is the same catalog as for a writer that finds it there.
            assert writer.status().catalogs[0].catalog == late.client.uri


def test_what_ended_the_block_comes_first(tmp_path, caplog):
    """A plan that fails is what its user is told, and beside it what closing says of the catalog."""
    uri = f"http://127.0.0.1:{free_port()}"
    writer = CatalogWriter.from_uri(uri, api_key="secret", spool=tmp_path, wait_on_stop=0)
    feed(writer, run_documents()[1])
    with pytest.raises(ZeroDivisionError) as caught, writer:
        raise ZeroDivisionError("of a plan")
    (note,) = caught.value.__notes__
    for text in (note, caplog.text):
        assert f"no catalog answers at {uri}" in text
        assert "Nothing is lost" in text


def test_busy_gateway():
    """A gateway without its server is taken for a catalog that is away, not for something else."""
    import http.server
    import threading

    class Gateway(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(503)

        def log_message(self, *_):
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with pytest.raises(CatalogUnreachableError, match=r"does not answer now \(status 503"):
                CatalogWriter.from_uri(f"http://127.0.0.1:{server.server_port}", api_key="secret", on_error="raise")
        finally:
            server.shutdown()
            thread.join()


def test_not_a_catalog(tmp_path):
    """Something else at the address is not taken for a catalog."""
    import http.server
    import threading

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with pytest.raises(CatalogUnreachableError, match=r"something answers at .* that is no Tiled server"):
                CatalogWriter.from_uri(f"http://127.0.0.1:{server.server_port}", api_key="secret")
        finally:
            server.shutdown()
            thread.join()


def test_address_that_is_none():
    """What is no address is said to be none."""
    with pytest.raises(CatalogUnreachableError, match=r"no catalog answers at localhost:8000 .*missing an 'http"):
        CatalogWriter.from_uri("localhost:8000", api_key="secret")


@pytest.mark.parametrize("uri", ["::::", "http://[::1", None])
def test_address_that_cannot_be_one(uri):
    """What cannot be an address is refused as such."""
    with pytest.raises(
        CatalogUnreachableError, match=r"is no address that can be used; expected one such as http://localhost:8000"
    ):
        CatalogWriter.from_uri(uri, api_key="secret")


def test_key_is_kept_to_itself():
    """An API key in an address is not in an error, which goes to a log."""
    uri = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(CatalogUnreachableError, match=rf"no catalog answers at {uri} ") as raised:
        CatalogWriter.from_uri(f"{uri}?api_key=hush", on_error="raise")
    assert "hush" not in str(raised.value)


@pytest.mark.parametrize("key", ["wrong", None])
def test_wrong_key(catalog, key):
    """A key that the catalog does not take, or none: said at once, with what to do."""
    with pytest.raises(
        CatalogAccessError, match=rf"the catalog at {catalog.uri} does not take .*Give the right one as api_key"
    ):
        CatalogWriter.from_uri(catalog.uri, api_key=key)


def test_from_profile(catalog, profile):
    """A Tiled profile names the catalog."""
    profile(catalog.uri)
    uid, documents = run_documents(1)
    with CatalogWriter.from_profile("ours", api_key=catalog.api_key) as writer:
        feed(writer, documents)
    assert uid in catalog.client
    with pytest.raises(CatalogUnreachableError, match=r"there is no Tiled profile 'theirs'; known are: "):
        CatalogWriter.from_profile("theirs")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"on_error": "ignore"}, "on_error='ignore' is not known; expected 'warn' or 'raise'"),
        ({"durability": "maximal"}, "durability='maximal' is not known; expected 'normal' or 'full'"),
        ({"wait_on_stop": None}, "wait_on_stop=None is no amount; expected a number of 0 or more"),
        ({"keep": "a week"}, "keep='a week' is no amount"),
        ({"interval": -1}, "interval=-1 is no amount"),
        ({"settle": float("nan")}, "settle=nan is no amount"),
        ({"spool": ""}, "spool='' names no directory; expected a path, or None to have no spool"),
        ({"spool": 5}, "spool=5 names no directory"),
        ({"spool": "~nobody-here/spool"}, "spool='~nobody-here/spool' names no directory"),
    ],
)
def test_options_that_mean_nothing(catalog, options, words):
    """An argument that means nothing is refused when the writer is made, and not in the middle of a plan."""
    with pytest.raises(OptionError, match=re.escape(words)):
        CatalogWriter(catalog.client, **options)


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("by", ["address", "profile"])
@pytest.mark.parametrize(
    ("option", "words"),
    [("bach_size", "no option 'bach_size', .*did you mean 'batch_size'"), ("colour", "'colour', .*expected some of")],
)
def test_misspelt_option(catalog, profile, tmp_path, is_there, by, option, words):
    """An option that nobody has is refused when the writer is made, while the catalog is away, too."""
    uri = catalog.uri if is_there else "http://127.0.0.1:1"
    profile(uri)
    make = {"address": CatalogWriter.from_uri, "profile": CatalogWriter.from_profile}[by]
    with pytest.raises(TypeError, match=words):
        make(uri if by == "address" else "ours", api_key=catalog.api_key, spool=tmp_path, **{option: 5})


@pytest.mark.parametrize(
    ("client", "words"),
    [
        ("http://localhost:8000", r"is an address, and no client; use CatalogWriter.from_uri"),
        ([], "is no client of Tiled; expected a container"),
        (None, "is no client of Tiled"),
    ],
)
def test_what_is_no_client(client, words):
    """An address, or nothing, in place of a client is refused in words."""
    with pytest.raises(OptionError, match=words):
        CatalogWriter(client)


def test_shows_itself(catalog):
    """A writer says which catalog it is for."""
    with CatalogWriter(catalog.client) as writer:
        assert repr(writer) == f"<CatalogWriter for {catalog.client.uri}>"


def test_spool_by_relative_path(catalog, tmp_path, monkeypatch):
    """A relative spool stays where it was made when the program changes its directory; ~ is the user's home."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    for given, meant in (("mine", tmp_path / "mine"), ("~/spool", tmp_path / "spool")):
        monkeypatch.chdir(tmp_path)
        uid, documents = run_documents()
        with CatalogWriter(catalog.client, spool=given) as writer:
            monkeypatch.chdir(tmp_path / "elsewhere")
            feed(writer, documents)
            assert uid in catalog.client
            assert writer.status().spool == meant
        assert list((tmp_path / "elsewhere").iterdir()) == []
