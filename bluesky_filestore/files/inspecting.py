"""What a data file says of itself: shape, dtype, number of frames."""

import stat
from collections.abc import Sequence
from pathlib import Path, PurePath

from bluesky_filestore.errors import AddressError, UnreadableFileError
from bluesky_filestore.model.file_facts import FileFacts, Unseen, why_unseen
from bluesky_filestore.model.frame_map import Source
from bluesky_filestore.model.specs import HDF5, JPEG_SERIES

from .formats import stored_format

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
            why = "it is empty (0 bytes), nothing was written to it, or not yet"
            seen.append(Unseen("broken", f"file {path} cannot be read: {why}"))
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
        stored = stored_format(source.mimetype, str(path), source.dataset or "")
    except AddressError as error:
        return Unseen("out of reach", str(error))
    except UnreadableFileError as error:
        return why_unseen(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        # What libraries raise for files that are not what they should be has no bounds, and is of one key only.
        return Unseen("broken", f"file {path} cannot be read: {str(error) or type(error).__name__}")
    return FileFacts(stored.shape, stored.dtype.str)
