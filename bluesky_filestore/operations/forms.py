"""The form in which an array of rows is registered: for a stock adapter, for one of ours, ragged, or as files alone."""

from collections.abc import Collection, Mapping
from typing import Any

from bluesky_filestore.errors import FileStoreError
from bluesky_filestore.model.addressing import FILE_SERIES, HANDLED, HDF5_ROWS
from bluesky_filestore.model.asset_paths import NOT_IN_URIS
from bluesky_filestore.model.frame_map import Rows, Source
from bluesky_filestore.model.ragged_rows import RAGGED
from bluesky_filestore.model.specs import HDF5, JPEG_SERIES, NPY_SERIES, OPAQUE, TIFF_SERIES

from .answers import place_answers
from .datasets import place_in_datasets
from .opaque import place_opaque
from .placement import Inspector, Placement, Refusal
from .ragged import place_ragged, varies_by_documents, varies_by_files
from .series import MOST_FILES, place_in_series

__all__ = ["MOST_FILES", "place"]

"""Of an array: what claims to be more was not written by a detector, and would be counted up for ever."""

_SERIES = (TIFF_SERIES, JPEG_SERIES, NPY_SERIES, HDF5)
_VARIES = (
    "{}, which no stock adapter can address; expected 'bluesky_filestore.serving.adapters:ragged' for "
    f"{RAGGED} in the server's configuration"
)


def place(
    rows: Rows,
    sources: Mapping[str, Source],
    data_key: Mapping[str, Any],
    inspect: Inspector,
    before: Placement | None = None,
    ours: Collection[str] = (),
    *,
    final: bool = True,
) -> Placement | Refusal:
    """Express the rows of one array for a stock adapter, or for one of ours where the server has it; never by half.

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
    final : bool
        Whether no rows will follow: before, none that differ in shape are put in words.
    """
    if not rows.count:
        return Refusal(rows.problem or "no frames were documented")
    used = {span.source: sources[span.source] for span in rows.spans}
    if len({_kind(source) for source in used.values()}) > 1:
        return Refusal("its resources are of different kinds, which one array of a catalog cannot join")
    claimed = sum(span.count * span.width for span in rows.spans if used[span.source].template is not None)
    if claimed > MOST_FILES:
        return Refusal(f"its documents claim {claimed:,} files; expected {MOST_FILES:,} at most: they are damaged")
    varies = varies_by_documents(rows, used)
    if varies and not final:
        return Refusal(_VARIES.format(varies), settled=False)
    before = None if before is not None and before.mimetype == RAGGED else before
    placed = Refusal(_VARIES.format(varies)) if varies else _place_alike(rows, used, data_key, inspect, before, ours)
    ends = placed.count if isinstance(placed, Placement) and placed.count < rows.count else None
    differs = ends is not None and final and varies_by_files(rows, used, data_key, inspect, ends)
    if final and RAGGED in ours and (varies or differs):
        ragged = place_ragged(
            rows, used, data_key, inspect, lambda some, its, key: _place_alike(some, its, key, inspect, None, ours)
        )
        # What is regular as far as it goes stays so where that is as far as anything goes.
        placed = ragged if varies or (isinstance(ragged, Placement) and ragged.mimetype == RAGGED) else placed
    is_read = all(source.is_handled and HANDLED in ours for source in used.values()) or any(
        source.mimetype in _SERIES for source in used.values()
    )
    if isinstance(placed, Refusal) and not is_read:
        placed = place_opaque(rows, used, inspect, placed, ours=OPAQUE in ours)
    if isinstance(placed, Placement):
        unsafe = next((file for file in placed.files if NOT_IN_URIS & set(file)), None)
        if unsafe is not None:
            return Refusal(f"file {unsafe!r} has one of '#?;' in its path, which Tiled cannot open")
    return placed


def _place_alike(
    rows: Rows,
    used: Mapping[str, Source],
    data_key: Mapping[str, Any],
    inspect: Inspector,
    before: Placement | None,
    ours: Collection[str],
) -> Placement | Refusal:
    """Express rows of one shape, up to the first that is of another."""
    first = next(iter(used.values()))
    try:
        if first.is_handled:
            return place_answers(rows, used, data_key, inspect, before, ours=HANDLED in ours)
        if first.template is None and first.mimetype == HDF5:
            return place_in_datasets(rows, used, data_key, inspect, before, ours=HDF5_ROWS in ours)
        if first.template is not None and first.mimetype in _SERIES:
            return place_in_series(rows, used, data_key, inspect, before, ours=FILE_SERIES in ours)
    except FileStoreError as error:
        return Refusal(str(error))
    unknown = first.parameters.get("unknown") if first.mimetype == OPAQUE else None
    return Refusal(unknown or f"files of type {first.mimetype!r} are not among those that can be registered")


def _kind(source: Source) -> tuple[Any, ...]:
    return (
        source.mimetype,
        source.dataset,
        source.template is None,
        source.spec if source.is_handled else "",
        str(source.parameters.get("slice") or ""),
    )
