"""JPEG files as NDFileJPEG writes them: one frame a file, 8 bits a colour."""

from io import BytesIO
from pathlib import Path

from PIL import Image

from .disk import Disk
from .frame import COLOR_MODES, Frame, FrameMismatchError

__all__ = ["JpegFile"]


class JpegFile:
    """One JPEG file; it takes one frame.

    Parameters
    ----------
    path : Path
        The file; an existing one is overwritten.
    quality : int
        1 to 100.
    disk : Disk, optional
        Where it lies.
    """

    def __init__(self, path: Path, quality: int, disk: Disk | None = None) -> None:
        self._disk = disk or Disk()
        self._path = path
        self._quality = quality

    def write(self, frame: Frame) -> None:
        """Write the file.

        Raises
        ------
        FrameMismatchError
            If the frame is not UInt8, monochrome or RGB1: JPEG holds nothing else.
        OSError
            If it can't be made, or there is no room for all of it: a cut-off file is left then.
        """
        mode = COLOR_MODES[frame.color_mode]
        if frame.array.dtype != "uint8" or mode not in ("Mono", "RGB1"):
            raise FrameMismatchError(f"JPEG holds UInt8, Mono or RGB1; the frame is {frame.array.dtype} {mode}")
        content = BytesIO()
        Image.fromarray(frame.array).save(content, "JPEG", quality=self._quality)
        self._disk.write(self._path, content.getvalue())

    def close(self) -> None:
        """Nothing is left to do: the file is finished once it is written."""
