"""How a spool is delivered, as its user wants it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bluesky_filestore.operations.operations import Catalog
from bluesky_filestore.operations.placement import Viewer

from .completed import CompletedRun
from .webhook import Webhook

__all__ = ["AS_USUAL", "DeliverySettings"]


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    """How what is in a spool is delivered."""

    interval: float = 0.5
    """After how many seconds documents are looked for."""
    settle: float = 60.0
    """For how many seconds after a run's end its files are waited for, if some are missing or still being written."""
    validate: bool = True
    """Whether documents are checked against event-model's schemas."""
    keep: float = 7 * 86_400.0
    """For how many seconds a delivered run stays in the spool."""
    park_after: float = 60.0
    """For how many seconds, and three times at least, a request is tried at which the catalog fails while it answers
    others. Then it is left out, with the reason among the problems."""
    on_readable: Callable[[Catalog, Sequence[str]], object] = lambda catalog, uids: None
    """Told, by the thread that delivers, which runs a catalog has to their end since the last time."""
    view: Viewer | None = None
    """Makes files for what no stock adapter can address, see `bluesky_filestore.delivery.views`; by default nobody."""
    on_complete: Callable[[CompletedRun], object] | None = None
    """Given, by the thread that delivers, each run that has come to its end in a catalog; must not block."""
    webhook: Webhook | None = None
    """Who else is to know of these."""
    reconcile: bool = True
    """Whether at the end of a run each of its frames is looked for in its file, where that is in sight."""


AS_USUAL = DeliverySettings()
"""What nobody asked to be different."""
