"""The collections of MongoDB in which databroker keeps documents ("normalized": one document each), read directly.

What a tree of databroker makes of them, and what a migration reads, is in these; mongomock has the same.
"""

import heapq
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

from bluesky_filestore.errors import DocumentError

__all__ = ["Collections", "ids_in", "singles_once"]

_WITHOUT_ID = {"_id": False}
_MOST_DATUMS = 100_000


class Collections:
    """The documents of runs.

    Parameters
    ----------
    runs, assets : pymongo.database.Database
        Where runs and events, and where resources and datums are; mostly the same.
    """

    def __init__(self, runs: Any, assets: Any | None = None) -> None:
        self.faults: list[str] = []
        """What is no run although it should be, as `uids` has found it, in words."""
        self._runs, self._assets = runs, runs if assets is None else assets

    def close(self) -> None:
        """Close the connections to the database."""
        self._runs.client.close()

    def uids(self) -> Iterator[str]:
        """The uids of all runs, oldest first."""
        for each in self._runs["run_start"].find({}, {"uid": True}, sort=[("time", 1)]):
            if isinstance(each.get("uid"), str):
                yield each["uid"]
                continue
            words = f"the run_start with _id {each.get('_id')} has uid {each.get('uid')!r}; expected a text"
            self.faults += [words] * (words not in self.faults)

    def count(self) -> int:
        """How many runs there are."""
        return int(self._runs["run_start"].count_documents({}))

    def announced(self, name: str, ids: list[str]) -> set[str]:
        """Which of some resources or datums are there."""
        collection, field = ("resource", "uid") if name == "resource" else ("datum", "datum_id")
        found = self._assets[collection].find({field: {"$in": ids}}, {field: True})
        return {each[field] for each in found}

    def ids_of(self, run: str) -> set[str]:
        """What there is of a run, but for what it refers to."""
        found = {each["uid"] for each in self._runs["run_start"].find({"uid": run}, {"uid": True})}
        if not found:
            return found
        descriptors = [each["uid"] for each in self._runs["event_descriptor"].find({"run_start": run}, {"uid": True})]
        found.update(descriptors)
        events = self._runs["event"].find({"descriptor": {"$in": descriptors}}, {"uid": True})
        found.update(each["uid"] for each in events)
        found.update(each["uid"] for each in self._runs["run_stop"].find({"run_start": run}, {"uid": True}))
        return found

    def documents_of(self, run: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The documents of a run: descriptors and events by time, what an event refers to right before it.

        Raises
        ------
        DocumentError
            If there is no such run, or an event refers to what is not there.
        """
        start = self._runs["run_start"].find_one({"uid": run}, _WITHOUT_ID)
        if start is None:
            raise DocumentError(f"there is no run {run!r}; expected the whole uid of one.")
        yield "start", start
        descriptors = list(self._runs["event_descriptor"].find({"run_start": run}, _WITHOUT_ID, sort=[("time", 1)]))
        external = {each["uid"]: _external(each) for each in descriptors}
        assets = _Announced(self._assets)
        streams = (self._in_stream(number, each) for number, each in enumerate(descriptors))
        for _, _, _, name, doc in heapq.merge(*streams):
            if name == "event":
                yield from assets.referred(doc, external[doc["descriptor"]])
            yield name, doc
        stop = self._runs["run_stop"].find_one({"run_start": run}, _WITHOUT_ID)
        if stop is not None:
            yield "stop", stop

    def _in_stream(self, number: int, descriptor: Any) -> Iterator[tuple[float, int, int, str, Any]]:
        # The numbers decide between times that are equal, so that documents never have to be compared.
        yield descriptor["time"], number, 0, "descriptor", descriptor
        seen: set[str] = set()
        events = self._runs["event"].find({"descriptor": descriptor["uid"]}, _WITHOUT_ID, sort=[("time", 1)])
        for place, event in enumerate(events, 1):
            if event["uid"] not in seen:
                seen.add(event["uid"])
                yield max(event["time"], descriptor["time"]), number, place, "event", event


class _Announced:
    """Resources and datums as events refer to them, each once."""

    def __init__(self, assets: Any) -> None:
        self._assets = assets
        self._given: set[str] = set()
        self._datums: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._fetched: set[Any] = set()

    def referred(self, event: Mapping[str, Any], keys: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """What an event refers to and was not given yet."""
        for key in keys:
            datum_id, filled = event["data"].get(key), (event.get("filled") or {}).get(key)
            if not isinstance(datum_id, str) or filled is True or datum_id in self._given:
                continue
            self._given.add(datum_id)
            datum = self._datum(datum_id)
            if datum is None:
                # It is said by whoever reads it, as for a datum that never came.
                continue
            uid = str(datum["resource"])
            if uid not in self._given:
                self._given.add(uid)
                yield "resource", self._resource(datum["resource"])
            yield "datum", {**datum, "resource": uid}

    def _datum(self, datum_id: str) -> dict[str, Any] | None:
        if datum_id not in self._datums:
            found: dict[str, Any] | None = self._assets["datum"].find_one({"datum_id": datum_id}, _WITHOUT_ID)
            if found is None or found["resource"] in self._fetched:
                return found
            # All of a resource at once: one question for many events.
            self._fetched.add(found["resource"])
            for each in self._assets["datum"].find({"resource": found["resource"]}, _WITHOUT_ID).limit(_MOST_DATUMS):
                self._datums[each["datum_id"]] = each
            while len(self._datums) > _MOST_DATUMS:
                self._datums.popitem(last=False)
            return found
        return self._datums.pop(datum_id)

    def _resource(self, uid: Any) -> dict[str, Any]:
        found = self._assets["resource"].find_one({"uid": uid}, _WITHOUT_ID)
        if found is None:
            # Those of long ago have no uid, and are referred to by what MongoDB calls them.
            from bson.errors import InvalidId
            from bson.objectid import ObjectId

            try:
                found = self._assets["resource"].find_one({"_id": ObjectId(uid)}, _WITHOUT_ID)
            except (InvalidId, TypeError):
                found = None
        if found is None:
            raise DocumentError(f"there is no resource {uid!r}, to which datums refer; expected it among the others.")
        return {**found, "uid": str(uid)}


def _external(descriptor: Mapping[str, Any]) -> list[str]:
    return [key for key, entry in descriptor["data_keys"].items() if entry.get("external")]


def ids_in(name: str, doc: Mapping[str, Any]) -> list[str]:
    """What a document, or each one of a page, is known by."""
    found = doc["datum_id" if name in ("datum", "datum_page") else "uid"]
    return list(found) if isinstance(found, list | tuple) else [found]


def singles_once(documents: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Documents of one run without pages, and each only once: databroker gives a datum again with each event."""
    from bluesky_filestore.model.normalize import unpacked

    seen: set[str] = set()
    for name, doc in documents:
        for single_name, single in unpacked(name, doc):
            (known,) = ids_in(single_name, single)
            if known not in seen:
                seen.add(known)
                yield single_name, dict(single)
