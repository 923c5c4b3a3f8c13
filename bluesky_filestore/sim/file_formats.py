"""The file plugins of the three formats, and the files that those of TIFF and JPEG make."""

from io import BytesIO
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from .disk import Disk
from .file_name import on_disk
from .file_plugin import FilePlugin, OpenFile
from .frame import COLOR_MODES, Frame, FrameMismatchError
from .hdf5_file import Hdf5File, Hdf5Options
from .hdf5_layout import Layout, read_layout
from .plugin import Wiring
from .records import Records

__all__ = ["Hdf5Plugin", "JpegFile", "JpegPlugin", "TiffFile", "TiffPlugin"]

_TIME_STAMP, _UNIQUE_ID, _SECONDS, _NANOSECONDS, _FIRST_ATTRIBUTE = 65000, 65001, 65002, 65003, 65010
"""NDFileTIFF's private tags."""


class Hdf5Plugin(FilePlugin):
    """NDFileHDF5."""

    codecs = frozenset({"blosc", "lz4", "bslz4"})

    def __init__(self, records: Records, prefix: str, wiring: Wiring) -> None:
        super().__init__(records, prefix, wiring)
        self._layout = Layout()
        self.writers["XMLFileName"] = self._write_layout
        self.refusals["NumFramesFlush"] = lambda value: int(value) < self.parameters.integer("NumFramesChunks")

    def _write_layout(self) -> None:
        """Read the layout that was put, as a file's name or as XML; without one the default layout holds."""
        p = self.parameters
        try:
            self._layout = read_layout(p.text("XMLFileName"))
        except (OSError, ValueError) as error:
            p.set("XMLValid", 0)
            p.set("XMLErrorMsg", f"Error: {error}")
        else:
            p.set("XMLValid", 1)
            p.set("XMLErrorMsg", "" if p.text("XMLFileName") else "Default layout selected")

    def _may_capture(self) -> bool:
        """Whether frames can be placed: with ``PositionMode`` they can't, as they carry no position."""
        if self.parameters.integer("PositionMode"):
            self._show_error("Error opening file, status=3 (PositionMode is on, and no frame has a position)")
            return False
        return True

    def open_file(self, name: str, like: Frame, *, stream: bool) -> OpenFile:
        """Make an HDF5 file, and show the chunks and the SWMR state it got."""
        p = self.parameters
        options = self._options(like.codec)
        file = Hdf5File(on_disk(name), like, options, stream=stream, disk=self._wiring.disk)
        if stream:
            p.set("NumFramesChunks", options.frames_per_chunk)
            p.set("NumRowChunks", like.array.shape[0])
            p.set("NumColChunks", like.array.shape[1])
            p.set("SWMRActive", int(options.swmr))
        return file

    def _options(self, codec: str) -> Hdf5Options:
        p = self.parameters
        chosen = self.records.record(f"{self.prefix}Compression").enum[p.integer("Compression")]
        # Frames that come compressed are stored as they come.
        compression = {"blosc": "Blosc", "lz4": "LZ4", "bslz4": "BSLZ4"}.get(codec, chosen)
        return Hdf5Options(
            frames_per_chunk=max(p.integer("NumFramesChunks"), 1),
            swmr=bool(p.integer("SWMRMode")),
            compression=compression,
            zlevel=p.integer("ZLevel"),
            flush_every=p.integer("NumFramesFlush"),
            layout=self._layout,
        )

    def _close(self) -> bool:
        closed = super()._close()
        self.parameters.set("SWMRActive", 0)
        return closed


class TiffFile:
    """One TIFF file as NDFileTIFF writes it: one uncompressed page, with the frame's data in private tags.

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


class TiffPlugin(FilePlugin):
    """NDFileTIFF."""

    holds_many = False

    def open_file(self, name: str, like: Frame, *, stream: bool) -> OpenFile:
        """A TIFF file, made once its frame is there."""
        return TiffFile(_in_directory(name), self._wiring.disk)


class JpegFile:
    """One JPEG file as NDFileJPEG writes it: one frame, 8 bits a colour.

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


class JpegPlugin(FilePlugin):
    """NDFileJPEG."""

    holds_many = False

    def open_file(self, name: str, like: Frame, *, stream: bool) -> OpenFile:
        """A JPEG file, made once its frame is there."""
        return JpegFile(_in_directory(name), self.parameters.integer("JPEGQuality"), self._wiring.disk)


def _in_directory(name: str) -> Path:
    """The path of a file to be made.

    Raises
    ------
    FileNotFoundError
        If its directory is not there.
    """
    path = on_disk(name)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is not a directory")
    return path
