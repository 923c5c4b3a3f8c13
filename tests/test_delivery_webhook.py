"""Who is to know of complete runs gets each of them, whatever is away, and keeps nobody waiting."""

import hashlib
import hmac
import logging
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import h5py
import pytest
from receiving import Receiver
from small_runs import SmallRun
from spooled import Applied, put, run_documents
from typer.testing import CliRunner

from bluesky_filestore import CatalogWriter
from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
from bluesky_filestore.cli import app
from bluesky_filestore.delivery import webhook as sending
from bluesky_filestore.delivery.completed import Caller, CompletedRun
from bluesky_filestore.delivery.service import Service
from bluesky_filestore.delivery.settings import DeliverySettings
from bluesky_filestore.delivery.spooling import Spooling
from bluesky_filestore.delivery.uploader import Uploader
from bluesky_filestore.delivery.webhook import Webhook, send_waiting
from bluesky_filestore.errors import HandoffError, OptionError
from bluesky_filestore.spool import Ledger
from bluesky_filestore.spool.handoffs import Handoff, handoff_status, note_failure, waiting_handoffs
from bluesky_filestore.spool.status import look_at

HANDOFF = Handoff("an id", "a run", b'{"uid": "a run"}')
WRITER = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from spooled import Applied, run_documents
from bluesky_filestore.delivery.settings import DeliverySettings
from bluesky_filestore.delivery.spooling import Spooling
from bluesky_filestore.delivery.webhook import Webhook
settings = DeliverySettings(interval=0.02, webhook=Webhook({url!r}))
spooling = Spooling(Path({spool!r}), [Applied()], wait_on_stop=10.0, durability="normal", settings=settings)
uids = []
for number in range(2):
    uid, documents = run_documents(2)
    uids.append(uid)
    for name, doc in documents[: -1 if number else None]:
        spooling.put(name, doc)
