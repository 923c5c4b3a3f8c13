"""Documents from elsewhere: each module is one kind of source, and gives ``(name, doc)`` pairs in their order."""

from collections.abc import Iterator
from typing import Any, Protocol

__all__ = ["Source"]


class Source(Protocol):
    """Where documents come from."""

    name: str
    """Its address: whoever passes on what comes from the same goes on with its runs."""

    def documents(self) -> Iterator[tuple[str, dict[str, Any]] | None]:
        """The documents in their order; it ends if no more can come, ever.

        None comes where no other is there yet, before it is waited for, and now and then while none comes.
        """

    def acknowledge(self) -> None:
        """All documents that were given, but for the last, are safe from a power failure: they need not come again."""

    def close(self) -> None:
        """Give no more."""
