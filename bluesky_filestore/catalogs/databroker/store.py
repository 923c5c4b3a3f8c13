"""Documents put into a catalog of databroker, each once.

databroker's own `insert` asks nothing: whether a document that comes twice is there twice depends on indexes that its
administrator may have made, and a Resource always is. So a run that is there already is asked for, before anything is
put into it; what is there is left out. Two ways lead into the same collections, with the same documents:

==============  ====================================  ===========================================================
the tree is     documents go                          what is there
==============  ====================================  ===========================================================
in this         by databroker's serializer            the collections know, document by document
process
behind a        by ``POST /documents``, one request   ``GET /documents`` and, as that keeps back the last page of a
server          a document, tried once                run that goes on, the times of events by their `seq_num`
==============  ====================================  ===========================================================

A server may say what was so two seconds ago, so nothing is asked for as long after a request that may have been carried
out. What it says of a run that goes on takes for granted that documents came in their order and clocks go forward;
when such a run is closed it is looked at again, and what it lacks then is an error.

Between calls `_known` has what was found of each run that goes on; it is empty for a run that was begun by us and whose
every answer came. It is for the thread that delivers. Of a tree in this process it belongs to the tree, has what was
put there as well, and is for whoever holds its lock: of several writers that pass on one run each document is there
once.
"""

import base64
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from bluesky_filestore.errors import CatalogError
from bluesky_filestore.logs import get_logger
from bluesky_filestore.model.normalize import unpacked
from bluesky_filestore.operations.operations import CheckRun, CloseRun, EndStreams, InsertDocument, Operation

from .broker import collections_of, tree_of
from .collections import ids_in

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = ["DocumentStore"]

_logger = get_logger(__name__)
# As long as databroker's tree keeps what it knows of a run that goes on (`cache_ttl_partial`), and a little more.
_STALE_SECONDS = 2.5
_TIMEOUT = 30.0
_ANNOUNCEMENTS = ("resource", "datum", "datum_page")


@dataclass(slots=True)
class _Known:
    """What a catalog has of a run, as far as it says."""

    ids: set[str] = field(default_factory=set)
    """The uids of its documents, and datum ids."""
    was_begun: bool = False
    """Whether it was there already."""
    times: dict[str, Sequence[float]] = field(default_factory=dict)
    """The time of the last event of each `seq_num`, by descriptor, where that has to tell."""
    wanted: set[str] = field(default_factory=set)
    """Of a run that was there already: what it shall have in the end."""

    def has(self, name: str, doc: Mapping[str, Any]) -> bool:
        """Whether a single document is there."""
        if ids_in(name, doc)[0] in self.ids:
            return True
        times = self.times.get(doc["descriptor"], ()) if name == "event" else ()
        return bool(doc["seq_num"] <= len(times) and times[doc["seq_num"] - 1] >= doc["time"]) if len(times) else False


@dataclass(slots=True)
class _Shared:
    """What is known of the runs in a catalog."""

    runs: dict[str, _Known] = field(default_factory=dict)
    """By their uids."""
    lock: threading.RLock = field(default_factory=threading.RLock)
    """To be held while it is looked at or changed."""


def _shared_by(tree: Any | None) -> _Shared:
    """What whoever writes to a tree in this process knows together; else a new one."""
    if tree is None:
        return _Shared()
    if not hasattr(tree, "_bluesky_filestore_known"):
        tree._bluesky_filestore_known = _Shared()
    found: _Shared = tree._bluesky_filestore_known
    return found


