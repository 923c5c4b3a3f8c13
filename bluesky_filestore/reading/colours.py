"""The colours that frames are drawn in."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAPS", "palette"]

MAPS = {
    "grey": ((0, 0, 0), (255, 255, 255)),
    "paper": ((255, 255, 255), (0, 0, 0)),
    "fire": (
        *((0, 0, 4), (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85)),
        *((227, 89, 51), (249, 140, 10), (249, 201, 50), (252, 255, 164)),
    ),
    "sea": ((13, 8, 35), (36, 50, 110), (28, 100, 140), (33, 145, 140), (94, 201, 98), (253, 231, 37)),
}
"""Colours at equal distances, by the name of the map; of "fire" and "sea" each is brighter than the one before."""


@cache
def palette(name: str) -> NDArray[np.uint8]:
    """A colour for each byte, of shape (256, 3)."""
    points = np.array(MAPS[name], dtype=float)
    at = np.linspace(0, len(points) - 1, 256)
    parts = [np.interp(at, np.arange(len(points)), part) for part in points.T]
    colours = np.stack(parts, axis=1).round().astype(np.uint8)
    colours.flags.writeable = False
    return colours
