"""Whatever happens to a catalog and on the way to it, it gets every document once, in order, with the right arrays."""

import json
import random
import secrets
import time
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import chain, count

import httpx
import pytest
from acquiring import acquirer
from effort import some, times
from proxy import Proxy, no_fault
from serving import API_KEY, KillableServer
from small_runs import SmallRun
from spooled import put
from tiled.client import from_uri

from bluesky_filestore import CatalogWriter
from bluesky_filestore.delivery.resuming import follow
from bluesky_filestore.errors import CatalogUnreachableError
from bluesky_filestore.spool import Ledger
from bluesky_filestore.spool.status import look_at

_numbers = count()


@pytest.fixture
def chance():
    """Random numbers, from a seed that is told if a test fails."""
    seed = secrets.randbits(32)
    print("seed", seed)
    return random.Random(seed)


@contextmanager
def client_of(uri, api_key, timeout=10.0):
    """A client of a catalog."""
    client = from_uri(uri, api_key=api_key, timeout=httpx.Timeout(timeout))
    try:
        yield client
    finally:
        client.context.close()


def new_run(directory, events=12):
    """A run with a number and a file of its own."""
    return SmallRun(directory, next(_numbers), events)


def feed(writer, run, pace=0.002):
    """Hand the documents of a run to a writer as fast as a detector would."""
    for name, doc in run.documents:
        writer(name, doc)
        time.sleep(pace)


def flush(writer, timeout=60.0):
    """Wait until all is in the catalog, however often it is away meanwhile."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            writer.flush()
        except CatalogUnreachableError:
            assert time.monotonic() < deadline, writer.status()
            time.sleep(0.1)
        else:
            break
    assert writer.status().problems == ()


@pytest.fixture(scope="module")
def server(data_directory, tmp_path_factory):
    """A catalog server that can be killed; whoever kills it starts it again."""
    with KillableServer(tmp_path_factory.mktemp("killable"), data_directory) as running:
        yield running


def test_server_killed_while_a_writer_writes(chance, server, data_directory, tmp_path):
    """The server is killed at random points of runs, and comes back, or not before the run is over."""
    runs = [new_run(data_directory, chance.randint(1, 20)) for _ in range(4)]
    with client_of(server.uri, API_KEY) as client:
        with CatalogWriter(client, spool=tmp_path / "spool", interval=0.01, wait_on_stop=0.5) as writer:
            for run in runs:
                ends = sorted(chance.choices(range(len(run.documents)), k=2))
                for position, (name, doc) in enumerate(run.documents):
                    writer(name, doc)
                    time.sleep(chance.choice([0.0, 0.002, 0.02]))
                    if position == ends[0]:
                        time.sleep(0.05 * chance.random())
                        server.kill()
                    if position == ends[1]:
                        server.start()
            flush(writer)
        for run in runs:
            run.compare(client)


def test_server_away_for_whole_runs(server, data_directory, tmp_path):
    """Plans go on without waiting; what they took is delivered when the server is back, by whoever resumes."""
    runs = [new_run(data_directory) for _ in range(3)]
    with client_of(server.uri, API_KEY) as client:
        writer = CatalogWriter(client, spool=tmp_path / "spool")
        server.kill()
        began = time.monotonic()
        for run in runs:
            feed(writer, run, pace=0.0)
        assert time.monotonic() - began < 5.0, "a plan waited for a catalog that is away"
        with pytest.raises(CatalogUnreachableError, match=r"Nothing is lost: .* waits in .*spool"):
            writer.close()
        uri = writer.status().catalog
    server.start()
    resume(tmp_path / "spool", uri, partial(from_uri, server.uri, api_key=API_KEY))
    with client_of(server.uri, API_KEY) as client:
        for run in runs:
            run.compare(client)


def test_first_run_after_the_server_died(server, data_directory, tmp_path):
    """A stop finds out at once that the catalog that was up is away, and not only when its client has given up."""
    runs = [new_run(data_directory) for _ in range(2)]
    with client_of(server.uri, API_KEY) as client:
        writer = CatalogWriter(client, spool=tmp_path / "spool", wait_on_stop=30.0)
        feed(writer, runs[0], pace=0.0)
        server.kill()
        began = time.monotonic()
        feed(writer, runs[1], pace=0.0)
        assert time.monotonic() - began < 2.0
        server.start()
        flush(writer)
        writer.close()
        for run in runs:
            run.compare(client)


def resume(spool, uri, make_client, *, until=lambda progress: False):
    """Deliver what is in a spool, to the end or until something is the case."""
    with closing(follow(spool, uri, make_client, wait=30.0)) as following:
        for progress in following:
            if until(progress):
                return
    assert progress.done
    assert not progress.runs.get("parked")


def test_one_of_two_catalogs_is_away(server, catalog, data_directory, tmp_path):
    """The other gets the runs as ever; the one that was away gets them when it is back."""
    runs = [new_run(data_directory) for _ in range(3)]
    with client_of(server.uri, API_KEY) as client:
        with CatalogWriter([client, catalog.client], spool=tmp_path / "spool", interval=0.01) as writer:
            for number, run in enumerate(runs):
                for name, doc in run.documents[:-1]:
                    writer(name, doc)
                if number == 1:
                    server.kill()
                began = time.monotonic()
                writer(*run.documents[-1])
                assert time.monotonic() - began < 15.0
                run.compare(catalog.client)
            server.start()
            flush(writer)
        for run in runs:
            run.compare(client)


@pytest.fixture
def proxy(catalog):
    """A proxy before the session's catalog."""
    with Proxy(catalog.uri) as running:
        yield running


