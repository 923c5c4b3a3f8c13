"""Whether a history ended as was promised; what is said here is a finding."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np

from bluesky_filestore import documents, open_array
from bluesky_filestore.delivery.lane import _INCOMPLETE
from bluesky_filestore.spool import Ledger
from bluesky_filestore.spool.entries import Entry

from .history import CATALOG, CLOSES, KINDS, PARK_AFTER, History, Taken
from .network import client_by
from .world import EPOCH

_DAMAGED = "damaged in the middle of the run"
_MOST_REFUSED, _TRIES = 30, 3
_UNTOLD = frozenset(("kills", "full disk", "damage", "locked"))
_TROUBLES_SPOOL = frozenset(("full disk", "damage", "locked"))
# With a catalog of which nothing was heard yet: by default it is waited for longer, not knowing what it usually takes.
_LONGEST_SILENCE, _SHORT_LOCK = 2.0, 4.5
# An operation's requests of a slow catalog.
_AN_OPERATION = 20.0

EXCUSES_STOPS = _TROUBLES_SPOOL | {"slowness", "contention"}
"""What a stop document may come back for before its run can be read, or later."""
EXCUSES_SETTLING = EXCUSES_STOPS | {"service", "resume", "second writer", "losses", "losses below runs", "commands"}
"""What may have a writer leave a run to be settled by others whose files are there."""
EXCUSES_READING = _TROUBLES_SPOOL | {"outages", "lost writes", "failing catalog", "commands"}
"""What makes runs that are on their way begin again."""
EXCUSES_LATENESS = frozenset(KINDS) - {"slowness", "contention", "second writer", "resume"}
"""What a run may have to be looked at again for, long after it got its end."""


def judge(history: History) -> list[str]:
    """What was not as promised, in sentences."""
    return [*history.findings, *_waits(history), *_peace(history), *_runs(history), *_spool(history)]


def _waits(history: History) -> Iterator[str]:
    yield from _stops(history)
    is_troubled = bool({"full disk", "damage"} & history.kinds) or history.longest_lock > _SHORT_LOCK
    for call in history.calls:
        # Who delivers for others with a slow catalog may need longer for those than is waited for him.
        is_usual = not (history.longest_lock or "slowness" in history.kinds)
        is_right = call.promised < CLOSES or (call.well_for > 0 and is_usual)
        if call.error and is_right and not is_troubled:
            yield f"{call.words} says, and nothing is wrong: {call.error}"
    for call in history.calls:
        if call.unsettled and call.well_for > 0 and not EXCUSES_SETTLING & history.kinds:
            yield f"{call.words} and leaves {call.unsettled} to settle, whose files came"
        # A database that is damaged is left for another one, for which others are waited for, too.
        if call.seconds > call.promised + 0.01 + (0.05 if history.world.damaged else 0.0):
            yield f"{call.words} took {call.seconds:.3f} s; promised are {call.promised:g} s"


def _stops(history: History) -> Iterator[str]:
    """A stop document waits until its run can be read, unless the catalog answers nothing."""
    is_usual = not (history.kinds & EXCUSES_STOPS)
    for call in history.calls:
        if not (call.run and is_usual and history.wait_on_stop):
            continue
        # One that took long before is given longer.
        has_been_slow = history.world.faults["hang"] > 1 or history.world.faults["slow"]
        if call.is_in_hang and call.seconds > _LONGEST_SILENCE and not has_been_slow:
            yield f"{call.words} took {call.seconds:.3f} s, while the catalog answered nothing"
        is_early = call.seconds < history.wait_on_stop - 0.01 and not call.is_readable
        if is_early and call.well_for > 0 and call.run not in history.touched:
            yield f"{call.words} took {call.seconds:.3f} s, and the run could not be read, although all was well"


def _peace(history: History) -> Iterator[str]:
    for (name, _, second), count in history.network.refused.items():
        # Twenty times by whoever waits, and a few times by whoever delivers.
        if count > _MOST_REFUSED:
            yield f"{name} asked {count} times in the second after {second} s, while nobody listened"

    if not (history.kinds & EXCUSES_READING or history.world.faults["never sent"]):
        for table, count in history.network.read_back.items():
            uid = table.partition("/")[0]
            # Before it is made anew for values of another type, and at its end.
            if count > 0 and uid not in history.network.befallen:
                yield f"run {uid[:8]}, which nothing befell, was gone through again: its table was read once too often"
        with closing(Ledger(history.spool)) as ledger:
            entries = ledger.entries(ledger.register_catalog(CATALOG))
        for entry in entries:
            if entry.number in history.world.begun_again and entry.uid not in history.network.befallen:
                yield f"run {entry.uid[:8]}, which nothing befell, was gone through again"


def _runs(history: History) -> Iterator[str]:
    client = client_by(history.network.transport())
    with closing(Ledger(history.spool)) as ledger:
        number = ledger.register_catalog(CATALOG)
        entries = {entry.uid: entry for entry in ledger.entries(number)}
        yield from _written_down(history, ledger, number)
    for taken in history.runs:
        uid = taken.planned.uid
        if not taken.safe and uid not in entries:
            continue
        if uid in history.network.orphaned and _UNTOLD & history.kinds:
            # Nobody knows of a request that was on its way when its process ended, or could no longer say so.
            continue
        for words in _run(history, client, taken, entries.get(uid)):
            yield f"run {uid[:8]}: {words}"


def _written_down(history: History, ledger: Ledger, catalog: int) -> Iterator[str]:
    """That a run has its end is in the spool soon after, whatever else is to be done meanwhile."""
    if history.kinds & EXCUSES_LATENESS:
        return
    statement = "SELECT uid, changed FROM deliveries JOIN runs ON runs.id = deliveries.run WHERE catalog = ?"
    for uid, changed in ledger.rows(statement, catalog):
        late = changed - EPOCH - history.network.closed.get(uid, history.world.now)
        if late > _AN_OPERATION:
            yield f"run {uid[:8]} had its end, which was written down {late:.1f} s later"


def _run(history: History, client: Any, taken: Taken, entry: Entry | None) -> Iterator[str]:
    if entry is None:
        if not history.world.damaged:
            yield "is not in the spool"
        return
    if entry.state not in ("delivered", "parked"):
        yield f"is {entry.state}"
        return
    is_missing_files = taken.planned.comes_at or taken.planned.is_bad
    if entry.state == "parked" and entry.reason.startswith(_INCOMPLETE) and is_missing_files:
        yield from _as_taken(history, client[taken.planned.uid], taken)
        return
    if entry.state == "parked":
        if not _is_true(history, taken, entry.reason):
            yield f"is parked, and nothing befell it: {entry.reason}"
        if not history.world.faults["doubled"] and taken.planned.uid not in history.network.came_late:
            # Rows that a gateway doubled are counted at the end of a run, and again when none can come any more; not
            # those of one of which something was left out.
            yield from _no_event_twice(history, taken.planned.uid)
        return
    if taken.planned.uid not in client:
        yield "is delivered, and not in the catalog"
        return
    if taken.planned.is_unreadable and not taken.is_killed and not _is_refused(history, client[taken.planned.uid]):
        yield "is delivered, and its images cannot be read"
    yield from _as_taken(history, client[taken.planned.uid], taken)


def _is_true(history: History, taken: Taken, reason: str) -> bool:
    uid = taken.planned.uid
    if _DAMAGED in reason:
        return bool(history.world.damaged)
    if "somebody wanted it so" in reason:
        return uid in history.touched
    if "does not match the dtype" in reason:
        # An array is made anew for values of another type, and this one could not be removed.
        return any(rule.run == uid and rule.status == 404 for rule in history.network.made)
    if reason.startswith("CheckRun"):
        # It was written again as often as that is tried, since the server fails at it; what came after that stays.
        return uid in history.network.came_late and _fails_for_long(history, uid)
    if "no catalog answers" in reason or "simulated" in reason or "has other rows" in reason:
        # Of one of its requests no try was answered, while others were; or the server fails at it; or three times a
        # table was not to be made as it should be. A run of its own at which nothing fails is not held up, and loses
        # nothing, for the sake of others.
        network = history.network
        return network.lost_below > 0 or network.lost[uid] >= _TRIES or _fails_for_long(history, uid)
    return False


def _fails_for_long(history: History, uid: str) -> bool:
    """Whether the server refused something of a run, or failed at it for as long as it is to be tried."""
    rules = [rule for rule in history.network.made if rule.run in (uid, "")]
    return any(rule.status == 422 for rule in rules) or sum(rule.until - rule.since for rule in rules) > PARK_AFTER


def _no_event_twice(history: History, uid: str) -> Iterator[str]:
    for path, node in history.network.server.nodes.items():
        if path[:1] == (uid,) and node.table is not None:
            numbers = node.table["seq_num"].to_pylist()
            if numbers != sorted(set(numbers)):
                yield f"{'/'.join(path[1:])} has events {numbers}"


def _as_taken(history: History, node: Any, taken: Taken) -> Iterator[str]:
    try:
        found = list(documents(node))
    except Exception as error:  # noqa: BLE001 - that is the finding
        yield f"cannot be read: {error!r}"
        return
    planned = taken.planned.documents
    least, most = (taken.safe, taken.given) if taken.is_killed else (len(planned), len(planned))
    wanted = [_told(planned[:end]) for end in range(least, most + 1)]
    if _plain(found) not in [_plain(each) for each in wanted]:
        named = [f"{name} {doc.get('seq_num', '')}" for name, doc in found]
        yield f"has {named}; expected {least} to {most} of {len(planned)} documents"
        return
    events = sum(name == "event" for name, _ in found)
    if taken.is_killed and found[-1][0] != "stop" and not any("cut short" in each for each in node.metadata["notes"]):
        yield f"was cut short, and says {node.metadata['notes']}"
    yield from _frames(history, node, taken, events)


def _told(pairs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Without what nothing refers to."""
    told = list(pairs)
    while told and told[-1][0] in ("resource", "datum"):
        told.pop()
    return told


