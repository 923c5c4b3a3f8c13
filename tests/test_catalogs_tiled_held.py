"""Whether an array holds what it was sent."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bluesky_filestore.catalogs.tiled.held import ValueSums

DTYPES = ["<i8", "<i4", "|u1", "<f8", "<f4", "|b1", "<U5"]


@st.composite
def batches(draw):
    """Rows of an array, some at a time, each time in the type that is wide enough by then."""
    dtype, shape = draw(st.sampled_from(DTYPES)), tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    counts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    return [draw(hnp.arrays(dtype, (count, *shape))) for count in counts]


@given(batches(), st.data())
def test_one_value_tells(rows, data):
    """What was sent does not differ, whatever the batches; any other value does."""
    sums, first = ValueSums(), 0
    for batch in rows:
        sums.add(first, batch)
        first += len(batch)
    values = np.concatenate(rows)
    assert sums
    assert not sums.differ(values)
    assert not sums.differ(np.concatenate([values, values]))
    place = data.draw(st.integers(0, values.size - 1))
    other = values.copy()
    changed = bytearray(other.tobytes())
    changed[place * values.itemsize] ^= 1
    assert sums.differ(np.frombuffer(bytes(changed), values.dtype).reshape(values.shape))


def test_whole_numbers_among_fractions():
    """Rows that were sent as whole numbers are known as fractions, and their bytes are not."""
    whole, fractions = np.arange(4).reshape(2, 2), np.array([[0.5, 1.5]])
    sums = ValueSums()
    sums.add(0, whole)
    sums.add(2, fractions)
    values = np.concatenate([whole, fractions])
    assert not sums.differ(values)
    values[:2] = whole.view("<f8")
    assert sums.differ(values)
    values[:2] = np.nan
    assert sums.differ(values)


def test_written_again():
    """From the first row on all is known anew; in the middle nothing is known any more."""
    sums = ValueSums()
    assert not sums
    sums.add(0, np.array([1.0, 2.0]))
    sums.add(0, np.array([3.0]))
    sums.add(1, np.array([4.0]))
    assert sums.differ(np.array([1.0, 2.0]))
    assert not sums.differ(np.array([3.0, 4.0]))
    sums.add(1, np.array([5.0]))
    assert not sums
    assert not sums.differ(np.array([6.0]))


def test_numbers_that_became_text():
    """What cannot be told from other values is not looked at."""
    sums = ValueSums()
    sums.add(0, np.array([1.5]))
    assert not sums.differ(np.array(["1.5"]))
    assert not sums.differ(np.array([1], "<i4"))
