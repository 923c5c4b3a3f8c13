"""Runs that have come to their end in a catalog: what is said of them, and a function that is called with it."""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Literal

from bluesky_filestore.errors import OptionError
from bluesky_filestore.logs import get_logger
from bluesky_filestore.operations.columns import plain
from bluesky_filestore.operations.run import Run
from bluesky_filestore.spool.entries import DeliveryState
from bluesky_filestore.spool.handoffs import Handoff, has_receivers
from bluesky_filestore.spool.ledger import Ledger
from bluesky_filestore.visible import visible, without_secrets

from .run_delivery import RunDelivery

__all__ = ["Caller", "CompletedRun", "completed_run", "handoff_of", "write_down"]

_logger = get_logger(__name__)
_MOST_FILES, _MOST_NOTES, _LENGTH = 1000, 100, 8
_REPORTED = ("refused", "missing", "unverified", "differences", "unreadable", "uncollected")


@dataclass(frozen=True, slots=True)
class CompletedRun:
    """A run of which nothing more will come into a catalog: delivered, and its frames looked for in their files."""

    uid: str
    """Its uid."""
    state: Literal["delivered", "parked"]
    """Whether the catalog has all of it, or something is lacking that `reason` says."""
    reason: str
    """Why it is parked; empty if it is not."""
    catalog: str
    """The address of the run in the catalog."""
    files: tuple[str, ...] = ()
    """The files that its arrays are in, as the catalog has them; of files of one frame their directories."""
    scan_id: Any = None
    """That of its start document."""
    plan_name: Any = None
    """The same."""
    exit_status: Any = None
    """That of its stop document; None if that never came."""
    num_events: Mapping[str, int] = field(default_factory=dict)
    """How many events each stream has, by its stop document."""
    report: Mapping[str, Any] = field(default_factory=dict)
    """What was found of its arrays (``missing``, ``unreadable``, ``uncollected``, ``refused``, ``differences``,
    ``unverified``), by stream and data key: empty if each frame is where it should be."""
    notes: tuple[str, ...] = ()
    """What else the run's metadata say of it, a sentence each."""
    id: str = ""
    """Another one each time that a run comes to its end: it does so again when somebody has it delivered again."""

    @property
    def is_fine(self) -> bool:
        """Whether the plan succeeded, the catalog has all of the run, and no frame is missing from its files."""
        lacks = {"refused", "missing", "unreadable"} & self.report.keys()
        return self.state == "delivered" and self.exit_status == "success" and not lacks

    def as_json(self) -> dict[str, Any]:
        """What a webhook is sent, see the how-to on handing runs on."""
        return {
            "type": "run.complete",
            "version": 1,
            "id": self.id,
            "uid": self.uid,
            "scan_id": self.scan_id,
            "plan_name": self.plan_name,
            "exit_status": self.exit_status,
            "report": {
                "state": self.state,
                "reason": self.reason,
                "is_fine": self.is_fine,
                "num_events": dict(self.num_events),
                "arrays": dict(self.report),
                "notes": list(self.notes[:_MOST_NOTES]),
            },
            "addresses": {
                "catalog": self.catalog,
                "files": list(self.files[:_MOST_FILES]),
                "files_count": len(self.files),
            },
        }


def completed_run(run: RunDelivery, catalog: str) -> CompletedRun:
    """What is known of a run that has come to its end, without anything in it that is a secret.

    Parameters
    ----------
    run : RunDelivery
        The run, delivered or parked.
    catalog : str
        The address of the catalog.
    """
    said, documents = run.said, run.documents
    files = documents.arrays.files if isinstance(documents, Run) else documents.files if documents else ()
    arrays = {kind: words for kind, words in (said.get("filestore") or {}).items() if kind in _REPORTED}
    counts = run.stop.get("num_events")
    return CompletedRun(
        uid=run.uid,
        state="delivered" if run.state == "delivered" else "parked",
        reason=without_secrets(run.reason),
        catalog=f"{without_secrets(catalog).rstrip('/')}/{run.uid}",
        files=tuple(files),
        scan_id=plain(run.start.get("scan_id")),
        plan_name=plain(run.start.get("plan_name")),
        exit_status=plain(run.stop.get("exit_status")),
        num_events=plain(counts) if isinstance(counts, Mapping) else {},
        report=_without_secrets(arrays),
        notes=tuple(without_secrets(str(note)) for note in said.get("notes") or ()),
        id=uuid.uuid4().hex,
    )


