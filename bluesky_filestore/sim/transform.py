"""The transform plugin: turns and mirrors frames."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .frame import Frame
from .plugin import Plugin

__all__ = ["TransformPlugin"]

_TRANSFORMS: tuple[Callable[[NDArray[Any]], NDArray[Any]], ...] = (
    lambda picture: picture,
    lambda picture: np.rot90(picture, -1),
    lambda picture: np.rot90(picture, 2),
    lambda picture: np.rot90(picture, 1),
    np.fliplr,
    lambda picture: np.fliplr(np.rot90(picture, -1)),
    lambda picture: np.fliplr(np.rot90(picture, 2)),
    lambda picture: np.fliplr(np.rot90(picture, 1)),
)
"""What each ``Type`` does to (y, x, ...): turned clockwise, then mirrored left to right."""


class TransformPlugin(Plugin):
    """NDPluginTransform."""

    def work(self, frame: Frame) -> Frame:
        """The frame, turned and mirrored; a colour stays on its axis."""
        x, y = frame.axes
        picture = _TRANSFORMS[self.parameters.integer("Type")](np.moveaxis(frame.array, (y, x), (0, 1)))
        return frame.with_array(np.moveaxis(picture, (0, 1), (y, x)))
