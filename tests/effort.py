"""How much is tried: what a change needs in half an hour by itself, more with ``EFFORT=5``, as once a week."""

import os
from collections.abc import Sequence
from typing import TypeVar

Case = TypeVar("Case")

EFFORT = float(os.environ.get("EFFORT", "1"))


def times(usual: int) -> int:
    """How many cases to try of those that are made at random."""
    return max(1, round(usual * EFFORT))


def some(cases: Sequence[Case], begin: int = 0) -> Sequence[Case]:
    """Every second of cases that are alike; all of them with more effort than usual."""
    return cases if EFFORT > 1 else cases[begin::2]
