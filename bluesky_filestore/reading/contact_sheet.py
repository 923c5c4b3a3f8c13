"""A picture of many frames: contrast stretched, numbered, side by side."""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from bluesky_filestore.errors import OptionError

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

__all__ = ["check_picture", "contact_sheet", "save_picture", "stretched"]

_TILE = 144
_GAP = 8
_LABEL = 14
_BACKGROUND = (24, 24, 28)
_INK = (220, 220, 220)


def stretched(frame: NDArray[Any], percentile: float = 1.0) -> NDArray[np.uint8]:
    """The frame as bytes, from black at the lowest values to white at the highest.

    Parameters
    ----------
    frame : ndarray
        Of shape (y, x) or (y, x, 3), any real dtype; NaN and infinities are drawn black.
    percentile : float
        So many per cent of the pixels at either end are let go, so that a hot pixel does not blacken the rest.

    Returns
    -------
    ndarray of uint8
        Of the same shape. A flat frame is middle grey.
    """
    values = np.asarray(frame, dtype=float)
    finite = values[np.isfinite(values)]
    if not finite.size:
        return np.zeros(values.shape, dtype=np.uint8)
    low, high = np.percentile(finite, [percentile, 100 - percentile])
    if high <= low:
        low, high = finite.min(), finite.max()
    if high <= low:
        return np.full(values.shape, 128, dtype=np.uint8)
    scaled = np.clip((np.nan_to_num(values, nan=low, posinf=low, neginf=low) - low) / (high - low), 0, 1)
    return np.asarray(np.rint(scaled * 255), dtype=np.uint8)


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


def contact_sheet(frames: Iterable[tuple[str, NDArray[Any]]], columns: int = 8) -> "PILImage":
    """Draw labelled frames in rows.

    Parameters
    ----------
    frames : iterable of (str, ndarray)
        The label under each tile and a frame of shape (y, x) or (y, x, 3).
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
    tiles = [(label, _tile(label, frame)) for label, frame in frames]
    if not tiles:
        raise ValueError("no frames to draw; a contact sheet needs at least one.")
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    height = max(tile.height for _, tile in tiles)
    step_x, step_y = _TILE + _GAP, height + _LABEL + _GAP
    sheet = Image.new("RGB", (columns * step_x + _GAP, rows * step_y + _GAP), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for position, (label, tile) in enumerate(tiles):
        row, column = divmod(position, columns)
        left, top = _GAP + column * step_x, _GAP + row * step_y
        sheet.paste(tile, (left + (_TILE - tile.width) // 2, top + (height - tile.height) // 2))
        draw.text((left + 2, top + height + 1), label, fill=_INK)
    return sheet


def _tile(label: str, frame: NDArray[Any]) -> "PILImage":
    if frame.ndim not in (2, 3) or (frame.ndim == 3 and frame.shape[2] != 3):
        raise ValueError(f"frame {label!r} has shape {frame.shape}; expected (y, x) or (y, x, 3).")
    image = Image.fromarray(stretched(frame)).convert("RGB")
    scale = _TILE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    # Nearest shows the pixels of small frames as they are; large ones are averaged.
    return image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX)
