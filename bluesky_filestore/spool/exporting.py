"""A run in a spool as JSON lines, one document a line: ``["name", {...}]``."""

import base64
import datetime
import json
from collections.abc import Generator, Mapping
from contextlib import closing
from typing import Any

import numpy as np

from .ledger import Ledger
from .spooled_run import SpooledRun

__all__ = ["exported"]


def exported(run: SpooledRun) -> Generator[str, None, None]:
    """The documents of a run in their order, and what they refer to of earlier ones.

    Arrays become lists, bytes base64 and dates ISO 8601; NaN and infinity are written as Python's json does.

    Parameters
    ----------
    run : SpooledRun
        The run. If several writers put it into the spool, what the one with the most documents put there counts.
    """
    with closing(Ledger(run.directory)) as ledger:
        entry = max((entry for _, entry in run.deliveries), key=lambda entry: ledger.count(entry.number))
        documents = ledger.documents_of(entry.number)
        for name, doc in documents:
            yield _line(name, doc)
            if name == "start":
                break
        referred = _referred(ledger, entry.number)
        announced = [each for each in ledger.announced_before(entry.first, entry.producer) if each.run != entry.number]
        yield from (_line(each.name, each.doc()) for each in announced if _announces(each.name, each.doc(), referred))
        for name, doc in documents:
            yield _line(name, doc)


def _referred(ledger: Ledger, run: int) -> frozenset[str]:
    """What the documents of a run may mean by a text: the uids of resources, and datum ids."""
    found: set[str] = set()
    for name, doc in ledger.documents_of(run):
        match name:
            case "stream_datum":
                found.add(doc.get("stream_resource", ""))
            case "datum" | "datum_page":
                found.add(doc.get("resource", ""))
            case "event":
                found.update(value for value in doc.get("data", {}).values() if isinstance(value, str))
            case "event_page":
                columns = doc.get("data", {}).values()
                found.update(value for column in columns for value in column if isinstance(value, str))
    # Datum ids begin with the uid of their resource, after which comes a slash.
    return frozenset(found | {text.partition("/")[0] for text in found})


def _announces(name: str, doc: Mapping[str, Any], referred: frozenset[str]) -> bool:
    match name:
        case "datum":
            return doc.get("datum_id") in referred
        case "datum_page":
            return not referred.isdisjoint(doc.get("datum_id", ()))
    return doc.get("uid") in referred


def _line(name: str, doc: Mapping[str, Any]) -> str:
    return json.dumps([name, doc], default=_plain, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value)
