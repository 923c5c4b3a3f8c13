"""What a data file says of itself: shape, dtype, number of frames."""

import stat
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

from bluesky_filestore.errors import LockedFileError, MissingFileError, UnreadableFileError
from bluesky_filestore.model.file_facts import FileFacts, Unseen
from bluesky_filestore.model.frame_axis import why_not_served
from bluesky_filestore.model.frame_map import Source
from bluesky_filestore.model.specs import HDF5, JPEG_SERIES, NPY_SERIES, TIFF_SERIES

__all__ = ["inspect_files"]


def inspect_files(source: Source, files: Sequence[PurePath]) -> list[FileFacts | Unseen]:
    """Look at files of one source.

    Parameters
    ----------
    source : Source
        Says what the files are.
    files : sequence of PurePath
        The files to look at, of one format and, where the format has them, one dataset.

    Returns
    -------
    list of FileFacts or Unseen
        One for each file. `Unseen` says whether the file is out of reach (its directory is not there), missing or
        broken, and why.
    """
    directories: dict[PurePath, bool] = {}
    same_size: dict[int, FileFacts] = {}
    seen: list[FileFacts | Unseen] = []
    for file in files:
        path = Path(file)
        if path.parent not in directories:
            directories[path.parent] = path.parent.is_dir()
        if not directories[path.parent]:
            seen.append(Unseen("out of reach", f"directory {path.parent} is not there"))
            continue
        try:
            status = path.stat()
        except OSError as error:
            seen.append(Unseen("missing", f"file {path} cannot be found ({error.strerror})"))
            continue
        if not stat.S_ISREG(status.st_mode):
            seen.append(Unseen("broken", f"{path} is not a file"))
            continue
        if not status.st_size:
            seen.append(
                Unseen(
                    "broken",
                    f"file {path} cannot be read: it is empty (0 bytes), nothing was written to it, or not yet",
                )
            )
            continue
        # Files of one series and one size are alike; reading 10,000 headers would take seconds. A JPEG's size says
        # nothing.
        known = same_size.get(status.st_size) if source.mimetype not in (HDF5, JPEG_SERIES) else None
        facts = known or _read(source, path)
        if isinstance(facts, FileFacts):
            same_size[status.st_size] = facts
        seen.append(facts)
    return seen


def _read(source: Source, path: Path) -> FileFacts | Unseen:
    try:
        if source.mimetype == HDF5:
            return _hdf5(path, source.dataset or "")
        if source.mimetype == TIFF_SERIES:
            return _tiff(path)
        if source.mimetype == NPY_SERIES:
            return _npy(path)
        if source.mimetype == JPEG_SERIES:
            return _jpeg(path)
    except LockedFileError as error:
        return Unseen("busy", str(error))
    except MissingFileError as error:
        # It is led to by a link.
        return Unseen("missing", str(error))
    except UnreadableFileError as error:
        return Unseen("broken", str(error))
    except BlockingIOError as error:
        # What h5py raises where the writer's lock keeps it out.
        return Unseen("busy", f"file {path} is still being written ({error.strerror})")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        # What libraries raise for files that are not what they should be has no bounds, and is of one key only.
        return Unseen("broken", f"file {path} cannot be read: {str(error) or type(error).__name__}")
    return Unseen("out of reach", f"files of type {source.mimetype!r} are not looked into")


def _hdf5(path: Path, dataset: str) -> FileFacts | Unseen:
    from .hdf5_layout import Elsewhere, dataset_in, linked_dataset
    from .hdf5_opening import open_hdf5
    from .readable import told

    facts: list[FileFacts | Unseen] = []

    def look(name: str, dataset: str) -> Any:
        with told(name), open_hdf5(name) as file:
            found = dataset_in(file, name, dataset)
            if not isinstance(found, Elsewhere):
                facts.append(_facts_of(found, name, dataset))
            return found

    linked_dataset(str(path), dataset, look)
    return facts[-1]


def _facts_of(found: Any, path: str, dataset: str) -> FileFacts | Unseen:
    unserved = why_not_served(found.shape, found.dtype)
    if unserved:
        return Unseen("broken", f"dataset {dataset!r} of file {path} cannot be registered: {unserved}")
    return FileFacts(tuple(found.shape), found.dtype.str)


def _tiff(path: Path) -> FileFacts:
    import tifffile

    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        return FileFacts(tuple(series.shape), series.dtype.str)


def _npy(path: Path) -> FileFacts:
    import numpy as np

    values = np.load(path, mmap_mode="r", allow_pickle=False)
    return FileFacts(tuple(values.shape), values.dtype.str)


def _jpeg(path: Path) -> FileFacts:
    from PIL import Image

    with Image.open(path, formats=["JPEG"]) as image:
        colours = len(image.getbands())
        return FileFacts((image.height, image.width, *((colours,) if colours > 1 else ())), "|u1")
