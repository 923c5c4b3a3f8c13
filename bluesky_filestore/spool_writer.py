"""What is subscribed to a RunEngine that only spools: documents in, and another process delivers them."""

from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, Literal, Self, get_args

from bluesky_filestore.errors import CatalogError, OptionError, SpoolError
from bluesky_filestore.logs import get_logger
from bluesky_filestore.spool.measures import Measures
from bluesky_filestore.spool.places import spool_in
from bluesky_filestore.spool.status import WriterStatus, look_at
from bluesky_filestore.spool.store import Durability, Store

__all__ = ["SpoolWriter", "check_options"]

_logger = get_logger(__name__)
_AMOUNTS = ("wait_on_stop", "keep", "batch_size", "interval", "settle", "park_after")


class SpoolWriter:
    """Keeps the documents of runs in a spool, and leaves it to another process to deliver them.

    That is ``bluesky-filestore deliver SPOOL --catalog URI``, which may run at another time. The process that takes the
    data pays for a local append, and loads no client of a catalog. What it received is in the spool when the call
    returns.

    Parameters
    ----------
    directory : str or Path
        The spool directory, made if it is not there. Several processes may use one.
    on_error : {"warn", "raise"}
        What to do if a document cannot be kept, e.g. on a full disk: say so in the log and go on (what cannot be kept
        on disk is kept in memory, and put there as soon as that goes), or raise `SpoolError`, which ends the plan.
    durability : {"normal", "full"}
        When a document is safe from a power failure; see `CatalogWriter`.

    Raises
    ------
    OptionError
        If an argument cannot mean anything.
    SpoolError
        If the spool cannot be used: nobody would ever deliver what is kept in memory only.

    Examples
    --------
    >>> writer = SpoolWriter("/var/spool/bluesky")  # doctest: +SKIP
    >>> RE.subscribe(writer)  # doctest: +SKIP
    """

    directory: Path
    """The directory of its spool; of a writer without one a place of its own, which goes with it."""
    catalogs: Sequence[Any] = ()
    """Where this process delivers what is in it."""

    def __init__(
        self, directory: str | Path, *, on_error: Literal["warn", "raise"] = "warn", durability: Durability = "normal"
    ) -> None:
        check_options(on_error=on_error, durability=durability)
        self._store = Store(spool_in(directory), durability=durability)
        self.directory = self._store.directory
        self._begin(on_error)

    def _begin(self, on_error: str) -> None:
        self._on_error = on_error
        self._problems: dict[str, None] = {}

    @property
    def _measures(self) -> Measures:
        return self._store.measures

    def _put(self, name: str, doc: Mapping[str, Any]) -> None:
        self._store.append(name, doc)

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document.

        Raises
        ------
        SpoolError
            If it cannot be kept and `on_error` is ``"raise"``. Nothing else is raised: the plan goes on.
        """
        began = perf_counter()
        try:
            self._put(name, doc)
        except SpoolError:
            # The spool has logged it, and keeps the document in memory if it can.
            if self._on_error == "raise":
                raise
        except Exception as error:
            # Whatever we overlooked, it must not end somebody's experiment.
            _logger.exception("A %s document could not be taken.", name)
            self._say(f"{name} document cannot be taken: {error!r}")
            if self._on_error == "raise":
                raise SpoolError(f"a {name} document could not be taken ({error!r}).") from error
        finally:
            # A stop waits for its run to be readable, which would drown what the others take.
            self._measures.add_time("callback/stop" if name == "stop" else "callback/other", perf_counter() - began)

    def flush(self) -> None:
        """Put on the disk, safe from a power failure, what was received.

        Raises
        ------
        SpoolError
            If the disk does not take it, or some of it is lost, which is raised once.
        """
        if not self._store.make_safe():
            raise SpoolError(f"the spool in {self._store.directory} cannot be put on the disk; the log says why.")
        self._store.losses.raise_unsaid()

    def status(self) -> WriterStatus:
        """How the writer is doing, and those who deliver from its spool."""
        spool = look_at(self._store.directory)
        return WriterStatus(
            documents=self._store.documents,
            open_runs=self._store.open_runs,
            unsettled_runs=(),
            problems=(*self._problems, *self._store.losses.all()),
            catalogs=tuple(each for each in spool.catalogs if each.catalog),
            spool=spool.directory,
            unsaved=self._store.unsaved,
            spool_error=str(self._store.error or ""),
            webhooks=spool.webhooks,
        )

    def close(self) -> None:
        """Put on the disk what was received, and end; in a process that was forked it does nothing.

        Runs that are open are taken to be cut short.

        Raises
        ------
        SpoolError
            If the disk does not take what is in memory, or something is lost and `flush` has not said so.
        """
        self._store.close()
        self._store.losses.raise_unsaid()

    def __repr__(self) -> str:
        return f"<SpoolWriter into {self._store.directory}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close()
        except (CatalogError, SpoolError) as another:
            if error is None:
                raise
            # What ended the block, a plan say, is the first thing to know.
            _logger.error("%s", another)
            error.add_note(f"Then the writer was closed: {another}")

    def _say(self, sentence: str) -> None:
        if sentence not in self._problems:
            _logger.error("%s", sentence)
            self._problems[sentence] = None


def check_options(**options: object) -> None:
    """Refuse options of writers that cannot mean anything, with an `OptionError`."""
    known = {"on_error": ("warn", "raise"), "durability": get_args(Durability)}
    for option, value in options.items():
        if option in known and value not in known[option]:
            raise OptionError(f"{option}={value!r} is not known; expected {' or '.join(map(repr, known[option]))}.")
        is_number = isinstance(value, Real) and not isinstance(value, bool) and float(value) >= 0
        if option in _AMOUNTS and not is_number:
            raise OptionError(f"{option}={value!r} is no amount; expected a number of 0 or more.")
