"""The pieces that arrays are cut into."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bluesky_filestore.model.chunks import chunks_for_reading


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=3), st.sampled_from(["|u1", "<f8"]), st.integers(1, 500))
def test_chunks_are_made_for_reading(shape, dtype, count):
    """Chunks cover the array, are cut along the first axis only, and hold some megabytes or one event."""
    chunks = chunks_for_reading((count, *shape), dtype)
    assert tuple(sum(sizes) for sizes in chunks) == (count, *shape)
    assert all(len(sizes) == 1 for sizes in chunks[1:])
    event = math.prod(shape) * np.dtype(dtype).itemsize
    assert chunks[0][0] * event <= max(4_000_000, event)
    assert len(chunks[0]) == 1 or (chunks[0][0] + 1) * event > 4_000_000
