"""File stores of the HDF5 plugin: one file for all frames, or one for each."""

from pathlib import Path
from typing import Any

from .frames_written import FrameCount
from .plugin import FileStorePluginBase
from .series import FileStoreSeries

__all__ = ["FileStoreHDF5", "FileStoreHDF5Single"]

_DEFAULT_LAYOUT = ("AD_HDF5", "AD_HDF5_SWMR", "AD_HDF5_TS", "AD_HDF5_SWMR_TS")
"""The specs whose readers look where the default layout puts the frames; who has his own knows his file."""


class FileStoreHDF5(FileStorePluginBase):
    """All frames between stage and unstage go into one HDF5 file (``FileWriteMode`` Stream).

    ``num_capture`` 0 captures whatever arrives; any other number ends the capture after that many frames.
    See `FileStorePluginBase` for the parameters.
    """

    filestore_spec = "AD_HDF5"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stage_sigs.update(
            [("file_template", "%s%s_%6.6d.h5"), ("file_write_mode", "Stream"), ("capture", 1)],
        )

    def get_frames_per_point(self) -> int:
        """Frames of one trigger: ``num_capture``, or the camera's ``num_images`` if that is 0."""
        return int(self.num_capture.get()) or super().get_frames_per_point()

    def stage(self) -> list[object]:
        """Stage, open the file, and make its Resource."""
        staged = super().stage()
        if self._will_write:
            self._generate_resource({"frame_per_point": self.get_frames_per_point()})
        return staged

    def _look_into(self, count: FrameCount) -> None:
        if self._fn is not None and self.filestore_spec in _DEFAULT_LAYOUT:
            count.check_stream_file(Path(self._fn))


class FileStoreHDF5Single(FileStoreSeries):
    """Each frame goes into an HDF5 file of its own (``FileWriteMode`` Single).

    One frame a file does not mean that ``num_images`` is ignored. See `FileStorePluginBase` for the parameters.
    """

    filestore_spec = "AD_HDF5_SINGLE"
    _is_hdf5 = True
    _template = "%s%s_%6.6d.h5"
