"""The frame that a reading means, from the documents to the pixels, as a reader goes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bluesky_filestore.errors import DocumentError, MissingFramesError
from bluesky_filestore.model.frame_map import Source
from bluesky_filestore.model.normalize import indices_of, source_of_resource, source_of_stream_resource
from bluesky_filestore.model.specs import HDF5, TIFF_SERIES

__all__ = ["FoundFrame", "find_frame"]


@dataclass(frozen=True, slots=True)
class FoundFrame:
    """A frame that has been read."""

    file: Path
    """Where it was."""
    number: int
    """Which of the frames of the resource it is, from 0 on."""
    shape: tuple[int, ...]
    """(y, x), or (y, x, 3) and the like for colour."""
    dtype: str
    """As numpy spells it, e.g. ``'<u2'``."""


def find_frame(key: str, readings: Mapping[str, Any], documents: Sequence[tuple[str, Mapping[str, Any]]]) -> FoundFrame:
    """Read the last of the frames that the latest reading of a data key stands for.

    Parameters
    ----------
    key : str
        The external data key.
    readings : Mapping
        What the detector's `read` returned.
    documents : sequence of tuple
        The asset documents that it handed out.

    Raises
    ------
    DocumentError, UnknownSpecError, PathError
        If the documents do not say where the frame is.
    MissingFramesError
        If the file has fewer frames.
    OSError
        If the file is not there or can't be read.
    """
    source, index = _place(key, readings, documents)
    number = (index + 1) * (source.frames_per_index or 1) - 1
    if source.template is not None:
        return _read(Path(source.template % number), source, number, None)
    return _read(Path(source.path), source, number, number)


def _place(
    key: str, readings: Mapping[str, Any], documents: Sequence[tuple[str, Mapping[str, Any]]]
) -> tuple[Source, int]:
    resources = {doc["uid"]: doc for name, doc in documents if name in ("resource", "stream_resource")}
    if key in readings:
        wanted = readings[key]["value"]
        for name, doc in documents:
            if name == "datum" and doc["datum_id"] == wanted:
                first, count = indices_of(doc)
                return source_of_resource(_known(resources, doc["resource"])), first + count - 1
        raise DocumentError(f"{key} reads {wanted!r}, and no datum of this id was handed out; expected one.")
    for name, doc in reversed(documents):
        if name == "stream_datum":
            resource = _known(resources, doc["stream_resource"])
            if resource["data_key"] == key:
                return source_of_stream_resource(resource), doc["indices"]["stop"] - 1
    raise DocumentError(f"{key} is described as external, and neither a reading nor a stream_datum tells of it.")


def _known(resources: Mapping[str, Any], uid: str) -> Mapping[str, Any]:
    if uid not in resources:
        raise DocumentError(f"a datum names the resource {uid!r}, which was not handed out with it.")
    known: Mapping[str, Any] = resources[uid]
    return known


def _read(file: Path, source: Source, number: int, row: int | None) -> FoundFrame:
    """One row of a file, or all of a file that holds one frame (None)."""
    if source.mimetype == HDF5:
        return _from_hdf5(file, source.dataset or "", number, row)
    if source.mimetype == TIFF_SERIES:
        from bluesky_filestore.files.readable import ANYWHERE
        from bluesky_filestore.files.tiff import read_tiff

        with ANYWHERE.opened(str(file)) as descriptor:
            array = read_tiff(descriptor, str(file))
        return FoundFrame(file, number, tuple(array.shape), array.dtype.str)
    raise DocumentError(f"files of type {source.mimetype!r} are not looked into; expected HDF5 or TIFF.")


def _from_hdf5(file: Path, name: str, number: int, row: int | None) -> FoundFrame:
    import h5py
    import hdf5plugin  # noqa: F401 - importing it registers its filters

    with h5py.File(file, "r") as opened:
        if not isinstance(opened.get(name), h5py.Dataset):
            raise DocumentError(f"{file} has no dataset {name!r}; expected the frames there.")
        dataset = opened[name]
        if row is not None and len(dataset) <= row:
            raise MissingFramesError(f"{file} holds {len(dataset)} frames; expected number {row}, counted from 0.")
        array = dataset[()] if row is None else dataset[row]
        return FoundFrame(file, number, tuple(array.shape), array.dtype.str)
