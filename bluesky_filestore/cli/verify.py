"""The command that answers whether a run has its data."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bluesky_filestore.errors import CatalogError

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

if TYPE_CHECKING:
    from bluesky_filestore.checking.run_report import RunReport

__all__ = ["verify"]


def verify(
    uids: Uids = None,
    last: Last = False,
    since: Since = "",
    all_runs: AllRuns = False,
    uri: Uri = "",
    profile: Profile = "",
    api_key: ApiKey = "",
    root_map: RootMapOption = None,
    every_frame: Annotated[bool, typer.Option("--every-frame", help="Read each frame, not some of them.")] = False,
    checksums: Annotated[bool, typer.Option("--checksums", help="Read all of each file, by the manifest.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs; one line a run.")] = False,
) -> None:
    """Compare runs with their files and their catalog.

    Exits with 0 if all is well, with 1 if something is wrong, and with 2 if something could not be looked at.
    """
    from bluesky_filestore.catalogs.databroker.broker import takes_documents
    from bluesky_filestore.catalogs.databroker.runs import find_runs as find_documents
    from bluesky_filestore.catalogs.tiled.nodes import find_runs
    from bluesky_filestore.catalogs.tiled.once import without_retries
    from bluesky_filestore.checking.verify import verify_runs

    moved, moment = directories_of(root_map), moment_of(uids, last=last, since=since, all_runs=all_runs)

    try:
        client = without_retries(catalog_client(uri, profile, api_key))
        find = find_documents if takes_documents(client) else find_runs
        asked = uids or find(client, since=moment, most=1 if last else None)
    except CatalogError as error:
        # Not 1: nothing was found to be wrong with a run.
        Console(stderr=True).say(("Error:", "bold red"), f" {error}")
        raise typer.Exit(2) from None
    worst, codes = 0, Counter[int]()
    reports = verify_runs(client, asked, root_map=moved, every_frame=every_frame, checksums=checksums)
    for uid, report in _with_progress(reports, len(asked)):
        # What could not be looked at is less bad than what is wrong.
        code = 2 if isinstance(report, str) else report.exit_code
        worst = code if worst == 0 or code == 1 else worst
        codes[code] += 1
        if code or uids or as_json or len(asked) == 1:
            _show(uid, report, as_json=as_json, whole=len(asked) == 1)
    if len(asked) > 1 and not as_json:
        words = f"{codes[0]:,} of {len(asked):,} runs are well, something is wrong with {codes[1]:,}"
        Console().print(f"{words}, something of {codes[2]:,} could not be looked at.", highlight=False, soft_wrap=True)
    if not asked and not as_json:
        Console().print("There are no such runs.")
    raise typer.Exit(worst)


def _with_progress(reports: Iterator[Any], count: int) -> Iterator[Any]:
    from rich.progress import track

    console = Console(stderr=True)
    return iter(
        track(
            reports, "verifying", count, console=console, transient=True, disable=count == 1 or not console.is_terminal
        )
    )


def _show(uid: str, report: "RunReport | str", *, as_json: bool, whole: bool) -> None:
    if as_json:
        said = {"uid": uid, "error": report, "exit_code": 2} if isinstance(report, str) else report.to_json()
        typer.echo(json.dumps(said))
        return
    console = Console()
    if isinstance(report, str):
        console.say(("?", "yellow"), f"       {report}")
        return
    verdict = {0: ("ok", "green", "all is well:"), 1: ("PROBLEM", "bold red", "something is wrong with")}
    mark, style, words = verdict.get(report.exit_code, ("?", "yellow", "something could not be looked at with"))
    console.say((f"{mark:<8}", style), f"{words} run {report.uid}")
    for finding in report.findings:
        if whole or finding.ok is not True:
            console.print("  ", finding.styled(), sep="", highlight=False, soft_wrap=True)
