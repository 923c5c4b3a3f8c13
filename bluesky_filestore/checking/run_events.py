"""The events of a run: counted, and compared with what its stop and its table say of them."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice, pairwise
from operator import index
from typing import Any

from bluesky_filestore.errors import DocumentError
from bluesky_filestore.model.event_record import RECORD_COLUMN, decode_record
from bluesky_filestore.model.normalize import unpacked
from bluesky_filestore.model.schema_errors import schema_errors
from bluesky_filestore.reading.from_documents import Documents

from .run_report import RunFinding, in_words

__all__ = ["AGAIN", "StreamEvents", "events_of_table", "left_out", "watched"]

AGAIN = "Deliver it again: bluesky-filestore resume --run"
_MOST_NUMBERS = 6
_COUNTERS = ("num_captured", "frames_written", "num_frames_captured")
"""How the data keys end in which a file plugin counts its frames (areaDetector's ``NumCaptured_RBV``)."""


@dataclass
class StreamEvents:
    """The events of a stream, in the order of their rows."""

    seq_nums: list[int] = field(default_factory=list)
    """Their sequence numbers."""
    identities: list[Any] = field(default_factory=list)
    """What no two of them share."""
    order: list[Any] = field(default_factory=list)
    """What goes up from one to the next."""
    counted: dict[str, list[float]] = field(default_factory=dict)
    """What plugins had counted at each, by data key."""
    device_of: dict[str, str] = field(default_factory=dict)
    """The device of each data key, as far as the descriptor says."""
    streamed: set[str] = field(default_factory=set)
    """The data keys whose frames stream_datums tell of."""
    points: int = 0
    """The highest sequence number that a stream_datum speaks of: a flyer's stream may have no events."""

    def __len__(self) -> int:
        return len(self.seq_nums)

    @property
    def highest(self) -> int:
        """The highest sequence number of all."""
        return max(self.points, *self.seq_nums, 0)

    def points_of(self, key: str) -> int:
        """How many points a key has frames of in a stream without events."""
        return self.points if key in self.streamed and not len(self) else 0

    def counted_for(self, key: str, external: Collection[str]) -> list[float]:
        """How many frames the file plugin of an external key had counted at each event; empty if nobody says so."""
        device = self.device_of.get(key)
        keys = [other for other in external if self.device_of.get(other) == device]
        counters = [values for counter, values in self.counted.items() if self.device_of.get(counter) == device]
        # Of a device with several plugins nobody can tell whose count it is.
        return counters[0] if len(keys) == len(counters) == 1 else []

    def findings(self, stream: str) -> Iterator[RunFinding]:
        """What there is to say of their rows."""
        count, shown = left_out(set(self.seq_nums), range(1, max(self.seq_nums, default=0) + 1))
        if count:
            words = f"{count:,} events are not there, those with the sequence numbers {shown}"
            yield RunFinding("events", stream, False, words, AGAIN)
        twice = {identity for identity, times in Counter(self.identities).items() if times > 1}
        rows = tuple(row for row, identity in enumerate(self.identities) if identity in twice)
        if rows:
            words = f"{len(rows) - len(twice)} rows are there twice: {in_words(rows)}"
            advice = (
                "Do not read arrays by the rows of this table; deliver the run again: bluesky-filestore resume --run"
            )
            yield RunFinding("events", stream, False, words, advice, rows)
        back = tuple(row + 1 for row, (one, next_) in enumerate(pairwise(self.order)) if _is_back(one, next_))
        if back and not rows:
            words = f"rows are not in the order in which their events came, from {in_words(back)} on"
            yield RunFinding("events", stream, False, words, AGAIN, back)


def watched(documents: Documents, streams: dict[str, StreamEvents]) -> Documents:
    """The same documents, singly; what they say of events is put into `streams` as they go by."""
    name_of: dict[str, str] = {}
    for packed_name, packed in documents:
        try:
            singles = list(unpacked(packed_name, packed))
        except DocumentError:
            singles = [(packed_name, packed)]
        for name, doc in singles:
            yield name, doc
            # What is not of its schema is said by whoever was given it.
            with suppress(DocumentError), schema_errors(name, doc):
                _take(name, doc, streams, name_of)


def _take(name: str, doc: Mapping[str, Any], streams: dict[str, StreamEvents], name_of: dict[str, str]) -> None:
    if name == "descriptor":
        name_of[doc["uid"]] = doc["name"]
        of = streams.setdefault(doc["name"], StreamEvents())
        of.streamed |= {
            key for key, entry in doc["data_keys"].items() if str(entry.get("external")).startswith("STREAM")
        }
        of.device_of |= {key: device for device, keys in (doc.get("object_keys") or {}).items() for key in keys}
    elif name == "stream_datum":
        of = streams[name_of[doc["descriptor"]]]
        of.points = max(of.points, index(doc["seq_nums"]["stop"]) - 1)
    elif name == "event":
        of = streams[name_of[doc["descriptor"]]]
        number, data = index(doc["seq_num"]), doc["data"]
        counted = {key: data[key] for key in filter(_is_counter, data)}
        of.identities.append(str(doc["uid"]))
        of.seq_nums.append(number)
        for key, count in counted.items():
            of.counted.setdefault(key, [0.0] * (len(of) - 1)).append(count)


def events_of_table(columns: Mapping[str, list[Any]]) -> StreamEvents:
    """Those that the event table of a catalog has a row of, whoever wrote it."""
    seq_nums = [int(number) for number in columns.get("seq_num", ())]
    times = columns.get("time", [None] * len(seq_nums))
    if RECORD_COLUMN in columns:
        numbers: list[Any] = [decode_record(text).number for text in columns[RECORD_COLUMN]]
        events = StreamEvents(seq_nums, numbers, numbers)
    else:
        # A point that was taken again has a number that was there before, at a later time.
        rows = list(zip(seq_nums, times, strict=True))
        events = StreamEvents(seq_nums, rows, rows)
    events.counted = {key: values for key, values in columns.items() if _is_counter(key)}
    return events


def _is_counter(key: str) -> bool:
    return key.endswith(_COUNTERS) and not key.startswith("ts_")


def _is_back(one: Any, next_: Any) -> bool:
    pairs = zip(*((value if isinstance(value, tuple) else (value,)) for value in (one, next_)), strict=True)
    return all(earlier is not None and later is not None and later < earlier for earlier, later in pairs)


def left_out(known: Set[int], numbers: range) -> tuple[int, str]:
    """How many numbers of a range are not known, and the first of them; files and documents may claim any range."""
    # As a range it may be longer than Python counts.
    count = max(0, numbers.stop - numbers.start) - sum(number in numbers for number in known)
    first: Iterable[int] = islice((number for number in numbers if number not in known), min(count, _MOST_NUMBERS))
    shown = list(map(str, first))
    return count, ", ".join([*shown, *(["..."] if count > len(shown) else [])])
