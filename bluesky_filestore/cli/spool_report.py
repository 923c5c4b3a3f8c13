"""How spools are doing, for people and for programs."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.text import Text

from bluesky_filestore.spool.handoffs import HandoffStatus
from bluesky_filestore.spool.status import CatalogStatus, SpoolStatus, described_runs
from bluesky_filestore.visible import visible_line, without_secrets

__all__ = ["as_json", "as_text", "duration"]

_LENGTH = 8
_MOST_PARKED = 10


def as_json(spools: Sequence[SpoolStatus], silent: Mapping[str, str]) -> dict[str, Any]:
    """What is known, for programs.

    Parameters
    ----------
    spools : sequence of SpoolStatus
        What they hold.
    silent : mapping
        Why a catalog does not answer, by address; empty if it does.
    """
    return {
        "spools": [
            {
                "directory": str(spool.directory),
                "catalogs": [_catalog_as_json(each, silent) for each in spool.catalogs],
                "strays": spool.strays,
                "damaged": [str(path) for path in spool.damaged],
                "webhooks": [_webhook_as_json(each) for each in spool.webhooks],
            }
            for spool in spools
        ]
    }


def _webhook_as_json(status: HandoffStatus) -> dict[str, Any]:
    return {
        "receiver": status.receiver,
        "waiting": status.waiting,
        "oldest_seconds": status.oldest,
        "error": without_secrets(status.error),
        "given_up": status.given_up,
        "sender": status.sender,
    }


def _catalog_as_json(status: CatalogStatus, silent: Mapping[str, str]) -> dict[str, Any]:
    return {
        "catalog": status.catalog or None,
        "answers": silent[status.catalog] == "" if status.catalog in silent else None,
        "error": without_secrets(silent.get(status.catalog) or status.error),
        "runs": dict(status.runs),
        "documents_waiting": status.waiting,
        "oldest_seconds": status.oldest,
        "uploader": status.uploader,
        "parked": {uid: without_secrets(reason) for uid, reason in status.parked.items()},
    }


def as_text(spools: Sequence[SpoolStatus], silent: Mapping[str, str]) -> Text:
    """What is known, for people; parameters as of `as_json`."""
    lines = []
    for spool in spools:
        lines.append(f"[bold]{escape(str(spool.directory))}[/]")
        # Not a table, which would break the commands that are there to be copied.
        lines.extend(f"  [dim]{label:<10}[/] {words}" for label, words in _rows(spool, silent))
    return Text.from_markup("\n".join(visible_line(without_secrets(line)) for line in lines), emoji=False)


def _rows(spool: SpoolStatus, silent: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for status in spool.catalogs:
        yield from _catalog_rows(spool, status, silent)
    if not spool.catalogs:
        yield "runs", "none"
    for hook in spool.webhooks:
        shown = f"{escape(hook.receiver)}: {escape(hook.words)}"
        yield "webhook", f"[yellow]{shown}[/]" if hook.error or hook.given_up else shown
        if hook.waiting and hook.sender is None:
            place = escape(shlex.quote(str(spool.directory)))
            yield "", f"send what waits: bluesky-filestore resume {place} --webhook ADDRESS"
    if spool.strays:
        yield "strays", f"{spool.strays:,} documents belong to no run that was begun in this spool"
    for path in spool.damaged:
        yield (
            "damaged",
            f"[red]a broken database was put aside in {escape(str(path))}; take runs out of it by hand[/]",
        )


def _catalog_rows(spool: SpoolStatus, status: CatalogStatus, silent: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    why = silent.get(status.catalog, "")
    place = escape(shlex.quote(str(spool.directory)))
    left = any(status.runs.get(state) for state in ("waiting", "uploading", "settling"))
    if status.catalog:
        yield "catalog", f"{escape(status.catalog)} {'[red]does not answer[/]' if why else '[green]answers[/]'}"
    else:
        yield "catalog", f"none is known yet: bluesky-filestore resume {place} --uri ADDRESS"
    if why or status.error:
        yield "error", f"[red]{escape(why or status.error)}[/]"
    yield "runs", described_runs(status.runs) or "none"
    if left:
        age = "" if status.oldest is None else f", the oldest run began {duration(status.oldest)} ago"
        yield "documents", f"{status.waiting:,} waiting{age}"
    if status.uploader is not None:
        yield "delivery", f"by process {status.uploader}"
    elif left and status.catalog:
        yield "delivery", f"[yellow]nobody delivers:[/] bluesky-filestore resume {place}"
        if len(spool.catalogs) > 1:
            # No run is removed from the spool before each catalog has it.
            name = escape(shlex.quote(status.catalog))
            yield "", f"or, if it is gone for good: bluesky-filestore forget {name} --spool {place}"
            yield "", f"or, if it has another address now: bluesky-filestore rename {name} NEW --spool {place}"
    yield from _parked_rows(status, place)


def _parked_rows(status: CatalogStatus, place: str) -> Iterator[tuple[str, str]]:
    for uid, reason in list(status.parked.items())[:_MOST_PARKED]:
        yield "parked", f"[bold]{escape(uid[:_LENGTH])}[/] {escape(reason)}"
    more = status.runs.get("parked", 0) - _MOST_PARKED
    if more > 0:
        yield "", f"and {more:,} more"
    if status.parked:
        uid = escape(shlex.quote(next(iter(status.parked))[:_LENGTH]))
        yield "", f"try one again: bluesky-filestore resume {place} --run {uid}; or export, or forget it"


def duration(seconds: float) -> str:
    """A time span in words.

    Examples
    --------
    >>> [duration(seconds) for seconds in (0.4, 75, 7300, 200_000)]
    ['0 s', '75 s', '121 min', '55 h']
    """
    for size, unit, most in ((1, "s", 120), (60, "min", 180), (3600, "h", 72)):
        if seconds < most * size:
            return f"{int(seconds / size)} {unit}"
    return f"{int(seconds / 86_400)} days"
