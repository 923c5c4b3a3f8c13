"""The camera's picture tells which frame it is, whole or in part, in every type and size."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluesky_filestore.sim import pattern
from bluesky_filestore.sim.frame import DATA_TYPES

sizes = st.integers(1, 12)
shapes = st.one_of(st.tuples(sizes, sizes), st.tuples(sizes, sizes, st.just(3)), st.tuples(st.just(3), sizes, sizes))
dtypes = st.sampled_from(DATA_TYPES)
numbers = st.integers(0, 2**33)


@given(numbers, shapes, dtypes)
def test_number_comes_back(number: int, shape: tuple[int, ...], dtype: str) -> None:
    """A frame carries its number in as many bytes as it has pixels, four at the most."""
    frame = pattern.frame(number, shape, dtype)
    assert (frame.shape, frame.dtype) == (shape, np.dtype(dtype))
    assert pattern.number(frame) == number % 256 ** min(frame.size, pattern.STAMP_LENGTH)


@given(numbers, st.integers(1, 255), shapes, dtypes)
def test_every_pixel_tells_frames_apart(number: int, distance: int, shape: tuple[int, ...], dtype: str) -> None:
    """Any two of 256 frames in a row differ in each pixel that does not carry the number."""
    first, second = (pattern.frame(n, shape, dtype).reshape(-1) for n in (number, number + distance))
    assert np.all(first[pattern.STAMP_LENGTH :] != second[pattern.STAMP_LENGTH :])


@given(numbers, st.integers(4, 30), st.integers(4, 30), dtypes)
def test_neighbours_differ(number: int, height: int, width: int, dtype: str) -> None:
    """Pixels side by side, or one above the other, differ: a frame that is shifted or turned is seen."""
    frame = pattern.frame(number, (height, width), dtype)
    assert np.all(frame[2:] != frame[1:-1])
    assert np.all(frame[1:, 1:] != frame[1:, :-1])


@given(numbers, shapes, dtypes)
def test_frames_are_independent(number: int, shape: tuple[int, ...], dtype: str) -> None:
    """Changing a frame does not change the next one that is made."""
    pattern.frame(number, shape, dtype)[...] = 0
    assert pattern.number(pattern.frame(number, shape, dtype)) == number % 256 ** min(int(np.prod(shape)), 4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((-1, (4, 4), "uint8"), "0 or more, got -1"),
        ((1, (4,), "uint8"), r"\(y, x\) or \(y, x, 3\), got the shape \(4,\)"),
        ((1, (4, 4), "U3"), "integers or floating-point numbers, got <U3"),
    ],
)
def test_bad_frame(arguments: tuple[int, tuple[int, ...], str], words: str) -> None:
    """What can't be a frame is refused with the reason."""
    with pytest.raises(ValueError, match=words):
        pattern.frame(*arguments)


def test_not_a_pattern() -> None:
    """An averaged frame has no number, and says so."""
    frames = [pattern.frame(n, (4, 4), "uint8") for n in (1, 2)]
    with pytest.raises(ValueError, match="not the bytes of a frame number"):
        pattern.number(np.mean(frames, axis=0))
