"""The command that brings back runs that a catalog has lost."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from .catalog_options import ApiKey, Profile, Uri, catalog_client, directories_of
from .console import Console

__all__ = ["recover"]

_MOST_LISTED = 20
_INTERRUPTED = 130


def recover(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where the files of the runs are.")],
    uri: Uri = "",
    profile: Profile = "",
    api_key: ApiKey = "",
    root_map: Annotated[
        list[str] | None, typer.Option(metavar="OLD=NEW", help="Where a directory is now; can be repeated.")
    ] = None,
    state: Annotated[Path | None, typer.Option(help="Where it is remembered how far this has come.")] = None,
) -> None:
    """Bring the runs of the sidecars below DIR back into a catalog that lacks them; goes on where it was interrupted.

    Exits with 1 if a sidecar is of no use, or the catalog has something else than it says.
    """
    from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
    from bluesky_filestore.sources.recovering import recover as recovered_runs

    client = catalog_client(uri, profile, api_key)
    place, counts = state or _default_state(str(client.uri)), Counter[str]()
    try:
        for each in recovered_runs(directory, TiledCatalog(client), place, root_map=directories_of(root_map)):
            counts[each.state] += 1
            if each.words or each.state == "recovered":
                _say(f"{each.state} {each.uid or each.path}")
            for words in each.words[:_MOST_LISTED]:
                _say(f"  {words}")
    except KeyboardInterrupt:
        _say("Interrupted; the same command goes on.")
        raise typer.Exit(_INTERRUPTED) from None
    finally:
        client.context.close()
    _say(f"{', '.join(f'{count:,} {word}' for word, count in sorted(counts.items())) or 'There are no sidecars'}.")
    if counts["refused"] or counts["differs"]:
        raise typer.Exit(1)


def _default_state(target: str) -> Path:
    from platformdirs import user_state_path

    return user_state_path("bluesky-filestore") / "recoveries" / hashlib.sha256(target.encode()).hexdigest()[:12]


def _say(words: str) -> None:
    Console().print(words, highlight=False, soft_wrap=True, markup=False)
