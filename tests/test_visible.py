"""Text of others, shown: in every error, report, log and command it is text, and nothing obeys it."""

import gc
import inspect
import io
import json
import logging
import re
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from small_runs import SmallRun
from typer.testing import CliRunner

import bluesky_filestore.errors
from bluesky_filestore import CatalogWriter, documents, open_array, open_pack, pack, verify_run
from bluesky_filestore.checking.finding import Finding, Report
from bluesky_filestore.cli import app
from bluesky_filestore.cli.console import Console
from bluesky_filestore.cli.notifying import Notifier
from bluesky_filestore.cli.spool_report import as_text
from bluesky_filestore.errors import FileStoreError
from bluesky_filestore.leanings import log_once
from bluesky_filestore.logs import get_logger
from bluesky_filestore.serving.log_files import log_to_files
from bluesky_filestore.spool import Ledger
from bluesky_filestore.spool.status import look_at
from bluesky_filestore.visible import visible, visible_json, visible_line, without_secrets

EVIL = "\x1b]0;mine\x07\x1b[2J\x08\r\x7f\x9b31m\u202eback\u2066\u200f\u2028\ud800"
MARKUP = "[bold red]x[/] [link=http://evil]y[/link] [/] :bomb: \\[z"
OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ud800-\udfff]"
)
SECRET = "Zz9Secret"  # noqa: S105
ADDRESS = f"http://user:{SECRET}@host:1/a?api_key={SECRET}#{SECRET}"
ERRORS = [
    kind
    for _, kind in inspect.getmembers(bluesky_filestore.errors, inspect.isclass)
    if issubclass(kind, FileStoreError)
]


def raised(kind, words):
    """An error of a kind."""
    return kind(words, "run") if kind.__name__ == "RowsDifferError" else kind(words)


@given(st.text(st.characters(codec=None, categories=None)))
def test_text(text):
    """Nothing that is obeyed is left of any text; all else of it is, in as many characters."""
    for shown, line in ((visible(text), False), (visible_line(text), True)):
        assert len(shown) == len(text)
        assert not OBEYED.search(shown)
        assert all(
            new == old or OBEYED.match(old) or (line and old == "\n") for new, old in zip(shown, text, strict=True)
        )
    assert len(visible_line(text).splitlines()) <= 1
    assert json.loads(visible_json(json.dumps(text, ensure_ascii=False))) == text


USERS = st.from_regex(r"[A-Za-z0-9:._~!$&()*+,;=%-]{0,10}", fullmatch=True)


@given(
    st.sampled_from(["http", "https", "mongodb+srv", "postgresql+asyncpg", "kafka", "zmq", "POSTGRESQL"]),
    USERS,
    st.sampled_from(["host", "127.0.0.1:80", "[::1]:5", "a:1,b:2"]),
    st.sampled_from(["", "/", "/a/b", "/a@b"]),
    st.sampled_from(["", "?", "#"]),
    st.sampled_from(["", "see ", "for url '", '("', "<"]),
    st.sampled_from(["", " and", "' again", '")', ">", "\nnext"]),
)
def test_addresses_in_text(scheme, user, host, path, mark, before, after):
    """User and query of each address go, wherever in a text it stands, and the rest stays."""
    query = f"{mark}{SECRET}" if mark else ""
    address = f"{scheme}://{user}{SECRET}@{host}{path}{query}"
    assert without_secrets(f"{before}{address}{after}") == f"{before}{scheme}://{host}{path}{after}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("api_key=abc&x=1", "api_key=...&x=1"),
        ("host=a password=b dbname=c", "host=a password=... dbname=c"),
        ("file:///data/what?.h5", "file:///data/what?.h5"),
        ("a@b, what? and #1", "a@b, what? and #1"),
    ],
)
def test_other_secrets(text, shown):
    """Keys that are named go as well; names of files are not addresses."""
    assert without_secrets(text) == shown


