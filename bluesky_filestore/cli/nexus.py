"""The command that writes a run as one file."""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from bluesky_filestore.errors import CatalogError, FileStoreError

from .catalog_options import ApiKey, Profile, RootMapOption, Uri, catalog_client, directories_of
from .console import Console

__all__ = ["nexus"]


def nexus(
    uids: Annotated[list[str], typer.Argument(metavar="UID...", help="The runs, or how they begin.")],
    to: Annotated[
        Path | None, typer.Option("--to", metavar="PATH", help="The file, or a directory; by default here, by the uid.")
    ] = None,
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy frames that lie in files of one frame each: TIFF and such.")
    ] = False,
    uri: Uri = "",
    profile: Profile = "",
    api_key: ApiKey = "",
    root_map: RootMapOption = None,
) -> None:
    """Write a run as one NeXus file, of which frame i is event i; its images stay where they are.

    Exits with 0 if the file has all frames, with 1 if it lacks some, and with 2 if it could not be written.
    """
    from bluesky_filestore.catalogs.tiled.nodes import find_run

    directories = directories_of(root_map)
    if to is not None and len(uids) > 1 and not to.is_dir():
        raise typer.BadParameter(f"--to {to} is no directory; expected one for the files of {len(uids)} runs.")
    try:
        client = catalog_client(uri, profile, api_key)
    except CatalogError as error:
        _say_error(str(error))
        raise typer.Exit(2) from None
    worst = 0
    with closing(client.context):
        for uid in uids:
            try:
                found, run = find_run(client, uid)
                worst = max(worst, _written(run, _path(to, found), copy, directories))
            except (FileStoreError, OSError) as error:
                _say_error(f"run {uid}: {error}")
                worst = 2
    raise typer.Exit(worst)


def _path(to: Path | None, uid: str) -> Path:
    from bluesky_filestore.bundles.run_files import filled_in

    name = filled_in("{uid:.8}.nxs", {"uid": uid})
    return name if to is None else to / name if to.is_dir() else to


def _written(run: object, path: Path, copy: bool, root_map: dict[str, str]) -> int:
    """Write a file, and say what it has; the exit code."""
    from bluesky_filestore.bundles.run_file import export_nexus

    written = export_nexus(run, path, copy=copy, root_map=root_map)
    console = Console()

    def say(words: str) -> None:
        console.print(words, highlight=False, soft_wrap=True, markup=False)

    say(f"{written.path}: run {written.uid}")
    for name, shape in written.arrays.items():
        say(f"  {name}: {shape[0]:,} rows of {list(shape[1:])}")
    for name, reason in written.lacks.items():
        say(f"  lacking: {name}: {reason}")
    for words in written.advice:
        say(f"  {words}")
    return 0 if written.ok else 1


def _say_error(words: str) -> None:
    Console(stderr=True).say(("Error:", "bold red"), f" {words}")
