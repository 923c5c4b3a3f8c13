"""Spools of writers that have none: where documents are kept for as long as a process lives, or until it was killed."""

import shlex
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from shutil import rmtree

from bluesky_filestore.errors import CatalogError, SpoolError
from bluesky_filestore.logs import get_logger
from bluesky_filestore.spool.ledger import Ledger
from bluesky_filestore.spool.places import kept_instead
from bluesky_filestore.spool.status import look_at

from .spooling import Spooling

__all__ = ["end_at_exit", "left_instead", "remove_if_delivered", "remove_if_over"]

_logger = get_logger(__name__)


def end_at_exit(spooling: Spooling, directory: Path) -> None:
    """Deliver what a writer without a spool still has when its process ends, and leave nothing behind."""
    if not spooling.store.is_ours:
        return
    try:
        spooling.close()
    except (CatalogError, SpoolError) as error:
        _logger.error("%s", error)
    else:
        remove_if_delivered(directory)


def remove_if_delivered(directory: Path) -> None:
    """Remove a spool of which all runs are delivered; of others an error has named it, and `resume` delivers them."""
    found = look_at(directory)
    is_sent = not any(hook.waiting for hook in found.webhooks)
    if is_sent and all(catalog.waiting == 0 and not catalog.parked for catalog in found.catalogs):
        rmtree(directory, ignore_errors=True)
    else:
        _logger.warning("%s keeps what is not delivered.", directory)


def remove_if_over(directory: Path) -> None:
    """The same, if nobody is left who puts anything into it."""
    with closing(Ledger(directory)) as ledger:
        if any(ledger.is_written(producer) for (producer,) in ledger.rows("SELECT id FROM producers")):
            return
    remove_if_delivered(directory)


def left_instead(spool: Path) -> Iterator[str]:
    """What waits where writers kept documents that could not use a spool, and were killed; a sentence a place."""
    for directory in kept_instead(spool):
        with suppress(SpoolError):
            waiting = sum(each.waiting for each in look_at(directory).catalogs if each.uploader is None)
            if waiting:
                yield (
                    f"{waiting:,} documents wait in {directory}, where a writer kept them that could not use the spool "
                    f"in {spool}, and has ended; `bluesky-filestore resume {shlex.quote(str(spool))}` delivers them."
                )
