"""A writer that only spools, and the service that delivers from its spool."""

import os
import socket
import subprocess
import sys
import threading
from contextlib import closing

import pytest
from command_line import COMMAND, run
from consuming import ended, in_spool, key, wait_for
from small_runs import SmallRun
from spooled import run_documents
from tiled.client import from_uri

from bluesky_filestore import CatalogWriter, SpoolWriter
from bluesky_filestore import documents as documents_of
from bluesky_filestore.cli.notifying import Notifier
from bluesky_filestore.delivery.service import spools_below
from bluesky_filestore.errors import OptionError, SpoolError


def test_imports_no_client():
    """Who only spools loads nothing of a catalog, of files or of arrays, also while it spools and closes."""
    code = """
import sys, tempfile
from bluesky_filestore import SpoolWriter
with SpoolWriter(tempfile.mkdtemp()) as writer:
    writer("start", {"uid": "a", "time": 1.0})
    writer("stop", {"uid": "b", "run_start": "a", "time": 2.0})
    writer.flush()
print(*{name.partition(".")[0] for name in sys.modules})
"""
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    heavy = {
        "tiled",
        "httpx",
        "pyarrow",
        "pandas",
        "h5py",
        "numpy",
        "ophyd",
        "bluesky",
        "event_model",
        "tifffile",
        "rich",
    }
    assert heavy.isdisjoint(loaded)


def test_keeps_documents(tmp_path):
    """What it took is in the spool when it is flushed, and its status tells."""
    uid, documents = run_documents(3)
    with SpoolWriter(tmp_path / "spool") as writer:
        for document in documents[:3]:
            writer(*document)
        writer.flush()
        assert in_spool(tmp_path / "spool") == {key(*document): 1 for document in documents[:3]}
        status = writer.status()
        assert (status.documents, status.open_runs, status.catalogs, status.unsaved) == (3, (uid,), (), 0)
        assert (status.catalog, status.error, status.waiting, status.spool) == ("", "", 0, tmp_path / "spool")
        assert "3 documents received" in repr(status)
        assert repr(writer) == f"<SpoolWriter into {tmp_path / 'spool'}>"
    assert issubclass(CatalogWriter, SpoolWriter)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"directory": ""}, OptionError, "names no directory"),
        ({"directory": None}, OptionError, "names no directory"),
        ({"directory": "/proc/nowhere"}, SpoolError, "cannot be made"),
        ({"directory": ".", "on_error": "ignore"}, OptionError, "expected 'warn' or 'raise'"),
        ({"directory": ".", "durability": "none"}, OptionError, "expected 'normal' or 'full'"),
    ],
)
def test_what_it_refuses(arguments, error, said):
    """An argument that means nothing, or a directory that takes nothing, is an error when the writer is made."""
    with pytest.raises(error, match=said):
        SpoolWriter(**arguments)


def test_on_error(tmp_path, caplog):
    """After it was closed nothing is taken: that is said in the log, or raised, as its user wants it."""
    _, documents = run_documents(1)
    writer = SpoolWriter(tmp_path)
    writer.close()
    writer(*documents[0])
    assert "is closed; make a new one" in caplog.text
    writer = SpoolWriter(tmp_path, on_error="raise")
    writer.close()
    with pytest.raises(SpoolError, match="is closed; make a new one"):
        writer(*documents[0])


def test_spools_below(tmp_path):
    """A place is a spool, holds some, or does not hold any yet."""
    for name in ("one", "two"):
        SpoolWriter(tmp_path / name).close()
    (tmp_path / "other").mkdir()
    assert spools_below([tmp_path / "nowhere", tmp_path / "other"]) == []
    assert spools_below([tmp_path, tmp_path / "one"]) == [tmp_path / "one", tmp_path / "two"]


class Manager:
    """A service manager: a socket, and what it was told."""

    def __init__(self, path):
        self.environment = {**os.environ, "NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "400000"}
        self.told = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        while message := self._socket.recv(1000):
            self.told.append(message.decode())
        self._socket.close()

    def close(self):
        """Listen no more."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", self._socket.getsockname())


def test_service(tmp_path, catalog, data_directory):
    """The service finds spools below its directory, delivers runs as they grow, says how it is, and ends at once."""
    run_ = SmallRun(data_directory, 31, events=6)
    with closing(Manager(tmp_path / "notify")) as manager:
        environment = {**manager.environment, "TILED_API_KEY": catalog.api_key}
        command = [*COMMAND, "deliver", tmp_path / "spools", "--catalog", catalog.uri, "--interval", "0.1"]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        try:
            wait_for(lambda: manager.told[:1] == ["READY=1"])
            client = from_uri(catalog.uri, api_key=catalog.api_key)
            with SpoolWriter(tmp_path / "spools" / "one") as writer, closing(client.context):
                for document in run_.documents[:9]:
                    writer(*document)
                wait_for(lambda: rows(client, run_.uid) == 3)
                assert client[run_.uid].metadata.get("stop") is None
                for document in run_.documents[9:]:
                    writer(*document)
                wait_for(lambda: client[run_.uid].metadata.get("stop"))
                found = [key(*pair) for pair in documents_of(client[run_.uid])]
                assert sorted(found) == sorted(key(*pair) for pair in run_.documents)
            check = ["deliver", tmp_path / "spools", "--catalog", catalog.uri, "--check"]
            assert run(*check).returncode == 0
            assert ended(process) == 0
            wait_for(lambda: manager.told[-1] == "STOPPING=1")
            assert "WATCHDOG=1" in manager.told
            assert any(words.startswith("STATUS=Delivers from 1 spool") for words in manager.told)
            result = run(*check)
            assert (result.returncode, "nobody delivers" in result.stdout) == (1, True)
        finally:
            process.kill()
            process.communicate()


def test_a_manager_that_does_not_listen(tmp_path, monkeypatch):
    """Nobody waits for a service manager, however many lines it has not read, or when it is gone."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        for _ in range(1000):
            Notifier().ready()
        assert manager.recv(100) == b"READY=1"
    Notifier().stopping()


def rows(client, uid):
    """How many events of a run can be read."""
    stream = client[uid]["primary"] if uid in client and "primary" in client[uid] else {}
    return len(stream["x"].read()) if "x" in stream else 0


def test_service_that_cannot_begin(tmp_path, catalog):
    """A service without an address, or with a wrong key, ends with an error at once."""
    result = run("deliver", tmp_path)
    assert result.returncode == 2
    assert "--catalog" in result.stderr
    result = run("deliver", tmp_path, "--catalog", catalog.uri, "--api-key", "wrong")
    assert result.returncode == 1
    assert "API key" in result.stderr
