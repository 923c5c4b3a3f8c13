"""What ``run.documents()`` of bluesky-tiled-plugins' clients asks a server for."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from bluesky_tiled_plugins.exporters import json_seq_exporter

from bluesky_filestore.leanings import log_once
from bluesky_filestore.logs import get_logger

if TYPE_CHECKING:
    import pandas

__all__ = ["export_documents"]

_logger = get_logger(__name__)
_TABLE = "internal"
_FURTHER_TABLE = re.compile(_TABLE + r"_\d+")


async def export_documents(
    mimetype: str, adapter: Any, metadata: Mapping[str, Any], filter_for_access: Callable[[Any], Awaitable[Any]]
) -> AsyncIterator[str]:
    """A run's documents as a JSON sequence; in ``config.yml`` under ``media_types``, for the spec ``BlueskyRun``.

    The plugins' exporter makes it. It knows of one event table a stream, and takes what is more for arrays; it is given
    the tables of a stream as one. Where it asks for something else than it did, it is given the run as it is.
    """

    async def filtered(run: Any) -> _Run:
        return _Run(await filter_for_access(run))

    begun = False
    try:
        async for line in json_seq_exporter(mimetype, adapter, metadata, filtered):
            begun = True
            yield line
    except Exception as error:
        if begun:
            raise
        async for line in json_seq_exporter(mimetype, adapter, metadata, filter_for_access):
            log_once(_logger, "Runs are exported as they are: the exporter asks for other things than expected", error)
            yield line


class _Node:
    """A node of the catalog, as it is but for what a subclass has otherwise."""

    def __init__(self, node: Any) -> None:
        self._node = node

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)


class _Run(_Node):
    """A run whose streams have one table each."""

    async def lookup_adapter(self, path: list[str]) -> Any:
        """A stream; or what older runs have between themselves and the streams."""
        found = await self._node.lookup_adapter(path)
        is_stream = any(spec.name == "BlueskyEventStream" for spec in found.specs)
        return _Stream(found) if is_stream else _Run(found)


class _Stream(_Node):
    """A stream with one table."""

    async def keys_range(self, *args: Any, **kwargs: Any) -> list[str]:
        """The names of the arrays, and that of the table."""
        names = list(await self._node.keys_range(*args, **kwargs))
        return [name for name in names if name not in self._further(names)]

    async def lookup_adapter(self, path: list[str]) -> Any:
        """An array, or the table."""
        found = await self._node.lookup_adapter(path)
        if path != [_TABLE]:
            return found
        further = self._further(list(await self._node.keys_range(offset=0, limit=None)))
        return _Table([found, *[await self._node.lookup_adapter([name]) for name in further]]) if further else found

    def _further(self, names: list[str]) -> list[str]:
        keys = self._node.metadata().get("data_keys", {})
        return [name for name in names if name not in keys and _FURTHER_TABLE.fullmatch(name)]


class _Table(_Node):
    """Tables side by side."""

    def __init__(self, tables: list[Any]) -> None:
        super().__init__(tables[0])
        self._tables = tables

    async def read(self) -> "pandas.DataFrame":
        """The rows that all of them have so far."""
        import pandas

        return pandas.concat([await table.read() for table in self._tables], axis="columns", join="inner")
