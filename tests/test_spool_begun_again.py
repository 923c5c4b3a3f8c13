"""A delivery that was interrupted begins again: what waits is counted once."""

from contextlib import closing

from spooled import Applied, run_documents

from bluesky_filestore.delivery.conveyor import Conveyor
from bluesky_filestore.delivery.problems import Problems
from bluesky_filestore.spool import Ledger, Store


def test_documents_are_counted_once(tmp_path):
    """Who flushes goes by how many documents wait: those that are handed on a second time must not hide others."""
    _, documents = run_documents(6)
    with closing(Store(tmp_path)) as store, closing(Ledger(tmp_path)) as ledger:
        number = ledger.register_catalog(Applied.uri)
        for pair in documents[:4]:
            store.append(*pair)
        for _ in range(3):
            conveyor = Conveyor(ledger, Applied(), Problems(), since=0)
            conveyor.move()
            assert ledger.waiting_documents(number)[0] == 0
        for pair in documents[4:-1]:
            store.append(*pair)
        assert ledger.waiting_documents(number)[0] == 4
        conveyor.move()
        assert ledger.waiting_documents(number)[0] == 0
        store.append(*documents[-1])
        conveyor.move()
        assert ledger.counts(number) == {"delivered": 1}


def test_one_run_does_not_hide_another(tmp_path):
    """A run of which more was handed on than there is leaves the count of others alone."""
    with closing(Store(tmp_path)) as store, closing(Ledger(tmp_path)) as ledger:
        for uid in ("one", "other"):
            for pair in run_documents(2, uid=uid)[1]:
                store.append(*pair)
        number = ledger.register_catalog(Applied.uri)
        ledger.set_states(number, {1: ("uploading", "", 9)})
        assert ledger.waiting_documents(number)[0] == 5
