"""The terminal, on which texts of others are shown as they are, and nothing that they hold is carried out."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich import console
from rich.segment import Segment
from rich.text import Text
from typer import BadParameter
from typer.core import TyperGroup

from bluesky_filestore.visible import visible, without_secrets

__all__ = ["Commands", "Console"]

# What all errors are that typer says of arguments: of click, of its own copy of click, or its own, by its version.
_TYPER_ERRORS = tuple(kind for kind in BadParameter.__mro__ if issubclass(kind, Exception) and kind is not Exception)


class Console(console.Console):
    """A console of rich for which a string is text, and ``[bold]`` and ``:bomb:`` no more: `say` gives styles."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False} | options)

    def say(self, *parts: str | tuple[str, str]) -> None:
        """Print parts as one line, or as the lines that they have; of a pair the second is the style."""
        texts = (_shown(part) if isinstance(part, str) else (_shown(part[0]), part[1]) for part in parts)
        self.print(Text.assemble(*texts), soft_wrap=True)

    def render_str(self, text: str, **options: Any) -> Text:
        """The text, before rich drops some of what a terminal obeys, which would then be seen by nobody."""
        return super().render_str(_shown(text), **options)

    def render(
        self, renderable: console.RenderableType, options: console.ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Parts of what is printed, without anything in them that a terminal obeys."""
        for part in super().render(renderable, options):
            yield part if part.control else Segment(visible(part.text), part.style)


def _shown(text: str) -> str:
    return visible(without_secrets(text))


class Commands(TyperGroup):
    """Commands of typer, which prints what it finds wrong with an argument: it may be the name of somebody's file."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """As typer does, with errors that can be shown."""
        with _shown_errors():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        """As typer does, with errors that can be shown."""
        with _shown_errors():
            return super().invoke(ctx)


@contextmanager
def _shown_errors() -> Iterator[None]:
    try:
        yield
    except _TYPER_ERRORS as error:
        if isinstance(words := getattr(error, "message", None), str):
            vars(error)["message"] = _shown(words)
        raise
