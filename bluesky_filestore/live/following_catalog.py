"""The events of a run as a catalog has them: heard of where its server streams, asked for now and then elsewhere.

What is heard (`following_news`) spares requests, and no event depends on it. A run that goes on is asked about as a
whole, and once more when all that may be new in it is heard; from then on

- rows of an event table that are said to be appended are events without a request, if they follow those that are known,
  and all there is to them; else they say which events there are, and these are asked for until they are there, for the
  server says it before it writes them;
- whatever else is said of the run has it asked about at once;
- while nothing is said nothing is asked, but for once in some minutes: a server forgets how far it has counted.

While it is not heard, as it is when a socket was cut, it is asked about every `interval`.
"""

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.catalogs.tiled.connecting import catalog_errors, is_away, is_gone
from bluesky_filestore.catalogs.tiled.once import without_retries
from bluesky_filestore.errors import CatalogError, DocumentError, UnreadableFileError
from bluesky_filestore.logs import get_logger
from bluesky_filestore.reading import FileArray, open_array
from bluesky_filestore.reading.document_reader import NumberedEvent, NumberedEvents
from bluesky_filestore.reading.ragged_array import RaggedArray
from bluesky_filestore.reading.run_tree import RunTree

from .following_event import FollowedEvent, Frames
from .following_news import NewsOfRun

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = ["EventsOfCatalog"]

_logger = get_logger(__name__)
_ENDS = ("stop", "notes")
_FIRST_PAUSE = 0.02
_FIRST_LOOK, _LONGEST_LOOK = 0.001, 0.01


