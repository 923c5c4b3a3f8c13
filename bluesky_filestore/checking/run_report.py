"""What is found of a run that is compared with its files."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from bluesky_filestore.errors import ChangedFileError, ForbiddenFileError, MissingFileError, TruncatedFileError

from .finding import Finding, Report

__all__ = ["RunFinding", "RunReport", "in_words", "together"]

_MOST_EVENTS, _MOST_ALIKE = 6, 3
_ALIKE: dict[type[Exception], str] = {
    ChangedFileError: "are not as they were",
    ForbiddenFileError: "may not be read",
    MissingFileError: "are not there",
    TruncatedFileError: "are too short",
}


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


def together(found: Iterable[tuple[RunFinding, type[Exception]]]) -> Iterator[RunFinding]:
    """Findings of single files, each with the kind of its error; of more than a few of a kind one, with all events."""
    kinds: dict[tuple[str, str, bool | None, str], list[RunFinding]] = {}
    for finding, error in found:
        what = next((words for kind, words in _ALIKE.items() if issubclass(error, kind)), "cannot be read")
        kinds.setdefault((finding.check, finding.plugin, finding.ok, what), []).append(finding)
    for (*_, what), alike in kinds.items():
        if len(alike) <= _MOST_ALIKE:
            yield from alike
            continue
        events = tuple(sorted({event for finding in alike for event in finding.events}))
        concerned = f", of {in_words(events)}" if events else ""
        words = f"{len(alike):,} files {what}{concerned}; the first: {alike[0].words}"
        yield replace(alike[0], words=words, events=events)