print(*uids, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""

HOLDER = """
import sys, time
from pathlib import Path
from bluesky_filestore.spool.lease import Lease
lease = Lease(Path(sys.argv[1]))
print(lease.take(), flush=True)
time.sleep(120)
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Pauses are as short as tests are."""
    monkeypatch.setattr(sending, "_FIRST_WAIT", 0.05)
    monkeypatch.setattr(sending, "_LOOK_SECONDS", 0.05)


def nowhere():
    """An address at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/"


def delivered(directory, *runs, **settings):
    """Have runs delivered that are put into a spool, and end; how the receivers are doing."""
    uploader = Uploader(directory, Applied(), DeliverySettings(interval=0.02, **settings))
    try:
        put(directory, *(documents for _, documents in runs))
        for uid, _ in runs:
            assert uploader.wait_until_readable(uid, 30)
    finally:
        uploader.close()
    return look_at(directory).webhooks


def test_it_says_what_the_run_has(catalog, data_directory, tmp_path):
    """Function and webhook get uid, report and addresses of a run, one with frames that are not in its file, too."""
    fine, short = SmallRun(data_directory, 71), SmallRun(data_directory, 72)
    with h5py.File(data_directory / "small 72.h5", "w") as file:
        file["/entry/data/data"] = short.images[:9]
    called, key = [], "a secret"
    with Receiver() as receiver:
        how = {"spool": tmp_path, "settle": 0.2, "on_run_complete": called.append}
        with CatalogWriter(catalog.client, webhook=receiver.url, webhook_secret=key, **how) as writer:
            for run in (fine, short):
                for pair in run.documents:
                    writer(*pair)
        messages = receiver.wait(2)
    assert [each.uid for each in called] == [fine.uid, short.uid]
    assert [each.content for each in messages] == [each.as_json() for each in called]
    for message in messages:
        sign = hmac.new(key.encode(), message.body, hashlib.sha256).hexdigest()
        assert message.headers["X-Filestore-Signature"] == f"sha256={sign}"
        assert message.headers["X-Filestore-Event-ID"] == message.content["id"]
    said = messages[0].content
    assert (said["uid"], said["exit_status"], said["report"]["is_fine"]) == (fine.uid, "success", True)
    assert said["report"]["num_events"] == {"primary": 12}
    assert said["addresses"]["files"] == [str(data_directory / "small 71.h5")]
    shown = catalog.client.context.http_client.get(said["addresses"]["catalog"])
    assert shown.json()["data"]["id"] == fine.uid
    lacks = messages[1].content["report"]
    assert not lacks["is_fine"]
    assert lacks["state"] == "parked"
    assert lacks["arrays"]["missing"]["primary"]["image"]["events"] == [9, 10, 11]


@pytest.mark.parametrize(
    ("statuses", "words"),
    [
        ((503,), "answers with status 503"),
        ((404,), "answers with status 404"),
        ((302,), "answers with a redirect"),
        ((308,), "answers with a redirect"),
        ((0,), "does not answer"),
    ],
)
def test_what_is_no_answer_is_none(statuses, words):
    """Only a 2xx takes a message, and nothing is sent to where a redirect leads."""
    with Receiver() as elsewhere, Receiver(*statuses, location=elsewhere.url) as receiver:
        with pytest.raises(HandoffError, match=words):
            Webhook(receiver.url).post(HANDOFF)
        assert len(receiver.messages) == 1
        assert elsewhere.messages == []


def test_it_is_sent_again_until_it_is_taken(tmp_path, caplog):
    """A receiver that was away, failed, or hung up after it had it, gets the message again under the same id."""
    with Receiver(503, 0, 200) as receiver:
        uploader = Uploader(tmp_path, Applied(), DeliverySettings(interval=0.02, webhook=Webhook(receiver.url)))
        uid, documents = run_documents()
        put(tmp_path, documents)
        with closing(uploader):
            messages = receiver.wait(3)
    assert len({message.headers["X-Filestore-Event-ID"] for message in messages}) == 1
    assert {message.content["uid"] for message in messages} == {uid}
    assert [hook.words for hook in look_at(tmp_path).webhooks] == ["all sent"]
    assert "takes messages again" in caplog.text


def test_one_that_is_refused_keeps_no_other(tmp_path):
    """A message that the receiver will not have for what it is does not stand before those that follow."""
    with Receiver(400, 204) as receiver:
        runs = [run_documents() for _ in range(3)]
        delivered(tmp_path, *runs, webhook=Webhook(receiver.url))
        # The first comes once more, last.
        send_waiting(tmp_path, Webhook(receiver.url))
        taken = [message.content["uid"] for message in receiver.messages]
    assert set(taken) == {uid for uid, _ in runs}
    assert taken.count(taken[0]) > 1


def test_a_receiver_that_hangs_holds_nothing_up(tmp_path, monkeypatch):
    """Neither a run nor the writer's end waits for one that takes a message and never answers."""
    monkeypatch.setattr(sending, "_ANSWER_SECONDS", 300.0)
    with Receiver(-1) as receiver:
        settings = DeliverySettings(interval=0.02, webhook=Webhook(receiver.url))
        spooling = Spooling(tmp_path, [Applied()], wait_on_stop=60.0, durability="normal", settings=settings)
        began = time.monotonic()
        for _ in range(2):
            for pair in run_documents()[1]:
                spooling.put(*pair)
            receiver.wait(1)
        spooling.close()
        # As long as the receiver keeps the message.
        assert time.monotonic() - began < 60
        assert {state for each in look_at(tmp_path).catalogs for state in each.runs} == {"delivered"}
        assert [hook.waiting for hook in look_at(tmp_path).webhooks] == [2]


def test_who_is_killed_loses_no_message(tmp_path):
    """What a killed process had not sent is sent by the next one, and so is the end of a run that it left open."""
    url = nowhere()
    code = WRITER.format(tests=str(Path(__file__).parent), url=url, spool=str(tmp_path))
    command = [sys.executable, "-c", code]
    shown = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110)
    assert shown.returncode == -signal.SIGKILL, shown.stderr
    first, second = shown.stdout.split()
    # Who goes on knows of no webhook.
    uploader = Uploader(tmp_path, Applied(), DeliverySettings(interval=0.02))
    with closing(uploader):
        assert uploader.wait_until_readable(second, 30)
    (hook,) = look_at(tmp_path).webhooks
    assert (hook.waiting, hook.sender) == (2, None)
    assert hook.words.startswith("2 messages wait, nobody sends them")
    with Receiver(port=urlsplit(url).port) as receiver:
        assert send_waiting(tmp_path, Webhook(url)) == 0
    assert [each.content["uid"] for each in receiver.messages] == [first, second]
    assert [each.content["exit_status"] for each in receiver.messages] == ["success", None]


