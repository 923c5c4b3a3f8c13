"""Arrays of the catalog that were asked for before, kept for as long as the catalog says the same of them."""

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
from tiled.catalog import orm
from tiled.server.core import NoEntry

from .confined import unconfined
from .frames_adapter import FramesAdapter
from .series import SeriesAdapters

__all__ = ["CatalogVersion", "KnownArrays", "SQLiteVersion", "no_version"]

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
    """An array, and what it was known by."""

    version: int | None
    """Of the catalog, when it was looked up."""
    likeness: tuple[Any, ...]
    """What the catalog said of its data source."""
    adapter: FramesAdapter | None
    """Serves it; None if another adapter than ours does."""
    files: int
    """How many files' names are kept with it."""
    is_sure: bool
    """Whether any change since would have another time: none that came in the same tick of the clock is overlooked."""


class KnownArrays:
    """The adapters of arrays by their path.

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

    async def find(self, path: tuple[str, ...]) -> FramesAdapter | None:
        """The adapter of an array; None for what is no array, or not served by one of our adapters.

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
        try:
            entry = await self._tree.lookup_adapter(list(path))
        except NoEntry:
            return None
        sources = getattr(getattr(entry, "node", None), "data_sources", None) or []
        if entry.structure_family != "array" or len(sources) != 1:
            return None
        (source,) = sources
        is_sure = asked - source.time_updated.replace(tzinfo=UTC).timestamp() > _CLOCK_STEP
        count = await self._count_assets(source.id)
        likeness = _likeness(source, count)
        if known is not None and known.likeness == likeness and known.is_sure:
            return replace(known, version=version)
        # The short way reads in confined threads itself.
        adapter = unconfined(await self._adapter(entry, source))
        return _Known(version, likeness, adapter if isinstance(adapter, FramesAdapter) else None, count, is_sure)

    async def _adapter(self, entry: Any, source: Any) -> Any:
        maker = self._tree.context.adapters_by_mimetype.get(source.mimetype)
        if not isinstance(unconfined(maker), SeriesAdapters):
            return await entry.get_adapter()
        # Tiled would make an object of each of what may be 100,000 assets.
        association = orm.DataSourceAssetAssociation
        statement = (
            select(orm.Asset.data_uri)
            .join(association, association.asset_id == orm.Asset.id)
            .where(association.data_source_id == source.id, association.num.isnot(None))
            .order_by(association.parameter, association.num)
        )
        async with self._tree.context.session() as session:
            uris = (await session.execute(statement)).scalars().all()
        if not uris:
            return await entry.get_adapter()
        (data_source,) = await entry.data_sources()
        return await anyio.to_thread.run_sync(
            partial(maker.from_catalog, data_source, entry.node, **(source.parameters or {}), data_uris=uris)
        )

    async def _count_assets(self, data_source: int) -> int:
        association = orm.DataSourceAssetAssociation
        statement = select(func.count()).where(association.data_source_id == data_source)
        async with self._tree.context.session() as session:
            return int((await session.execute(statement)).scalar_one())

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
