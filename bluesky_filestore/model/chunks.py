"""How an array in files is cut into the pieces that clients ask for."""

import math

import numpy as np

__all__ = ["chunks_for_reading"]

_CHUNK_BYTES = 4_000_000


def chunks_for_reading(shape: tuple[int, ...], dtype: str) -> tuple[tuple[int, ...], ...]:
    """Chunks of some megabytes along the first axis, whole along the others.

    Stock adapters of file series can be chunked along the first axis alone.

    Examples
    --------
    >>> chunks_for_reading((10, 1, 1000, 1000), "|u1")
    ((4, 4, 2), (1,), (1000,), (1000,))
    """
    event_bytes = math.prod(shape[1:]) * np.dtype(dtype).itemsize
    length = max(1, _CHUNK_BYTES // max(1, event_bytes))
    whole, rest = divmod(shape[0], length)
    return ((length,) * whole + ((rest,) if rest else ()), *((size,) for size in shape[1:]))
