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


def held_after(documents, ours, batch_ends, left=()):
    """What a catalog holds, if operations are taken whenever `batch_ends` says so; arrays may have been left in it."""
    assets, held, ends = Assets(), Held(), iter(batch_ends)
    held.arrays.update(left)
    run = None
    for name, doc in documents:
        if name == "start":
            run = Run(doc, assets, inspect, lambda _: ours)
        elif name in ("resource", "stream_resource", "datum"):
            announce(name, doc, assets)
        else:
            run.receive(name, doc)
        if name != "stop" and next(ends):
            held.apply(run.take())
    return held, run


def result(documents, ours, batch_ends, left=()):
    """What a catalog holds in the end, likewise."""
    held, run = held_after(documents, ours, batch_ends, left)
    held.apply(run.take(final=True))
    if not held.said:
        held.apply(run.end_without_stop("not stopped"))
    held.said.pop("documents", None)
    return held.tables, held.arrays, held.said


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases(), ours=st.booleans(), data=st.data())
def test_batches_change_nothing(tmp_path, case, ours, data):
    """Whenever operations are taken, rows, arrays and notes are in the end what they are when taken once."""
    singles = single_documents(case, tmp_path)
    flips = (data.draw(st.booleans()) for _ in itertools.count())
    assert result(singles, ours, flips) == result(singles, ours, itertools.repeat(False))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases(), data=st.data())
def test_an_earlier_life_changes_nothing(tmp_path, case, data):
    """What somebody left who was killed while he delivered a run is not seen after it was gone through again."""
    singles = single_documents(case, tmp_path)
    start = next(number for number, (name, _) in enumerate(singles) if name == "start")
    end = data.draw(st.integers(start + 1, len(singles)))
    earlier, _ = held_after(singles[:end], False, (data.draw(st.booleans()) for _ in itertools.count()))
    wanted = result(singles, False, itertools.repeat(False))
    assert result(singles, False, itertools.repeat(False), earlier.arrays) == wanted


def single_documents(case, tmp_path):
    """The documents of a case, with events and datums one by one."""
    built = build(case, tmp_path / str(next(numbers)))
    return list(itertools.chain.from_iterable(itertools.starmap(unpacked, built.documents)))
