"""The command as a user starts it: in processes of its own."""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

COMMAND = [sys.executable, "-m", "bluesky_filestore.cli"]
_forks = multiprocessing.get_context("forkserver")
# Not ophyd: it looks at the environment when it is imported.
_forks.set_forkserver_preload(
    ["bluesky_filestore.cli.entry", "bluesky_filestore.bundles", "tiled.client", "pandas", "pyarrow", "h5py"]
)


def run(*arguments, timeout=60):
    """Run the command to its end, in a process that is forked from one that has imported what most commands need.

    Python's own start, which takes seconds, is a part of what `running` and others run, and not of this.
    """
    command = [*COMMAND, *map(str, arguments)]
    with tempfile.TemporaryDirectory() as directory:
        said = [Path(directory, name) for name in ("stdout", "stderr")]
        for path in said:
            path.touch()
        process = _forks.Process(target=_carry_out, args=(command[3:], dict(os.environ), Path.cwd(), said))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(command, timeout, *(path.read_bytes() for path in said))
        code = process.exitcode
        process.close()
        return subprocess.CompletedProcess(command, code, *(path.read_text("utf-8") for path in said))


def _carry_out(arguments: list[str], environment: Mapping[str, str], directory: Path, said: list[Path]) -> None:
    """Be the command."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    for descriptor, path in enumerate(said, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), descriptor)
    sys.argv = ["bluesky-filestore", *arguments]
    from bluesky_filestore.cli import main

    main()


@contextmanager
def running(*arguments, until: str, interrupt=True) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Run the command in the foreground, as a user would, until a line has come."""
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
    )
    try:
        lines: list[str] = []
        assert process.stdout is not None
        while not any(until in line for line in lines):
            line = process.stdout.readline()
            assert line, f"ended without {until!r}: {lines}"
            lines.append(line)
        yield process, lines
        if interrupt:
            process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) in (0, 130)
    finally:
        process.kill()
        process.communicate()
