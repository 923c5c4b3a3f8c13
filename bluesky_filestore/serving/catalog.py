"""Tiled's catalog with our adapters in it, for our own server and for others'."""

import asyncio
import os
import sqlite3
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bluesky_filestore.errors import CatalogError
from bluesky_filestore.files.readable import Roots
from bluesky_filestore.leanings import going_without
from bluesky_filestore.logs import get_logger
from bluesky_filestore.model.limits import Limits
from bluesky_filestore.private import make_private_directory, make_private_file

from .adapters import TILEDS_LIMITS, adapters
from .confined import ConfinedAdapters, ConfinedThreads

if TYPE_CHECKING:
    from tiled.catalog.adapter import CatalogContainerAdapter

__all__ = ["RUNS_SPEC", "catalog", "fill_database", "make_database", "shown_uri"]

_logger = get_logger(__name__)

# Tiled's own adapters that read in the thread in which they are called.
_READ_IN_PLACE = {"image/tiff", "image/jpeg", "application/x-npy", "application/x-netcdf", "application/octet-stream"}

_IN_MEMORY = "memory"

RUNS_SPEC = {"name": "CatalogOfBlueskyRuns", "version": "3.0"}
"""Says to the clients of bluesky-tiled-plugins, and to databroker's ``v1``, that a container is a catalog of runs."""


def catalog(
    uri: str | Path,
    *,
    readable_storage: Iterable[Any] | None = None,
    writable_storage: Any = None,
    adapters_by_mimetype: Mapping[str, Any] | None = None,
    allow_changed: bool = False,
    limits: Limits | Mapping[str, Any] | None = None,
    checks_registrations: bool = False,
    streams: bool | str = False,
    **options: Any,
) -> "CatalogContainerAdapter":
    """Make a tree for a Tiled server: in its ``config.yml``, ``tree: bluesky_filestore.serving.catalog:catalog``.

    Parameters
    ----------
    uri : str or Path
        The database, as for Tiled's own catalog.
    readable_storage : iterable, optional
        What files are served from; nothing is read elsewhere, whatever links and paths say.
    writable_storage : optional
        Where Tiled keeps what is uploaded.
    adapters_by_mimetype : mapping, optional
        Adapters that are to be used before ours.
    allow_changed : bool
        Whether files are served that are not those that were registered, but e.g. were written again since.
    limits : Limits or mapping, optional
        What is refused as too much, e.g. ``{frames: 1000000}``; see `bluesky_filestore.Limits`. By default as there,
        but for the bytes of an answer, of which the server has a limit of its own.
    checks_registrations : bool
        Whether a registration that is wrong is refused when it is made, as far as that can be seen, and not only when
        it is read.
    streams : bool or str
        Whether who subscribes to a node is told of what is new in it: kept in memory for an hour, or in a Redis with
        this address, such as ``redis://localhost:6379``.
    **options
        Handed on to Tiled.

    Returns
    -------
    CatalogContainerAdapter
        As ``tiled.catalog.from_uri`` makes it.
    """
    from tiled.catalog import from_uri
    from tiled.storage import EmbeddedSQLStorage, FileStorage, parse_storage

    readable = list(readable_storage or [])
    stored = [parse_storage(item) for item in readable + _listed(writable_storage)]
    limits = TILEDS_LIMITS if limits is None else Limits.of(limits)
    roots = Roots.of([storage.path for storage in stored if isinstance(storage, FileStorage)], limits)
    for storage in stored:
        if isinstance(storage, EmbeddedSQLStorage) and storage.uri.startswith("sqlite:"):
            _let_read_while_written(Path(urlsplit(storage.uri).path))
    own = adapters(roots, allow_changed=allow_changed)
    tree = from_uri(
        uri,
        readable_storage=readable,
        writable_storage=writable_storage,
        adapters_by_mimetype={**own, **(adapters_by_mimetype or {})},
        **({"cache_config": _streaming_cache(streams)} if streams else {}),
        **options,
    )
    _confine(tree, roots, {*own, *_READ_IN_PLACE} - set(adapters_by_mimetype or {}))
    if streams:
        tree.shutdown_tasks.append(partial(_disconnect, tree))
    with going_without(_logger, "The inside of Tiled's catalog", "runs come in the order of their delivery"):
        from .runs import tree_of_runs

        tree = tree_of_runs(tree) if any(spec.name == RUNS_SPEC["name"] for spec in tree.specs) else tree
    if checks_registrations:
        with going_without(
            _logger, "The inside of Tiled's catalog", "what is registered wrongly shows when it is read"
        ):
            from .registering import refusing

            return refusing(tree, roots)
    return tree