@pytest.mark.parametrize("kind", ERRORS)
def test_errors(kind):
    """Each kind of error is shown so, in a traceback as well; what it was made with is kept."""
    words = f"file {EVIL} at {ADDRESS} ({MARKUP})"
    error = raised(kind, words)
    for shown in (str(error), f"{error}", f"{error!r}"):
        assert not OBEYED.search(shown)
    assert SECRET not in str(error)
    assert str(error) == f"file {visible(EVIL)} at http://host:1/a ({MARKUP})"
    assert error.args[0] == words


@pytest.mark.parametrize("way", ["arguments", "words", "error", "once"])
def test_logs(way):
    """What a logger of ours says is a line, whoever listens: no second one can be made up."""
    logger = get_logger(f"bluesky_filestore.test_{way}")
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.addHandler(handler)
    words = f"{EVIL}\nERROR made up {ADDRESS}"
    try:
        if way == "arguments":
            logger.warning("run %s, %d of %r", words, 3, words)
        elif way == "words":
            logger.warning(words)
        elif way == "once":
            log_once(logger, words)
        else:
            try:
                raise ValueError(words)
            except ValueError as error:
                logger.exception("failed: %s", error)
    finally:
        logger.removeHandler(handler)
    said = stream.getvalue()
    assert not OBEYED.search(said)
    assert SECRET not in said
    assert "\u241b]0;mine" in said
    if way != "error":
        assert said.count("\n") == 1


def test_logs_of_the_server(tmp_path, caplog):
    """Lines of uvicorn and Tiled, whose texts come over the network."""
    caplog.set_level(logging.INFO, "uvicorn.access")
    with log_to_files(tmp_path):
        access = logging.getLogger("uvicorn.access")
        access.info('%s - "%s %s" %d', f"1.2.3.4{EVIL}\nERROR", "GET", f"/a?api_key={SECRET}", 200)
        try:
            raise ValueError(f"{EVIL} {ADDRESS}")
        except ValueError:
            logging.getLogger("tiled.any").exception("failed")
    said = (tmp_path / "access.log").read_text() + (tmp_path / "server.log").read_text()
    assert (tmp_path / "access.log").read_text().count("\n") == 1
    assert not OBEYED.search(said)
    assert SECRET not in said


@pytest.mark.parametrize("is_terminal", [True, False])
def test_console(is_terminal):
    """Text in tables, in lines and in cells is no markup, no link and no emoji."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=is_terminal, width=400)
    table = Table(MARKUP)
    table.add_row(f"{MARKUP} {EVIL} {ADDRESS}")
    console.print(table)
    console.print(f"{MARKUP} {EVIL} {ADDRESS}")
    console.say((f"{MARKUP} {EVIL} {ADDRESS}", "bold"), MARKUP)
    own = re.sub("\x1b\\[[0-9;]*m", "", stream.getvalue())
    assert not OBEYED.search(own)
    assert own.count(MARKUP) == 5
    assert SECRET not in own
    assert "\x1b]8" not in stream.getvalue()


def test_reports():
    """A report about a device or a run, as Python and as the command shows it."""
    finding = Finding("check", f"plugin{EVIL}", False, f"record says {EVIL}{MARKUP}", f"set {EVIL}")
    report = Report((finding,))
    stream = io.StringIO()
    Console(file=stream, width=400).print(report)
    for shown in (str(report), repr(report), stream.getvalue()):
        assert not OBEYED.search(shown)
        assert MARKUP in shown


def test_a_service_manager(tmp_path, monkeypatch):
    """What a unit's status shows is one line as well: another would be another message to the manager."""
    sent = []
    notifier = Notifier()
    monkeypatch.setattr(notifier, "_send", sent.append)
    notifier.look(f"run {EVIL}\nMAINPID=1", is_alive=True)
    assert len(sent) == 1
    assert not OBEYED.search(sent[0])
    assert "\n" not in sent[0]


