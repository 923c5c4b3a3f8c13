"""A frame as a picture that a browser shows."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bluesky_filestore.errors import DocumentError
from bluesky_filestore.reading.colours import MAPS, palette

__all__ = ["Look", "Picture", "draw", "pixels"]

_LARGEST, _SMALLEST = 2048, 32
_SAMPLED = 65_536
_COLOURS = 3


@dataclass(frozen=True, slots=True)
class Look:
    """How somebody wants to see frames."""

    low: float = 1.0
    """So many per cent of the pixels are darkest."""
    high: float = 99.7
    """So many per cent of the pixels are not brightest."""
    is_logarithmic: bool = False
    """Whether the scale is."""
    colours: str = "fire"
    """The colour map."""
    size: int = 1024
    """The longer side of the picture, in pixels, at most."""

    @classmethod
    def asked(cls, query: Mapping[str, str]) -> Self:
        """As a query has it; what makes no sense in it is as usual."""
        usual = cls()
        low = _number(query.get("low"), 0.0, 100.0, usual.low)
        high = _number(query.get("high"), 0.0, 100.0, usual.high)
        size = int(_number(query.get("size"), _SMALLEST, _LARGEST, usual.size))
        colours = query.get("map") if query.get("map") in MAPS else usual.colours
        return cls(min(low, high), max(low, high), query.get("log") == "1", str(colours), size)


@dataclass(frozen=True, slots=True)
class Picture:
    """A frame, drawn."""

    png: bytes
    """The picture."""
    facts: Mapping[str, Any]
    """What there is to say of the frame: shape, dtype, and its values; numbers that are none are None."""


def draw(frame: NDArray[Any], look: Look) -> Picture:
    """Draw a frame.

    Parameters
    ----------
    frame : ndarray
        Of shape (..., y, x), or (..., y, x, 3) for colours; of several frames the last is drawn.
    look : Look
        How.

    Raises
    ------
    DocumentError
        If it is no image.
    """
    image = _last_image(np.asarray(frame))
    finite = _sample(image)
    low, high = _ends(finite, look)
    facts = {
        "shape": list(np.shape(frame)),
        "dtype": str(image.dtype),
        "least": _shown(np.nanmin(image)) if finite.size else None,
        "most": _shown(np.nanmax(image)) if finite.size else None,
        "mean": _shown(np.mean(finite)) if finite.size else None,
        "low": _shown(low),
        "high": _shown(high),
    }
    scaled = _scaled(_shrunk(image, max(image.shape[:2]) // look.size), low, high, is_logarithmic=look.is_logarithmic)
    picture = Image.fromarray(scaled)
    if scaled.ndim == 2:
        picture.putpalette(palette(look.colours).ravel().tolist())
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return Picture(file.getvalue(), facts)


def pixels(frame: NDArray[Any], look: Look) -> NDArray[np.uint8]:
    """The same as colours, of shape (y, x, 3), neither side longer than `Look.size`; raises as `draw` does."""
    image = _last_image(np.asarray(frame))
    small = _shrunk(image, -(-max(image.shape[:2]) // look.size))
    scaled = _scaled(small, *_ends(_sample(image), look), is_logarithmic=look.is_logarithmic)
    return scaled if scaled.ndim == 3 else palette(look.colours)[scaled]


def _ends(sample: NDArray[Any], look: Look) -> tuple[float, float]:
    """The values that are drawn darkest and brightest."""
    if not sample.size:
        return 0.0, 1.0
    low, high = np.percentile(sample, [look.low, look.high])
    return float(low), float(high)


def _last_image(frame: NDArray[Any]) -> NDArray[Any]:
    axes = 3 if frame.ndim >= 3 and frame.shape[-1] == _COLOURS and min(frame.shape[-3:-1]) > _COLOURS else 2
    if frame.ndim < axes or frame.dtype.kind not in "biuf" or 0 in frame.shape:
        raise DocumentError(
            f"a frame of shape {list(frame.shape)} and dtype {frame.dtype} is no image; expected (..., y, x) numbers."
        )
    image: NDArray[Any] = frame[(-1,) * (frame.ndim - axes)]
    return image.astype(np.uint8) if image.dtype.kind == "b" else image


def _sample(image: NDArray[Any]) -> NDArray[Any]:
    """Some of the pixels, evenly taken, that are numbers."""
    sample = image.ravel()[:: max(1, image.size // _SAMPLED)]
    return sample[np.isfinite(sample)] if sample.dtype.kind == "f" else sample


def _shrunk(image: NDArray[Any], factor: int) -> NDArray[Any]:
    """The image with blocks of pixels as their mean."""
    if factor < 2:
        return image
    height, width = (max(1, length // factor) for length in image.shape[:2])
    across, down = min(factor, image.shape[1]), min(factor, image.shape[0])
    whole = image[: height * down, : width * across]
    blocks = whole.reshape(height, down, width, across, *whole.shape[2:])
    return np.asarray(blocks.mean(axis=(1, 3), dtype=np.float32))


def _scaled(image: NDArray[Any], low: float, high: float, *, is_logarithmic: bool) -> NDArray[np.uint8]:
    if image.dtype in (np.uint8, np.uint16):
        # Each value once, and not each pixel.
        every = np.arange(np.iinfo(image.dtype).max + 1)
        table: NDArray[np.uint8] = _scaled(every, low, high, is_logarithmic=is_logarithmic)[image]
        return table
    values = np.nan_to_num(image.astype(np.float32), nan=low, posinf=high, neginf=low) - np.float32(low)
    span = max(high - low, 1e-30)
    np.clip(values, 0, span, out=values)
    if is_logarithmic:
        # What counts photons has steps of one; of fractions a thousandth of the span is the least that is told apart.
        values /= np.float32(min(1.0, span / 1000))
        np.log1p(values, out=values)
        span = float(np.log1p(span / min(1.0, span / 1000)))
    values *= np.float32(255 / span)
    return values.astype(np.uint8)


def _number(text: str | None, least: float, most: float, usual: float) -> float:
    try:
        return min(max(float(text or ""), least), most) if text not in (None, "nan") else usual
    except ValueError:
        return usual


def _shown(value: Any) -> float | None:
    return float(f"{float(value):.6g}") if np.isfinite(value) else None
