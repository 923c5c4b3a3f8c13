"""What a handler would return, as an array that is read when it is computed."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bluesky_filestore.errors import UnreadableFileError
from bluesky_filestore.extras import from_extra
from bluesky_filestore.protocols import Handler

from .base import ArrayFormat

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["as_lazy", "as_read"]


def as_read(values: Any) -> Any:
    """What a handler returned, in memory: numpy for what was lazy (dask), anything else as it is."""
    return values.compute() if hasattr(values, "compute") and hasattr(values, "dask") else values


def as_lazy(handler: Handler, datum_kwargs: Mapping[str, Any]) -> Any:
    """A dask array of one chunk that calls the handler when it is computed.

    A handler that does not say beforehand what it returns (``format``) is called now.

    Raises
    ------
    OSError
        If the file cannot be looked into.
    """
    with from_extra("write"):
        from dask.array import from_array, from_delayed
        from dask.delayed import delayed

    said = getattr(handler, "format", None)
    if said is None:
        values = handler(**datum_kwargs)
        return from_array(values) if isinstance(values, np.ndarray) else values
    expected: ArrayFormat = said(**datum_kwargs)
    later = delayed(_read_as_expected, pure=False)(handler, dict(datum_kwargs), expected)
    return from_delayed(later, shape=expected.shape, dtype=expected.dtype)


def _read_as_expected(handler: Handler, datum_kwargs: dict[str, Any], expected: ArrayFormat) -> "NDArray[Any]":
    values: NDArray[Any] = handler(**datum_kwargs)
    if (values.shape, values.dtype) != (expected.shape, expected.dtype):
        raise UnreadableFileError(
            f"{type(handler).__name__} read {list(values.shape)} {values.dtype} for {datum_kwargs}; expected "
            f"{list(expected.shape)} {expected.dtype}, as its file said when the event was filled."
        )
    return values
