"""What was journalled against what a catalog and a spool have; what is said here is a finding."""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bluesky_filestore import documents, open_array
from bluesky_filestore.model.normalize import unpacked
from bluesky_filestore.spool import Ledger
from bluesky_filestore.spool.entries import Entry
from tests.small_runs import plain

from .journal import JournalledRun

_ASSETS = ("resource", "stream_resource", "datum", "stream_datum")
_CUT = "cut short"


@dataclass
class Compared:
    """How much was compared, and what was found."""

    runs: int = 0
    documents: int = 0
    frames: int = 0
    parked: int = 0
    orphaned: int = 0
    cut_short: int = 0
    findings: list[str] = field(default_factory=list)


def compare(
    runs: Sequence[JournalledRun],
    client: Any,
    spools: Sequence[Path],
    uri: str,
    explains: Callable[[str, str], bool],
    orphaned: Container[str] = (),
) -> Compared:
    """Compare all runs.

    Parameters
    ----------
    runs : sequence of JournalledRun
        What the writers had.
    client : tiled.client.container.Container
        The catalog.
    spools : sequence of Path
        Where the runs were.
    uri : str
        The address under which the spools know the catalog.
    explains : callable
        Whether a run, by its uid, may be parked for a reason.
    orphaned : container of str
        The runs of which a late request was on its way when a writer was killed: they are counted, and left out.
    """
    compared, entries = Compared(), {}
    for spool in spools:
        with closing(Ledger(spool)) as ledger:
            entries |= {entry.uid: entry for entry in ledger.entries(ledger.register_catalog(uri))}
            if strays := ledger.strays():
                compared.findings.append(f"{strays} documents in {spool.name} belong to no run")
        compared.findings += [f"{each} was put aside" for each in spool.glob("damaged-*")]
    for run in runs:
        if run.uid in orphaned:
            compared.orphaned += 1
            continue
        found = list(_run(run, client, entries.get(run.uid), explains, compared))
        compared.findings += [
            f"{run.kind} run {run.uid} ({run.safe} of {len(run.documents)}): {each}" for each in found
        ]
    known = {run.uid for run in runs}
    compared.findings += [f"run {uid} is in the catalog, and was never given" for uid in client if uid not in known]
    return compared


def _run(
    run: JournalledRun, client: Any, entry: Entry | None, explains: Callable[[str, str], bool], compared: Compared
) -> Iterator[str]:
    compared.runs += 1
    state = "delivered" if entry is None else entry.state
    if entry is None and run.uid not in client:
        if run.safe:
            yield "is neither in a spool nor in the catalog"
        return
    if entry is not None and state == "parked":
        compared.parked += 1
        if not explains(run.uid, entry.reason):
            yield f"is parked, and that is not why: {entry.reason}"
    elif state != "delivered":
        yield f"is {state}"
        return
    if run.uid not in client:
        if state == "delivered":
            yield "is delivered, and not in the catalog"
        return
    node = client[run.uid]
    try:
        had = list(documents(node))
    except Exception as error:  # noqa: BLE001 - that is the finding
        yield f"cannot be read: {error!r}"
        return
    if state == "parked":
        yield from _no_event_twice(had)
        return
    compared.documents += len(had)
    yield from _documents(run, had, node, compared)
    yield from _arrays(run, had, node, compared)


def _documents(run: JournalledRun, had: list[tuple[str, Any]], node: Any, compared: Compared) -> Iterator[str]:
    """Each document that was taken is there once, in its order; of those that were being taken some may be."""
    told = [pair for pair in plain(had) if pair[0] not in _ASSETS]
    given = [[pair for pair in plain(_singles([one])) if pair[0] not in _ASSETS] for one in run.documents]
    wanted = [[pair for some in given[:end] for pair in some] for end in range(run.safe, len(given) + 1)]
    if told not in wanted:
        yield f"has {len(told)} documents, or others; expected {len(wanted[0])} to {len(wanted[-1])}"
        return
    assets = {_key(pair): pair for pair in plain(_singles(run.documents)) if pair[0] in _ASSETS}
    if strange := [pair for pair in plain(had) if pair[0] in _ASSETS and assets.get(_key(pair)) != pair]:
        yield f"has {strange[0]}, which was never given"
    is_cut = had[-1][0] != "stop"
    compared.cut_short += is_cut
    if is_cut != any(_CUT in each for each in node.metadata.get("notes", ())):
        yield f"ends with {had[-1][0]}, and says {node.metadata.get('notes')}"


def _arrays(run: JournalledRun, had: list[tuple[str, Any]], node: Any, compared: Compared) -> Iterator[str]:
    """The frames of each row are the detector's, through the server and straight."""
    for (stream, key), wanted in {**run.frames, **_saved(had)}.items():
        events = sum(name == "event" and doc["descriptor"] in _descriptors(had, stream) for name, doc in had)
        base = node.get(stream, {})
        base = getattr(base, "base", base)
        if key not in base:
            # Of a run that was cut short the datum of the first event may be lacking.
            if events and run.is_whole:
                yield f"{stream}/{key} is not there: {node.metadata.get('filestore')} {node.metadata.get('notes')}"
            continue
        for way, read in (("served", lambda array: array.read()), ("straight", lambda array: open_array(array)[:])):
            found = np.asarray(read(base[key]))
            compared.frames += len(found)
            if len(found) > events or (len(found) < events and run.is_whole):
                yield f"{stream}/{key}, {way}, has {len(found)} rows for {events} events"
            elif not np.array_equal(found, wanted[: len(found)].reshape(found.shape)):
                yield f"{stream}/{key}, {way}, has wrong frames"


def _key(pair: tuple[str, Any]) -> str:
    return str(pair[1].get("datum_id", pair[1].get("uid")))


def _descriptors(had: list[tuple[str, Any]], stream: str) -> set[str]:
    return {doc["uid"] for name, doc in had if name == "descriptor" and doc.get("name") == stream}


def _saved(had: list[tuple[str, Any]]) -> Mapping[tuple[str, str], np.ndarray]:
    """What the detector of a RunEngine has saved for each event: files of numpy, read by it alone."""
    if not any(doc.get("spec") == "NPY_SEQ" for name, doc in had if name == "resource"):
        return {}
    stems = {doc["uid"]: Path(doc["root"], doc["resource_path"]) for name, doc in had if name == "resource"}
    places = {doc["datum_id"]: doc for name, doc in had if name == "datum"}
    frames = []
    for _, doc in (pair for pair in had if pair[0] == "event"):
        datum = places[doc["data"]["camera"]]
        frames.append(np.load(f"{stems[datum['resource']]}_{datum['datum_kwargs']['index']}.npy"))
    return {("primary", "camera"): np.stack(frames)} if frames else {}


def _no_event_twice(had: list[tuple[str, Any]]) -> Iterator[str]:
    uids = [doc["uid"] for name, doc in had if name == "event"]
    if len(uids) != len(set(uids)):
        yield "has events twice"


def _singles(pairs: Sequence[tuple[str, Mapping[str, Any]]]) -> list[tuple[str, Mapping[str, Any]]]:
    return [single for name, doc in pairs for single in unpacked(name, doc)]
