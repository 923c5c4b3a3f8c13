"""The adapter for rows that differ in shape: a ragged array, of which each row is read by itself."""

import builtins
from collections.abc import Callable, Set
from typing import TYPE_CHECKING, Any

import numpy as np
from tiled.adapters.core import Adapter
from tiled.structures.core import StructureFamily
from tiled.structures.ragged import RaggedStructure

from bluesky_filestore.files.ragged import RaggedInFiles
from bluesky_filestore.files.readable import ANYWHERE, Roots
from bluesky_filestore.files.registered import OpenFrames, Registered
from bluesky_filestore.files.stamps import without_stamps
from bluesky_filestore.model.limits import DEFAULT_LIMITS, Limits
from bluesky_filestore.model.ragged_rows import as_ragged

from .assets import paths_of
from .frames_adapter import answered

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tiled.storage import Storage
    from tiled.structures.data_source import DataSource

__all__ = ["RaggedAdapters"]


class RaggedAdapters:
    """Makes the adapters of `RAGGED` data sources.

    Parameters
    ----------
    find : callable
        Gives, of files below some roots, the frames of rows that are alike.
    roots : Roots
        Where files may lie, beside what Tiled allows.
    allow_changed : bool
        Whether files are read that are not those that were registered.
    """

    def __init__(
        self, find: Callable[[Registered, Roots], OpenFrames], roots: Roots = ANYWHERE, *, allow_changed: bool = False
    ) -> None:
        self._find, self._roots, self._allow_changed = find, roots, allow_changed

    def from_catalog(
        self, data_source: "DataSource[RaggedStructure]", node: Any, /, **parameters: Any
    ) -> "RaggedAdapter":
        """The adapter of a data source, as Tiled asks for it.

        Raises
        ------
        HTTPException
            If the data source does not say which rows are meant.
        """
        structure, properties = data_source.structure, data_source.properties or {}
        with answered():
            rows = RaggedInFiles(
                data_source.parameters,
                without_stamps(properties) if self._allow_changed else properties,
                paths_of(data_source),
                structure.shape[0] or 0,
                structure.data_type.to_numpy_dtype(),
                lambda registered: self._find(registered, self._roots),
            )
        return RaggedAdapter(rows, structure, metadata=node.metadata_, specs=node.specs, limits=self._roots.limits)


class RaggedAdapter(Adapter[RaggedStructure]):  # type: ignore[misc] # Tiled is untyped
    """Rows of files as one ragged array.

    Parameters
    ----------
    rows : RaggedInFiles
        Reads them.
    structure : RaggedStructure
        As registered.
    metadata, specs
        Of the node.
    limits : Limits
        How large an answer may be.
    """

    structure_family = StructureFamily.ragged

    def __init__(
        self,
        rows: RaggedInFiles,
        structure: RaggedStructure,
        *,
        metadata: Any = None,
        specs: Any = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        super().__init__(structure, metadata=metadata, specs=specs)
        self._rows, self._limits = rows, limits

    @classmethod
    def supported_storage(cls) -> "Set[type[Storage]]":
        """No storage: nothing is written."""
        return frozenset()

    def read(self, slice: Any = None) -> Any:  # noqa: A002 - Tiled's name
        """The array, or a part of it, of which only the rows are read that it needs.

        Raises
        ------
        HTTPException
            If a row cannot be read, with a status between 400 and 499 that says in what way.
        """
        import ragged

        first, *inner = tuple(slice or ()) or (...,)
        if first is Ellipsis and inner:
            first, inner = builtins.slice(None), [..., *inner]
        with answered():
            if isinstance(first, int | np.integer):
                row = self._rows.read_row(int(first))[tuple(inner)]
                return ragged.array(np.asarray(row, row.dtype.newbyteorder("=")))
            wanted = range(self._rows.count)[first if isinstance(first, builtins.slice) else builtins.slice(None)]
            shape = tuple(self.structure().shape[1:])
            rows = as_ragged(self._read_rows(wanted), shape, self._rows.dtype)
        return rows[(builtins.slice(None), *inner)] if inner else rows

    def _read_rows(self, wanted: range) -> "list[NDArray[Any]]":
        rows, size = [], 0
        for row in wanted:
            rows.append(self._rows.read_row(row))
            size += rows[-1].nbytes
            self._limits.check("response_bytes", size, "rows of", "bytes or more are asked for (ask for fewer)")
        return rows
