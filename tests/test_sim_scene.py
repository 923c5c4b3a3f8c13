"""What the simulated camera sees is known by number and position, and looks as counted photons do."""

import asyncio
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bluesky_filestore.sim import pattern, scene
from bluesky_filestore.sim.frame import DATA_TYPES
from bluesky_filestore.sim.simulator import Simulator

sizes = st.integers(4, 40)
shapes = st.one_of(st.tuples(sizes, sizes), st.tuples(sizes, sizes, st.just(3)), st.tuples(st.just(3), sizes, sizes))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**33), shapes, st.sampled_from(DATA_TYPES), st.floats(-5, 5))
def test_a_frame_is_known_by_its_number(number, shape, dtype, position):
    """It carries it, is the same each time, and is of the shape and type that were asked for."""
    frame = scene.frame(number, shape, dtype, position)
    assert (frame.shape, frame.dtype) == (shape, np.dtype(dtype))
    assert pattern.number(frame) == number % 2**32
    np.testing.assert_array_equal(frame, scene.frame(number, shape, dtype, position))
    assert frame.min() >= 0 or np.dtype(dtype) == np.int8
    if dtype not in ("int8", "uint8"):
        assert (
            scene.frame(number + 1, (40, 40), dtype, position)[1:].tolist()
            != scene.frame(number, (40, 40), dtype, position)[1:].tolist()
        )


def test_it_counts_photons():
    """Of many frames mean and variance are what is expected of counts, and nothing is counted between modules."""
    shape = (60, 80)
    frames = np.stack([scene.frame(n, shape, "uint16", 0.3) for n in range(1, 1500)]).astype(float)
    expected = scene.mean(shape, "uint16", 0.3)
    lit = expected > 50
    lit[0, : pattern.STAMP_LENGTH] = False
    assert np.abs(frames.mean(axis=0)[lit] / expected[lit] - 1).max() < 0.05
    assert 0.9 < np.median(frames.var(axis=0)[lit] / expected[lit]) < 1.1
    assert frames[:, shape[0] // 3, 5:].max() == 0


def test_it_changes_as_the_sample_is_moved():
    """Between neighbouring points of a scan spots come and go, and rings grow."""
    means = [scene.mean((120, 160), "uint16", position) for position in np.linspace(-1, 1, 5)]
    for before, after in itertools.pairwise(means):
        assert np.abs(after - before).max() > 0.3 * before.max()


@pytest.mark.parametrize(("mode", "make"), [("Peaks", scene.frame), ("LinearRamp", pattern.frame)])
def test_the_camera_shows_it_when_asked(mode, make):
    """SimMode chooses, with Offset for the place of the sample; without a word frames are those of before."""

    async def take():
        async with Simulator() as simulator:
            frames = []

            async def emit(port, frame):
                frames.append(frame)

            simulator.camera._emit = emit
            for name, value in {"SimMode": mode, "Offset": 0.25, "ImageMode": "Single", "AcquireTime": 0.001}.items():
                simulator.put(f"cam1:{name}", value)
            simulator.put("cam1:Acquire", 1)
            await simulator.until_done("cam1:Acquire")
            return frames

    (frame,) = asyncio.run(take())
    place = (0.25,) if mode == "Peaks" else ()
    np.testing.assert_array_equal(frame.array, make(frame.number, frame.array.shape, frame.array.dtype, *place))
