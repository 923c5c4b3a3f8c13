"""What the server of a catalog says of one run that is followed."""

import time
from typing import TYPE_CHECKING

from bluesky_filestore.catalogs.tiled.listening import Listener, News
from bluesky_filestore.catalogs.tiled.values import rows_of_message
from bluesky_filestore.errors import DocumentError
from bluesky_filestore.reading.document_reader import NumberedEvents
from bluesky_filestore.reading.run_tree import RunTree

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = ["NewsOfRun"]

_UNSURE_SECONDS, _RENEW_SECONDS = 5.0, 300.0


class NewsOfRun:
    """Whether there may be more of a run than was asked for last.

    Its container, those of its streams and its event tables are listened to, and the container that it is in, which is
    told when the run itself has changed: without that, the end of a run is heard when its server ends its websocket.

    Parameters
    ----------
    node : tiled.client.container.Container
        The run.
    """

    def __init__(self, node: "Container") -> None:
        self._run, self._listener = str(node.uri).rstrip("/"), Listener(node)
        self._parent, self._key = self._run.rpartition("/")[0], str(node.item["id"])
        self._needed: set[str] = set()
        self._tables: dict[str, str] = {}
        self._connections, self._is_stale, self._unsure_until = -1, False, 0.0
        self._heard_at = time.monotonic()

    def listen_to(self, run: RunTree, connections: int) -> None:
        """Listen to what there is of the run, which was asked for when there had been so many `connections`."""
        streams = {name: str(stream.uri) for name, stream in run.streams.items()}
        self._tables = {str(table.uri): name for name in streams for table in run.tables(name)}
        self._needed = {self._run, *streams.values(), *self._tables}
        self._listener.listen_to([self._run, f"{self._parent}/", *streams.values(), *self._tables])
        self._connections, self._is_stale = connections, False

    @property
    def connections(self) -> int:
        """How often something was connected with; from then on it is heard."""
        return self._listener.connections

    @property
    def is_heard(self) -> bool:
        """Whether all that may be new in the run is heard now."""
        return self._listener.hears(self._needed)

    @property
    def is_refused(self) -> bool:
        """Whether the server says nothing."""
        return self._listener.is_refused

    @property
    def has_come(self) -> bool:
        """Whether there is something to take."""
        return self._listener.has_news

    def is_complete(self, events: NumberedEvents | None) -> bool:
        """Whether these are all events that there are, so that there is nothing to ask for."""
        now = time.monotonic()
        is_complete = (
            events is not None
            and events.position >= events.known
            and not self._is_stale
            and now > self._unsure_until
            and self._connections == self._listener.connections
            and self.is_heard
        )
        if is_complete and now > self._heard_at + _RENEW_SECONDS:
            # A server numbers what it says, forgets after an hour how far it came, and leaves out small numbers then.
            self._heard_at = now
            self._listener.renew()
        return is_complete

    def take(self, events: NumberedEvents) -> None:
        """Have the events know what was heard."""
        self._heard_at = time.monotonic()
        for news in self._listener.take():
            self._take(news, events)

    def _take(self, news: News, events: NumberedEvents) -> None:
        kind = news.message.get("type")
        if kind is None:
            self._look_for_a_while()
        elif news.address.rstrip("/") == self._parent:
            self._is_stale = self._is_stale or news.message.get("key") == self._key
        elif kind == "table-data" and news.address in self._tables:
            try:
                events.append(self._tables[news.address], rows_of_message(news.message))
            except (DocumentError, LookupError, ValueError, TypeError):
                self._look_for_a_while()
        else:
            self._is_stale = True

    def _look_for_a_while(self) -> None:
        """Rows were appended, and which is not known; when they are there nobody says."""
        self._is_stale, self._unsure_until = True, time.monotonic() + _UNSURE_SECONDS

    def close(self) -> None:
        """Listen no more."""
        self._listener.close()
