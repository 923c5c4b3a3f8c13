"""The commands for what spools hold, one by one: park, forget, export, and rename for catalogs."""

import shlex
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from bluesky_filestore.errors import SpoolError
from bluesky_filestore.visible import visible_json

from .console import Console

__all__ = ["export", "forget", "park", "rename", "spools_meant"]

Uid = Annotated[str, typer.Argument(help="The run's uid, or its beginning.")]
Spool = Annotated[Path | None, typer.Option("--spool", help="The spool directory; by default all of this user.")]

_LENGTH = 8


def spools_meant(directory: Path | None) -> list[Path]:
    """The spool in a directory, or those right below it, or all spools of this user, with what was kept elsewhere.

    Raises as `existing_spool` if there is nothing.
    """
    from bluesky_filestore.spool.database import FILE_NAME
    from bluesky_filestore.spool.places import all_spools, existing_spool, kept_instead

    if directory is None:
        return [path for path in all_spools() if _is_usable(path)]
    instead = [path for path in kept_instead(directory) if _is_usable(path)]
    if (directory / FILE_NAME).exists():
        return [existing_spool(directory), *instead]
    # As `deliver` takes them.
    below = [path.parent.resolve() for path in sorted(directory.glob(f"*/{FILE_NAME}")) if _is_usable(path.parent)]
    return [*below, *instead] or [existing_spool(directory)]


def _is_usable(directory: Path) -> bool:
    """Whether a spool can be read; if not it is said why, and does not stand in the way of the others."""
    from bluesky_filestore.spool import Ledger

    try:
        Ledger(directory).close()
    except SpoolError as error:
        Console(stderr=True).say(("Left out:", "bold red"), f" {error}")
        return False
    return True


def park(
    uid: Uid,
    reason: Annotated[str, typer.Option(help="Why, for whoever looks at the status.")] = "parked by hand",
    spool: Spool = None,
) -> None:
    """Keep a run from being delivered; `resume --run` undoes it."""
    from bluesky_filestore.spool.spooled_run import find_run

    for run in find_run(spools_meant(spool), uid):
        run.park(reason)
        undo = f"bluesky-filestore resume {shlex.quote(str(run.directory))} --run {run.uid}"
        _say(f"Run {run.uid} is parked in {run.directory}. Undo it with: {undo}")


def forget(
    uid: Annotated[
        str,
        typer.Argument(
            metavar="UID|ADDRESS", help="A run's uid, or its beginning; a catalog; or a webhook as `status` names it."
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    spool: Spool = None,
) -> None:
    """Remove a run from the spool, delivered or not, or have nothing wait for a catalog or a webhook any more.

    Catalogs keep what they have.
    """
    from bluesky_filestore.spool.spooled_run import find_run

    if "://" in uid and uid.endswith(")"):
        _forget_receiver(uid, spools_meant(spool))
        return
    if "://" in uid:
        _forget_catalog(uid, spools_meant(spool), yes=yes)
        return
    runs = find_run(spools_meant(spool), uid)
    for run in runs:
        _say(f"Run {run.uid}, {run.documents():,} documents in {run.directory}:")
        for uri, entry in run.deliveries:
            reason = f" ({entry.reason})" if entry.reason else ""
            _say(f"    {entry.state}{reason}: {uri or 'no catalog is known'}")
    lost = any(run.undelivered for run in runs)
    question = "What is not delivered of it is lost for good. Forget it?" if lost else "It is delivered. Forget it?"
    if not yes and not typer.confirm(question):
        raise typer.Exit(1)
    for run in runs:
        run.forget()
        _say(f"Run {run.uid} is forgotten in {run.directory}.")


def rename(
    old: Annotated[str, typer.Argument(help="The catalog's address as `status` shows it.")],
    new: Annotated[str, typer.Argument(help="The address that it has now.")],
    spool: Spool = None,
) -> None:
    """Have what waits for a catalog go to another address of it; what was delivered counts as delivered there."""
    from bluesky_filestore.catalog_address import container_address
    from bluesky_filestore.delivery.catalog_names import rename_catalog
    from bluesky_filestore.spool import Ledger

    address = container_address(new)
    for directory in _knowing(old, spools_meant(spool)):
        with closing(Ledger(directory)) as ledger:
            rename_catalog(ledger, old, address)
        _say(f"{old} is called {address} in {directory}.")


def _forget_catalog(uri: str, directories: list[Path], *, yes: bool) -> None:
    from bluesky_filestore.delivery.catalog_names import forget_catalog
    from bluesky_filestore.spool import Ledger
    from bluesky_filestore.spool.status import described_runs

    for directory in _knowing(uri, directories):
        with closing(Ledger(directory)) as ledger:
            counts = ledger.counts(ledger.register_catalog(uri))
            _say(f"{uri} in {directory}: {described_runs(counts) or 'no runs'}")
            question = "What is delivered nowhere else waits for another catalog then. Forget this one?"
            if set(counts) - {"delivered"} and not yes and not typer.confirm(question):
                raise typer.Exit(1)
            forget_catalog(ledger, uri)
        _say(f"{uri} is forgotten in {directory}.")


def _forget_receiver(name: str, directories: list[Path]) -> None:
    from bluesky_filestore.spool import Ledger
    from bluesky_filestore.spool.handoffs import forget_receiver

    found = False
    for directory in directories:
        with closing(Ledger(directory)) as ledger:
            lost = forget_receiver(ledger, name)
        if lost is not None:
            found = True
            _say(f"{name} is forgotten in {directory}, and {lost:,} messages that waited for it.")
    if not found:
        raise SpoolError(f"no spool knows a webhook {name}; `bluesky-filestore status` shows those that are known.")


def _knowing(uri: str, directories: list[Path]) -> list[Path]:
    """The spools that deliver to a catalog."""
    from bluesky_filestore.spool import Ledger

    found: list[Path] = []
    known: list[str] = []
    for directory in directories:
        with closing(Ledger(directory)) as ledger:
            found.extend([directory] if ledger.known_catalog(uri) is not None else [])
            known.extend(each for each, _ in ledger.catalogs().values())
    if not found:
        names = ", ".join(dict.fromkeys(known)) or "none"
        raise SpoolError(f"no spool knows a catalog {uri}; known are: {names}.")
    return found


def export(
    uid: Uid,
    output: Annotated[Path | None, typer.Option(help="The file; by default it goes to standard output.")] = None,
    spool: Spool = None,
) -> None:
    """Write a run's documents as JSON lines: one ["name", {...}] a line, arrays as lists."""
    from bluesky_filestore.spool.spooled_run import exported, find_run

    run = max(find_run(spools_meant(spool), uid), key=lambda found: found.documents())
    lines = exported(run)
    with closing(lines):
        if output is None:
            for line in lines:
                typer.echo(visible_json(line))
            return
        with output.open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
    Console(stderr=True).print(f"Run {run.uid} is in {output}.", highlight=False, soft_wrap=True, markup=False)


def _say(words: str) -> None:
    Console().print(words, highlight=False, soft_wrap=True, markup=False)
