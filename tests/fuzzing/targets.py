"""All that is tried."""

from . import corpus, documents, files, packs, registrations, spools
from .running import Target

__all__ = ["all_targets"]


def all_targets() -> list[Target]:
    """What was found before, and each thing that may be damaged, in each way in which it is looked at."""
    families = (files, documents, registrations, spools, packs)
    return [*corpus.targets(), *(target for family in families for target in family.targets())]
