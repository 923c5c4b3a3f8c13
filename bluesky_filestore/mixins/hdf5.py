"""File stores of the HDF5 plugin: one file for all frames, or one for each."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

from bluesky_filestore.errors import StageError

from .frames_written import FrameCount
from .plugin import FileStorePluginBase
from .series import FileStoreSeries
from .waiting import TimedSetting, optional

__all__ = ["FileStoreHDF5", "FileStoreHDF5Single"]

_DEFAULT_LAYOUT = ("AD_HDF5", "AD_HDF5_SWMR", "AD_HDF5_TS", "AD_HDF5_SWMR_TS")
"""The specs whose readers look where the default layout puts the frames; who has his own knows his file."""


class FileStoreHDF5(FileStorePluginBase):
    """All frames between stage and unstage go into one HDF5 file (``FileWriteMode`` Stream).

    ``num_capture`` 0 captures whatever arrives; any other number ends the capture after that many frames.
    See `FileStorePluginBase` for the other parameters.

    Parameters
    ----------
    swmr : bool, optional
        Write in HDF5's SWMR mode, so that the file can be read while it grows: ``SWMRMode`` On, and each frame flushed
        (``NumFramesChunks`` and ``NumFramesFlush`` 1; the latter stays so, as the IOC does not take its 0 back). The
        spec is AD_HDF5_SWMR then.
    """

    filestore_spec = "AD_HDF5"

    def __init__(self, *args: Any, swmr: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._swmr = swmr
        if swmr:
            self.filestore_spec = "AD_HDF5_SWMR"
            self.stage_sigs.update([("swmr_mode", "On")])
        self.stage_sigs.update(
            [("file_template", "%s%s_%6.6d.h5"), ("file_write_mode", "Stream"), ("capture", 1)],
        )

    def get_frames_per_point(self) -> int:
        """Frames of one trigger: ``num_capture``, or the camera's ``num_images`` if that is 0."""
        return int(self.num_capture.get()) or super().get_frames_per_point()

    def _set_first(self, sigs: "OrderedDict[Any, Any]") -> None:
        super()._set_first(sigs)
        if not self._swmr:
            return
        # Not below the chunks, which go first. It is not in stage_sigs: the IOC does not take its old value back.
        for name in ("num_frames_chunks", "num_frames_flush"):
            signal = optional(self, name)
            if signal is not None and int(signal.get()) != 1:
                TimedSetting(signal, self, self.stage_timeout).set(1).wait()

    def _resolved_stage_sigs(self) -> "OrderedDict[Any, Any]":
        if self._swmr and optional(self, "swmr_mode") is None:
            raise StageError(
                f"{self.name} was made with swmr=True, but it has no record SWMRMode; expected a class of a newer "
                f"areaDetector such as HDF5Plugin_V34, or swmr=False."
            )
        return super()._resolved_stage_sigs()

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
