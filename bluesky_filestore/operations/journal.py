"""The documents of a run that its tree does not hold, in their order, for the records of its events."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from bluesky_filestore.model.event_record import NamedDocument
from bluesky_filestore.model.frame_map import Assets

__all__ = ["Journal"]

_REMEMBERED = 10_000
_MOST_PENDING = 10_000


class Journal:
    """Gathers what came between two events of a run, and numbers the events.

    A resource or datum is told before the first event (or stream_datum) that uses it; one that nothing uses is not.
    Between two events, or after the last one, no more than some thousand documents are kept: then stream_datums that
    continue one another are joined into one, and what cannot be joined is counted.

    Parameters
    ----------
    assets : Assets
        Resources and datums of this and all other runs.
    """

    def __init__(self, assets: Assets) -> None:
        self._assets = assets
        self._pending: list[NamedDocument] = []
        self._resources: set[str] = set()
        self._datums: OrderedDict[str, None] = OrderedDict()
        self._late: OrderedDict[str, None] = OrderedDict()
        self._last_range: dict[tuple[str, str], int] = {}
        self._events = 0
        self.joined = 0
        """How many stream_datums were joined to the one before."""
        self.left_out = 0
        """How many documents were not kept."""

    def add(self, name: str, doc: Mapping[str, Any]) -> None:
        """A document came that has its own place in the order."""
        if name == "stream_datum":
            self._tell_resource(doc["stream_resource"])
            if self._joins(doc):
                return
        self._append(name, doc)

    def add_event(self, datum_ids: Mapping[str, Any]) -> tuple[int, tuple[NamedDocument, ...]]:
        """An event came that names these datums.

        Returns
        -------
        tuple of int and tuple
            Its number, and what came before it.
        """
        while self._late and self._tell_datum(next(iter(self._late))):
            self._late.popitem(last=False)
        for datum_id in datum_ids.values():
            if isinstance(datum_id, str) and not self._tell_datum(datum_id):
                self._late[datum_id] = None
        before, self._pending, self._last_range = tuple(self._pending), [], {}
        self._events += 1
        return self._events - 1, before

    def look_for_late(self) -> None:
        """Tell the datums that came after their events, before others push them out of memory."""
        for datum_id in list(self._late):
            if self._tell_datum(datum_id):
                del self._late[datum_id]

    def rest(self) -> tuple[NamedDocument, ...]:
        """What came after the last event."""
        self.look_for_late()
        return tuple(self._pending)

    def _append(self, name: str, doc: Mapping[str, Any]) -> None:
        if name in ("datum", "stream_datum") and len(self._pending) >= _MOST_PENDING:
            self.left_out += 1
            return
        if name == "stream_datum":
            self._last_range[doc["stream_resource"], doc["descriptor"]] = len(self._pending)
        self._pending.append((name, doc))

    def _joins(self, doc: Mapping[str, Any]) -> bool:
        """Join a stream_datum to the last one of its kind, if there are too many and it continues that."""
        position = self._last_range.get((doc["stream_resource"], doc["descriptor"]))
        if position is None or len(self._pending) < _MOST_PENDING:
            return False
        last = self._pending[position][1]
        ranges = {}
        for name in ("indices", "seq_nums"):
            if last[name]["stop"] != doc[name]["start"]:
                return False
            ranges[name] = {"start": last[name]["start"], "stop": doc[name]["stop"]}
        self._pending[position] = ("stream_datum", {**doc, **ranges})
        self.joined += 1
        return True

    def _tell_datum(self, datum_id: str) -> bool:
        if datum_id in self._datums:
            return True
        doc = self._assets.datum_document(datum_id)
        if doc is None:
            return False
        self._tell_resource(doc["resource"])
        self._append("datum", doc)
        self._datums[datum_id] = None
        if len(self._datums) > _REMEMBERED:
            self._datums.popitem(last=False)
        return True

    def _tell_resource(self, uid: str) -> None:
        if uid not in self._resources and uid in self._assets.documents:
            self._resources.add(uid)
            self._pending.append(self._assets.documents[uid])
