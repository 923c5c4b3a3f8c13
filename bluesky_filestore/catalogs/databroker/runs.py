"""Runs of a databroker, given as databroker gives them, and their documents."""

from collections.abc import Iterator
from typing import Any

from bluesky_filestore.catalogs.tiled.connecting import catalog_errors
from bluesky_filestore.extras import from_extra
from bluesky_filestore.logs import get_logger

from .broker import collections_of
from .collections import singles_once

__all__ = ["documents_of_run", "find_runs", "run_of"]

_logger = get_logger(__name__)
_A_PAGE = 25


def run_of(given: Any) -> Any | None:
    """The client of a run that is in a databroker of documents; None if it is anything else.

    Parameters
    ----------
    given : object
        databroker's v1 Header, or the client of a run.
    """
    run = given if hasattr(given, "context") else getattr(given, "v2", None)
    # Runs of long ago have version 1; those of trees of nodes have 3.
    is_one = any(
        spec.name == "BlueskyRun" and not str(spec.version or "").startswith("3.") for spec in getattr(run, "specs", ())
    )
    return run if is_one and hasattr(run, "documents") else None


def documents_of_run(run: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The documents of a run, singly and each once, by its client."""
    here = collections_of(run)
    if here is not None:
        yield from here.documents_of(run.metadata["start"]["uid"])
        return
    last, given = "", 0
    for last, doc in singles_once(run.documents()):
        given += last == "event"
        yield last, doc
    if last != "stop":
        _logger.warning(
            "Run %s is not stopped, so that databroker's server keeps back its last events (up to %d); %d are given.",
            run.metadata["start"]["uid"],
            _A_PAGE,
            given,
        )


def find_runs(client: Any, *, since: float | None = None, most: int | None = None) -> list[str]:
    """The uids of runs of a databroker, the latest first, as `bluesky_filestore.catalogs.tiled.nodes.find_runs`."""
    with catalog_errors(str(client.uri)):
        if since is not None:
            with from_extra("databroker"):
                from databroker.queries import TimeRange

            client = client.search(TimeRange(since=since))
        return list(reversed(client.keys()[:]))[:most]
