"""A tree of Bluesky runs: in the order of their time, and quickly found by scan id, time and the beginning of a uid.

Tiled lists what is in a catalog in the order in which it was made, and reads the metadata of each run for most queries.
Here runs come in the order of their start documents' time, whenever each was delivered: the last is the newest. What
people ask for all day is asked of the database in words that it has an index for, which is made when a server starts.
"""

import importlib
import operator
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Text,
    and_,
    case,
    cast,
    exists,
    false,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
    text,
    tuple_,
    type_coerce,
    union_all,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import aliased, selectinload
from tiled.catalog import orm
from tiled.catalog.adapter import CatalogContainerAdapter
from tiled.queries import Comparison, Eq, Like, QueryValueError
from tiled.query_registration import default_query_registry
from tiled.server.schemas import DataSource

from bluesky_filestore.catalogs.tiled.below import LEVELS, Below
from bluesky_filestore.leanings import going_without, log_once
from bluesky_filestore.logs import get_logger

from .catalog import RUNS_SPEC

__all__ = ["RunsAdapter", "keys_of_others", "tree_of_runs"]

_logger = get_logger(__name__)

_TIME, _SCAN_ID = "start.time", "start.scan_id"
_INDEXES = {"filestore_runs_by_time": (_TIME,), "filestore_runs_by_scan_id": (_SCAN_ID, _TIME)}
_MOST_NAMED = 3
_BEYOND_INTEGERS, _BEYOND_ALL = 2**63, 1e300
_BEGINNING = re.compile(r"([^%_\\]+)%")
_AFTER_ANY_TEXT = chr(0x10FFFF)

with going_without(_logger, "The queries of bluesky_tiled_plugins", "ScanID and its kin are for its own clients alone"):
    # It makes them known to Tiled.
    importlib.import_module("bluesky_tiled_plugins.queries")


def tree_of_runs(tree: CatalogContainerAdapter) -> "RunsAdapter":
    """The same tree of Tiled's, as one of runs; its indexes are made when it starts."""
    runs = RunsAdapter(tree.context, tree.node)
    runs.startup_tasks = [*tree.startup_tasks, runs.make_indexes]
    runs.shutdown_tasks = tree.shutdown_tasks
    return runs


async def keys_of_others(tree: CatalogContainerAdapter) -> list[str]:
    """Some keys of what is in a tree and is no run; none if there is nothing but runs."""
    is_run = cast(orm.Node.specs, Text).like('%"BlueskyRun"%')
    statement = select(orm.Node.key).where(orm.Node.parent == tree.node.id, not_(is_run)).limit(_MOST_NAMED)
    async with tree.context.session() as session:
        return list((await session.execute(statement)).scalars().all())


