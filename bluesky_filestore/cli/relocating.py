"""The commands for files that go elsewhere."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .catalog_options import ApiKey, Profile, RootMapOption, Uri, catalog_client, directories_of
from .console import Console

if TYPE_CHECKING:
    from bluesky_filestore.bundles.relocating import RelocationReport

__all__ = ["copy", "move", "relocate"]


def relocate(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="OLD=NEW... [UID]...", help="What the catalog names, and shall name; and which runs."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only look what would be done.")] = False,
    undo: Annotated[
        Path | None, typer.Option(metavar="JOURNAL", help="Give back what was, by the journal of a relocation.")
    ] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Do not look for the files in their new places.")] = False,
    journal: Annotated[
        Path | None, typer.Option(help="Where it is written what is done; by default it is said.")
    ] = None,
    uri: Uri = "",
    profile: Profile = "",
    api_key: ApiKey = "",
    root_map: RootMapOption = None,
) -> None:
    """Have the catalog say where files are that were moved or are mounted elsewhere; all runs, or those named.

    Interrupted, the same command goes on. Exits with 1 if something was refused.
    """
    from bluesky_filestore.bundles import relocating

    roots = directories_of([word for word in words or () if "=" in word], option="OLD=NEW")
    uids = [word for word in words or () if "=" not in word]
    if undo is not None and (words or dry_run or journal):
        raise typer.BadParameter("--undo JOURNAL says all; give nothing else but the catalog.")
    if undo is None and not roots:
        raise typer.BadParameter("say what is where: OLD=NEW, such as /data=/archive/data.")
    client = catalog_client(uri, profile, api_key)
    try:
        if undo is not None:
            report = relocating.undo_relocation(client, undo)
        else:
            report = relocating.relocate(
                client, roots, uids, dry_run=dry_run, root_map=directories_of(root_map), trust=trust, journal=journal
            )
    finally:
        client.context.close()
    if trust:
        _say("The files were not looked for: see that they are there, by `bluesky-filestore verify`.")
    _show(report)


Uids = Annotated[list[str], typer.Argument(metavar="UID...", help="The runs, or how they begin.")]
To = Annotated[Path, typer.Option("--to", metavar="DIR", help="Where the files go.")]
As = Annotated[str, typer.Option("--as", metavar="NAME", help="What the catalog shall call DIR, if not that.")]


def copy(
    uids: Uids,
    to: To,
    rewrite: Annotated[bool, typer.Option("--rewrite", help="Have the catalog name the copies.")] = False,
    named: As = "",
    uri: Uri = "",
    profile: Profile = "",
    api_key: ApiKey = "",
    root_map: RootMapOption = None,
) -> None:
    """Copy the files of runs, and compare each copy with its original. Exits with 1 if something was refused."""
    from bluesky_filestore.bundles.moving import copy_files

    client = catalog_client(uri, profile, api_key)
    try:
        _show(copy_files(client, uids, to, root_map=directories_of(root_map), rewrite=rewrite, named=named))
    finally:
        client.context.close()


def move(
    uids: Uids,
    to: To,
    named: As = "",
    uri: Uri = "",
    profile: Profile = "",
    api_key: ApiKey = "",
    root_map: RootMapOption = None,
) -> None:
    """Move the files of runs: copied and compared, known to the catalog, and only then removed where they were.

    Interrupted, the same command goes on. Exits with 1 if something was refused.
    """
    from bluesky_filestore.bundles.moving import move_files

    client = catalog_client(uri, profile, api_key)
    try:
        _show(move_files(client, uids, to, root_map=directories_of(root_map), named=named))
    finally:
        client.context.close()


def _show(report: "RelocationReport") -> None:
    """Print a report; ends the command with 1 if something was refused."""
    _say(str(report))
    if not report.ok:
        raise typer.Exit(1)


def _say(words: str) -> None:
    Console().print(words, highlight=False, soft_wrap=True, markup=False)