def test_a_run_that_is_asked_for_again_ends_again(tmp_path):
    """It has another message, with another id, since something may have changed."""
    uid, documents = run_documents()
    with Receiver() as receiver:
        delivered(tmp_path, (uid, documents), webhook=Webhook(receiver.url))
        with closing(Ledger(tmp_path)) as ledger:
            ledger.begin_again(ledger.register_catalog(Applied.uri), [1], is_asked=True)
        uploader = Uploader(tmp_path, Applied(), DeliverySettings(interval=0.02, webhook=Webhook(receiver.url)))
        with closing(uploader):
            messages = receiver.wait(2)
    assert len({message.content["id"] for message in messages}) == 2


def test_services_send(tmp_path):
    """A service with a webhook sends for each of its spools, and what others put in."""
    runs = [run_documents() for _ in range(2)]
    with Receiver() as receiver:
        settings = DeliverySettings(interval=0.02, webhook=Webhook(receiver.url))
        catalog = Applied()
        catalog.close = lambda: None
        service = Service([tmp_path], lambda: catalog, settings)
        for number, (_, documents) in enumerate(runs):
            put(tmp_path / f"{number}", documents)
        service.look()
        messages = receiver.wait(2)
        service.close(5)
    assert {message.content["uid"] for message in messages} == {uid for uid, _ in runs}


def test_it_is_given_up_after_a_week(tmp_path, caplog):
    """What was tried ten times, and for a week, is sent no more, which log and status say."""
    delivered(tmp_path, run_documents(), webhook=Webhook(nowhere()))
    with closing(Ledger(tmp_path)) as ledger:
        (hook,) = handoff_status(ledger)
        (handoff,) = waiting_handoffs(ledger, hook.receiver, 0, 10)
        old = Handoff(handoff.id, handoff.run, handoff.body, handoff.number, handoff.made - 8 * 86_400, 8)
        assert not note_failure(ledger, old, "It is away.")
        assert note_failure(ledger, Handoff(*(getattr(old, name) for name in old.__slots__[:-1]), 9), "It is away.")
        assert waiting_handoffs(ledger, hook.receiver, 0, 10) == []
        (hook,) = handoff_status(ledger)
        assert hook.words == "all sent, 1 given up"


@pytest.mark.parametrize(
    "url", ["", "ftp://host/", "file:///etc/passwd", "http://", "http://host:x/", "http://a b/", 7]
)
def test_what_is_no_address_is_refused(url):
    """A webhook that cannot be one is an error at once, which does not repeat it."""
    with pytest.raises(OptionError, match=r"expected e\.g\. webhook=") as error:
        Webhook(url)
    assert not url or str(url) not in str(error.value)


def test_no_key_is_told(tmp_path, caplog):
    """Keys in path, query and user of an address, and the secret, are in no log, spool, status or message."""
    with Receiver(500, 204) as receiver, caplog.at_level(logging.DEBUG):
        url = receiver.url.replace("//", "//me:Zz9User@").replace("runs", "Zz9Path?key=Zz9Query")
        hook = Webhook(url, "Zz9Secret")
        documents = run_documents()
        shown = delivered(tmp_path, documents, webhook=hook)
        uploader = Uploader(tmp_path, Applied(), DeliverySettings(interval=0.02, webhook=hook))
        with closing(uploader):
            message = receiver.wait(2)[-1]
    assert message.path == "/hooks/Zz9Path?key=Zz9Query"
    assert message.headers["Authorization"].startswith("Basic ")
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    for text in (caplog.text, repr(hook), str(shown), message.body.decode(), kept.decode(errors="replace")):
        assert "Zz9" not in text