class EventsOfCatalog:
    """The events of a run in a catalog, while it is written there or later; see `EventSource`.

    A catalog that is away is waited for. What is asked takes no more than a third of the server's time.

    Parameters
    ----------
    node : tiled.client.container.Container
        The run.
    interval : float
        For how many seconds nothing is asked after nothing came, where nothing is heard.
    root_map : Mapping of str to str, optional
        Where directories are now that the catalog names.
    patience : float
        How long, in seconds, a frame is waited for.
    after : int
        The position of the last event that is not wanted.
    """

    def __init__(
        self,
        node: "Container",
        interval: float,
        root_map: Mapping[str, str] | None,
        patience: float,
        after: int = 0,
    ) -> None:
        self._node: Any = without_retries(getattr(node, "base", node))
        self._interval, self._root_map, self._patience = interval, root_map, patience
        self.uid = str(self._node.metadata["start"]["uid"])
        self.is_over = False
        self._position = after
        self._highest: dict[str, int] = {}
        self._asked_at, self._took, self._pause = 0.0, 0.0, _FIRST_PAUSE
        self._is_away = False
        self._news: NewsOfRun | None = None
        self._events: NumberedEvents | None = None
        self._reading = threading.Lock()
        self._arrays: dict[tuple[str, str], FileArray | RaggedArray] = {}

    @property
    def start(self) -> Mapping[str, Any]:
        """The run's start document."""
        start: Mapping[str, Any] = self._node.metadata["start"]
        return start

    @property
    def stop(self) -> Mapping[str, Any] | None:
        """Its stop document, if it has come."""
        stop: Mapping[str, Any] | None = self._node.metadata.get("stop")
        return stop

    def wait(self, seconds: float) -> float:
        """For how long to wait; see `EventSource`."""
        pause, news = self._interval, self._news
        if news is not None:
            if news.has_come:
                return 0.0
            if news.is_complete(self._events):
                return min(max(seconds / 4, _FIRST_LOOK), _LONGEST_LOOK)
            pause = min(self._pause, pause) if news.is_heard else pause
        left = max(0.0, self._asked_at + max(pause, 2 * self._took) - time.monotonic())
        return left if news is None or news.is_refused else min(left, _LONGEST_LOOK)

    def take(self) -> Sequence[FollowedEvent]:
        """The events that have come since; see `EventSource`.

        Raises
        ------
        CatalogError
            If the catalog does not let us in, or has not got the run any more.
        DocumentError
            If it is a run of another writer, which does not say in which order its events came.
        """
        if self._news is not None and self._events is not None and self._news.has_come:
            self._pause = _FIRST_PAUSE
            self._news.take(self._events)
            return self._wanted(self._events.appended(), self._highest)
        return self._asked()

    def _asked(self) -> Sequence[FollowedEvent]:
        began, is_there, has_ended = time.monotonic(), False, False
        connections = -1 if self._news is None else self._news.connections
        try:
            with catalog_errors(str(self._node.uri), self._node):
                self._node.refresh()
                is_there = True
                # Before its tables are read: they have all of it by then.
                has_ended = any(entry in self._node.metadata for entry in _ENDS)
                events = self._read_all(has_ended=has_ended, connections=connections)
        except CatalogError as error:
            if is_there and not has_ended and (is_gone(error) or _is_another(error)):
                # Tables and small arrays whose values turn out to be others are made anew while they are read.
                return ()
            if not is_away(error):
                raise
            if not self._is_away:
                _logger.warning("Run %s is followed on when the catalog answers again: %s", self.uid, error)
            self._is_away = True
            return ()
        finally:
            self._asked_at = time.monotonic()
            self._took, self._pause = self._asked_at - began, 2 * self._pause
        self.is_over, self._is_away = has_ended, False
        if has_ended:
            self.close()
        return events

    def _read_all(self, *, has_ended: bool, connections: int) -> list[FollowedEvent]:
        run, before, highest = RunTree(self._node), self._events, dict[str, int]()
        found = NumberedEvents(run)
        events = self._wanted(found.read(has_ended=has_ended), highest)
        found.known = max(found.known, 0 if before is None else before.known)
        self._events, self._highest = found, highest
        # An application in this process has no websockets of this kind.
        if not has_ended and not hasattr(self._node.context.http_client, "app"):
            self._news = self._news or NewsOfRun(self._node)
            self._news.listen_to(run, connections)
        return events

    def _wanted(self, found: Iterable[NumberedEvent], highest: dict[str, int]) -> list[FollowedEvent]:
        """Those of some events that were not given yet; so far, the highest seq_num of each stream is known."""
        events: list[FollowedEvent] = []
        for each in found:
            seq_num = int(each.doc["seq_num"])
            is_repeated = seq_num <= highest.get(each.stream, 0)
            highest[each.stream] = max(highest.get(each.stream, 0), seq_num)
            if each.number >= self._position:
                events.append(self._event(each, is_repeated=is_repeated))
        self._position = events[-1].position if events else self._position
        return events

    def _event(self, each: NumberedEvent, *, is_repeated: bool) -> FollowedEvent:
        doc = each.doc
        filled = doc.get("filled") or {}
        wanted = [
            key
            for key in each.external
            if key not in doc["data"] or (isinstance(doc["data"][key], str) and not filled.get(key))
        ]
        return FollowedEvent(
            run=self.uid,
            position=each.number + 1,
            stream=each.stream,
            row=each.row,
            seq_num=int(doc["seq_num"]),
            is_repeated=is_repeated,
            uid=doc["uid"],
            time=doc["time"],
            data={key: value for key, value in doc["data"].items() if key not in wanted},
            timestamps=doc["timestamps"],
            frames=Frames(wanted, partial(self._read, each.stream, each.external, each.row)),
        )

    def _read(self, stream: str, external: Mapping[str, str], row: int, key: str) -> NDArray[Any]:
        """A frame, waited for: it may not be registered yet, or not in its file."""
        until, pause = time.monotonic() + self._patience, _FIRST_PAUSE
        while True:
            try:
                return self._read_now(stream, external[key], row)
            except (UnreadableFileError, DocumentError) as error:
                if time.monotonic() + pause > until:
                    error.add_note(f"It was to be read for {key!r} of row {row} of stream {stream!r}, run {self.uid}.")
                    raise
            time.sleep(pause)
            pause *= 2

    def _read_now(self, stream: str, key: str, row: int) -> NDArray[Any]:
        with self._reading:
            array = self._arrays.get((stream, key))
            if array is None or len(array) <= row:
                array = self._arrays[stream, key] = self._opened(stream, key)
        if len(array) <= row:
            raise DocumentError(
                f"the catalog has {len(array)} frames of {key!r} of stream {stream!r}; expected that of row {row}, too."
            )
        try:
            return np.asarray(array[row])
        except UnreadableFileError:
            # Where it is may be known better by now.
            with self._reading:
                self._arrays.pop((stream, key), None)
            raise

    def _opened(self, stream: str, key: str) -> FileArray | RaggedArray:
        with catalog_errors(str(self._node.uri), self._node):
            try:
                # With its files, by one request.
                node = self._node.new_variation(include_data_sources=True)[stream, key]
            except KeyError as error:
                filestore = self._node.metadata.get("filestore") or {}
                refused = filestore.get("refused", {}).get(stream, {}).get(key, {})
                why = refused.get("reason", "") if isinstance(refused, Mapping) else refused
                raise DocumentError(
                    f"the catalog has no array {key!r} of stream {stream!r} of run {self.uid}"
                    f"{f': {why}' if why else ', so far'}; expected it to be registered."
                ) from error
            return open_array(node, root_map=self._root_map)

    def close(self) -> None:
        """Listen no more; the client is somebody else's."""
        if self._news is not None:
            self._news.close()


def _is_another(error: CatalogError) -> bool:
    """Whether what was asked for cannot be, as of an array that has another shape since its client was made."""
    cause = error.__cause__
    status = cause.response.status_code if isinstance(cause, httpx.HTTPStatusError) else 0
    return status == httpx.codes.UNPROCESSABLE_ENTITY