class RunsAdapter(CatalogContainerAdapter):  # type: ignore[misc]
    """A container of Tiled's catalog, of which a client knows by its specs that runs are in it."""

    order_by_clauses: list[Any]
    deep: bool = False
    """Whether all that is below is searched, and not the runs alone: Tiled before 0.2.19 has no such search."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_sqlite = self.context.engine.dialect.name == "sqlite"
        *named, by_id = self.order_by_clauses
        for number, (key, direction) in enumerate((key, direction) for key, direction in self.sorting if key):
            if key.removeprefix("metadata.") in (_TIME, _SCAN_ID):
                named[number] = _directed(self._value(key.removeprefix("metadata.")), direction)
        self.order_by_clauses = [*named, _directed(self._value(_TIME), self.default_sorting_direction), by_id]

    def _apply_cursor_pagination(self, statement: Any, cursor: int | None, limit: int | None) -> Any:
        """What comes after the node of which Tiled gave the number to a client, with the page before."""
        if cursor is not None:
            down = self.default_sorting_direction < 0
            last = aliased(orm.Node, name="last")
            its_time = select(self._value(_TIME, "last")).select_from(last).where(last.id == cursor).scalar_subquery()
            # Of one that was removed since nothing is known any more: better all again than some not at all.
            last_time = func.coalesce(its_time, self._extreme(highest=down))
            time, after = self._value(_TIME), operator.lt if down else operator.gt
            statement = statement.filter(time <= last_time if down else time >= last_time)
            statement = statement.filter(after(tuple_(time, orm.Node.id), tuple_(last_time, literal(cursor))))
        statement = self.apply_conditions(statement).order_by(*self.order_by_clauses)
        return statement if limit is None else statement.limit(limit + 1)

    async def lbound_len(self, threshold: int) -> int:
        """How many runs there are, if only to see that there is another page.

        Where they are sorted in another way Tiled goes on while there are more than this, and by itself stops counting
        at a few hundred.
        """
        return int(await (super().lbound_len(threshold) if self._is_default_sort else self.exact_len()))

    async def lookup_adapter(self, segments: list[str]) -> Any:
        """What is at a path; a catalog of runs below this one is in order, too."""
        found = await super().lookup_adapter(segments)
        is_of_runs = any(spec.name == RUNS_SPEC["name"] for spec in getattr(found, "specs", ()))
        return (
            RunsAdapter(found.context, found.node) if is_of_runs and type(found) is CatalogContainerAdapter else found
        )

    def search(self, query: Any) -> Any:
        """The runs that a query finds."""
        if self.deep:
            if isinstance(query, Below):
                return self.new_variation(conditions=[*self.conditions, self._is_below(query)])
            return super().search(query)
        name = default_query_registry.query_type_to_name.get(type(query), "")
        decomposed = _DECOMPOSED.get(name)
        if decomposed is not None:
            found = self
            for each in decomposed(query):
                found = found.search(each)
            return found
        condition = self._condition(name, query)
        if condition is None:
            return super().search(query)
        return self.new_variation(conditions=[*self.conditions, condition])

    async def items_page(self, cursor: int | None = None, limit: int | None = None) -> Any:
        """A page of what is found; of what is below runs the files are asked for at once, and not of each anew."""
        items, next_cursor = await super().items_page(cursor, limit)
        if self.deep:
            sources = _SourcesOfPage(self.context, [entry for _, entry in items])
            for _, entry in items:
                entry.data_sources = partial(sources.of, entry)
        return items, next_cursor

    async def relative_keys_for_ids(self, ids: Sequence[int]) -> dict[int, str]:
        """The path of each node from here; Tiled would look through all that is below."""
        closure = orm.NodesClosure
        statement = (
            select(closure.descendant, orm.Node.id, orm.Node.key)
            .join(orm.Node, orm.Node.id == closure.ancestor)
            .where(closure.descendant.in_(ids))
            .order_by(closure.descendant, closure.depth.desc())
        )
        keys: dict[int, list[str]] = {}
        async with self.context.session() as session:
            for descendant, ancestor, key in (await session.execute(statement)).all():
                # What comes down to here is left out.
                keys[descendant] = [] if ancestor == self.node.id else [*keys.get(descendant, ()), key]
        return {descendant: "/".join(path) for descendant, path in keys.items()}

    async def make_indexes(self) -> None:
        """Make the indexes that are not there. Without them everything is found as well, but each run is looked at."""
        for name, keys in _INDEXES.items():
            values = ", ".join(str(self._value(key)) for key in keys)
            statement = f"CREATE INDEX IF NOT EXISTS {name} ON nodes (parent, {values}, id)".replace("nodes.", "")
            try:
                async with self.context.engine.begin() as connection:
                    await connection.execute(text(statement))
            except SQLAlchemyError as error:
                log_once(_logger, f"the index {name} cannot be made in the catalog; runs are found slowly", error)

    def _is_below(self, query: Below) -> ColumnElement[bool]:
        closure, run = orm.NodesClosure, aliased(orm.Node, name="run")
        runs = select(run.id).where(run.parent == self.node.id, run.key.in_(query.keys))
        below = select(closure.descendant).where(closure.ancestor.in_(runs), closure.depth <= LEVELS)
        found: ColumnElement[bool] = orm.Node.id.in_(below)
        return found

    def _value(self, key: str, table: str = "nodes") -> ColumnElement[Any]:
        """A number of the metadata as it stands in an index. What has no time is older than all."""
        if self._is_sqlite:
            value = f"json_extract({table}.metadata, '$.{key}')"
        else:
            item = f"{table}.metadata #> '{{{key.replace('.', ',')}}}'"
            # Only numbers: what is long does not fit into an index of PostgreSQL's, and could not be stored then.
            value = f"CASE WHEN jsonb_typeof({item}) = 'number' THEN {item} END"
        value = f"coalesce({value}, {self._extreme(highest=False)})" if key == _TIME else f"({value})"
        return literal_column(value, type_=None if self._is_sqlite else orm.Node.metadata_.type)

    def _extreme(self, *, highest: bool) -> ColumnElement[Any]:
        """Beyond any number, in the database's order."""
        if self._is_sqlite:
            return literal_column("1e308" if highest else "-1e308")
        return literal_column("'true'::jsonb" if highest else "'null'::jsonb", type_=orm.Node.metadata_.type)

    def _condition(self, name: str, query: Any) -> "ColumnElement[bool] | None":
        """A query in words for which there is an index; None if Tiled's own are as good."""
        if name == "scan_id":
            return self._scan_ids(query)
        if name == "partial_uid":
            return or_(*(self._begins_with(uid) for uid in query.partial_uids))
        if isinstance(query, Like) and query.key == "start.uid" and (match := _BEGINNING.fullmatch(query.pattern)):
            return self._begins_with(match[1])
        if isinstance(query, Eq | Comparison) and query.key in (_TIME, _SCAN_ID) and type(query.value) in (int, float):
            compare = operator.eq if isinstance(query, Eq) else getattr(operator, query.operator.name)
            value = self._value(query.key)
            found = compare(value, self._number(query.value))
            return and_(found, value > self._extreme(highest=False)) if query.key == _TIME else found
        return None

    def _number(self, value: float) -> Any:
        if abs(value) >= _BEYOND_INTEGERS:
            # Such an integer is refused by databases; what is there is less than either.
            value = _BEYOND_ALL if value > 0 else -_BEYOND_ALL
        return value if self._is_sqlite else type_coerce(value, orm.Node.metadata_.type)

    def _scan_ids(self, query: Any) -> ColumnElement[bool]:
        if query.duplicates.value == "error":
            raise QueryValueError("whether scan ids are there twice cannot be asked of this catalog; ask for 'all'")
        mine = or_(*(self._value(_SCAN_ID) == self._number(scan_id) for scan_id in query.scan_ids))
        if query.duplicates.value == "all":
            return mine
        newer = aliased(orm.Node, name="newer")
        its_time, its_scan_id = self._value(_TIME, "newer"), self._value(_SCAN_ID, "newer")
        time, scan_id = self._value(_TIME), self._value(_SCAN_ID)
        is_newer = or_(its_time > time, and_(its_time == time, newer.id > orm.Node.id))
        return and_(mine, not_(exists().where(newer.parent == self.node.id, its_scan_id == scan_id, is_newer)))

    def _begins_with(self, beginning: str) -> ColumnElement[bool]:
        """Whose key it is; if nobody's, whose key begins so; and if nobody's, whose uid, which is the key of any run.

        So a uid that others begin with finds its own run, and a container that is no run is found by its name.
        """
        named = aliased(orm.Node, name="named")
        here = select(named.id).where(named.parent == self.node.id)
        exact = here.where(named.key == beginning)
        if self._is_sqlite:
            # With the parent as it is, SQLite would take the index of all that has this parent, and not that of keys.
            by_key = select(named.id).where(named.parent + 0 == self.node.id)
            by_key = by_key.where(named.key >= beginning, named.key < beginning + _AFTER_ANY_TEXT)
        else:
            by_key = here.where(func.starts_with(named.key, beginning))
        some_exact, some_by_key = (exists(found.correlate(None).subquery()) for found in (exact, by_key))
        uid = named.metadata_[["start", "uid"]].as_string()
        by_uid = here.where(case((some_by_key, false()), else_=uid.like(f"{beginning}%")))
        found: ColumnElement[bool] = orm.Node.id.in_(union_all(exact, by_key.where(not_(some_exact)), by_uid))
        return found


