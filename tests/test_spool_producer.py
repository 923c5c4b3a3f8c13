"""Documents that come together go into the database in few transactions, as they would one by one."""

from contextlib import closing, suppress

from hypothesis import given, settings
from hypothesis import strategies as st
from spooled import run_documents

from bluesky_filestore.errors import SpoolError
from bluesky_filestore.spool import Ledger, Store
from bluesky_filestore.spool.database import connect, transaction
from bluesky_filestore.spool.notes import NOTE
from bluesky_filestore.spool.producer import stretches


@st.composite
def mixed(draw):
    """The documents of three runs, each in its order, with notes between, in pieces."""
    left = [run_documents(draw(st.integers(0, 4)))[1] for _ in range(3)]
    for _, doc in [each for documents in left for each in documents if each[0] == "event"]:
        # Few of them are a page of the database.
        doc["data"]["pad"] = "x" * 1500
    documents = []
    while any(left):
        chosen = draw(st.sampled_from([each for each in left if each]))
        if chosen[0][0] != "start" and draw(st.integers(0, 3)) == 0:
            number = draw(st.integers(0, 3))
            documents.append((NOTE, {"run_start": chosen[-1][1]["run_start"], "text": f"note {number}"}))
        documents.append(chosen.pop(0))
    cuts = sorted(draw(st.sets(st.integers(1, len(documents) - 1), max_size=4)))
    return [documents[begin:end] for begin, end in zip([0, *cuts], [*cuts, None], strict=True)]


def held(directory):
    """All that is in a spool: its documents with their runs, whether these ended, and their notes."""
    with closing(Ledger(directory)) as ledger:
        documents = [(each.number, each.run, each.name, each.doc()) for each in ledger.documents_after(0, 10**6, 2**40)]
        runs = [
            (entry.uid, entry.first, entry.stopped is not None, ledger.notes(entry.number))
            for entry in ledger.entries(0)
        ]
    return documents, runs


@settings(max_examples=25, deadline=None)
@given(mixed(), st.integers(0, 6))
def test_as_one_by_one(tmp_path_factory, pieces, room):
    """What is in the spool is the same, also if the disk takes nothing more for a while, at any place in between."""
    directory = tmp_path_factory.mktemp("spool")
    with closing(Store(directory / "one by one")) as store:
        for documents in pieces:
            for name, doc in documents:
                store.append(name, doc)
        count, open_runs = store.documents, store.open_runs
    with closing(Store(directory / "together")) as store:
        execute = store._producer.connection.execute
        ((pages,),) = execute("PRAGMA page_count")
        execute(f"PRAGMA max_page_count = {pages + room}")
        for documents in pieces:
            with suppress(SpoolError):
                store.append_all(documents)
        execute("PRAGMA max_page_count = 100000")
        store.save()
        assert (store.documents, store.open_runs, store.unsaved) == (count, open_runs, 0)
    assert held(directory / "together") == held(directory / "one by one")


def test_somebody_has_the_database(tmp_path):
    """What came together waits in memory, in its order, while somebody else has the database."""
    documents = run_documents(20)[1]
    with closing(Store(tmp_path)) as store, closing(connect(tmp_path)) as other:
        store.append_all(documents[:4])
        with transaction(other):
            store.append_all(documents[4:8])
            assert store.unsaved == 4
        store.append_all(documents[8:])
        store.save()
    with closing(Ledger(tmp_path)) as ledger:
        assert list(ledger.documents_of(1)) == documents


def test_stretches():
    """Starts and stops are by themselves, and no transaction is long; together they are all, in their order."""
    big, small = b"x" * 400_000, b"x"
    names = ["event", "start", "descriptor", *["event"] * 6, "stop", "start", "stop", "event"]
    documents = [(name, {}, big if name == "event" else small, 0.0) for name in names]
    parts = list(stretches(documents))
    assert [document for part in parts for document in part] == documents
    assert [len(part) for part in parts] == [1, 1, 3, 2, 2, 1, 1, 1, 1]
    assert list(stretches([])) == []
