"""The file plugins of the three formats: how each makes its files."""

from pathlib import Path

from .file_name import on_disk
from .file_plugin import FilePlugin, OpenFile
from .frame import Frame
from .hdf5_file import Hdf5File, Hdf5Options
from .hdf5_layout import Layout, read_layout
from .jpeg_file import JpegFile
from .plugin import Wiring
from .records import Records
from .tiff_file import TiffFile

__all__ = ["Hdf5Plugin", "JpegPlugin", "TiffPlugin"]


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


class TiffPlugin(FilePlugin):
    """NDFileTIFF."""

    holds_many = False

    def open_file(self, name: str, like: Frame, *, stream: bool) -> OpenFile:
        """A TIFF file, made once its frame is there."""
        return TiffFile(_in_directory(name), self._wiring.disk)


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
