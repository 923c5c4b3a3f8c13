"""File stores of the TIFF plugin: each frame, or the average of several, in a file of its own."""

from typing import Any

from .series import FileStoreSeries

__all__ = ["FileStoreTIFF", "FileStoreTIFFSquashing"]


class FileStoreTIFF(FileStoreSeries):
    """Each frame goes into a TIFF file of its own (``FileWriteMode`` Single).

    One frame a file does not mean that ``num_images`` is ignored. See `FileStorePluginBase` for the parameters.
    """

    filestore_spec = "AD_TIFF"
    _template = "%s%s_%6.6d.tiff"


class FileStoreTIFFSquashing(FileStoreTIFF):
    """Each TIFF file is the average of several frames, which the detector's process plugin makes.

    A trigger takes ``images_per_set * number_of_sets`` frames and leaves ``number_of_sets`` files. This mixin sets up
    the camera and the process plugin, too. See `FileStorePluginBase` for the other parameters.

    Parameters
    ----------
    images_per_set_name, number_of_sets_name : str, optional
        Names of the signals on the detector that hold the two numbers.
    cam_name, proc_name : str, optional
        Names of the camera and of the process plugin on the detector.
    """

    def __init__(
        self,
        *args: Any,
        images_per_set_name: str = "images_per_set",
        number_of_sets_name: str = "number_of_sets",
        cam_name: str = "cam",
        proc_name: str = "proc1",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._ips_name = images_per_set_name
        self._num_sets_name = number_of_sets_name
        self._cam_name = cam_name
        self._proc_name = proc_name
        cam, proc = getattr(self.parent, cam_name), getattr(self.parent, proc_name)
        self.stage_sigs.update(
            [
                (proc.nd_array_port, cam.port_name.get()),
                (proc.reset_filter, 1),
                (proc.enable_filter, 1),
                (proc.filter_type, "Average"),
                (proc.auto_reset_filter, 1),
                (proc.filter_callbacks, 1),
                ("nd_array_port", proc.port_name.get()),
            ]
        )

    def get_frames_per_point(self) -> int:
        """Files of one trigger: the number of sets."""
        return int(getattr(self.parent, self._num_sets_name).get())

    def stage(self) -> list[object]:
        """Stage, with the camera and the process plugin set to the two numbers."""
        cam, proc = getattr(self.parent, self._cam_name), getattr(self.parent, self._proc_name)
        images_per_set = int(getattr(self.parent, self._ips_name).get())
        self.stage_sigs.update(
            [(proc.num_filter, images_per_set), (cam.num_images, images_per_set * self.get_frames_per_point())]
        )
        return super().stage()
