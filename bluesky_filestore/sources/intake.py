"""What comes from a source, put into a spool: each document once, and what is missing is said.

A source may give a document again (Kafka does after a crash, an archive whenever it is read again), may begin in the
middle of a run, and may lose some (0MQ does). What becomes of a document:

====================================================  ==============================================================
it is                                                 then
====================================================  ==============================================================
of a run whose start came                             it is put into the spool
the same as one that came, by its uid                 nothing: the spool has it
of a run that the spool has to its end                nothing
of a run whose start did not come, or refers to what  it is set aside, in a file beside the spool, and said once a run;
did not come                                          of some 200 MB of these the last are kept
such a one, of which that comes after all             it is put into the spool then, behind it, if no more than some
                                                      50 MB were set aside since
of a run that has its stop and lacked something       it is set aside: it came too late
====================================================  ==============================================================

What did not come is noted, too: the catalog has it among the notes of the run, see `bluesky_filestore.spool.notes`.

`_runs` holds for each run that is open, or stopped and lacks something, what came of it, and None for one that is
complete; `_streams` which run and stream a descriptor is of; `_waiting` what was set aside, by the uid of what it waits
for. What is said of gaps goes by `seq_num`, which counts from 1 in each stream, and by the stop's `num_events`.
"""

import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bluesky_filestore.logs import get_logger
from bluesky_filestore.private import make_private_file
from bluesky_filestore.spool.belonging import stored_text, text_in
from bluesky_filestore.spool.ledger import Ledger
from bluesky_filestore.spool.notes import NOTE
from bluesky_filestore.spool.spooled_run import export_line
from bluesky_filestore.spool.store import Store

__all__ = ["ASIDE", "Intake"]

_logger = get_logger(__name__)

ASIDE, ASIDE_BEFORE = "set-aside.jsonl", "set-aside.before.jsonl"
"""The file in a spool's directory that holds what was set aside, and the one before, when that is full."""

_MOST_ASIDE = 100_000_000
_LENGTH, _UNBEGUN = 8, "of something whose beginning did not"
_RUNS, _REMEMBERED = 10_000, 100_000
_LATELY, _MOST_NOTED = 100, 100
_MOST_WAITING, _MOST_LISTED = 50_000_000, 1_000


@dataclass(slots=True)
class _Tally:
    """What came of a run that is open."""

    uids: set[str] = field(default_factory=set)
    """Of its documents."""
    last: dict[tuple[str, str], int] = field(default_factory=dict)
    """The last seq_num of each stream; of stream datums, of each of their resources."""
    highest: dict[str, int] = field(default_factory=dict)
    """The highest of each stream; 0 for one that was only described."""
    missing: dict[tuple[str, str], list[range]] = field(default_factory=dict)
    """The seq_nums below the last that did not come, as `last`."""
    noted: int = 0
    """How much that did not come was noted."""
    is_stopped: bool = False
    """Whether its stop came."""

    def is_late(self, key: tuple[str, str], first: int, last: int) -> bool:
        """Whether these numbers are some that were missed; they are not, from now on."""
        for place, numbers in enumerate(ranges := self.missing.get(key, [])):
            if first in numbers and last in numbers:
                left = range(numbers.start, first), range(last + 1, numbers.stop)
                ranges[place : place + 1] = [each for each in left if each]
                return True
        return False


