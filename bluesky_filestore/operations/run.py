"""Documents of one run in, operations out.

What had to be said of the run beside its documents stands in its metadata: ``notes`` (sentences) and ``filestore``,
with ``refused``, ``missing``, ``unverified``, ``differences``, ``unreadable``, ``uncollected``, by stream and data key.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from numbers import Integral
from typing import Any, TypeVar

from bluesky_filestore.errors import CatalogAccessError, CatalogUnreachableError, DocumentError
from bluesky_filestore.logs import get_logger
from bluesky_filestore.model.event_record import AS_USUAL, EventRecord, descriptors_of, differences, exact_json
from bluesky_filestore.model.frame_map import Assets
from bluesky_filestore.model.normalize import range_of, renamed_keys
from bluesky_filestore.model.schema_errors import schema_errors

from . import placement
from .announcing import announce
from .arrays import ExternalArrays
from .columns import plain
from .event_table import EventTable
from .gathering import GatheredEvent, Numbering
from .journal import Journal
from .operations import CloseRun, CreateStream, Operation, UpdateStream
from .run_metadata import create_run, sentences, unstored

__all__ = ["Run", "announce"]

_logger = get_logger(__name__)
_Made = TypeVar("_Made")
_MOST_LISTED, _MOST_SHOWN = 10, 60
_NOT_IN_STREAM_METADATA = ("name", "object_keys", "run_start")


@dataclass(slots=True)
class _Stream:
    """What a run knows of one of its streams."""

    data_keys: dict[str, dict[str, Any]]
    """The descriptor's data keys, under the names they have in the catalog."""
    renamed: dict[str, str]
    """Names of keys that are others in the catalog."""
    table: EventTable
    """The events."""
    external: frozenset[str]
    """The keys that are external."""
    metadata: Mapping[str, Any]
    """The metadata of its container."""
    descriptors: dict[str, int] = field(default_factory=dict)
    """The uids of its descriptors, and which of them each is."""
    updates: list[dict[str, Any]] = field(default_factory=list)
    """What later descriptors of the stream said of its configuration."""
    numbering: Numbering = field(default_factory=Numbering)
    """The sequence numbers of its events."""


