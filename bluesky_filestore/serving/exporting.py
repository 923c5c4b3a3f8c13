"""What ``run.documents()`` of bluesky-tiled-plugins' clients asks a server for."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from bluesky_tiled_plugins.exporters import json_seq_exporter

if TYPE_CHECKING:
    import pandas

__all__ = ["export_documents"]

_TABLE = "internal"
_FURTHER_TABLE = re.compile(_TABLE + r"_\d+")


async def export_documents(
    mimetype: str, adapter: Any, metadata: Mapping[str, Any], filter_for_access: Callable[[Any], Awaitable[Any]]
) -> AsyncIterator[str]:
    """A run's documents as a JSON sequence; in ``config.yml`` under ``media_types``, for the spec ``BlueskyRun``.

    The plugins' exporter makes it. It knows of one event table a stream, and takes what is more for arrays; it is given
    the tables of a stream as one.
    """

    async def filtered(run: Any) -> _Run:
        return _Run(await filter_for_access(run))

    async for line in json_seq_exporter(mimetype, adapter, metadata, filtered):
        yield line


class _Run:
    """A run whose streams have one table each."""

    def __init__(self, node: Any) -> None:
        self._node = node

    async def keys_range(self, offset: int, limit: int | None) -> list[str]:
        """The names of the streams."""
        return list(await self._node.keys_range(offset=offset, limit=limit))

    async def lookup_adapter(self, path: list[str]) -> Any:
        """A stream; or what older runs have between themselves and the streams."""
        found = await self._node.lookup_adapter(path)
        is_stream = any(spec.name == "BlueskyEventStream" for spec in found.specs)
        return _Stream(found) if is_stream else _Run(found)

    @property
    def specs(self) -> Any:
        """Of the node."""
        return self._node.specs


class _Stream:
    """A stream with one table."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._tables: list[str] = []

    @property
    def specs(self) -> Any:
        """Of the node."""
        return self._node.specs

    def metadata(self) -> Any:
        """Of the node."""
        return self._node.metadata()

    async def keys_range(self, offset: int, limit: int | None) -> list[str]:
        """The names of the arrays, and that of the table."""
        names = list(await self._node.keys_range(offset=offset, limit=limit))
        keys = self._node.metadata().get("data_keys", {})
        self._tables = [name for name in names if name not in keys and _FURTHER_TABLE.fullmatch(name)]
        return [name for name in names if name not in self._tables]

    async def lookup_adapter(self, path: list[str]) -> Any:
        """An array, or the table."""
        found = await self._node.lookup_adapter(path)
        if path != [_TABLE] or not self._tables:
            return found
        return _Table([found, *[await self._node.lookup_adapter([name]) for name in self._tables]])


class _Table:
    """Tables side by side."""

    def __init__(self, tables: list[Any]) -> None:
        self._tables = tables

    async def read(self) -> "pandas.DataFrame":
        """The rows that all of them have so far."""
        import pandas

        return pandas.concat([await table.read() for table in self._tables], axis="columns", join="inner")
