"""TIFF files as NDFileTIFF writes them: one uncompressed page, with the frame's data in private tags."""

from io import BytesIO
from pathlib import Path

import numpy as np
import tifffile

from .disk import Disk
from .frame import COLOR_MODES, Frame

__all__ = ["TiffFile"]

_TIME_STAMP, _UNIQUE_ID, _SECONDS, _NANOSECONDS, _FIRST_ATTRIBUTE = 65000, 65001, 65002, 65003, 65010
"""NDFileTIFF's private tags."""


class TiffFile:
    """One TIFF file; it takes one frame.

    Parameters
    ----------
    path : Path
        The file; an existing one is overwritten.
    disk : Disk, optional
        Where it lies.
    """

    def __init__(self, path: Path, disk: Disk | None = None) -> None:
        self._path = path
        self._disk = disk or Disk()

    def write(self, frame: Frame) -> None:
        """Write the file.

        Raises
        ------
        OSError
            If it can't be made, or there is no room for all of it: a cut-off file is left then.
        """
        mode = COLOR_MODES[frame.color_mode]
        # TIFF has no lines of alternating colours: the colours of an RGB2 frame are put plane after plane.
        array = np.moveaxis(frame.array, 1, 0) if mode == "RGB2" else frame.array
        content = BytesIO()
        tifffile.imwrite(
            content,
            array,
            photometric="minisblack" if mode == "Mono" else "rgb",
            planarconfig={"RGB1": "contig", "RGB2": "separate", "RGB3": "separate"}.get(mode),
            metadata=None,
            software="EPICS areaDetector",
            extratags=[
                (_TIME_STAMP, "d", 1, frame.epics_time, True),
                (_UNIQUE_ID, "I", 1, frame.number, True),
                (_SECONDS, "I", 1, frame.epics_seconds, True),
                (_NANOSECONDS, "I", 1, frame.epics_nanoseconds, True),
                (_FIRST_ATTRIBUTE, "s", 0, f"ColorMode:{frame.color_mode}", True),
            ],
        )
        self._disk.write(self._path, content.getvalue())

    def close(self) -> None:
        """Nothing is left to do: the file is finished once it is written."""
