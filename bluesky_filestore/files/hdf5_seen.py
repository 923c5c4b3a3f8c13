"""What can be seen of HDF5 files when their rows are registered: whether what is wrong will stay so."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from bluesky_filestore.errors import AddressError, UnreadableFileError
from bluesky_filestore.model.addressing import HDF5Rows, parsed_slice

from .hdf5 import shared_files
from .hdf5_layout import GroupError, Layout, NoDatasetError, NoFramesError
from .hdf5_superblock import is_settled
from .readable import Roots
from .rows import expanded_index

__all__ = ["problem_with_rows"]


def problem_with_rows(
    paths: Sequence[str], rows: HDF5Rows | str, event_elements: int | None, dtype: "np.dtype[Any]", roots: Roots
) -> str:
    """Why files cannot be what was registered, now and later; empty if they can, or cannot be looked at.

    Parameters
    ----------
    paths : sequence of str
        The files; of many the first and the last are looked at.
    rows : HDF5Rows or str
        Which rows of them; or a dataset, of which nothing is known but that it is there.
    event_elements : int, optional
        How many elements a frame is to have.
    dtype : numpy.dtype
        What it is registered as.
    roots : Roots
        Where files may lie.
    """
    dataset, swmr = (rows, False) if isinstance(rows, str) else (rows.dataset, rows.swmr)
    for number in sorted({0, len(paths) - 1}):
        path = paths[number]
        try:
            if not is_settled(path):
                continue
            layout = shared_files().layout(path, dataset, swmr=swmr, roots=roots)
        except (GroupError, NoDatasetError) as error:
            return str(error)
        except NoFramesError as error:
            if isinstance(rows, str):
                # Some of them Tiled serves.
                continue
            return str(error)
        except (UnreadableFileError, OSError, ValueError):
            continue
        problem = "" if isinstance(rows, str) else _problem(layout, path, number, rows, event_elements, dtype)
        if problem:
            return problem
    return ""


def _problem(
    layout: Layout, path: str, number: int, rows: HDF5Rows, event_elements: int | None, dtype: "np.dtype[Any]"
) -> str:
    try:
        keys = expanded_index(parsed_slice(rows.slice), layout.frame_shape)
    except (AddressError, IndexError, ValueError) as error:
        return f"slice {rows.slice!r} does not fit frames of shape {list(layout.frame_shape)} in file {path}: {error}."
    elements = math.prod(len(key) for key in keys if isinstance(key, range))
    if event_elements is not None and elements != event_elements:
        return (
            f"file {path} holds frames of shape {list(layout.frame_shape)} in dataset {rows.dataset}, of which "
            f"{elements} elements are taken; expected {event_elements} of each, by the shape that is registered."
        )
    if not np.can_cast(layout.dtype, dtype, "safe"):
        return f"file {path} holds {layout.dtype}; expected {dtype}, as it is registered: register what it holds."
    last = max((max(span.first, span.last) for span in rows.rows if span.asset == number), default=-1)
    end = last + rows.frames_per_event
    if layout.virtual is None and last >= 0 and end > layout.count:
        return f"file {path} holds {layout.count} frames in dataset {rows.dataset}; expected {end} for its rows."
    return ""
