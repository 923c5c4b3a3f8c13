"""Who puts documents into a spool, and who is taken for dead: several processes with one spool."""

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from spooled import Applied, run_documents

from bluesky_filestore.delivery.conveyor import Conveyor
from bluesky_filestore.delivery.problems import Problems
from bluesky_filestore.spool import Ledger, Store
from bluesky_filestore.spool.lease import Lease
from bluesky_filestore.spool.pruning import prune

WRITER = """
import sys
from pathlib import Path
from spooled import run_documents
from bluesky_filestore.spool import Store
store = Store(Path(sys.argv[1]))
uid, documents = run_documents(3, uid=sys.argv[2])
print(store.producer, flush=True)
for _ in sys.stdin:
    if documents:
        store.append(*documents.pop(0))
    print(store.producer, flush=True)
store.close()
"""


class Writer:
    """A process with a store, which puts in the next document of its run when it is told to."""

    def __init__(self, directory, uid):
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(directory), uid],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent,
        )
        self.producer = int(self.process.stdout.readline())

    def put(self, count=1):
        """Put in so many documents; the number that it goes by then."""
        for _ in range(count):
            self.process.stdin.write("next\n")
            self.process.stdin.flush()
            self.producer = int(self.process.stdout.readline())
        return self.producer

    def end(self):
        """End the process, and wait for that."""
        self.process.stdin.close()
        assert self.process.wait(60) == 0
        self.process.stdout.close()


@pytest.fixture
def writers(tmp_path):
    """Two processes with a store in one spool."""
    ours = [Writer(tmp_path, "run of one"), Writer(tmp_path, "run of other")]
    yield ours
    for writer in ours:
        writer.process.kill()
        writer.process.wait()
        writer.process.stdin.close()
        writer.process.stdout.close()


def put_aside(directory):
    """Move the database out of the way, as whoever finds it damaged does."""
    with closing(Ledger(directory)) as ledger:
        ledger.put_aside("somebody found it damaged")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_numbers_after_put_aside(tmp_path, writers, order):
    """Writers that go on in a new database have numbers of their own there, whoever notices first, and are alive."""
    put_aside(tmp_path)
    numbers = [writers[number].put() for number in order]
    assert len(set(numbers)) == 2
    with closing(Ledger(tmp_path)) as ledger:
        assert [ledger.is_alive(number) for number in numbers] == [True, True]
        writers[order[0]].end()
        assert [ledger.is_alive(number) for number in numbers] == [False, True]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_live_run_is_not_cut_short(tmp_path, writers, order):
    """A run that began in the new database and goes on is delivered to its end, whatever becomes of other writers."""
    put_aside(tmp_path)
    first, second = (writers[number] for number in order)
    first.put(2)
    second.put(2)
    catalog = Applied()
    with closing(Ledger(tmp_path)) as ledger:
        conveyor = Conveyor(ledger, catalog, Problems(), since=0)

        def go_on():
            conveyor.move()
            conveyor.look_around()
            conveyor.move()

        go_on()
        assert catalog.closed() == {}
        second.end()
        go_on()
        first.put(4)
        go_on()
        closed = catalog.closed()
        uids = {first: f"run of {('one', 'other')[order[0]]}", second: f"run of {('one', 'other')[order[1]]}"}
        assert closed[uids[first]]["stop"]["num_events"] == {"primary": 3}
        assert closed[uids[first]]["notes"] == []
        assert "cut short" in closed[uids[second]]["notes"][0]


def test_nobody_is_dead_in_a_database_that_was_put_aside(tmp_path, writers):
    """Who still reads the old database does not take for dead whoever goes on in the new one."""
    writer = writers[1]
    old = writer.producer
    writer.put(2)
    with closing(Ledger(tmp_path)) as ledger:
        put_aside(tmp_path)
        writers[0].end()
        writer.put(4)
        assert not ledger.is_current
        assert ledger.is_alive(old)


def test_pruned_leases_are_nobodys(tmp_path, writers):
    """Pruning a database that was put aside takes no lease from a writer of the new one."""
    writers[0].end()
    with closing(Ledger(tmp_path)) as ledger:
        put_aside(tmp_path)
        with closing(Store(tmp_path)) as store:
            assert store.producer == 1
            prune(ledger, 0.0)
            with closing(Ledger(tmp_path)) as current:
                assert current.is_alive(store.producer)


def test_lease_of_a_file_that_was_removed(tmp_path):
    """Whoever waits for a lease has it of the file that others find, not of one that its holder removed."""
    first, second, third = (Lease(tmp_path / "a.lock") for _ in range(3))
    assert first.take()
    first.remove()
    assert not (tmp_path / "a.lock").exists()
    assert second.take()
    assert not third.take()
    first.remove()
    assert third.holder() is not None


def test_stores_of_one_process(tmp_path):
    """Two writers of one process are two, too."""
    with closing(Store(tmp_path)) as one, closing(Store(tmp_path)) as other:
        put_aside(tmp_path)
        for store in (other, one):
            store.append(*run_documents(1)[1][0])
        assert one.producer != other.producer
        with closing(Ledger(tmp_path)) as ledger:
            assert ledger.is_alive(one.producer)
            assert ledger.is_alive(other.producer)
