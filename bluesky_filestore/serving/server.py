"""A Tiled server inside this process, for one beamline or one desk."""

import gc
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from bluesky_filestore.errors import CatalogError, DirectoryMissingError
from bluesky_filestore.extras import from_extra
from bluesky_filestore.leanings import going_without, log_once
from bluesky_filestore.logs import get_logger
from bluesky_filestore.model.limits import DEFAULT_LIMITS, Limits
from bluesky_filestore.private import make_private_directory, make_private_file
from bluesky_filestore.spool.places import all_spools

from .binding import LOOPBACK, bound_socket
from .log_files import log_to_files

if TYPE_CHECKING:
    import uvicorn
    from tiled.client.container import Container

__all__ = ["CatalogServer", "serve_catalog"]

_logger = get_logger(__name__)
_START_TIMEOUT = 30.0
# Open connections (e.g. of a client that keeps them alive) must not keep a server from closing.
_SHUTDOWN_TIMEOUT = 2
_DATABASE = "catalog.db"


def serve_catalog(
    directory: str | Path | None = None,
    *,
    readable: Iterable[str | Path] | str | Path = (),
    port: int = 0,
    api_key: str | None = None,
    database: str | None = None,
    allow_changed: bool = False,
    host_names: Iterable[str] | str = (),
    limits: Limits = DEFAULT_LIMITS,
    streams: bool | str = False,
) -> "CatalogServer":
    """Start a Tiled server on loopback, in a thread of this process.

    Parameters
    ----------
    directory : str or Path, optional
        Where catalog, tables and logs are kept; made if it is not there. A second start on the same directory serves
        the same runs. By default a temporary directory, removed on closing.
    readable : iterable of str or Path
        The directories that data files are served from; files elsewhere are refused. Each must exist.
    port : int
        0 takes a free one.
    api_key : str, optional
        Letters and digits; by default a new random one.
    database : str, optional
        The URI of a PostgreSQL database for catalog and event tables, e.g. ``postgresql://user@host/catalog``; its
        tables are made if they are not there. By default both are files of SQLite in the directory.
    allow_changed : bool
        Whether files are served that are not those that were registered, but e.g. were written again since. By default
        that is an error that names the file.
    host_names : iterable of str
        Names by which the server may be asked, besides those of loopback: e.g. that of a proxy before it. A request for
        any other is refused, for a page of strangers may have given its name this machine's address.
    limits : Limits
        What is refused as too much.
    streams : bool or str
        Whether who subscribes to a node is told of what is new in it. The last thousand things, arrays of events among
        them, are kept in memory for it, or as many as there are in a Redis, e.g. ``redis://localhost:6379``.

    Returns
    -------
    CatalogServer
        Already running; a context manager that stops it.

    Raises
    ------
    CatalogError
        If the directory cannot be written to, the port is taken, or the server does not start.
    DirectoryMissingError
        If a directory named in `readable` does not exist.

    Examples
    --------
    >>> with serve_catalog() as catalog:  # doctest: +SKIP
    ...     catalog.client
    """
    if api_key is not None and not api_key.isalnum():
        raise CatalogError("the API key has other characters than letters and digits, which Tiled does not take.")
    roots = [readable] if isinstance(readable, str | Path) else list(readable)
    return CatalogServer(
        directory,
        readable=[_existing(root) for root in roots],
        port=port,
        api_key=api_key,
        database=database,
        allow_changed=allow_changed,
        host_names=[host_names] if isinstance(host_names, str) else list(host_names),
        limits=limits,
        streams=streams,
    )