@pytest.fixture
def run(tmp_path, catalog, data_directory):
    """A run whose metadata, file and reasons are what somebody made up; its uid, and the spool that it came by."""
    small = SmallRun(data_directory, 88, events=2)
    name = f"evil {EVIL[:-1]}.h5"
    (data_directory / "small 88.h5").rename(data_directory / name)
    told = f"{EVIL[:-1]}{MARKUP}"
    with CatalogWriter(catalog.client, spool=tmp_path / "spool") as writer:
        for kind, doc in small.documents:
            extra = {
                "start": {"plan_name": told, "scan_id": told},
                "resource": {"resource_path": name},
            }
            writer(kind, doc | extra.get(kind, {}))
        writer.flush()
        shown = f"{writer.status()} {writer!r}"
    assert not OBEYED.search(shown)
    return small.uid, tmp_path / "spool"


# A command may leave its connection to the end of its process.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_commands(run, catalog, tmp_path):
    """The commands that look at a run, move it and let go of it."""
    uid, spool = run
    with closing(Ledger(spool)) as ledger:
        ledger.register_catalog(f"http://127.0.0.1:9/{EVIL[:-1]}")
    options = ("--uri", catalog.uri, "--api-key", catalog.api_key)
    for arguments in (
        ["verify", uid, *options],
        ["verify", uid, "--json", *options],
        ["preview", uid, *options, "--output", tmp_path / "sheet.png"],
        ["preview", uid, *options, "--stream", f"{EVIL[:-1]}{MARKUP}"],
        ["manifest", uid, *options],
        ["nexus", uid, *options, "--to", tmp_path / "run.nxs"],
        ["pack", uid, *options, "--to", tmp_path / f"pack {EVIL[2:4]}"],
        ["relocate", f"/{EVIL[:-1]}=/elsewhere", uid, *options],
        ["park", uid, "--reason", f"{EVIL[:-1]}{MARKUP}\n  catalog    made up", "--spool", spool],
        ["status", spool],
        ["status", spool, "--json"],
        ["export", uid, "--spool", spool],
        ["rename", f"http://{EVIL[:-1]}", f"http://{MARKUP}", "--spool", spool],
        ["unpack", tmp_path / f"{EVIL[:-1]}{MARKUP}", "--into", tmp_path, *options],
        ["serve", tmp_path / "catalog", "--readable", f"/{EVIL[1:-1]}{MARKUP}"],
        ["sim", "--port", EVIL[1:-1]],
        ["consume", f"{EVIL[1:-1]}{MARKUP}", "--spool-only", "--spool", tmp_path / "taken"],
        ["doctor", f"{EVIL[1:-1]}{MARKUP}"],
        [f"{EVIL[1:-1]}{MARKUP}"],
        ["forget", uid, "--spool", spool, "--yes"],
    ):
        shown = CliRunner().invoke(app, [str(each) for each in arguments])
        said = f"{shown.output}{shown.exception or ''}"
        assert not OBEYED.search(said), (arguments[0], said)
        assert said, arguments
        if arguments[0] == "status":
            assert not any(line.startswith("  catalog    made up") for line in said.splitlines())
    assert not OBEYED.search(as_text([look_at(spool)], {}).plain)
    gc.collect()


def test_in_python(run, catalog, tmp_path):
    """What reads a run, as Python shows it."""
    uid, _ = run
    node = catalog.client[uid]
    for call in (
        lambda: open_array(list(documents(node)), "image"),
        lambda: open_array(list(documents(node)), "image")[5, 6],
        lambda: verify_run(node),
        lambda: pack(catalog.client, [uid], to=tmp_path / "p"),
        lambda: open_pack(tmp_path / "p"),
        lambda: open_pack(tmp_path / EVIL[3:6]),
    ):
        try:
            shown = repr(call())
        except (FileStoreError, IndexError) as error:
            shown = f"{error} {error!r}"
        assert not OBEYED.search(shown), shown
