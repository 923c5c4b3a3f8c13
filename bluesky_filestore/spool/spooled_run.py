"""A run in spools, found by its uid, and what a user may do with it."""

import base64
import datetime
import json
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bluesky_filestore.errors import RunNotFoundError, SpoolError
from bluesky_filestore.visible import storable

from .entries import ENDED, Entry
from .ledger import Ledger
from .pruning import forget

__all__ = ["SpooledRun", "export_line", "exported", "find_run", "run_documents"]

_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class SpooledRun:
    """One run in one spool."""

    directory: Path
    """The spool directory."""
    uid: str
    """The run's uid."""
    deliveries: tuple[tuple[str, Entry], ...]
    """The address of each catalog, and how far the run has come there. Several writers may have put in one run, each
    the whole of it; the address is empty as long as the spool knows no catalog."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """Its number in the spool; several if several writers put it there."""
        return tuple(dict.fromkeys(entry.number for _, entry in self.deliveries))

    @property
    def undelivered(self) -> tuple[str, ...]:
        """The catalogs that have not got all of it, by address."""
        return tuple(dict.fromkeys(uri for uri, entry in self.deliveries if entry.state != "delivered"))

    def park(self, reason: str) -> int:
        """Have it not delivered, until somebody asks for it; who delivers learns of it within seconds.

        Returns
        -------
        int
            For how many catalogs it is parked now that it was not parked for.

        Raises
        ------
        SpoolError
            If there is nothing to be kept from, because it is delivered everywhere, or no catalog is known.
        """
        open_ends = [(uri, entry) for uri, entry in self.deliveries if uri and entry.state not in ENDED]
        if not open_ends:
            states = {entry.state for uri, entry in self.deliveries if uri}
            why = f"is {' or '.join(sorted(states))} already" if states else "is in a spool that knows no catalog yet"
            raise SpoolError(f"run {self.uid} {why}; there is nothing to park.")
        with closing(Ledger(self.directory)) as ledger:
            numbers = _numbers(ledger)
            for uri, entry in open_ends:
                ledger.park(numbers[uri], entry.number, reason)
        return len(open_ends)

    def ask_again(self) -> None:
        """Have it delivered from its first document on, wherever its delivery has ended.

        What a catalog has of it already stays; files that were missing are looked for again.

        Raises
        ------
        SpoolError
            If the spool holds only a part of it.
        """
        with closing(Ledger(self.directory)) as ledger:
            numbers = _numbers(ledger)
            for uri, entry in self.deliveries:
                if uri in numbers and entry.state in ENDED:
                    ledger.begin_again(numbers[uri], [entry.number], is_asked=True)
                    if (now := ledger.entry(numbers[uri], entry.number)) is not None and now.state == "parked":
                        raise SpoolError(
                            f"run {self.uid} cannot be delivered ({now.reason}); what there is of it can be had with "
                            f"`bluesky-filestore export {self.uid}`."
                        )

    def forget(self) -> None:
        """Remove it from the spool, delivered or not.

        Raises
        ------
        SpoolError
            If its writer is still putting in documents. A run of a source may be forgotten, with its stop or without,
            as soon as no process passes on what comes from there.
        """
        with closing(Ledger(self.directory)) as ledger:
            for _, entry in self.deliveries:
                if entry.stopped is None and ledger.is_written(entry.producer):
                    raise SpoolError(
                        f"run {self.uid} is still going on; park it if it shall not be delivered, and forget it when "
                        f"it has ended, or the process that puts it here."
                    )
            for number in self.numbers:
                forget(ledger, number)

    def documents(self) -> int:
        """How many documents the spool holds of it."""
        with closing(Ledger(self.directory)) as ledger:
            return max(ledger.count(number) for number in self.numbers)


def _numbers(ledger: Ledger) -> dict[str, int]:
    """The number of each catalog that is known, by its address as the spool has it."""
    return {uri: number for number, (uri, _) in ledger.catalogs().items()}


def find_run(directories: Iterable[Path], uid: str) -> list[SpooledRun]:
    """A run by the beginning of its uid (of more than nothing): once for each spool that has it.

    Raises
    ------
    RunNotFoundError
        If no spool has such a run, or if several runs begin so.
    """
    searched, uid = list(directories), storable(uid)
    # Nothing, as of a variable that is not set, is how every uid begins: it does not mean the only run that there is.
    found = [run for directory in searched for run in _runs(directory, uid) if uid or not run.uid]
    uids = sorted({run.uid for run in found})
    if len(uids) > 1 and uid not in uids:
        more = f" and {len(uids) - _MOST_NAMED} more" if len(uids) > _MOST_NAMED else ""
        raise RunNotFoundError(
            f"{len(uids)} runs begin with {uid!r}: {', '.join(uids[:_MOST_NAMED])}{more}; give more of the uid."
        )
    if not uids:
        where = ", ".join(map(str, searched)) or "any spool of this user"
        raise RunNotFoundError(
            f"no run begins with {uid!r} in {where}; expected the uid of a run that was not delivered, or lately. "
            f"`bluesky-filestore status` shows which spools there are."
        )
    return [run for run in found if run.uid == uid or len(uids) == 1]


def _runs(directory: Path, uid: str) -> list[SpooledRun]:
    deliveries: dict[str, list[tuple[str, Entry]]] = {}
    with closing(Ledger(directory)) as ledger:
        catalogs = {number: uri for number, (uri, _) in ledger.catalogs().items()} or {0: ""}
        for number, uri in catalogs.items():
            for entry in ledger.entries(number, uid=uid):
                deliveries.setdefault(entry.uid, []).append((uri, entry))
    return [SpooledRun(directory, each, tuple(ends)) for each, ends in deliveries.items()]


def exported(run: SpooledRun) -> Generator[str, None, None]:
    """The documents of a run as `run_documents` gives them: ``["name", {...}]`` a line.

    Arrays become lists, bytes base64 and dates ISO 8601; NaN and infinity are written as Python's json does.
    """
    for name, doc in run_documents(run):
        yield export_line(name, doc)


def run_documents(run: SpooledRun) -> Generator[tuple[str, Mapping[str, Any]], None, None]:
    """The documents of a run in their order, and what they refer to of earlier ones.

    Parameters
    ----------
    run : SpooledRun
        The run. If several writers put it into the spool, what the one with the most documents put there counts.
    """
    with closing(Ledger(run.directory)) as ledger:
        entry = max((entry for _, entry in run.deliveries), key=lambda entry: ledger.count(entry.number))
        documents = _first_time(ledger.documents_of(entry.number))
        for name, doc in documents:
            yield name, doc
            if name == "start":
                break
        referred = _referred(ledger, entry.number)
        announced = [each for each in ledger.announced_before(entry.first, entry.producer) if each.run != entry.number]
        yield from ((each.name, each.doc()) for each in announced if _announces(each.name, each.doc(), referred))
        yield from documents


def _first_time(documents: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The documents of a run to its stop: after that they come once more."""
    for name, doc in documents:
        yield name, doc
        if name == "stop":
            return


