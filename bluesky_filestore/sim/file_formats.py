"""The file plugins of the three formats: how each makes its files."""

from pathlib import Path

from .file_name import on_disk
from .file_plugin import FilePlugin, OpenFile
from .frame import Frame
from .hdf5_file import Hdf5File, Hdf5Options
from .jpeg_file import JpegFile
from .tiff_file import TiffFile

__all__ = ["Hdf5Plugin", "JpegPlugin", "TiffPlugin"]


class Hdf5Plugin(FilePlugin):
    """NDFileHDF5."""

    def open_file(self, name: str, like: Frame, *, stream: bool) -> OpenFile:
        """Make an HDF5 file, and show the chunks and the SWMR state it got."""
        p = self.parameters
        options = self._options()
        file = Hdf5File(on_disk(name), like, options, stream=stream)
        if stream:
            p.set("NumFramesChunks", options.frames_per_chunk)
            p.set("NumRowChunks", like.array.shape[0])
            p.set("NumColChunks", like.array.shape[1])
            p.set("SWMRActive", int(options.swmr))
        return file

    def _options(self) -> Hdf5Options:
        p = self.parameters
        compression = self.records.record(f"{self.prefix}Compression").enum[p.integer("Compression")]
        return Hdf5Options(
            frames_per_chunk=max(p.integer("NumFramesChunks"), 1),
            swmr=bool(p.integer("SWMRMode")),
            compression=compression,
            zlevel=p.integer("ZLevel"),
            flush_every=p.integer("NumFramesFlush"),
        )

    def _close(self) -> None:
        super()._close()
        self.parameters.set("SWMRActive", 0)


class TiffPlugin(FilePlugin):
    """NDFileTIFF."""

    holds_many = False

    def open_file(self, name: str, like: Frame, *, stream: bool) -> OpenFile:
        """A TIFF file, made once its frame is there."""
        return TiffFile(_in_directory(name))


class JpegPlugin(FilePlugin):
    """NDFileJPEG."""

    holds_many = False

    def open_file(self, name: str, like: Frame, *, stream: bool) -> OpenFile:
        """A JPEG file, made once its frame is there."""
        return JpegFile(_in_directory(name), self.parameters.integer("JPEGQuality"))


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