class CatalogServer:
    """A running Tiled server; see `serve_catalog`."""

    directory: Path
    """Where catalog, tables and logs are kept."""
    uri: str
    """The address, e.g. ``http://127.0.0.1:8000``."""
    api_key: str
    """What a client has to show."""

    def __init__(
        self,
        directory: str | Path | None,
        *,
        readable: Sequence[Path],
        port: int,
        api_key: str | None,
        database: str | None = None,
        allow_changed: bool = False,
        host_names: Sequence[str] = (),
        limits: Limits = DEFAULT_LIMITS,
        streams: bool | str = False,
    ) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="catalog-") if directory is None else None
        self._client: Container | None = None
        self._limits, self._streams = limits, streams
        self._resources = ExitStack()
        self.api_key = api_key or secrets.token_hex(16)
        try:
            self.directory = _writable(Path(self._temporary.name if self._temporary else directory or ""))
            self._socket = bound_socket(port)
            self.uri = f"http://{LOOPBACK}:{self._socket.getsockname()[1]}"
            with _garbage_left_alone(), from_extra("serve"):
                tree = self._make_tree(readable, database, allow_changed)
                self._server = self._make_server(tree, database, host_names)
            self._resources.enter_context(log_to_files(self.directory))
            self._thread = threading.Thread(
                target=self._server.run, args=([self._socket],), name="catalog-server", daemon=True
            )
            self._thread.start()
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise

    @property
    def client(self) -> "Container":
        """A Tiled client of the root of the catalog, closed with the server."""
        if self._client is None:
            with from_extra("serve"):
                from tiled.client import from_uri

            self._client = from_uri(self.uri, api_key=self.api_key)
            with going_without(_logger, "The plugins' client of a catalog of runs", "it finds nothing but runs"):
                from .runs_client import with_names

                self._client = with_names(self._client)
        return self._client

    def wait(self) -> None:
        """Block until the server stops or the caller is interrupted."""
        while self._thread.is_alive():
            # A join without a time-out cannot be interrupted on every platform.
            self._thread.join(timeout=1.0)

    def close(self) -> None:
        """Stop serving. Closing twice is harmless."""
        if self._client is not None:
            self._client.context.close()
            self._client = None
        if hasattr(self, "_thread"):
            self._server.should_exit = True
            self._thread.join(timeout=_START_TIMEOUT)
            if self._thread.is_alive():
                log_once(_logger, f"uvicorn does not end within {_START_TIMEOUT} s of being told to; it is left alone")
        if hasattr(self, "_socket"):
            self._socket.close()
        self._resources.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def __enter__(self) -> "CatalogServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<CatalogServer {self.uri} in {self.directory}>"

    def _make_server(self, tree: Any, database: str | None, host_names: Sequence[str]) -> "uvicorn.Server":
        import uvicorn

        from bluesky_filestore.catalogs.tiled.connecting import connect
        from bluesky_filestore.live.page import WithPage, page_app
        from bluesky_filestore.live.page_state import Watched
        from bluesky_filestore.live.telemetry import observe

        from .bounded import Bounded
        from .ending import Ended
        from .guard import Guard, tiled_app

        tree.startup_tasks.append(partial(_say_what_is_no_run, tree))
        answering = tiled_app(tree, self.api_key, self._limits, streams=bool(self._streams))
        with going_without(_logger, "The inside of Tiled's catalog", "arrays are left to Tiled, which takes longer"):
            from .array_lane import ArrayLane
            from .known_arrays import CatalogVersion, KnownArrays, SQLiteVersion, no_version

            version: CatalogVersion = no_version
            if database is None:
                version = self._resources.enter_context(closing(SQLiteVersion(self.directory / _DATABASE)))
            answering = ArrayLane(
                answering, KnownArrays(tree, version), self.api_key, tree.context.adapters_by_mimetype.threads
            )
        watched = self._resources.enter_context(
            closing(Watched(all_spools, lambda: connect(self.uri, api_key=self.api_key)))
        )
        page = page_app(watched, is_over=lambda: self._server.should_exit)
        observe(all_spools, lambda: self._server.should_exit)
        answering = Guard(Ended(Bounded(WithPage(answering, page), self._limits)), self.api_key, host_names)
        # uvloop where it is installed: before Python 3.12, asyncio copies what it cannot send at once.
        config = uvicorn.Config(
            answering, loop="auto", log_config=None, timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT, access_log=True
        )
        return uvicorn.Server(config)

    def _make_tree(self, readable: Sequence[Path], database: str | None, allow_changed: bool) -> Any:
        from .catalog import RUNS_SPEC, catalog, fill_database, make_database, shown_uri

        own = self.directory / _DATABASE
        shown = str(own) if database is None else shown_uri(database)
        tables = database or f"sqlite:///{self.directory / 'tables.db'}"
        try:
            if database is None and not own.exists():
                # Where it is not made here, Tiled makes it, by a process of its own, which costs seconds.
                with suppress(OSError), going_without(_logger, "How Tiled makes a catalog", "Tiled makes it, slowly"):
                    make_database(own)
                make_private_file(own)
            filled = False
            if database is not None:
                with going_without(_logger, "How Tiled makes a catalog", "Tiled makes it, by a process of its own"):
                    try:
                        fill_database(database)
                    except (ValueError, LookupError) as error:
                        # What drivers raise where an address makes no sense.
                        raise CatalogError(str(error)) from error
                    filled = True
            return catalog(
                database or own,
                writable_storage=[self.directory / "arrays", tables],
                readable_storage=list(readable),
                allow_changed=allow_changed,
                limits=self._limits,
                checks_registrations=True,
                streams=self._streams,
                specs=[RUNS_SPEC],
                init_if_not_exists=not (filled if database else own.exists() and own.stat().st_size),
            )
        except Exception as error:
            # tiled raises whatever its database layer raises, and a whole traceback as the message.
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            if database is not None:
                reason = reason.replace(database, shown)
            raise CatalogError(f"no catalog could be made or opened at {shown}: {reason}") from error

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while not self._is_listening():
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise CatalogError(
                    f"the catalog server in {self.directory} did not start; see {self.directory / 'server.log'}."
                )
            time.sleep(0.01)

    def _is_listening(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(self._socket.getsockname()) == 0


@contextmanager
def _garbage_left_alone() -> Iterator[None]:
    """Loading Tiled makes millions of objects that stay: a quarter of its time is going through them for garbage."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def _say_what_is_no_run(tree: Any) -> None:
    """Serve a catalog that holds other things than runs as the container that it was when they were put there.

    The client of a catalog of runs takes every key for the beginning of a uid, and would not find them.
    """
    with going_without(_logger, "The inside of Tiled's catalog", "what is in it and is no run may not be found"):
        from .runs import keys_of_others

        if others := await keys_of_others(tree):
            tree.specs = tree.node.specs = []
            log_once(
                _logger,
                f"the catalog is served as a container and not as a catalog of runs, which finds runs only: "
                f"{', '.join(others)} in it is none. To index it by -1 and by scan id, keep such things elsewhere.",
            )


def _existing(directory: str | Path) -> Path:
    path = Path(directory).absolute()
    if not path.is_dir():
        raise DirectoryMissingError(
            f"directory {path} shall be readable by the catalog and is not there; expected an existing directory."
        )
    return path


def _writable(directory: Path) -> Path:
    path = directory.absolute()
    try:
        make_private_directory(path)
        make_private_directory(path / "arrays")
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise CatalogError(
            f"the catalog cannot be kept in {path} ({error.strerror}); expected a directory this user may write to."
        ) from error
    return path
