"""The commands for one person on one machine: demo, sim, serve, doctor."""

import contextlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import Console

if TYPE_CHECKING:
    from bluesky_filestore.serving import CatalogServer

__all__ = ["demo", "doctor", "serve", "sim"]

Port = Annotated[int, typer.Option(help="TCP port on loopback; 0 takes a free one.", min=0, max=65535)]

Streams = Annotated[
    str | None,
    typer.Option(
        metavar="memory|REDIS",
        help="Tell those who subscribe what is new, out of memory or a Redis, e.g. redis://localhost:6379.",
        envvar="BLUESKY_FILESTORE_STREAMS",
    ),
]


def demo(
    keep: Annotated[Path | None, typer.Option(help="Keep files, catalog and contact sheet here.")] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Leave the catalog running until Ctrl-C.")] = False,
    sheet: Annotated[Path | None, typer.Option(help="Where the contact sheet goes.")] = None,
) -> None:
    """Take data with a simulated detector, read it back from a catalog and compare every frame."""
    from bluesky_filestore.demo import run_demo

    console = Console()
    if not run_demo(console, keep=keep, sheet=sheet, then=partial(_serve_until_interrupt, console) if serve else None):
        raise typer.Exit(1)


def sim(
    directory: Annotated[Path, typer.Argument(help="The data directory, made if it is not there.")] = Path("data"),
    prefix: Annotated[str, typer.Option(help="What the names of all records begin with.")] = "13SIM1:",
    port: Port = 0,
    disk_space: Annotated[
        int | None, typer.Option(help="Bytes that may be written; then the disk is full.", min=0)
    ] = None,
) -> None:
    """Run the simulated areaDetector IOC in the foreground, on loopback, until Ctrl-C."""
    from bluesky_filestore.sim import client_environment, run_ioc

    console = Console()
    where = directory.resolve()

    def ready(port: int) -> None:
        settings = " ".join(f"{name}={value}" for name, value in client_environment(port).items())
        console.say(
            "Simulated areaDetector IOC ", (prefix, "bold"), " writes below ", (f"{where}", "bold"), " until Ctrl-C."
        )
        console.print("A client on this machine finds it with:")
        console.print(f"    export {settings}", highlight=False, soft_wrap=True)

    with contextlib.suppress(KeyboardInterrupt):
        run_ioc(where, prefix=prefix, port=port or None, disk_space=disk_space, on_ready=ready)


def serve(
    directory: Annotated[Path, typer.Argument(help="The catalog's directory, made if it is not there.")],
    readable: Annotated[
        list[Path] | None, typer.Option(help="A data directory that the server may read; can be repeated.")
    ] = None,
    port: Port = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            help="Letters and digits; by default a new one at each start, which writers from before do not have.",
            envvar="TILED_SINGLE_USER_API_KEY",
        ),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(
            help="The URI of a PostgreSQL database for catalog and tables; by default they are in the directory.",
            envvar="BLUESKY_FILESTORE_DATABASE",
        ),
    ] = None,
    allow_changed: Annotated[
        bool, typer.Option("--allow-changed", help="Serve files that are not those that were registered, too.")
    ] = False,
    host_name: Annotated[
        list[str] | None,
        typer.Option(help="A name by which the server may be asked besides localhost; can be repeated."),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(help="What is refused as too much, e.g. response_bytes=1000000000; can be repeated."),
    ] = None,
    streams: Streams = None,
) -> None:
    """Run a Tiled catalog on loopback until Ctrl-C."""
    from bluesky_filestore.serving import Limits, serve_catalog

    console = Console()
    with serve_catalog(
        directory,
        readable=readable or [],
        port=port,
        api_key=api_key,
        database=database,
        allow_changed=allow_changed,
        host_names=host_name or [],
        limits=Limits.parsed(limit or ()),
        streams=streams or False,
    ) as catalog:
        _serve_until_interrupt(console, catalog)


def doctor(
    where: Annotated[str, typer.Argument(metavar="MODULE:DETECTOR", help="Where Python finds the detector.")],
    probe: Annotated[bool, typer.Option("--probe", help="Also take one point, and look for its frame.")] = False,
) -> None:
    """Look whether a detector will write frames that are found again; one line a check."""
    from bluesky_filestore.checking import doctor as examine
    from bluesky_filestore.checking import load_device

    report = examine(load_device(where), probe=probe)
    Console().print(report, highlight=False, soft_wrap=True)
    if not report.ok:
        raise typer.Exit(1)


def _serve_until_interrupt(console: Console, catalog: "CatalogServer") -> None:
    from threading import Event

    console.say("The catalog is at ", (catalog.uri, "bold"), " until Ctrl-C. Open it with:")
    console.print("    from tiled.client import from_uri", highlight=False)
    console.print(
        f'    client = from_uri("{catalog.uri}", api_key="{catalog.api_key}")', highlight=False, soft_wrap=True
    )
    with contextlib.suppress(KeyboardInterrupt):
        Event().wait()
