"""Counting the frames that a plugin has written against those that its documents promise."""

import time
from functools import partial
from typing import Any, Literal

from bluesky_filestore.errors import ExtraFramesError, MissingFramesError

from .waiting import optional, poll_until, pv_name, says

__all__ = ["ConfirmFrames", "FrameCount", "check_confirm_frames"]

ConfirmFrames = Literal["point", "unstage", "never"]


def check_confirm_frames(value: str) -> ConfirmFrames:
    """Return `value` if it is one we know.

    Raises
    ------
    ValueError
        For any other.
    """
    match value:
        case "point" | "unstage" | "never":
            return value
    raise ValueError(f"confirm_frames is {value!r}; expected 'point', 'unstage' or 'never'.")


class FrameCount:
    """The frames documented since stage, and how to find out how many are written.

    Parameters
    ----------
    plugin : Device
        The file plugin, staged.
    counter : str
        Which of its records counts: ``num_captured`` in Stream mode, ``file_number`` where each frame is a file.
    """

    def __init__(self, plugin: Any, counter: str) -> None:
        self._plugin = plugin
        self._counter = optional(plugin, counter)
        self._start = int(self._counter.get()) if self._counter is not None and counter == "file_number" else 0
        dropped = optional(plugin, "dropped_arrays")
        self._dropped_before = 0 if dropped is None else dropped.get()
        self.documented = 0

    def written(self) -> int:
        """Frames in the files, as the plugin counts them."""
        return int(self._counter.get()) - self._start

    def confirm(self, timeout: float) -> None:
        """Wait until as many frames are written as are documented.

        Parameters
        ----------
        timeout : float
            Seconds without a further frame, after which no more are expected.

        Raises
        ------
        MissingFramesError
            If there are fewer.
        ExtraFramesError
            If there are more: then no event can tell which frames are its own.
        """
        if self._counter is None or not self.documented:
            return
        written = self.written()
        deadline = time.monotonic() + timeout
        while written < self.documented and self._may_grow():
            if not poll_until(partial(self._grew_or_ended, written), deadline - time.monotonic()):
                break
            now = self.written()
            if now > written:
                deadline = time.monotonic() + timeout
            written = now
        if written != self.documented:
            # The last frame may have come between the count and the end of the capture.
            written = self.written()
        if written != self.documented:
            raise self._error(written)

    def _grew_or_ended(self, written: int) -> bool:
        return self.written() > written or not self._may_grow()

    def _may_grow(self) -> bool:
        """Whether the plugin is still able to write: a capture that has ended never goes on."""
        mode, capture = optional(self._plugin, "file_write_mode"), optional(self._plugin, "capture")
        if capture is None or mode is None or mode.get() in (0, "Single"):
            return True
        return capture.get() not in (0, "Done")

    def _error(self, written: int) -> MissingFramesError | ExtraFramesError:
        name = optional(self._plugin, "full_file_name")
        dropped = optional(self._plugin, "dropped_arrays")
        lost = 0 if dropped is None else dropped.get() - self._dropped_before
        found = (
            f"{self._plugin.name} has written {written} frames to {self._plugin._fn if name is None else name.get()}, "
            f"expected {self.documented} ({pv_name(self._counter)}; {lost} dropped by the plugin).{says(self._plugin)}"
        )
        if written < self.documented:
            return MissingFramesError(
                f"{found} Frames {written} to {self.documented - 1} were asked for and are not in the file. Look "
                f"whether size or type of the frames, or num_images, changed after stage, num_capture ended the "
                f"capture, or the disk is too slow."
            )
        return ExtraFramesError(
            f"{found} Frames came that no trigger asked for, so that later ones are not where their events say. Look "
            f"whether num_images changed after stage, or something else triggers the camera."
        )
