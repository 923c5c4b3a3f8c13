"""What a check has found, and the list of it that a user reads."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bluesky_filestore.visible import visible

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["Finding", "Report", "Verdict", "fine", "open_question", "wrong"]

_MARKS = {True: ("ok", "green"), False: ("PROBLEM", "bold red"), None: ("?", "yellow")}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one check says of one file plugin."""

    ok: bool | None
    """Whether all is well; None if that can't be told."""
    words: str
    """What was found, without a full stop."""
    advice: str = ""
    """What to do about it."""


def fine(words: str) -> Verdict:
    """All is well."""
    return Verdict(True, words)


def wrong(words: str, advice: str) -> Verdict:
    """There is a problem."""
    return Verdict(False, words, advice)


def open_question(words: str, advice: str = "") -> Verdict:
    """It can't be told."""
    return Verdict(None, words, advice)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a report."""

    check: str
    """What was looked at, e.g. ``"priming"``."""
    plugin: str
    """The name of the file plugin or, for what concerns all of it, of the detector."""
    ok: bool | None
    """Whether all is well; None if that can't be told."""
    words: str
    """What was found."""
    advice: str = ""
    """What to do about it; empty if there is nothing to do."""

    def __str__(self) -> str:
        return f"{_MARKS[self.ok][0]:<8}{self._rest()}"

    def _rest(self) -> str:
        return visible(f"{self.plugin}: {self.check}: {self.words}{f'. {self.advice}.' if self.advice else ''}")

    def styled(self) -> "Text":
        """The same line in colours."""
        from rich.text import Text

        word, style = _MARKS[self.ok]
        return Text.assemble((f"{word:<8}", style), self._rest())


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """All findings about a detector; it shows itself with one line for each."""

    findings: tuple[Finding, ...]
    """In the order of the checks, plugin after plugin."""

    @property
    def ok(self) -> bool:
        """Whether no problem was found; what can't be told is none."""
        return not self.problems

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings that something must be done about."""
        return tuple(finding for finding in self.findings if finding.ok is False)

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings))

    __repr__ = __str__

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))

    def __rich__(self) -> "Text":
        from rich.text import Text

        return Text("\n").join(finding.styled() for finding in self.findings)
