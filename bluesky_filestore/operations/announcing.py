"""Resources and datums made known to all runs."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bluesky_filestore.errors import DocumentError, FileStoreError, UnknownSpecError
from bluesky_filestore.model.frame_map import Assets, Source
from bluesky_filestore.model.normalize import (
    indices_of,
    source_for_handler,
    source_of_resource,
    source_of_stream_resource,
    source_of_unknown,
)
from bluesky_filestore.model.specs import HDF5, OPAQUE

__all__ = ["announce"]

_OF_FRAMES = "AD_HDF5_SWMR_STREAM"


def announce(name: str, doc: Mapping[str, Any], assets: Assets) -> None:
    """Make a Resource, StreamResource or Datum known. What cannot be followed is known as such, with the reason.

    Raises
    ------
    DocumentError
        If it has no uid, or was announced before as something else: the first stands.
    """
    uid = doc.get("datum_id" if name == "datum" else "uid")
    if not isinstance(uid, str):
        raise DocumentError(f"{name} has the uid {uid!r}; expected a text. It is left out.")
    try:
        if name == "datum":
            known = _add_datum(uid, doc, assets)
        else:
            assets.keep_document(name, uid, doc)
            read = _source_of_resource(doc, assets) if name == "resource" else source_of_stream_resource(doc)
            known = assets.add_source(read)
    except FileStoreError as error:
        assets.keep_document(name, uid, doc)
        assets.add_unusable(uid, str(error))
        return
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        assets.add_unusable(uid, f"{name} {uid!r} is not of its schema: {error!r}")
        return
    if not known:
        raise DocumentError(f"{name} {uid!r} came twice, with different words; the second is left out.")


def _source_of_resource(doc: Mapping[str, Any], assets: Assets) -> Source:
    try:
        return source_of_resource(doc)
    except UnknownSpecError as error:
        if assets.has_handler(doc["spec"]):
            return source_for_handler(doc)
        return replace(source_of_unknown(doc), parameters={"unknown": str(error)})


def _add_datum(uid: str, doc: Mapping[str, Any], assets: Assets) -> bool:
    resource = doc["resource"]
    source = assets.sources.get(resource)
    is_known = source is None or not (source.is_handled or source.mimetype == OPAQUE)
    if resource in assets.unusable or not is_known:
        # What it means, a handler knows, or nobody.
        return assets.add_datum(uid, resource, 0, 1, doc["datum_kwargs"])
    part = _part_of(doc, source)
    if part is None:
        return assets.add_datum(uid, resource, *indices_of(doc), doc["datum_kwargs"])
    of_part, start, count = part
    return assets.add_source(of_part) and assets.add_datum(uid, of_part.uid, start, count, doc["datum_kwargs"])


def _part_of(datum: Mapping[str, Any], source: Source | None) -> tuple[Source, int, int] | None:
    """The part of a resource that a Datum is of by its own words, the first index in it, and how many they are.

    Returns
    -------
    tuple of Source, int and int, or None
        None if it does not speak of a part. Channels count from 1, as for area-detector-handlers' XSP3 handler; they
        are the dataset's second axis.

    Raises
    ------
    DocumentError
        If it names a dataset, and not which of its frames it stands for.
    """
    if source is None or source.mimetype != HDF5 or source.template is not None:
        return None
    kwargs = datum["datum_kwargs"]
    match kwargs:
        case {"frame": int(frame), "channel": int(channel), **rest} if not rest and frame >= 0 and channel >= 1:
            if source.spec != "XSP3":
                return None
            uid, only = f"{source.uid}/channel {channel}", {"slice": f":,{channel - 1},:"}
            return replace(source, uid=uid, resource=source.uid, parameters={**source.parameters, **only}), frame, 1
        case {"dataset": str(dataset)}:
            source = replace(source, uid=f"{source.uid}/dataset {dataset}", resource=source.uid, dataset=dataset)
            kwargs = {name: value for name, value in kwargs.items() if name != "dataset"}
        case {"frame": int()} if source.spec == _OF_FRAMES:
            pass
        case _:
            return None
    match kwargs:
        # The number of a frame is that of the point where a point has one frame.
        case {"frame": int(frame), **rest} if not rest and source.spec == _OF_FRAMES and source.frames_per_index == 1:
            kwargs = {"index": frame}
    return source, *indices_of({**datum, "datum_kwargs": kwargs})
