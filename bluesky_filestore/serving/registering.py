"""Registrations that are wrong are refused when they are made, as far as that can be seen, and leave nothing behind.

What is wrong in itself is refused: parameters that do not say which frames are meant, a structure that does not fit
them. Of files it is what is certain: a file may not be there yet, may be in the midst of being written, or be damaged
and mended, and limits of a server may be others by the time it is read; all of that is said to whoever reads it.
"""

import asyncio
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from fastapi import HTTPException
from tiled.catalog.adapter import CatalogNodeAdapter
from tiled.structures.core import STRUCTURE_TYPES, StructureFamily

from bluesky_filestore.errors import AddressError, FileStoreError, ForbiddenFileError, LimitError
from bluesky_filestore.files.hdf5_seen import problem_with_rows
from bluesky_filestore.files.readable import Roots
from bluesky_filestore.logs import get_logger
from bluesky_filestore.model.addressing import (
    FILE_SERIES,
    HANDLED,
    HDF5_ROWS,
    FileSeries,
    HandledRows,
    HDF5Rows,
    parsed_slice,
)
from bluesky_filestore.model.asset_paths import path_of_asset
from bluesky_filestore.model.frame_axis import why_not_served
from bluesky_filestore.model.limits import check_width
from bluesky_filestore.model.ragged_rows import RAGGED, RaggedRows
from bluesky_filestore.model.specs import HDF5, JPEG_SERIES, NPY_SERIES, TIFF_SERIES

__all__ = ["refusing"]

_logger = get_logger(__name__)
_LISTED = (TIFF_SERIES, NPY_SERIES, JPEG_SERIES)
_OURS = (HDF5, HDF5_ROWS, FILE_SERIES, HANDLED, RAGGED, *_LISTED)
_LOOK_SECONDS = 5.0
# As numpy and databases count.
_MOST_ELEMENTS = 2**63 - 1
_IN_NO_NAME = re.compile(r"[/\x00-\x1f\x7f]")


def refusing(tree: CatalogNodeAdapter, roots: Roots) -> CatalogNodeAdapter:
    """The same tree of Tiled's, and all that is in it, which takes no registration that is wrong.

    Parameters
    ----------
    tree : CatalogNodeAdapter
        The root.
    roots : Roots
        Where files may lie.
    """
    kinds: dict[type, type] = {}

    def kind_of(kind: type) -> type:
        if kind not in kinds:
            kinds[kind] = type(kind.__name__, (_Refusing, kind), {"roots": roots, "kind_of": staticmethod(kind_of)})
        return kinds[kind]

    tree.__class__ = kind_of(type(tree))
    return tree


class _Refusing:
    """What a node of Tiled's catalog does before anything is put into it."""

    roots: Roots
    kind_of: Any
    context: Any

    async def lookup_adapter(self, segments: list[str]) -> Any:
        """What is at a path, of the same mind."""
        found = await super().lookup_adapter(segments)  # type: ignore[misc]
        if isinstance(found, CatalogNodeAdapter) and not isinstance(found, _Refusing):
            found.__class__ = self.kind_of(type(found))
        return found

    async def create_node(self, *args: Any, **kwargs: Any) -> Any:
        """Make a node, if what is registered with it is right."""
        sources, family, key = (kwargs.get(name) for name in ("data_sources", "structure_family", "key"))
        if key in (".", "..") or (key and _IN_NO_NAME.search(key)):
            raise HTTPException(422, f"{key[:100]!r} cannot be part of an address; expected a key without '/'.")
        sources = sources or ()
        # Which mimetypes are served is for Tiled to say, and asked in this way.
        if all(source.mimetype in self.context.adapters_by_mimetype for source in sources):
            for source in sources:
                await self._check(partial(_check_new, source, family, self.roots), source)
        return await super().create_node(*args, **kwargs)  # type: ignore[misc]

    async def put_data_source(self, data_source: Any, *args: Any, **kwargs: Any) -> Any:
        """Change what is registered, if that is right."""
        if data_source.mimetype in self.context.adapters_by_mimetype:
            await self._check(partial(_check_changed, data_source, self.roots), data_source)
        elif data_source.management == "external":
            raise HTTPException(415, f"nothing of this server reads files of type {str(data_source.mimetype)[:100]!r}.")
        return await super().put_data_source(data_source, *args, **kwargs)  # type: ignore[misc]

    async def _check(self, check: Any, source: Any) -> None:
        if source.management != "external":
            return
        try:
            # A disk that does not answer shows nothing; whoever is looking is left alone.
            await asyncio.wait_for(self.context.adapters_by_mimetype.threads.run_beside(check), _LOOK_SECONDS)
        except TimeoutError:
            _logger.warning("Files that were registered did not show within %g s what they are.", _LOOK_SECONDS)
        except (ForbiddenFileError, LimitError):
            # It is told to whoever reads it; limits and directories of the server may be others by then.
            return
        except FileStoreError as error:
            raise HTTPException(422, f"this registration is refused: {error}") from error


