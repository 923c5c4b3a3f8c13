"""What the dependencies of FastAPI's routes ask for, worked out once.

Where an application overrides one dependency, as Tiled does for its settings, FastAPI looks at the signatures of all of
them anew with each request: the longest part of a short answer. They are the same each time.
"""

from collections.abc import Callable, Hashable
from functools import lru_cache, wraps
from typing import Any

__all__ = ["remember_dependants"]

_MOST = 4096


def remember_dependants() -> None:
    """Have FastAPI remember what dependencies ask for, in all applications of this process.

    Raises
    ------
    ImportError, AttributeError
        If FastAPI has it otherwise.
    """
    from fastapi.dependencies import utils

    if not hasattr(utils.get_dependant, "remembered"):
        utils.get_dependant = _remembering(utils.get_dependant)


def _remembering(make: Callable[..., Any]) -> Callable[..., Any]:
    """Makes the same once; the answers are only read where they are asked for with each request."""

    @lru_cache(maxsize=_MOST)
    def remembered(options: frozenset[tuple[str, Hashable]]) -> Any:
        return make(**{name: list(value) if isinstance(value, tuple) else value for name, value in options})

    @wraps(make)
    def get_dependant(**options: Any) -> Any:
        try:
            key = frozenset(
                (name, tuple(value) if isinstance(value, list) else value) for name, value in options.items()
            )
        except TypeError:
            # What is called need not be hashable.
            return make(**options)
        return remembered(key)

    get_dependant.remembered = remembered  # type: ignore[attr-defined]
    return get_dependant
