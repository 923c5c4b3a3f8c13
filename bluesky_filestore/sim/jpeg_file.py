"""JPEG files as NDFileJPEG writes them: one frame a file, 8 bits a colour."""

from pathlib import Path

from PIL import Image

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
    """

    def __init__(self, path: Path, quality: int) -> None:
        self._path = path
        self._quality = quality

    def write(self, frame: Frame) -> None:
        """Write the file.

        Raises
        ------
        FrameMismatchError
            If the frame is not UInt8, monochrome or RGB1: JPEG holds nothing else.
        OSError
            If it can't be made.
        """
        mode = COLOR_MODES[frame.color_mode]
        if frame.array.dtype != "uint8" or mode not in ("Mono", "RGB1"):
            raise FrameMismatchError(f"JPEG holds UInt8, Mono or RGB1; the frame is {frame.array.dtype} {mode}")
        Image.fromarray(frame.array).save(self._path, "JPEG", quality=self._quality)

    def close(self) -> None:
        """Nothing is left to do: the file is finished once it is written."""