def _check_new(source: Any, family: Any, roots: Roots) -> None:
    """Raise an error of ours for a data source that is wrong, of which all is said."""
    if family is not None and family != source.structure_family:
        raise AddressError(
            f"a node of family {_name(family)} has a data source of family {_name(source.structure_family)}; expected "
            f"the same of both."
        )
    _check_source(source, roots)
    if source.mimetype in _OURS:
        if not source.assets and 0 not in getattr(source.structure, "shape", (0,)):
            raise AddressError("the data source has no assets; expected the files that hold its frames.")
        paths = [path_of_asset(asset.data_uri) for asset in _assets_of(source)]
        _check_files(source, paths, roots)


def _check_changed(source: Any, roots: Roots) -> None:
    """The same, of which not all assets are said, and the structure as it came."""
    if isinstance(source.structure, Mapping):
        family = StructureFamily(source.structure_family)
        try:
            structure = STRUCTURE_TYPES[family].from_json(source.structure)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise AddressError(f"the structure is none of family {family.value} ({error!r}).") from error
        source = source.model_copy(update={"structure": structure})
    _check_source(source, roots)


def _check_source(source: Any, roots: Roots) -> None:
    """What is to be right of a data source in any case."""
    _check_assets(source)
    if source.structure_family == "array" and source.structure is not None:
        _check_structure(source.structure)
    if source.mimetype not in _OURS:
        return
    if not isinstance(source.parameters or {}, Mapping):
        raise AddressError(f"the parameters are {source.parameters!r}; expected names and values.")
    _check_family(source)
    parameters = source.parameters or {}
    if source.mimetype in (FILE_SERIES, HANDLED):
        for template in parameters.get("templates") or ():
            check_width(template, roots.limits)
    _check_parameters(source.mimetype, parameters, source.structure)


def _check_family(source: Any) -> None:
    """See that it is of a family that is served, and its numbers of a dtype that is."""
    expected = {RAGGED: ("ragged",), HDF5: ("array", "container", "table")}.get(source.mimetype, ("array",))
    if source.structure_family not in expected:
        raise AddressError(
            f"a data source of type {source.mimetype} is of family {_name(source.structure_family)}; expected "
            f"{' or '.join(expected)}."
        )
    if source.structure_family in ("array", "ragged") and source.structure is None:
        raise AddressError("the data source has no structure; expected shape, chunks and data type.")
    if source.structure_family == "array" and source.mimetype != HDF5:
        dtype = source.structure.data_type.to_numpy_dtype()
        unserved = why_not_served((1, *source.structure.shape[1:]), dtype)
        if unserved:
            raise AddressError(f"the array has dtype {dtype}: {unserved}; expected numbers.")


def _check_parameters(mimetype: str, parameters: Mapping[str, Any], structure: Any) -> None:
    """See that they say which frames are meant, and of as many rows as there are."""
    if mimetype == HDF5_ROWS:
        _check_rows(HDF5Rows.from_parameters(parameters), structure.shape)
    elif mimetype == FILE_SERIES:
        _check_rows(FileSeries.from_parameters(parameters), structure.shape)
    elif mimetype == HANDLED:
        events = sum(len(part.datum_kwargs) for part in HandledRows.from_parameters(parameters).parts)
        if tuple(structure.shape[:1]) != (events,):
            raise AddressError(
                f"the array has shape {list(structure.shape)}; expected {events} events, as many as datum_kwargs."
            )
    elif mimetype == RAGGED:
        RaggedRows.from_parameters(parameters)
    elif mimetype == HDF5 and isinstance(parameters.get("slice"), str):
        parsed_slice(parameters["slice"])
    elif mimetype == HDF5 and parameters.get("slice") is not None:
        raise AddressError(f"slice is {parameters['slice']!r}; expected words such as ':,0:2'.")


