"""The terminal, on which documents of others are shown and nothing that they hold is carried out."""

from collections.abc import Iterable

from rich import console
from rich.segment import Segment

from bluesky_filestore.visible import visible

__all__ = ["Console"]


class Console(console.Console):
    """A console of rich that shows texts as they are: colours are its own."""

    def render(
        self, renderable: console.RenderableType, options: console.ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Parts of what is printed, without anything in them that a terminal obeys."""
        for part in super().render(renderable, options):
            yield part if part.control else Segment(visible(part.text), part.style)
