"""Which run a document belongs to."""

from contextlib import closing

import event_model
from spooled import run_documents

from bluesky_filestore.spool.belonging import Belonging
from bluesky_filestore.spool.database import open_or_make


def numbered(belonging, documents, run):
    """The numbers of the runs of documents, of which the first begins a run."""
    numbers = []
    for name, doc in documents:
        if name == "start":
            belonging.start(doc["uid"], run)
        numbers.append(belonging.run_of(name, doc))
        if name == "stop":
            belonging.stop(doc["run_start"])
    return numbers


def resource_of(uid="", **start):
    """A resource and a datum of it, as of a run."""
    run = event_model.compose_run(uid=uid or None, metadata=start)
    resource = run.compose_resource(spec="AD_HDF5", root="/", resource_path="a.h5", resource_kwargs={})
    return ("resource", resource.resource_doc), ("datum", resource.compose_datum(datum_kwargs={}))


def test_one_run():
    """All documents of a run are of that run, and none is after its stop."""
    belonging = Belonging()
    uid, documents = run_documents(2)
    assert numbered(belonging, documents, 7) == [7] * len(documents)
    assert belonging.open_runs == ()
    assert [belonging.run_of(*pair) for pair in documents[1:]] == [None] * (len(documents) - 1)
    belonging.stop(uid)


def test_interleaved_runs():
    """Runs that overlap are told apart by what their documents refer to."""
    belonging = Belonging()
    (first, documents), (second, others) = run_documents(2), run_documents(2)
    belonging.start(first, 1)
    belonging.start(second, 2)
    assert belonging.open_runs == (first, second)
    for pair, other in zip(documents[1:], others[1:], strict=True):
        assert (belonging.run_of(*pair), belonging.run_of(*other)) == (1, 2)


def test_staged_for_several_runs():
    """A resource goes with the run that it names, or that is open; its datums go with the run that they come in."""
    belonging = Belonging()
    resource, datum = resource_of("first")
    assert belonging.run_of(*resource) is None
    belonging.start("first", 1)
    assert [belonging.run_of(*resource), belonging.run_of(*datum)] == [1, 1]
    belonging.stop("first")
    assert belonging.run_of(*datum) is None
    belonging.start("second", 2)
    assert [belonging.run_of(*datum), belonging.run_of(*resource)] == [2, 2]
    belonging.start("third", 3)
    assert belonging.run_of(*datum) == 2
    assert belonging.run_of("datum", {"resource": "unknown"}) is None


def test_strays():
    """What refers to nothing that came, or does not refer at all, is of no run."""
    belonging = Belonging()
    belonging.start("run", 1)
    strays = [("event", {}), ("event", {"descriptor": "?"}), ("descriptor", {"run_start": "?"}), ("stop", {})]
    assert [belonging.run_of(*stray) for stray in strays] == [None] * 4


def test_unknown_kind():
    """A document of no kind that is known goes with the run, if there is only one."""
    belonging = Belonging()
    belonging.start("run", 1)
    assert belonging.run_of("bulk_datum", {}) == 1
    belonging.start("another", 2)
    assert belonging.run_of("bulk_datum", {}) is None


def test_begun_in_another_database(tmp_path):
    """Runs that go on in another database have the numbers of that, and keep their descriptors."""
    belonging = Belonging()
    _, documents = run_documents(2)
    numbered(belonging, documents[:2], 7)
    with closing(open_or_make(tmp_path)) as connection:
        belonging.begin_broken(connection, 3)
        ((number, producer),) = connection.execute("SELECT id, producer FROM runs").fetchall()
    assert producer == 3
    assert [belonging.run_of(*pair) for pair in documents[1:]] == [number] * (len(documents) - 1)


def test_forgets():
    """Nothing is remembered of stopped runs, and of resources only the last some thousand."""
    belonging = Belonging()
    for number in range(50):
        _, documents = run_documents(1)
        numbered(belonging, documents, number)
    assert not belonging._open
    assert not belonging._descriptors
    for number in range(10_500):
        belonging.run_of("resource", {"uid": str(number)})
    assert len(belonging._resources) == 10_000