@pytest.mark.parametrize(
    "fault", some(["drop answer", "cut answer", "page", "garble answer", "cut", 500, 403, 503, 429], 1)
)
def test_some_requests_fail(fault, chance, proxy, catalog, data_directory, tmp_path):
    """A fault befalls any third request, at whatever point of a run's way to the catalog it is."""
    runs = [new_run(data_directory) for _ in range(2)]
    with client_of(proxy.uri, catalog.api_key) as client:
        writer = CatalogWriter(client, spool=tmp_path / "spool", interval=0.01, wait_on_stop=0.3)
        with closing(writer):
            proxy.fault = lambda request: fault if request.number == 10 or chance.random() < 0.3 else None
            for run in runs:
                feed(writer, run)
            flush(writer)
    assert proxy.befell[fault]
    for run in runs:
        run.compare(catalog.client)


def test_away_when_the_writer_is_made(proxy, catalog, data_directory, tmp_path):
    """A client whose catalog went away meanwhile makes a writer at once, which delivers when it is back."""
    run = new_run(data_directory)
    with client_of(proxy.uri, catalog.api_key) as client:
        proxy.fault = lambda _: "cut"
        with CatalogWriter(client, spool=tmp_path / "spool", interval=0.01, wait_on_stop=0.0) as writer:
            assert proxy.befell["cut"] <= 2, "it was to ask at the most once, and without patience"
            feed(writer, run)
            proxy.fault = no_fault
            flush(writer)
    run.compare(catalog.client)


@pytest.mark.parametrize("refusal", [503, "drop answer"])
def test_an_append_comes_late(refusal, proxy, catalog, data_directory, tmp_path, caplog):
    """Rows that arrive after their sender gave up, and sent them again, are not in the catalog twice."""
    runs = [new_run(data_directory), new_run(data_directory)]
    with client_of(proxy.uri, catalog.api_key, timeout=0.5) as client, ExitStack() as stack:
        # One of the writers delivers for both: the table of one run is made anew in the midst of the other.
        writers = [
            stack.enter_context(CatalogWriter(client, spool=tmp_path / "spool", interval=0.01, wait_on_stop=0.0))
            for _ in runs
        ]
        # All events go together: a table whose columns change meanwhile would not take the late ones.
        proxy.fault = lambda _: "cut"
        for writer, run in zip(writers, runs, strict=True):
            for name, doc in run.documents[:-3]:
                writer(name, doc)
        proxy.fault = fault_of_the_first(lambda request: request.is_append, "hold")
        wait_for(lambda: proxy.holding)
        wait_for(lambda: not writers[0].status().waiting)
        proxy.release()
        wait_for(lambda: not proxy.holding)
        # What is wrong is not forgotten when the catalog is away just as it is to be made right.
        proxy.fault = fault_of_the_first(lambda request: request.method == "DELETE", refusal, times=2)
        for writer, run in zip(writers, runs, strict=True):
            for name, doc in run.documents[-3:]:
                writer(name, doc)
        for writer in writers:
            flush(writer)
    assert proxy.befell["hold"] == 1
    assert proxy.befell[refusal] == 2
    assert "The table is written again." in caplog.text
    for run in runs:
        run.compare(catalog.client)


def fault_of_the_first(condition, fault, times=1):
    """What befalls the first requests of a kind."""
    left = [fault] * times
    return lambda request: left.pop() if left and condition(request) else None


def wait_for(condition, timeout=30.0):
    """Wait until something is the case."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_processes_into_one_spool_and_one_catalog(catalog, data_directory, tmp_path):
    """Two writers at once, of which one delivers for both, and runs with documents in between one another."""
    shares = [[new_run(data_directory, 80) for _ in range(3)] for _ in range(2)]
    with ExitStack() as stack:
        processes = [stack.enter_context(acquirer()) for _ in shares]
        for process, runs in zip(processes, shares, strict=True):
            file = tmp_path / f"documents of {runs[0].number}"
            file.write_text(json.dumps([pair for run in runs for pair in run.documents]))
            order = {"uri": catalog.uri, "api_key": catalog.api_key, "spool": str(tmp_path / "spool")}
            process.stdin.write(json.dumps({**order, "documents": str(file)}).encode() + b"\n")
            process.stdin.close()
        for process in processes:
            assert process.stdout.read() == b"." * sum(len(run.documents) for run in shares[0]) + b"!"
    with closing(Ledger(tmp_path / "spool")) as ledger:
        entries = ledger.entries(ledger.register_catalog(catalog.client.uri))
        last = max(ledger.last_document(entry.number) for entry in entries if entry.producer == entries[0].producer)
    assert [entry.state for entry in entries] == ["delivered"] * 6
    other = next(entry for entry in entries if entry.producer != entries[0].producer)
    assert other.first < last, "the processes were to be at it at the same time"
    for run in chain(*shares):
        run.compare(catalog.client)


def test_thousands_of_documents_wait(chance, catalog, data_directory, tmp_path):
    """A backlog is delivered, by one that is ended at some point and another that goes on."""
    runs = [new_run(data_directory, events) for events in (times(500), 1, times(400), times(102))]
    spool, uri = tmp_path / "spool", catalog.client.uri
    put(spool, *(run.documents for run in runs), catalogs=[uri])
    total = sum(len(run.documents) for run in runs)
    assert total > times(2000)
    (status,) = look_at(spool).catalogs
    assert status.waiting == total
    assert status.runs == {"waiting": 4}
    left = chance.randrange(total)
    make_client = partial(from_uri, catalog.uri, api_key=catalog.api_key)
    resume(spool, uri, make_client, until=lambda progress: progress.waiting <= left)
    resume(spool, uri, make_client)
    for run in runs:
        run.compare(catalog.client)
