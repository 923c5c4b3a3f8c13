"""A picture of many frames: side by side, in colours, each with what is known of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from bluesky_filestore.errors import OptionError
from bluesky_filestore.visible import visible_line

from .colours import palette

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

__all__ = ["Section", "check_picture", "contact_sheet", "draw_sections", "save_picture", "stretched"]

_TILE, _GAP, _LABEL, _MARGIN, _TITLE, _HEADING = 144, 8, 14, 20, 40, 40
_BACKGROUND, _INK, _FAINT, _BRIGHT, _ALARM = (
    (20, 20, 24),
    (220, 220, 220),
    (140, 142, 150),
    (250, 250, 250),
    (240, 96, 80),
)
_STRONGER = np.rint(np.sqrt(np.arange(256) / 255) * 255).astype(np.uint8)
"""Square roots of bytes: what is weak is seen beside what is strong."""

_Frames: TypeAlias = "Iterable[tuple[str, NDArray[Any] | None]]"


@dataclass(frozen=True, slots=True)
class Section:
    """Frames that are shown with the same contrast, under a heading."""

    title: str
    """What they are."""
    about: str
    """What else there is to say, in one line."""
    frames: Sequence[tuple[str, NDArray[Any] | None]]
    """What is written under each, in up to two lines, and the frame; None for one that is missing."""


def stretched(
    frame: NDArray[Any], percentile: float = 1.0, limits: tuple[float, float] | None = None
) -> NDArray[np.uint8]:
    """The frame as bytes, from black at the lowest values to white at the highest.

    Parameters
    ----------
    frame : ndarray
        Of shape (y, x) or (y, x, 3), any real dtype; NaN and infinities are drawn black.
    percentile : float
        So many per cent of the pixels at either end are let go, so that a hot pixel does not blacken the rest.
    limits : tuple of float, optional
        Which values are black and white, instead.

    Returns
    -------
    ndarray of uint8
        Of the same shape. A flat frame is middle grey.
    """
    values = np.asarray(frame, dtype=float)
    found = _limits(values, percentile) if limits is None else limits
    if found is None:
        return np.zeros(values.shape, dtype=np.uint8)
    low, high = found
    if high <= low:
        return np.full(values.shape, 128, dtype=np.uint8)
    scaled = np.clip((np.nan_to_num(values, nan=low, posinf=low, neginf=low) - low) / (high - low), 0, 1)
    return np.asarray(np.rint(scaled * 255), dtype=np.uint8)


def _limits(values: NDArray[Any], percentile: float) -> tuple[float, float] | None:
    """Between which values a frame has its contrast; None if it has no values."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return None
    low, high = np.percentile(finite, [percentile, 100 - percentile])
    return (float(low), float(high)) if high > low else (float(finite.min()), float(finite.max()))


def check_picture(path: Path) -> None:
    """Try whether a picture can be written, before the work that leads to it.

    Raises
    ------
    OptionError
        If it cannot, with the reason.
    """
    Image.init()
    known = {ending for ending, name in Image.EXTENSION.items() if name in Image.SAVE}
    if path.suffix.lower() not in known:
        raise OptionError(f"{str(path)!r} does not end as a picture; expected a name such as sheet.png.")
    try:
        is_there = path.exists()
        with path.open("ab"):
            pass
        if not is_there:
            path.unlink()
    except OSError as error:
        raise OptionError(
            f"the picture cannot be written to {str(path)!r} ({error.strerror}); expected a file in a directory that "
            f"is there and that this user may write to."
        ) from error


def save_picture(picture: "PILImage", path: Path) -> None:
    """Write a picture as a whole, whoever else writes one of the same name."""
    with TemporaryDirectory(dir=path.parent, prefix=".") as directory:
        picture.save(Path(directory) / path.name)
        (Path(directory) / path.name).replace(path)


def contact_sheet(frames: _Frames, columns: int = 8) -> "PILImage":
    """Draw labelled frames in rows, each with its own contrast, in grey.

    Parameters
    ----------
    frames : iterable of (str, ndarray)
        The label under each tile and a frame of shape (y, x) or (y, x, 3); None for one that is missing.
    columns : int
        Tiles in a row.

    Returns
    -------
    PIL.Image.Image
        RGB; save it with ``.save("sheet.png")``.

    Raises
    ------
    ValueError
        If there is no frame, or one of another shape.
    """
    return _grid(list(frames), columns, None)