class _SourcesOfPage:
    """The data sources of the nodes of a page with their files, asked for when the first of them is."""

    def __init__(self, context: Any, entries: Sequence[Any]) -> None:
        self._context = context
        self._nodes = [entry.node.id for entry in entries]
        self._known: dict[int, list[DataSource]] | None = None

    async def of(self, entry: Any, include_assets: bool = False) -> list[DataSource]:
        """Those of one node, as Tiled asks for them."""
        if not include_assets:
            return [DataSource.from_orm(source, include_assets=False) for source in entry.node.data_sources or []]
        if self._known is None:
            source, association = orm.DataSource, orm.DataSourceAssetAssociation
            statement = select(source).where(source.node_id.in_(self._nodes)).order_by(source.id)
            assets = selectinload(source.asset_associations).joinedload(association.asset)
            self._known = {}
            async with self._context.session() as session:
                for each in (await session.execute(statement.options(assets))).scalars().all():
                    self._known.setdefault(each.node_id, []).append(DataSource.from_orm(each, include_assets=True))
        return self._known.get(entry.node.id, [])


def _directed(value: ColumnElement[Any], direction: int) -> ColumnElement[Any]:
    return value.desc() if direction < 0 else value.asc()


_DECOMPOSED: Any = {
    "time_range": lambda query: [
        Comparison(how, _TIME, value) for how, value in (("ge", query.since), ("lt", query.until)) if value is not None
    ],
    "scan_id_range": lambda query: [
        Comparison("ge", _SCAN_ID, query.start_id),
        Comparison("lt", _SCAN_ID, query.end_id),
    ],
}
