"""What a terminal is sent: texts of documents as they are, and nothing of them that it would obey."""

import re
import subprocess
import sys

import pytest
from command_line import run
from rich.text import Text
from spooled import put, run_documents
from typer.testing import CliRunner

from bluesky_filestore import CatalogWriter
from bluesky_filestore.cli import app
from bluesky_filestore.cli.console import Console

NOBODY = "http://127.0.0.1:9/api/v1/metadata/"
EVIL = "\x1b[2J\x1b]0;mine\x07\x08\r\x7f\x9b31m\u202eback"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def invoke(*arguments):
    """Run the command in this process."""
    return CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.fixture
def spool(tmp_path):
    """A spool with a run whose uid, metadata and reason of being parked hold what a terminal obeys."""
    directory = tmp_path / "spool"
    put(directory, run_documents(2, uid=f"12345{EVIL}", plan_name=EVIL)[1], catalogs=[f"{NOBODY}{EVIL}"])
    return directory


def test_nothing_is_obeyed(spool):
    """No command sends the terminal anything out of documents, reasons and addresses but text."""
    for arguments in (
        ["park", "12345", "--reason", EVIL, "--spool", spool],
        ["status", spool],
        ["status", spool, "--json"],
        ["resume", spool, "--wait", 0.2],
        ["export", "12345", "--spool", spool],
        ["forget", "12345", "--spool", spool, "--yes"],
    ):
        shown = invoke(*arguments)
        assert not OBEYED.search(shown.output), (arguments, shown.output)
        assert "12345" in shown.output or arguments[0] in ("status", "resume"), shown.output


def test_its_own_colours_are_kept(capsys):
    """Styles and layout are there; a sign stands for each character that a terminal would obey."""
    console = Console(force_terminal=True, color_system="standard", width=80)
    console.print(Text.assemble(("a\x1bb", "bold"), "c\x9b"))
    assert capsys.readouterr().out == "\x1b[1ma\u241bb\x1b[0mc\ufffd\n"


def test_an_error_is_shown_so(tmp_path):
    """A path in an error as well."""
    shown = run("serve", tmp_path / "catalog", "--port", 0, "--readable", f"/nowhere/{EVIL.replace(chr(0), '')}")
    assert shown.returncode == 1
    assert "/nowhere/\u241b[2J" in shown.stderr
    assert not OBEYED.search(shown.stderr)


def test_status_of_a_writer(spool, tmp_path):
    """The status of a writer, as Python shows it, is text alone."""
    with CatalogWriter.from_uri("http://127.0.0.1:9", api_key="a", spool=tmp_path / "own", wait_on_stop=0.0) as writer:
        writer("event", {"uid": EVIL, "descriptor": EVIL})
        writer("stop", {"uid": EVIL, "run_start": EVIL})
        shown = repr(writer.status())
    assert not OBEYED.search(shown)


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        ("PermissionError(13, 'Permission denied', '/x')", r"'/x' cannot be used \(Permission denied\); expected one"),
        ("FileNotFoundError(2, 'No such file', '/x', None, '/y')", r"'/x' -> '/y' cannot be used \(No such file\)"),
        ("OSError(28, 'No space left on device')", r"the disk is full \(No space left on device\); expected room"),
        ("OSError('what a library says')", r"unexpected OSError: what a library says \(run again with --debug"),
    ],
)
def test_errno_is_never_alone(raised, words):
    """What the operating system refuses is said in a sentence, with what to do."""
    code = f"""
import sys
from bluesky_filestore.cli import entry
def fail():
    raise {raised}
entry.app.command("fail")(fail)
sys.argv = ["bluesky-filestore", "fail"]
entry.main()
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert shown.returncode == 1
    assert re.match(f"Error: {words}", shown.stderr), shown.stderr
    assert "Errno" not in shown.stderr
