"""Files that show what no stock adapter can address, so that a stock server reads it.

Dark and primary in one file, a rewound scan, a detector that was staged again: such rows are shown by a small HDF5 file
with a virtual dataset, which is registered in their place. It is named by run, stream and data key, and holds the way
from its directory to the files: making it again gives the same, and it can be moved together with them.
"""

import hashlib
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

from bluesky_filestore.errors import FileStoreError, OptionError
from bluesky_filestore.logs import get_logger
from bluesky_filestore.model.asset_paths import NOT_IN_URIS
from bluesky_filestore.model.specs import HDF5
from bluesky_filestore.operations.placement import Placement, Refusal, Viewer

__all__ = ["views_in"]

_logger = get_logger(__name__)
_DATASET = "/entry/data/data"
_MOST_SHOWN = 10
_MOST_FILES = 200
"""HDF5 keeps each file open of which it has read something, and gives the fill value where it may not open another."""


def views_in(directory: str | Path | None) -> Viewer | None:
    """Who makes such files in a directory, which the server has to be able to read.

    Parameters
    ----------
    directory : str or Path or None
        It is made when it is needed. With None there is nobody.

    Raises
    ------
    OptionError
        If no server could read there.
    """
    if directory is None:
        return None
    if not isinstance(directory, str | Path) or directory == "":
        raise OptionError(f"views={directory!r} names no directory; expected one that the catalog's server may read.")
    absolute = Path(directory).expanduser().absolute()
    if NOT_IN_URIS & set(str(absolute)):
        raise OptionError(f"views={str(directory)!r} has one of '#?;' in its path, which Tiled cannot open.")
    return partial(_view, absolute)


def _view(directory: Path, run: str, stream: str, data_key: str, placement: Placement) -> Placement | Refusal:
    path = directory / f"{_safe(run)}_{_safe(stream)}_{_safe(data_key)}.h5"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lost = _write(path, data_key, placement)
    except (FileStoreError, OSError) as error:
        _logger.warning("No view of %s/%s of run %s can be made in %s: %s", stream, data_key, run, directory, error)
        return Refusal(f"no view of it can be made in {directory}: {error}", settled=False)
    # How the sources are opened follows from how the view is: HDF5 opens no file in two ways at a time.
    parameters = {"dataset": _DATASET, **({"swmr": True} if placement.parameters.get("swmr") else {})}
    said = "; ".join(filter(None, (placement.unverified, lost)))
    return replace(placement, mimetype=HDF5, parameters=parameters, properties={}, files=(str(path),), unverified=said)


def _write(path: Path, data_key: str, placement: Placement) -> str:
    """Write a view; what a server gives for frames that are not there, if some are not."""
    import numpy as np

    from bluesky_filestore.files.array_in_files import ArrayInFiles
    from bluesky_filestore.files.hdf5 import HDF5Files
    from bluesky_filestore.files.hdf5_view_writing import fill_value
    from bluesky_filestore.files.hdf5_views import view_of
    from bluesky_filestore.files.nexus import Group, Shown, write_nexus
    from bluesky_filestore.files.registered import Registered, frames_of

    shape, dtype = (placement.count, *placement.event.shape), np.dtype(placement.event.dtype)
    rows = Registered(placement.mimetype, placement.parameters, placement.properties, placement.files, shape, dtype)
    # Closed at once: whoever wrote them may have them open.
    with HDF5Files() as files:
        view = view_of(ArrayInFiles(rows, partial(frames_of, files=files)), files)
    if view.files > _MOST_FILES:
        raise OptionError(
            f"it is in {view.files} files, and HDF5 shows no more than it may keep open; expected {_MOST_FILES} at most"
        )
    data = Group("NXdata", {"data": Shown(view, {"long_name": data_key})}, {"signal": "data"})
    write_nexus(path, Group("NXentry", {"data": data}, {"default": "data"}))
    if not view.missing:
        return ""
    lost, reason = list(view.missing), next(iter(view.missing.values()))
    shown = ", ".join([*map(str, lost[:_MOST_SHOWN]), *(["..."] if len(lost) > _MOST_SHOWN else [])])
    return f"there are no frames for events {shown}, and a stock server gives {fill_value(dtype)} for them: {reason}"


def _safe(name: str) -> str:
    """A name of letters that any disk and any address takes, another one for each."""
    safe = re.sub(r"[^A-Za-z0-9_-]", "-", name)[:60]
    return safe if safe == name else f"{safe}-{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:8]}"
