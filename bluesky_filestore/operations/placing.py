"""Rows of the frame map, put in words that an adapter of the server understands, or refused; never approximated."""

from collections.abc import Collection, Mapping
from typing import Any

from bluesky_filestore.errors import FileStoreError
from bluesky_filestore.model.addressing import FILE_SERIES, HANDLED, HDF5_ROWS
from bluesky_filestore.model.frame_map import Rows, Source
from bluesky_filestore.model.specs import HDF5, JPEG_SERIES, NPY_SERIES, TIFF_SERIES

from .answers import place_answers
from .datasets import place_in_datasets
from .placement import Inspector, Placement, Refusal
from .series import place_in_series

__all__ = ["place"]

_SERIES = (TIFF_SERIES, JPEG_SERIES, NPY_SERIES, HDF5)
# Tiled parses an asset's URI without unquoting it: what follows one of these would be lost.
_NOT_IN_TILED_URIS = "#?;"


def place(
    rows: Rows,
    sources: Mapping[str, Source],
    data_key: Mapping[str, Any],
    inspect: Inspector,
    before: Placement | None = None,
    ours: Collection[str] = (),
) -> Placement | Refusal:
    """Express the rows of one array for a stock adapter, or for one of ours where the server has it.

    Parameters
    ----------
    rows : Rows
        As the frame map has them.
    sources : Mapping
        The sources by uid.
    data_key : Mapping
        The data key's entry in the descriptor.
    inspect : Inspector
        Looks at files.
    before : Placement, optional
        What is registered of the array's first rows: its files need not be looked at again.
    ours : Collection of str
        The mimetypes of our own that the server reads.
    """
    if not rows.count:
        return Refusal(rows.problem or "no frames were documented")
    used = {span.source: sources[span.source] for span in rows.spans}
    first = next(iter(used.values()))
    if any(_kind(source) != _kind(first) for source in used.values()):
        return Refusal("its resources are of different kinds, which one array of a catalog cannot join")
    try:
        if first.is_handled:
            placed = place_answers(rows, used, data_key, inspect, before, ours=HANDLED in ours)
        elif first.template is None and first.mimetype == HDF5:
            placed = place_in_datasets(rows, used, data_key, inspect, before, ours=HDF5_ROWS in ours)
        elif first.template is not None and first.mimetype in _SERIES:
            placed = place_in_series(rows, used, data_key, inspect, before, ours=FILE_SERIES in ours)
        else:
            return Refusal(f"files of type {first.mimetype!r} are not among those that can be registered")
    except FileStoreError as error:
        return Refusal(str(error))
    if isinstance(placed, Placement):
        unsafe = next((file for file in placed.files if set(file) & set(_NOT_IN_TILED_URIS)), None)
        if unsafe is not None:
            return Refusal(f"file {unsafe!r} has one of {_NOT_IN_TILED_URIS!r} in its path, which Tiled cannot open")
    return placed


def _kind(source: Source) -> tuple[Any, ...]:
    return (
        source.mimetype,
        source.dataset,
        source.template is None,
        source.spec if source.is_handled else "",
        source.frames_per_index or 1,
        source.files_per_index,
        str(source.parameters.get("slice") or ""),
    )
