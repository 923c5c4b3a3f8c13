"""Resources that were handed to a RunEngine, and came no further.

A RunEngine collects documents when it reads, and emits them when it saves. Paused in between, or told to drop the
event, it forgets them: then later events would speak of frames of a Resource that nobody ever got. It writes its run
into each Resource that it emits, so one in which there is none was dropped, and is handed out again.
"""

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["HandedOut"]

_RESOURCE_OF = {"datum": "resource", "stream_datum": "stream_resource"}


class HandedOut:
    """The Resources and StreamResources of which it is not known yet whether they were emitted.

    `_documents` are those that a RunEngine has collected, by uid, until one of their datums is collected later: then
    it shows. What anybody else collects is theirs, and is handed out once.
    """

    def __init__(self) -> None:
        self._documents: dict[str, dict[str, Any]] = {}

    def clear(self) -> None:
        """Begin anew."""
        self._documents.clear()

    def completed(self, documents: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
        """Documents that are collected now, each Datum with its Resource before it if that was dropped."""
        of_now: set[str] = set()
        for name, doc in documents:
            if name in _RESOURCE_OF:
                of = _RESOURCE_OF[name]
                if doc[of] not in of_now:
                    of_now.add(doc[of])
                    dropped = self._documents.pop(doc[of], None)
                    if dropped is not None and not dropped.get("run_start"):
                        yield of, self._noted(dropped)
            elif name in _RESOURCE_OF.values():
                of_now.add(doc["uid"])
                self._noted(doc)
            yield name, doc

    def _noted(self, doc: dict[str, Any]) -> dict[str, Any]:
        if _in_event_loop():
            self._documents[doc["uid"]] = doc
        return doc


def _in_event_loop() -> bool:
    """Whether a RunEngine asks: it does so in its event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
