"""The command itself: its commands, and errors as sentences."""

import errno
import logging
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from bluesky_filestore import __version__
from bluesky_filestore.errors import FileStoreError
from bluesky_filestore.extras import missing_package
from bluesky_filestore.leanings import going_without
from bluesky_filestore.logs import get_logger
from bluesky_filestore.visible import without_secrets

from .bundles import pack, unpack
from .console import Commands, Console
from .local import demo, doctor, serve, sim
from .manifests import manifest
from .migrating import migrate
from .nexus import nexus
from .preview import preview
from .recovering import recover
from .relocating import copy, move, relocate
from .runs import export, forget, park, rename
from .services import consume, deliver
from .spools import resume, status
from .verify import verify
from .watch import watch

__all__ = ["app", "main"]

_logger = get_logger(__name__)
app = typer.Typer(
    cls=Commands,
    help="From det.trigger() to the array in the catalog.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_COMMANDS = (
    *(demo, sim, serve, doctor, verify, manifest, preview, nexus, status, watch, resume),
    *(deliver, consume, park, forget, rename, export, migrate, recover),
    *(pack, unpack, relocate, copy, move),
)
for _command in _COMMANDS:
    app.command()(_command)


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
        Console(stderr=True).say(("Error:", "bold red"), f" {_sentence(error)}")
        sys.exit(1)
    finally:
        stop_ophyd = _end_of_ophyd()
        # Threads of ophyd that the exit cuts off while they connect would log tracebacks under our sentence.
        logging.disable(logging.CRITICAL)
        stop_ophyd()


def _end_of_ophyd() -> Callable[[], None]:
    """Has ophyd's threads end before Python does: one that reads while devices are cleared away crashes it."""
    if "ophyd" in sys.modules:
        with going_without(_logger, "ophyd's dispatcher", "its threads end with the process, which may crash then"):
            dispatcher = sys.modules["ophyd"].get_cl().get_dispatcher()
            if dispatcher is not None and dispatcher.is_alive():
                stop: Callable[[], None] = dispatcher.stop
                return stop
    return lambda: None


def _sentence(error: Exception) -> str:
    if isinstance(error, FileStoreError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return str(missing_package(error))
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" of {error.filename}" if error.filename else ""
        return (
            f"the disk{where} is full ({error.strerror}); expected room for what is written: make room, or choose "
            f"another disk, and give the same command again."
        )
    if isinstance(error, OSError) and error.strerror:
        what = " -> ".join(repr(str(name)) for name in (error.filename, error.filename2) if name is not None)
        return (
            f"{what or 'a file, directory or port'} cannot be used ({error.strerror}); expected one that is there and "
            f"that this user may read, and write to where something is kept (--debug shows where it was needed)."
        )
    return without_secrets(f"unexpected {type(error).__name__}: {error} (run again with --debug for the traceback)")
