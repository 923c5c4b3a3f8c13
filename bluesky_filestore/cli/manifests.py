"""The command that keeps what is in the files of runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from bluesky_filestore.errors import FileStoreError

from .catalog_options import (
    AllRuns,
    ApiKey,
    Last,
    Profile,
    RootMapOption,
    Since,
    Uids,
    Uri,
    catalog_client,
    directories_of,
    moment_of,
)
from .console import Console

__all__ = ["manifest"]


def manifest(
    uids: Uids = None,
    last: Last = False,
    since: Since = "",
    all_runs: AllRuns = False,
    uri: Uri = "",
    profile: Profile = "",
    api_key: ApiKey = "",
    root_map: RootMapOption = None,
    sidecar: Annotated[bool, typer.Option("--sidecar", help="Put a file with the run beside its files, too.")] = False,
    sizes_only: Annotated[bool, typer.Option("--sizes-only", help="Sizes and times; files are not read.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Take files for right that are others by now.")] = False,
) -> None:
    """Keep size, time and SHA-256 of each file of runs in their catalog, for `verify --checksums`.

    Files that are as they were are not read again. Exits with 1 if something could not be kept.
    """
    from bluesky_filestore.bundles.manifests import describe_files
    from bluesky_filestore.catalogs.tiled.nodes import find_run, find_runs

    options: dict[str, Any] = {"checksums": not sizes_only, "sidecar": sidecar, "replace": replace}
    options["root_map"] = directories_of(root_map)
    moment = moment_of(uids, last=last, since=since, all_runs=all_runs)
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
                _say(("PROBLEM", "bold red"), f" {each}: {error}")
                continue
            failed = failed or bool(found.problems)
            _say(f"{uid}: {found}.")
            for problem in found.problems:
                _say("  ", ("PROBLEM", "bold red"), f" {problem}.")
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


def _say(*parts: str | tuple[str, str]) -> None:
    Console().say(*parts)
