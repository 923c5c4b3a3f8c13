"""A lock that a dead process loses."""

import fcntl
import os
import signal
import subprocess
import sys

import pytest

from bluesky_filestore.spool.lease import Lease

HOLDER = """
import os, sys, time
from pathlib import Path
from bluesky_filestore.spool.lease import Lease
lease = Lease(Path(sys.argv[1]))
assert lease.take()
forked = sys.argv[2] == "fork" and os.fork()
if sys.argv[2] == "fork" and not forked:
    print("forked", os.getpid(), flush=True)
    time.sleep(60)
elif not forked:
    print("holds", os.getpid(), flush=True)
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path):
    """Where the lease is."""
    return tmp_path / "a.lock"


@pytest.fixture
def hold(path):
    """Have another process take the lease; the process, and the number that it or its child says."""
    processes, children = [], []

    def start(how="plain"):
        process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path), how], stdout=subprocess.PIPE, text=True)
        processes.append(process)
        child = int(process.stdout.readline().split()[1])
        children.extend([child] if how == "fork" else [])
        return process

    yield start
    for child in children:
        os.kill(child, signal.SIGKILL)
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def test_one_at_a_time(path):
    """Of two, one has it, also within one process; the other gets it when that gives it up."""
    first, second = Lease(path), Lease(path)
    assert (first.holder(), first.held) == (None, False)
    assert first.take()
    assert first.take()
    assert not second.take()
    assert (first.held, second.held) == (True, False)
    assert first.holder() == second.holder() == os.getpid()
    second.give_up()
    assert not second.take()
    first.give_up()
    first.give_up()
    assert (first.held, second.holder()) == (False, None)
    assert second.take()
    second.give_up()


def test_killed_holder(path, hold):
    """A process that is killed loses it at once."""
    process, lease = hold(), Lease(path)
    assert lease.holder() == process.pid
    assert not lease.take()
    process.kill()
    process.wait()
    assert lease.holder() is None
    assert lease.take()
    lease.give_up()


def test_stopped_holder(path, hold):
    """A process that is stopped keeps it: it may go on at any time."""
    process, lease = hold(), Lease(path)
    os.kill(process.pid, signal.SIGSTOP)
    assert not lease.take()
    assert lease.holder() == process.pid


def test_forked_holder(path, hold):
    """A child that was forked does not keep it for its killed parent."""
    process, lease = hold("fork"), Lease(path)
    assert lease.holder() == process.pid
    process.kill()
    process.wait()
    assert lease.take()
    lease.give_up()


def test_looked_at(path):
    """Who looks for the holder keeps nobody from taking it, however often it looks."""
    probe = "import sys\nfrom pathlib import Path\nfrom bluesky_filestore.spool.lease import Lease\n"
    probe += "lease = Lease(Path(sys.argv[1]))\nprint('looks', flush=True)\nwhile True: lease.holder()"
    path.touch()
    process = subprocess.Popen([sys.executable, "-c", probe, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        process.stdout.readline()
        for _ in range(300):
            lease = Lease(path)
            assert lease.take()
            lease.give_up()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_looked_at_for_long(path):
    """Of one that is locked by whoever looks, for ever, it is known that it cannot be had."""
    path.touch()
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert not Lease(path).take()
    lease = Lease(path)
    assert lease.take()
    lease.give_up()


def test_cannot_be_made(tmp_path):
    """Where no file can be made is an error, not a lease of somebody else's."""
    with pytest.raises(OSError, match="No such file"):
        Lease(tmp_path / "no" / "a.lock").take()
