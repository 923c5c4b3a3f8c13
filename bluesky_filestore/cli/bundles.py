"""The commands for runs that leave the house, and that come: pack and unpack."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .catalog_options import ApiKey, Profile, RootMapOption, Uri, catalog_client, directories_of
from .console import Console

if TYPE_CHECKING:
    from tiled.client.container import Container

    from bluesky_filestore.bundles.unpacking import Unpacked

__all__ = ["pack", "unpack"]


def pack(
    uids: Annotated[list[str], typer.Argument(metavar="UID...", help="The runs, or how they begin.")],
    to: Annotated[Path, typer.Option(help="The pack: a folder, or a name that ends in .tar or .zip.")],
    uri: Uri = "",
    profile: Profile = "",
    api_key: ApiKey = "",
    root_map: RootMapOption = None,
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="Files may be missing; it is said.")] = False,
) -> None:
    """Put runs with their files into a folder, .tar or .zip; goes on where it was interrupted."""
    from bluesky_filestore.bundles.packing import pack as pack_runs

    moved = directories_of(root_map)
    client = catalog_client(uri, profile, api_key)
    try:
        with _counting("packing") as count:
            packed = pack_runs(client, uids, to=to, root_map=moved, allow_missing=allow_missing, on_bytes=count)
    finally:
        client.context.close()
    for note in packed.notes:
        _say(f"note: {note}")
    _say(f"{len(packed.uids):,} runs with {packed.files:,} files, {packed.size:,} bytes, are in {packed.path}.")


def unpack(
    packed: Annotated[Path, typer.Argument(metavar="PACK", help="A folder, .tar or .zip that `pack` made.")],
    into: Annotated[Path, typer.Option(help="The data directory, which the catalog's server may read.")],
    uids: Annotated[list[str] | None, typer.Option("--run", help="Only this run; can be repeated.")] = None,
    uri: Uri = "",
    profile: Profile = "",
    api_key: ApiKey = "",
) -> None:
    """Put the runs of a pack into a data directory and a catalog, and verify them; goes on where it was interrupted.

    Exits with 1 if a run is not there then as it was packed.
    """
    from bluesky_filestore.bundles.unpacking import unpack as unpack_runs

    client = catalog_client(uri, profile, api_key)
    try:
        with _counting("unpacking") as count:
            found = unpack_runs(packed, client, into=into, uids=uids or (), on_bytes=count)
        codes = [_show(each, client) for each in found]
    finally:
        client.context.close()
    raise typer.Exit(max(codes, default=0))


def _show(each: "Unpacked", client: "Container") -> int:
    from bluesky_filestore.checking.verify import verify_run

    _say(f"{each.state} {each.uid}: {each.files:,} files, {each.size:,} bytes")
    for words in each.words:
        _say(f"  {words}")
    if each.state == "refused":
        return 1
    report = verify_run(client, each.uid)
    if report.exit_code:
        _say(str(report))
    return int(bool(report.exit_code))


@contextmanager
def _counting(what: str) -> Iterator[Callable[[int], None]]:
    """Shows how many bytes were copied, where somebody watches."""
    from rich.progress import DownloadColumn, Progress, SpinnerColumn, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda count: progress.advance(task, count)


def _say(words: str) -> None:
    Console().print(words, highlight=False, soft_wrap=True, markup=False)
