"""The command ``bluesky-filestore``: a thin shell that turns options into calls and errors into sentences."""

import contextlib
import logging
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from . import __version__
from .errors import FileStoreError

if TYPE_CHECKING:
    from .serving import CatalogServer

__all__ = ["app", "main"]

app = typer.Typer(
    help="From det.trigger() to the array in the catalog.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Port = Annotated[int, typer.Option(help="TCP port on loopback; 0 takes a free one.", min=0, max=65535)]


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"bluesky-filestore {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (anywhere on the line).")
    ] = False,
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True)] = False,
) -> None:
    """From det.trigger() to the array in the catalog."""


@app.command()
def demo(
    keep: Annotated[Path | None, typer.Option(help="Keep files, catalog and contact sheet here.")] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Leave the catalog running until Ctrl-C.")] = False,
    sheet: Annotated[Path, typer.Option(help="Where the contact sheet goes without --keep.")] = Path(
        "bluesky-filestore-demo.png"
    ),
) -> None:
    """Take data with a simulated detector, read it back from a catalog and compare every frame."""
    from .demo import run_demo

    console = Console()
    if not run_demo(console, keep=keep, sheet=sheet, then=partial(_serve_until_interrupt, console) if serve else None):
        raise typer.Exit(1)


@app.command()
def sim(
    directory: Annotated[Path, typer.Argument(help="The data directory, made if it is not there.")] = Path("data"),
    prefix: Annotated[str, typer.Option(help="What the names of all records begin with.")] = "13SIM1:",
    port: Port = 0,
) -> None:
    """Run the simulated areaDetector IOC in the foreground, on loopback, until Ctrl-C."""
    from .sim import client_environment, run_ioc

    console = Console()
    where = directory.resolve()

    def ready(port: int) -> None:
        settings = " ".join(f"{name}={value}" for name, value in client_environment(port).items())
        console.print(f"Simulated areaDetector IOC [bold]{prefix}[/] writes below [bold]{where}[/] until Ctrl-C.")
        console.print("A client on this machine finds it with:")
        console.print(f"    export {settings}", highlight=False, soft_wrap=True)

    with contextlib.suppress(KeyboardInterrupt):
        run_ioc(where, prefix=prefix, port=port or None, on_ready=ready)


@app.command()
def serve(
    directory: Annotated[Path, typer.Argument(help="The catalog's directory, made if it is not there.")],
    readable: Annotated[
        list[Path] | None, typer.Option(help="A data directory that the server may read; can be repeated.")
    ] = None,
    port: Port = 8000,
) -> None:
    """Run a Tiled catalog on loopback until Ctrl-C."""
    from .serving import serve_catalog

    console = Console()
    with serve_catalog(directory, readable=readable or [], port=port) as catalog:
        _serve_until_interrupt(console, catalog)


@app.command()
def doctor(
    where: Annotated[str, typer.Argument(metavar="MODULE:DETECTOR", help="Where Python finds the detector.")],
    probe: Annotated[bool, typer.Option("--probe", help="Also take one point, and look for its frame.")] = False,
) -> None:
    """Look whether a detector will write frames that are found again; one line a check."""
    from .checking import doctor as examine
    from .checking import load_device

    report = examine(load_device(where), probe=probe)
    Console().print(report, highlight=False, soft_wrap=True)
    if not report.ok:
        raise typer.Exit(1)


def _serve_until_interrupt(console: Console, catalog: "CatalogServer") -> None:
    from threading import Event

    console.print(f"The catalog is at [bold]{catalog.uri}[/] until Ctrl-C. Open it with:")
    console.print("    from tiled.client import from_uri", highlight=False)
    console.print(
        f'    client = from_uri("{catalog.uri}", api_key="{catalog.api_key}")', highlight=False, soft_wrap=True
    )
    with contextlib.suppress(KeyboardInterrupt):
        Event().wait()


def main() -> None:
    """Entry point of the console command."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    if len(arguments) == len(sys.argv[1:]):
        # The RunEngine logs the traceback of what it then raises, and we make a sentence of.
        logging.getLogger("bluesky").setLevel(logging.CRITICAL)
    try:
        app(args=arguments, prog_name="bluesky-filestore")
    except Exception as error:
        # The command line is the last one who could make a sentence of it.
        if len(arguments) != len(sys.argv[1:]):
            raise
        Console(stderr=True).print(f"[bold red]Error:[/] {_sentence(error)}", highlight=False, soft_wrap=True)
        sys.exit(1)
    finally:
        # Threads of ophyd that the exit cuts off while they connect would log tracebacks under our sentence.
        logging.disable(logging.CRITICAL)


def _sentence(error: Exception) -> str:
    from rich.markup import escape

    if isinstance(error, FileStoreError):
        return escape(str(error))
    if isinstance(error, ModuleNotFoundError):
        return escape(
            f"the package {error.name!r} is not installed; it comes with: pip install 'bluesky_filestore[all]'"
        )
    if isinstance(error, OSError):
        return escape(str(error))
    return escape(f"unexpected {type(error).__name__}: {error} (run again with --debug for the traceback)")


if __name__ == "__main__":
    main()
