"""The legal order of documents, and what they refer to, as tables.

Resources and datums belong to no state of a run: a staging may outlive it, and the RunEngine may emit a datum after
its event. They may come at any time before the stop of the run that uses them.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from bluesky_filestore.errors import DocumentError

from .frame_map import Assets

__all__ = ["REFERENCES", "TRANSITIONS", "Reference", "RunState", "Sequence"]

_REMEMBERED = 10_000

When: TypeAlias = Literal["before", "until the stop"]


class RunState(Enum):
    """How far a run has come."""

    UNKNOWN = "was never started"
    OPEN = "is open"
    STOPPED = "is stopped"


TRANSITIONS: Mapping[RunState, Mapping[str, RunState]] = MappingProxyType(
    {
        RunState.UNKNOWN: {"start": RunState.OPEN},
        RunState.OPEN: {
            "descriptor": RunState.OPEN,
            "event": RunState.OPEN,
            "stream_datum": RunState.OPEN,
            "stop": RunState.STOPPED,
        },
        RunState.STOPPED: {},
    }
)
"""What may come in each state of a run, and the state after it."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One row of the table of references."""

    document: str
    """What refers."""
    field: str
    """Where it does so; the keys of an event's ``data`` that are external each name a datum."""
    target: str
    """What it refers to."""
    when: When
    """Whether that must have come before it. What may come until the stop is looked for by the frame map, which says
    in the end what was never announced."""


REFERENCES = (
    Reference("descriptor", "run_start", "start", "before"),
    Reference("event", "descriptor", "descriptor", "before"),
    Reference("event", "data", "datum", "until the stop"),
    Reference("datum", "resource", "resource", "until the stop"),
    Reference("stream_datum", "descriptor", "descriptor", "before"),
    Reference("stream_datum", "stream_resource", "stream_resource", "before"),
    Reference("stop", "run_start", "start", "before"),
)
"""What documents refer to."""

_BEFORE: Mapping[str, tuple[Reference, ...]] = MappingProxyType(
    {
        name: tuple(row for row in REFERENCES if row.document == name and row.when == "before")
        for names in TRANSITIONS.values()
        for name in names
    }
)


class Sequence:
    """Follows any number of interleaved runs, document by document.

    Of stopped runs and of events only the last some thousand are remembered: it is a guard against documents that
    come twice, e.g. from a second subscription, not a register of all that ever came.

    Parameters
    ----------
    assets : Assets
        The resources announced so far.
    """

    def __init__(self, assets: Assets) -> None:
        self._assets = assets
        self._open: dict[str, None] = {}
        self._stopped: OrderedDict[str, None] = OrderedDict()
        self._run_of: dict[str, str] = {}
        self._events: OrderedDict[str, None] = OrderedDict()

    @property
    def open_runs(self) -> tuple[str, ...]:
        """The runs that were started and not stopped yet, by uid."""
        return tuple(self._open)

    def state(self, run: str) -> RunState:
        """How far a run has come."""
        if run in self._open:
            return RunState.OPEN
        return RunState.STOPPED if run in self._stopped else RunState.UNKNOWN

    def run_of(self, name: str, doc: Any) -> str:
        """The open run that a document is about, as far as can be told; empty if it cannot.

        A document that does not say is taken to be about the only run that is open.
        """
        named = None
        if isinstance(doc, Mapping):
            named = doc.get("uid") if name == "start" else doc.get("run_start")
            if not isinstance(named, str) or not named:
                named = self._run_of.get(str(doc.get("descriptor")))
        if isinstance(named, str) and named:
            return named if named in self._open else ""
        return next(iter(self._open)) if len(self._open) == 1 else ""

    def advance(self, name: str, doc: Mapping[str, Any]) -> str:
        """Check that a document may come now, and follow it.

        Parameters
        ----------
        name : str
            ``"start"``, ``"descriptor"``, ``"event"``, ``"stream_datum"`` or ``"stop"``; pages are unpacked before.
        doc : Mapping
            The document.

        Returns
        -------
        str
            The uid of the run it belongs to.

        Raises
        ------
        DocumentError
            If it lacks what it has to refer to, refers to what never came, came before, or comes too late.
        """
        uid = _entry(name, doc, "uid")
        if name not in _BEFORE:
            raise DocumentError(f"there is no document {name!r}; {uid!r} is left out.")
        for reference in _BEFORE[name]:
            self._check(reference, uid, doc)
        of_descriptor = name in ("event", "stream_datum")
        run = self._run_of[doc["descriptor"]] if of_descriptor else uid if name == "start" else doc["run_start"]
        state = self.state(run)
        if name not in TRANSITIONS[state]:
            raise DocumentError(f"{name} {uid!r} came twice: its run {state.value}; the second is left out.")
        if name in ("descriptor", "event"):
            self._only_once(name, uid, run)
        after = TRANSITIONS[state][name]
        if after is not state:
            self._change(run, after)
        return run

    def _check(self, reference: Reference, uid: str, doc: Mapping[str, Any]) -> None:
        target = _entry(reference.document, doc, reference.field)
        if reference.target == "start":
            known = target in self._open
        elif reference.target == "descriptor":
            known = target in self._run_of
        else:
            known = target in self._assets.sources or target in self._assets.unusable
        if not known:
            words = "whose run is stopped" if target in self._stopped else "which was never received"
            if reference.target == "descriptor":
                words = "which was never received or whose run is stopped"
            raise DocumentError(
                f"{reference.document} {uid!r} refers to the {reference.target} {target!r}, {words}; it is left out."
            )

    def _only_once(self, name: str, uid: str, run: str) -> None:
        known = self._run_of if name == "descriptor" else self._events
        if uid in known:
            raise DocumentError(f"{name} {uid!r} came twice; the second is left out.")
        if name == "descriptor":
            self._run_of[uid] = run
        else:
            self._events[uid] = None
            if len(self._events) > _REMEMBERED:
                self._events.popitem(last=False)

    def _change(self, run: str, state: RunState) -> None:
        if state is RunState.OPEN:
            self._open[run] = None
            return
        del self._open[run]
        self._stopped[run] = None
        if len(self._stopped) > _REMEMBERED:
            self._stopped.popitem(last=False)
        for descriptor in [descriptor for descriptor, owner in self._run_of.items() if owner == run]:
            del self._run_of[descriptor]


def _entry(name: str, doc: Mapping[str, Any], field: str) -> str:
    value = doc.get(field)
    if not isinstance(value, str) or not value:
        found = f"{field} {value!r}" if field in doc else f"no {field}"
        raise DocumentError(f"{name} {doc.get('uid')!r} has {found}; expected a text. It is left out.")
    return value