def write_down(
    ledger: Ledger,
    catalog: tuple[int, str],
    states: Mapping[int, tuple[DeliveryState, str, int]],
    ended: Iterable[RunDelivery],
    on_complete: Callable[[CompletedRun], object] | None,
) -> None:
    """Write down how far runs have come, with the messages about those that have come to their end.

    Parameters
    ----------
    ledger : Ledger
        The spool.
    catalog : tuple of int, str
        Number and address of the catalog.
    states : mapping
        As of `Ledger.set_states`.
    ended : iterable of RunDelivery
        Those that are delivered or parked now.
    on_complete : callable, optional
        Is given each of these once they are written down.
    """
    # Nobody pays for what nobody wants to know.
    wanted = list(ended) if on_complete is not None or has_receivers(ledger) else []
    completed = [_completed(run, catalog[1]) for run in wanted]
    ledger.set_states(catalog[0], states, [handoff_of(run) for run in completed])
    if on_complete is not None:
        for run in completed:
            on_complete(run)


def _completed(run: RunDelivery, catalog: str) -> CompletedRun:
    try:
        return completed_run(run, catalog)
    except Exception:
        # Whatever we overlooked: it must neither end the delivery nor keep it a secret that the run has ended.
        _logger.exception("What is known of run %s at its end could not be put together.", run.uid)
        return CompletedRun(run.uid, "parked" if run.reason else "delivered", run.reason, catalog, id=uuid.uuid4().hex)


def handoff_of(run: CompletedRun) -> Handoff:
    """The message to webhooks."""
    return Handoff(run.id, run.uid, json.dumps(run.as_json(), default=str).encode())


def _without_secrets(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _without_secrets(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(each) for each in value]
    return without_secrets(value) if isinstance(value, str) else value


class Caller:
    """Calls a function with each run that is complete, once, in a thread of its own that nobody waits for.

    What it raises is said, and the next run is taken. While it lasts the next ones wait in `_waiting`, in memory: they
    are lost with the process.

    Parameters
    ----------
    function : callable
        Is given a `CompletedRun`.
    say : callable
        Is given a sentence about each call that failed.

    Raises
    ------
    OptionError
        If it is no function.
    """

    def __init__(self, function: Callable[[CompletedRun], object], say: Callable[[str], None]) -> None:
        if not callable(function):
            raise OptionError(f"on_run_complete={function!r} cannot be called; expected a function of one argument.")
        self._function, self._say = function, say
        self._waiting: SimpleQueue[CompletedRun | None] = SimpleQueue()
        self._calls = ""
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def add(self, run: CompletedRun) -> None:
        """Have the function called; for any thread."""
        self._waiting.put(run)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="on_run_complete", daemon=True)
                self._thread.start()

    def close(self, timeout: float) -> None:
        """End when it was called for all, but wait for that no longer than so many seconds."""
        until = time.monotonic() + timeout
        self._waiting.put(None)
        if self._thread is None or self._thread is threading.current_thread():
            return
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            left = self._waiting.qsize() - 1
            more = f", and was not called for {left} more" if left > 0 else ""
            self._say(f"on_run_complete has not returned for run {self._calls[:_LENGTH]} when the writer ended{more}")

    def _work(self) -> None:
        while (run := self._waiting.get()) is not None:
            self._calls = run.uid
            try:
                self._function(run)
            except BaseException as error:
                _logger.error("on_run_complete failed for run %s.", run.uid, exc_info=True)
                self._say(visible(f"on_run_complete failed for run {run.uid[:_LENGTH]}: {error!r}"))
