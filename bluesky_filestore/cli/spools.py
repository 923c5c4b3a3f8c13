"""The commands for whole spools: status and resume."""

import json
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bluesky_filestore.errors import CatalogError, HandoffError, SpoolError

from .catalog_options import Webhook, WebhookSecret, receiver_of
from .console import Console
from .runs import spools_meant
from .targets import Target, find_targets

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bluesky_filestore.delivery.webhook import Webhook as Receiver
    from bluesky_filestore.spool.status import SpoolStatus

__all__ = ["Views", "deliver_to", "resume", "status"]

_ANSWER_SECONDS = 0.5
_REFRESH_SECONDS = 1.0
_INTERRUPTED = 130

Views = Annotated[
    Path | None,
    typer.Option(help="A directory that a stock server may read, for small files with what it cannot address."),
]
Where = Annotated[Path | None, typer.Argument(metavar="[SPOOL]", help="By default all spools of this user.")]


def status(
    spool: Where = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs; with --watch one line a look.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every second until Ctrl-C.")] = False,
) -> None:
    """Show what waits in spools, who delivers it, and what is in the way."""
    from rich.live import Live

    from .spool_report import as_json as data_of

    if as_json:
        _until_interrupt(lambda: typer.echo(json.dumps(data_of(*_look(spool)), indent=None if watch else 2)), watch)
        return
    console = Console()
    if not (watch and console.is_terminal):
        _until_interrupt(lambda: console.print(_shown(spool), highlight=False, soft_wrap=True), watch)
        return
    with Live(console=console, auto_refresh=False, screen=True) as live:
        _until_interrupt(lambda: live.update(_shown(spool), refresh=True), watch)


def resume(
    spool: Where = None,
    run: Annotated[
        str,
        typer.Option(help="Also this run (beginning of its uid), parked or delivered, again from its first document."),
    ] = "",
    uri: Annotated[str, typer.Option(help="Only to this catalog; a new one gets all runs of the spool.")] = "",
    profile: Annotated[str, typer.Option(help="The same, by the name of a Tiled profile.")] = "",
    api_key: Annotated[str, typer.Option(help="By default that of the environment variable TILED_API_KEY.")] = "",
    wait: Annotated[float, typer.Option(help="Seconds to wait for a catalog that is away; inf for ever.")] = 30.0,
    park_after: Annotated[
        float, typer.Option(help="Seconds to try what the catalog fails at before the run is parked.")
    ] = 60.0,
    views: Views = None,
    webhook: Webhook = "",
    webhook_secret: WebhookSecret = "",
) -> None:
    """Deliver what waits in spools. Exits with 1 if something is parked, or a catalog or webhook stays away."""
    from bluesky_filestore.delivery.private_spools import remove_if_over
    from bluesky_filestore.spool.places import is_private
    from bluesky_filestore.spool.spooled_run import find_run

    spools, receiver = spools_meant(spool), receiver_of(webhook, webhook_secret)
    if run:
        found = find_run(spools, run)
        for each in found:
            each.ask_again()
        spools = [each.directory for each in found]
    console = Console()

    def say(words: str) -> None:
        console.print(words, highlight=False, soft_wrap=True, markup=False)

    try:
        targets = find_targets(spools, uri=uri, profile=profile, api_key=api_key, wait=wait, say=say)
        if not targets:
            say("Nothing waits to be delivered.")
        how: dict[str, Any] = {"wait": wait, "park_after": park_after, "views": views, "receiver": receiver}
        fine = [deliver_to(console, target, **how) for target in targets]
        fine += [_send_to(receiver, directory, say) for directory in spools if receiver is not None]
        for directory in filter(is_private, spools):
            remove_if_over(directory)
    except KeyboardInterrupt:
        say("Interrupted; what is not delivered yet waits in the spool.")
        raise typer.Exit(_INTERRUPTED) from None
    if not all(fine):
        raise typer.Exit(1)


