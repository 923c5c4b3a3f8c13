"""A run as one NeXus file: its metadata and event tables, and its frames where they are."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bluesky_filestore.errors import OptionError
from bluesky_filestore.files.nexus import run_shown_by, write_nexus
from bluesky_filestore.logs import get_logger
from bluesky_filestore.model.root_map import RootMap
from bluesky_filestore.reading.from_documents import Documents

from .nexus_entry import entry_of
from .run_contents import contents_of

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = ["RunFile", "export_nexus"]

_logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RunFile:
    """What became of a run file."""

    path: Path
    """Where it is."""
    uid: str
    """The run's uid."""
    arrays: Mapping[str, tuple[int, ...]]
    """The shapes of the arrays whose frames it has, by stream and data key."""
    lacks: Mapping[str, str]
    """What it does not have, and why, by stream and data key: a whole array, or some of its frames."""
    advice: tuple[str, ...] = ()
    """What who reads it has to know."""

    @property
    def ok(self) -> bool:
        """Whether it has all frames of the run."""
        return not self.lacks


def export_nexus(
    run: "Container | Documents",
    path: str | os.PathLike[str],
    *,
    copy: bool = False,
    root_map: Mapping[str, str] | None = None,
) -> RunFile:
    """Write a run into one HDF5 file, NeXus, of which frame i is event i; its images stay where they are.

    The file shows them as virtual datasets over the detectors' files, which it names by their way from its own
    directory: it can be moved together with them. silx, h5py, MATLAB and DAWN read it as any other file, those of
    compressed frames where HDF5 has the filter. What stands where HDF5 does not find a frame is NaN, or of integers the
    largest that there is; which frames are known not to be there is in an attribute ``missing_events``, and in what is
    returned.

    Parameters
    ----------
    run : tiled.client.container.Container, databroker.v1.Header, or iterable of tuple of str and Mapping
        A run of a catalog, whoever wrote it, or its documents.
    path : str or path
        The file. That of the same run is replaced, when the new one is complete; no other file is.
    copy : bool
        Whether frames are copied that lie in files of one frame each. Those of TIFF, JPEG and others that are not HDF5
        are not in the file otherwise; the file says why.
    root_map : Mapping of str to str, optional
        Where directories are now, as for `open_array`.

    Returns
    -------
    RunFile
        What the file has, and what it lacks; `RunFile.ok` says whether it has all frames.

    Raises
    ------
    DocumentError
        If documents are not those of one run, from its start on.
    OptionError
        If it is no run, or there is another file at the path.
    CatalogError
        If the catalog does not give it.
    OSError
        If the file cannot be written.
    """
    target = Path(path).expanduser().absolute()
    if isinstance(run, str | bytes):
        raise OptionError(f"{run!r} is no run; expected one of a catalog, e.g. client[uid], or the documents of one.")
    contents = contents_of(run, RootMap(root_map))
    shown = run_shown_by(target) if target.exists() else contents.uid
    if shown != contents.uid:
        what = f"shows run {shown}" if shown else "is no run file"
        raise OptionError(f"{target} is there and {what}; expected a new file, or the one of run {contents.uid}.")
    made = entry_of(contents, copy=copy)
    write_nexus(target, made.entry)
    written = RunFile(target, contents.uid, made.arrays, made.lacks, made.advice)
    for name, reason in written.lacks.items():
        _logger.warning("Run file %s lacks %s: %s", target, name, reason)
    return written
