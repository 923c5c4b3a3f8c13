"""What commands are told of a catalog and of the runs in it, and what is meant by it."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiled.client.container import Container

    from bluesky_filestore.delivery.webhook import Webhook as Receiver

__all__ = [
    "AllRuns",
    "ApiKey",
    "Last",
    "Profile",
    "RootMapOption",
    "Since",
    "Uids",
    "Uri",
    "Webhook",
    "WebhookSecret",
    "catalog_client",
    "directories_of",
    "moment_of",
    "receiver_of",
]

_DEFAULT = "http://localhost:8000"

Uri = Annotated[str, typer.Option(help=f"The catalog's address; by default {_DEFAULT}.")]
Profile = Annotated[str, typer.Option(help="The same, by the name of a Tiled profile.")]
ApiKey = Annotated[str, typer.Option(help="By default that of the environment variable TILED_API_KEY.")]
RootMapOption = Annotated[
    list[str] | None,
    typer.Option("--root-map", metavar="OLD=NEW", help="Where a directory is for you; can be repeated."),
]
Uids = Annotated[list[str] | None, typer.Argument(metavar="[UID]...", help="The runs, or how they begin.")]
Last = Annotated[bool, typer.Option("--last", help="The latest run.")]
Since = Annotated[str, typer.Option(metavar="DATE", help="All runs since then, e.g. 2026-11-25 or ...T18:30.")]
AllRuns = Annotated[bool, typer.Option("--all", help="All runs of the catalog.")]
Webhook = Annotated[
    str,
    typer.Option(
        envvar="BLUESKY_FILESTORE_WEBHOOK",
        show_envvar=False,
        help="Address that is told of complete runs; by default that of the environment variable "
        "BLUESKY_FILESTORE_WEBHOOK.",
    ),
]
WebhookSecret = Annotated[
    str,
    typer.Option(
        envvar="BLUESKY_FILESTORE_WEBHOOK_SECRET",
        show_envvar=False,
        help="What these messages are signed with; the same with _SECRET.",
    ),
]


def receiver_of(webhook: str, secret: str) -> "Receiver | None":
    """Who is told of runs that are complete; None if the options say nobody."""
    from bluesky_filestore.delivery.webhook import Webhook as Receiver

    if secret and not webhook:
        raise typer.BadParameter("--webhook-secret goes with --webhook.")
    return Receiver(webhook, secret) if webhook else None


def catalog_client(uri: str, profile: str, api_key: str) -> "Container":
    """The catalog that is meant by the options; empty ones were not given."""
    from bluesky_filestore.catalogs.tiled.connecting import connect, connect_profile

    if uri and profile:
        raise typer.BadParameter("give --uri or --profile, not both.")
    client_kwargs: dict[str, Any] = {"api_key": api_key} if api_key else {}
    return connect_profile(profile, **client_kwargs) if profile else connect(uri or _DEFAULT, **client_kwargs)


def directories_of(options: list[str] | None, option: str = "--root-map") -> dict[str, str]:
    """Where directories are, by what an option or argument says."""
    return dict(_directories(each, option) for each in options or [])


def _directories(said: str, option: str) -> tuple[str, str]:
    old, equals, new = said.partition("=")
    if not (old and equals and new):
        raise typer.BadParameter(f"{option} {said!r} does not say what is where; expected /old/place=/new/place.")
    return old, new


def moment_of(uids: "Sequence[str] | None", *, last: bool, since: str, all_runs: bool) -> float | None:
    """Since when runs are meant, in seconds since 1970; None if they are said in another way, of which one is taken."""
    if sum((bool(uids), last, bool(since), all_runs)) != 1:
        raise typer.BadParameter("say which runs, in one way: UID..., --last, --since DATE or --all.")
    try:
        return datetime.fromisoformat(since).timestamp() if since else None
    except ValueError:
        raise typer.BadParameter(f"--since {since!r} is no date; expected e.g. 2026-11-25T18:30.") from None