def _check_rows(rows: HDF5Rows | FileSeries, shape: Sequence[int]) -> None:
    events = sum(span.count for span in rows.rows)
    frames = events * rows.frames_per_event
    if not shape or shape[0] not in (events, frames) or math.prod(shape) % frames:
        raise AddressError(
            f"the array has shape {list(shape)}; expected {events:,} rows, as many as its spans have, of "
            f"{rows.frames_per_event} frames each."
        )


def _check_structure(structure: Any) -> None:
    """See that chunks are those of the shape."""
    shape, chunks = tuple(structure.shape), structure.chunks
    if not all(isinstance(size, int) and size >= 0 for size in shape) or math.prod(shape) > _MOST_ELEMENTS:
        raise AddressError(f"the array has shape {_shortened(list(shape))}; expected whole numbers, none below 0.")
    fits = len(chunks) == len(shape) and all(
        sum(sizes) == size and min(sizes, default=0) >= 0 for sizes, size in zip(chunks, shape, strict=True)
    )
    if not fits:
        raise AddressError(
            f"the array has shape {list(shape)} and chunks {_shortened(chunks)}; expected along each axis the sizes of "
            f"its chunks, which come to the size of the axis."
        )
    if structure.dims is not None and len(structure.dims) != len(shape):
        raise AddressError(f"the array has {len(shape)} axes and {len(structure.dims)} names of them.")


def _check_assets(source: Any) -> None:
    """See that the assets are files, each once. Where they may lie is said when they are read: that can change."""
    uris = Counter(asset.data_uri for asset in source.assets)
    twice = next((uri for uri, count in uris.items() if count > 1), None)
    if twice is not None:
        raise AddressError(f"asset {_shortened(twice)} is there {uris[twice]} times; expected each once.")
    places = Counter((asset.parameter, asset.num) for asset in source.assets if asset.parameter is not None)
    place = next((place for place, count in places.items() if count > 1), None)
    if place is not None:
        raise AddressError(f"{places[place]} assets have the number {place[1]} of {place[0]!r}; expected one.")
    for asset in _assets_of(source):
        if source.mimetype in _OURS or asset.data_uri.startswith("file:"):
            path_of_asset(asset.data_uri)


def _check_files(source: Any, paths: Sequence[str], roots: Roots) -> None:
    """See that HDF5 files that are whole have the dataset, and our rows of it."""
    if source.structure_family != "array" or not paths:
        return
    parameters, shape = source.parameters or {}, tuple(source.structure.shape)
    if source.mimetype == HDF5_ROWS:
        rows = HDF5Rows.from_parameters(parameters)
        beyond = next((span.asset for span in rows.rows if span.asset >= len(paths)), None)
        if beyond is not None:
            raise AddressError(f"rows are in file number {beyond}; expected one of {len(paths)} assets.")
        event = math.prod(shape[1:]) // rows.frames_per_event
        problem = problem_with_rows(paths, rows, event, _dtype_of(source), roots)
    elif source.mimetype == FILE_SERIES:
        series = FileSeries.from_parameters(parameters)
        if len(series.templates) > len(paths):
            raise AddressError(
                f"there are {len(series.templates)} templates for {len(paths)} directories; expected one a directory."
            )
        return
    elif source.mimetype == HDF5:
        name = parameters.get("dataset", "")
        dataset = name if isinstance(name, str) else "/".join(map(str, name))
        problem = problem_with_rows(paths[:1], dataset, None, _dtype_of(source), roots)
    else:
        return
    if problem:
        raise AddressError(problem)


def _dtype_of(source: Any) -> "np.dtype[Any]":
    dtype: np.dtype[Any] = source.structure.data_type.to_numpy_dtype()
    return dtype


def _assets_of(source: Any) -> list[Any]:
    """What is handed to an adapter; others are named for those who move files."""
    return [asset for asset in source.assets if asset.parameter is not None]


def _name(family: Any) -> str:
    return str(getattr(family, "value", family))


def _shortened(value: Any) -> str:
    return str(value) if len(str(value)) < 200 else f"{str(value)[:200]}..."
