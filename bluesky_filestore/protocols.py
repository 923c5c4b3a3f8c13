"""What the parts of the package, and those of others, ask of one another."""

from collections.abc import Callable
from typing import Any, TypeAlias

__all__ = ["Handler", "HandlerClass"]

Handler: TypeAlias = Callable[..., Any]
"""Reads what the Datums of one Resource stand for, as event-model's Filler and databroker ask it to.

Called with the ``datum_kwargs`` of a Datum as keywords, it returns an array, mostly of shape (frame_per_point, y, x),
and raises an `OSError` for what cannot be read (yet). It may have more, which is used where it is there:
``get_file_list(datum_kwargs_gen)``, the files that hold what the Datums stand for; ``close()``; and
``format(**datum_kwargs)`` with the ``shape`` and ``dtype`` of the array, without which nothing can be read lazily.
"""

HandlerClass: TypeAlias = Callable[..., Handler]
"""Makes a `Handler` when it is called as ``handler_class(path, **resource_kwargs)``; usually a class."""