def _streaming_cache(streams: bool | str) -> dict[str, Any]:
    from tiled.config import StreamingCacheConfig

    where = streams if isinstance(streams, str) else _IN_MEMORY
    if where != _IN_MEMORY:
        from redis.asyncio import from_url

        try:
            from_url(where)
        except ValueError:
            # There may be a password in it.
            raise CatalogError(
                f"what is streamed cannot be kept at the address that was given for it; expected {_IN_MEMORY!r}, or a "
                f"Redis, such as redis://localhost:6379."
            ) from None
    config: dict[str, Any] = StreamingCacheConfig(uri=where).model_dump()
    return config


async def _disconnect(tree: "CatalogContainerAdapter") -> None:
    """Let go of the connections with Redis, which Tiled leaves open; what is kept in memory has none."""
    with going_without(_logger, "Tiled's store for streams", "its connections end when they are garbage"):
        if (close := getattr(tree.context.streaming_cache.client, "aclose", None)) is not None:
            await close()


def _confine(tree: "CatalogContainerAdapter", roots: Roots, mimetypes: set[str]) -> None:
    """Have adapters read in threads that may read nothing but what is below the roots."""
    with going_without(_logger, "Where Tiled keeps its adapters", "what they open is checked by its path only"):
        threads = ConfinedThreads(roots)
        tree.context.adapters_by_mimetype = ConfinedAdapters(tree.context.adapters_by_mimetype, mimetypes, threads)

        async def end() -> None:
            threads.close()

        tree.shutdown_tasks.append(end)


def _let_read_while_written(database: Path) -> None:
    """Have SQLite keep a log for the database of the tables; the database remembers it.

    Without, a table that is read while rows are appended to any other is "database is locked", a failure of the server.
    """
    make_private_directory(database.parent)
    make_private_file(database)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")


def make_database(path: Path) -> None:
    """Make the SQLite file of a new catalog as ``tiled catalog init`` does, which is a process that loads Tiled anew.

    Under its name the file is whole or not there.

    Parameters
    ----------
    path : Path
        Where nothing is yet.

    Raises
    ------
    OSError
        If something is there by now, or the disk has no hard links.
    """
    with tempfile.TemporaryDirectory(prefix="new-catalog-", dir=path.parent) as directory:
        made = Path(directory, path.name)
        fill_database(made)
        with closing(sqlite3.connect(made)) as connection:
            (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise OSError(f"{made} is still being written; expected that Tiled is through with it.")
        made.chmod(0o600)
        # Other than renaming it, it does not take the place of a catalog that somebody made meanwhile.
        os.link(made, path)


def fill_database(database: str | Path) -> None:
    """Make the tables of a catalog in a database that has none.

    Where Tiled does it, the database's URI is among the arguments of a process, and all users see these.
    """
    # The caller's thread may have a loop that runs.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, _fill_database(database)).result()


async def _fill_database(database: str | Path) -> None:
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from sqlalchemy.ext.asyncio import create_async_engine
    from tiled.alembic_utils import UninitializedDatabase, check_database
    from tiled.catalog.alembic_constants import ALEMBIC_DIR
    from tiled.catalog.core import ALL_REVISIONS, REQUIRED_REVISION, initialize_database
    from tiled.utils import ensure_specified_sql_driver

    def stamp(connection: Any) -> None:
        MigrationContext.configure(connection).stamp(ScriptDirectory(str(ALEMBIC_DIR)), "head")

    engine = create_async_engine(ensure_specified_sql_driver(database))
    try:
        await check_database(engine, REQUIRED_REVISION, ALL_REVISIONS)
    except UninitializedDatabase:
        await initialize_database(engine)
        async with engine.begin() as connection:
            await connection.run_sync(stamp)
    finally:
        await engine.dispose()


def shown_uri(uri: str) -> str:
    """A database's URI as it may be shown: without user, password and query.

    Raises
    ------
    CatalogError
        If it is none, or of a database that Tiled does not keep a catalog in.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(uri)
    except ArgumentError:
        url = None
    if url is None or url.get_backend_name() not in ("postgresql", "sqlite"):
        raise CatalogError(
            "the database is not given by a URI of PostgreSQL or SQLite; expected e.g. postgresql://host/catalog, with "
            "a user before the host where one is needed."
        )
    # A driver takes a password in the query as well.
    return url.set(username=None, password=None, query={}).render_as_string()


def _listed(storage: Any) -> list[Any]:
    # Tiled takes one path, a dict of them, and a list.
    if storage is None:
        return []
    if isinstance(storage, str | Path):
        return [storage]
    return list(storage.values()) if isinstance(storage, dict) else list(storage)