def _plain(pairs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return [(name, {key: _dict(value) for key, value in doc.items() if key != "odd"}) for name, doc in pairs]


def _dict(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else value


def _frames(history: History, node: Any, taken: Taken, events: int) -> Iterator[str]:
    """The rows of arrays are those of the table, and of the right frames."""
    if "primary" not in node:
        return
    stream = node["primary"]
    stream = getattr(stream, "base", stream)
    wanted = taken.planned.images[:events]
    has_none = taken.planned.is_bad or taken.planned.comes_at > history.network.closed.get(taken.planned.uid, 0.0)
    if "image" not in stream:
        if wanted and not has_none and not _is_refused(history, node):
            yield f"has no images; {node.metadata.get('filestore')}, {node.metadata.get('notes')}"
        return
    image = stream["image"].new_variation(include_data_sources=True)
    found = _read(image)
    if taken.planned.is_bad:
        wanted = wanted[: len(found)]
    if not np.array_equal(found, np.array(wanted).reshape(found.shape) if len(found) == len(wanted) else wanted):
        yield f"has {len(found)} images for {events} events, or others"


def _is_refused(history: History, node: Any) -> bool:
    """Whether a stock server cannot read them, and the run says so."""
    refused = node.metadata.get("filestore", {}).get("refused", {}).get("primary", {}).get("image", "")
    return history.is_stock and "no regular order" in refused


def _read(image: Any) -> np.ndarray:
    return np.asarray(open_array(image)[:])


def _spool(history: History) -> Iterator[str]:
    """Nothing is left that should not be."""
    damaged = list(history.spool.glob("damaged-*"))
    if damaged and not history.world.damaged:
        yield "a database was put aside that was not damaged"
    with closing(Ledger(history.spool)) as ledger:
        number = ledger.register_catalog(CATALOG)
        if (waiting := ledger.waiting_documents(number)[0]) and not history.findings:
            yield f"{waiting} documents wait"
        if ledger.strays() and not history.world.damaged:
            yield f"{ledger.strays()} documents belong to no run"
        if (holder := ledger.uploader(number)) is not None:
            yield f"{holder} still delivers"
