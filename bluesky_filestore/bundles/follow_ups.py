"""What a writer does with a run beside delivering it: each in a thread of its own, behind the plan and the delivery."""

import threading
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import replace
from os import getpid
from pathlib import Path
from typing import TYPE_CHECKING

from bluesky_filestore.delivery.completed import Caller, CompletedRun
from bluesky_filestore.delivery.settings import DeliverySettings
from bluesky_filestore.delivery.spooling import Spooling
from bluesky_filestore.errors import SpoolError
from bluesky_filestore.spool.ledger import Ledger

from .run_files import RunFiles

if TYPE_CHECKING:
    from bluesky_filestore.operations.operations import Catalog

    from .describing import FileDescriber

__all__ = ["FollowUps"]

_AT_CLOSE_SECONDS = 2.0


class FollowUps:
    """What is done with runs that end, by a writer.

    Parameters
    ----------
    say : callable
        Is given a sentence about what could not be done.
    is_settled : callable
        Whether the files of a run, by its uid, are no longer looked for.
    run_file : str or Path, optional
        Where each run is written as one file.
    on_run_complete : callable, optional
        Is called with each run that has come to its end.
    checksums, sidecars : bool
        Whether files are read for their checksums, and described beside themselves.

    Raises
    ------
    OptionError
        If an argument cannot mean anything.
    """

    _describer: "FileDescriber | None" = None

    def __init__(
        self,
        say: Callable[[str], None],
        is_settled: Callable[[str], bool],
        *,
        run_file: str | Path | None,
        on_run_complete: Callable[[CompletedRun], object] | None,
        checksums: bool,
        sidecars: bool,
    ) -> None:
        self._say = say
        self._files = RunFiles(run_file, say) if run_file is not None else None
        self._caller = Caller(on_run_complete, say) if on_run_complete is not None else None
        if checksums or sidecars:
            # Who does not want it does not load what it takes.
            from .describing import FileDescriber

            self._describer = FileDescriber(checksums=checksums, sidecars=sidecars, is_settled=is_settled)

    def with_them(self, settings: DeliverySettings) -> DeliverySettings:
        """Settings of a delivery that tells of its runs."""
        if self._describer is not None:
            settings = replace(settings, on_readable=self._describer.take)
        return settings if self._caller is None else replace(settings, on_complete=self._caller.add)

    def expect(self, catalogs: "Iterable[Catalog]", uid: str) -> None:
        """A run has ended, and will be in catalogs."""
        if self._describer is not None:
            self._describer.expect(catalogs, uid)

    def add(self, uid: str, spooling: Spooling) -> None:
        """The stop document of a run is in the spool."""
        if self._files is not None:
            self._files.add(uid, spooling.directory)
        if self._caller is not None and not all(uploader.delivers for uploader in spooling.uploaders):
            # Not by the plan's thread, for it asks the database.
            threading.Thread(target=self._say_if_elsewhere, args=(spooling,), name="elsewhere", daemon=True).start()

    def close_files(self) -> None:
        """Write the files of runs that are delivered, and have the function called for those."""
        if self._files is not None:
            self._files.close()
        if self._caller is not None:
            self._caller.close(_AT_CLOSE_SECONDS)

    def close(self, *, waits: bool) -> None:
        """End what is left, at once or after a moment."""
        if self._describer is not None:
            self._describer.close(_AT_CLOSE_SECONDS if waits else 0.0)
            self._describer = None

    def _say_if_elsewhere(self, spooling: Spooling) -> None:
        with suppress(SpoolError), closing(Ledger(spooling.directory)) as ledger:
            for uploader in spooling.uploaders:
                number = ledger.known_catalog(uploader.catalog.uri)
                holder = None if number is None else ledger.uploader(number)
                if holder not in (None, getpid()):
                    self._say(
                        f"process {holder} delivers to {uploader.catalog.uri}, and on_run_complete is not called for "
                        f"what it delivers; use webhook=, which is sent whoever delivers"
                    )
