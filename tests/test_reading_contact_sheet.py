"""The picture of many frames."""

import numpy as np
import pytest

from bluesky_filestore.reading.contact_sheet import Section, contact_sheet, draw_sections, stretched


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "float64"])
def test_stretch_uses_all_greys(dtype):
    """The lowest values are black, the highest white, whatever the dtype."""
    ramp = np.arange(100).reshape(10, 10).astype(dtype)
    bytes_ = stretched(ramp)
    assert (bytes_.dtype, bytes_.min(), bytes_.max()) == (np.uint8, 0, 255)


def test_hot_pixel_does_not_blacken_the_rest():
    """One pixel in ten thousand is let go."""
    frame = np.tile(np.arange(100.0), (100, 1))
    frame[0, 0] = 1e9
    assert stretched(frame)[50, 99] > 250


def test_flat_empty_and_nan_frames():
    """Frames without contrast are drawn, not divided by zero."""
    assert (stretched(np.zeros((2, 2))) == 128).all()
    assert (stretched(np.full((2, 2), np.nan)) == 0).all()
    assert stretched(np.array([[np.nan, 1.0], [2.0, np.inf]]))[0, 0] == 0


def test_sheet_places_every_frame(tmp_path):
    """Nine frames, eight a row, make two rows; colour and mono stand together."""
    frames = [(str(n), np.random.default_rng(n).integers(0, 255, (48, 64))) for n in range(8)]
    sheet = contact_sheet([*frames, ("rgb", np.zeros((10, 20, 3)))])
    assert sheet.width == 8 * (144 + 8) + 8
    assert sheet.height == 2 * (108 + 14 + 8) + 8
    sheet.save(tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("frames", "words"), [([], "no frames"), ([("a", np.zeros((2, 2, 2)))], r"'a' has shape \(2, 2, 2\); expected")]
)
def test_sheet_refuses(frames, words):
    """What is no picture is named."""
    with pytest.raises(ValueError, match=words):
        contact_sheet(frames)


def test_sections_have_one_contrast_and_say_what_is_missing():
    """Frames of a section can be compared; a missing one is no dark one, and what others wrote is only text."""
    weak, strong = np.full((4, 6), 10.0), np.full((4, 6), 10.0)
    weak[0, 0], strong[:] = 0, 1000
    frames = [("a\nmotor 1", weak), ("b", strong), ("c\n\x1b[2J" + "long " * 50, None)]
    sheet = draw_sections("title \x1b[2J", [Section("one", "about", frames), Section("two", "", frames[1:2])], beside=2)
    shown = np.asarray(sheet)
    tops = [shown[80 + 8 + 10 : 80 + 8 + 86, 8 + n * 152 + 10 : 8 + n * 152 + 134] for n in range(3)]
    assert tops[0].mean() < 60 < 150 < tops[1].mean()
    assert (np.abs(tops[2].astype(int) - (240, 96, 80)).sum(axis=-1) < 30).any()
    assert sheet.width > 2 * (3 * 152)


def test_colours_are_brighter_where_more_is():
    """Printed in grey, the colours are in the same order."""
    ramp = np.arange(256.0).reshape(1, 256)
    shown = draw_sections("", [Section("", "", [("", np.tile(ramp, (256, 1)))])]).convert("L")
    row = np.asarray(shown)[80 + 8 + 70, 8 : 8 + 144].astype(int)
    assert (np.diff(row) >= -1).all()
    assert row[-1] - row[0] > 200