class DocumentStore:
    """The documents in a catalog of databroker.

    Parameters
    ----------
    client : tiled.client.container.Container
        A client of it.
    """

    def __init__(self, client: "Container") -> None:
        self._client = client
        self._tree, self._here = tree_of(client), collections_of(client)
        self._shared = _shared_by(self._tree)
        self._known = self._shared.runs
        self._quiet_since = time.monotonic()

    def apply(self, operation: Operation) -> None:
        """Do what an operation says; raises as the methods below.

        Raises
        ------
        CatalogError
            If it is one for a tree of nodes.
        """
        match operation:
            case InsertDocument():
                self.insert(operation)
            case EndStreams():
                pass
            case CloseRun():
                self.close_run(operation.run)
            case CheckRun():
                self.check_run(operation.run)
            case _:
                raise CatalogError(
                    f"the catalog holds documents; expected one of them, and no {type(operation).__name__}."
                )

    def insert(self, operation: InsertDocument) -> None:
        """Put a document there, unless it is there already.

        Raises
        ------
        CatalogError
            If the server refuses it.
        """
        with self._shared.lock:
            self._insert(operation)

    def _insert(self, operation: InsertDocument) -> None:
        run, name = operation.run, operation.name
        if run not in self._known:
            self._known[run] = self._look_at(run)
        known, doc = self._known[run], _plain(operation.document, f"{name} of run {run}")
        if self._here is not None and name in _ANNOUNCEMENTS and (known.was_begun or operation.is_shared):
            # What no event has referred to yet is nowhere else to be seen.
            known.ids |= self._here.announced(name, ids_in(name, doc))
        singles = [(each_name, dict(each)) for each_name, each in unpacked(name, doc)]
        missing = [pair for pair in singles if not known.has(*pair)]
        if known.was_begun and name not in _ANNOUNCEMENTS:
            known.wanted.update(ids_in(name, doc))
        # A page goes as it is, but for one of which some is there.
        for pair in [(name, doc)] if len(missing) == len(singles) else missing:
            self._put(*pair)
            if self._here is not None:
                known.ids.update(ids_in(*pair))

    def forget(self, run: str | None = None) -> None:
        """Take nothing for known, of one run or of all; a request may be on its way to it."""
        self._quiet_since = time.monotonic()
        with self._shared.lock:
            if run is None:
                self._known.clear()
            else:
                self._known.pop(run, None)

    def close_run(self, run: str) -> None:
        """See that a run that was there already has all of it.

        Raises
        ------
        CatalogError
            If it lacks something.
        """
        with self._shared.lock:
            known = self._known.pop(run, None)
        if known is None or not known.wanted or self._here is not None:
            return
        self._quiet_since = time.monotonic()
        lacking = known.wanted - {each for name, doc in self._documents_of(run) for each in ids_in(name, doc)}
        if lacking:
            raise CatalogError(
                f"the catalog lacks {len(lacking)} documents of run {run}, such as {min(lacking)!r}, although it said "
                f"that it had them; `bluesky-filestore resume --run {run}` delivers them."
            )

    def check_run(self, run: str) -> None:
        """See that a run holds nothing twice.

        Raises
        ------
        CatalogError
            If it does: there is no request that takes a document out again.
        """
        seen: set[str] = set()
        for name, doc in self._documents_of(run):
            for each in ids_in(name, doc):
                if each in seen and name not in _ANNOUNCEMENTS:
                    raise CatalogError(
                        f"the catalog holds {name} {each!r} of run {run} twice, since it carried out a request that it "
                        f"had not answered; expected once. databroker reads the last of them."
                    )
                seen.add(each)

    def _put(self, name: str, doc: dict[str, Any]) -> None:
        if self._tree is not None:
            self._tree.get_serializer()(name, doc)
            return
        link = self._client.item["links"]["self"].replace("/metadata", "/documents", 1)
        body = json.dumps({"name": name, "doc": doc}).encode()
        # Not the client's post_document: it tries again by itself, and a document would be there twice.
        http_client = self._client.context.http_client
        # That of an application in this process has no timeouts.
        options = {} if hasattr(http_client, "app") else {"timeout": _TIMEOUT}
        answer = http_client.post(link, content=body, headers={"Content-Type": "application/json"}, **options)
        answer.raise_for_status()

    def _look_at(self, run: str) -> _Known:
        """What there is of a run; nothing if that was never begun."""
        known = _Known()
        if self._here is not None:
            known.ids = self._here.ids_of(run)
            known.was_begun = bool(known.ids)
            return known
        is_stopped = False
        for name, doc in self._documents_of(run):
            known.ids.update(ids_in(name, doc))
            is_stopped = name == "stop"
        known.was_begun = bool(known.ids)
        if known.ids and not is_stopped:
            known.times = times_of_events(self._node(run))
        return known

    def _documents_of(self, run: str) -> Iterator[tuple[str, Any]]:
        if self._node(run) is None:
            return
        time.sleep(max(0.0, self._quiet_since + _STALE_SECONDS - time.monotonic()))
        yield from self._node(run).documents()

    def _node(self, run: str) -> Any:
        from tiled.queries import Eq

        # Not by the key: a beginning of a uid would find a run, too.
        return next(iter(self._client.search(Eq("uid", run)).values().head(1)), None)


def times_of_events(run: Any) -> dict[str, Sequence[float]]:
    """The time of the last event of each `seq_num` of a run's streams, by the uids of their descriptors.

    A stream whose server cannot say so, as of one with several descriptors, is left out.
    """
    from tiled.client.utils import ClientError

    times: dict[str, Sequence[float]] = {}
    for name in run:
        stream = run[name]
        try:
            column = stream["timestamps"]["time"]
            found = column.read().tolist() if column.shape[0] else []
        except (ClientError, httpx.HTTPStatusError) as error:
            _logger.warning("Which events of stream %s are there cannot be told (%s).", name, error)
            continue
        times |= dict.fromkeys((each["uid"] for each in stream.metadata["descriptors"]), found)
    return times


def _plain(doc: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The document as databroker would make it of this one, with text for what it has no type for."""
    from event_model import NumpyEncoder

    numpy_types = NumpyEncoder()
    changed: list[str] = []

    def default(value: Any) -> Any:
        try:
            return numpy_types.default(value)
        except TypeError:
            changed.append(type(value).__name__)
            if isinstance(value, bytes):
                return base64.b64encode(value).decode()
            return value.isoformat() if hasattr(value, "isoformat") else str(value)

    plain: dict[str, Any] = json.loads(json.dumps(doc, default=default))
    if changed:
        _logger.warning("A %s has values that databroker has no type for (%s); they are text there.", what, changed[0])
    return plain