def test_a_spool_of_before_has_none(tmp_path):
    """A spool without tables for it opens as before, and gets them when somebody is to know."""
    put(tmp_path, run_documents()[1])
    with closing(sqlite3.connect(tmp_path / "spool.db")) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    assert not {"handoffs", "receivers"} & tables
    assert look_at(tmp_path).webhooks == ()
    assert delivered(tmp_path, run_documents()) == ()
    with Receiver() as receiver:
        (hook,) = delivered(tmp_path, run_documents(), webhook=Webhook(receiver.url))
        assert hook.words == "all sent"


def test_commands_show_send_and_forget(tmp_path):
    """`status` names who waits, `resume --webhook` sends, and `forget` has nothing wait any more."""
    with Receiver(503, 204) as receiver:
        hook = Webhook(receiver.url)
        delivered(tmp_path, run_documents(), webhook=hook)
        shown = CliRunner().invoke(app, ["status", str(tmp_path)])
        assert f"{hook.name}: 1 message waits, nobody sends it" in shown.output
        resume = ["resume", str(tmp_path), "--uri", Applied.uri, "--webhook", receiver.url]
        assert CliRunner().invoke(app, resume).exit_code == 0
        assert len(receiver.messages) == 2
    delivered(tmp_path, run_documents(), webhook=Webhook(nowhere()))
    names = [each.receiver for each in look_at(tmp_path).webhooks]
    for name in names:
        assert CliRunner().invoke(app, ["forget", name, "--spool", str(tmp_path)]).exit_code == 0
    assert look_at(tmp_path).webhooks == ()


class TestCaller:
    """A function that is called with runs."""

    def test_what_it_raises_is_said(self):
        """An error is among the problems, and the next run is taken."""
        called, said = [], []

        def call(run):
            called.append(run.uid)
            if run.uid == "1":
                raise SystemExit("no")

        caller = Caller(call, said.append)
        for uid in "123":
            caller.add(CompletedRun(uid, "delivered", "", ""))
        caller.close(10)
        assert called == ["1", "2", "3"]
        assert said == ["on_run_complete failed for run 1: SystemExit('no')"]

    def test_one_that_hangs_is_left(self):
        """Who closes it is not kept, and it is said for which runs it was not called."""
        begun, goes_on, said = threading.Event(), threading.Event(), []
        caller = Caller(lambda run: begun.set() or goes_on.wait(90), said.append)
        for uid in "123":
            caller.add(CompletedRun(uid, "delivered", "", ""))
        assert begun.wait(30)
        caller.close(0.1)
        words = "on_run_complete has not returned for run 1 when the writer ended"
        assert said == [f"{words}, and was not called for 2 more"]
        goes_on.set()

    def test_it_is_said_if_another_process_delivers(self, catalog, tmp_path):
        """Then it is not called here, and nobody shall wait for it."""
        with closing(Ledger(tmp_path)) as ledger:
            path = ledger.lease(ledger.register_catalog(TiledCatalog(catalog.client).uri))
        with subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "True\n"
            writer = CatalogWriter(catalog.client, spool=tmp_path, wait_on_stop=0, on_run_complete=print)
            for pair in run_documents()[1]:
                writer(*pair)
            # Not by the call that brought the stop, which asks no database.
            until = time.monotonic() + 20
            while not writer.status().problems:
                assert time.monotonic() < until
                time.sleep(0.01)
            (said,) = writer.status().problems
            process.kill()
        assert said.startswith(f"process {process.pid} delivers")
        writer.close()

    def test_one_that_is_none_is_refused(self, catalog):
        """What cannot be called is an error at once."""
        with pytest.raises(OptionError, match="on_run_complete='print'"):
            CatalogWriter(catalog.client, on_run_complete="print")