def _look(spool: Path | None) -> "tuple[list[SpoolStatus], dict[str, str]]":
    from bluesky_filestore.catalogs.tiled.connecting import find_outages
    from bluesky_filestore.spool.status import look_at

    spools = [look_at(directory) for directory in spools_meant(spool)]
    return spools, find_outages(
        (each.catalog for found in spools for each in found.catalogs if each.catalog), _ANSWER_SECONDS
    )


def _shown(spool: Path | None) -> "RenderableType":
    from .spool_report import as_text

    spools, silent = _look(spool)
    return as_text(spools, silent) if spools else "No spool of this user holds anything."


def _until_interrupt(look: Callable[[], None], watch: bool) -> None:
    try:
        look()
        while watch:
            time.sleep(_REFRESH_SECONDS)
            look()
    except KeyboardInterrupt:
        return


def _send_to(receiver: "Receiver", directory: Path, say: Callable[[str], None]) -> bool:
    """Send what waits in a spool to a webhook; whether all was taken."""
    from bluesky_filestore.delivery.webhook import send_waiting

    try:
        left = send_waiting(directory, receiver)
    except HandoffError as error:
        say(f"{directory}: {error} What waits for it is kept.")
        return False
    if left:
        say(f"{directory}: {left:,} messages were not taken by {receiver.name}.")
    return not left


def deliver_to(
    console: Console,
    target: Target,
    *,
    wait: float,
    park_after: float,
    views: Path | None = None,
    receiver: "Receiver | None" = None,
) -> bool:
    """Deliver what waits for one catalog, with progress; whether all of it is there."""
    from bluesky_filestore.delivery.resuming import follow
    from bluesky_filestore.delivery.views import views_in
    from bluesky_filestore.spool.status import described_runs

    console.print(f"{target.directory} -> {target.uri}", highlight=False, soft_wrap=True, markup=False)
    columns = (
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
    )
    how: dict[str, Any] = {"wait": wait, "park_after": park_after, "view": views_in(views), "webhook": receiver}
    most, told, failing = 0, None, set[str]()
    with (
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
        closing(follow(target.directory, target.uri, target.make_client, **how)) as looks,
    ):
        task = bar.add_task("documents", total=None)
        try:
            for look in looks:
                most = max(most, look.waiting)
                words = look.error or described_runs(look.runs)
                bar.update(task, total=most, completed=most - look.waiting, description=words)
                if look.uploader is not None and look.uploader != told:
                    told = look.uploader
                    console.print(f"  Process {told} delivers already; this only watches.", highlight=False)
                for uid in look.failing.keys() - failing:
                    failing.add(uid)
                    words = f"  Run {uid}: {look.failing[uid]} It is tried again for {park_after:g} s."
                    console.print(words, highlight=False, soft_wrap=True, markup=False)
        except CatalogError as error:
            console.say("  ", ("Error:", "bold red"), f" {error}")
            return False
    return _say_end(console, target, going_on=look.going_on)


def _say_end(console: Console, target: Target, *, going_on: int) -> bool:
    from bluesky_filestore.catalog_address import comparable_address
    from bluesky_filestore.spool.status import described_runs, look_at

    meant = comparable_address(target.uri)
    try:
        found = next(each for each in look_at(target.directory).catalogs if comparable_address(each.catalog) == meant)
    except SpoolError:
        if target.directory.exists():
            raise
        # It was that of a writer, which went with it.
        console.print("  all runs delivered")
        return True
    console.print(f"  {described_runs(found.runs) or 'no runs'}", highlight=False, soft_wrap=True)
    if going_on:
        words = "is delivered by the process that takes the data, or by whoever delivers next."
        console.print(f"  What is still going on {words}", highlight=False, soft_wrap=True)
    for uid, reason in found.parked.items():
        console.print(f"  parked {uid}: {reason}", highlight=False, soft_wrap=True, markup=False)
    return not found.parked
