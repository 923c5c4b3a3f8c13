"""What is found of a run that is compared with its files."""

from dataclasses import dataclass
from typing import Any

from .finding import Finding, Report

__all__ = ["RunFinding", "RunReport"]

_MOST_EVENTS = 6


@dataclass(frozen=True, slots=True)
class RunFinding(Finding):
    """One line of a report on a run; `ok` is None where something could not be looked at."""

    events: tuple[int, ...] = ()
    """The rows of the stream's event table that are concerned, from 0 on; empty if it is not of single ones."""
    file: str = ""
    """The file that is concerned."""

    @property
    def stream(self) -> str:
        """The stream; empty for what concerns the run as a whole."""
        return self.plugin.partition("/")[0] if self.plugin != "run" else ""

    @property
    def key(self) -> str:
        """The data key; empty for what concerns the stream as a whole."""
        return self.plugin.partition("/")[2]

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "check": self.check,
            "stream": self.stream,
            "key": self.key,
            "ok": self.ok,
            "words": self.words,
            "advice": self.advice,
            "events": list(self.events),
            "file": self.file,
        }


@dataclass(frozen=True, slots=True, repr=False)
class RunReport(Report):
    """All findings about a run; it shows itself with one line for each."""

    uid: str = ""
    """The run's."""

    @property
    def ok(self) -> bool:
        """Whether all is well: nothing is wrong, and everything could be looked at."""
        return self.exit_code == 0

    @property
    def exit_code(self) -> int:
        """0 if all is well, 1 if something is wrong, 2 if something could not be looked at."""
        if self.problems:
            return 1
        return 2 if any(finding.ok is None for finding in self.findings) else 0

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        findings = [finding.to_json() for finding in self.findings if isinstance(finding, RunFinding)]
        return {"uid": self.uid, "ok": self.ok, "exit_code": self.exit_code, "findings": findings}


def in_words(events: "tuple[int, ...] | list[int]") -> str:
    """Rows of an event table, the first of them by number.

    Examples
    --------
    >>> in_words([3]), in_words([0, 1, 2])
    ('event 3', 'events 0, 1, 2')
    """
    more = f" and {len(events) - _MOST_EVENTS} more" if len(events) > _MOST_EVENTS else ""
    return f"event{'' if len(events) == 1 else 's'} {', '.join(map(str, events[:_MOST_EVENTS]))}{more}"
