"""Documents from bluesky's own 0MQ proxy, sent by its own publisher."""

import multiprocessing
import pickle
import threading
import time
from contextlib import closing

import pytest
import zmq
import zmq.auth
from bluesky.callbacks.zmq import Proxy, Publisher, ServerCurve
from command_line import run
from consuming import consumer, ended, in_spool, key, wait_for
from small_runs import SmallRun
from spooled import run_documents
from tiled.client import from_uri

from bluesky_filestore import documents as documents_of
from bluesky_filestore.errors import SourceError
from bluesky_filestore.sources.intake import ASIDE
from bluesky_filestore.sources.zmq import ZMQSource


def _proxy(ports, curve):
    proxy = Proxy("tcp://127.0.0.1:*", "tcp://127.0.0.1:*", out_curve=curve)
    ports.put((proxy.in_port, proxy.out_port))
    proxy.start()


@pytest.fixture(scope="module")
def start_proxy():
    """Starts proxies, each in a process of its own; their two addresses."""
    started = []

    def start(curve=None):
        ports = multiprocessing.get_context("spawn").Queue()
        process = multiprocessing.get_context("spawn").Process(target=_proxy, args=(ports, curve), daemon=True)
        process.start()
        started.append(process)
        return ports.get(timeout=60)

    yield start
    for process in started:
        process.kill()
        process.join()


@pytest.fixture(scope="module")
def proxy(start_proxy):
    """The addresses that are published to and listened to."""
    return start_proxy()


def published(address):
    """The address for us of what a proxy gives out on."""
    return address.replace("tcp://", "zmq://")


def wait_until_heard(publisher, spool):
    """Send what belongs to nothing until a consumer has set it aside: 0MQ keeps nothing for those who do not listen."""
    (spool / ASIDE).unlink(missing_ok=True)
    wait_for(lambda: publisher("datum", {"datum_id": "none", "resource": "none"}) or (spool / ASIDE).exists())


def test_into_the_catalog(tmp_path, proxy, catalog, data_directory):
    """Runs of two RunEngines on one proxy are in the catalog as they were sent, while the consumer runs."""
    runs = [SmallRun(data_directory, number, events=4) for number in (21, 22)]
    spool = tmp_path / "spool"
    arguments = [published(proxy[1]), "--spool", spool, "--catalog", catalog.uri, "--api-key", catalog.api_key]
    with consumer(*arguments) as process, closing(Publisher(proxy[0])) as one, closing(Publisher(proxy[0])) as other:
        wait_until_heard(one, spool)
        wait_until_heard(other, spool)
        for of_one, of_other in zip(*(each.documents for each in runs), strict=True):
            one(*of_one)
            other(*of_other)
        client = from_uri(catalog.uri, api_key=catalog.api_key)
        with closing(client.context):
            wait_for(lambda: all(run.uid in client and client[run.uid].metadata.get("stop") for run in runs))
            for each in runs:
                found = [key(name, doc) for name, doc in documents_of(client[each.uid])]
                assert sorted(found) == sorted(key(name, doc) for name, doc in each.documents)
                assert list(client[each.uid]["primary"]["x"].read()) == each.x
                assert (client[each.uid]["primary"]["image"][3] == each.images[3]).all()
        assert run("deliver", spool, "--catalog", catalog.uri, "--check").returncode == 0
        assert ended(process) == 0
    assert run("deliver", spool, "--catalog", catalog.uri, "--check").returncode == 1


def test_killed_in_the_middle(tmp_path, proxy, catalog):
    """After a kill the next one goes on with the run; what was sent meanwhile is missing, which the catalog says."""
    spool = tmp_path / "spool"
    documents = run_documents(60)[1]
    arguments = [published(proxy[1]), "--spool", spool, "--spool-only"]
    with closing(Publisher(proxy[0])) as sender:
        with consumer(*arguments):
            wait_until_heard(sender, spool)
            for document in documents[:20]:
                sender(*document)
            wait_for(lambda: in_spool(spool).total() == 20)
        for document in documents[20:30]:
            sender(*document)
        with consumer(*arguments) as process:
            wait_until_heard(sender, spool)
            for document in documents[30:]:
                sender(*document)
            wait_for(lambda: in_spool(spool).total() == len(documents) - 10)
            assert ended(process) == 0
    assert in_spool(spool) == {key(*document): 1 for document in [*documents[:20], *documents[30:]]}
    assert run("resume", spool, "--uri", catalog.uri, "--api-key", catalog.api_key).returncode == 0
    client = from_uri(catalog.uri, api_key=catalog.api_key)
    with closing(client.context):
        found = client[documents[0][1]["uid"]]
        assert list(found.metadata["notes"]) == ["Events 19 to 28 of stream 'primary' did not come."]
        assert len(found["primary"]["seq_num"].read()) == 50


def received(source, count):
    """So many documents."""
    came = []
    for document in source.documents():
        came += [document] if document is not None and document[1].get("datum_id") != "none" else []
        if len(came) >= count:
            return came
    raise AssertionError


def test_serializers_and_prefixes(proxy, caplog):
    """Whatever the publisher packs with is read; others' prefixes are passed by, what is no document is left out."""
    import msgpack

    documents = run_documents(1)[1]
    with closing(ZMQSource(published(proxy[1]), prefix="ours")) as source:
        got = []
        listener = threading.Thread(target=lambda: got.extend(received(source, 3 * len(documents))))
        listener.start()
        senders = [Publisher(proxy[0], prefix=b"ours", serializer=pack) for pack in (pickle.dumps, msgpack.dumps)]
        senders.append(Publisher(proxy[0], prefix=b"theirs"))
        raw = zmq.Context.instance().socket(zmq.PUB)
        raw.connect(proxy[0])
        while "is left out" not in caplog.text:
            raw.send(b"ours event \xc1")
            time.sleep(0.05)
        while listener.is_alive():
            for sender in senders:
                for document in documents:
                    sender(*document)
            listener.join(0.2)
        raw.close()
        for sender in senders:
            sender.close()
    assert all((name, doc) in documents for name, doc in got)
    assert any("is left out" in record.getMessage() for record in caplog.records)


def test_curve(tmp_path, start_proxy):
    """A proxy that wants keys gets them; one without hears nothing, and no secret is said."""
    for name in ("server", "client"):
        zmq.auth.create_certificates(tmp_path, name)
    curve = ServerCurve(tmp_path / "server.key_secret", None, None)
    into, out_of = start_proxy(curve)
    documents = run_documents(1)[1]
    keys = {"secret": tmp_path / "client.key_secret", "server": tmp_path / "server.key"}
    with closing(ZMQSource(published(out_of), **keys)) as source, closing(ZMQSource(published(out_of))) as without:
        listener = threading.Thread(target=received, args=(source, len(documents)))
        listener.start()
        sender = Publisher(into)
        while listener.is_alive():
            for document in documents:
                sender(*document)
            listener.join(0.2)
        assert next(without.documents()) is None
        sender.close()


@pytest.mark.parametrize(
    "address", ["zmq://", "zmq://host", "zmq://host:port", "tcp://host:5568", "zmq+ipc://", "zmq:x"]
)
def test_what_is_no_address(address):
    """An address that means nothing is an error that says what was expected."""
    with pytest.raises(SourceError, match="expected zmq://host:port"):
        ZMQSource(address)


def test_nobody_answers(caplog):
    """A proxy that is not there (yet) is said, and waited for."""
    with closing(ZMQSource("zmq://127.0.0.1:9")) as source:
        assert next(source.documents()) is None
    assert "Nobody answers at zmq://127.0.0.1:9" in caplog.text
