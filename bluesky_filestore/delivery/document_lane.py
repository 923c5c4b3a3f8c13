"""The documents of one producer on their way to a catalog that holds documents: checked, and inserted as they came."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from bluesky_filestore.errors import DocumentError
from bluesky_filestore.logs import get_logger
from bluesky_filestore.model.normalize import unpacked
from bluesky_filestore.model.validate import schema_fault
from bluesky_filestore.operations.document_run import DocumentRun

from .lane import Lane

__all__ = ["DocumentLane"]

_logger = get_logger(__name__)
_REMEMBERED = 10_000
_RESOURCES = ("resource", "stream_resource")
_STREAMED = ("stream_resource", "stream_datum")


class DocumentLane(Lane):
    """As `Lane`, for a catalog that `takes_documents`: the order is checked, nothing is made of them.

    Resources and datums go with the run that they name, or with the only one that is open. Those of neither are kept in
    `_pending`, and go with the first run whose event refers to them, before that event. An event may come before its
    datum: what it refers to is in `_wanted` then, by the run. `_seen` has the last datums that came, `_homes` the run
    of each resource ("" if it is pending).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pending: dict[str, tuple[str, Mapping[str, Any]]] = {}
        self._wanted: dict[str, str] = {}
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._homes: OrderedDict[str, str] = OrderedDict()
        self._external: dict[str, list[str]] = {}

    def hand_on(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document, or a page of them; what is wrong with it is put among the problems."""
        self._is_gathered = False
        try:
            if name in _RESOURCES:
                self._announce(name, doc, str(doc["uid"]))
            elif name in ("datum", "datum_page", "bulk_datum"):
                self._take_datums(name, doc)
            else:
                self._take(name, doc)
        except DocumentError as error:
            self._problems.add(self._sequence.run_of(name, doc), str(error))
        except Exception as error:
            # Whatever we overlooked, it must not end somebody's experiment.
            _logger.exception("A %s document could not be written.", name)
            self._problems.add(self._sequence.run_of(name, doc), f"{name} document cannot be written: {error!r}")

    def _take(self, name: str, doc: Mapping[str, Any]) -> None:
        """A document of a run: as it came, if all of it is in order."""
        fine: list[tuple[str, Mapping[str, Any], str]] = []
        total = 0
        for single_name, single in unpacked(name, doc):
            total += 1
            try:
                fine.append((single_name, single, self._advance(single_name, single)))
            except DocumentError as error:
                self._problems.add(self._sequence.run_of(single_name, single), str(error))
        is_whole = len(fine) == total and not name.startswith("bulk")
        for single_name, single, uid in fine:
            self._insert_referred(single, uid)
            if not is_whole:
                self._follow(single_name, single, uid)
        if is_whole and fine:
            self._follow(name, doc, fine[0][2])

    def _advance(self, name: str, doc: Mapping[str, Any]) -> str:
        about = self._sequence.run_of(name, doc)
        if name == "stream_datum":
            return about
        if name == "descriptor":
            # Before it can be refused for coming twice, which changes nothing.
            self._external[str(doc.get("uid"))] = [
                key for key, entry in doc.get("data_keys", {}).items() if "external" in entry
            ]
        fault = schema_fault(name, doc) if self._settings.validate else ""
        about = self._sequence.advance(name, doc)
        if fault:
            self._problems.add(about, f"{name} {doc['uid']!r} is not of its schema: {fault}", lost=False)
        return about

    def _documents_of(self, start: Mapping[str, Any]) -> DocumentRun:
        return DocumentRun(start)

    def _take_datums(self, name: str, doc: Mapping[str, Any]) -> None:
        for single_name, single in unpacked(name, doc) if name == "bulk_datum" else [(name, doc)]:
            found = single["datum_id"]
            for datum_id in found if single_name == "datum_page" else [found]:
                self._seen[datum_id] = None
                if len(self._seen) > _REMEMBERED:
                    self._seen.popitem(last=False)
            self._announce(single_name, single, *(found if single_name == "datum_page" else [found]))

    def _announce(self, name: str, doc: Mapping[str, Any], *ids: str) -> None:
        if name in _RESOURCES:
            home = self._home(str(doc.get("run_start", "")))
            self._homes[ids[0]] = home
            if len(self._homes) > _REMEMBERED:
                self._homes.popitem(last=False)
        else:
            home = self._home(self._homes.get(doc["resource"], self._only_open))
        asking = next((self._wanted.pop(each) for each in ids if each in self._wanted), "")
        if home:
            self._with_run(home, name, doc, is_shared=False)
            return
        self._pending |= dict.fromkeys(ids, (name, doc))
        if asking:
            self._insert_pending(ids[0], asking)

    def _home(self, uid: str) -> str:
        """The run that an announcement goes with: the open one that it names, or the only one if it names none."""
        return (uid if self._is_open(uid) else "") if uid else self._only_open

    @property
    def _only_open(self) -> str:
        runs = [uid for uid in self.runs if self._is_open(uid)]
        return runs[0] if len(runs) == 1 else ""

    def _is_open(self, uid: str) -> bool:
        return uid in self.runs and self.runs[uid].is_open

    def _insert_referred(self, event: Mapping[str, Any], uid: str) -> None:
        """What an event refers to goes before it, if it was not inserted yet."""
        filled = event.get("filled") or {}
        for key in self._external.get(str(event.get("descriptor")), ()):
            datum_id = event.get("data", {}).get(key)
            if not isinstance(datum_id, str) or filled.get(key) is True:
                continue
            if datum_id in self._pending:
                self._insert_pending(datum_id, uid)
            elif datum_id not in self._seen:
                self._wanted[datum_id] = uid

    def _insert_pending(self, datum_id: str, uid: str) -> None:
        _, doc = self._pending[datum_id]
        resource = doc.get("resource", "")
        for known in (resource, datum_id):
            if known in self._pending:
                self._with_run(uid, *self._pending[known], is_shared=True)
        for known in [known for known, kept in self._pending.items() if kept[1] is doc] + [resource]:
            self._pending.pop(known, None)

    def _with_run(self, uid: str, name: str, doc: Mapping[str, Any], *, is_shared: bool) -> None:
        run = self.runs.get(uid)
        if run is not None and isinstance(run.documents, DocumentRun):
            run.documents.receive(name, doc, is_shared=is_shared)
            self._note_losses(run, run.documents)
