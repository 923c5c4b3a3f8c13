"""Looking at what a file plugin has left on the disk, where this machine sees it: its own counts are not always true.

A plugin counts files that it could not write on a full disk, and frames whose chunks HDF5 never wrote.
"""

import math
from pathlib import Path
from typing import Any

__all__ = ["HDF5_DATA", "broken_file", "missing_rows"]

HDF5_DATA = "/entry/data/data"
"""Where the default layout of NDFileHDF5 puts the frames."""


def broken_file(path: Path, least_bytes: int, *, is_hdf5: bool) -> str | None:
    """What is wrong with a file of one frame; None if nothing is.

    Parameters
    ----------
    path : Path
        The file.
    least_bytes : int
        What it takes at least, as far as that is known.
    is_hdf5 : bool
        Whether HDF5 must be able to open it.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return f"{path} is not there"
    if size < max(least_bytes, 1):
        return f"{path} has {size} bytes, expected at least {max(least_bytes, 1)}"
    if is_hdf5:
        try:
            _open_hdf5(path).close()
        except OSError as error:
            return f"{path} can't be opened: {error}"
    return None


def missing_rows(path: Path, frames: int) -> tuple[list[int], str]:
    """Which of the first frames of an HDF5 file were never written, and what else is to be said.

    Parameters
    ----------
    path : Path
        The file, closed by its writer.
    frames : int
        How many there should be.

    Returns
    -------
    list of int
        Their numbers, all of them if the file can't be opened.
    str
        The reason; empty if nothing is missing.
    """
    try:
        file = _open_hdf5(path)
    except OSError as error:
        return list(range(frames)), f"{path} can't be opened, as after a full disk or an IOC that died: {error}"
    with file:
        if HDF5_DATA not in file:
            return list(range(frames)), (
                f"{path} has no {HDF5_DATA}, where readers look for frames: the plugin's layout (XMLFileName) puts "
                f"them elsewhere"
            )
        data = file[HDF5_DATA]
        if file.swmr_mode:
            # What this process knew of it may be older.
            data.refresh()
        if data.ndim == 0:
            return list(range(frames)), f"{HDF5_DATA} of {path} holds no frames: its shape is ()"
        missing = [row for row in _unallocated(data) if row < frames] + list(range(data.shape[0], frames))
    return missing, f"{path} has no data there, most likely because the disk is full" if missing else ""


def _open_hdf5(path: Path) -> Any:
    import h5py

    from bluesky_filestore.files.hdf5_opening import is_open_here

    # The plugin has closed it; whoever else reads it must not keep us from looking. Where this process does, perhaps
    # since the file was growing, HDF5 opens it again in the same way only.
    swmr: dict[str, Any] = {"libver": "latest", "swmr": True}
    ways: tuple[dict[str, Any], ...] = ({"locking": False}, {}, {**swmr, "locking": False})
    for options in ways:
        try:
            return h5py.File(path, "r", **options)
        except OSError:
            if not is_open_here(str(path)):
                raise
    return h5py.File(path, "r", **swmr)


def _unallocated(data: Any) -> list[int]:
    """The rows of a chunked data set that have a chunk which was never written."""
    if data.chunks is None:
        return []
    counts = [math.ceil(size / chunk) for size, chunk in zip(data.shape, data.chunks, strict=True)]
    if data.id.get_num_chunks() == math.prod(counts):
        return []
    found: dict[int, int] = {}

    def count(chunk: Any) -> None:
        found[chunk.chunk_offset[0]] = found.get(chunk.chunk_offset[0], 0) + 1

    data.id.chunk_iter(count)
    step, whole = data.chunks[0], math.prod(counts[1:])
    return [
        row
        for start in range(0, data.shape[0], step)
        if found.get(start, 0) < whole
        for row in range(start, min(start + step, data.shape[0]))
    ]
