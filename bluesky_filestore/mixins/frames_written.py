"""Counting the frames that a plugin has written against those that its documents promise."""

import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from bluesky_filestore.errors import ExtraFramesError, MissingFramesError

from .causes import likely_causes, write_error
from .waiting import optional, poll_until, pv_name, says
from .written_files import missing_rows

__all__ = ["ConfirmFrames", "FrameCount"]

ConfirmFrames = Literal["point", "unstage", "never"]
_LONGEST_NEWS = 2.0
"""Seconds until a file that has been counted is whole, and seen by this machine."""


def _is_none(function: Callable[[Path], object], path: Path) -> bool:
    return function(path) is None


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
        """Frames that the documents promise so far."""
        self.counted = 0
        """Of those the ones that the plugin was found to have counted; an error has named the others."""
        # Of a series: how many of its files have been looked at, and whether one of them was in sight.
        self._looked_at = 0
        self._in_sight = False

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
        self.counted = self.documented
        self._check_writing()

    def _check_writing(self) -> None:
        """See that what was counted was written, too, as far as ``WriteStatus`` tells."""
        busy = optional(self._plugin, "write_file")
        if busy is not None and self._is_series():
            poll_until(lambda: busy.get() in (0, "Done"), _LONGEST_NEWS)
        problem = write_error(self._plugin)
        if problem:
            raise MissingFramesError(
                f"{self._plugin.name} has counted {self.documented} frames, but not all of them are in the files: "
                f"{problem}. The plugin counts files that it could not write.{likely_causes(self._plugin)} Look at the "
                f"disk and the directory, and take the last frames again."
            )

    def check_files(self, path_of: Callable[[int], Path], problem_with: Callable[[Path], str | None]) -> None:
        """Look at the files of a series that have been documented since the last time, where they are in sight.

        That they are shows in one of them: a directory of the same name may be on another disk here.

        Parameters
        ----------
        path_of : callable
            The file with this number, as this machine sees it.
        problem_with : callable
            What is wrong with a file; None if nothing is.

        Raises
        ------
        MissingFramesError
            If one is missing or not whole.
        """
        first, self._looked_at = self._looked_at, self.documented
        for index in range(first, self.documented):
            path = path_of(self._start + index)
            self._in_sight = self._in_sight or path.exists()
            if not self._in_sight or poll_until(partial(_is_none, problem_with, path), _LONGEST_NEWS):
                continue
            raise MissingFramesError(
                f"{self._plugin.name} has counted {self.documented} frames, but {problem_with(path)}: frame {index} is "
                f"lost.{says(self._plugin)}{likely_causes(self._plugin)} Look at the disk and the directory."
            )

    def check_stream_file(self, path: Path, attributes: Iterable[str] = ()) -> None:
        """Look into the one HDF5 file, which the plugin has closed, if it is in sight.

        Parameters
        ----------
        path : Path
            The file.
        attributes : iterable of str
            Further datasets that have to have a value of each frame.

        Raises
        ------
        MissingFramesError
            If frames that were documented are not in it.
        """
        frames = self.counted
        if not frames or not path.exists():
            return
        if poll_until(lambda: not missing_rows(path, frames)[0], _LONGEST_NEWS):
            for dataset in attributes:
                missing, reason = missing_rows(path, frames, dataset)
                if missing:
                    raise MissingFramesError(
                        f"{self._plugin.name} has written {frames} frames, but of {dataset} {len(missing)} values are "
                        f"not in the file: {reason}. The frames are there; let the plugin see a frame with the "
                        f"attribute before it opens a file, or switch LazyOpen on."
                    )
            return
        missing, reason = missing_rows(path, frames)
        shown = ", ".join(map(str, missing[:10])) + (" ..." if len(missing) > 10 else "")
        raise MissingFramesError(
            f"{self._plugin.name} has counted {frames} frames, but {len(missing)} of them are not in the file "
            f"({shown}): {reason}. No record of the plugin tells.{likely_causes(self._plugin)} Take these frames again."
        )

    def _is_series(self) -> bool:
        mode = optional(self._plugin, "file_write_mode")
        return mode is not None and mode.get() in (0, "Single")

    def _grew_or_ended(self, written: int) -> bool:
        return self.written() > written or not self._may_grow()

    def _may_grow(self) -> bool:
        """Whether the plugin is still able to write: a capture that has ended never goes on."""
        mode, capture = optional(self._plugin, "file_write_mode"), optional(self._plugin, "capture")
        if capture is None or mode is None or self._is_series():
            return True
        return capture.get() not in (0, "Done")

    def _error(self, written: int) -> MissingFramesError | ExtraFramesError:
        name = optional(self._plugin, "full_file_name")
        dropped = optional(self._plugin, "dropped_arrays")
        lost = 0 if dropped is None else dropped.get() - self._dropped_before
        found = (
            f"{self._plugin.name} has written {written} frames to {self._plugin._fn if name is None else name.get()}, "
            f"expected {self.documented} ({pv_name(self._counter)}; {lost} dropped by the plugin).{says(self._plugin)}"
            f"{likely_causes(self._plugin)}"
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
