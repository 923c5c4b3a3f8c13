"""A run as it lies in a catalog, with few requests: what is below it is asked for at once."""

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import httpx

from bluesky_filestore.catalogs.tiled.connecting import catalog_errors
from bluesky_filestore.catalogs.tiled.nodes import get_runs
from bluesky_filestore.catalogs.tiled.values import read_table

if TYPE_CHECKING:
    from pandas import DataFrame
    from tiled.client.container import Container

__all__ = ["RunTree", "columns_of", "trees_of_runs"]

_Below: TypeAlias = dict[str, tuple[Any, dict[str, Any]]]
_NO_KEY = "no run has this"
_LOOKS, _PAUSE = 20, 0.1


class RunTree:
    """A run's node and what is below it, asked for once.

    Parameters
    ----------
    node : tiled.client.container.Container
        The run.
    nodes : mapping, optional
        What is below it by its path, if that is known already.
    """

    def __init__(self, node: "Container", nodes: Mapping[tuple[str, ...], Any] | None = None) -> None:
        self._node: Any = getattr(node, "base", node)
        if nodes is not None:
            self._below = _arranged(nodes)
        self._columns: dict[str, dict[str, list[Any]]] = {}

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The run's."""
        metadata: Mapping[str, Any] = self._node.metadata
        return metadata

    @property
    def streams(self) -> dict[str, Any]:
        """The containers of the streams, by name.

        Raises
        ------
        CatalogError
            If the catalog does not tell.
        """
        return {name: stream for name, (stream, _) in self._below.items()}

    def children(self, stream: str) -> dict[str, Any]:
        """The tables and arrays of a stream, with their data sources; raises as `streams` does."""
        return self._below[stream][1]

    def columns(self, stream: str) -> Mapping[str, list[Any]]:
        """The columns of the event table of a stream, None where a cell is empty; raises as `streams` does."""
        if stream not in self._columns:
            columns: dict[str, list[Any]] = {}
            for table in self.tables(stream):
                columns |= columns_of(read_table(table))
            self._columns[stream] = columns
        return self._columns[stream]

    def forget_columns(self) -> None:
        """Keep no rows any longer."""
        self._columns.clear()

    def tables(self, stream: str) -> list[Any]:
        """The tables of a stream, of which each has some of its columns; raises as `streams` does."""
        return [child for child in self.children(stream).values() if child.structure_family == "table"]

    @cached_property
    def _below(self) -> _Below:
        from tiled.client.utils import ClientError

        node = self._node.new_variation(include_data_sources=True)
        with catalog_errors(str(node.uri), node):
            # Tiled before 0.2.20 shows what is just being made: its server fails at an array, its client at a table.
            for _ in range(_LOOKS):
                try:
                    return _listed(node)
                except AttributeError:
                    time.sleep(_PAUSE)
                except ClientError as error:
                    if error.response.status_code != httpx.codes.UNPROCESSABLE_ENTITY:
                        raise
                    time.sleep(_PAUSE)
            return _listed(node)


def columns_of(rows: "DataFrame") -> dict[str, list[Any]]:
    """The columns of some rows, None where a cell is empty."""
    columns = {}
    for name in rows.columns:
        cells = zip(rows[name].tolist(), rows[name].isna().tolist(), strict=True)
        columns[name] = [None if is_empty else cell for cell, is_empty in cells]
    return columns


def _listed(node: Any) -> _Below:
    """What is below a run: by one search, or a list of each stream where there is none."""
    from tiled.client.utils import ClientError

    from bluesky_filestore.catalogs.tiled.below import can_search_below

    if can_search_below(node):
        try:
            return _at_once(node)
        except ClientError:
            # Its server has the route, and a tree that is none of Tiled's own.
            pass
    streams = {name: getattr(child, "base", child) for name, child in node.items()}
    return {name: (each, dict(each.new_variation(include_data_sources=True).items())) for name, each in streams.items()}


def _at_once(node: Any) -> _Below:
    from tiled.queries import KeyPresent

    return _arranged(dict(node.search_deep(KeyPresent(_NO_KEY, False), max_depth=2).items()))


def _arranged(found: Mapping[tuple[str, ...], Any]) -> _Below:
    below: _Below = {path[0]: (getattr(child, "base", child), {}) for path, child in found.items() if len(path) == 1}
    for path, child in found.items():
        if len(path) > 1 and path[0] in below:
            below[path[0]][1][path[1]] = child
    return below


def trees_of_runs(client: "Container", uids: Sequence[str]) -> dict[str, RunTree]:
    """Those of some runs that the catalog has, by their uid, with as few requests as its server allows.

    Raises
    ------
    CatalogError
        If the catalog does not answer, or does not let us in.
    """
    from bluesky_filestore.catalogs.tiled.below import runs_with_contents

    found = runs_with_contents(client, uids)
    if found:
        return {uid: RunTree(nodes[()], nodes) for uid, nodes in found.items()}
    return {uid: RunTree(node) for uid, node in get_runs(client, uids).items()}
