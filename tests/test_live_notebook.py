"""What a notebook shows of a writer."""

import re
import time
from contextlib import closing
from types import SimpleNamespace

import pytest
from paging import HOSTILE, Scan
from small_runs import SmallRun
from spooled import run_documents

from bluesky_filestore import CatalogWriter
from bluesky_filestore.live.page_html import run_html, writer_html
from bluesky_filestore.spool import Ledger


@pytest.fixture
def scan(tmp_path):
    """A scan that goes on, in a spool that knows a catalog."""
    scan = Scan(tmp_path, size=300)
    with closing(Ledger(scan.writer.directory)) as ledger:
        ledger.register_catalog("http://user:secret@host/api/v1/metadata/")
    yield scan
    scan.writer.close()
    scan.file.close()


def test_shows_the_last_frame_and_what_waits(scan):
    """Documents, catalogs and runs are told, and the last frame is there as a small picture; nobody is asked."""
    scan.take(4)
    shown = writer_html(scan.writer)
    assert "11 received" in shown
    assert "http://host/api/v1/metadata/" in shown
    assert "secret" not in shown
    assert "image, event 4" in shown
    (picture,) = re.findall(r'src="data:image/png;base64,([^"]+)"', shown)
    assert 100 < len(picture) < 100_000


def test_what_others_wrote_is_text(scan):
    """Nothing in a document, a reason or an address is carried out."""
    with closing(Ledger(scan.writer.directory)) as ledger:
        number = ledger.known_catalog("http://host/api/v1/metadata/") or ledger.register_catalog("http://host")
        ledger.say(number, HOSTILE)
        ledger.set_states(number, {1: ("parked", HOSTILE, 0)})
    scan.writer._say(HOSTILE)
    shown = writer_html(scan.writer)
    assert HOSTILE not in shown
    assert "<script" not in shown
    assert shown.count("&lt;img src=x") == 3


def test_never_raises_and_never_waits(scan, monkeypatch):
    """A spool that is broken, a frame that is not there, or a disk that hangs costs what it would have told."""
    scan.add(0)
    assert "<img" not in writer_html(scan.writer)
    monkeypatch.setattr(scan.writer, "status", lambda: time.sleep(30))
    began = time.monotonic()
    assert "it does not say how it is doing" in writer_html(scan.writer)
    assert time.monotonic() - began < 10
    monkeypatch.setattr(scan.writer, "status", lambda: 1 / 0)
    assert "SpoolWriter" in writer_html(scan.writer)


def test_a_run_without_frames(scan):
    """Of a run that has none there is no picture."""
    for pair in run_documents(3)[1]:
        scan.writer(*pair)
    shown = writer_html(scan.writer)
    assert "received" in shown
    assert "<img" not in shown


@pytest.fixture
def formatter(monkeypatch):
    """What IPython's own shell, as a notebook has it, makes HTML with, once it has our extension."""
    from IPython.core.interactiveshell import InteractiveShell

    # On a machine that does much besides.
    monkeypatch.setattr("bluesky_filestore.live.page_html._ANSWER_SECONDS", 30.0)
    shell = InteractiveShell.instance()
    shell.extension_manager.load_extension("bluesky_filestore")
    yield shell.display_formatter.formatters["text/html"]
    InteractiveShell.clear_instance()


def test_a_run_of_a_catalog(formatter, catalog, data_directory, tmp_path):
    """What the stock client gives is shown with its plan, its end and its last frame, once the extension is loaded."""
    run = SmallRun(data_directory, number=77)
    run.documents[0][1].update(plan_name=HOSTILE, scan_id=12, detectors=["camera"], time=1.0)
    with closing(CatalogWriter(catalog.client, spool=tmp_path / "spool")) as writer:
        for pair in run.documents:
            writer(*pair)
    # A picture is left out for which one would have to wait.
    table, deadline = "", time.monotonic() + 30
    while "image, event 12" not in table and time.monotonic() < deadline:
        table = formatter(catalog.client[run.uid])
    assert "<td>12</td>" in table
    assert HOSTILE not in table
    assert "camera" in table
    assert "success" in table
    assert "12 events" in table
    assert "image, event 12" in table
    (picture,) = re.findall(r'src="data:image/png;base64,([^"]+)"', table)
    assert picture


def test_a_run_of_which_little_is_known(formatter, catalog, tmp_path):
    """One that goes on, and one whose documents hold what no table shows, are shown as far as that goes."""
    uid, documents = run_documents(3)
    with closing(CatalogWriter(catalog.client, spool=tmp_path / "spool")) as writer:
        for pair in documents[:-1]:
            writer(*pair)
        deadline = time.monotonic() + 20
        while uid not in catalog.client and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "no stop document yet" in formatter(catalog.client[uid])
        writer(*documents[-1])
    odd = SimpleNamespace(metadata={"start": {"detectors": 7, "time": "yesterday", "sample_name": {}}, "stop": None})
    assert "no stop document yet" in run_html(odd)
