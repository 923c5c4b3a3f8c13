"""The command that keeps what is in the files of runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.markup import escape

from bluesky_filestore.errors import FileStoreError

from .console import Console
from .preview import catalog_client, directories_of
from .verify import moment_of

__all__ = ["manifest"]


def manifest(
    uids: Annotated[list[str] | None, typer.Argument(metavar="[UID]...", help="The runs, or how they begin.")] = None,
    last: Annotated[bool, typer.Option("--last", help="The latest run.")] = False,
    since: Annotated[str, typer.Option(metavar="DATE", help="All runs since then, e.g. 2026-11-25 or ...T18:30.")] = "",
    all_runs: Annotated[bool, typer.Option("--all", help="All runs of the catalog.")] = False,
    uri: Annotated[str, typer.Option(help="The catalog's address; by default http://localhost:8000.")] = "",
    profile: Annotated[str, typer.Option(help="The same, by the name of a Tiled profile.")] = "",
    api_key: Annotated[str, typer.Option(help="By default that of the environment variable TILED_API_KEY.")] = "",
    root_map: Annotated[
        list[str] | None, typer.Option(metavar="OLD=NEW", help="Where a directory is for you; can be repeated.")
    ] = None,
    sidecar: Annotated[bool, typer.Option("--sidecar", help="Put a file with the run beside its files, too.")] = False,
    sizes_only: Annotated[bool, typer.Option("--sizes-only", help="Sizes and times; files are not read.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Take files for right that are others by now.")] = False,
) -> None:
    """Keep size, time and SHA-256 of each file of runs in their catalog, for `verify --checksums`.

    Files that are as they were are not read again. Exits with 1 if something could not be kept.
    """
    from bluesky_filestore.bundles.manifests import describe_files
    from bluesky_filestore.catalogs.tiled.nodes import find_run, find_runs

    if sum((bool(uids), last, bool(since), all_runs)) != 1:
        raise typer.BadParameter("say which runs, in one way: UID..., --last, --since DATE or --all.")
    options: dict[str, Any] = {"checksums": not sizes_only, "sidecar": sidecar, "replace": replace}
    options["root_map"] = directories_of(root_map)
    moment = moment_of(since)
    client = catalog_client(uri, profile, api_key)
    failed = False
    try:
        asked = uids or find_runs(client, since=moment, most=1 if last else None)
        for each in asked:
            try:
                uid, run = find_run(client, each)
                with _progress() as on_bytes:
                    found = describe_files(run, on_bytes=on_bytes, **options)
            except FileStoreError as error:
                failed = True
                _say(f"[bold red]PROBLEM[/] {escape(each)}: {escape(str(error))}")
                continue
            failed = failed or bool(found.problems)
            _say(f"{uid}: {escape(str(found))}.")
            for problem in found.problems:
                _say(f"  [bold red]PROBLEM[/] {escape(problem)}.")
    finally:
        client.context.close()
    if not asked:
        _say("There are no such runs.")
    if failed:
        raise typer.Exit(1)


@contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    """How many bytes were read, where somebody looks."""
    from rich.progress import DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn("reading"), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda count: progress.advance(task, count)


def _say(words: str) -> None:
    Console().print(words, highlight=False, soft_wrap=True)
