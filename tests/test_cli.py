"""The command line as a user meets it: other processes, real exit codes, no tracebacks."""

import contextlib
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from command_line import COMMAND, run, running
from effort import some
from processes import command_lines
from tiled.client import from_uri

from bluesky_filestore.catalogs.tiled.streams import streams


def test_version():
    """The version is the package's."""
    from bluesky_filestore import __version__

    assert run("--version").stdout == f"bluesky-filestore {__version__}\n"


@pytest.mark.parametrize("command", ["demo", "sim", "serve", "doctor", "status", "resume", "park", "forget", "export"])
def test_help(command):
    """Every command explains itself."""
    shown = run(command, "--help")
    assert shown.returncode == 0
    assert "Usage: bluesky-filestore" in shown.stdout


def test_error_is_a_sentence(tmp_path):
    """A directory that is a file: one line that names it, no traceback."""
    (tmp_path / "taken").write_text("")
    shown = run("serve", tmp_path / "taken", "--port", 0)
    assert shown.returncode == 1
    assert shown.stderr.startswith("Error:")
    assert "taken" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_debug_shows_the_traceback(tmp_path):
    """Asked for, and wherever on the line."""
    (tmp_path / "taken").write_text("")
    shown = run("serve", tmp_path / "taken", "--port", 0, "--debug")
    assert shown.returncode == 1
    assert "Traceback" in shown.stderr


def test_port_is_taken(tmp_path):
    """The error names the port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        shown = run("serve", tmp_path / "catalog", "--port", port)
    assert shown.returncode == 1
    assert str(port) in shown.stderr
    assert "Traceback" not in shown.stderr


def test_serve_prints_two_lines_that_work(tmp_path):
    """The lines of Python that are printed open the catalog."""
    with running("serve", tmp_path / "catalog", "--port", 0, until="client =") as (_, lines):
        code = "\n".join(line.strip() for line in lines[-2:])
        shown = subprocess.run(
            [sys.executable, "-c", f"{code}\nprint(len(client))"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    assert shown.stdout.strip() == "0"


def test_serve_with_a_key_of_my_own(tmp_path):
    """A key that was given stays the same over a restart, for writers that have it."""
    for _ in range(2):
        with running("serve", tmp_path, "--port", 0, "--api-key", "secret", until="client =") as (_, lines):
            assert 'api_key="secret"' in lines[-1]


def test_serve_what_is_new(tmp_path):
    """A server streams if it is asked to, and an address that is none of a Redis is told without a word of it."""
    with running("serve", tmp_path / "catalog", "--port", 0, "--streams", "memory", until="client =") as (_, lines):
        arguments = re.search(r'from_uri\("(.*)", api_key="(.*)"\)', "".join(lines))
        client = from_uri(arguments[1], api_key=arguments[2])
        assert streams(client)
        client.context.close()
    for address in ("http://user:secret@host", "redis://[user:secret@host"):
        shown = run("serve", tmp_path / "other", "--port", 0, "--streams", address)
        assert shown.returncode == 1
        assert "expected 'memory', or a Redis" in " ".join(shown.stderr.split())
        assert "secret" not in shown.stdout + shown.stderr


def test_serve_from_no_database(tmp_path):
    """What is no database is said to be none."""
    shown = run("serve", tmp_path, "--port", 0, "--database", "mysql://host/catalog")
    assert shown.returncode == 1
    assert "expected e.g. postgresql://host/catalog, with a user" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_sim_serves_records(tmp_path):
    """The line that is printed leads a client to the records."""
    with running("sim", tmp_path / "data", "--prefix", "TST:", until="export") as (_, lines):
        settings = dict(pair.split("=") for pair in lines[-1].split()[1:])
        shown = subprocess.run(
            [sys.executable, "-c", "import epics; print(epics.caget('TST:cam1:Model_RBV', timeout=10))"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env={**os.environ, **settings},
        )
    assert shown.stdout.strip() == "Basic simulator"


def test_demo_shows_that_every_frame_is_equal(tmp_path):
    """Eight runs, every frame equal; files, catalog and picture are kept where asked."""
    shown = run("demo", "--keep", tmp_path / "kept", timeout=110)
    assert shown.returncode == 0, shown.stderr
    assert re.search(r"All \d+ frames are equal", shown.stdout)
    assert shown.stdout.count(" yes ") == 8
    assert (tmp_path / "kept" / "frames.png").stat().st_size > 10_000
    assert list((tmp_path / "kept" / "data").rglob("*.h5"))
    assert list((tmp_path / "kept" / "data").rglob("*.tiff"))


def test_demo_fails_if_a_frame_differs(tmp_path):
    """One pixel of one file is turned before the comparison: the demo says so and exits non-zero."""
    code = f"""
import sys
from bluesky_filestore import cli, demo
true_frames = demo._frames_in
def turned(path):
    frames = true_frames(path)
    frames.flat[0] ^= 1
    return frames
demo._frames_in = turned
sys.argv = ["bluesky-filestore", "demo", "--sheet", {str(tmp_path / "sheet.png")!r}]
cli.main()
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=110, check=False)
    assert shown.returncode == 1
    assert "8 of 8 arrays differ" in shown.stdout


@pytest.mark.parametrize("delay", some([0.0, 1.0, 2.5], 1))
def test_demo_is_interrupted(tmp_path, delay):
    """Ctrl-C in its runs ends it: no traceback, and neither processes nor files are left."""
    process, said = on_a_terminal(tmp_path, "demo", "--sheet", tmp_path / "sheet.png", until=b"count and scan")
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGINT)
    rest = said()
    assert process.wait(timeout=60) == 130, rest
    assert b"Traceback" not in rest
    assert b"Error" not in rest
    assert list(tmp_path.iterdir()) == [tmp_path / "tmp"]
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not [line for line in command_lines() if str(tmp_path) in line]


def on_a_terminal(directory, *arguments, until):
    """A process whose temporary files are in a directory, and what gives all that it says from then on."""
    mine, its = pty.openpty()
    (directory / "tmp").mkdir()
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
        env=os.environ | {"TMPDIR": str(directory / "tmp")},
    )
    os.close(its)
    seen = b""
    while until not in seen:
        seen += os.read(mine, 4096)

    def rest():
        said = b""
        with contextlib.suppress(OSError):
            while more := os.read(mine, 4096):
                said += more
        os.close(mine)
        return said

    return process, rest


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sheet", "nowhere/sheet.png"], "the picture cannot be written to 'nowhere/sheet.png' (No such file"),
        (["--sheet", "sheet.odd"], "'sheet.odd' does not end as a picture; expected a name such as sheet.png"),
        (["--sheet", "directory.png"], "the picture cannot be written to 'directory.png' (Is a directory)"),
        (["--keep", ".", "--sheet", "nowhere/sheet.png"], "the picture cannot be written to 'nowhere/sheet.png'"),
        (["--keep", "file"], "nothing can be kept in 'file' (File exists); expected a directory"),
        (["--keep", "file/below"], "nothing can be kept in 'file/below' (Not a directory); expected a directory"),
    ],
)
def test_demo_tries_places_before_the_work(tmp_path, monkeypatch, options, words):
    """Where picture or files cannot go, that is said before anything is done."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "directory.png").mkdir()
    (tmp_path / "file").touch()
    shown = run("demo", *options)
    assert shown.returncode == 1
    assert words in shown.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["directory.png", "file"]


def test_interrupted_while_it_loads():
    """Ctrl-C while the command is still importing ends it without a traceback, too."""
    code = """
import sys
from bluesky_filestore.cli import main
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
main()
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert shown.returncode == 130
    assert shown.stderr == ""
