"""What documents come to does not depend on how they were batched."""

import dataclasses
import itertools

from document_streams import build, cases
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bluesky_filestore.handlers.asking import inspect
from bluesky_filestore.model.frame_map import Assets
from bluesky_filestore.model.normalize import unpacked
from bluesky_filestore.operations.operations import AppendRows, CloseRun, DropArray, PlaceArray
from bluesky_filestore.operations.run import Run, announce

numbers = itertools.count()


class Held:
    """What a catalog holds after operations: rows, arrays with their files, and what is said of the run."""

    def __init__(self):
        self.tables, self.arrays, self.said = {}, {}, {}

    def apply(self, operations):
        for operation in operations:
            match operation:
                case AppendRows():
                    rows = self.tables.setdefault((operation.stream, operation.table), [])
                    rows += zip(*(operation.columns[name] for name in ("seq_num", "motor")), strict=True)
                case DropArray():
                    self.arrays.pop((operation.stream, operation.data_key), None)
                case PlaceArray():
                    name = (operation.stream, operation.data_key)
                    files = self.arrays[name].files[: operation.first_file] if operation.first_file else ()
                    whole = dataclasses.replace(operation, files=files + operation.files, first_file=0)
                    # Of an array that is there, the metadata stay.
                    self.arrays[name] = dataclasses.replace(whole, metadata={})
                case CloseRun():
                    self.said.update(operation.metadata)


def result(documents, ours, batch_ends):
    """What a catalog holds in the end, if operations are taken whenever `batch_ends` says so."""
    assets, held, ends = Assets(), Held(), iter(batch_ends)
    run = None
    for name, doc in itertools.chain.from_iterable(itertools.starmap(unpacked, documents)):
        if name == "start":
            run = Run(doc, assets, inspect, lambda _: ours)
        elif name in ("resource", "stream_resource", "datum"):
            announce(name, doc, assets)
        else:
            run.receive(name, doc)
        if name != "stop" and next(ends):
            held.apply(run.take())
    held.apply(run.take(final=True))
    if not held.said:
        held.apply(run.end_without_stop("not stopped"))
    held.said.pop("documents", None)
    return held.tables, held.arrays, held.said


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases(), ours=st.booleans(), data=st.data())
def test_batches_change_nothing(tmp_path, case, ours, data):
    """Whenever operations are taken, rows, arrays and notes are in the end what they are when taken once."""
    built = build(case, tmp_path / str(next(numbers)))
    flips = (data.draw(st.booleans()) for _ in itertools.count())
    assert result(built.documents, ours, flips) == result(built.documents, ours, itertools.repeat(False))