def _referred(ledger: Ledger, run: int) -> frozenset[str]:
    """What the documents of a run may mean by a text: the uids of resources, and datum ids."""
    found: set[str] = set()
    for name, doc in ledger.documents_of(run):
        # A document that is not of its schema refers to nothing, and is there all the same.
        with suppress(AttributeError, TypeError):
            found.update(value for value in _values(name, doc) if isinstance(value, str))
    # Datum ids begin with the uid of their resource, after which comes a slash.
    return frozenset(found | {text.partition("/")[0] for text in found})


def _values(name: str, doc: Mapping[str, Any]) -> Iterable[Any]:
    """Those that may be uids of resources or datum ids."""
    match name:
        case "stream_datum":
            return [doc.get("stream_resource")]
        case "datum" | "datum_page":
            return [doc.get("resource")]
        case "event":
            return doc.get("data", {}).values()  # type: ignore[no-any-return]
        case "event_page":
            return (value for column in doc.get("data", {}).values() for value in column)
    return ()


def _announces(name: str, doc: Mapping[str, Any], referred: frozenset[str]) -> bool:
    found = doc.get("datum_id") if name in ("datum", "datum_page") else doc.get("uid")
    texts = found if isinstance(found, list) else [found]
    return any(isinstance(text, str) and text in referred for text in texts)


def export_line(name: str, doc: Mapping[str, Any]) -> str:
    """A document as a line of an archive."""
    try:
        return json.dumps([name, doc], default=_plain, ensure_ascii=False)
    except TypeError:
        # A key that JSON has nothing for.
        return json.dumps([name, _with_texts(doc)], default=_plain, ensure_ascii=False)


def _with_texts(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(key): _with_texts(entry) for key, entry in value.items()}
    return list(map(_with_texts, value)) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value)
