"""Documents of one run in, operations out.

What had to be said of the run beside its documents stands in its metadata: ``notes`` (sentences) and ``filestore``,
with ``refused``, ``missing``, ``unverified`` and ``differences``, each by stream and data key.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bluesky_filestore.errors import DocumentError, FileStoreError
from bluesky_filestore.frames import Assets
from bluesky_filestore.normalize import (
    indices_of,
    range_of,
    renamed_keys,
    source_of_resource,
    source_of_stream_resource,
)

from .arrays import ExternalArrays
from .columns import plain
from .event_table import EventTable
from .operations import CloseRun, CreateRun, CreateStream, Operation, UpdateStream
from .placement import Inspector

__all__ = ["Run", "announce"]

_NOT_IN_STREAM_METADATA = ("name", "object_keys", "run_start")


def announce(name: str, doc: Mapping[str, Any], assets: Assets) -> None:
    """Make a Resource, StreamResource or Datum known. What cannot be followed is known as such, with the reason."""
    uid = doc["datum_id"] if name == "datum" else doc["uid"]
    try:
        if name == "datum":
            assets.add_datum(uid, doc["resource"], *indices_of(doc))
        elif name == "resource":
            assets.add_source(source_of_resource(doc))
        else:
            assets.add_source(source_of_stream_resource(doc))
    except FileStoreError as error:
        assets.add_unusable(uid, str(error))


@dataclass(slots=True)
class _Stream:
    """What a run knows of one of its streams."""

    data_keys: dict[str, dict[str, Any]]
    """The descriptor's data keys, under the names they have in the catalog."""
    renamed: dict[str, str]
    """Names of keys that are others in the catalog."""
    table: EventTable
    """The events."""
    updates: list[dict[str, Any]] = field(default_factory=list)
    """What later descriptors of the stream said of its configuration."""


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
    """

    def __init__(self, start: Mapping[str, Any], assets: Assets, inspect: Inspector) -> None:
        self.uid: str = start["uid"]
        self._assets = assets
        self._arrays = ExternalArrays(self.uid, assets, inspect)
        self._streams: dict[str, _Stream] = {}
        self._stream_of: dict[str, str] = {}
        self._notes: list[str] = []
        self._stop_doc: Any = None
        self._pending: list[Operation] = [_create_run(start)]

    @property
    def waiting(self) -> int:
        """How many events have not become operations yet."""
        return sum(len(stream.table) for stream in self._streams.values())

    @property
    def descriptors(self) -> Iterable[str]:
        """The uids of its descriptors."""
        return self._stream_of

    def note(self, sentence: str) -> None:
        """Put a sentence into the run's metadata, once."""
        if sentence not in self._notes:
            self._notes.append(sentence)

    def receive(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document: a descriptor, an event, a stream_datum or the stop.

        Raises
        ------
        DocumentError
            If the document cannot be understood; the run goes on without it.
        """
        try:
            match name:
                case "descriptor":
                    self._descriptor(doc)
                case "event":
                    self._event(doc)
                case "stream_datum":
                    self._stream_datum(doc)
                case "stop":
                    self._stop(doc)
        except KeyError as error:
            raise DocumentError(
                f"{name} {doc.get('uid')!r} of run {self.uid!r} has no (or refers to an unknown) {error}"
            ) from error
        except (TypeError, AttributeError, ValueError) as error:
            if isinstance(error, DocumentError):
                raise
            raise DocumentError(
                f"{name} {doc.get('uid')!r} of run {self.uid!r} is not of its schema: {error}"
            ) from error

    def take(self, *, final: bool = False) -> list[Operation]:
        """The operations that the documents so far ask for and that were not taken yet."""
        operations, self._pending = self._pending, []
        for stream in self._streams.values():
            operations += stream.table.take()
        return operations + self._arrays.take(final=final)

    def _descriptor(self, doc: Mapping[str, Any]) -> None:
        name = doc["name"]
        if name in self._streams:
            self._later_descriptor(name, doc)
        else:
            renamed = renamed_keys(doc["data_keys"])
            data_keys = _data_keys(doc, renamed)
            for old, new in renamed.items():
                self.note(f"Data key '{old}' of stream '{name}' is called '{new}' here.")
            self._streams[name] = _Stream(data_keys, renamed, EventTable(self.uid, name, data_keys))
            for key, entry in data_keys.items():
                if "external" in entry:
                    self._arrays.describe(name, key, entry)
            metadata = {key: value for key, value in doc.items() if key not in _NOT_IN_STREAM_METADATA}
            self._pending.append(CreateStream(self.uid, name, plain({**metadata, "data_keys": data_keys})))
        self._stream_of[doc["uid"]] = name

    def _later_descriptor(self, name: str, doc: Mapping[str, Any]) -> None:
        stream = self._streams[name]
        update = {key: doc[key] for key in ("uid", "time", "configuration") if key in doc}
        stream.updates.append(plain(update))
        self._pending.append(UpdateStream(self.uid, name, {"_config_updates": list(stream.updates)}))

    def _event(self, doc: Mapping[str, Any]) -> None:
        name = self._stream_of[doc["descriptor"]]
        stream = self._streams[name]
        data, timestamps, seq_num, when = doc["data"], doc["timestamps"], doc["seq_num"], doc["time"]
        if stream.renamed:
            data = {stream.renamed.get(key, key): value for key, value in data.items()}
            timestamps = {stream.renamed.get(key, key): value for key, value in timestamps.items()}
        unknown = data.keys() - stream.data_keys.keys()
        if unknown:
            self.note(f"Keys {sorted(unknown)} of events of stream '{name}' are not in its descriptor; left out.")
        filled = doc.get("filled", {})
        datum_ids = {
            key: value
            for key, value in data.items()
            if "external" in stream.data_keys.get(key, {}) and not filled.get(_original(stream, key))
        }
        if datum_ids:
            data = {key: value for key, value in data.items() if key not in datum_ids}
        # Nothing may go wrong between the two: both have to have the same rows.
        self._arrays.frames.add_event(name, seq_num, datum_ids)
        stream.table.add({"seq_num": seq_num, "time": when, "data": data, "timestamps": timestamps})

    def _stream_datum(self, doc: Mapping[str, Any]) -> None:
        name, uid = self._stream_of[doc["descriptor"]], doc["stream_resource"]
        if uid in self._assets.unusable:
            self._arrays.refuse(name, self._only_stream_key(name), self._assets.unusable[uid])
            return
        if uid not in self._assets.sources:
            raise DocumentError(f"stream_datum {doc['uid']!r} refers to the unknown stream_resource {uid!r}")
        key = self._assets.sources[uid].data_key or self._only_stream_key(name)
        key = self._streams[name].renamed.get(key, key)
        if "external" not in self._streams[name].data_keys.get(key, {}):
            raise DocumentError(
                f"stream_datum {doc['uid']!r} is for data key {key!r}, which is no external key of stream {name!r}"
            )
        self._arrays.frames.add_range(name, key, range_of(doc))

    def _only_stream_key(self, name: str) -> str:
        keys = [key for key, entry in self._streams[name].data_keys.items() if "external" in entry]
        return keys[0] if len(keys) == 1 else "?"

    def _stop(self, doc: Mapping[str, Any]) -> None:
        operations = self.take(final=True)
        for stream in self._streams.values():
            for sentence in stream.table.notes:
                self.note(sentence)
        self._stop_doc = plain(doc)
        self._pending = [*operations, self._close()]

    @property
    def settled(self) -> bool:
        """Whether looking at its files again will not help."""
        return self._arrays.settled

    def settle(self) -> list[Operation]:
        """After the stop: what has become known of files that were missing or still being written."""
        operations = self._arrays.take(final=True)
        if operations or self.settled:
            operations.append(self._close())
        return operations

    def _close(self) -> CloseRun:
        said = self._arrays.said({name: stream.table for name, stream in self._streams.items()})
        notes = list(self._notes)
        for kind, streams in said.items():
            for stream_name, keys in streams.items():
                for key, words in keys.items():
                    notes.append(f"'{key}' in stream '{stream_name}' {_VERBS[kind]}: {_sentence(words)}")
        return CloseRun(self.uid, {"stop": self._stop_doc, "filestore": plain(said), "notes": notes})


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


def _original(stream: _Stream, key: str) -> str:
    return next((old for old, new in stream.renamed.items() if new == key), key)


_VERBS = {
    "refused": "is not registered",
    "missing": "ends before the events do",
    "unverified": "was not compared with its files",
    "differences": "is registered as the file says",
}


def _sentence(words: Any) -> str:
    if isinstance(words, Mapping):
        return str(words["reason"])
    return "; ".join(words) if isinstance(words, list) else str(words)


def _create_run(start: Mapping[str, Any]) -> CreateRun:
    # The two entries that bluesky-tiled-plugins takes for instructions, not for metadata.
    metadata = {key: value for key, value in start.items() if key not in ("tiled_access_tags", "tiled_specs")}
    specs = [spec if isinstance(spec, Mapping) else {"name": spec} for spec in start.get("tiled_specs") or ()]
    tags = start.get("tiled_access_tags")
    return CreateRun(start["uid"], {"start": plain(metadata)}, tuple(specs), None if tags is None else tuple(tags))
