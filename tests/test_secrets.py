"""Keys and passwords are nowhere: not in what a session prints, logs, raises and keeps, wherever they were given."""

import gc
import io
import logging
import os
import signal
import subprocess
import threading
import traceback
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import yaml
from small_runs import SmallRun
from spooled import run_documents
from typer.testing import CliRunner

from bluesky_filestore import CatalogWriter, documents, open_array, pack, serve_catalog, verify_run
from bluesky_filestore.catalogs.tiled.connecting import connect, connect_profile
from bluesky_filestore.cli import app
from bluesky_filestore.errors import FileStoreError
from bluesky_filestore.sim import SimulatedIOC
from bluesky_filestore.sources.kafka import KafkaSource
from bluesky_filestore.sources.zmq import ZMQSource

SECRET = "Zz9Secret"  # noqa: S105
KEY, WRONG, PASSWORD, OLD = (f"{SECRET}{name}" for name in ("Key", "Wrong", "Password", "Old"))
NOBODY = "127.0.0.1:1"
QUERY = f"?api_key={KEY}&password={PASSWORD}#{PASSWORD}"


class Session:
    """Remembers all that is said while somebody works."""

    def __init__(self, directory):
        self.directory = directory
        self.told: list[tuple[str, str]] = []

    def tries(self, what, call, *arguments, **options):
        """Call something, and keep what it gives or raises, with the tracebacks of all that led to it."""
        try:
            given = call(*arguments, **options)
        except Exception as error:  # noqa: BLE001 - what it is makes no difference here
            self.told.append((what, "".join(traceback.format_exception(error))))
            return None
        self.told.append((what, f"{given} {given!r}"))
        if hasattr(given, "context"):
            given.context.close()
        return given

    def commands(self, *arguments):
        """Give a command, and keep what it prints; its exit code."""
        shown = CliRunner().invoke(app, [str(each) for each in arguments])
        said = [shown.output]
        if shown.exception is not None:
            # As `main` has it, and as --debug shows it.
            said += traceback.format_exception(shown.exception)
        self.told.append((" ".join(map(str, arguments[:1])), "".join(said)))
        return shown.exit_code


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A server that knows one key."""
    directory = tmp_path_factory.mktemp("secrets")
    (directory / "data").mkdir()
    with serve_catalog(directory / "catalog", readable=directory / "data", api_key=KEY) as server:
        yield server, directory


@pytest.fixture
def session(place, monkeypatch, capfd):
    """All that is said in a test, on any level, and all that is kept; nothing of it may hold a secret."""
    _, directory = place
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    before = root.level
    monkeypatch.setattr("tiled.profiles.paths", [directory / "profiles"])
    monkeypatch.setenv("TILED_RETRY_ATTEMPTS", "1")
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    session = Session(directory)
    yield session
    root.setLevel(before)
    root.removeHandler(handler)
    assert len(session.told) > 2
    session.told.append(("logging", stream.getvalue()))
    session.told += zip(("stdout", "stderr"), capfd.readouterr(), strict=True)
    for what, words in session.told:
        found = [line for line in words.splitlines() if SECRET in line]
        assert not found, (what, found)
    kept = [path for path in directory.rglob("*") if path.is_file() and path.parent.name != "profiles"]
    assert len(kept) > 5
    assert not [path for path in kept if SECRET.encode() in path.read_bytes() or SECRET in str(path)]


def addresses(server):
    """The address of a server, and of nobody, with secrets wherever an address may have some."""
    for where in (server.uri.removeprefix("http://"), NOBODY):
        yield f"http://{where}/{QUERY}"
        yield f"http://user:{PASSWORD}@{where}/api/v1/metadata/{QUERY}"
        yield f"http://{PASSWORD}@{where}"


def profiles(directory, server):
    """Profiles that hold keys, by name."""
    contents = {
        "queried": {"uri": f"{server.uri}/api/v1/?api_key={KEY}"},
        "named": {"uri": f"http://user:{PASSWORD}@{server.uri.removeprefix('http://')}?api_key={KEY}"},
        "headed": {"uri": server.uri, "headers": {"Authorization": f"Apikey {KEY}"}},
        "away": {"uri": f"http://user:{PASSWORD}@{NOBODY}?api_key={KEY}"},
    }
    # Tiled takes none with a key.
    refused = {"keyed": {"uri": server.uri, "api_key": KEY}}
    (directory / "profiles").mkdir(exist_ok=True)
    for name, content in (("all", contents), ("refused", refused)):
        (directory / "profiles" / f"{name}.yml").write_text(yaml.safe_dump(content))
    return [*contents, *refused]


def test_writers_and_readers(place, session):
    """Whoever writes and reads in Python, with whatever key, wherever it is given."""
    server, directory = place
    names = profiles(directory, server)
    for number, uri in enumerate(addresses(server)):
        session.tries("writer", CatalogWriter, uri)
        for given in ({"api_key": KEY}, {"api_key": WRONG}, {}):
            session.tries("connect", connect, uri, **given)
            spool = directory / f"spool-{number}-{len(given)}"
            writer = session.tries("writer", CatalogWriter.from_uri, uri, spool=spool, wait_on_stop=0.0, **given)
            if writer is not None:
                with suppress(FileStoreError), writer:
                    for document in run_documents(1)[1]:
                        writer(*document)
                    writer.flush(timeout=1.0)
                session.told.append(("status", f"{writer.status()} {writer!r}"))
    for name in names:
        session.tries("profile", connect_profile, name)
    session.tries("profile", connect_profile, f"user:{PASSWORD}@host")


# A command may leave its connection to the end of its process.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_commands(place, session, monkeypatch):
    """The commands, one after the other."""
    server, directory = place
    names = profiles(directory, server)
    run = SmallRun(directory / "data", 1, events=2)
    uid = run.uid
    with CatalogWriter.from_uri(server.uri, spool=directory / "spool", api_key=KEY) as writer:
        for document in run.documents:
            writer(*document)
        writer.flush()
    assert session.commands("export", uid, "--spool", directory / "spool", "--output", directory / "a.jsonl") == 0
    uris = [*(("--uri", uri) for uri in [*addresses(server)][1:4]), *(("--profile", name) for name in names[1:])]
    for number, where in enumerate(uris):
        session.commands("status", directory / "spool", *(("--json",) if number % 2 else ()))
        for key in ((), ("--api-key", WRONG)) if number < 1 else ((),):
            options = (*where, *key)
            session.commands("resume", directory / "spool", *options, "--wait", 0.1, "--park-after", 0.1)
            session.commands("verify", uid, *options)
            session.commands("pack", uid, "--to", directory / f"pack-{number}{len(key)}", *options)
            session.commands("preview", uid, *options, "--output", directory / "sheet.png")
            session.commands("nexus", uid, *options, "--to", directory / f"{number}{len(key)}.nxs")
            session.commands("manifest", uid, *options, "--sizes-only")
        catalog = ("--catalog" if where[0] == "--uri" else "--profile", where[1])
        session.commands("deliver", directory / "spool", "--check", *catalog)
        if NOBODY not in where[1] and where[1] != "away":
            session.commands("consume", "jsonl", directory / "a.jsonl", "--spool", directory / "other", *catalog)
        session.commands("migrate", where[1], f"http://user:{PASSWORD}@{NOBODY}/{QUERY}")
        session.commands("rename", where[1], f"http://user:{PASSWORD}@host/{QUERY}", "--spool", directory / "spool")
        session.commands("forget", where[1], "--yes", "--spool", directory / "spool")
    ended = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGTERM))
    ended.start()
    monkeypatch.setenv("TILED_API_KEY", KEY)
    assert session.commands("deliver", directory / "spool", "--catalog", server.uri) == 0
    ended.join()
    assert session.commands("verify", uid, "--uri", server.uri) == 0
    session.commands("doctor", f"user:{PASSWORD}@host")
    gc.collect()


SOURCES = [
    f"kafka://user:{PASSWORD}@{NOBODY}/topic{QUERY}",
    f"kafka://{NOBODY}/topic{QUERY}",
    f"kafka:user:{PASSWORD}@{NOBODY}",
    f"zmq://user:{PASSWORD}@{NOBODY}/{QUERY}",
    f"zmq:user:{PASSWORD}@{NOBODY}",
    f"zmq://user:{PASSWORD}@{NOBODY.partition(':')[0]}",
    f"ftp://user:{PASSWORD}@{NOBODY}",
]


def test_sources_and_databases(place, session):
    """Addresses of others than catalogs: Kafka, 0MQ, MongoDB and PostgreSQL."""
    _, directory = place
    for source in SOURCES:
        for kind in (KafkaSource, ZMQSource):
            made = session.tries(kind.__name__, kind, source)
            if made is not None:
                session.told.append(("source", f"{made.name} {made!r}"))
                made.close()
    for uri in (
        f"mongodb://user:{PASSWORD}@{NOBODY}/db?serverSelectionTimeoutMS=50&authSource={PASSWORD}",
        f"mongodb://user:{PASSWORD}@{NOBODY}/?serverSelectionTimeoutMS=50",
        f"mongodb://user:{PASSWORD}@@{NOBODY}/db",
        f"mongodb://user:{PASSWORD}@{NOBODY}/db?no such={PASSWORD}&serverSelectionTimeoutMS=50",
    ):
        session.commands("migrate", uri, f"http://{NOBODY}/{QUERY}", "--state", directory / "migration")
    for uri in (
        f"postgresql://u:{PASSWORD}@{NOBODY}/x",
        f"postgresql://{NOBODY}/x?user=u&password={PASSWORD}",
        f"postgresql+asyncpg://u:{PASSWORD}@{NOBODY}/x?ssl={PASSWORD}",
        f"mysql://u:{PASSWORD}@{NOBODY}/x",
        f"postgresql://u:{PASSWORD}@{NOBODY}:port/x",
    ):
        session.tries("database", serve_catalog, directory / "never", database=uri)
        session.commands("serve", directory / "never", "--port", 0, "--database", uri)


def test_a_database_is_filled_without_a_process(tmp_path, monkeypatch):
    """Whose arguments all users would see."""

    def refuse(*arguments, **_):
        raise AssertionError(arguments)

    monkeypatch.setattr(subprocess, "run", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    for _ in range(2):
        with serve_catalog(tmp_path / "catalog", database=f"sqlite:///{tmp_path / 'own.db'}") as server:
            assert list(server.client) == []


def test_what_a_child_knows(tmp_path, monkeypatch):
    """The simulated IOC has no keys in its environment, which lives as long as it does."""
    monkeypatch.setenv("TILED_API_KEY", KEY)
    monkeypatch.setenv("BLUESKY_FILESTORE_DATABASE", PASSWORD)
    monkeypatch.setenv("BLUESKY_FILESTORE_STREAMS", PASSWORD)
    monkeypatch.setenv("ANOTHER", "kept")
    with (tmp_path / "errors").open("w+b") as errors:
        child = SimulatedIOC(tmp_path)._start(errors)
        try:
            while not (environment := Path(f"/proc/{child.pid}/environ").read_bytes()):
                assert child.poll() is None
        finally:
            child.kill()
            child.communicate()
    assert b"ANOTHER=kept" in environment
    assert SECRET.encode() not in environment


def test_a_client_that_was_given(place, session):
    """With a client of the user's, the key is the client's alone."""
    server, directory = place
    with CatalogWriter(server.client, spool=directory / "given") as writer:
        run = SmallRun(directory / "data", 2, events=2)
        for document in run.documents:
            writer(*document)
        writer.flush()
    node = server.client[run.uid]
    session.tries("array", open_array, node["primary"]["image"])
    session.tries("verify", verify_run, node)
    session.tries("pack", pack, server.client, [run.uid], to=directory / "given.zip")
    session.tries("documents", lambda: list(documents(node)))
    session.told.append(("server", f"{server!r}"))
    assert isinstance(np.asarray(node["primary"]["image"][0]), np.ndarray)
