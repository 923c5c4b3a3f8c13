"""Whether an array holds what it was sent."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bluesky_filestore.catalogs.tiled.held import ValueSum

DTYPES = ["<i8", "<i4", "|u1", "<f8", "<f4", "|b1", "<U5"]


@st.composite
def batches(draw):
    """Rows of an array, some at a time."""
    dtype, shape = draw(st.sampled_from(DTYPES)), tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    counts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    return [draw(hnp.arrays(dtype, (count, *shape))) for count in counts]


@given(batches(), st.data())
def test_one_value_tells(rows, data):
    """What was sent does not differ, whatever the batches; any other value does."""
    checksum, first = ValueSum(), 0
    for batch in rows:
        checksum.add(first, batch)
        first += len(batch)
    values = np.concatenate(rows)
    assert checksum.is_known
    assert not checksum.differs(values)
    assert not checksum.differs(np.concatenate([values, values]))
    place = data.draw(st.integers(0, values.size - 1))
    other = values.copy()
    changed = bytearray(other.tobytes())
    changed[place * values.itemsize] ^= 1
    assert checksum.differs(np.frombuffer(bytes(changed), values.dtype).reshape(values.shape))


def test_whole_numbers_among_fractions():
    """An array that is made anew for fractions holds other values where the bytes of whole numbers are."""
    whole, checksum = np.arange(4).reshape(2, 2), ValueSum()
    checksum.add(0, whole)
    values = np.array([[0.0, 1.0], [2.0, 3.0], [0.5, 1.5]])
    checksum.add(0, values)
    assert not checksum.differs(values)
    values[:2] = whole.view("<f8")
    assert checksum.differs(values)


def test_written_again():
    """From the first row on all is known anew; in the middle nothing is known any more."""
    checksum = ValueSum()
    assert not checksum.is_known
    checksum.add(0, np.array([1.0, 2.0]))
    checksum.add(0, np.array([3.0]))
    checksum.add(1, np.array([4.0]))
    assert checksum.differs(np.array([1.0, 2.0]))
    assert not checksum.differs(np.array([3.0, 4.0]))
    checksum.add(1, np.array([5.0]))
    assert not checksum.is_known
    assert not checksum.differs(np.array([6.0]))


def test_another_type():
    """Values of another type are others; what was sent in two types at once is not known."""
    checksum = ValueSum()
    checksum.add(0, np.array([1.0]))
    assert checksum.differs(np.array([1]))
    checksum.add(1, np.array([2]))
    assert not checksum.is_known
    assert not checksum.differs(np.array([3.0, 4.0]))
