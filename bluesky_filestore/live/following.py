"""Events of a run as they come."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from bluesky_filestore.catalogs.tiled.connecting import connect
from bluesky_filestore.catalogs.tiled.nodes import find_run as in_catalog
from bluesky_filestore.catalogs.tiled.nodes import find_runs
from bluesky_filestore.errors import OptionError, RunNotFoundError, SpoolError
from bluesky_filestore.logs import get_logger
from bluesky_filestore.spool.places import all_spools, existing_spool
from bluesky_filestore.spool.spooled_run import SpooledRun, find_run
from bluesky_filestore.spool_writer import SpoolWriter

from .following_documents import SpooledEvents, latest_run
from .following_event import EventSource, FollowedEvent

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = ["Follower", "follow"]

_logger = get_logger(__name__)
_A_WHILE = 3600.0


class Follower:
    """The events of one run, one after the other; made by `follow`.

    It is an iterator, and an asynchronous one; of several threads each event goes to one.

    Parameters
    ----------
    source : EventSource
        Where they come from.
    stream : str, optional
        Which of them.
    after : int
        The position of the last one that is not wanted.
    elsewhere : callable, optional
        Gives another source of the same run, for the events after a position, when this one has lost it.
    client : tiled.client.container.Container, optional
        A client that was made for it, and is closed with it.
    """

    def __init__(
        self,
        source: EventSource,
        *,
        stream: str | None = None,
        after: int = 0,
        elsewhere: Callable[[int], EventSource] | None = None,
        client: "Container | None" = None,
    ) -> None:
        self._client = client
        self._source, self._stream, self._after, self._elsewhere = source, stream, after, elsewhere
        self._ready: deque[FollowedEvent] = deque()
        self._lock = threading.Lock()
        self._idle_since: float | None = None
        self._is_closed = False

    @property
    def run(self) -> str:
        """The run's uid."""
        return self._source.uid

    @property
    def start(self) -> Mapping[str, Any]:
        """The run's start document."""
        with self._lock:
            if not self._source.start and not self._is_closed:
                self._take()
        return self._source.start

    @property
    def stop(self) -> Mapping[str, Any] | None:
        """The run's stop document, once all of its events were given; None of a run that ended without."""
        return self._source.stop if self.is_over else None

    @property
    def is_over(self) -> bool:
        """Whether no more events will be given."""
        return not self._ready and (self._source.is_over or self._is_closed)

    def poll(self, timeout: float = 0.0) -> FollowedEvent | None:
        """The next event; None if there is none within so many seconds, or `is_over`.

        Raises
        ------
        FileStoreError
            If the run cannot be followed any more, where it is read.
        """
        deadline = time.monotonic() + timeout
        while True:
            with self._lock:
                pause = self._pause()
                if self._ready:
                    return self._ready.popleft()
                left = deadline - time.monotonic()
                if self.is_over or left <= 0:
                    return None
            time.sleep(min(pause, left))

    def _pause(self) -> float:
        """Take what there is, if nothing is ready; for how long to wait before that is done again."""
        if self._ready or self.is_over:
            return 0.0
        now = time.monotonic()
        pause = self._source.wait(0.0 if self._idle_since is None else now - self._idle_since)
        if pause == 0.0:
            self._take()
            if self._ready:
                self._idle_since = None
            elif self._idle_since is None:
                self._idle_since = now
        return pause

    def _take(self) -> None:
        try:
            events = self._source.take()
        except (RunNotFoundError, SpoolError) as error:
            if self._elsewhere is None:
                raise
            elsewhere, self._elsewhere = self._elsewhere(self._after), None
            self._source.close()
            self._source = elsewhere
            _logger.info("%s It is followed on after position %s in the catalog.", error, self._after)
            return
        for event in events:
            if event.position > self._after:
                self._after = event.position
                if self._stream in (None, event.stream):
                    self._ready.append(event)

    def close(self) -> None:
        """Follow no longer, and let go of what is open.

        Frames of events that were given can be read all the same, but through a catalog of which only the address was
        given.
        """
        with self._lock:
            self._is_closed = True
            self._ready.clear()
            self._source.close()
            if self._client is not None:
                self._client.context.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> FollowedEvent:
        while True:
            event = self.poll(_A_WHILE)
            if event is not None:
                return event
            if self.is_over:
                raise StopIteration

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> FollowedEvent:
        while True:
            # Whoever is cancelled here has taken nothing: what was found meanwhile is ready for the next.
            pause = await asyncio.to_thread(self._look)
            with self._lock:
                if self._ready:
                    return self._ready.popleft()
                if self.is_over:
                    raise StopAsyncIteration
            await asyncio.sleep(pause)

    def _look(self) -> float:
        with self._lock:
            return self._pause()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Follower of run {self.run}>"