def draw_sections(title: str, sections: Sequence[Section], columns: int = 8, beside: int = 1) -> "PILImage":
    """Draw frames in colours, section by section, each with one contrast for all of its frames.

    Parameters
    ----------
    title : str
        Stands above all.
    sections : sequence of Section
        What is shown.
    columns : int
        Tiles in a row.
    beside : int
        Sections side by side.

    Raises
    ------
    ValueError
        As `contact_sheet` does.
    """
    drawn = [_section(each, columns) for each in sections]
    if not drawn:
        raise ValueError("no frames to draw; a contact sheet needs at least one.")
    rows = [drawn[first : first + beside] for first in range(0, len(drawn), beside)]
    step = max(each.width for each in drawn) + _MARGIN
    heights = [max(each.height for each in row) for row in rows]
    width = max(step * min(beside, len(drawn)) - _MARGIN, _width(title, 22) + 2 * _GAP)
    sheet = Image.new("RGB", (width, _TITLE + sum(heights) + _MARGIN // 2 * (len(rows) - 1)), _BACKGROUND)
    ImageDraw.Draw(sheet).text((_GAP, 10), visible_line(title), fill=_BRIGHT, font=_font(22))
    top = _TITLE
    for row, height in zip(rows, heights, strict=True):
        for place, each in enumerate(row):
            sheet.paste(each, (place * step, top))
        top += height + _MARGIN // 2
    return sheet


def _section(section: Section, columns: int) -> "PILImage":
    found = [_limits(np.asarray(frame, float), 1.0) for _, frame in section.frames if frame is not None]
    known = [each for each in found if each is not None]
    limits = (min(low for low, _ in known), max(high for _, high in known)) if known else (0.0, 1.0)
    grid = _grid(section.frames, columns, limits)
    title, about = visible_line(section.title), visible_line(section.about)
    width = max(grid.width, _width(title, 15) + 150, _width(about, 11) + 2 * _GAP)
    drawn = Image.new("RGB", (width, grid.height + _HEADING), _BACKGROUND)
    draw = ImageDraw.Draw(drawn)
    draw.text((_GAP, 4), title, fill=_INK, font=_font(15))
    draw.text((_GAP, 24), about, fill=_FAINT, font=_font(11))
    scale = Image.fromarray(_coloured(np.tile(np.arange(256, dtype=np.uint8), (8, 1)))).resize((72, 8))
    low, high = f"{limits[0]:.4g}", f"{limits[1]:.4g}"
    right = grid.width - _GAP - _width(high, 11) - 4
    drawn.paste(scale, (right - 72, 9))
    draw.text((right + 4, 6), high, fill=_FAINT, font=_font(11))
    draw.text((right - 76 - _width(low, 11), 6), low, fill=_FAINT, font=_font(11))
    drawn.paste(grid, (0, _HEADING))
    return drawn


def _grid(
    frames: Sequence[tuple[str, NDArray[Any] | None]], columns: int, limits: tuple[float, float] | None
) -> "PILImage":
    """The tiles, in colours if there are limits of contrast."""
    if not frames:
        raise ValueError("no frames to draw; a contact sheet needs at least one.")
    shape = next((frame.shape[:2] for _, frame in frames if frame is not None), (3, 4))
    tiles = [
        (label, _missing(shape) if frame is None else _tile(label, frame, limits), frame is None)
        for label, frame in frames
    ]
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    height = max(tile.height for _, tile, _ in tiles)
    lines = max(len(label.split("\n")) for label, _, _ in tiles)
    step_x, step_y = _TILE + _GAP, height + lines * _LABEL + _GAP
    sheet = Image.new("RGB", (columns * step_x + _GAP, rows * step_y + _GAP), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for position, (label, tile, is_missing) in enumerate(tiles):
        row, column = divmod(position, columns)
        left, top = _GAP + column * step_x, _GAP + row * step_y
        sheet.paste(tile, (left + (_TILE - tile.width) // 2, top + (height - tile.height) // 2))
        inks = (_ALARM, _ALARM) if is_missing else (_INK, _FAINT)
        for line, (text, ink) in enumerate(zip(label.split("\n"), inks, strict=False)):
            draw.text((left + 2, top + height + 1 + line * _LABEL), _shortened(text), fill=ink, font=_font(11))
    return sheet


def _tile(label: str, frame: NDArray[Any], limits: tuple[float, float] | None) -> "PILImage":
    if frame.ndim not in (2, 3) or (frame.ndim == 3 and frame.shape[2] != 3):
        raise ValueError(f"frame {label!r} has shape {frame.shape}; expected (y, x) or (y, x, 3).")
    values = stretched(frame, limits=limits)
    image = Image.fromarray(values if limits is None or frame.ndim == 3 else _coloured(values)).convert("RGB")
    size = _tile_size(frame.shape[:2])
    # Nearest shows the pixels of small frames as they are; large ones are averaged.
    return image.resize(size, Image.Resampling.NEAREST if size[0] > image.width else Image.Resampling.BOX)


def _tile_size(shape: Sequence[int]) -> tuple[int, int]:
    scale = _TILE / max(*shape, 1)
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))


def _missing(shape: Sequence[int]) -> "PILImage":
    """What is shown in place of a frame of this shape."""
    size = _tile_size(shape)
    tile = Image.new("RGB", size, (34, 34, 40))
    draw = ImageDraw.Draw(tile)
    right, bottom = size[0] - 1, size[1] - 1
    for start in range(-bottom, right, 12):
        draw.line((start, bottom, start + bottom, 0), fill=(52, 44, 48), width=3)
    draw.rectangle((0, 0, right, bottom), outline=_ALARM)
    middle = (size[0] / 2, size[1] / 2)
    left, top, to_right, to_bottom = draw.textbbox(middle, "missing", font=_font(15), anchor="mm")
    draw.rectangle((left - 6, top - 4, to_right + 6, to_bottom + 4), fill=(34, 34, 40))
    draw.text(middle, "missing", fill=_ALARM, font=_font(15), anchor="mm")
    return tile


def _coloured(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bytes as colours."""
    return np.asarray(palette("fire")[_STRONGER[values]])


def _font(size: int) -> Any:
    try:
        return ImageFont.load_default(size)
    except ImportError:
        # Without FreeType there is one size.
        return ImageFont.load_default()


def _width(text: str, size: int) -> int:
    return int(_font(size).getlength(text)) + 1


def _shortened(text: str) -> str:
    """What of a text fits under a tile."""
    text = visible_line(text)
    if _width(text, 11) <= _TILE:
        return text
    return next((f"{text[:end]}..." for end in range(len(text), 0, -1) if _width(f"{text[:end]}...", 11) <= _TILE), "")
