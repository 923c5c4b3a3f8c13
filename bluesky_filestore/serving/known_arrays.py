"""Arrays and tables of the catalog that were asked for before, kept for as long as it says the same of them.

Tiled asks its database a dozen times for one: here it is asked twice.
"""

import json
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import anyio
from sqlalchemy import func, select
from sqlalchemy.orm import Load, joinedload
from tiled.adapters.sql import SQLAdapter
from tiled.catalog import orm
from tiled.catalog.adapter import node_from_segments
from tiled.server.schemas import Asset, DataSource

from .confined import unconfined
from .frames_adapter import FramesAdapter
from .series import SeriesAdapters

__all__ = ["CatalogVersion", "KnownAdapter", "KnownArrays", "SQLiteVersion", "no_version"]

KnownAdapter: TypeAlias = FramesAdapter | SQLAdapter
"""Of an array of ours, or of a table that Tiled keeps in its database."""
CatalogVersion: TypeAlias = Callable[[], int | None]
"""A number that is another after every change of the catalog, whoever made it; None if none can be told."""

_MOST_ARRAYS = 256
_MOST_FILES = 400_000
# The catalog says when it changed a data source to the second.
_CLOCK_STEP = 2.0


def no_version() -> None:
    """What is said of a catalog whose changes cannot be told at little cost."""


class SQLiteVersion:
    """Tells the version of a catalog in SQLite, which keeps count of other connections' changes.

    Parameters
    ----------
    database : Path
        The file.
    """

    def __init__(self, database: Path) -> None:
        self._connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, check_same_thread=False)

    def __call__(self) -> int:
        """The version now."""
        with closing(self._connection.execute("PRAGMA data_version")) as answer:
            (version,) = answer.fetchone()
        return int(version)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@dataclass(frozen=True, slots=True)
class _Known:
    """An array or a table, and what it was known by."""

    version: int | None
    """Of the catalog, when it was looked up."""
    likeness: tuple[Any, ...]
    """What the catalog said of its data source."""
    adapter: KnownAdapter | None
    """Serves it; None if another adapter does."""
    files: int
    """How many files' names are kept with it."""
    is_sure: bool
    """Whether any change since would have another time: none that came in the same tick of the clock is overlooked."""


class KnownArrays:
    """The adapters of arrays and tables by their path.

    Parameters
    ----------
    tree : tiled.catalog.adapter.CatalogContainerAdapter
        The root of the catalog.
    version : callable
        Tells whether the catalog may have changed.
    """

    def __init__(self, tree: Any, version: CatalogVersion) -> None:
        self._tree = tree
        self._version = version
        self._known: OrderedDict[tuple[str, ...], _Known] = OrderedDict()

    async def find(self, path: tuple[str, ...]) -> KnownAdapter | None:
        """The adapter of an array or a table; None for what is neither, or is served by another kind of adapter.

        Raises
        ------
        HTTPException
            If the array cannot be read.
        """
        version = self._version()
        known = self._known.get(path)
        if known is None or version is None or known.version != version:
            known = await self._look_up(path, version, known)
            self._remember(path, known)
        return known.adapter if known is not None else None

    async def _look_up(self, path: tuple[str, ...], version: int | None, known: _Known | None) -> _Known | None:
        asked = time.time()
        association = orm.DataSourceAssetAssociation
        count = select(func.count()).where(association.data_source_id == orm.DataSource.id).scalar_subquery()
        statement = (
            node_from_segments(path, root_id=self._tree.node.id)
            .join(orm.DataSource, orm.DataSource.node_id == orm.Node.id)
            .add_columns(orm.DataSource, count)
            # What belongs to a node each Tiled names otherwise, and nothing of it is needed.
            .options(Load(orm.Node).raiseload("*"), joinedload(orm.DataSource.structure))
        )
        async with self._tree.context.session() as session:
            found = (await session.execute(statement)).all()
            if len(found) != 1:
                return None
            node, source, files = found[0]
            is_sure = asked - source.time_updated.replace(tzinfo=UTC).timestamp() > _CLOCK_STEP
            likeness = _likeness(source, files)
            if known is not None and known.likeness == likeness and known.is_sure:
                return replace(known, version=version)
            # The short way reads in confined threads itself.
            adapter = unconfined(await self._adapter(session, path, node, source))
        of_ours = isinstance(adapter, FramesAdapter | SQLAdapter)
        return _Known(version, likeness, adapter if of_ours else None, files, is_sure)

    async def _adapter(self, session: Any, path: tuple[str, ...], node: Any, source: Any) -> Any:
        """The adapter as Tiled would make it, with what the session gives."""
        maker = self._tree.context.adapters_by_mimetype.get(source.mimetype)
        is_series, is_table = isinstance(unconfined(maker), SeriesAdapters), maker is SQLAdapter
        if not is_table and (node.structure_family != "array" or maker is None):
            return None
        association, asset = orm.DataSourceAssetAssociation, orm.Asset
        # Tiled would make several objects of each of what may be 100,000 assets.
        columns = (asset.data_uri,) if is_series else (asset.data_uri, asset.is_directory, asset.id)
        named = () if is_series else (association.parameter, association.num)
        statement = (
            select(*columns, *named)
            .join(association, association.asset_id == asset.id)
            .where(association.data_source_id == source.id)
            .order_by(association.parameter, association.num)
        )
        statement = statement.where(association.num.isnot(None)) if is_series else statement
        rows = (await session.execute(statement)).all()
        data_source = DataSource.from_orm(source, include_assets=False)
        make = partial(maker.from_catalog, data_source, node, **(source.parameters or {}))
        if is_series and rows:
            return await anyio.to_thread.run_sync(partial(make, data_uris=[uri for (uri,) in rows]))
        if is_series:
            return await (await self._tree.lookup_adapter(list(path))).get_adapter()
        for row in rows:
            if row.parameter is not None:
                self._tree._ensure_uri_within_readable_storage(row.data_uri)
        data_source.assets = [Asset(**row._mapping) for row in rows]
        return await anyio.to_thread.run_sync(make)

    def _remember(self, path: tuple[str, ...], known: _Known | None) -> None:
        self._known.pop(path, None)
        if known is None:
            return
        self._known[path] = known
        while len(self._known) > 1 and (
            len(self._known) > _MOST_ARRAYS or sum(each.files for each in self._known.values()) > _MOST_FILES
        ):
            self._known.popitem(last=False)


def _likeness(source: Any, assets: int) -> tuple[Any, ...]:
    said = json.dumps([source.parameters, source.properties], sort_keys=True)
    return (source.id, source.node_id, source.structure_id, source.mimetype, source.time_updated, said, assets)
