"""How a writer is doing, as a value that reads well."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bluesky_filestore.spool.status import CatalogStatus, described_runs
from bluesky_filestore.visible import visible

__all__ = ["WriterStatus"]

_LENGTH = 8
_MOST_SHOWN = 5


@dataclass(frozen=True, slots=True, repr=False)
class WriterStatus:
    """How a `CatalogWriter` is doing."""

    documents: int
    """How many documents were received."""
    open_runs: tuple[str, ...]
    """The runs that were started and not stopped yet, by uid."""
    unsettled_runs: tuple[str, ...]
    """The runs that ended with files missing or still being written, which are looked at again."""
    problems: tuple[str, ...]
    """What went wrong with single documents or arrays, in words."""
    catalogs: tuple[CatalogStatus, ...]
    """How far the delivery to each catalog has come."""
    spool: Path | None = None
    """Where documents are kept until they are delivered; None if they are kept in memory."""
    unsaved: int = 0
    """How many documents are in memory only because the spool does not take them."""
    spool_error: str = ""
    """Why the spool does not take documents; empty if it does."""

    @property
    def catalog(self) -> str:
        """The address of the (first) catalog."""
        return self.catalogs[0].catalog

    @property
    def error(self) -> str:
        """Why documents are not taken where they should go; empty if they are."""
        return " ".join(words for words in (self.spool_error, *(each.error for each in self.catalogs)) if words)

    @property
    def waiting(self) -> int:
        """How many documents (without a spool: operations) a catalog has not got yet."""
        return self.unsaved + max(each.waiting for each in self.catalogs)

    def __repr__(self) -> str:
        return visible("\n".join(self._lines()))

    def _lines(self) -> Iterator[str]:
        kept = f"kept in {self.spool}" if self.spool else "kept in memory"
        yield f"{self.documents:,} documents received, {self.waiting:,} not delivered yet ({kept})"
        if self.spool_error:
            yield f"  spool: {self.spool_error}"
        for each in self.catalogs:
            yield f"  {each.catalog}: {described_runs(each.runs) or 'no runs'}"
            if each.error:
                yield f"    takes no documents: {each.error}"
            for uid, reason in list(each.parked.items())[:_MOST_SHOWN]:
                yield f"    parked {uid[:_LENGTH]}: {reason}"
        for words, uids in (("going on", self.open_runs), ("that are looked at again", self.unsettled_runs)):
            if uids:
                more = f" and {len(uids) - _MOST_SHOWN} more" if len(uids) > _MOST_SHOWN else ""
                yield f"  runs {words}: {', '.join(uid[:_LENGTH] for uid in uids[:_MOST_SHOWN])}{more}"
        if self.problems:
            count = len(self.problems)
            yield f"  {count} problem{'' if count == 1 else 's'}, the last: {self.problems[-1]}"
