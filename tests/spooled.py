"""Runs in spools, put there as a writer would, by this process or by one that dies."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import event_model

from bluesky_filestore.operations.operations import CloseRun
from bluesky_filestore.spool import Ledger, Store

NUMBER = {"source": "s", "dtype": "number", "shape": []}


def run_documents(events=3, uid=None, **metadata):
    """The uid and the documents of a run with a number."""
    run = event_model.compose_run(uid=uid, metadata=metadata)
    bundle = run.compose_descriptor(name="primary", data_keys={"x": NUMBER})
    singles = [("event", bundle.compose_event(data={"x": float(n)}, timestamps={"x": 5.0})) for n in range(events)]
    documents = [("start", run.start_doc), ("descriptor", bundle.descriptor_doc), *singles]
    return run.start_doc["uid"], [*documents, ("stop", run.compose_stop())]


def put(directory: Path, *runs, catalogs=()):
    """Put the documents of runs into a spool that delivers to catalogs, and leave it."""
    with closing(Store(directory)) as store:
        for documents in runs:
            for name, doc in documents:
                store.append(name, doc)
    with closing(Ledger(directory)) as ledger:
        for uri in catalogs:
            ledger.register_catalog(uri)


def put_and_die(directory: Path):
    """Have a process put in a run without its stop, and be killed; the run's uid."""
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from spooled import run_documents
from bluesky_filestore.spool import Store
store = Store(Path({str(directory)!r}))
uid, documents = run_documents(3)
for name, doc in documents[:-1]:
    store.append(name, doc)
print(uid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60, env={**os.environ}
    )
    return shown.stdout.strip()


def states(directory: Path, uri: str):
    """How far each run of a spool has come, by uid."""
    with closing(Ledger(directory)) as ledger:
        return {entry.uid: entry.state for entry in ledger.entries(ledger.register_catalog(uri))}


class Applied:
    """A catalog that takes everything, and remembers what."""

    uri = "http://applied/api/v1/metadata/"
    server_uri = ""
    takes_documents = False

    def __init__(self):
        self.operations = []

    def check(self):
        """It answers."""

    def reads(self, mimetype):
        """It has none of our adapters."""
        return False

    def apply(self, operation):
        """Remember the operation."""
        self.operations.append(operation)

    def doubt(self, run):
        """There is never a doubt."""

    def claim(self, run):
        """Nothing here was made by others."""

    def in_doubt(self, run):
        """There is never a doubt."""
        return False

    def forget_answers(self):
        """It knows nothing."""

    def remove_rows(self, run):
        """It has nothing to remove."""

    def closed(self):
        """The metadata that ended runs were closed with, by uid."""
        return {each.run: each.metadata for each in self.operations if isinstance(each, CloseRun)}


class Failing(Applied):
    """One that fails, once for each error, at what it has errors for."""

    def __init__(self):
        super().__init__()
        self.errors = {}
        """By operation: the errors that are to come."""
        self.away = None
        """Why nothing goes at all; None if it does."""
        self.unknown = None
        """Why nobody can say what it reads; None if it has none of our adapters."""
        self.doubted = set()
        """The runs of which not every answer came."""
        self.claimed = set()
        """The runs that are known to be ours."""
        self.forgotten = 0
        """How often it was told to forget its answers."""

    def forget_answers(self):
        """It counts that."""
        self.forgotten += 1

    def check(self):
        """It answers, unless it is away."""
        if self.away is not None:
            raise self.away

    def reads(self, mimetype):
        """Nothing of ours, unless nobody can say."""
        if self.unknown is not None:
            raise self.unknown
        return super().reads(mimetype)

    def apply(self, operation):
        """Remember the operation, unless it is to fail."""
        if self.away is not None:
            raise self.away
        if coming := self.errors.get(type(operation)):
            raise coming.pop(0)
        super().apply(operation)

    def doubt(self, run):
        """From now on it is."""
        self.doubted.add(run)

    def claim(self, run):
        """From now on it is ours."""
        self.claimed.add(run)

    def in_doubt(self, run):
        """So it is said."""
        return run in self.doubted

    def kinds(self, run=None):
        """What was done, for one run or all, in its order."""
        return [type(each) for each in self.operations if run in (None, each.run)]
