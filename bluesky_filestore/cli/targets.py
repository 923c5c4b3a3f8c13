"""Which spools are delivered to which catalogs."""

import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = ["Target", "find_targets"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Target:
    """A catalog to which a spool is delivered."""

    directory: Path
    """The spool directory."""
    uri: str
    """The address of the catalog's container, as the spool knows it."""
    make_client: "Callable[[], Container]"
    """Makes a client for it."""


def find_targets(
    spools: Iterable[Path], *, uri: str, profile: str, api_key: str, wait: float, say: Callable[[str], None]
) -> list[Target]:
    """The catalogs that have not got all there is, or the one that was asked for.

    Parameters
    ----------
    spools : iterable of Path
        The spool directories.
    uri, profile, api_key : str
        As the user gave them; empty if not.
    wait : float
        For how many seconds a catalog that no spool knows is waited for, if it is away.
    say : callable
        Is given a sentence if it has to be.

    Raises
    ------
    typer.BadParameter
        If the options do not go together, or say too little.
    CatalogUnreachableError, CatalogAccessError
        If a catalog that was asked for is known to no spool, and cannot be asked.
    """
    if uri and profile:
        raise typer.BadParameter("give --uri or --profile, not both.")
    directories = list(spools)
    client_kwargs: dict[str, Any] = {"api_key": api_key} if api_key else {}
    if profile:
        address, make = _of_profile(profile, client_kwargs)
        targets = _by_address(directories, address, make, _waiting(make, wait, say))
    elif uri:
        make = partial(_connect, uri, client_kwargs)
        targets = _by_address(directories, uri, make, _waiting(make, wait, say))
    else:
        targets = [
            Target(directory, known, partial(_connect, known, client_kwargs))
            for directory in directories
            for known, has_all in _known(directory).items()
            if not has_all
        ]
        if not targets:
            _refuse_homeless(directories)
    if api_key and len({target.uri for target in targets}) > 1:
        raise typer.BadParameter("one API key is for one catalog; say which, with --uri.")
    return targets


def _of_profile(profile: str, client_kwargs: dict[str, Any]) -> "tuple[str, Callable[[], Container]]":
    from bluesky_filestore.catalogs.tiled.connecting import connect_profile, profile_content

    def make() -> "Container":
        return connect_profile(profile, **client_kwargs)

    return profile_content(profile)["uri"], make


def _waiting(
    make_client: "Callable[[], Container]", wait: float, say: Callable[[str], None]
) -> "Callable[[], Container]":
    """The same, but tried again for a while if the catalog is away."""
    from bluesky_filestore.catalogs.tiled.connecting import is_away
    from bluesky_filestore.errors import CatalogError

    def make() -> "Container":
        until, pause, told = time.monotonic() + wait, _FIRST_PAUSE, False
        while True:
            try:
                return make_client()
            except CatalogError as error:
                left = until - time.monotonic()
                if left <= 0 or not is_away(error):
                    raise
                if not told:
                    say(f"Waiting for the catalog: {error}")
                    told = True
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE)

    return make


def _by_address(
    directories: list[Path],
    uri: str,
    make_client: "Callable[[], Container]",
    wait_for_client: "Callable[[], Container]",
) -> list[Target]:
    """The spools that know a catalog, or the only one, which gets to know it."""
    from bluesky_filestore.catalog_address import comparable_address, container_address

    address = container_address(uri)
    meant = comparable_address(address)
    knowing = [path for path in directories if meant in map(comparable_address, _known(path))]
    if not knowing:
        # It is asked before a spool is told of it. An earlier version may have known it by what it calls itself.
        client = wait_for_client()
        meant = comparable_address(str(client.uri))
        client.context.close()
        knowing = [path for path in directories if meant in map(comparable_address, _known(path))]
    if not knowing and len(directories) != 1:
        raise typer.BadParameter(f"no spool delivers to {address} yet; say which one shall, as SPOOL.")
    return [Target(directory, address, make_client) for directory in knowing or directories]


def _known(directory: Path) -> dict[str, bool]:
    """The catalogs that a spool delivers to, and whether each has got all runs."""
    from bluesky_filestore.spool.ledger import Ledger

    with closing(Ledger(directory)) as ledger:
        return {uri: set(ledger.counts(number)) <= {"delivered"} for number, (uri, _) in ledger.catalogs().items()}


def _refuse_homeless(directories: list[Path]) -> None:
    from bluesky_filestore.spool.ledger import Ledger

    for directory in directories:
        with closing(Ledger(directory)) as ledger:
            if ledger.counts(0) and not ledger.catalogs():
                raise typer.BadParameter(f"the spool in {directory} knows no catalog yet; say which one, with --uri.")


def _connect(uri: str, client_kwargs: dict[str, Any]) -> "Container":
    from bluesky_filestore.catalogs.tiled.connecting import connect

    return connect(uri, **client_kwargs)
