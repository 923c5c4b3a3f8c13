"""What the mixins have in common that write each frame to a file of its own."""

from typing import Any, ClassVar

from .plugin import FileStorePluginBase

__all__ = ["FileStoreSeries"]


class FileStoreSeries(FileStorePluginBase):
    """Base of the mixins that write each frame to a file of its own (``FileWriteMode`` Single)."""

    _counter = "file_number"
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
