"""One run as the page shows it, followed by a thread for as long as somebody looks."""

import math
import threading
import time
from array import array
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from bluesky_filestore.errors import FileStoreError, MissingFramesError
from bluesky_filestore.logs import get_logger
from bluesky_filestore.visible import visible_line, without_secrets

if TYPE_CHECKING:
    from .following import Follower
    from .following_event import FollowedEvent

__all__ = ["RunView", "StreamView"]

_logger = get_logger(__name__)
_POLL_SECONDS, _PROGRESS_SECONDS, _TRY_AGAIN_SECONDS, _UNWATCHED_SECONDS = 0.2, 1.0, 5.0, 30.0
_MOST_ROWS, _MOST_COLUMNS, _LONGEST = 50_000, 40, 200


@dataclass(slots=True)
class StreamView:
    """One stream of a run. A thread adds to it; others read what is below `count`, which is set last."""

    count: int = 0
    """How many events there are."""
    columns: "dict[str, array[float]]" = field(default_factory=dict)
    """The numbers of its events, by data key; NaN where an event has none."""
    times: "array[float]" = field(default_factory=lambda: array("d"))
    """When its events were."""
    keys: list[str] = field(default_factory=list)
    """The data keys whose frames are in files."""
    captured: int = 0
    """Up to which event a frame was found in its file, by who looked."""
    events: "list[FollowedEvent | None]" = field(default_factory=list)
    """The events, whose frames can be read."""

    def add(self, event: "FollowedEvent") -> None:
        """One more event; of very many the first are let go."""
        for key, value in event.data.items():
            if key not in self.columns and len(self.columns) < _MOST_COLUMNS and _number(value) is not None:
                self.columns[key] = array("d", [math.nan]) * len(self.times)
        for key, column in self.columns.items():
            column.append(_or_nan(_number(event.data.get(key))))
        self.keys += [key for key in event.frames if key not in self.keys]
        self.times.append(_or_nan(_number(event.time)))
        self.events.append(event)
        if len(self.events) > _MOST_ROWS:
            self.events[len(self.events) - _MOST_ROWS - 1] = None
        self.count = len(self.events)

    def rows(self, begin: int, end: int) -> dict[str, Any]:
        """The numbers of some of its events as JSON has them, with None for what is none."""
        columns = {key: _plain(column[begin:end]) for key, column in list(self.columns.items())}
        return {"first": begin, "times": _plain(self.times[begin:end]), "columns": columns}