class Run:
    """Turns the documents of one run into operations.

    Parameters
    ----------
    start : Mapping
        The RunStart document.
    assets : Assets
        Resources and datums of this and all other runs.
    inspect : Inspector
        Looks at files.
    reads : Reads
        Says whether the catalog's server has our own adapters. By default it has none.
    stamp : Stamper
        Says at the end of the run what its files are like. By default nobody asks.
    sizes_of : SizesOf
        Says how large they are. By default nobody sees them.
    view : Viewer, optional
        Makes files for what no stock adapter can address.
    """

    def __init__(
        self,
        start: Mapping[str, Any],
        assets: Assets,
        inspect: placement.Inspector,
        reads: placement.Reads = placement.reads_nothing_of_ours,
        stamp: placement.Stamper = placement.stamps_nothing,
        sizes_of: placement.SizesOf = placement.knows_no_sizes,
        view: placement.Viewer | None = None,
    ) -> None:
        self.uid: str = start["uid"]
        self._assets = assets
        self.arrays = ExternalArrays(self.uid, assets, inspect, reads, stamp, sizes_of, view)
        self._journal = Journal(assets)
        self._streams: dict[str, _Stream] = {}
        self._stream_of: dict[str, str] = {}
        self._notes: list[str] = []
        self._losses: list[str] = []
        self._stop_doc: Any = None
        self._closing: CloseRun | None = None
        created = create_run(start, self._stored, self.note)
        self._said: dict[str, str] = unstored("start", start, created.metadata["start"])
        if self._said:
            created = replace(created, metadata={**created.metadata, "documents": dict(self._said)})
        self._pending: list[Operation] = [created]

    def note(self, sentence: str) -> None:
        """Put a sentence into the run's metadata, once."""
        if sentence not in self._notes:
            self._notes.append(sentence)

    def _stored(self, what: str, value: Any) -> Any:
        """The value as metadata hold it, with a note of what cannot be there as it was."""
        changed: dict[str, str] = {}
        stored = plain(value, changed)
        if changed:
            shown = ", ".join(f"{path} ({text[:_MOST_SHOWN]})" for path, text in list(changed.items())[:_MOST_LISTED])
            self.note(
                f"Of {what}, {len(changed)} values are null or text here, since JSON has nothing for them: {shown}. "
                f"documents() has them as they came."
            )
        return stored

    def receive(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document: a descriptor, an event, a stream_datum or the stop.

        Raises
        ------
        DocumentError
            If the document cannot be understood; the run goes on without it.
        CatalogUnreachableError
            At a stop, as `take`: the stop has not been received then and can be given again.
        """
        with schema_errors(name, doc, f" of run {self.uid!r}"):
            match name:
                case "descriptor":
                    self._descriptor(doc)
                case "event":
                    self._event(doc)
                case "stream_datum":
                    self._stream_datum(doc)
                case "stop":
                    self._stop(doc)

    def ask_what_is_read(self) -> None:
        """Ask what the server reads, if that matters and was not asked yet; raises as `take` does."""
        self.arrays.ask()

    def take(self, *, final: bool = False) -> list[Operation]:
        """The operations that the documents so far ask for and that were not taken yet.

        Raises
        ------
        CatalogUnreachableError
            If nobody can say what the server reads; nothing has been taken then.
        """
        self.arrays.ask()
        self._journal.look_for_late()
        for name, stream in self._streams.items():
            self._pending += self._made(f"events of stream '{name}'", partial(stream.table.take, final=final))
            self._losses += stream.table.take_losses()
        self._pending += self._made("arrays of frames", lambda: self.arrays.take(final=final))
        # Taken out when all of it is made: whatever goes wrong costs nothing else.
        operations, self._pending = self._pending, []
        return operations

    def take_losses(self) -> list[str]:
        """What could not be made an operation since the last time, in words; all else was."""
        losses, self._losses = self._losses, []
        return losses

    def _made(self, what: str, make: Callable[[], Iterable[_Made]]) -> list[_Made]:
        """What is made of something; nothing, which is said, if that fails."""
        try:
            return list(make())
        except (CatalogUnreachableError, CatalogAccessError):
            raise
        except Exception as error:
            _logger.exception("The %s of run %s could not be made ready.", what, self.uid)
            self._losses.append(f"{what} cannot be written: {error!r}")
            return []

    def _descriptor(self, doc: Mapping[str, Any]) -> None:
        name = doc["name"]
        described = self._later_descriptor if name in self._streams else self._first_descriptor
        metadata = described(name, doc)
        stream = self._streams[name]
        stored = descriptors_of(self.uid, name, metadata)[-1]
        more = differences(doc, stored)
        surplus = {"without": [entry for entry in stored if entry not in doc], "renamed": stream.renamed}
        told = {key: value for key, value in {"entries": more, **surplus}.items() if value}
        self._journal.add("descriptor", {"stream": name, "uid": doc["uid"], **told})
        stream.descriptors[doc["uid"]] = len(stream.descriptors)
        self._stream_of[doc["uid"]] = name

    def _first_descriptor(self, name: str, doc: Mapping[str, Any]) -> Mapping[str, Any]:
        renamed = renamed_keys(doc["data_keys"])
        data_keys: dict[str, dict[str, Any]] = plain(_data_keys(doc, renamed))
        for old, new in renamed.items():
            self.note(f"Data key '{old}' of stream '{name}' is called '{new}' here.")
        external = frozenset(key for key, entry in data_keys.items() if "external" in entry)
        metadata = {key: value for key, value in doc.items() if key not in _NOT_IN_STREAM_METADATA}
        stored: Mapping[str, Any] = self._stored(
            f"the descriptor of stream '{name}'", {**metadata, "data_keys": data_keys}
        )
        table = EventTable(self.uid, name, data_keys)
        self._streams[name] = _Stream(data_keys, renamed, table, external, stored)
        for key in external:
            self.arrays.describe(name, key, data_keys[key])
        self._pending.append(CreateStream(self.uid, name, stored))
        return stored

    def _later_descriptor(self, name: str, doc: Mapping[str, Any]) -> Mapping[str, Any]:
        stream = self._streams[name]
        later = {key: doc[key] for key in ("uid", "time", "configuration") if key in doc}
        update = self._stored(f"a later descriptor of stream '{name}'", later)
        stream.updates.append(update)
        self._pending.append(UpdateStream(self.uid, name, {"_config_updates": list(stream.updates)}))
        return {**stream.metadata, "_config_updates": [update]}

    def _event(self, doc: Mapping[str, Any]) -> None:
        name = self._stream_of[doc["descriptor"]]
        stream = self._streams[name]
        data, timestamps, filled = doc["data"], doc["timestamps"], doc.get("filled")
        _check_event(data, timestamps, filled, doc["seq_num"])
        if stream.renamed:
            data, timestamps = _renamed(data, stream.renamed), _renamed(timestamps, stream.renamed)
            filled = _renamed(filled, stream.renamed) if filled else filled
        unknown = data.keys() - stream.data_keys.keys()
        if unknown:
            self.note(
                f"Keys {sorted(unknown)} of events of stream '{name}' are not in its descriptor; they have no columns."
            )
        datum_ids = {key: data[key] for key in stream.external if _is_datum_id(data.get(key), key, filled)}
        as_usual = filled == {key: False for key in stream.external if key in data}
        if datum_ids:
            data = {key: value for key, value in data.items() if key not in datum_ids}
        uid, seq_num, when, which = doc["uid"], doc["seq_num"], doc["time"], stream.descriptors[doc["descriptor"]]
        # Nothing may go wrong from here on: frames, table and journal have to have the same events.
        self.arrays.frames.add_event(name, seq_num, datum_ids)
        number, before = self._journal.add_event(datum_ids)
        record = EventRecord(number, uid, which, before, datum_ids, filled=AS_USUAL if as_usual else filled)
        stream.numbering.add(seq_num)
        stream.table.add(GatheredEvent(seq_num, when, data, timestamps, record))

    def _stream_datum(self, doc: Mapping[str, Any]) -> None:
        name, uid = self._stream_of[doc["descriptor"]], doc["stream_resource"]
        if uid in self._assets.unusable:
            self.arrays.refuse(name, self._only_stream_key(name), self._assets.unusable[uid])
            self._journal.add("stream_datum", doc)
            return
        key = self._assets.sources[uid].data_key or self._only_stream_key(name)
        key = self._streams[name].renamed.get(key, key)
        if "external" not in self._streams[name].data_keys.get(key, {}):
            raise DocumentError(
                f"stream_datum {doc['uid']!r} is for data key {key!r}, which is no external key of stream {name!r}"
            )
        self.arrays.frames.add_range(name, key, range_of(doc))
        self._journal.add("stream_datum", doc)

    def _only_stream_key(self, name: str) -> str:
        keys = [key for key, entry in self._streams[name].data_keys.items() if "external" in entry]
        return keys[0] if len(keys) == 1 else "?"

    def _stop(self, doc: Mapping[str, Any]) -> None:
        self.arrays.ended = doc.get("time")
        self._end()
        self._stop_doc = self._stored("the stop", doc)
        self._said |= unstored("stop", doc, self._stop_doc)
        self._pending.append(self._close())

    def _end(self) -> None:
        """Make all operations but the last, and all notes; they stay pending."""
        self._pending = self.take(final=True)
        for name, stream in self._streams.items():
            for sentence in self._made(f"notes of stream '{name}'", stream.table.all_notes):
                self.note(sentence)
            for sentence in stream.numbering.notes(name):
                self.note(sentence)
        for sentence in self._made("notes of frames", self.arrays.notes):
            self.note(sentence)
        rest = self._journal.rest()
        for text in self._made("documents before the stop", lambda: [exact_json(rest)] if rest else []):
            self._said["before_stop"] = text
        if self._journal.joined:
            self.note(f"documents() gives {self._journal.joined} stream_datums joined to those before them.")
        if self._journal.left_out:
            self.note(f"documents() lacks {self._journal.left_out} documents that came between two events.")

    def end_without_stop(self, reason: str) -> list[Operation]:
        """What is left to be done for a run whose stop document will not come, with the reason as a note."""
        self._end()
        self.note(reason)
        closing = self._close()
        entries = {name: entry for name, entry in closing.metadata.items() if name != "stop"}
        operations, self._pending = self._pending, []
        return [*operations, replace(closing, metadata=entries)]

    @property
    def settled(self) -> bool:
        """Whether looking at its files again will not help."""
        return self.arrays.settled

    @property
    def is_looking(self) -> bool:
        """Whether somebody still looks for frames in its files."""
        return self.arrays.is_looking

    def settle(self) -> list[Operation]:
        """After the stop: what has become known of its files."""
        operations, before = self.arrays.take(final=True), self._closing
        closing = self._close()
        return [*operations, closing] if operations or closing != before else []

    def _close(self) -> CloseRun:
        said = self.arrays.said({name: stream.table for name, stream in self._streams.items()})
        notes = [*self._notes, *sentences(said)]
        entries = {"stop": self._stop_doc, "filestore": plain(said), "notes": notes, "documents": dict(self._said)}
        self._closing = CloseRun(self.uid, entries)
        return self._closing


def _check_event(data: Any, timestamps: Any, filled: Any, seq_num: Any) -> None:
    """Raise where an event would cost those that are written together with it."""
    for what, value in (("data", data), ("timestamps", timestamps), ("filled", filled or {})):
        if not isinstance(value, Mapping):
            raise TypeError(f"its {what} are {value!r}; expected a mapping")
    if not isinstance(seq_num, Integral):
        raise TypeError(f"its seq_num is {seq_num!r}; expected a whole number")


def _data_keys(doc: Mapping[str, Any], renamed: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    data_keys = {renamed.get(key, key): dict(entry) for key, entry in doc["data_keys"].items()}
    for entry in data_keys.values():
        if "external" in entry and entry["external"] is None:
            # The schema of today wants a string.
            entry["external"] = ""
    for object_name, keys in doc.get("object_keys", {}).items():
        for key in keys:
            data_keys[renamed.get(key, key)].setdefault("object_name", object_name)
    return data_keys


def _is_datum_id(value: Any, key: str, filled: Mapping[str, Any] | None) -> bool:
    # What is no text is the array itself, whatever filled says.
    return isinstance(value, str) and not (filled and filled.get(key))


def _renamed(entries: Mapping[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
    return {renamed.get(key, key): value for key, value in entries.items()}
