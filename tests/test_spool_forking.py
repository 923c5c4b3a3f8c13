"""A process that is forked at any moment keeps no lock of its parent's."""

import fcntl
import os
import threading
from contextlib import contextmanager, suppress

import pytest

from bluesky_filestore.spool.database import open_or_make, put_aside
from bluesky_filestore.spool.forking import no_fork
from bluesky_filestore.spool.lease import Lease
from bluesky_filestore.spool.measures import Measures, measured

pytestmark = pytest.mark.filterwarnings("ignore:.*is multi-threaded, use of fork:DeprecationWarning")


@contextmanager
def forked(monkeypatch, act):
    """Have another thread do something, and fork just when it has got a lock; the child lives inside."""
    locked, is_forked, thread = threading.Event(), threading.Event(), threading.Thread(target=act)
    real = fcntl.flock

    def flock(descriptor, how):
        real(descriptor, how)
        if threading.current_thread() is thread:
            locked.set()
            # Not for ever: who forks waits for us, or so it should be.
            is_forked.wait(0.5)

    monkeypatch.setattr(fcntl, "flock", flock)
    (lives, says_so), (ends, ending) = os.pipe(), os.pipe()
    thread.start()
    locked.wait(60)
    child = os.fork()
    if not child:
        with suppress(BaseException):
            os.close(ending)
            os.write(says_so, b"!")
            os.read(ends, 1)
        os._exit(0)
    is_forked.set()
    thread.join()
    monkeypatch.undo()
    # It leaves its parent's leases to that first, which takes a moment.
    os.read(lives, 1)
    try:
        yield
    finally:
        for descriptor in (ending, ends, lives, says_so):
            os.close(descriptor)
        os.waitpid(child, 0)


def test_while_somebody_looks(tmp_path, monkeypatch):
    """Who had a lease is looked for, and nobody did: it can be had."""
    (tmp_path / "a.lock").touch()
    found, lease = [], Lease(tmp_path / "a.lock")
    with forked(monkeypatch, lambda: found.append(lease.holder())):
        assert found == [None]
        assert lease.take()
    lease.give_up()


@pytest.mark.parametrize("end", [Lease.give_up, Lease.remove])
def test_while_it_is_taken(tmp_path, monkeypatch, end):
    """It is taken, and given up again: another one can have it."""
    lease = Lease(tmp_path / "a.lock")
    with forked(monkeypatch, lease.take):
        assert lease.held
        end(lease)
        assert lease.take()
        lease.give_up()


def test_while_it_is_found_taken(tmp_path, monkeypatch):
    """What was only tried is kept from nobody."""
    lease, other = Lease(tmp_path / "a.lock"), Lease(tmp_path / "a.lock")
    assert lease.take()
    tries = threading.Thread(target=other.take)
    with forked(monkeypatch, lambda: (tries.start(), tries.join(), Lease(tmp_path / "b.lock").take())):
        lease.give_up()
        assert other.take()
    other.give_up()


def test_while_something_is_put_aside(tmp_path, monkeypatch):
    """The next damaged database can be put aside."""
    open_or_make(tmp_path).close()
    with forked(monkeypatch, lambda: put_aside(tmp_path, None, "nothing is wrong")):
        descriptor = os.open(tmp_path / "aside.lock", os.O_RDWR)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)


def test_while_something_is_counted(tmp_path, monkeypatch):
    """What comes is counted."""
    measures = Measures(tmp_path)
    measures.add("a", 1)
    with forked(monkeypatch, lambda: measures.save(at_once=True)):
        measures.add("a", 1)
        measures.save(at_once=True)
        assert measured(tmp_path) == {"a": 2}


def test_one_after_the_other(tmp_path):
    """Who puts something aside waits for whoever does so, and lets others fork meanwhile."""
    open_or_make(tmp_path).close()
    descriptor = os.open(tmp_path / "aside.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    thread = threading.Thread(target=put_aside, args=(tmp_path, None, "nothing is wrong"))
    thread.start()
    try:
        assert no_fork.acquire(timeout=30)
        no_fork.release()
        thread.join(0.2)
        assert thread.is_alive()
    finally:
        os.close(descriptor)
        thread.join(30)
    assert not thread.is_alive()


def test_child_goes_on(tmp_path):
    """A child can take leases of its own, and fork in its turn."""
    child = os.fork()
    if not child:
        with suppress(BaseException):
            grandchild = os.fork()
            if not grandchild:
                os._exit(0 if Lease(tmp_path / "a.lock").take() else 1)
            _, status = os.waitpid(grandchild, 0)
            os._exit(0 if status == 0 and Lease(tmp_path / "b.lock").take() else 1)
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