class Intake:
    """Puts the documents of a source into a spool, each once.

    Parameters
    ----------
    store : Store
        The writing end of the spool.
    """

    def __init__(self, store: Store) -> None:
        self.repeated = 0
        """How many documents came that the spool had."""
        self.aside = 0
        """How many were set aside."""
        self.lacking = 0
        """How often something did not come."""
        self.gaps: list[str] = []
        """What did not come, in words; the last thousand times."""
        self._store = store
        self._ledger = Ledger(store.directory)
        self._runs: OrderedDict[str, _Tally | None] = OrderedDict()
        self._streams: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._resources: OrderedDict[str, None] = OrderedDict()
        self._datums: OrderedDict[str, None] = OrderedDict()
        self._unknown: OrderedDict[str, None] = OrderedDict()
        self._waiting: OrderedDict[str, list[tuple[str, Mapping[str, Any], int]]] = OrderedDict()
        self._size_waiting = 0
        self._notes: list[tuple[str, Mapping[str, Any]]] = []
        self._level = logging.DEBUG
        self._remember_spooled()
        self._level = logging.WARNING

    def close(self) -> None:
        """Look no more into the spool; it stays open."""
        self._ledger.close()

    def __enter__(self) -> "Intake":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def take(self, documents: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Put documents that came together into the spool, those that belong there, with what is to be noted of them.

        Raises as `Store.append_all`, which has them all the same.
        """
        new: list[tuple[str, Mapping[str, Any]]] = []
        for name, doc in documents:
            self._take(name, doc, new)
        self._store.append_all(new)
        if len(self._runs) > _RUNS:
            self._forget_runs()
        for remembered in (self._streams, self._resources, self._datums, self._unknown):
            while len(remembered) > _REMEMBERED:
                remembered.popitem(last=False)

    def _take(self, name: str, doc: Mapping[str, Any], new: list[tuple[str, Mapping[str, Any]]]) -> None:
        """Put a document among the new ones if it is one, and what has waited for it behind it."""
        is_new = self._is_new(name, doc)
        # Before the document that tells of it: both are safe, or none is, and that document comes again.
        new += self._notes
        self._notes.clear()
        if is_new:
            new.append((name, doc))
            begun = text_in(doc, "uid") if name in ("start", "descriptor", "resource") else ""
            waited = self._waiting.pop(begun, ()) if begun else ()
            self.aside -= len(waited)
            self._size_waiting -= sum(size for _, _, size in waited)
            for of, each, _ in waited:
                self._take(of, each, new)
            if waited:
                self._unknown.pop(begun, None)
                _logger.warning("The %s came that %d documents were set aside for; they are taken.", name, len(waited))

    def _is_new(self, name: str, doc: Mapping[str, Any]) -> bool:
        """Whether a document is to be put into the spool; what it tells is remembered."""
        if name in ("resource", "stream_resource", "datum", "datum_page"):
            return self._is_new_announcement(name, doc)
        if name == "start":
            return self._begins(text_in(doc, "uid"))
        stream = ""
        if name in ("descriptor", "stop"):
            uid = text_in(doc, "run_start")
        else:
            descriptor = text_in(doc, "descriptor")
            uid, stream = self._streams.get(descriptor, (descriptor, ""))
            if stream:
                self._streams.move_to_end(descriptor)
        if name == "descriptor":
            stream = str(doc.get("name", "primary"))
            self._streams[text_in(doc, "uid")] = uid, stream
        if uid not in self._runs:
            return self._set_aside(uid, name, doc)
        tally = self._runs[uid]
        if tally is None or self._had(tally, doc):
            self.repeated += 1
            return False
        if tally.is_stopped:
            return self._set_aside(uid, name, doc, "of a run whose stop had come", waits=False)
        if name == "descriptor":
            tally.highest.setdefault(stream, 0)
        elif name == "stop":
            self._end(uid, tally, doc)
        else:
            self._count(uid, tally, stream, doc)
        return True

    def _begins(self, uid: str) -> bool:
        is_known = uid in self._runs
        if not is_known:
            is_known = any(entry.uid == uid and entry.stopped is not None for entry in self._ledger.entries(0, uid=uid))
            self._runs[uid] = None if is_known else _Tally({uid})
        self.repeated += is_known
        return not is_known

    def _is_new_announcement(self, name: str, doc: Mapping[str, Any]) -> bool:
        uid = _announced(name, doc)
        run = text_in(doc, "run_start")
        is_datum = name.startswith("datum")
        known = self._datums if is_datum else self._resources
        if run in self._runs and self._runs[run] is None and uid not in known:
            self._remember_announced(run)
        if uid in known:
            self.repeated += 1
            return False
        if not is_datum:
            self._resources[uid] = None
            return True
        of = text_in(doc, "resource")
        if of not in self._resources:
            # Of a staging that began before we listened: it says where no frame is.
            return self._set_aside(of, name, doc)
        self._resources.move_to_end(of)
        self._datums[uid] = None
        return True

    def _remember_announced(self, run: str) -> None:
        """Know what was announced in a run that the spool has."""
        for entry in self._ledger.entries(0, uid=run):
            for name, doc in self._ledger.documents_of(entry.number):
                if name in ("resource", "stream_resource", "datum", "datum_page"):
                    (self._datums if name.startswith("datum") else self._resources)[_announced(name, doc)] = None

    def _had(self, tally: _Tally, doc: Mapping[str, Any]) -> bool:
        uid = doc.get("uid")
        uids = uid if isinstance(uid, list) else [uid]
        new = [each for each in uids if isinstance(each, str) and each not in tally.uids]
        tally.uids.update(new)
        return not new and uid is not None

    def _count(self, uid: str, tally: _Tally, stream: str, doc: Mapping[str, Any]) -> None:
        first, last = _seq_nums(doc)
        if first is None or last is None:
            return
        key = stream, str(doc.get("stream_resource", ""))
        before = tally.last.get(key, tally.highest.get(stream, 0))
        if first > before + 1:
            self._say_gap(uid, stream, before + 1, first - 1)
            if tally.noted <= _MOST_NOTED:
                tally.missing.setdefault(key, []).append(range(before + 1, first))
        elif tally.is_late(key, first, last):
            self._say(uid, f"{_named(first, last)} of stream {stream!r} came after all, later than others.")
            return
        tally.last[key] = last
        tally.highest[stream] = max(last, tally.highest.get(stream, 0))

    def _end(self, uid: str, tally: _Tally, stop: Mapping[str, Any]) -> None:
        counts = stop.get("num_events")
        for stream, count in counts.items() if isinstance(counts, Mapping) else ():
            came = tally.highest.get(stream)
            if came is None and count:
                self._say(uid, f"The descriptor of stream {stream!r} with {count} events did not come.")
            elif came is not None and isinstance(count, int) and came < count:
                self._say_gap(uid, stream, came + 1, count)
        tally.is_stopped = True
        if not tally.noted:
            self._runs[uid] = None

    def _say_gap(self, uid: str, stream: str, first: int, last: int) -> None:
        self._say(uid, f"{_named(first, last)} of stream {stream!r} did not come.")

    def _say(self, uid: str, sentence: str) -> None:
        words = f"Run {uid[:_LENGTH]}: {sentence}"
        self.lacking += 1
        self.gaps.append(words)
        del self.gaps[:-_MOST_LISTED]
        _logger.log(self._level, "%s", words)
        tally = self._runs[uid]
        if tally is not None and tally.noted <= _MOST_NOTED:
            tally.noted += 1
            is_last = tally.noted > _MOST_NOTED
            text = "More did not come than is noted here; the log of whoever took it has all." if is_last else sentence
            self._notes.append((NOTE, {"run_start": uid, "text": text}))

    def _set_aside(
        self, of: str, name: str, doc: Mapping[str, Any], why: str = _UNBEGUN, *, waits: bool = True
    ) -> bool:
        path, line = self._store.directory / ASIDE, export_line(name, doc)
        if waits:
            self._waiting.setdefault(of, []).append((name, doc, len(line)))
            self._size_waiting += len(line)
            while self._size_waiting > _MOST_WAITING:
                self._size_waiting -= sum(size for _, _, size in self._waiting.popitem(last=False)[1])
        if of not in self._unknown:
            self._unknown[of] = None
            words = "A %s document came %s (%s): this one and those that follow are set aside in %s."
            _logger.warning(words, name, why, of[:_LENGTH], path)
        self.aside += 1
        try:
            if path.exists() and path.stat().st_size >= _MOST_ASIDE:
                older = path.with_name(ASIDE_BEFORE)
                _logger.warning("%s is full: it is called %s from now on, and what that held is gone.", path, older)
                path.replace(older)
            make_private_file(path)
            # What is no UTF-8 becomes an escape of JSON's.
            with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"{line}\n")
        except OSError as error:
            # It must not stand in the way of the runs that can be kept.
            _logger.error("A %s document cannot be set aside in %s (%s): it is lost.", name, path, error.strerror)
        return False

    def _forget_runs(self) -> None:
        complete = [uid for uid, tally in self._runs.items() if tally is None or tally.is_stopped]
        for uid in complete[: len(complete) // 2]:
            del self._runs[uid]

    def _remember_spooled(self) -> None:
        """Know what whoever passed documents on before us has put into the spool."""
        for spooled in self._ledger.announced_before(self._ledger.last_document() + 1, self._store.producer):
            known = self._datums if spooled.name.startswith("datum") else self._resources
            known[_announced(spooled.name, spooled.doc())] = None
        ours = [entry for entry in self._ledger.entries(0) if entry.producer == self._store.producer and entry.first]
        lately = {entry.number for entry in ours[-_LATELY:]}
        for entry in ours:
            if entry.stopped is None or entry.number in lately:
                self._runs[entry.uid] = _Tally()
                for name, doc in self._ledger.documents_of(entry.number, "" if entry.stopped is None else "descriptor"):
                    self._is_new(name, doc)
                if entry.stopped is not None:
                    self._runs[entry.uid] = None
        # What was missing then has been said, and noted.
        self.repeated = 0
        self.gaps.clear()
        self.lacking = 0
        self._notes.clear()


def _named(first: int, last: int) -> str:
    return f"Event {first}" if first == last else f"Events {first} to {last}"


def _announced(name: str, doc: Mapping[str, Any]) -> str:
    """By what a resource, a datum or a page of these is known again."""
    uid = doc.get("datum_id" if name.startswith("datum") else "uid")
    return stored_text(uid[:1] if isinstance(uid, list) else uid)


def _seq_nums(doc: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """The first and the last seq_num of an event, a page of them, or a stream datum; None if it does not tell."""
    match doc:
        case {"seq_num": int() as number}:
            return number, number
        case {"seq_num": [int() as first, *rest]}:
            return first, rest[-1] if rest and isinstance(rest[-1], int) else first
        case {"seq_nums": {"start": int() as start, "stop": int() as stop}} if stop > start:
            return start, stop - 1
    return None, None
