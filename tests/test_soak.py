"""A moment of what ``python -m tests.soak`` does for ten minutes, and what would be found by it."""

import pickle
import subprocess
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bluesky_filestore import CatalogWriter
from tests.proxy import Request
from tests.small_runs import SmallRun
from tests.soak.comparing import compare
from tests.soak.faults import Faults
from tests.soak.journal import Begins, Closed, Given, JournalledRun, Taken, journal_of

SECONDS, LATE = 5, 3
numbers = count(700)


@pytest.mark.timeout(600)
def test_a_short_soak():
    """Writers, server, disks and requests fail; afterwards the catalog has what the journals say."""
    command = [sys.executable, "-m", "tests.soak", "--minutes", str(SECONDS / 60), "--late", str(LATE), "--seed", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, f"{done.stdout[-6000:]}{done.stderr[-3000:]}"
    assert " 0  findings" in done.stdout


def befallen(seed):
    """What befalls a thousand requests, a fifth of which append rows, and a fifth of which change something else."""
    server = SimpleNamespace(proxy=SimpleNamespace(fault=None))
    faults = Faults(seed, server, [], None)
    rows, node = "/api/v1/table/partition/uid/primary/internal", "/api/v1/metadata/uid/primary"
    kinds = [("PATCH", rows), ("PUT", node), *[("GET", node)] * 3]
    requests = [Request(*kinds[number % len(kinds)], number) for number in range(1000)]
    return faults, [(request, server.proxy.fault(request)) for request in requests]


@pytest.mark.parametrize("seed", range(5))
def test_what_befalls_requests(seed):
    """Each kind comes about, as often as the others, and of those that need a change each meets one."""
    faults, befell = befallen(seed)
    counts = [count for kind, count in faults.counts.items() if kind.startswith("request: ")]
    assert len(counts) == 16
    assert (min(counts) > 0, max(counts) - min(counts) <= 2) == (True, True)
    assert all(request.is_append for request, fault in befell if fault == "lie")
    assert {request.method for request, fault in befell if fault in ("twice", "hold")} <= {"PATCH", "PUT"}
    assert befallen(seed)[1] == befell


@pytest.fixture(scope="module")
def written(catalog, data_directory, tmp_path_factory):
    """A run in a catalog of its own, its journal, and its spool."""
    run, spool = SmallRun(data_directory, next(numbers), 5), tmp_path_factory.mktemp("spool")
    client = catalog.client.create_container("soaked")
    with CatalogWriter(client, spool=spool) as writer:
        for name, doc in run.documents:
            writer(name, doc)
    frames = {("primary", "image"): run.images[:, np.newaxis]}
    uri = writer._spooling.uploaders[0].catalog.uri
    return client, spool, uri, JournalledRun(run.uid, "composed", frames, run.documents, len(run.documents))


def found(written, *runs):
    """What is found of these runs."""
    client, spool, uri, _ = written
    return compare(runs, client, [spool], uri, lambda *_: False)


def test_what_is_right(written):
    """A run that is there as it was given: all of it is compared, and nothing found."""
    *_, run = written
    compared = found(written, run)
    assert compared.findings == []
    assert (compared.runs, compared.documents, compared.frames, compared.parked) == (1, len(run.documents), 10, 0)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (lambda run: replace(run, documents=run.documents[:-2], safe=3), "has 8 documents, or others"),
        (lambda run: replace(run, documents=run.documents[:4] + run.documents[6:], safe=0), "documents, or others"),
        (lambda run: replace(run, documents=[*run.documents, run.documents[-1]], safe=15), "documents, or others"),
        (lambda run: replace(run, documents=_with_another_value(run.documents)), "documents, or others"),
        (lambda run: replace(run, documents=_without(run.documents, "resource"), safe=0), "which was never given"),
        (lambda run: replace(run, frames={place: each[::-1] for place, each in run.frames.items()}), "wrong frames"),
        (lambda run: replace(run, frames={("primary", "other"): np.zeros((5, 1))}), "primary/other is not there"),
        (lambda run: replace(run, uid="another"), "is neither in a spool nor in the catalog"),
    ],
)
def test_what_is_wrong(written, changed, words):
    """Whatever differs between a journal and the catalog is found."""
    *_, run = written
    assert words in "\n".join(found(written, changed(run)).findings)


def test_a_run_with_an_orphan(written):
    """A run of which nobody can know whether a late request is still to come is left out, and counted."""
    client, spool, uri, run = written
    compared = compare([replace(run, safe=0, documents=[])], client, [spool], uri, lambda *_: False, {run.uid})
    assert (compared.findings, compared.runs, compared.orphaned) == ([], 0, 1)


class Killed:
    """A writer that is killed."""

    def kill(self):
        """It was there."""
        return True


def test_orphans():
    """A request that changes a run, and is late when a writer is killed, is remembered; one that is over is not."""
    faults, _ = befallen(3)
    faults._writers, faults._late = [Killed()], []
    for method, fault, uid in (("PATCH", 2.0, "a"), ("PATCH", -0.01, "b"), ("GET", 2.0, "c"), ("PUT", "hold", "d")):
        faults._remember(fault, Request(method, f"/api/v1/metadata/{uid}/primary", 0))
    faults._kill_writer()
    assert {"a", "b", "c", "d"} & faults.orphaned == {"a", "d"}


def test_a_run_that_nobody_gave(written):
    """What is in the catalog and in no journal is found."""
    assert "was never given" in "\n".join(found(written).findings)


def _with_another_value(documents):
    changed = [(name, dict(doc)) for name, doc in documents]
    event = next(doc for name, doc in changed if name == "event")
    event["data"] = {**event["data"], "x": 17}
    return changed


def _without(documents, left_out):
    return [pair for pair in documents if pair[0] != left_out]


def test_a_journal_that_ends_in_the_middle(tmp_path):
    """What was safe when its writer was killed, and what was not: up to the record that was not said to its end."""
    documents = [("start", {"uid": "a"}), ("event", {"seq_num": 1}), ("event", {"seq_num": 2}), ("stop", {})]
    records = [Begins("a", "composed", {})]
    for (name, doc), unsaved in zip(documents, (0, 1, 2, 2), strict=True):
        records += [Given("a", name, doc), Taken(0.5, unsaved)]
    said = [pickle.dumps(record) for record in records]
    path = tmp_path / "journal"
    for end, given, safe in ((9, 4, 2), (8, 4, 1), (7, 3, 1), (3, 1, 1), (2, 1, 0)):
        path.write_bytes(b"".join(said[:end]) + (said[end] if end < len(said) else b"")[:-3])
        (run,) = journal_of(path).runs
        assert (len(run.documents), run.safe, run.is_whole) == (given, safe, False)
    path.write_bytes(b"".join([*said, pickle.dumps(Closed(""))]))
    journal = journal_of(path)
    assert journal.runs[0].is_whole
    assert (journal.most_unsaved, journal.calls[-1]) == (2, ("stop", 0.5))
