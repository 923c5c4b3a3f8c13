"""What the mixins have in common that write each frame to a file of its own."""

from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from .causes import bytes_of_frame
from .file_records import fill_template
from .frames_written import FrameCount
from .plugin import FileStorePluginBase
from .written_files import broken_file

__all__ = ["FileStoreSeries"]


class FileStoreSeries(FileStorePluginBase):
    """Base of the mixins that write each frame to a file of its own (``FileWriteMode`` Single)."""

    _counter = "file_number"
    _is_hdf5: ClassVar[bool] = False
    """Whether its files are HDF5, perhaps compressed, so that their size tells little."""
    _template: ClassVar[str] = "%s%s_%6.6d"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stage_sigs.update([("file_template", self._template), ("file_write_mode", "Single")])

    def stage(self) -> list[object]:
        """Stage, and make the Resource of the directory and of the template of its files."""
        staged = super().stage()
        if self._will_write:
            self._fn = self._fp
            self._generate_resource(
                {
                    "template": self.file_template.get(),
                    "filename": self.file_name.get(),
                    "frame_per_point": self.get_frames_per_point(),
                }
            )
        return staged

    def _look_at_files(self, count: FrameCount) -> None:
        kwargs, directory = self._resource_kwargs or {}, self._fp
        if directory is None or not {"template", "filename"} <= set(kwargs):
            return

        def path_of(number: int) -> Path:
            values = (directory, kwargs["filename"], number)
            return Path(fill_template(kwargs["template"], values))

        # A TIFF of areaDetector's is never packed.
        least = bytes_of_frame(self) if self.filestore_spec == "AD_TIFF" else 0
        count.check_files(path_of, partial(broken_file, least_bytes=least, is_hdf5=self._is_hdf5))
