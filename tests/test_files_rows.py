"""Which frames an index into an array means."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluesky_filestore.errors import UnreadableFileError
from bluesky_filestore.files.rows import array_of, expanded_index, runs_of


class Held:
    """Frames in memory, and which of them were read."""

    dtype = np.dtype("i4")

    def __init__(self, count, frame_shape):
        self.count, self.frame_shape = count, frame_shape
        self.values = np.arange(count * math.prod(frame_shape), dtype="i4").reshape(count, *frame_shape)
        self.asked = []

    def read(self, frames, part=()):
        """Frames, or a part of each."""
        self.asked.extend(frames)
        return self.values[(list(frames), *part)] if len(part) == 0 else self.values[list(frames)][(slice(None), *part)]


axis_slices = st.builds(
    slice, st.none() | st.integers(-7, 7), st.none() | st.integers(-7, 7), st.sampled_from([None, 1, 2, 3, -1, -2])
)


def test_nothing_downwards():
    """A slice that counts down from before the first takes nothing."""
    source = Held(1, (4,))
    index = (slice(-3, None, -1), slice(None))
    assert array_of(source, (2, 2), index).shape == source.values.reshape(2, 2)[index].shape == (0, 2)


@given(st.data())
def test_like_numpy(data):
    """Any basic index into any shape of the frames gives what numpy gives."""
    source = Held(data.draw(st.sampled_from([1, 2, 6, 12])), data.draw(st.sampled_from([(), (4,), (3, 4), (1, 4)])))
    total = source.values.size
    shapes = [source.values.shape, (total,), (1, *source.values.shape), (source.count, 1, *source.frame_shape)]
    shapes += [(a, total // a) for a in (2, 3, 4) if total % a == 0]
    shapes += [(2, source.count // 2, *source.frame_shape)] if source.count % 2 == 0 else []
    shape = data.draw(st.sampled_from(shapes))
    whole = source.values.reshape(shape)
    keys = tuple(data.draw(axis_slices | st.integers(-size, size - 1)) for size in shape)
    keys = keys[: data.draw(st.integers(0, len(keys)))]
    found = array_of(source, shape, (*keys, ...))
    assert found.shape == whole[(*keys, ...)].shape
    assert found.tolist() == whole[(*keys, ...)].tolist()


def test_only_what_is_needed_is_read():
    """Of 100 frames, two events of two frames each are four frames."""
    source = Held(100, (3, 4))
    array_of(source, (50, 2, 3, 4), slice(7, 9))
    assert source.asked == [14, 15, 16, 17]


def test_more_frames_than_the_array_has_room_for():
    """A registration may claim any number of frames for a row: not one of them is counted, and it is said."""
    source = Held(1, (4, 6))
    source.count = 10**12
    with pytest.raises(UnreadableFileError, match=r"frames of shape \[4, 6\]; expected .* shape \[4, 4, 6\]"):
        array_of(source, (4, 4, 6), (0,))
    assert source.asked == []
    assert array_of(source, (4, 4, 6), slice(0, 0)).shape == (0, 4, 6)


def test_index_that_does_not_fit():
    """An index out of range, with too many entries or two Ellipses, is said to be so."""
    with pytest.raises(IndexError, match=r"index 10 is out of range; expected -10 to 9"):
        expanded_index(10, (10,))
    with pytest.raises(IndexError, match=r"has 2 entries for an array of 1 axes"):
        expanded_index((0, 0), (10,))
    with pytest.raises(IndexError, match=r"one Ellipsis"):
        expanded_index((..., ...), (10, 10))


@given(st.lists(st.integers(0, 20), max_size=12))
def test_runs_are_the_numbers(numbers):
    """Runs put one behind the other are the numbers."""
    runs = list(runs_of(numbers))
    assert [number for _, run in runs for number in run] == numbers
    assert [place for place, _ in runs] == [sum(len(run) for _, run in runs[:n]) for n in range(len(runs))]
