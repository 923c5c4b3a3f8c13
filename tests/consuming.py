"""What tests of sources share: consumers in processes of their own, and what a spool holds in the end."""

import subprocess
import sys
import time
from collections import Counter
from contextlib import closing, contextmanager
from pathlib import Path

from command_line import COMMAND

from bluesky_filestore.spool import Ledger
from bluesky_filestore.spool.database import FILE_NAME


def key(name, doc):
    """By what a document is known again."""
    return name, str(doc.get("datum_id") or doc.get("uid"))


def in_spool(directory: Path):
    """The documents in a spool, as often as they are there."""
    if not (directory / FILE_NAME).exists():
        return Counter()
    with closing(Ledger(directory)) as ledger:
        return Counter(key(each.name, each.doc()) for each in ledger.documents_after(0, 10**6, 2**40))


def wait_for(condition, timeout=60.0):
    """Wait until something is so."""
    until = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.05)


@contextmanager
def consumer(*arguments):
    """The command consume in a process of its own, killed in the end if it still runs."""
    process = subprocess.Popen([*COMMAND, "consume", *map(str, arguments)], stdout=sys.stderr)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def ended(process):
    """End a service as systemd would; its exit code."""
    process.terminate()
    return process.wait(timeout=20)
