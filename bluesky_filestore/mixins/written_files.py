"""Looking at what a file plugin has left on the disk, where this machine sees it: its own counts are not always true.

A plugin counts files that it could not write on a full disk, and frames whose chunks HDF5 never wrote.
"""

from pathlib import Path

from bluesky_filestore.files.hdf5_opening import open_hdf5
from bluesky_filestore.files.hdf5_written import written_frames
from bluesky_filestore.model.specs import spec_named

__all__ = ["broken_file", "missing_rows"]

_DATA = spec_named("AD_HDF5").dataset
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
            open_hdf5(str(path), locking=False).close()
        except OSError as error:
            return f"{path} can't be opened: {error}"
    return None


def missing_rows(path: Path, frames: int, dataset: str = _DATA or "") -> tuple[list[int], str]:
    """Which of the first frames of an HDF5 file were never written, and what else is to be said.

    Parameters
    ----------
    path : Path
        The file, closed by its writer.
    frames : int
        How many there should be.
    dataset : str
        Where in the file; by default where the default layout has the frames.

    Returns
    -------
    list of int
        Their numbers, all of them if the file can't be opened.
    str
        The reason; empty if nothing is missing.
    """
    try:
        # The plugin has closed it; whoever else reads it must not keep us from looking.
        file = open_hdf5(str(path), locking=False)
    except OSError as error:
        words = f"{path} can't be opened, as after a full disk or an IOC that died: {str(error).rstrip('.')}"
        return list(range(frames)), words
    with file:
        if dataset not in file:
            return list(range(frames)), (
                f"{path} has no {dataset}, where readers look for them: the plugin's layout (XMLFileName) puts them "
                f"elsewhere, or, of an attribute, NDAttributesFile had none such when the file was made"
            )
        data = file[dataset]
        if file.swmr_mode:
            # What this process knew of it may be older.
            data.refresh()
        if data.ndim == 0:
            return list(range(frames)), f"{dataset} of {path} holds no frames: its shape is ()"
        written = written_frames(data, str(path))
        lost = written.lost(range(min(frames, data.shape[0]))) if written is not None else []
        missing = [*lost, *range(data.shape[0], frames)]
    return missing, f"{path} has no data there, most likely because the disk is full" if missing else ""
