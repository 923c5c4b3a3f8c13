"""Resources and datums made known to all runs."""

from collections.abc import Mapping
from typing import Any

from bluesky_filestore.errors import DocumentError, FileStoreError
from bluesky_filestore.frames import Assets
from bluesky_filestore.normalize import channel_of, indices_of, source_of_resource, source_of_stream_resource

__all__ = ["announce"]


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
            read = source_of_resource if name == "resource" else source_of_stream_resource
            assets.keep_document(name, uid, doc)
            known = assets.add_source(read(doc))
    except FileStoreError as error:
        assets.keep_document(name, uid, doc)
        assets.add_unusable(uid, str(error))
        return
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        assets.add_unusable(uid, f"{name} {uid!r} is not of its schema: {error!r}")
        return
    if not known:
        raise DocumentError(f"{name} {uid!r} came twice, with different words; the second is left out.")


def _add_datum(uid: str, doc: Mapping[str, Any], assets: Assets) -> bool:
    part = channel_of(doc, assets.sources.get(doc["resource"]))
    if part is None:
        return assets.add_datum(uid, doc["resource"], *indices_of(doc), doc["datum_kwargs"])
    source, index = part
    return assets.add_source(source) and assets.add_datum(uid, source.uid, index, 1, doc["datum_kwargs"])