def follow(
    run: Any = None,
    uid: str | None = None,
    *,
    stream: str | None = None,
    after: int = 0,
    interval: float = 0.5,
    root_map: Mapping[str, str] | None = None,
    patience: float = 2.0,
    spool: bool = True,
) -> Follower:
    """The events of a run as they come, with their frames, until it ends; of one that has ended the same ones.

    Where this user has the run in a spool on this machine it is read there, else from the catalog.

    Parameters
    ----------
    run : CatalogWriter, SpoolWriter, str, Path, or tiled.client.container.Container
        A writer, a spool directory, or a catalog, by its client or its address (``http://...``): of it the run with
        `uid`, or the one that began last. Or a run: its client, or the beginning of its uid, which is looked for in the
        spools of this user. By default the run that began last in any of these.
    uid : str, optional
        The beginning of the run's uid, where `run` is not the run itself.
    stream : str, optional
        The only stream whose events are wanted.
    after : int
        The `FollowedEvent.position` of the last event that is not wanted: whoever was ended goes on there.
    interval : float
        After how many seconds a catalog is asked for more, where its server does not say what is new.
    root_map : Mapping of str to str, optional
        Where directories are now that the documents name, as for `fill`.
    patience : float
        How long, in seconds, a frame is waited for that is not in its file yet, and an event whose frames are not
        announced yet.
    spool : bool
        Whether the spools of this user are looked into for a run of a catalog.

    Returns
    -------
    Follower
        An iterator, and an asynchronous one, over `FollowedEvent`.

    Raises
    ------
    RunNotFoundError
        If there is no such run, or more than one.
    OptionError
        If an argument cannot mean anything.
    SpoolError, CatalogError
        If the spool, or the catalog, cannot be read.

    Examples
    --------
    >>> for event in follow(writer):  # doctest: +SKIP
    ...     print(event.seq_num, event["motor"], event["det_image"].mean())
    """
    made = connect(run) if isinstance(run, str) and "://" in run else None
    client = run if made is None else made
    read_catalog = partial(_catalog_source, interval=interval, root_map=root_map, patience=patience)
    elsewhere: Callable[[int], EventSource] | None = None
    found: SpooledRun | None = None
    try:
        if hasattr(client, "context"):
            node = _run_in(client, uid)
            elsewhere = partial(read_catalog, lambda: node)
            found = _find_spooled(node.metadata["start"]["uid"]) if spool else None
        else:
            catalogs = run.catalogs if isinstance(run, SpoolWriter) else ()
            try:
                found = _spooled(run, uid)
            except (RunNotFoundError, SpoolError):
                # What is delivered may have left it.
                if not catalogs:
                    raise
            if catalogs:
                whole = uid if found is None else found.uid
                elsewhere = partial(read_catalog, partial(_run_of_writer, catalogs[0], whole))
        if found is not None:
            source: EventSource = SpooledEvents(found, root_map, patience)
        elif elsewhere is not None:
            source, elsewhere = elsewhere(after), None
        return Follower(source, stream=stream, after=after, elsewhere=elsewhere, client=made)
    except BaseException:
        if made is not None:
            made.context.close()
        raise


def _catalog_source(find: Callable[[], "Container"], after: int, **options: Any) -> EventSource:
    from .following_catalog import EventsOfCatalog

    return EventsOfCatalog(find(), after=after, **options)


def _run_of_writer(catalog: Any, uid: str | None) -> "Container":
    return _run_in(catalog.connect(), uid)


def _run_in(client: "Container", uid: str | None) -> "Container":
    """A run of a catalog, or the run that the client is of."""
    if any(spec.name == "BlueskyRun" for spec in getattr(client, "specs", ())):
        return client
    if uid is None:
        latest = find_runs(client, most=1)
        if not latest:
            raise RunNotFoundError(f"there is no run in {client.uri}; expected one that was begun.")
        (uid,) = latest
    return in_catalog(client, uid)[1]


def _find_spooled(uid: str) -> SpooledRun | None:
    with suppress(RunNotFoundError):
        return find_run(all_spools(), uid)[0]
    return None


def _spooled(run: Any, uid: str | None) -> SpooledRun:
    directories = all_spools()
    if isinstance(run, SpoolWriter):
        directories = [run.directory]
    elif isinstance(run, Path):
        directories = [existing_spool(run)]
    elif isinstance(run, str) and uid is None:
        uid = run
    elif run is not None:
        raise OptionError(f"{run!r} is nothing that can be followed; expected a writer, a spool, a catalog or a run.")
    if uid is not None:
        return find_run(directories, uid)[0]
    found = latest_run(directories)
    if found is None:
        raise RunNotFoundError(
            f"there is no run in {', '.join(map(str, directories)) or 'any spool of this user'}; expected one that was "
            f"begun."
        )
    return found
