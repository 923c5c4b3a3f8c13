"""All that is tried."""

from . import documents, files, packs, registrations, spools
from .running import Target

__all__ = ["all_targets"]


def all_targets() -> list[Target]:
    """Each thing that may be damaged, in each way in which it is looked at."""
    return [*files.targets(), *documents.targets(), *registrations.targets(), *spools.targets(), *packs.targets()]
