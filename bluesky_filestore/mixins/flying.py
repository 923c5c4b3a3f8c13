"""A detector as a flyer: one acquisition of many frames, documented while it goes on.

A flight begins with `prepare` and ends with `unstage`; in between `_flight_frames` is how many frames it has, and
outside of it 0, so that the detector takes part in step scans. `complete` watches in a thread of its own, which only
reads records; everything else happens in the thread that runs the plan.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from ophyd.device import BlueskyInterface, Staged

from bluesky_filestore.errors import MissingFramesError, StageError

from .frames import FileStoreWithFrames
from .statuses import FlightStatus
from .waiting import components_with, poll_until

__all__ = ["FlyableFileStore"]


class FlyableFileStore(BlueskyInterface):
    """Makes a detector fly, whose file plugins have ``asset_docs="stream"``; each frame is an event of its own.

    A class is `class MyDetector(FlyableFileStore, SingleTrigger, SimDetector)`, a plan stages, prepares it with the
    number of frames, declares the stream, and then kicks off, completes and collects. Without `prepare` it takes part
    in step scans as ever.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._flight_frames = 0

    def prepare(self, frames: int) -> FlightStatus:
        """Get ready to take so many frames in one go.

        Raises
        ------
        StageError
            If the detector is not staged, or has no file plugin that can tell of a stream.
        """
        if self._staged is not Staged.yes:
            raise StageError(f"{self.name} is not staged, so it has no files to fly with; call stage() first.")
        writers = self._flying_writers()
        if not writers:
            raise StageError(
                f"{self.name} has no file plugin with asset_docs='stream' that is switched on; expected one."
            )
        self.cam.num_images.set(frames).wait(writers[0].stage_timeout)
        for writer in writers:
            writer.begin_flight()
        self._flight_frames = frames
        return self._finished()

    def kickoff(self) -> FlightStatus:
        """Start the acquisition.

        Raises
        ------
        StageError
            If it has not been prepared.
        """
        if not self._flight_frames:
            raise StageError(
                f"{self.name} does not know how many frames to take; call prepare(frames) before kickoff()."
            )
        self.cam.acquire.put(1, wait=False)
        return self._finished()

    def complete(self) -> FlightStatus:
        """A status that is done when all frames are written, or failed when no further one comes."""
        status = FlightStatus(self)
        threading.Thread(target=self._watch_flight, args=(status,), daemon=True).start()
        return status

    def _watch_flight(self, status: FlightStatus) -> None:
        try:
            longest = max(writer.stage_timeout for writer in self._flying_writers()) + self._frame_time()
            while (before := self.get_index()) < self._flight_frames:
                if not poll_until(lambda before=before: self.get_index() > before, longest):  # type: ignore[misc]
                    raise MissingFramesError(
                        f"{self.name} has written {before} of {self._flight_frames} frames, and no further one within "
                        f"{longest} s. Look whether the camera still runs, and whether its plugins write."
                    )
            # The frames are written before the camera says that it is done.
            poll_until(lambda: not self.cam.acquire.get(), longest)
        except Exception as error:  # noqa: BLE001 - the plan that waits for the status is told
            status.set_exception(error)
        else:
            status.set_finished()

    def _frame_time(self) -> float:
        return float(max(self.cam.acquire_time.get(), self.cam.acquire_period.get()))

    def get_index(self) -> int:
        """Frames of this flight that all of the file plugins have written."""
        return min((writer.flown() for writer in self._flying_writers()), default=0)

    def describe_collect(self) -> "OrderedDict[str, dict[str, Any]]":
        """What each event of the flight holds; outside of one the same as `describe`."""
        if not self._flight_frames:
            # bluesky asks this, not describe, of all that can be collected, in step scans, too.
            return self.describe()  # type: ignore[no-any-return]
        return OrderedDict(pair for writer in self._flying_writers() for pair in writer.describe_flight().items())

    def collect_asset_docs(self, index: int | None = None) -> Iterator[tuple[str, Any]]:
        """Hand out the documents made since the last time.

        Parameters
        ----------
        index : int, optional
            Tell of no later frames than this: so many events all detectors of the stream have.
        """
        if self._flight_frames:
            ready = self.get_index()
            for writer in self._flying_writers():
                writer.document_flight(ready if index is None else min(index, ready))
        yield from super().collect_asset_docs()

    def unstage(self) -> list[object]:
        """End the flight, and unstage."""
        self._flight_frames = 0
        unstaged: list[object] = super().unstage()
        return unstaged

    def _flying_writers(self) -> list[FileStoreWithFrames]:
        components = (getattr(self, name) for name in components_with(self, "tells_streams"))
        return [device for device in components if isinstance(device, FileStoreWithFrames) and device.tells_streams]

    def _finished(self) -> FlightStatus:
        status = FlightStatus(self)
        status.set_finished()
        return status
