"""The command that shows runs as they grow: as a page, or in the terminal."""

import os
import secrets
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bluesky_filestore.errors import OptionError

from .catalog_options import ApiKey, Profile, RootMapOption, catalog_client, directories_of
from .console import Console
from .runs import spools_meant

if TYPE_CHECKING:
    from tiled.client.container import Container

    from bluesky_filestore.live.page_state import Watched

__all__ = ["watch"]

_NICENESS = 5
_REFRESH_SECONDS, _ASK_SECONDS, _READ_SECONDS, _SHUTDOWN_SECONDS = 0.25, 20.0, 2.0, 2
_MARKS = {True: "ok", False: "problem", None: "?"}

Spools = Annotated[
    list[Path] | None, typer.Argument(metavar="[SPOOL]...", help="The spools; by default all of this user.")
]


def watch(
    spools: Spools = None,
    uri: Annotated[str, typer.Option(help="The catalog whose runs are listed; by default that of a spool.")] = "",
    profile: Profile = "",
    api_key: ApiKey = "",
    root_map: RootMapOption = None,
    port: Annotated[int, typer.Option(help="The page's port on loopback; 0 for a free one.", min=0)] = 0,
    key: Annotated[
        str,
        typer.Option(
            help="Letters and digits that the page is opened with; by default new ones at each start.",
            envvar="BLUESKY_FILESTORE_PAGE_KEY",
        ),
    ] = "",
    text: Annotated[bool, typer.Option("--text", help="In this terminal, and not as a page.")] = False,
) -> None:
    """Show the run that goes on, with its frames, what waits in spools, and the last runs, until Ctrl-C."""
    from bluesky_filestore.live.page_state import Watched

    # It may run where data are taken, which come first.
    os.nice(_NICENESS)
    moved = directories_of(root_map)
    # One that is misspelled is said at once, and not on the page.
    _spools(spools)
    with (
        suppress(KeyboardInterrupt),
        closing(
            Watched(
                lambda: _spools(spools),
                partial(_client, spools, uri, profile, api_key),
                lambda run: _verified(_client(spools, uri, profile, api_key), run, moved),
                moved,
            )
        ) as watched,
    ):
        if text:
            _show_text(watched)
        else:
            _serve(watched, port, key or secrets.token_hex(16))


def _spools(named: list[Path] | None) -> list[Path]:
    return [each for one in named for each in spools_meant(one)] if named else spools_meant(None)


def _client(spools: list[Path] | None, uri: str, profile: str, api_key: str) -> "Container":
    """The catalog that is meant, or one that a spool delivers to; one that is away is not waited for."""
    from bluesky_filestore.catalogs.tiled.once import without_retries
    from bluesky_filestore.spool.status import look_at

    if not (uri or profile):
        known = [each.catalog for spool in _spools(spools) for each in look_at(spool).catalogs]
        uri = next((each for each in known if each), "")
        if not uri:
            raise OptionError("no spool knows a catalog; name one with --uri or --profile to see its runs.")
    return without_retries(catalog_client(uri, profile, api_key))


def _verified(client: "Container", uid: str, root_map: dict[str, str]) -> list[tuple[str, str]]:
    """What is found when a run is compared with its files, each with how it is marked."""
    from bluesky_filestore.checking.verify import verify_runs

    ((_, report),) = verify_runs(client, [uid], root_map=root_map)
    if isinstance(report, str):
        return [("?", report)]
    return [(_MARKS[each.ok], str(each)) for each in report.findings]


def _serve(watched: "Watched", port: int, key: str) -> None:
    from bluesky_filestore.extras import from_extra

    if not key.isalnum():
        raise OptionError("the page's key has other characters than letters and digits; expected nothing else.")
    with from_extra("serve"):
        import uvicorn

        from bluesky_filestore.live.page import WithPage, page_app
        from bluesky_filestore.serving.binding import bound_socket
        from bluesky_filestore.serving.guard import Guard
    server: uvicorn.Server

    bound = bound_socket(port)
    taken = bound.getsockname()[1]
    # Browsers have one set of cookies for all ports.
    cookie = f"bluesky_filestore_key_{taken}"
    page = page_app(watched, cookie=cookie, is_over=lambda: server.should_exit)
    # From here on whoever comes waits until he is answered.
    bound.listen()
    config = uvicorn.Config(
        Guard(WithPage(_elsewhere, page), key, cookie=cookie),
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    server = uvicorn.Server(config)
    address = f"http://127.0.0.1:{taken}/filestore?api_key={key}"
    Console().say("The page is there until Ctrl-C:")
    # As it is: a console would leave the key out, without which it cannot be opened.
    typer.echo(f"    {address}")
    server.run([bound])


async def _elsewhere(scope: Any, receive: Any, send: Any) -> None:
    """Where the page is, for whoever asks for something else."""
    from starlette.responses import PlainTextResponse

    if scope["type"] == "http":
        await PlainTextResponse("The page is at /filestore.\n", status_code=404)(scope, receive, send)


def _show_text(watched: "Watched") -> None:
    from rich.live import Live

    from bluesky_filestore.live.page_text import shown

    console = Console()
    if not console.is_terminal:
        # For whoever looks once: as soon as all is known, and the run was read, or some of one that goes on.
        _wait(lambda: None not in (watched.delivery(), watched.heads()), _ASK_SECONDS)
        _wait(lambda: bool(uid := watched.latest()) and watched.view(uid).is_over, _READ_SECONDS)
        console.print(shown(watched, console.size))
        return
    with Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            live.update(shown(watched, console.size), refresh=True)
            time.sleep(_REFRESH_SECONDS)


def _wait(is_so: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not is_so() and time.monotonic() < until:
        time.sleep(_REFRESH_SECONDS)
