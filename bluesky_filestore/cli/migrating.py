"""The command that copies the runs of a databroker."""

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .catalog_options import RootMapOption, directories_of
from .console import Console

if TYPE_CHECKING:
    from bluesky_filestore.sources.databroker import Runs
    from bluesky_filestore.sources.migrating import Copied

__all__ = ["migrate"]

_MOST_LISTED = 20
_A_MILLION, _DAY = 1_000_000, 86_400
_INTERRUPTED = 130


def migrate(
    source: Annotated[
        str, typer.Argument(help="mongodb://HOST/DATABASE, a Tiled profile, or the address of a server.")
    ],
    target: Annotated[str, typer.Argument(help="The address, or the profile, of a catalog in Tiled's tree.")],
    state: Annotated[Path | None, typer.Option(help="Where it is remembered what was copied.")] = None,
    limit: Annotated[int | None, typer.Option(help="How many runs at most.", min=1)] = None,
    again: Annotated[bool, typer.Option("--again", help="Copy those that differed once more.")] = False,
    root_map: RootMapOption = None,
    api_key: Annotated[str, typer.Option(help="Of the target; by default that of TILED_API_KEY.")] = "",
    source_api_key: Annotated[str, typer.Option(help="Of the source, if it is a server.")] = "",
) -> None:
    """Copy runs from a databroker, and compare each; goes on where it was interrupted. Exits with 1 if any differs."""
    from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
    from bluesky_filestore.sources.migrating import Migration

    console = Console()
    runs = _source(source, source_api_key)
    client = _client(target, api_key)
    directory = state or _default_state(source, str(client.uri))
    began, copied, events, frames = time.monotonic(), 0, 0, 0
    _say(console, f"{runs.count():,} runs in {_shown(source)}; what was copied is remembered in {directory}.")
    with Migration(runs, TiledCatalog(client), directory, root_map=directories_of(root_map)) as all_runs:
        try:
            for each in all_runs.copy(limit, again=again):
                copied, events, frames = copied + 1, events + each.events, frames + each.frames
                if each.state != "same":
                    _say_unlike(console, each)
        except KeyboardInterrupt:
            _say(console, "Interrupted; the same command goes on.")
            raise typer.Exit(_INTERRUPTED) from None
        finally:
            client.context.close()
            runs.close()
        for fault in runs.faults[:_MOST_LISTED]:
            _say(console, f"not copied: {fault}")
        counts = all_runs.counts()
        _say_notes(console, all_runs)
    _say(console, f"{', '.join(f'{count:,} {word}' for word, count in counts.items() if count) or 'no runs'}.")
    if copied:
        took = time.monotonic() - began
        days = took / copied * _A_MILLION / _DAY
        _say(
            console,
            f"{copied:,} runs with {events:,} events in {took:,.1f} s, {frames:,} frames compared: "
            f"{copied / took:,.1f} runs a second; 1,000,000 such runs take {days:,.1f} days.",
        )
    if counts["differs"] or counts["failed"] or runs.faults:
        raise typer.Exit(1)


def _source(source: str, api_key: str) -> "Runs":
    from bluesky_filestore.catalogs.databroker.broker import raw_of
    from bluesky_filestore.sources.archived_runs import ArchivedRuns
    from bluesky_filestore.sources.databroker import MongoRuns, runs_of

    if "://" not in source and Path(source).exists():
        return ArchivedRuns([Path(source)])
    if source.startswith(("mongodb://", "mongodb+srv://")):
        return MongoRuns.from_uri(source)
    return runs_of(raw_of(_client(source, api_key)))


def _client(name: str, api_key: str) -> Any:
    from bluesky_filestore.catalogs.tiled.connecting import connect, connect_profile

    client_kwargs: dict[str, Any] = {"api_key": api_key} if api_key else {}
    return connect(name, **client_kwargs) if "://" in name else connect_profile(name, **client_kwargs)


def _default_state(source: str, target: str) -> Path:
    from platformdirs import user_state_path

    both = hashlib.sha256(f"{_shown(source)} {target}".encode()).hexdigest()[:12]
    return user_state_path("bluesky-filestore") / "migrations" / both


def _shown(source: str) -> str:
    from bluesky_filestore.visible import shown_address

    return shown_address(source)


def _say_unlike(console: Console, copied: "Copied") -> None:
    for words in copied.differences[:_MOST_LISTED]:
        _say(console, f"{copied.state} {copied.uid}: {words}")


def _say_notes(console: Console, runs: Any) -> None:
    """What could not be expressed, by how many runs say so."""
    said: dict[str, list[str]] = {}
    for each in runs.unlike():
        for note in each.notes:
            said.setdefault(note, []).append(each.uid)
    for note, uids in sorted(said.items(), key=lambda item: -len(item[1]))[:_MOST_LISTED]:
        _say(console, f"noted of {len(uids):,} runs, such as {uids[0]}: {note}")


def _say(console: Console, words: str) -> None:
    console.print(words, highlight=False, soft_wrap=True, markup=False)
