"""Tiled's clients of tables, arrays and containers, without those that packages register for specs."""

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["PlainClients"]

_FAMILIES = ("container", "table", "array", "awkward", "ragged", "sparse")
_OURS = ("table", "array")


class PlainClients(Mapping[str, Any]):
    """The clients by structure family, each imported when it is asked for.

    The special clients of runs and streams import xarray, and look through tables for their keys, which would cost a
    request each time.
    """

    def __getitem__(self, family: str) -> Any:
        from tiled.client.container import DEFAULT_STRUCTURE_CLIENT_DISPATCH

        if family not in _FAMILIES:
            raise KeyError(family)
        return DEFAULT_STRUCTURE_CLIENT_DISPATCH["numpy"][family]

    def __iter__(self) -> Iterator[str]:
        return iter(_FAMILIES)

    def __len__(self) -> int:
        return len(_FAMILIES)

    def load(self) -> None:
        """Import those that runs are written with: they import dask, which takes a second or two."""
        for family in _OURS:
            self[family]