class RunView:
    """A run that is followed.

    Parameters
    ----------
    uid : str
        Its uid.
    follow : callable
        Begins to follow it.
    progress : callable
        Says how much of it each catalog has.
    """

    def __init__(
        self, uid: str, follow: "Callable[[], Follower]", progress: Callable[[], list[dict[str, Any]]]
    ) -> None:
        self.uid = uid
        """The run's uid."""
        self.streams: dict[str, StreamView] = {}
        """What there is of its streams, by name."""
        self.start: Mapping[str, Any] = {}
        """Its start document."""
        self.stop: Mapping[str, Any] | None = None
        """Its stop document, if it has come."""
        self.is_over = False
        """Whether no more will come."""
        self.error = ""
        """Why it cannot be followed, if it cannot."""
        self.catalogs: list[dict[str, Any]] = []
        """How much of it each catalog has."""
        self.looked = time.monotonic()
        """When somebody looked."""
        self._follow, self._progress = follow, progress
        self._closing, self._try_again = threading.Event(), 0.0
        self._thread = threading.Thread(target=self._run, name="page-run", daemon=True)
        self._thread.start()

    @property
    def is_closed(self) -> bool:
        """Whether it is followed no longer, or could not be, and it is time to try again."""
        return self._closing.is_set() or (bool(self.error) and time.monotonic() > self._try_again)

    @property
    def is_forgotten(self) -> bool:
        """Whether nobody has looked for a while."""
        return time.monotonic() - self.looked > _UNWATCHED_SECONDS

    def frame(self, stream: str, key: str, row: int) -> NDArray[Any]:
        """Read a frame.

        Raises
        ------
        FileStoreError
            If there is none, or it cannot be read.
        """
        self.looked = time.monotonic()
        view = self.streams.get(stream)
        if view is None or not 0 <= row < view.count or (event := view.events[row]) is None or key not in event.frames:
            raise MissingFramesError(
                f"run {self.uid[:8]} has no event {row} in {stream!r} with a frame of {key!r} here."
            )
        frame = event.frames[key]
        view.captured = max(view.captured, row + 1)
        return frame

    def header(self) -> dict[str, Any]:
        """What there is to say of the run at the top of the page; what its documents hold may be anything."""
        start, stop = self.start, self.stop or {}
        return {
            "uid": text_of(self.uid),
            "scan": text_of(start.get("scan_id")),
            "plan": text_of(start.get("plan_name")),
            "sample": text_of(start.get("sample_name") or start.get("sample")),
            "detectors": _texts(start.get("detectors")),
            "motors": _texts(start.get("motors")),
            "began": _number(start.get("time")),
            "ended": _number(stop.get("time")),
            "status": text_of(stop.get("exit_status")) or ("cut short" if self.is_over and not self.error else "open"),
            "reason": text_of(stop.get("reason")),
            "over": self.is_over,
            "error": text_of(self.error),
            "asked": _points(start),
            "x": _axis(start),
            "catalogs": self.catalogs,
            "streams": {
                name: {
                    "count": view.count,
                    "keys": list(view.keys),
                    "captured": view.captured,
                    "columns": list(view.columns),
                }
                for name, view in list(self.streams.items())
            },
        }

    def close(self) -> None:
        """Follow it no longer."""
        self._closing.set()

    def _run(self) -> None:
        try:
            with self._follow() as follower:
                self._take(follower)
        except FileStoreError as error:
            self._fail(str(error))
        except Exception as error:
            _logger.exception("Run %s cannot be shown as it grows.", self.uid)
            self._fail(f"it cannot be followed: {error!r}")

    def _fail(self, why: str) -> None:
        self._try_again = time.monotonic() + _TRY_AGAIN_SECONDS
        self.error = why

    def _take(self, follower: "Follower") -> None:
        self.start = follower.start
        next_progress = 0.0
        while not self._closing.is_set() and not self.is_forgotten:
            event = follower.poll(_POLL_SECONDS)
            if event is not None:
                self.streams.setdefault(event.stream, StreamView()).add(event)
            if time.monotonic() >= next_progress:
                self.catalogs, next_progress = self._progress(), time.monotonic() + _PROGRESS_SECONDS
            if follower.is_over and not self.is_over:
                self.stop, self.is_over = follower.stop, True
            if self.is_over:
                if all(each["state"] in ("delivered", "parked") for each in self.catalogs):
                    break
                self._closing.wait(_POLL_SECONDS)


def text_of(value: Any) -> str:
    """What others wrote, as a line that can be shown."""
    return "" if value is None else visible_line(without_secrets(str(value)))[:_LONGEST]


def _texts(value: Any) -> list[str]:
    return [text_of(each) for each in value[:8]] if isinstance(value, list | tuple) else []


def _number(value: Any) -> float | None:
    """A number that JSON has."""
    with suppress(TypeError, ValueError, OverflowError):
        if not isinstance(value, str | bytes) and math.isfinite(number := float(value)):
            return number
    return None


def _or_nan(number: float | None) -> float:
    return math.nan if number is None else number


def _plain(numbers: "array[float]") -> list[float | None]:
    return [None if math.isnan(each) else each for each in numbers]


def _points(start: Mapping[str, Any]) -> int | None:
    """How many events were asked for, as far as the plan says."""
    for entry, more in (("num_points", 0), ("num_intervals", 1)):
        count = start.get(entry)
        if isinstance(count, int) and 0 < count < 2**53:
            return count + more
    return None


def _axis(start: Mapping[str, Any]) -> str:
    """The data key that was scanned, by the plan's hints; empty if it was none."""
    with suppress(TypeError, LookupError, AttributeError):
        first = start["hints"]["dimensions"][0][0][0]
        return first if isinstance(first, str) and first != "time" else ""
    return ""
